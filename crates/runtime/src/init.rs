//! The container's first process, from `clone3` to `execve`: one straight line, in the order the kernel needs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use ferry_sys::mount::Mount;
use ferry_sys::{Root, packet};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::failure::{During as _, Failure, Kind, reason};
use crate::plan::Plan;
use crate::program::{self, Equipment, Streams};
use crate::rootfs::Rootfs;
use crate::start::{Io, Prepared};
use crate::terminal;

/// Sent to the parent with the terminal's master.
pub(crate) const TERMINAL: u8 = b't';
/// Sent to the parent with a [`Failure`].
pub(crate) const FAILURE: u8 = b'f';

/// Runs in the child. Ends in the program, or in the reason why not.
pub(crate) fn run(plan: &Plan, prepared: Prepared, sync: &OwnedFd) -> Failure {
    match script(plan, prepared, sync) {
        Ok(failure) | Err(failure) => failure,
    }
}

fn script(plan: &Plan, mut prepared: Prepared, sync: &OwnedFd) -> Result<Failure, Failure> {
    let in_user_namespace = !plan.namespaces.uids.is_empty();

    // Into the cgroup first, so that everything from here on is accounted and limited. A thread that moves itself is
    // spared the grace period that moving another process costs.
    for tasks in &prepared.cgroup_tasks {
        rustix::io::write(tasks, b"0").during(|| "enter the cgroup")?;
    }
    if plan.namespaces.cgroup {
        ferry_sys::ns::unshare_cgroup().during(|| "make a cgroup namespace")?;
    }
    if prepared.wait {
        wait_for_parent(sync)?;
    }
    if in_user_namespace {
        // Root of the new user namespace, now that its ids are mapped.
        let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
        rustix::thread::set_thread_groups(&[]).during(|| "drop groups")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| "become root of the user namespace")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| "become root of the user namespace")?;
    }
    if let Some(namespace) = &prepared.network {
        join(namespace, "network")?;
    }
    for (kind, namespace) in &prepared.join {
        join(namespace, kind)?;
    }
    rustix::process::setsid().during(|| "start a session")?;
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).during(|| format!("set the host name {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).during(|| format!("set the domain name {name}"))?;
    }

    // Modes are given as they shall be.
    rustix::process::umask(Mode::empty());
    // A /proc of our own: what is written through it cannot be redirected by anything in the image (CVE-2025-52881).
    if !plan.sysctls.is_empty() {
        sysctls(&plan.sysctls)?;
    }
    let Some(root) = prepared.root.take() else {
        return Err(Failure::new(Kind::Setup, "no root file system was prepared"));
    };
    let mut rootfs = Rootfs::attach(&root)?;
    rootfs.mount(plan, &mut prepared)?;
    rootfs.devices(&plan.devices, in_user_namespace)?;
    let (streams, terminal) = match prepared.io {
        Io::Streams { stdin, stdout, stderr } => (Streams { stdin, stdout, stderr }, false),
        Io::Terminal => (open_terminal(&rootfs, plan, sync)?, true),
    };
    rootfs.mask(&plan.masked)?;
    rootfs.freeze(&plan.readonly)?;
    rootfs.pivot(plan.readonly_root, plan.root_propagation)?;

    let init = prepared.init.as_ref().map(OwnedFd::as_fd);
    let seccomp = prepared.seccomp.as_deref();
    Ok(program::run(
        &plan.process,
        &Equipment {
            streams,
            terminal,
            seccomp,
            init,
        },
    ))
}

fn wait_for_parent(sync: &OwnedFd) -> Result<(), Failure> {
    let mut byte = [0; 1];
    match packet::receive(sync, &mut byte).during(|| "wait for the supervisor")? {
        (1, _) => Ok(()),
        _ => Err(Failure::new(Kind::Setup, "the supervisor gave up")),
    }
}

fn join(namespace: &OwnedFd, kind: &str) -> Result<(), Failure> {
    let any = None::<LinkNameSpaceType>;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), any).during(|| format!("join the {kind} namespace"))
}

fn open_terminal(rootfs: &Rootfs, plan: &Plan, sync: &OwnedFd) -> Result<Streams, Failure> {
    let what = || "make the terminal";
    let terminal = terminal::open(&rootfs.root, plan.process.size).during(what)?;
    rootfs.console(terminal.slave.as_fd())?;
    packet::send(sync, &[TERMINAL], &[terminal.master.as_fd()]).during(what)?;
    let copy = || terminal.slave.try_clone().during(what);
    Ok(Streams {
        stdin: copy()?,
        stdout: copy()?,
        stderr: copy()?,
    })
}

fn sysctls(sysctls: &[(String, String)]) -> Result<(), Failure> {
    let proc = Mount::new("proc", &[], 0).during(|| "mount a private /proc")?;
    let root = Root::from_fd(proc.into_fd());
    for (key, value) in sysctls {
        let path = Path::new("sys").join(key.replace('.', "/"));
        let written = root
            .resolve_no_links(&path, OFlags::WRONLY | OFlags::NOCTTY)
            .and_then(|fd| Ok(rustix::io::write(&fd, value.as_bytes())?));
        if let Err(error) = written {
            let reason = reason(&error);
            return Err(Failure::new(
                Kind::Setup,
                format!("set sysctl {key} to {value:?}: {reason}"),
            ));
        }
    }
    Ok(())
}
