//! Memory and swap. `memory.swap.max` counts swap alone, OCI's `swap` both together.

use oci_spec::runtime::LinuxMemory;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::limits::Limits;

const MAX: &str = "memory.max";
const SWAP_MAX: &str = "memory.swap.max";

fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

fn text(value: i64) -> String {
    if value == -1 {
        "max".to_owned()
    } else {
        value.to_string()
    }
}

/// Memory first where it is lowered would kill before swap is there to go to, so swap first, as runc does.
///
/// OCI's `swap` stands for both together, so one that was given stays what it is when memory alone changes, and needs the
/// memory limit that is in force when it comes alone.
pub(super) fn apply(limits: &mut Limits<'_>, memory: &LinuxMemory, fresh: bool) -> Result<()> {
    let limit = set(memory.limit());
    let asked = set(memory.swap());
    if memory.check_before_update() == Some(true) {
        check(limits, limit, asked)?;
    }
    let (with, together) = match (limit, asked) {
        (Some(limit), None) if limit > 0 && !fresh => (Some(limit), held_together(&limits.group)),
        (None, Some(_)) if !fresh => (held(&limits.group, MAX), asked),
        given => given,
    };
    if let Some(swap) = swap(with, together)? {
        let value = text(swap);
        // Without swap accounting there is no swap to forbid, and none to allow.
        let nothing_to_do = matches!(value.as_str(), "0" | "max") && !limits.group.exists(SWAP_MAX);
        if !nothing_to_do {
            limits.set("memory.swap", SWAP_MAX, &value, "a swap limit is a number of bytes")?;
        }
    }
    if let Some(limit) = limit {
        limits.set(
            "memory.limit",
            MAX,
            &text(limit),
            "a memory limit is a number of bytes, or -1",
        )?;
    }
    if let Some(reservation) = set(memory.reservation()) {
        let meaning = "a memory reservation is a number of bytes, or -1";
        limits.set("memory.reservation", "memory.low", &text(reservation), meaning)?;
    }
    if let Some(swappiness) = memory.swappiness().filter(|value| *value != u64::MAX) {
        limits.of_v1("memory.swappiness", &swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.of_v1("memory.disableOOMKiller", &true);
    }
    Ok(())
}

/// The kernel takes a limit below the usage and kills for it; a caller may want it refused instead. Where the usage
/// cannot be read, there is none yet.
fn check(limits: &Limits<'_>, limit: Option<i64>, together: Option<i64>) -> Result<()> {
    let Ok(usage) = limits.group.read_number("memory.current") else {
        return Ok(());
    };
    let usage = usage.unwrap_or_default();
    for (name, what, value) in [
        ("memory.swap", "memory+swap", together),
        ("memory.limit", "memory", limit),
    ] {
        let Some(wanted) = value.and_then(|value| u64::try_from(value).ok()) else {
            continue;
        };
        if wanted <= usage {
            return Err(Error::Invalid {
                limit: name.to_owned(),
                value: wanted.to_string(),
                meaning: format!("rejecting {what} limit {wanted} <= usage {usage}"),
            });
        }
    }
    Ok(())
}

/// A limit that is in force.
fn held(group: &Group<'_>, file: &str) -> Option<i64> {
    let number = group.read_number(file).ok()??;
    i64::try_from(number).ok()
}

/// Memory and swap together, where both have a limit.
fn held_together(group: &Group<'_>) -> Option<i64> {
    held(group, SWAP_MAX)?.checked_add(held(group, MAX)?)
}

/// Memory and swap together, as swap alone; -1 is unlimited, `None` leaves it.
fn swap(memory: Option<i64>, together: Option<i64>) -> Result<Option<i64>> {
    let invalid = |together: i64, meaning: &str| Error::Invalid {
        limit: "memory.swap".to_owned(),
        value: together.to_string(),
        meaning: meaning.to_owned(),
    };
    match (memory, together) {
        (Some(-1), None) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (_, Some(-1)) => Ok(Some(-1)),
        (Some(-1), Some(together)) => Ok(Some(together)),
        (None, Some(together)) => Err(invalid(together, "unable to set swap limit without memory limit")),
        (Some(memory), Some(together)) if memory < 0 || together < memory => {
            Err(invalid(together, "memory+swap limit should be >= memory limit"))
        }
        (Some(memory), Some(together)) => Ok(Some(together - memory)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_what_is_beyond_memory() {
        assert_eq!(swap(Some(100), Some(300)).unwrap(), Some(200));
        assert_eq!(swap(Some(100), Some(100)).unwrap(), Some(0));
        assert_eq!(swap(Some(100), Some(-1)).unwrap(), Some(-1));
        assert_eq!(swap(Some(100), None).unwrap(), None);
        assert_eq!(swap(Some(-1), None).unwrap(), Some(-1));
        assert_eq!(swap(Some(-1), Some(7)).unwrap(), Some(7));
        assert!(swap(None, Some(7)).is_err());
        assert!(swap(Some(100), Some(7)).is_err());
    }
}
