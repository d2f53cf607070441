//! `cargo xtask soak`: containers and execs of `ferry runtime` without end, half of them killed at a random moment, and
//! then what is left: nothing.
//!
//! ```text
//! soak                 a subreaper: what the runtime's killed commands leave behind becomes its child, and is reaped
//!  └─ soak work        as many threads as there are containers at once
//!      ├─ cycles       create, start, delete of `true`; one of them, or the container, is killed; then `delete --force`
//!      └─ execs        of `true` in containers that run all the while; or the command is killed
//! ```
//! Every killed container is looked for right after its forced removal (state directory, control groups). At the end
//! processes, mounts, control groups, open files, network namespaces and memory are compared with the beginning.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferry_testkit::{Bundle, tools};
use rustix::process::{Pid, Signal, WaitOptions};
use serde_json::json;

const USAGE: &str = "soak [CYCLES [EXECS [AT-ONCE]]]";
/// How much memory the kernel may keep for itself after hundreds of thousands of processes: caches, mostly.
const TOLERATED_MIB: u64 = 128;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let works = args.first().is_some_and(|arg| arg == "work");
    if works {
        args.remove(0);
    }
    let number = |index: usize, default: u64| args.get(index).map_or(Ok(default), |text| text.parse());
    let (Ok(cycles), Ok(execs), Ok(at_once)) = (number(0, 100_000), number(1, 100_000), number(2, 16)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if works {
        work(cycles, execs, at_once);
        return ExitCode::SUCCESS;
    }
    supervise(&[cycles, execs, at_once].map(|number| number.to_string()))
}

/// Starts the work, reaps whatever becomes a child, and compares.
fn supervise(numbers: &[String; 3]) -> ExitCode {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let before = Machine::look();
    println!("before: {before:?}");
    let begin = Instant::now();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .arg("work")
        .args(numbers)
        .spawn()
        .unwrap();
    let (number, mut orphans) = (pid(&worker), 0);
    let worked = loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if ended == number => {
                break status.exit_status() == Some(0);
            }
            Ok(_) => orphans += 1,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("wait: {error}"),
        }
    };
    // Reaped above, with all the others.
    let _ = worker.wait();
    let left = reap_the_rest(&mut orphans);
    // The kernel takes namespaces and dead control groups apart in its own time.
    let mut after = Machine::look();
    let end = Instant::now() + Duration::from_secs(60);
    let mut wrong = before.differences(&after);
    while !wrong.is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_secs(1));
        after = Machine::look();
        wrong = before.differences(&after);
    }
    println!("after:  {after:?}");
    println!(
        "{} cycles and {} execs, {} at a time, in {:.0} s; {orphans} orphans reaped, {left} processes left",
        numbers[0],
        numbers[1],
        numbers[2],
        begin.elapsed().as_secs_f64()
    );
    for line in &wrong {
        println!("not as before: {line}");
    }
    if worked && left == 0 && wrong.is_empty() {
        println!("nothing was left behind");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The work is done: every process that is still there after five seconds was left behind.
fn reap_the_rest(orphans: &mut u64) -> usize {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => *orphans += 1,
            Err(rustix::io::Errno::CHILD) => return 0,
            _ if Instant::now() > end => break,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    let me = std::process::id();
    let children = fs::read_to_string(format!("/proc/self/task/{me}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        let command = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        println!("left behind: process {child} {}", command.replace('\0', " "));
    }
    children.split_whitespace().count()
}

/// What a leak would show in.
#[derive(Debug)]
struct Machine {
    mounts: u64,
    /// Dead ones that still hold memory are among them.
    control_groups: u64,
    open_files: u64,
    network_namespaces: u64,
    available_mib: u64,
    unreclaimable_mib: u64,
}

impl Machine {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let first = |text: &str| text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
        let memory = read("/proc/meminfo");
        let kilobytes = |name: &str| {
            memory
                .lines()
                .find_map(|line| first(line.strip_prefix(name)?))
                .unwrap_or(0)
        };
        let groups = read("/proc/cgroups");
        let group = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
        let slabs = read("/proc/slabinfo");
        Self {
            mounts: read("/proc/self/mountinfo").lines().count() as u64,
            control_groups: groups.lines().filter_map(group).sum(),
            open_files: first(&read("/proc/sys/fs/file-nr")).unwrap_or(0),
            network_namespaces: slabs
                .lines()
                .find_map(|line| first(line.strip_prefix("net_namespace")?))
                .unwrap_or(0),
            available_mib: kilobytes("MemAvailable:") / 1024,
            unreclaimable_mib: kilobytes("SUnreclaim:") / 1024,
        }
    }

    /// Others may use the machine meanwhile: what is compared exactly is what nobody else makes by the thousand.
    fn differences(&self, after: &Self) -> Vec<String> {
        let bounds = [
            ("mounts", self.mounts, after.mounts, 0),
            ("control groups", self.control_groups, after.control_groups, 64),
            ("open files", self.open_files, after.open_files, 512),
            (
                "network namespaces",
                self.network_namespaces,
                after.network_namespaces,
                64,
            ),
            (
                "MiB of unreclaimable slab",
                self.unreclaimable_mib,
                after.unreclaimable_mib,
                TOLERATED_MIB,
            ),
            // More used is less available.
            (
                "MiB in use",
                0,
                self.available_mib.saturating_sub(after.available_mib),
                TOLERATED_MIB,
            ),
        ];
        bounds
            .iter()
            .filter(|(_, before, after, tolerated)| after.saturating_sub(*before) > *tolerated)
            .map(|(what, before, after, _)| format!("{what}: {before} before, {after} after"))
            .collect()
    }
}

fn work(cycles: u64, execs: u64, at_once: u64) {
    let begin = Instant::now();
    let bundles: Vec<Bundle> = (0..at_once).map(|_| Bundle::sh("true")).collect();
    for bundle in &bundles {
        write_config(bundle, &["/bin/true"]);
    }
    each(cycles, &bundles, "cycles", begin, cycle);
    for bundle in &bundles {
        write_config(bundle, &["/bin/sleep", "1000000"]);
        run(bundle, &["create", "c"]);
        run(bundle, &["start", "c"]);
    }
    each(execs, &bundles, "execs", begin, exec);
    for bundle in &bundles {
        run(bundle, &["delete", "--force", "c"]);
    }
}

fn write_config(bundle: &Bundle, args: &[&str]) {
    let mut spec = bundle.spec.clone();
    spec["process"]["args"] = json!(args);
    fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
}

/// Does `one` `total` times, in a thread for each bundle.
fn each(total: u64, bundles: &[Bundle], name: &str, begin: Instant, one: fn(&Bundle, &mut Chance)) {
    let (done, said) = (AtomicU64::new(0), Mutex::new(0));
    std::thread::scope(|scope| {
        for (number, bundle) in (1..).zip(bundles) {
            let (done, said) = (&done, &said);
            scope.spawn(move || {
                let mut chance = Chance(0x9e37_79b9_7f4a_7c15 * number);
                loop {
                    let count = done.fetch_add(1, Ordering::Relaxed);
                    if count >= total {
                        return;
                    }
                    one(bundle, &mut chance);
                    if let Ok(mut said) = said.try_lock()
                        && *said < count * 10 / total
                    {
                        *said = count * 10 / total;
                        let seconds = begin.elapsed().as_secs();
                        println!("{seconds:>5} s  {count} {name}: {:?}", Machine::look());
                    }
                }
            });
        }
    });
}

/// One container, from create to delete; every other one is killed somewhere on the way.
fn cycle(bundle: &Bundle, chance: &mut Chance) {
    const STEPS: [&[&str]; 3] = [&["create", "c"], &["start", "c"], &["delete", "--force", "c"]];
    if chance.below(2) == 0 {
        for args in STEPS {
            run(bundle, args);
        }
    } else {
        let victim = chance.below(4);
        for (number, args) in (0..).zip(STEPS) {
            if number != victim {
                run(bundle, args);
                continue;
            }
            kill_within(spawn(bundle, args), chance, 12_000);
            // Nothing goes on after it: what a caller does is to clean up.
            break;
        }
        if victim == 3 {
            run(bundle, &["create", "c"]);
            let _ = spawn(bundle, &["kill", "c", "KILL"]).wait().unwrap();
        }
        run(bundle, &["delete", "--force", "c"]);
    }
    let left = left(bundle);
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn exec(bundle: &Bundle, chance: &mut Chance) {
    let args = ["exec", "c", "/bin/true"];
    if chance.below(2) == 0 {
        run(bundle, &args);
    } else {
        kill_within(spawn(bundle, &args), chance, 6_000);
    }
}

/// State and control groups of a container that was removed.
fn left(bundle: &Bundle) -> Vec<PathBuf> {
    let mut left = bundle.cgroups();
    left.push(bundle.state_root().join("c"));
    left.retain(|path| path.exists());
    left
}

fn spawn(bundle: &Bundle, args: &[&str]) -> Child {
    let stderr = fs::File::create(bundle.path().join("err")).unwrap();
    Command::new(tools::ferry())
        .arg("runtime")
        .arg("--root")
        .arg(bundle.state_root())
        .args(args)
        .current_dir(bundle.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

fn run(bundle: &Bundle, args: &[&str]) {
    let status = spawn(bundle, args).wait().unwrap();
    let said = || fs::read_to_string(bundle.path().join("err")).unwrap_or_default();
    assert!(status.success(), "{args:?}: {status}: {}", said());
}

/// Kills the command at some moment of the next `microseconds`, unless it has ended by then.
fn kill_within(mut child: Child, chance: &mut Chance, microseconds: u64) {
    std::thread::sleep(Duration::from_micros(chance.below(microseconds)));
    let _ = rustix::process::kill_process(pid(&child), Signal::KILL);
    let _ = child.wait();
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// xorshift64: the same moments in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
