//! The floor under a container: the bare system calls that one takes here, without JSON, state, checks or a command line.
//! `cargo xtask bench` prints it beside what `ferry runtime` takes.
//!
//! `floor ROOT ROUNDS RUNTIME`: medians in microseconds, one `name value` a line. ROOT has a static `bin/true`.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use ferry_sys::clone::{self, Options};
use ferry_sys::mount::{Attributes, Mount, NODEV, NOEXEC, NOSUID, RDONLY};
use ferry_sys::{SingleThreaded, exec};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

/// Mount, PID, network, IPC and UTS namespaces.
const NAMESPACES: u64 = 0x0002_0000 | 0x2000_0000 | 0x4000_0000 | 0x0800_0000 | 0x0400_0000;
const NULLED: [&str; 5] = [
    "proc/kcore",
    "proc/keys",
    "proc/timer_list",
    "proc/sched_debug",
    "proc/acpi",
];
const FROZEN: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let [_, root, rounds, runtime] = args.as_slice() else {
        eprintln!("floor ROOT ROUNDS RUNTIME");
        return ExitCode::from(2);
    };
    let rounds: usize = rounds.parse().unwrap();
    let proof = SingleThreaded::check().unwrap();
    let mut samples = vec![Vec::new(); 4];
    for _ in 0..rounds {
        let started = Instant::now();
        let groups = make_groups();
        let made = started.elapsed();
        let tasks: Vec<OwnedFd> = groups
            .iter()
            .map(|group| open(&group.join("tasks"), OFlags::WRONLY))
            .collect();
        let options = Options {
            namespaces: NAMESPACES,
            ..Options::default()
        };
        let Some(child) = clone::clone(&proof, &options).unwrap() else {
            inside(Path::new(root), &tasks, &groups);
            clone::exit_now(1);
        };
        let exit = child.wait(true).unwrap().unwrap();
        assert_eq!(exit.code(), 0, "the bare container failed");
        let ran = started.elapsed();
        drop(tasks);
        for group in &groups {
            fs::remove_dir(group).unwrap();
        }
        let done = started.elapsed();
        let begin = Instant::now();
        let version = Command::new(runtime)
            .args(["runtime", "--version"])
            .stdout(Stdio::null())
            .status();
        assert!(version.unwrap().success());
        for (samples, time) in samples.iter_mut().zip([made, ran - made, done - ran, begin.elapsed()]) {
            samples.push(time.as_micros());
        }
    }
    for (name, samples) in ["mkdir", "container", "rmdir", "start"].iter().zip(&mut samples) {
        samples.sort_unstable();
        println!("{name} {}", samples[rounds / 2]);
    }
    ExitCode::SUCCESS
}

fn open(path: &Path, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// A group in every v1 hierarchy, or one in the unified one.
fn make_groups() -> Vec<PathBuf> {
    let name = format!("ferry-test-floor-{}", std::process::id());
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path());
    let v1 = ["blkio", "cpu", "cpuacct", "devices", "freezer", "memory", "pids"];
    let mut groups: Vec<PathBuf> = hierarchies
        .filter(|path| v1.iter().any(|name| path.ends_with(name)))
        .collect();
    if top.join("cgroup.procs").exists() {
        groups = vec![top.to_owned()];
    }
    for group in &mut groups {
        group.push(&name);
        fs::create_dir(&group).unwrap();
    }
    groups
}

fn inside(root: &Path, tasks: &[OwnedFd], groups: &[PathBuf]) {
    for tasks in tasks {
        rustix::io::write(tasks, b"0").unwrap();
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let null = open(Path::new("/dev/null"), OFlags::PATH);
    let bound: Vec<Mount> = groups
        .iter()
        .map(|group| Mount::clone_path(group, false).unwrap())
        .collect();
    Mount::clone_path(root, true)
        .unwrap()
        .attach(open(root, OFlags::PATH).as_fd())
        .unwrap();
    rustix::process::chdir(root).unwrap();
    let place = |path: &str| rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let attach = |mount: &Mount, path: &str| mount.attach(place(path).as_fd()).unwrap();
    let all = NOSUID | NODEV | NOEXEC;
    attach(&Mount::new("proc", &[], 0).unwrap(), "proc");
    attach(
        &Mount::new("tmpfs", &[("mode", "755"), ("size", "64k")], NOSUID).unwrap(),
        "dev",
    );
    for directory in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdir(format!("dev/{directory}"), Mode::from(0o755)).unwrap();
    }
    let pts = [
        ("newinstance", ""),
        ("ptmxmode", "0666"),
        ("mode", "0620"),
        ("gid", "5"),
    ];
    attach(&Mount::new("devpts", &pts, NOSUID | NOEXEC).unwrap(), "dev/pts");
    attach(
        &Mount::new("tmpfs", &[("mode", "1777"), ("size", "64m")], all).unwrap(),
        "dev/shm",
    );
    attach(&Mount::new("mqueue", &[], all).unwrap(), "dev/mqueue");
    attach(&Mount::new("sysfs", &[], all | RDONLY).unwrap(), "sys");
    attach(&Mount::new("tmpfs", &[("mode", "755")], all).unwrap(), "sys/fs/cgroup");
    for (number, mount) in bound.iter().enumerate() {
        rustix::fs::mkdir(format!("sys/fs/cgroup/{number}"), Mode::from(0o755)).unwrap();
        attach(mount, &format!("sys/fs/cgroup/{number}"));
    }
    for (name, major, minor) in DEVICES {
        let path = format!("dev/{name}");
        rustix::fs::mknodat(
            CWD,
            path,
            FileType::CharacterDevice,
            Mode::from(0o666),
            makedev(major, minor),
        )
        .unwrap();
    }
    for path in NULLED.iter().filter(|path| Path::new(path).is_file()) {
        attach(&Mount::clone_of(null.as_fd(), Path::new(""), false).unwrap(), path);
    }
    for path in FROZEN.iter().filter(|path| Path::new(path).exists()) {
        let frozen = Mount::clone_of(place(path).as_fd(), Path::new(""), true).unwrap();
        frozen
            .set(Attributes {
                set: RDONLY,
                ..Attributes::default()
            })
            .unwrap();
        attach(&frozen, path);
    }
    rustix::process::pivot_root(".", ".").unwrap();
    rustix::mount::unmount(".", UnmountFlags::DETACH).unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    let error = exec::execve(c"/bin/true", &[CString::from(c"true")], &[]);
    eprintln!("execve: {error}");
}
