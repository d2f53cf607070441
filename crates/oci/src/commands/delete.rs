//! `delete`: the end of everything a container has.

use std::os::fd::{AsFd as _, OwnedFd};

use ferry_cgroup::Hierarchy;
use ferry_runtime::hooks;
use ferry_sys::SingleThreaded;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::id;
use crate::cgroups;
use crate::command_line::Context;
use crate::error::{During as _, Error, Result};
use crate::flags::Parsed;
use crate::state::{Directory, Record, Status};
use crate::{resctrl, rootfs};

/// How long a killed process may take to be gone.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How long a program that was just started may take to end before `delete` is refused.
const GRACE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

pub(super) fn delete(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let (id, force) = (id(parsed), parsed.is_set("force"));
    let directory = match context.root.find(id) {
        Err(Error::NotFound) if force => return Ok(0),
        done => done?,
    };
    let record = match directory.load(id) {
        // What a killed create left, or what somebody truncated: there is nothing to learn from it.
        Err(Error::NotFound | Error::Damaged { .. }) if force && !directory.is_busy() => {
            remove_unrecorded(id);
            directory.remove()?;
            return Ok(0);
        }
        Err(Error::NotFound) if force => {
            return Err(Error::State(format!(
                "cannot delete container {id} that is not stopped: creating"
            )));
        }
        done => done?,
    };
    let mut status = record.status(&directory);
    // Where the program may be done any moment, a caller that runc has taught to be slow gets what it would get there.
    if let (Status::Running, false, Some(process)) = (status, force, record.process()) {
        let mut fds = [PollFd::new(&process, PollFlags::IN)];
        if poll(&mut fds, Some(&GRACE)).is_ok_and(|ended| ended > 0) {
            status = record.status(&directory);
        }
    }
    match status {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            let name = status.name();
            return Err(Error::State(format!(
                "cannot delete container {id} that is not stopped: {name}"
            )));
        }
    }
    destroy(context, &directory, &record)?;
    Ok(0)
}

/// Kills what is left, and removes cgroup, state and all; goes on past a failure and reports the first.
pub(super) fn destroy(context: &mut Context<'_>, directory: &Directory, record: &Record) -> Result<()> {
    if let Some(process) = record.process() {
        let killed = ferry_sys::clone::signal_pidfd(process.as_fd(), libc::SIGKILL);
        if let (Ok(()), false) = (&killed, record.status(directory) == Status::Paused) {
            wait_for(&process)?;
        }
    }
    ferry_sys::exe::release_code();
    let mut first = remove_cgroup(record);
    first = first.and(rootfs::detach(record));
    if let Some(class) = &record.class {
        first = first.and(resctrl::leave(class));
    }
    first = first.and(directory.remove());
    if !record.poststop.is_empty() {
        let proof = SingleThreaded::check().during(|| "check the number of threads")?;
        let state = record.told(Status::Stopped).with_pid(0);
        let env = context.c_environment()?;
        // The container is gone whatever they say: each one runs, and a failure is noted (runtime.md, "Lifecycle").
        for hook in &record.poststop {
            if let Err(failure) = hooks::run(&proof, "poststop", std::slice::from_ref(hook), &state, &env) {
                context.log.warn(&failure.message);
            }
        }
    }
    first
}

fn wait_for(process: &OwnedFd) -> Result<()> {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    match poll(&mut fds, Some(&PATIENCE)).during(|| "wait for the container's process")? {
        0 => Err(Error::State("container init still running".to_owned())),
        _ => Ok(()),
    }
}

fn remove_cgroup(record: &Record) -> Result<()> {
    let (Some(path), Some(layout)) = (&record.cgroup, &record.layout) else {
        return Ok(());
    };
    let hierarchy: Hierarchy = layout.clone().try_into()?;
    let cgroup = match hierarchy.open(path) {
        Ok(cgroup) => cgroup,
        // A create that was killed on v1 may have made it in some hierarchies only; nobody was in it yet.
        Err(ferry_cgroup::Error::NotFound(_)) => {
            hierarchy.remove_empty(path)?;
            cgroups::remove_parent(&hierarchy, path);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    // Processes of a container without a PID namespace of its own outlive the first one; paused ones have to be thawed.
    cgroup.kill(libc::SIGKILL)?;
    cgroup.remove()?;
    cgroups::remove_parent(&hierarchy, path);
    Ok(())
}

/// The default cgroup of an id that has no record.
fn remove_unrecorded(id: &str) {
    let Ok(layout) = cgroups::layout() else { return };
    let Ok(path) = cgroups::path(None, id) else { return };
    let Ok(hierarchy) = Hierarchy::try_from(layout) else {
        return;
    };
    match hierarchy.open(&path) {
        Ok(cgroup) => {
            let _ = cgroup.kill(libc::SIGKILL);
            let _ = cgroup.remove();
        }
        Err(_) => drop(hierarchy.remove_empty(&path)),
    }
    cgroups::remove_parent(&hierarchy, &path);
}
