//! Memory and swap (cgroup-v1/memory.rst). `memory.memsw` counts both together, as OCI's `swap` does.

use oci_spec::runtime::LinuxMemory;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::group::Group;
use crate::limits::Limits;

const LIMIT: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";

/// 0 is "not set", as with Docker and runc.
fn set(value: Option<i64>) -> Option<i64> {
    value.filter(|value| *value != 0)
}

/// -1 is "leave it alone", in whatever width it arrived.
fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|value| *value != u64::MAX)
}

pub(super) fn asked(memory: &LinuxMemory) -> Vec<(String, String)> {
    let numbers = [
        ("memory.limit", set(memory.limit())),
        ("memory.swap", set(memory.swap())),
        ("memory.reservation", set(memory.reservation())),
    ];
    let mut asked: Vec<_> = numbers
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_string())))
        .collect();
    asked.extend(swappiness(memory).map(|value| ("memory.swappiness".to_owned(), value.to_string())));
    if memory.disable_oom_killer() == Some(true) {
        asked.push(("memory.disableOOMKiller".to_owned(), "true".to_owned()));
    }
    asked
}

/// Limits of kernel memory are ignored: the kernel does (5.16), and so does runc.
pub(super) fn apply(limits: &mut Limits<'_>, memory: &LinuxMemory) -> Result<()> {
    both(limits, set(memory.limit()), set(memory.swap()))?;
    if let Some(reservation) = set(memory.reservation()) {
        let meaning = "a memory reservation is a number of bytes, or -1";
        limits.set(
            "memory.reservation",
            "memory.soft_limit_in_bytes",
            &reservation.to_string(),
            meaning,
        )?;
    }
    if let Some(swappiness) = swappiness(memory) {
        if swappiness > 100 {
            return Err(Error::Invalid {
                limit: "memory.swappiness".to_owned(),
                value: swappiness.to_string(),
                meaning: "valid memory swappiness is 0 to 100".to_owned(),
            });
        }
        limits.set(
            "memory.swappiness",
            "memory.swappiness",
            &swappiness.to_string(),
            "swappiness is 0 to 100",
        )?;
    }
    if memory.disable_oom_killer() == Some(true) {
        let meaning = "the OOM killer cannot be switched off for this group";
        limits.put("memory.disableOOMKiller", "memory.oom_control", "1", meaning)?;
    }
    Ok(())
}

/// The kernel keeps `memsw >= memory` at every moment, so what is raised first depends on where both stand: memory
/// first is right for a new group and when both go down, and where it is refused the swap limit goes first.
fn both(limits: &mut Limits<'_>, memory: Option<i64>, swap: Option<i64>) -> Result<()> {
    let swap = match (memory, swap) {
        // Unlimited memory below a swap limit means nothing: lift both.
        (Some(-1), None) if limits.group.exists(SWAP) => Some(-1),
        _ => swap,
    };
    let Some(memory) = memory else {
        return swap.map_or(Ok(()), |swap| set_swap(limits, swap));
    };
    match (limits.attempt("memory.limit", LIMIT, &memory.to_string())?, swap) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(swap)) => set_swap(limits, swap),
        (Err(Errno::INVAL), Some(swap)) => {
            set_swap(limits, swap)?;
            let outcome = limits.attempt("memory.limit", LIMIT, &memory.to_string())?;
            outcome.map_err(|e| limit_refused(&limits.group, memory, e))
        }
        (Err(e), _) => Err(limit_refused(&limits.group, memory, e)),
    }
}

fn set_swap(limits: &mut Limits<'_>, swap: i64) -> Result<()> {
    let value = swap.to_string();
    let outcome = limits.attempt("memory.swap", SWAP, &value)?;
    outcome.map_err(|e| {
        let meaning = match e {
            Errno::INVAL => "the limit of memory and swap together is below the memory limit".to_owned(),
            Errno::BUSY => in_use(&limits.group, "memory and swap", swap, "memory.memsw.usage_in_bytes"),
            _ => "a limit of memory and swap is a number of bytes, or -1".to_owned(),
        };
        limits.group.refused(SWAP, &value, meaning, e)
    })
}

fn limit_refused(group: &Group<'_>, memory: i64, errno: Errno) -> Error {
    let meaning = match errno {
        Errno::INVAL => "the memory limit is above the limit of memory and swap together".to_owned(),
        Errno::BUSY => in_use(group, "memory", memory, "memory.usage_in_bytes"),
        _ => "a memory limit is a number of bytes, or -1".to_owned(),
    };
    group.refused(LIMIT, &memory.to_string(), meaning, errno)
}

fn in_use(group: &Group<'_>, what: &str, limit: i64, usage: &str) -> String {
    let usage = group.read(usage).unwrap_or_default();
    format!(
        "a {what} limit of {limit} is below what the group uses ({})",
        usage.trim()
    )
}
