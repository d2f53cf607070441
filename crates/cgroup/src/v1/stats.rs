//! Usage, controller by controller.

use rustix::io::Errno;

use crate::error::Result;
use crate::group::Group;
use crate::stats::{BlockIo, BlockIoEntry, Cpu, Memory, Pids, flat_keyed, keyed};

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture Ferry runs on.
const NANOSECONDS_A_TICK: u64 = 10_000_000;
/// The largest page count in bytes, shown where there is no limit; pages are 4 to 64 KiB.
const UNLIMITED: u64 = 1 << 62;

pub(super) fn usage(cpuacct: &Group<'_>, cpu: &mut Cpu) -> Result<()> {
    cpu.total = cpuacct.read_number("cpuacct.usage")?.unwrap_or_default();
    let stat = cpuacct.read_known("cpuacct.stat")?;
    cpu.user = keyed(&stat, "user")
        .unwrap_or_default()
        .saturating_mul(NANOSECONDS_A_TICK);
    cpu.kernel = keyed(&stat, "system")
        .unwrap_or_default()
        .saturating_mul(NANOSECONDS_A_TICK);
    let per_cpu = cpuacct.read_known("cpuacct.usage_percpu")?;
    cpu.per_cpu = per_cpu.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    Ok(())
}

pub(super) fn throttling(group: &Group<'_>, cpu: &mut Cpu) -> Result<()> {
    let stat = group.read_known("cpu.stat")?;
    cpu.periods = keyed(&stat, "nr_periods").unwrap_or_default();
    cpu.throttled_periods = keyed(&stat, "nr_throttled").unwrap_or_default();
    cpu.throttled_time = keyed(&stat, "throttled_time").unwrap_or_default();
    Ok(())
}

pub(super) fn memory(group: &Group<'_>) -> Result<Memory> {
    let number = |name: &str| Ok(group.read_number(name)?.filter(|n| *n < UNLIMITED));
    let with_swap = |name: &str| match group.read(name) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(Errno::NOENT | Errno::OPNOTSUPP) => Ok(None),
        Err(e) => Err(group.io_error("read", name, e)),
    };
    Ok(Memory {
        usage: number("memory.usage_in_bytes")?.unwrap_or_default(),
        max_usage: number("memory.max_usage_in_bytes")?.unwrap_or_default(),
        limit: number("memory.limit_in_bytes")?,
        swap_usage: with_swap("memory.memsw.usage_in_bytes")?,
        swap_limit: with_swap("memory.memsw.limit_in_bytes")?.filter(|n| *n < UNLIMITED),
        failures: number("memory.failcnt")?.unwrap_or_default(),
        stat: flat_keyed(&group.read_known("memory.stat")?),
    })
}

pub(super) fn pids(group: &Group<'_>) -> Result<Pids> {
    let current = group.read_number("pids.current")?.unwrap_or_default();
    Ok(Pids {
        current,
        limit: group.read_number("pids.max")?,
    })
}

/// BFQ's counters where that scheduler is in use, else those of the throttling layer, which sees all I/O.
pub(super) fn block_io(group: &Group<'_>) -> Result<BlockIo> {
    let read = |names: [&str; 2]| {
        for name in names {
            match group.read(name) {
                Ok(text) => {
                    let entries = entries(&text);
                    if !entries.is_empty() {
                        return Ok(entries);
                    }
                }
                Err(Errno::NOENT | Errno::OPNOTSUPP) => {}
                Err(e) => return Err(group.io_error("read", name, e)),
            }
        }
        Ok(Vec::new())
    };
    Ok(BlockIo {
        service_bytes: read([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ])?,
        serviced: read([
            "blkio.bfq.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ])?,
    })
}

/// `8:0 Read 4096`; the closing `Total 4096` names no device and is left out.
fn entries(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        Some(BlockIoEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            operation: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_all_devices_is_no_entry() {
        let entries = entries("8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(
            (entries[0].major, entries[0].operation.as_str(), entries[0].value),
            (8, "Read", 4096)
        );
    }
}
