//! In the guest: runs the tests of the list, two at a time, each in a process of its own, and reports over the second
//! serial port, where the kernel says nothing.
//!
//! ```text
//! boot Linux 6.1.0-56-cloud-amd64, 1.9 s, cpuset cpu io memory hugetlb pids …
//! pass 1.25 ferry-e2e limits::shares_are_in_force
//! fail 3.02 ferry-e2e limits::memory_limits_are_in_force
//! | what it printed
//! done
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{LIST, REPORT};
use crate::shell;

const WORKERS: usize = 2;
const DEADLINE: Duration = Duration::from_secs(150);
/// How much of a failed test's output is reported: its last lines.
const LINES: usize = 50;
const COLUMNS: usize = 300;

const MOUNTS: [(&str, &str, &str); 5] = [
    ("tmpfs", "/run", "mode=755"),
    ("devpts", "/dev/pts", "ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("mqueue", "/dev/mqueue", ""),
    ("securityfs", "/sys/kernel/security", ""),
];

const CGROUPS: &str = "/sys/fs/cgroup";
const V2: [(&str, &str, &str); 1] = [("cgroup2", CGROUPS, "nsdelegate")];
/// Where the kernel runs SELinux, which labels what the runtime mounts over the hierarchies of cgroup v1.
const SELINUX: [(&str, &str, &str); 2] = [("selinuxfs", "/sys/fs/selinux", ""), ("tmpfs", CGROUPS, "mode=755")];
const V1: [&str; 5] = ["cpu,cpuacct", "devices", "freezer", "memory", "pids"];

/// One line of the list.
struct Test {
    program: String,
    package: String,
    name: String,
}

pub fn run() -> Result<bool> {
    let report = Mutex::new(
        File::options()
            .write(true)
            .open("/dev/ttyS1")
            .context("open the report")?,
    );
    let said = serve(&report);
    if let Err(error) = &said {
        say(&report, &format!("error {error:#}\n"))?;
    }
    say(&report, "done\n")?;
    said.map(|()| true)
}

fn serve(report: &Mutex<File>) -> Result<()> {
    let selinux = Path::new(SELINUX[0].1).is_dir();
    let others: &[_] = if selinux { &SELINUX } else { &V2 };
    for (kind, target, options) in MOUNTS.iter().chain(others) {
        mount(kind, target, options)?;
    }
    for controllers in V1.iter().filter(|_| selinux) {
        mount("cgroup", &format!("{CGROUPS}/{controllers}"), controllers)?;
    }
    shell::output(Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]))?;
    let word = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let (release, uptime) = (word("/proc/sys/kernel/osrelease"), word("/proc/uptime"));
    say(
        report,
        &format!(
            "boot Linux {release}, {} s, {}\n",
            uptime.split(' ').next().unwrap_or_default(),
            if selinux {
                "cgroup v1".to_owned()
            } else {
                word("/sys/fs/cgroup/cgroup.controllers")
            }
        ),
    )?;

    let list = fs::read_to_string(LIST).context("read the list of tests")?;
    let words = word("/proc/cmdline");
    let boot = words.split_whitespace().find_map(|word| word.strip_prefix("security="));
    let boot = format!("{}\t", boot.unwrap_or_default());
    let tests: Vec<Test> = list
        .lines()
        .filter_map(|line| line.strip_prefix(&boot))
        .filter_map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            Some(Test {
                program: parts.next()?,
                package: parts.next()?,
                name: parts.next()?,
            })
        })
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(|| {
                    while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                        run_one(test, report)?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(anyhow::anyhow!("a worker panicked")))
        })
    })
}

fn mount(kind: &str, target: &str, options: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    let mut mount = Command::new("/bin/busybox");
    mount.args(["mount", "-t", kind, kind, target]);
    if !options.is_empty() {
        mount.args(["-o", options]);
    }
    shell::output(&mut mount)?;
    Ok(())
}

fn run_one(test: &Test, report: &Mutex<File>) -> Result<()> {
    let output = format!("/tmp/{}-{}", test.package, test.name.replace("::", "-"));
    let file = File::create(&output)?;
    let started = Instant::now();
    let mut command = Command::new(&test.program);
    command
        .args(["--exact", &test.name, "--nocapture"])
        .stdin(Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    let status = wait(&mut command)?;
    let seconds = started.elapsed().as_secs_f64();
    let Test { package, name, .. } = test;
    if status.is_some_and(|status| status.success()) {
        return say(report, &format!("pass {seconds:.2} {package} {name}\n"));
    }
    let mut text = format!("fail {seconds:.2} {package} {name}\n");
    match status.map(|status| (status.code(), status.signal())) {
        None => text.push_str(&format!("| not done in {} s\n", DEADLINE.as_secs())),
        Some((_, Some(signal))) => text.push_str(&format!("| killed by signal {signal}\n")),
        Some(_) => {}
    }
    for line in tail(Path::new(&output)) {
        text.push_str(&format!("| {line}\n"));
    }
    say(report, &text)
}

/// `None`: it was killed when its time was up.
fn wait(command: &mut Command) -> Result<Option<ExitStatus>> {
    let mut child = command.spawn().context("start a test")?;
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tail(path: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    last.iter().map(|line| line.chars().take(COLUMNS).collect()).collect()
}

/// In one write, so that the reports of two tests do not mix.
fn say(report: &Mutex<File>, text: &str) -> Result<()> {
    let mut report = report.lock().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    report.write_all(text.as_bytes()).context(REPORT)
}
