//! How the first process is born: in new namespaces, in those of others, or both.
//!
//! Somebody's PID namespace takes effect for children only, so it is the parent that enters it and comes back. A user
//! namespace of somebody else's has to be entered before the others are made, which then belong to it: a process in between
//! does that, whose child is nevertheless the caller's.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use ferry_sys::clone::{self, Options};
use ferry_sys::{Child, SingleThreaded, packet};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use crate::failure::{During as _, Failure, Kind};
use crate::namespace::CLONE_NEWUSER;
use crate::start::{Prepared, map_text, write_proc};

/// Makes the child; `None` in the child itself.
pub(crate) fn child(
    proof: &SingleThreaded,
    prepared: &mut Prepared,
    options: &Options<'_>,
) -> Result<Option<Child>, Failure> {
    let mut home = Vec::new();
    let born = join(prepared, options, &mut home).and_then(|()| match take(prepared, "user") {
        Some(user) => through(proof, &user, prepared, options),
        None => clone::clone(proof, options).during(|| "create the container's namespaces"),
    });
    if let Ok(None) = born {
        return born;
    }
    // Hooks are the caller's children too, and belong where it is.
    for namespace in home {
        enter(&namespace, "caller's")?;
    }
    born
}

/// Enters what the child is to be born in; where the caller was before goes into `home`.
fn join(prepared: &mut Prepared, options: &Options<'_>, home: &mut Vec<OwnedFd>) -> Result<(), Failure> {
    if let Some(pid) = take(prepared, "pid") {
        let here = own("pid")?;
        enter(&pid, "pid")?;
        home.push(here);
    }
    // Root of a user namespace may not join what does not belong to it. The caller may, and the child is born there.
    let in_user_namespace =
        options.namespaces & CLONE_NEWUSER != 0 || prepared.join.iter().any(|(kind, _)| *kind == "user");
    for kind in ["net", "ipc", "uts", "cgroup"] {
        let Some(namespace) = in_user_namespace.then(|| take(prepared, kind)).flatten() else {
            continue;
        };
        let here = own(kind)?;
        match rustix::thread::move_into_link_name_space(namespace.as_fd(), None) {
            Ok(()) => home.push(here),
            // A caller without privileges: it may be the other way round.
            Err(rustix::io::Errno::PERM) => prepared.join.push((kind, namespace)),
            Err(error) => return Err(Failure::setup(format!("join the {kind} namespace"), &error.into())),
        }
    }
    Ok(())
}

fn take(prepared: &mut Prepared, kind: &str) -> Option<OwnedFd> {
    let index = prepared.join.iter().position(|(known, _)| *known == kind)?;
    Some(prepared.join.remove(index).1)
}

fn own(kind: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/ns/{kind}"), flags, Mode::empty()).during(|| "look at the own namespaces")
}

fn enter(namespace: &OwnedFd, kind: &str) -> Result<(), Failure> {
    rustix::thread::move_into_link_name_space(namespace.as_fd(), None).during(|| format!("join the {kind} namespace"))
}

/// By way of a process that enters the user namespace first.
fn through(
    proof: &SingleThreaded,
    user: &OwnedFd,
    prepared: &mut Prepared,
    options: &Options<'_>,
) -> Result<Option<Child>, Failure> {
    let what = || "join the user namespace";
    let (ours, theirs) = packet::pair().during(what)?;
    let first = Options {
        namespaces: 0,
        ..*options
    };
    let Some(middle) = clone::clone(proof, &first).during(what)? else {
        drop(ours);
        let born = (|| {
            // While it may: in there it is nobody to the host's cgroups.
            for tasks in prepared.cgroup_tasks.drain(..) {
                rustix::io::write(&tasks, b"0").during(|| "enter the cgroup")?;
            }
            enter(user, "user")?;
            let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
            rustix::thread::set_thread_res_gid(gid, gid, gid).during(what)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid).during(what)?;
            let options = Options {
                namespaces: options.namespaces,
                cgroup: None,
                sibling: true,
            };
            clone::clone(proof, &options).during(|| "create the container's namespaces")
        })();
        match born {
            Ok(None) => return Ok(None),
            Ok(Some(child)) => drop(packet::send(&theirs, b"p", &[child.pidfd.as_fd()])),
            Err(failure) => crate::start::report(theirs.as_fd(), &failure),
        }
        clone::exit_now(0);
    };
    drop(theirs);
    let mut buffer = [0; 4096];
    let heard = packet::receive(&ours, &mut buffer).during(what);
    // It has nothing left to do.
    let _ = middle.wait(true);
    let (length, mut fds) = heard?;
    match (&buffer[..length], fds.pop()) {
        ([b'p'], Some(pidfd)) => {
            let pid = number(pidfd.as_fd()).during(what)?;
            Ok(Some(Child { pid, pidfd }))
        }
        ([_, rest @ ..], _) => Err(Failure::from_bytes(rest)),
        _ => Err(Failure::new(Kind::Setup, "the process between is gone")),
    }
}

/// The process a pidfd stands for (proc_pid_fdinfo(5)).
pub(crate) fn number(pidfd: BorrowedFd<'_>) -> io::Result<Pid> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("the process is gone"))
}

/// A user namespace with the given ids, to map owners of files by. The process that makes it is gone again at once.
pub fn user_namespace(
    proof: &SingleThreaded,
    uids: &[(u32, u32, u32)],
    gids: &[(u32, u32, u32)],
) -> Result<OwnedFd, Failure> {
    let what = || "make a user namespace";
    let options = Options {
        namespaces: CLONE_NEWUSER,
        ..Options::default()
    };
    let Some(child) = clone::clone(proof, &options).during(what)? else {
        // Lives until it is killed.
        loop {
            let _ = rustix::thread::nanosleep(&rustix::time::Timespec {
                tv_sec: 3600,
                tv_nsec: 0,
            });
        }
    };
    let opened = write_proc(&child, "uid_map", &map_text(uids))
        .and_then(|()| write_proc(&child, "gid_map", &map_text(gids)))
        .and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let path = format!("/proc/{}/ns/user", child.pid.as_raw_nonzero());
            Ok(rustix::fs::open(path, flags, Mode::empty())?)
        });
    child
        .signal(libc::SIGKILL)
        .and_then(|()| child.wait(true))
        .during(what)?;
    opened.during(what)
}
