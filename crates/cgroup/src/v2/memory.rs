//! Memory and swap. `memory.swap.max` counts swap alone, OCI's `swap` both together.

use oci_spec::runtime::LinuxMemory;

use crate::error::{Error, Result};
use crate::limits::Limits;

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
pub(super) fn apply(limits: &mut Limits<'_>, memory: &LinuxMemory) -> Result<()> {
    let limit = set(memory.limit());
    if memory.check_before_update() == Some(true) {
        check(limits, limit)?;
    }
    if let Some(swap) = swap(limit, set(memory.swap()))? {
        let value = text(swap);
        // Without swap accounting there is no swap to forbid, and none to allow.
        let nothing_to_do = matches!(value.as_str(), "0" | "max") && !limits.group.exists("memory.swap.max");
        if !nothing_to_do {
            limits.set(
                "memory.swap",
                "memory.swap.max",
                &value,
                "a swap limit is a number of bytes",
            )?;
        }
    }
    if let Some(limit) = limit {
        limits.set(
            "memory.limit",
            "memory.max",
            &text(limit),
            "a memory limit is a number of bytes, or -1",
        )?;
    }
    if let Some(reservation) = set(memory.reservation()) {
        let meaning = "a memory reservation is a number of bytes, or -1";
        limits.set("memory.reservation", "memory.low", &text(reservation), meaning)?;
    }
    if let Some(swappiness) = memory.swappiness().filter(|value| *value != u64::MAX) {
        limits.unsupported(
            "memory.swappiness",
            &swappiness.to_string(),
            "memory.swappiness with cgroup v2",
        );
    }
    if memory.disable_oom_killer() == Some(true) {
        limits.unsupported("memory.disableOOMKiller", "true", "memory.oom_control with cgroup v2");
    }
    Ok(())
}

/// The kernel takes a limit below the usage and kills for it; a caller may want it refused instead.
fn check(limits: &Limits<'_>, limit: Option<i64>) -> Result<()> {
    let Some(wanted) = limit.and_then(|limit| u64::try_from(limit).ok()) else {
        return Ok(());
    };
    let usage = limits.group.read_number("memory.current")?.unwrap_or_default();
    if usage <= wanted {
        return Ok(());
    }
    let meaning = format!("a memory limit of {wanted} is below what the group uses ({usage})");
    Err(limits
        .group
        .refused("memory.max", &wanted.to_string(), meaning, rustix::io::Errno::BUSY))
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
