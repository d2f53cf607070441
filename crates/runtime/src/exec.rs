//! Another process in a running container: one clone, no new program in between.
//!
//! The child starts as a copy of the shim, joins the container's namespaces by the first process's pidfd, and becomes the
//! program. Nothing of the host is open in it past `execve`, the shim is not dumpable, and its `/proc/PID/exe` is a
//! read-only mount (CVE-2016-9962, CVE-2019-5736).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ferry_cgroup::{Birth, Cgroup};
use ferry_sys::clone::{self, Options};
use ferry_sys::{Root, SingleThreaded, packet};
use rustix::thread::ThreadNameSpaceType;

use crate::failure::{During as _, Failure};
use crate::init::TERMINAL;
use crate::keyring::{self, Owner};
use crate::labels;
use crate::namespace::{CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER};
use crate::plan::{Attached, Namespaces, Process};
use crate::program::{self, Equipment, Streams};
use crate::start::{Answers, Channel, Io, Notify, Started, answering, outcome, report, use_any_cpu};
use crate::terminal;

/// What to run, and where.
#[derive(Debug)]
pub struct Exec<'a> {
    pub process: &'a Process,
    /// The container's first process.
    pub target: BorrowedFd<'a>,
    /// The container's, as it was started.
    pub namespaces: &'a Namespaces,
    pub cgroup: Option<&'a Cgroup>,
    pub io: Io,
    pub seccomp: Option<&'a [u8]>,
    /// What only the OCI runtime's command line asks for.
    pub extra: Extra<'a>,
}

/// The parts of an exec that Ferry's own engine has no use for.
#[derive(Default)]
pub struct Extra<'a> {
    /// `SECCOMP_FILTER_FLAG_*`.
    pub seccomp_flags: u32,
    /// Takes the descriptor for seccomp notifications, where the filter has any.
    pub notify: Option<Notify<'a>>,
    /// Descriptors from 3 on that the program keeps.
    pub keep_fds: u32,
    /// Keep the caller's session keyring, as the container does.
    pub keep_keyring: bool,
    /// Outlive the caller.
    pub detached: bool,
    /// A group below the container's in which the process is born instead.
    pub cgroup: Option<Birth>,
}

impl std::fmt::Debug for Extra<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Extra").finish_non_exhaustive()
    }
}

/// Starts the process and returns when its program runs; on failure the child is dead and reaped.
///
/// The calling process's own children are born in the container's PID namespace from then on.
pub fn exec(proof: &SingleThreaded, mut exec: Exec<'_>) -> Result<Started, Failure> {
    let spaces = exec.namespaces;
    let flag = |flag: u64| ThreadNameSpaceType::from_bits_retain(u32::try_from(flag).unwrap_or(0));
    let joined = spaces.join.iter().fold(0, |flags, (flag, _)| flags | flag);
    let all = spaces.create | joined | CLONE_NEWNS | crate::namespace::CLONE_NEWNET;
    let all = if spaces.cgroup {
        all | crate::namespace::CLONE_NEWCGROUP
    } else {
        all
    };
    if all & CLONE_NEWPID != 0 {
        rustix::thread::move_into_thread_name_spaces(exec.target, flag(CLONE_NEWPID))
            .during(|| "enter the container's PID namespace")?;
    }
    let (ours, theirs) = packet::pair().during(|| "make a socket pair")?;
    let Birth { into, tasks } = match (exec.extra.cgroup.take(), exec.cgroup) {
        (Some(below), _) => below,
        (None, Some(cgroup)) => cgroup.birth()?,
        (None, None) => Birth::default(),
    };
    let options = Options {
        namespaces: 0,
        cgroup: into.as_ref().map(AsFd::as_fd),
        sibling: false,
    };
    let child = match clone::clone(proof, &options).during(|| "make a process")? {
        Some(child) => child,
        None => {
            drop(ours);
            let mut channel = Channel::new(&theirs);
            let others = flag(all & !CLONE_NEWPID);
            let keyring = (!exec.extra.keep_keyring).then_some(&exec.process.kernel);
            let entered = enter(exec.target, others, all & CLONE_NEWUSER != 0, keyring, &tasks)
                .and_then(|()| labels::apply(&exec.process.kernel))
                .and_then(|()| streams(exec.io, exec.process, &theirs));
            let failure = match entered {
                Ok((streams, terminal)) => program::run(
                    exec.process,
                    streams,
                    &Equipment {
                        terminal,
                        seccomp: exec.seccomp,
                        seccomp_flags: exec.extra.seccomp_flags,
                        init: None,
                        keep_fds: exec.extra.keep_fds,
                        follow: !exec.extra.detached,
                        gate: None,
                    },
                    &mut channel,
                ),
                Err(failure) => failure,
            };
            report(channel.fd(), &failure);
            clone::exit_now(1);
        }
    };
    drop((theirs, exec.io));
    let answers = Answers {
        notify: answering(exec.extra.notify.as_mut(), &child),
        ..Answers::default()
    };
    match outcome(ours.as_fd(), answers) {
        Ok((terminal, _)) => Ok(Started { child, terminal }),
        Err(failure) => {
            // It is on its way out by itself; without the reaping it would stay a zombie.
            let _ = child.signal(libc::SIGKILL);
            let _ = child.wait(true);
            Err(failure)
        }
    }
}

fn enter(
    target: BorrowedFd<'_>,
    namespaces: ThreadNameSpaceType,
    user: bool,
    keyring: Option<&Attached>,
    tasks: &[OwnedFd],
) -> Result<(), Failure> {
    for tasks in tasks {
        rustix::io::write(tasks, b"0").during(|| "enter the cgroup")?;
    }
    use_any_cpu();
    if user && keyring.is_some() {
        keyring::renew(Owner::Caller)?;
    }
    rustix::thread::move_into_thread_name_spaces(target, namespaces).during(|| "join the container's namespaces")?;
    if user {
        let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
        rustix::thread::set_thread_groups(&[]).during(|| "drop groups")?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| "become root of the user namespace")?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| "become root of the user namespace")?;
    }
    rustix::process::setsid().during(|| "start a session")?;
    if let Some(attached) = keyring {
        labels::of_keys(attached)?;
        keyring::renew(if user { Owner::Container } else { Owner::Caller })?;
    }
    Ok(())
}

fn streams(io: Io, process: &Process, sync: &OwnedFd) -> Result<(Streams, bool), Failure> {
    match io {
        Io::Streams { stdin, stdout, stderr } => Ok((Streams { stdin, stdout, stderr }, false)),
        Io::Terminal { plain } => {
            let what = || "make the terminal";
            let root = Root::open(Path::new("/")).during(what)?;
            let terminal = terminal::open(&root, process.size, plain).during(what)?;
            packet::send(sync, &[TERMINAL], &[terminal.master.as_fd()]).during(what)?;
            let copy = || terminal.slave.try_clone().during(what);
            Ok((
                Streams {
                    stdin: copy()?,
                    stdout: copy()?,
                    stderr: copy()?,
                },
                true,
            ))
        }
    }
}
