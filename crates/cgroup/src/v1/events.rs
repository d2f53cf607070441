//! Out of memory: a counter, and notice through an eventfd (cgroup-v1/memory.rst, sections 9 and 10).

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::stats::keyed;

const CONTROL: &str = "memory.oom_control";
const REGISTER: &str = "cgroup.event_control";

/// Processes of this very group; those of groups below count there.
pub(super) fn oom_kills(memory: &Group<'_>) -> Result<u64> {
    let text = memory.read_known(CONTROL)?;
    keyed(&text, "oom_kill").ok_or_else(|| Error::Unexpected {
        file: memory.file(CONTROL),
        content: text,
    })
}

pub(super) fn oom_watch(memory: &Group<'_>) -> Result<OwnedFd> {
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| Error::Io {
        action: "make an eventfd for",
        path: memory.file(CONTROL),
        source: e.into(),
    })?;
    let control = memory
        .open(CONTROL, OFlags::RDONLY)
        .map_err(|e| memory.io_error("open", CONTROL, e))?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    memory
        .write(REGISTER, &line)
        .map_err(|e| memory.io_error("write", REGISTER, e))?;
    Ok(event)
}
