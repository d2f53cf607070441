//! Out of memory: a counter of the whole subtree, and notice through inotify, which kernfs serves for its event files.

use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::stats::keyed;

const EVENTS: &str = "memory.events";

pub(super) fn oom_kills(group: &Group<'_>) -> Result<u64> {
    match group.read(EVENTS) {
        Ok(text) => Ok(keyed(&text, "oom_kill").unwrap_or_default()),
        // No memory controller here, no kills of it.
        Err(Errno::NOENT) if group.exists("") => Ok(0),
        Err(e) => Err(group.io_error("read", EVENTS, e)),
    }
}

pub(super) fn oom_watch(group: &Group<'_>) -> Result<OwnedFd> {
    let path = group.file(EVENTS);
    let fail = |source: Errno| Error::Io {
        action: "watch",
        path: path.clone(),
        source: source.into(),
    };
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(fail)?;
    inotify::add_watch(&watch, &path, WatchFlags::MODIFY | WatchFlags::DELETE_SELF).map_err(fail)?;
    Ok(watch)
}
