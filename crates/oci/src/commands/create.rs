//! `create` and `run`: from a bundle to a first process that waits, or runs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_cgroup::{Cgroup, Hierarchy};
use ferry_runtime::hooks::{self, Hook};
use ferry_runtime::start::{Gate, Io, Start};
use ferry_runtime::{Failure, Kind};
use ferry_sys::{Child, SingleThreaded};
use jiff::Timestamp;
use oci_spec::runtime::LinuxSeccomp;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;

use super::{foreground, id};
use crate::command_line::Context;
use crate::config;
use crate::error::{During as _, Error, Result};
use crate::flags::{Flag, Parsed, switch, value};
use crate::plan::{self, Host};
use crate::state::{Directory, Record, Seccomp, Status, VERSION, boot, check_id, start_time};
use crate::{cgroups, console, net_devices, resctrl, rootfs};

const BUNDLE: Flag = value(
    "bundle",
    "b",
    "path to the root of the bundle directory, defaults to the current directory",
);
const CONSOLE: Flag = value(
    "console-socket",
    "",
    "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the console's \
     pseudoterminal",
);
const PIDFD: Flag = value(
    "pidfd-socket",
    "",
    "path to an AF_UNIX socket which will receive a file descriptor referencing the init process",
);
const PID_FILE: Flag = value("pid-file", "", "specify the file to write the process id to");
const NO_PIVOT: Flag = switch("no-pivot", "", "do not use pivot root to jail process inside rootfs");
const NO_KEYRING: Flag = switch(
    "no-new-keyring",
    "",
    "do not create a new session keyring for the container",
);
const PRESERVE: Flag = value(
    "preserve-fds",
    "",
    "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total) (default: 0)",
);

pub(super) const FLAGS: [Flag; 7] = [BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE];
pub(super) const RUN_FLAGS: [Flag; 10] = [
    BUNDLE,
    CONSOLE,
    PIDFD,
    switch("detach", "d", "detach from the container's process"),
    switch("keep", "", "do not delete the container after it exits"),
    PID_FILE,
    switch(
        "no-subreaper",
        "",
        "disable the use of the subreaper used to reap reparented processes",
    ),
    NO_PIVOT,
    NO_KEYRING,
    PRESERVE,
];

pub(super) fn create(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let made = Made::make(context, parsed, true)?;
    made.keep();
    Ok(0)
}

pub(super) fn run(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let detach = parsed.is_set("detach");
    let mut made = Made::make(context, parsed, detach)?;
    let (child, terminal) = (made.child.take(), made.terminal.take());
    super::start::open_gate(made.context, &made.directory, &made.record)?;
    let Some(child) = child.filter(|_| !detach) else {
        made.keep();
        return Ok(0);
    };
    let status = foreground::wait(&child, terminal);
    if parsed.is_set("keep") {
        made.keep();
    } else {
        made.kept = true;
        super::delete::destroy(made.context, &made.directory, &made.record)?;
    }
    status
}

/// A container that goes again unless it is kept.
struct Made<'a, 'b> {
    context: &'a mut Context<'b>,
    directory: Directory,
    record: Record,
    child: Option<Child>,
    terminal: Option<OwnedFd>,
    kept: bool,
}

impl Drop for Made<'_, '_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = super::delete::destroy(self.context, &self.directory, &self.record);
        }
    }
}

impl<'a, 'b> Made<'a, 'b> {
    fn keep(mut self) {
        self.kept = true;
    }

    fn make(context: &'a mut Context<'b>, parsed: &Parsed, detach: bool) -> Result<Self> {
        let id = id(parsed);
        check_id(id)?;
        let keep_fds = keep_fds(context, parsed)?;
        protect(context)?;
        let pid_file = parsed
            .get("pid-file")
            .map(std::path::absolute)
            .transpose()
            .during(|| "find the pid file")?;
        let absolute = |name: &str| -> Result<Option<PathBuf>> {
            parsed
                .get(name)
                .map(std::path::absolute)
                .transpose()
                .during(|| format!("find --{name}"))
        };
        let (console_socket, pidfd_socket) = (absolute("console-socket")?, absolute("pidfd-socket")?);
        let bundle = enter_bundle(parsed.get("bundle"))?;
        let mut config = config::load(Path::new("config.json"))?;
        let mut warnings = Vec::new();
        let mut plan = plan::of(&config, &bundle, Host::detect(), &mut warnings)?;
        for warning in warnings {
            context.log.warn(&warning);
        }
        check_console(plan.process.terminal, detach, console_socket.is_some())?;
        let rootfs = rootfs::path(&config, &bundle)?;
        let root = rootfs::open(&rootfs, &plan)?;
        let linux = config.linux.take().unwrap_or_default();
        let filter = linux.seccomp.as_ref().map(compile).transpose()?;
        let devices = net_devices::check(linux.net_devices.as_ref(), &plan.namespaces)?;
        let rdt = linux.intel_rdt.as_ref();
        let class = rdt
            .map(|rdt| Ok::<_, Error>(resctrl::class(&resctrl::mount()?, rdt, id)))
            .transpose()?;
        let group = cgroups::path(linux.cgroups_path.as_deref(), id)?;
        let layout = match cgroups::layout() {
            Err(_) if context.rootless => None,
            done => Some(done?),
        };
        let owner = cgroups::owner(&config, &plan.namespaces);
        plan.lifecycle.no_pivot = parsed.is_set("no-pivot");
        plan.lifecycle.keep_keyring = parsed.is_set("no-new-keyring");
        if let Some(listen) = context.var("LISTEN_FDS").filter(|_| keep_fds > 0) {
            plan.process.env.push(format!("LISTEN_FDS={listen}"));
            plan.process.env.push("LISTEN_PID=1".to_owned());
        }
        plan.process.make_cwd = false;
        plan.lifecycle.root_path = Some(rootfs.clone());
        let env = context.c_environment()?;
        let hooks = config.hooks.take().unwrap_or_default();
        let first = |hooks: Option<Vec<Hook>>, name: &str| checked(hooks, name);
        let (prestart, create_runtime) = (
            first(hooks.prestart, "prestart")?,
            first(hooks.create_runtime, "createRuntime")?,
        );
        plan.lifecycle.create_container = first(hooks.create_container, "createContainer")?;
        plan.lifecycle.start_container = first(hooks.start_container, "startContainer")?;
        if !plan.lifecycle.create_container.is_empty() {
            plan.lifecycle.hook_env = context.environment();
        }

        ferry_sys::exe::release_code();
        let directory = context.root.make(id)?;
        // Before there is anything that cleans up by the group's path: it may be another container's.
        let hierarchy = cgroups::open_for(layout.as_ref(), &group).inspect_err(|_| drop(directory.remove()))?;
        let (filter_bytes, seccomp) = match filter {
            Some((bytes, seccomp)) => (Some(bytes), Some(seccomp)),
            None => (None, None),
        };
        let record = Record {
            version: 1,
            oci_version: VERSION.to_owned(),
            id: id.to_owned(),
            bundle,
            rootfs,
            created: Timestamp::now().to_string(),
            owner: rustix::process::geteuid().as_raw(),
            annotations: config.annotations.take().unwrap_or_default(),
            pid: 0,
            start_time: 0,
            boot: boot(),
            cgroup: layout.is_some().then(|| group.clone()),
            layout,
            namespaces: plan.namespaces.clone(),
            poststart: first(hooks.poststart, "poststart")?,
            poststop: first(hooks.poststop, "poststop")?,
            seccomp,
            no_new_privileges: plan.process.no_new_privileges,
            apparmor: plan.process.kernel.apparmor.clone(),
            selinux: plan.process.kernel.selinux.clone(),
            oom_score_adj: plan.process.oom_score_adj,
            personality: plan.process.kernel.personality,
            memory_policy: plan.process.kernel.memory_policy.clone(),
            keep_keyring: plan.lifecycle.keep_keyring,
            class,
            mount: None,
        };
        plan.lifecycle.creating = record.told(Status::Creating);
        plan.lifecycle.created = record.told(Status::Created);
        let mut made = Self {
            context,
            directory,
            record,
            child: None,
            terminal: None,
            kept: false,
        };
        if plan.lifecycle.shares_mounts {
            made.record.mount = Some(rootfs::attach(&root, &made.record.rootfs)?);
        }
        made.directory.save(&made.record)?;
        if let Some(bytes) = &filter_bytes {
            made.directory.save_filter(bytes)?;
        }
        let cgroup = made.make_cgroup(hierarchy, &group, linux.resources, owner)?;
        let seccomp_flags = made.record.seccomp.as_ref().map_or(0, |seccomp| seccomp.flags);
        let listener = listen(&made.directory)?;
        ferry_sys::exe::release_code();
        let proof = SingleThreaded::check().during(|| "check the number of threads")?;
        let record = &made.record;
        let mut mounted = |child: &Child| {
            let state = record.told(Status::Creating).with_pid(child.pid.as_raw_pid());
            hooks::run(&proof, "prestart", &prestart, &state, &env)?;
            hooks::run(&proof, "createRuntime", &create_runtime, &state, &env)
        };
        let mut born = |child: &Child| {
            let pid = child.pid.as_raw_pid();
            if let (Some(class), Some(rdt)) = (&record.class, rdt) {
                resctrl::enter(class, rdt, pid).map_err(|error| Failure::new(Kind::Setup, error.text()))?;
            }
            net_devices::hand_over(&devices, &record.namespaces, pid)
        };
        let mut notify =
            |pid: Pid, listener: OwnedFd| super::start::hand_over(record, pid, pid, &listener, Status::Creating);
        let waits = record.class.is_some() || !devices.is_empty();
        let has_hooks = !prestart.is_empty() || !create_runtime.is_empty();
        let started = ferry_runtime::start::start(
            &proof,
            Start {
                plan: &plan,
                root,
                network: None,
                cgroup: cgroup.as_ref(),
                io: if plan.process.terminal {
                    Io::Terminal {
                        plain: console_socket.is_none(),
                    }
                } else {
                    standard_streams()?
                },
                seccomp: filter_bytes,
                init: None,
                gate: Some(Gate {
                    listener,
                    mounted: if has_hooks { Some(&mut mounted) } else { None },
                    notify: Some(&mut notify),
                    keep_fds,
                    seccomp_flags,
                }),
            },
            if waits { Some(&mut born) } else { None },
        )
        .map_err(|failure| match cgroup.as_ref().map(Cgroup::oom_kills) {
            Some(Ok(1..)) => Error::Invalid("container init was OOM-killed (memory limit too low?)".to_owned()),
            _ => during_init(&failure),
        })?;
        ferry_sys::exe::release_code();
        let pid = started.child.pid.as_raw_pid();
        made.record.pid = pid;
        made.record.start_time = start_time(pid).unwrap_or(0);
        made.terminal = started.terminal;
        if let (Some(socket), Some(master)) = (&console_socket, &made.terminal) {
            let socket = console::connect(socket)?;
            console::send_fd(&socket, b"/dev/ptmx", master.as_fd()).during(|| "send the console's master")?;
            made.terminal = None;
        }
        // In runc's words, which tools look for.
        for step in [
            "nsexec container setup",
            "child process in init()",
            "init: closing the pipe to signal completion",
        ] {
            made.context.log.debug(step);
        }
        made.directory.save(&made.record)?;
        if let Some(path) = pidfd_socket {
            console::send_pidfd(&path, &started.child.pidfd)?;
        }
        if let Some(path) = pid_file {
            write_pid(&path, pid)?;
        }
        made.child = Some(started.child);
        Ok(made)
    }

    fn make_cgroup(
        &mut self,
        hierarchy: Option<Hierarchy>,
        path: &str,
        resources: Option<oci_spec::runtime::LinuxResources>,
        owner: Option<u32>,
    ) -> Result<Option<Cgroup>> {
        let Some(hierarchy) = hierarchy else { return Ok(None) };
        let resources = cgroups::resources(resources, hierarchy.version())?;
        cgroups::warn_of_kernel_memory(&resources, &mut self.context.log);
        let made = hierarchy.create(path, &resources).map_err(Error::from);
        let made = made.and_then(|(cgroup, warnings)| {
            cgroups::judge(warnings, &mut self.context.log)?;
            if let Some(owner) = owner {
                cgroup.delegate(owner)?;
            }
            Ok(cgroup)
        });
        match made {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(_) if self.context.rootless => {
                (self.record.cgroup, self.record.layout) = (None, None);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// runc's words for a failure in the first process, which engines look into for the exit code of `run`.
fn during_init(failure: &ferry_runtime::Failure) -> Error {
    let message = format!("error during container init: {}", failure.message);
    Error::Start(ferry_runtime::Failure {
        kind: failure.kind,
        message,
    })
}

/// How many descriptors the program keeps beside its streams. All of them have to be there and the caller's, or the
/// container would get those of this process.
pub(super) fn keep_fds(context: &Context<'_>, parsed: &Parsed) -> Result<u32> {
    let number = |text: &str, name: &str| {
        let number = text.parse::<u32>().ok().filter(|number| *number <= 1024);
        number.ok_or_else(|| Error::Invalid(format!("invalid value {text:?} for {name}")))
    };
    let preserve = parsed
        .get("preserve-fds")
        .map_or(Ok(0), |text| number(text, "flag -preserve-fds"))?;
    let listen = match context.var("LISTEN_FDS") {
        Some(text) if !text.is_empty() => number(text, "LISTEN_FDS")?,
        _ => 0,
    };
    for fd in 3..3 + preserve + listen {
        if !is_inherited(fd) {
            return Err(Error::Invalid(format!(
                "please check that preserved-fd {} (of {preserve}) is present",
                fd - 3
            )));
        }
    }
    Ok(preserve + listen)
}

/// Whether a descriptor came from the caller: all of this process's own close on exec (proc_pid_fdinfo(5)).
fn is_inherited(fd: u32) -> bool {
    const CLOEXEC: u32 = 0o2_000_000;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & CLOEXEC == 0)
}

/// Starts this program again from where a container cannot write to it, unless it already runs from there, and makes it
/// invisible to those in the container (rule D4; CVE-2019-5736, CVE-2016-9962).
pub(super) fn protect(context: &Context<'_>) -> Result<()> {
    let what = || "protect the runtime's binary";
    if !ferry_sys::exe::is_protected().during(what)? {
        let binary = ferry_sys::exe::protected_or_copy().during(what)?;
        let c_string = |bytes: Vec<u8>| std::ffi::CString::new(bytes).map_err(|_| Error::Invalid("a null byte".into()));
        let invocation = context.invocation;
        let argv = invocation
            .argv
            .iter()
            .map(|arg| c_string(arg.clone().into_encoded_bytes()));
        let env = invocation.env.iter().map(|(name, value)| {
            let mut text = name.clone();
            text.push("=");
            text.push(value);
            c_string(text.into_encoded_bytes())
        });
        let (argv, env) = (argv.collect::<Result<Vec<_>>>()?, env.collect::<Result<Vec<_>>>()?);
        return Err(ferry_sys::exec::fexecve(binary.as_fd(), &argv, &env)).during(what);
    }
    if rustix::process::geteuid().is_root() {
        let hidden = rustix::process::DumpableBehavior::NotDumpable;
        rustix::process::set_dumpable_behavior(hidden).during(what)?;
    }
    Ok(())
}

/// Hooks and `config.json` are found from the bundle.
fn enter_bundle(given: Option<&str>) -> Result<PathBuf> {
    if let Some(path) = given {
        rustix::process::chdir(path).during(|| format!("chdir {path}"))?;
    }
    let here = rustix::process::getcwd(Vec::new()).during(|| "getwd")?;
    Ok(PathBuf::from(std::ffi::OsString::from(
        here.to_string_lossy().into_owned(),
    )))
}

pub(super) fn check_console(terminal: bool, detach: bool, has_socket: bool) -> Result<()> {
    if detach && terminal && !has_socket {
        let text = "cannot allocate tty if runc will detach without setting console socket";
        return Err(Error::Invalid(text.to_owned()));
    }
    if has_socket && !(detach && terminal) {
        let text = "cannot use console socket if runc will not detach or allocate tty";
        return Err(Error::Invalid(text.to_owned()));
    }
    Ok(())
}

fn compile(seccomp: &LinuxSeccomp) -> Result<(Vec<u8>, Seccomp)> {
    const NEW_LISTENER: u32 = 1 << 3;
    let program = ferry_seccomp::compile(seccomp, &[ferry_seccomp::Arch::NATIVE])?;
    let listener = seccomp
        .listener_path()
        .clone()
        .filter(|path| !path.as_os_str().is_empty());
    if program.flags & NEW_LISTENER != 0 && listener.is_none() {
        return Err(Error::config(
            "linux.seccomp.listenerPath",
            "SCMP_ACT_NOTIFY needs a listener",
        ));
    }
    let seccomp = Seccomp {
        flags: program.flags,
        listener,
        metadata: seccomp.listener_metadata().clone().unwrap_or_default(),
    };
    Ok((program.bytes(), seccomp))
}

fn checked(hooks: Option<Vec<Hook>>, name: &str) -> Result<Vec<Hook>> {
    let hooks = hooks.unwrap_or_default();
    for (index, hook) in hooks.iter().enumerate() {
        let field = || format!("hooks.{name}[{index}]");
        if !hook.path.is_absolute() {
            return Err(Error::config(
                field(),
                format!("path {} is not absolute", hook.path.display()),
            ));
        }
        if hook.timeout.is_some_and(|seconds| seconds <= 0) {
            return Err(Error::config(field(), "the timeout must be greater than zero"));
        }
    }
    Ok(hooks)
}

/// The socket on which the first process waits.
fn listen(directory: &Directory) -> Result<OwnedFd> {
    let what = || "make the socket the container waits on";
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .during(what)?;
    let address = SocketAddrUnix::new(directory.socket()).during(what)?;
    rustix::net::bind(&socket, &address).during(what)?;
    rustix::net::listen(&socket, 4).during(what)?;
    Ok(socket)
}

/// This process's own, as the container's.
pub(super) fn standard_streams() -> Result<Io> {
    let what = || "duplicate the standard streams";
    Ok(Io::Streams {
        stdin: rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).during(what)?,
        stdout: rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3).during(what)?,
        stderr: rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).during(what)?,
    })
}

/// Complete or not there at all: somebody may be waiting for it.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let what = || format!("write the pid file {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    std::fs::write(&beside, pid.to_string()).during(what)?;
    std::fs::rename(&beside, path).during(what)
}
