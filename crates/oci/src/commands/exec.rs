//! `exec`: another process in a container.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_cgroup::{Birth, Hierarchy, Layout};
use ferry_runtime::exec::{Exec, Extra};
use ferry_runtime::plan::Process;
use ferry_runtime::start::{Io, Started};
use ferry_sys::SingleThreaded;
use rustix::process::Pid;

use super::create::{check_console, keep_fds, protect, standard_streams, write_pid};
use super::{foreground, id};
use crate::cgroups::subgroup;
use crate::command_line::Context;
use crate::config::{self, Config};
use crate::console;
use crate::error::{During as _, Error, Result};
use crate::flags::{Flag, Parsed, switch, value};
use crate::number_list;
use crate::plan::{self, Host};
use crate::state::{Record, Status};

pub(super) const FLAGS: [Flag; 17] = [
    value(
        "console-socket",
        "",
        "path to an AF_UNIX socket which will receive the master end of the pseudoterminal",
    ),
    value(
        "pidfd-socket",
        "",
        "path to an AF_UNIX socket which will receive a pidfd of the exec process",
    ),
    value("cwd", "", "current working directory in the container"),
    value("env", "e", "set environment variables"),
    switch("tty", "t", "allocate a pseudo-TTY"),
    value("user", "u", "UID (format: <uid>[:<gid>])"),
    value("additional-gids", "g", "additional gids"),
    value("process", "p", "path to the process.json"),
    switch("detach", "d", "detach from the container's process"),
    value("pid-file", "", "specify the file to write the process id to"),
    value(
        "process-label",
        "",
        "set the asm process label for the process commonly used with selinux",
    ),
    value("apparmor", "", "set the apparmor profile for the process"),
    switch("no-new-privs", "", "set the no new privileges value for the process"),
    value("cap", "c", "add a capability to the bounding set for the process"),
    value(
        "preserve-fds",
        "",
        "Pass N additional file descriptors to the container (default: 0)",
    ),
    value("cgroup", "", "run the process in an (existing) sub-cgroup"),
    switch("ignore-paused", "", "allow exec in a paused container"),
];

pub(super) fn exec(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let keep = keep_fds(context, parsed)?;
    protect(context)?;
    let (directory, record) = context.root.load(id(parsed))?;
    match record.status(&directory) {
        Status::Stopped | Status::Creating => {
            return Err(Error::State("cannot exec in a stopped container".to_owned()));
        }
        Status::Paused if !parsed.is_set("ignore-paused") => {
            let text = "cannot exec in a paused container (use --ignore-paused to override)";
            return Err(Error::State(text.to_owned()));
        }
        _ => {}
    }
    let (detach, socket) = (parsed.is_set("detach"), parsed.get("console-socket").map(PathBuf::from));
    let given = given(context, parsed, &record)?;
    check_console(given.terminal.unwrap_or(false), detach, socket.is_some())?;
    let mut warnings = Vec::new();
    let mut process = plan::process(&given, "process", Host::detect(), &mut warnings)?;
    for warning in warnings {
        context.log.warn(&warning);
    }
    // What the container has, where nothing else is said.
    let kernel = &mut process.kernel;
    kernel.apparmor = kernel.apparmor.take().or_else(|| record.apparmor.clone());
    kernel.selinux = kernel.selinux.take().or_else(|| record.selinux.clone());
    (kernel.personality, kernel.memory_policy) = (record.personality, record.memory_policy.clone());
    process.no_new_privileges |= record.no_new_privileges && parsed.get("process").is_none();
    // In runc's words, which tools look for.
    for step in [
        "nsexec container setup",
        "child process in init()",
        "setns_init: about to exec",
    ] {
        context.log.debug(step);
    }
    affinity(context, &given, &mut process)?;
    if let Some(listen) = context.var("LISTEN_FDS").filter(|_| keep > 0) {
        process.env.push(format!("LISTEN_FDS={listen}"));
        process.env.push("LISTEN_PID=1".to_owned());
    }
    let target = record
        .process()
        .ok_or_else(|| Error::State("cannot exec in a stopped container".to_owned()))?;
    ferry_sys::exe::release_code();
    let started = spawn(parsed, &record, &process, &target, &directory, keep)?;
    let pid = started.child.pid.as_raw_pid();
    let undo = |error: Error| {
        let _ = started.child.signal(libc::SIGKILL);
        let _ = started.child.wait(true);
        error
    };
    let mut terminal = started.terminal;
    if let (Some(path), Some(master)) = (&socket, &terminal) {
        let send = |path: &Path| {
            let socket = console::connect(path)?;
            console::send_fd(&socket, b"/dev/ptmx", master.as_fd()).during(|| "send the console's master")
        };
        send(path).map_err(undo)?;
        terminal = None;
    }
    if let Some(path) = parsed.get("pidfd-socket") {
        console::send_pidfd(Path::new(path), &started.child.pidfd).map_err(undo)?;
    }
    if let Some(path) = parsed.get("pid-file") {
        write_pid(Path::new(path), pid).map_err(undo)?;
    }
    if detach {
        return Ok(0);
    }
    foreground::wait(&started.child, terminal)
}

fn spawn(
    parsed: &Parsed,
    record: &Record,
    process: &Process,
    target: &OwnedFd,
    directory: &crate::state::Directory,
    keep_fds: u32,
) -> Result<Started> {
    let filter = record.seccomp.as_ref().map(|_| directory.filter()).transpose()?;
    let cgroup = record.cgroup()?;
    if let Some(adjustment) = process.oom_score_adj.or(record.oom_score_adj) {
        // Inherited. To lower it takes a capability that an engine in a container may not have.
        let _ = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    }
    let proof = SingleThreaded::check().during(|| "check the number of threads")?;
    let first = Pid::from_raw(record.pid);
    let mut notify = |pid: Pid, listener: OwnedFd| {
        super::start::hand_over(record, first.unwrap_or(pid), pid, &listener, Status::Running)
    };
    ferry_runtime::exec::exec(
        &proof,
        Exec {
            process,
            target: target.as_fd(),
            namespaces: &record.namespaces,
            cgroup: cgroup.as_ref(),
            io: if process.terminal {
                Io::Terminal {
                    plain: parsed.get("console-socket").is_none(),
                }
            } else {
                standard_streams()?
            },
            seccomp: filter.as_deref(),
            extra: Extra {
                seccomp_flags: record.seccomp.as_ref().map_or(0, |seccomp| seccomp.flags),
                notify: Some(&mut notify),
                keep_fds,
                keep_keyring: record.keep_keyring,
                detached: true,
                cgroup: sub_cgroup(parsed, record)?,
            },
        },
    )
    .map_err(Error::Start)
}

/// `--process`, or the container's own process with what the flags change.
fn given(context: &Context<'_>, parsed: &Parsed, record: &Record) -> Result<config::Process> {
    if let Some(path) = parsed.get("process") {
        return config::load_process(Path::new(path));
    }
    let args = parsed.positional.get(1..).unwrap_or_default();
    if args.is_empty() {
        return Err(Error::Invalid("exec args cannot be empty".to_owned()));
    }
    let config: Config = config::load(&record.bundle.join("config.json"))?;
    let mut process = config.process.unwrap_or_default();
    process.args = Some(args.to_vec());
    if let Some(cwd) = parsed.get("cwd") {
        process.cwd = Some(cwd.to_owned());
    }
    process.terminal = Some(parsed.is_set("tty"));
    process
        .env
        .get_or_insert_default()
        .extend(parsed.all("env").map(str::to_owned));
    if let Some(label) = parsed.get("process-label") {
        process.selinux_label = Some(label.to_owned());
    }
    if let Some(profile) = parsed.get("apparmor") {
        process.apparmor_profile = Some(profile.to_owned());
    }
    if parsed.get("no-new-privs").is_some() {
        process.no_new_privileges = Some(parsed.is_set("no-new-privs"));
    }
    let caps = process.capabilities.get_or_insert_default();
    for cap in parsed.all("cap") {
        for set in [&mut caps.bounding, &mut caps.effective, &mut caps.permitted] {
            set.get_or_insert_default().push(cap.to_owned());
        }
        // Never inheritable (CVE-2022-29162), and ambient only where the configuration has it inheritable: others the kernel
        // would not raise.
        if caps.inheritable.iter().flatten().any(|known| known == cap) {
            caps.ambient.get_or_insert_default().push(cap.to_owned());
        }
    }
    let user = process.user.get_or_insert_default();
    if let Some(text) = parsed.get("user") {
        let (uid, gid) = ids(text)?;
        user.uid = uid;
        user.gid = gid.unwrap_or(user.gid);
    }
    for gid in parsed.all("additional-gids") {
        user.additional_gids.get_or_insert_default().push(number(gid, "gid")?);
    }
    let _ = context;
    Ok(process)
}

/// `uid[:gid]`, digits only: anything cleverer has been somebody else's id (CVE-2026-30892).
fn ids(text: &str) -> Result<(u32, Option<u32>)> {
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid, "uid")?, Some(number(gid, "gid")?))),
        None => Ok((number(text, "uid")?, None)),
    }
}

fn number(text: &str, what: &str) -> Result<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u32>()
        .ok()
        .filter(|id| digits && *id != u32::MAX)
        .ok_or_else(|| Error::Invalid(format!("bad {what}: parsing {text:?}: invalid syntax")))
}

/// `execCPUAffinity`: this process takes the first set before it enters the container's cgroup, the program the last.
fn affinity(context: &mut Context<'_>, given: &config::Process, process: &mut Process) -> Result<()> {
    let Some(affinity) = &given.exec_cpu_affinity else {
        return Ok(());
    };
    if let Some(initial) = affinity.initial.as_deref().filter(|list| !list.is_empty()) {
        let mut set = rustix::thread::CpuSet::new();
        let cpus = cpus(initial, "initial")?;
        let mut mask = 0_u128;
        for &cpu in &cpus {
            set.set(usize::try_from(cpu).unwrap_or(0));
            mask |= 1_u128.checked_shl(cpu).unwrap_or(0);
        }
        // In runc's words, whose C part has that name.
        context.log.debug(&format!("nsexec: affinity: {mask:#x}"));
        rustix::thread::sched_setaffinity(None, &set).during(|| "process.execCPUAffinity.initial")?;
        process.kernel.cpus = cpus;
    }
    if let Some(last) = affinity.last.as_deref().filter(|list| !list.is_empty()) {
        process.kernel.cpus = cpus(last, "final")?;
    }
    Ok(())
}

fn cpus(list: &str, name: &str) -> Result<Vec<u32>> {
    const MOST: u32 = 1024;
    number_list::parse(list, MOST).ok_or_else(|| {
        let field = format!("process.execCPUAffinity.{name}");
        Error::config(field, format!("{list:?} is not a list of CPUs"))
    })
}

/// `--cgroup`: a group below the container's. `None`: the container's own.
fn sub_cgroup(parsed: &Parsed, record: &Record) -> Result<Option<Birth>> {
    let given: Vec<&str> = parsed.all("cgroup").filter(|sub| !sub.is_empty()).collect();
    let (Some(path), Some(layout)) = (&record.cgroup, &record.layout) else {
        return match given.is_empty() {
            true => Ok(None),
            false => Err(Error::State("the container has no control group".to_owned())),
        };
    };
    if given.is_empty() && !matches!(layout, Layout::V2(_)) {
        return Ok(None);
    }
    let hierarchy: Hierarchy = layout.clone().try_into()?;
    if given.is_empty() {
        return subgroup::of_process(&hierarchy, &hierarchy.open(path)?, record.pid);
    }
    subgroup::below(&hierarchy, path, &given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_digits_or_nobody() {
        assert_eq!(ids("1").unwrap(), (1, None));
        assert_eq!(ids("1:02").unwrap(), (1, Some(2)));
        for bad in [
            "",
            ":",
            "1:",
            ":1",
            "+1",
            "-1",
            "0x1",
            "1 ",
            "1:2:3",
            "4294967295",
            "4294967296",
            "root",
            "٣",
        ] {
            assert!(ids(bad).is_err(), "{bad:?}");
        }
    }
}
