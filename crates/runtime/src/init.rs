//! The container's first process, from `clone3` to `execve`: one straight line, in the order the kernel needs.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use ferry_sys::mount::Mount;
use ferry_sys::{Root, SingleThreaded, packet};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::failure::{During as _, Failure, Kind, reason};
use crate::identity::c_string;
use crate::namespace::{CLONE_NEWTIME, CLONE_NEWUSER};
use crate::plan::Plan;
use crate::program::{self, Equipment, Streams};
use crate::rootfs::Rootfs;
use crate::start::{Channel, Io, Prepared, use_any_cpu};
use crate::{hooks, keyring, labels, terminal};

/// Sent to the parent with the terminal's master.
pub(crate) const TERMINAL: u8 = b't';
/// Sent to the parent with a [`Failure`].
pub(crate) const FAILURE: u8 = b'f';
/// The mounts are made, the root is not yet changed: the parent answers when its hooks are through.
pub(crate) const MOUNTED: u8 = b'm';
/// Asks for the source of the mount of that number (four bytes), which only this process's view has.
pub(crate) const SOURCE: u8 = b's';
/// A time namespace is made: the parent sets its offsets.
pub(crate) const OFFSETS: u8 = b'o';
/// Everything is ready but the program.
pub(crate) const READY: u8 = b'r';
/// Sent with the number of the descriptor for seccomp notifications, which the parent takes over and then answers.
pub(crate) const LISTENER: u8 = b'l';

/// Runs in the child. Ends in the program, or in the reason why not.
pub(crate) fn run(proof: &SingleThreaded, plan: &Plan, prepared: Prepared, channel: &mut Channel<'_>) -> Failure {
    match script(proof, plan, prepared, channel) {
        Ok(failure) | Err(failure) => failure,
    }
}

fn script(
    proof: &SingleThreaded,
    plan: &Plan,
    mut prepared: Prepared,
    channel: &mut Channel<'_>,
) -> Result<Failure, Failure> {
    let joins_user = plan.namespaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWUSER);
    let in_user_namespace = joins_user || !plan.namespaces.uids.is_empty();

    // Into the cgroup first, so that everything from here on is accounted and limited. A thread that moves itself is
    // spared the grace period that moving another process costs.
    for tasks in &prepared.cgroup_tasks {
        rustix::io::write(tasks, b"0").during(|| "enter the cgroup")?;
    }
    prepared.cgroup_tasks.clear();
    use_any_cpu();
    if plan.namespaces.cgroup {
        ferry_sys::ns::unshare_cgroup().during(|| "make a cgroup namespace")?;
    }
    if prepared.wait {
        wait_for_parent(channel)?;
    }
    if in_user_namespace {
        if !plan.lifecycle.keep_keyring {
            keyring::renew(keyring::Owner::Caller)?;
        }
        // Root of the new user namespace, now that its ids are mapped.
        let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
        match rustix::thread::set_thread_groups(&[]) {
            // In somebody else's namespace that may be denied for good (user_namespaces(7), "setgroups").
            Err(rustix::io::Errno::PERM) if joins_user => {}
            done => done.during(|| "drop groups")?,
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| "become root of the user namespace")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| "become root of the user namespace")?;
    }
    if let Some(namespace) = prepared.network.take() {
        join(&namespace, "network")?;
    }
    for (kind, namespace) in prepared.join.drain(..) {
        join(&namespace, kind)?;
    }
    if plan.namespaces.create & CLONE_NEWTIME != 0 {
        make_time_namespace(plan, channel)?;
    }
    rustix::process::setsid().during(|| "start a session")?;
    if !plan.lifecycle.keep_keyring {
        labels::of_keys(&plan.process.kernel)?;
        keyring::renew(if in_user_namespace {
            keyring::Owner::Container
        } else {
            keyring::Owner::Caller
        })?;
    }
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).during(|| format!("set the host name {name}"))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).during(|| format!("set the domain name {name}"))?;
    }

    // Modes are given as they shall be.
    rustix::process::umask(Mode::empty());
    let Some(root) = prepared.root.take() else {
        return Err(Failure::new(Kind::Setup, "no root file system was prepared"));
    };
    let lifecycle = &plan.lifecycle;
    let mut rootfs = if lifecycle.shares_mounts {
        Rootfs::inside(root)?
    } else {
        Rootfs::attach(root, lifecycle.root_path.as_deref())?
    };
    rootfs.mount(plan, &mut prepared, &mut |index| ask_for_source(channel, index))?;
    let Prepared {
        io,
        seccomp,
        init,
        wait_mounted,
        gate,
        ..
    } = prepared;
    if plan.lifecycle.own_dev {
        rootfs.use_own_dev()?;
    }
    rootfs.devices(&plan.devices, in_user_namespace)?;
    if gate.is_some() {
        rootfs.make_cwd(&plan.process.cwd)?;
    }
    let (streams, terminal) = match io {
        Io::Streams { stdin, stdout, stderr } => (Streams { stdin, stdout, stderr }, false),
        Io::Terminal { plain } => (open_terminal(&rootfs, plan, channel, plain)?, true),
    };
    rootfs.finish_dev()?;
    if wait_mounted {
        packet::send(channel.fd(), &[MOUNTED], &[]).during(|| "wait for the hooks")?;
        wait_for_parent(channel)?;
    }
    if !lifecycle.create_container.is_empty() {
        let state = lifecycle.creating.with_pid(rustix::process::getpid().as_raw_pid());
        // Where they are run with runc.
        rustix::process::fchdir(&rootfs.root).during(|| "enter the root file system")?;
        let env = lifecycle.hook_env.iter().map(|entry| c_string(entry));
        let env = env.collect::<Result<Vec<_>, _>>()?;
        hooks::run(proof, "createContainer", &lifecycle.create_container, &state, &env)?;
    }
    // A /proc of our own: what is written through it cannot be redirected by anything in the image (CVE-2025-52881).
    // After the hooks, which may have made the interfaces that net.* keys are about.
    if !plan.sysctls.is_empty() {
        sysctls(&plan.sysctls)?;
    }
    labels::apply(&plan.process.kernel)?;
    rootfs.mask(&plan.masked, plan.lifecycle.mount_label.as_deref())?;
    rootfs.freeze(&plan.readonly)?;
    let (readonly, propagation) = (plan.readonly_root, plan.root_propagation);
    if lifecycle.shares_mounts {
        rootfs.chroot(readonly, propagation, None)?;
    } else if lifecycle.no_pivot {
        rootfs.chroot(readonly, propagation, lifecycle.root_path.as_deref())?;
    } else {
        rootfs.pivot(readonly, propagation)?;
    }

    let gate = gate.as_ref();
    Ok(program::run(
        &plan.process,
        streams,
        &Equipment {
            terminal,
            seccomp: seccomp.as_deref(),
            seccomp_flags: gate.map_or(0, |gate| gate.seccomp_flags),
            init: init.as_ref().map(OwnedFd::as_fd),
            keep_fds: gate.map_or(0, |gate| gate.keep_fds),
            follow: gate.is_none(),
            gate: gate.map(|gate| program::AtGate {
                proof,
                listener: &gate.listener,
                hooks: &plan.lifecycle.start_container,
                state: &plan.lifecycle.created,
            }),
        },
        channel,
    ))
}

/// Gives this process a time namespace of its own, which belongs to the user namespace it is in by now.
fn make_time_namespace(plan: &Plan, channel: &Channel<'_>) -> Result<(), Failure> {
    let what = || "make a time namespace";
    ferry_sys::ns::unshare_time().during(what)?;
    if !plan.namespaces.time_offsets.is_empty() {
        packet::send(channel.fd(), &[OFFSETS], &[]).during(what)?;
        wait_for_parent(channel)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let made = rustix::fs::open("/proc/self/ns/time_for_children", flags, Mode::empty()).during(what)?;
    join(&made, "time")
}

/// The parent has the host's credentials, and looks into this process's mount namespace.
fn ask_for_source(channel: &Channel<'_>, index: usize) -> Result<Mount, Failure> {
    let what = || "ask for the source of a mount";
    let mut message = vec![SOURCE];
    message.extend(u32::try_from(index).unwrap_or(u32::MAX).to_ne_bytes());
    packet::send(channel.fd(), &message, &[]).during(what)?;
    let mut byte = [0; 1];
    let (_, mut fds) = packet::receive(channel.fd(), &mut byte).during(what)?;
    match fds.pop() {
        Some(fd) => Ok(Mount::from_fd(fd)),
        None => Err(Failure::new(Kind::Setup, "the supervisor gave up")),
    }
}

fn wait_for_parent(channel: &Channel<'_>) -> Result<(), Failure> {
    let mut byte = [0; 1];
    match packet::receive(channel.fd(), &mut byte).during(|| "wait for the supervisor")? {
        (1, _) => Ok(()),
        _ => Err(Failure::new(Kind::Setup, "the supervisor gave up")),
    }
}

fn join(namespace: &OwnedFd, kind: &str) -> Result<(), Failure> {
    let any = None::<LinkNameSpaceType>;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), any).during(|| format!("join the {kind} namespace"))
}

fn open_terminal(rootfs: &Rootfs, plan: &Plan, channel: &Channel<'_>, plain: bool) -> Result<Streams, Failure> {
    let what = || "make the terminal";
    let terminal = terminal::open(&rootfs.root, plan.process.size, plain).during(what)?;
    rootfs.console(terminal.slave.as_fd())?;
    packet::send(channel.fd(), &[TERMINAL], &[terminal.master.as_fd()]).during(what)?;
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
