//! Stopping a whole group (cgroup-v1/freezer-subsystem.rst).
//!
//! ```text
//! THAWED --FROZEN--> FREEZING ... FROZEN --THAWED--> THAWED
//! ```
//! FREEZING lasts as long as some process has not stopped, for ever when new ones keep appearing: then thawing shortly
//! and trying again helps (runc's finding). A group is never left in FREEZING.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::group::Group;

const STATE: &str = "freezer.state";
const ATTEMPTS: u32 = 1000;
/// So many are made in a row; between those after them there is a pause, two seconds in all. A process in the middle of
/// its disk I/O stops only after it.
const AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn freeze(freezer: &Group<'_>) -> Result<()> {
    let outcome = try_freeze(freezer);
    if outcome.is_err() {
        let _ = freezer.write(STATE, "THAWED");
    }
    outcome
}

fn try_freeze(freezer: &Group<'_>) -> Result<()> {
    let fail = |e| freezer.io_error("write", STATE, e);
    for attempt in 0..ATTEMPTS {
        if attempt % 50 == 49 {
            let _ = freezer.write(STATE, "THAWED");
            std::thread::sleep(Duration::from_millis(10));
        }
        freezer.write(STATE, "FROZEN").map_err(fail)?;
        if attempt >= AT_ONCE {
            std::thread::sleep(PAUSE);
        } else if attempt % 25 == 24 {
            std::thread::sleep(Duration::from_micros(10));
        }
        match freezer.read_known(STATE)?.trim() {
            "FROZEN" => return Ok(()),
            "FREEZING" => {}
            state => {
                return Err(Error::Freeze {
                    path: freezer.file(""),
                    state: state.to_owned(),
                });
            }
        }
    }
    Err(Error::Freeze {
        path: freezer.file(""),
        state: "FREEZING".to_owned(),
    })
}

pub(super) fn is_frozen(freezer: &Group<'_>) -> bool {
    freezer.read(STATE).is_ok_and(|state| state.trim() != "THAWED")
}

pub(super) fn thaw(freezer: &Group<'_>) -> Result<()> {
    freezer
        .write(STATE, "THAWED")
        .map_err(|e| freezer.io_error("write", STATE, e))
}

/// Thaws the groups below too: what a container froze of its own would never see its SIGKILL.
pub(super) fn thaw_all(freezer: &Group<'_>) -> Result<()> {
    thaw(freezer)?;
    for child in freezer.children()? {
        let path = format!("{}/{child}", freezer.path);
        match thaw_all(&freezer.with_path(&path)) {
            Ok(()) | Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
