//! What runs in the containers: this binary as `ferry probe STEP…`, single-threaded. Each step, `verb` or `verb=argument`,
//! prints one line that begins with the step as it was given.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use ferry_sys::clone::exit_now;
use ferry_sys::{Exit, Mount, Root, SingleThreaded};
use rustix::fs::{CWD, FileType, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

/// The first line: the runtime has let the program run.
pub(crate) const UP: &str = "the probe is up\n";
/// What `watch` has seen is written here, and it ends when the other file is there.
pub(crate) const SEEN: &str = "tmp/seen";
pub(crate) const STOP: &str = "tmp/stop";
/// Kinds of file systems (statfs(2)).
const CGROUP_V1: i64 = 0x27_e0eb;
const CGROUP_V2: i64 = 0x6367_7270;
/// Memory that `hog` uses.
const HOG: usize = 64 << 20;

/// The probe's whole program; its exit status.
pub fn probe(args: &[OsString]) -> u8 {
    print(UP);
    for arg in args {
        let step = arg.to_string_lossy();
        let (verb, argument) = step.split_once('=').unwrap_or((&step, ""));
        let answer = match verb {
            "status" => status(argument),
            "ids" => ids(),
            "fds" => descriptors(),
            "cwd" => directory(),
            "read" => read(argument),
            "list" => list(argument),
            "open" => open(argument),
            "masked" => masked(argument),
            "readonly" => read_only(argument),
            "mknod" => device(argument),
            "terminal" => terminal(argument),
            "parameter" => parameter(argument),
            "mounts" => mounts(argument),
            "cgroups" => cgroups(argument),
            "calls" => calls(argument),
            "watch" => watch(argument),
            "measure" => return measure(args),
            "hog" => hog(),
            "nap" => {
                std::thread::sleep(std::time::Duration::from_millis(100));
                String::new()
            }
            "sleep" => {
                print(&format!("{step}: \n"));
                loop {
                    std::thread::park();
                }
            }
            _ => "unknown step".to_owned(),
        };
        print(&format!("{step}: {}\n", answer.replace('\n', " ")));
    }
    0
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

fn error(error: &std::io::Error) -> String {
    format!("error {}", error.raw_os_error().unwrap_or_default())
}

/// A field of /proc/self/status.
fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default();
    value.trim().to_owned()
}

/// `uid gid groups…`, the groups in order and once each.
fn ids() -> String {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let mut groups: Vec<u32> = rustix::process::getgroups()
        .unwrap_or_default()
        .into_iter()
        .map(rustix::fs::Gid::as_raw)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let mut text = format!("{uid} {gid}");
    for group in groups {
        let _ = write!(text, " {group}");
    }
    text
}

/// Every descriptor above the standard streams, and what it is open on.
fn descriptors() -> String {
    let Ok(directory) = rustix::fs::open("/proc/self/fd", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return "no /proc/self/fd".to_owned();
    };
    let own = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let mut text = String::new();
    for number in (3..1024).filter(|number| *number != own) {
        if let Ok(target) = fs::read_link(format!("/proc/self/fd/{number}")) {
            let _ = write!(text, "{number} -> {} ", target.display());
        }
    }
    text
}

/// Where the working directory is: `inside` if its path leads back to it, else what getcwd(2) says.
fn directory() -> String {
    let here = match rustix::process::getcwd(Vec::new()) {
        Ok(here) => here.to_string_lossy().into_owned(),
        Err(error) => return format!("outside: getcwd: {error}"),
    };
    let (Ok(dot), Ok(named)) = (rustix::fs::stat("."), rustix::fs::stat(here.as_str())) else {
        return format!("outside: {here}");
    };
    if here.starts_with('/') && (dot.st_dev, dot.st_ino) == (named.st_dev, named.st_ino) {
        "inside".to_owned()
    } else {
        format!("outside: {here}")
    }
}

/// At most 4 KiB of a file.
fn read(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut bytes = [0; 4096];
    let read = rustix::fs::open(path, flags, Mode::empty()).and_then(|fd| rustix::io::read(fd, &mut bytes));
    match read {
        Ok(length) => String::from_utf8_lossy(&bytes[..length]).into_owned(),
        Err(errno) => error(&errno.into()),
    }
}

fn list(path: &str) -> String {
    match fs::read_dir(path) {
        Err(failure) => error(&failure),
        Ok(entries) => {
            let names = entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.collect::<Vec<_>>().join(" ")
        }
    }
}

/// Whether a file can be opened for writing. Nothing is written.
fn open(path: &str) -> String {
    match fs::File::options().write(true).open(path) {
        Ok(_) => "writable".to_owned(),
        Err(failure) => error(&failure),
    }
}

/// How a path is hidden: `absent`, `null` (the null device), `empty` (a directory); else what is there.
fn masked(path: &str) -> String {
    let Ok(meta) = fs::metadata(path) else {
        return "absent".to_owned();
    };
    let kind = meta.file_type();
    if kind.is_char_device() && meta.rdev() == rustix::fs::makedev(1, 3) {
        return "null".to_owned();
    }
    if kind.is_dir() {
        return match list(path).as_str() {
            "" => "empty".to_owned(),
            names => format!("a directory with {names}"),
        };
    }
    let fs = rustix::fs::statfs(path).map(|fs| fs.f_type).unwrap_or_default();
    format!(
        "a file (mode {:o}, device {}, file system {fs:x})",
        meta.mode(),
        meta.rdev()
    )
}

/// `yes`, `absent`, or `no`.
fn read_only(path: &str) -> String {
    match rustix::fs::statvfs(path) {
        Err(_) => "absent".to_owned(),
        Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) => "yes".to_owned(),
        Ok(_) => "no".to_owned(),
    }
}

/// `b:major:minor` or `c:…`: makes a device node and opens it.
fn device(node: &str) -> String {
    match open_device(node, Path::new("/tmp/node")) {
        None => "no numbers".to_owned(),
        Some(Err(Errno::PERM)) => "refused".to_owned(),
        Some(Err(errno)) => format!("let through: {errno}"),
        Some(Ok(())) => "opened".to_owned(),
    }
}

/// Makes a node at `path` and opens it for a moment.
pub(crate) fn open_device(node: &str, path: &Path) -> Option<rustix::io::Result<()>> {
    let (kind, numbers) = node.split_once(':')?;
    let (major, minor) = numbers.split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let kind = match kind {
        "b" => FileType::BlockDevice,
        _ => FileType::CharacterDevice,
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::mknodat(CWD, path, kind, Mode::from(0o600), device)
        .and_then(|()| rustix::fs::open(path, flags, Mode::empty()));
    let _ = fs::remove_file(path);
    Some(opened.map(drop))
}

/// What a path is, following links: `terminal` for a slave of a pseudo-terminal.
fn terminal(path: &str) -> String {
    match fs::metadata(path) {
        Err(failure) => error(&failure),
        // Unix98 slaves (devices.txt).
        Ok(meta) if meta.file_type().is_char_device() && (136..144).contains(&rustix::fs::major(meta.rdev())) => {
            "terminal".to_owned()
        }
        Ok(meta) if meta.file_type().is_char_device() => "a device".to_owned(),
        Ok(_) => "a file".to_owned(),
    }
}

/// A kernel parameter through a /proc of the probe's own.
fn parameter(key: &str) -> String {
    let read = Mount::new("proc", &[], 0).and_then(|proc| {
        let root = Root::from_fd(proc.into_fd());
        root.read(Path::new("sys").join(key.replace('.', "/")), 4096)
    });
    match read {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(failure) => error(&failure),
    }
}

/// Mount points at `path` and below, as the kernel has them.
fn mounts(path: &str) -> String {
    let table = Mount::new("proc", &[], 0).and_then(|proc| {
        let root = Root::from_fd(proc.into_fd());
        root.read(format!("{}/mountinfo", std::process::id()), 1 << 20)
    });
    let table = match table {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(failure) => return error(&failure),
    };
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(path))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Directories at `path` and below, two levels deep, in which a control group can be made.
fn cgroups(path: &str) -> String {
    let mut found = Vec::new();
    let below = |path: &Path| -> Vec<_> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let mut directories = vec![Path::new(path).to_owned()];
    for first in below(Path::new(path)) {
        directories.extend(below(&first));
        directories.push(first);
    }
    for directory in directories {
        // A tmpfs above the hierarchies is the container's own.
        let kind = rustix::fs::statfs(&directory).map(|fs| fs.f_type).unwrap_or_default();
        if ![CGROUP_V1, CGROUP_V2].contains(&kind) {
            continue;
        }
        let new = directory.join("ferry-self-test");
        if fs::create_dir(&new).is_ok() {
            let _ = fs::remove_dir(&new);
            found.push(directory.display().to_string());
        }
    }
    found.join(" ")
}

/// The system calls that are not refused, of those whose name has `part` in front (empty: native ones).
fn calls(part: &str) -> String {
    let Ok(proof) = SingleThreaded::check() else {
        return "more than one thread".to_owned();
    };
    let foreign = |name: &str| name.starts_with("x32 ") || name.starts_with("int80 ");
    let mut open = Vec::new();
    for call in ferry_sys::probe::CALLS {
        if foreign(call.name) != (part == "foreign") {
            continue;
        }
        let child = match ferry_sys::clone::clone(&proof, &ferry_sys::clone::Options::default()) {
            Ok(Some(child)) => child,
            Ok(None) => exit_now(match ferry_sys::probe::attempt(call) {
                Ok(()) => 0,
                Err(failure) => failure.raw_os_error().unwrap_or(0),
            }),
            Err(failure) => return format!("no child: {failure}"),
        };
        match child.wait(true) {
            Ok(Some(Exit::Code(libc::EPERM | libc::ENOSYS) | Exit::Signal(_))) => {}
            _ => open.push(call.name),
        }
    }
    open.join(", ")
}

/// Watches every other process for a moment in which something of the host can be had, until it is told to stop: an
/// executable that is not `own`, what that process has open, and executables that can be written to once they have ended.
fn watch(own: &str) -> String {
    let mut seen = Vec::new();
    let mut held: Vec<(String, OwnedFd)> = Vec::new();
    let stop = Path::new("/").join(STOP);
    let note = |seen: &mut Vec<String>, what: String| {
        if !seen.contains(&what) && seen.len() < 20 {
            seen.push(what);
            let _ = fs::write(Path::new("/").join(SEEN), seen.join("; "));
        }
    };
    while !stop.exists() {
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if number == std::process::id() {
                continue;
            }
            let link = process.path().join("exe");
            // Another process's is refused, and a kernel's is not there.
            let Ok(target) = fs::read_link(&link) else { continue };
            if target == Path::new(own) {
                continue;
            }
            note(&mut seen, format!("executable {}", target.display()));
            if held.len() < 64
                && let Ok(fd) = rustix::fs::open(&link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            {
                held.push((target.display().to_string(), fd));
            }
            for open in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
                if let Ok(target) = fs::read_link(open.path())
                    && target.starts_with("/")
                    && !target.starts_with("/proc")
                    && !target.starts_with("/dev")
                {
                    note(&mut seen, format!("open {}", target.display()));
                }
            }
        }
        held.retain(|(target, fd)| {
            let link = ferry_sys::handle::path_of(fd.as_fd());
            match fs::File::options().write(true).open(link) {
                // It runs still.
                Err(failure) if failure.raw_os_error() == Some(libc::ETXTBSY) => true,
                Err(_) => false,
                Ok(file) => {
                    let sealed = rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
                    // A copy that only that process had is nobody's loss.
                    let gone = file.metadata().is_ok_and(|meta| meta.nlink() == 0);
                    if !sealed && !gone {
                        note(&mut seen, format!("writable {target}"));
                    }
                    false
                }
            }
        });
    }
    seen.join("; ")
}

/// `measure PROGRAM ARGUMENTS…`: runs a command and prints the most memory it had.
fn measure(args: &[OsString]) -> u8 {
    let Some((program, rest)) = args.get(1..).and_then(<[OsString]>::split_first) else {
        return 1;
    };
    let status = std::process::Command::new(program).args(rest).status();
    let bytes = ferry_sys::process::largest_child().unwrap_or(u64::MAX);
    print(&format!("measure: {}\n", bytes >> 20));
    match status.map(|status| status.code()) {
        Ok(Some(code)) => u8::try_from(code).unwrap_or(1),
        _ => 1,
    }
}

/// Uses memory, so that a measurement can be seen to count it.
fn hog() -> String {
    let bytes = vec![1_u8; HOG];
    format!("{}", bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>())
}
