//! Becoming the user's program: identity, limits, capabilities, seccomp, `execve`. Shared by the first process and exec.
//!
//! Runs with the container's root as `/`. The order is the point: what needs a privilege comes before the privilege goes.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ferry_sys::process::SchedulerAttributes;
use ferry_sys::{Root, SingleThreaded, exec, packet, seccomp};
use rustix::fs::{Access, AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::failure::{During as _, Failure, Kind, reason};
use crate::gate;
use crate::hooks::{self, Hook};
use crate::identity::{self, Identity};
use crate::init::{LISTENER, READY};
use crate::plan::{self, Process};
use crate::start::Channel;

/// What stands at descriptors 0, 1 and 2.
#[derive(Debug)]
pub(crate) struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// What a process needs beside its plan.
pub(crate) struct Equipment<'a> {
    /// The streams are a terminal, which becomes the controlling one.
    pub terminal: bool,
    /// A compiled filter, an array of `struct sock_filter`.
    pub seccomp: Option<&'a [u8]>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub seccomp_flags: u32,
    /// Ferry's own binary: PID 1 becomes it instead of the program (`--init`).
    pub init: Option<BorrowedFd<'a>>,
    /// Descriptors from 3 on that stay open.
    pub keep_fds: u32,
    /// Die with the parent.
    pub follow: bool,
    pub gate: Option<AtGate<'a>>,
}

/// Where the first process of a start in two steps waits.
pub(crate) struct AtGate<'a> {
    pub proof: &'a SingleThreaded,
    pub listener: &'a OwnedFd,
    pub hooks: &'a [Hook],
    pub state: &'a hooks::State,
}

/// Ends in the program or in the reason why not.
pub(crate) fn run(
    process: &Process,
    streams: Streams,
    equipment: &Equipment<'_>,
    channel: &mut Channel<'_>,
) -> Failure {
    match prepare_and_exec(process, streams, equipment, channel) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn prepare_and_exec(
    process: &Process,
    streams: Streams,
    equipment: &Equipment<'_>,
    channel: &mut Channel<'_>,
) -> Result<std::convert::Infallible, Failure> {
    let root = Root::open(Path::new("/")).during(|| "open /")?;
    let identity = identity::resolve(&root, &process.user)?;
    let env = identity::environment(&process.env, &identity.home)?;
    let args = process
        .args
        .iter()
        .map(|arg| identity::c_string(arg))
        .collect::<Result<Vec<_>, _>>()?;
    attach(&process.kernel)?;
    limits(&process.rlimits)?;
    place(streams, equipment.terminal, &identity)?;
    exec::close_on_exec_from(3 + equipment.keep_fds).during(|| "close descriptors")?;
    let in_cwd = enter_cwd(&root, process)?;
    drop(root);
    let Some(name) = process.args.first() else {
        return Err(Failure::new(Kind::Setup, "no command specified"));
    };

    // A filter without no-new-privileges takes CAP_SYS_ADMIN, which may be about to go; another one is the last thing before
    // the program and its hooks. The wait comes before either, so that none has to allow what the wait takes, but for one that
    // asks somebody: who is told at create.
    let filter = Filter::of(equipment);
    let early = filter.is_some() && !process.no_new_privileges;
    let asks = filter.as_ref().is_some_and(|filter| filter.flags & NEW_LISTENER != 0);
    let mut gate = equipment.gate.as_ref();
    if early && let Some(filter) = &filter {
        // What is not there is said at create and not at start. The user's own look comes later.
        if gate.is_some() && in_cwd {
            find(name, &process.env)?;
        }
        if !asks {
            pass(gate.take(), equipment, channel)?;
        }
        filter.load(channel)?;
    }
    become_user(process, &identity)?;
    if !in_cwd {
        rustix::process::chdir(&process.cwd).map_err(|error| no_cwd(&process.cwd, &error.into()))?;
    }
    verify_cwd()?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(0o022)));
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).during(|| "set no-new-privileges")?;
    }
    let path = match equipment.init {
        Some(_) => None,
        None => Some(find(name, &process.env)?),
    };
    if !asks {
        pass(gate.take(), equipment, channel)?;
    }
    if let Some(filter) = filter.as_ref().filter(|_| !early) {
        filter.load(channel)?;
    }
    pass(gate, equipment, channel)?;
    if let Some(gate) = equipment.gate.as_ref().filter(|gate| !gate.hooks.is_empty()) {
        let state = gate.state.with_pid(rustix::process::getpid().as_raw_pid());
        hooks::run(gate.proof, "startContainer", gate.hooks, &state, &env)?;
    }
    if equipment.follow {
        // Should the supervisor die, so shall this. Last, because a change of credentials takes it back.
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill).during(|| "follow the supervisor")?;
    }
    exec::reset_signals().during(|| "reset signals")?;
    if let Some(binary) = equipment.init {
        let args: Vec<_> = [c"/sbin/docker-init".into(), c"--".into()]
            .into_iter()
            .chain(args)
            .collect();
        return Err(Failure::setup(
            "run the init process",
            &exec::fexecve(binary, &args, &env),
        ));
    }
    let path = match path {
        Some(path) => path,
        None => find(name, &process.env)?,
    };
    let error = exec::execve(&path, &args, &env);
    Err(refusal(&path, &error))
}

/// Says that all is ready and waits to be started, if this is a start in two steps. Nothing else of the host is open
/// while it waits.
fn pass(gate: Option<&AtGate<'_>>, equipment: &Equipment<'_>, channel: &mut Channel<'_>) -> Result<(), Failure> {
    let Some(gate) = gate else { return Ok(()) };
    let keep = [gate.listener.as_fd(), channel.fd()];
    exec::close_all_but(gate.proof, 3 + equipment.keep_fds, &keep).during(|| "close what is the host's")?;
    exec::end_on_signals();
    packet::send(channel.fd(), &[READY], &[]).during(|| "say that the container is ready")?;
    channel.hand_over(gate::wait(gate.listener)?);
    Ok(())
}

const NEW_LISTENER: u32 = 1 << 3;

/// A compiled filter and how it is loaded.
struct Filter<'a> {
    program: &'a [u8],
    flags: u32,
}

impl<'a> Filter<'a> {
    fn of(equipment: &Equipment<'a>) -> Option<Self> {
        let flags = equipment.seccomp_flags;
        equipment.seccomp.map(|program| Self { program, flags })
    }

    /// Its listener, if it has one, is taken over by the parent from this very process (`pidfd_getfd`): no call that the
    /// filter may ask about is made before somebody can answer, but for write(2), which it may not ask about.
    fn load(&self, channel: &Channel<'_>) -> Result<(), Failure> {
        let what = || "load the seccomp filter";
        let flags = u64::from(self.flags);
        if self.flags & NEW_LISTENER == 0 {
            return seccomp::load(self.program, flags).during(what);
        }
        let listener = seccomp::load_with_listener(self.program, flags).during(what)?;
        let mut message = vec![LISTENER];
        message.extend(listener.as_raw_fd().to_ne_bytes());
        rustix::io::write(channel.fd(), &message).during(what)?;
        let mut byte = [0; 1];
        match rustix::io::read(channel.fd(), &mut byte) {
            Ok(1) => Ok(()),
            _ => Err(Failure::new(Kind::Setup, "nobody took the seccomp listener")),
        }
    }
}

/// Scheduling, I/O priority, personality and CPUs: while there are privileges for them.
fn attach(kernel: &plan::Attached) -> Result<(), Failure> {
    if let Some(domain) = kernel.personality {
        ferry_sys::process::set_personality(domain).during(|| "set the personality")?;
    }
    if let Some((mode, nodes)) = &kernel.memory_policy {
        ferry_sys::process::set_memory_policy(*mode, nodes).during(|| "set the memory policy (linux.memoryPolicy)")?;
    }
    if let Some(scheduler) = &kernel.scheduler {
        ferry_sys::process::set_scheduler(SchedulerAttributes {
            size: 0,
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        })
        .map_err(|error| {
            let mut failure = Failure::setup("error setting scheduler", &error);
            if error.raw_os_error() == Some(libc::EPERM) {
                failure.message += ": it takes CAP_SYS_NICE, and SCHED_DEADLINE every CPU of the machine \
                                    (process scheduler can't be used together with AllowedCPUs)";
            }
            failure
        })?;
    }
    if let Some((class, priority)) = kernel.io_priority {
        ferry_sys::process::set_io_priority(class, priority).during(|| "set the I/O priority")?;
    }
    if !kernel.cpus.is_empty() {
        let mut set = rustix::thread::CpuSet::new();
        for &cpu in &kernel.cpus {
            let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
            if cpu < rustix::thread::CpuSet::MAX_CPU {
                set.set(cpu);
            }
        }
        rustix::thread::sched_setaffinity(None, &set).during(|| "set the CPU affinity")?;
    }
    Ok(())
}

fn limits(limits: &[plan::Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let what = || format!("set ulimit {}", limit.name);
        let Some(resource) = resource(&limit.name) else {
            return Err(Failure::new(
                Kind::Setup,
                format!("{}: invalid ulimit type", limit.name),
            ));
        };
        let value = |value: u64| if value == u64::MAX { None } else { Some(value) };
        let wanted = Rlimit {
            current: value(limit.soft),
            maximum: value(limit.hard),
        };
        match rustix::process::setrlimit(resource, wanted) {
            // Without CAP_SYS_RESOURCE (an engine inside a container) a hard limit cannot be raised: keep what there is.
            Err(rustix::io::Errno::PERM) => {
                let have = rustix::process::getrlimit(resource);
                let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                let clamped = Rlimit {
                    current: least(wanted.current, have.maximum),
                    maximum: have.maximum,
                };
                rustix::process::setrlimit(resource, clamped).during(what)?;
            }
            done => done.during(what)?,
        }
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// The streams become descriptors 0, 1 and 2, and are nothing else from then on.
fn place(streams: Streams, terminal: bool, identity: &Identity) -> Result<(), Failure> {
    for (target, fd) in (0..).zip([&streams.stdin, &streams.stdout, &streams.stderr]) {
        // So that the user can reopen them through /dev/stdout; a shared null device or a socket refuses, which is fine.
        if identity.uid != 0 && !is_null(fd.as_fd()) {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(identity.uid)), None);
        }
        exec::place(fd.as_fd(), target).during(|| "place the standard streams")?;
    }
    if terminal {
        rustix::process::ioctl_tiocsctty(&streams.stdin).during(|| "take the terminal")?;
    }
    drop(streams);
    Ok(())
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_rdev == rustix::fs::makedev(1, 3))
}

/// Changes to the working directory, making it if the plan says so. False: only the user may enter it; try again as him.
fn enter_cwd(root: &Root, process: &Process) -> Result<bool, Failure> {
    let cwd = &process.cwd;
    let opened = match root.resolve(cwd, OFlags::PATH | OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && process.make_cwd => root
            .mkdir_all(cwd, Mode::from(0o755))
            .during(|| format!("make {}", cwd.display())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) && process.make_cwd => {
            return Err(Failure::new(
                Kind::Setup,
                format!("Cannot mkdir: {} is not a directory", cwd.display()),
            ));
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(Failure::new(
                Kind::Setup,
                format!("change to {}: it leads out of the container", cwd.display()),
            ));
        }
        done => done.map_err(|error| no_cwd(cwd, &error)),
    }?;
    match rustix::process::fchdir(&opened) {
        Err(rustix::io::Errno::ACCESS) => Ok(false),
        done => done.map(|()| true).map_err(|error| no_cwd(cwd, &error.into())),
    }
}

/// In runc's words, and of the kind that Docker makes of them.
fn no_cwd(cwd: &Path, error: &io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Kind::NotFound,
        Some(libc::EACCES) => Kind::NotExecutable,
        _ => Kind::Setup,
    };
    let (cwd, reason) = (cwd.display(), reason(error));
    Failure::new(
        kind,
        format!("chdir to cwd (\"{cwd}\") set in config.json failed: {reason}"),
    )
}

/// The kernel says "(unreachable)" for a directory outside the root (CVE-2024-21626).
fn verify_cwd() -> Result<(), Failure> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        Ok(path) => {
            let path = path.to_string_lossy().into_owned();
            Err(Failure::new(
                Kind::Setup,
                format!("the working directory {path} is outside the container"),
            ))
        }
        // A directory that was removed meanwhile is inside, and a problem of the program's own.
        Err(rustix::io::Errno::NOENT) => Err(Failure::new(
            Kind::Setup,
            "the working directory is outside the container or was removed",
        )),
        Err(error) => Err(Failure::setup("look at the working directory", &error.into())),
    }
}

fn become_user(process: &Process, identity: &Identity) -> Result<(), Failure> {
    let caps = &process.capabilities;
    for number in 0..=63u32 {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else {
            break;
        };
        if caps.bounding & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // This kernel knows no capability of that number: the last one was dropped already.
            Err(rustix::io::Errno::INVAL) => break,
            done => done.during(|| "drop a capability from the bounding set")?,
        }
    }
    let keep = identity.uid != 0;
    if keep {
        rustix::thread::set_keep_capabilities(true).during(|| "keep capabilities")?;
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    rustix::thread::set_thread_groups(&groups).during(|| "set groups")?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| format!("become group {}", identity.gid))?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| format!("become user {}", identity.uid))?;
    if keep {
        rustix::thread::set_keep_capabilities(false).during(|| "keep capabilities")?;
    }
    let set = CapabilitySet::from_bits_retain;
    let sets = CapabilitySets {
        effective: set(caps.effective),
        permitted: set(caps.permitted),
        inheritable: set(caps.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).during(|| "set capabilities")?;
    // An old kernel, or a filter, may not know ambient capabilities; without one to raise there is nothing to clear.
    for number in (0..64).filter(|number| caps.ambient & (1 << number) != 0) {
        rustix::thread::configure_capability_in_ambient_set(set(1 << number), true)
            .during(|| "raise an ambient capability")?;
    }
    Ok(())
}

/// The program `name` stands for: itself if it has a slash, else the first match in `PATH`. Error texts as Go's os/exec,
/// which scripts and the docker CLI look for.
pub(crate) fn find(name: &str, env: &[String]) -> Result<CString, Failure> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => identity::c_string(name),
            Err(error) => Err(not_executable(name, &error)),
        };
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or_default();
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = Path::new(directory).join(name);
        if executable(&candidate).is_ok() {
            return CString::new(candidate.as_os_str().as_bytes()).map_err(|_| {
                Failure::new(
                    Kind::NotFound,
                    format!("exec: {name:?}: executable file not found in $PATH"),
                )
            });
        }
    }
    Err(Failure::new(
        Kind::NotFound,
        format!("exec: {name:?}: executable file not found in $PATH"),
    ))
}

fn executable(path: &Path) -> io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    // access(2) lets root execute what anybody may; execve refuses a file without any x bit, and so does this.
    match rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Behind a filter that knows no such call: execve has the last word.
        Err(rustix::io::Errno::PERM | rustix::io::Errno::NOSYS) if stat.st_mode & 0o111 != 0 => Ok(()),
        done => Ok(done?),
    }
}

fn not_executable(name: &str, error: &io::Error) -> Failure {
    let text = reason(error);
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            Failure::new(Kind::NotFound, format!("exec: {name:?}: stat {name}: {text}"))
        }
        _ => Failure::new(Kind::NotExecutable, format!("exec: {name:?}: {text}")),
    }
}

/// Why `execve` refused a file that is there and executable: the kernel's code says less than a look at the file.
pub(crate) fn refusal(path: &CString, error: &io::Error) -> Failure {
    let text = reason(error);
    let head = head_of(path);
    let (kind, cause) = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => match interpreter(&head) {
            Some(interpreter) if interpreter.ends_with('\r') => {
                let interpreter = interpreter.trim_end();
                let hint = format!("its first line ends in a carriage return, so {interpreter:?} is not found");
                (Kind::NotFound, format!("{hint}; save it with Unix line ends"))
            }
            Some(interpreter) => (
                Kind::NotFound,
                format!("its interpreter {interpreter:?} is not in the container"),
            ),
            None => (Kind::NotFound, "it or its interpreter is not there".to_owned()),
        },
        Some(libc::ENOEXEC) => match machine(&head) {
            Some(machine) => (
                Kind::NotExecutable,
                format!("it is built for {machine}, this machine is {HOST}"),
            ),
            None if head.is_empty() => (Kind::NotExecutable, "it is an empty file".to_owned()),
            None => (
                Kind::NotExecutable,
                "it is neither a program for this machine nor a script with #!".to_owned(),
            ),
        },
        _ => (
            Kind::NotExecutable,
            "the file, its interpreter or its mount does not allow it".to_owned(),
        ),
    };
    Failure::new(kind, format!("exec {}: {text}: {cause}", path.to_string_lossy()))
}

fn head_of(path: &CString) -> Vec<u8> {
    use std::io::Read as _;
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    let mut head = Vec::new();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) {
        let _ = std::fs::File::from(fd).take(4096).read_to_end(&mut head);
    }
    head
}

/// The interpreter a script's first line or an ELF file's `PT_INTERP` names.
fn interpreter(head: &[u8]) -> Option<String> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        return line
            .trim_start_matches([' ', '\t'])
            .split([' ', '\t'])
            .next()
            .map(str::to_owned);
    }
    // ELF64, little-endian: program headers at e_phoff (0x20), e_phentsize (0x36) and e_phnum (0x38).
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, bytes: usize| {
        let slice = head.get(at..at + bytes)?;
        slice.iter().rev().try_fold(0usize, |value, &byte| {
            value.checked_mul(256)?.checked_add(usize::from(byte))
        })
    };
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for index in 0..count.min(64) {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        if number(entry, 4)? == 3 {
            let (offset, length) = (number(entry + 8, 8)?, number(entry + 32, 8)?);
            let bytes = head.get(offset..offset.checked_add(length)?)?;
            return Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned());
        }
    }
    None
}

/// The architecture of an ELF file (`e_machine`) that is not this machine's.
fn machine(head: &[u8]) -> Option<&'static str> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let name = match u16::from_le_bytes([*head.get(18)?, *head.get(19)?]) {
        3 => "386",
        8 => "mips",
        20 | 21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "amd64",
        183 => "arm64",
        243 => "riscv64",
        258 => "loong64",
        _ => "another machine",
    };
    (name != HOST).then_some(name)
}

const HOST: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};
