//! Stopping a whole group: `cgroup.freeze` asks, `frozen` in `cgroup.events` tells.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::group::{self, Group};
use crate::stats::keyed;

const FREEZE: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) fn freeze(group: &Group<'_>) -> Result<()> {
    let outcome = try_freeze(group);
    if outcome.is_err() {
        let _ = group.write(FREEZE, "0");
    }
    outcome
}

/// A poll of the events file ends when it has changed since it was read (kernfs: POLLPRI).
fn try_freeze(group: &Group<'_>) -> Result<()> {
    let events = group
        .open(EVENTS, OFlags::RDONLY)
        .map_err(|e| group.io_error("open", EVENTS, e))?;
    group
        .write(FREEZE, "1")
        .map_err(|e| group.io_error("write", FREEZE, e))?;
    let started = Instant::now();
    loop {
        let text = group::read_from_start(events.as_fd()).map_err(|e| group.io_error("read", EVENTS, e))?;
        if keyed(&text, "frozen") == Some(1) {
            return Ok(());
        }
        if started.elapsed() > DEADLINE {
            return Err(Error::Freeze {
                path: group.file(""),
                state: "freezing".to_owned(),
            });
        }
        let mut poll = [PollFd::new(&events, PollFlags::PRI)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        // A signal or a time-out reads once more, like an event.
        let _ = rustix::event::poll(&mut poll, Some(&second));
    }
}

pub(super) fn is_frozen(group: &Group<'_>) -> bool {
    group.read(EVENTS).is_ok_and(|text| keyed(&text, "frozen") == Some(1))
}

pub(super) fn thaw(group: &Group<'_>) -> Result<()> {
    group.write(FREEZE, "0").map_err(|e| group.io_error("write", FREEZE, e))
}
