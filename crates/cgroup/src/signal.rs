//! Signals to all processes of a group.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Error, Result};
use crate::group::Group;

pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// Pidfds held at a time.
const CHUNK: usize = 256;

/// Real-time signals go to single processes only: nothing in Docker or OCI sends one to a whole group.
pub(crate) fn named(number: i32) -> Result<Signal> {
    Signal::from_named_raw(number).ok_or_else(|| Error::Invalid {
        limit: "signal".to_owned(),
        value: number.to_string(),
        meaning: "not a signal for a whole control group".to_owned(),
    })
}

/// Gives the number of processes there were. A pid that was listed may be another process by now, so a signal goes only
/// to a process that was in the group both before and after it was pinned by its pidfd.
pub(crate) fn send(group: &Group<'_>, signal: Signal) -> Result<usize> {
    let fail = |e| Error::Io {
        action: "signal the processes of",
        path: group.file(""),
        source: Errno::into(e),
    };
    let pids = group.pids()?;
    for chunk in pids.chunks(CHUNK) {
        let mut pinned = Vec::with_capacity(chunk.len());
        for &raw in chunk {
            let Some(pid) = Pid::from_raw(raw) else { continue };
            match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => pinned.push((raw, process)),
                // Gone, or a thread that leads no group.
                Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        let still = group.pids()?;
        for (_, process) in pinned.iter().filter(|(raw, _)| still.binary_search(raw).is_ok()) {
            match rustix::process::pidfd_send_signal(process, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }
    Ok(pids.len())
}

/// Waits until `round`, which kills once more and gives the number of processes it saw, sees none.
pub(crate) fn until_empty(group: &Group<'_>, mut round: impl FnMut() -> Result<usize>) -> Result<()> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        let processes = match round() {
            Ok(0) | Err(Error::NotFound(_)) => return Ok(()),
            other => other?,
        };
        if started.elapsed() > KILL_DEADLINE {
            return Err(Error::Busy {
                path: group.file(""),
                seconds: KILL_DEADLINE.as_secs(),
                processes,
            });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
