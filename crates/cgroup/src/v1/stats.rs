//! Usage, controller by controller.

use rustix::io::Errno;

use crate::error::Result;
use crate::group::Group;
use crate::limits::cpu_list;
use crate::stats::{BlockIo, BlockIoEntry, Charge, Cpu, Cpuset, Memory, Pids, flat_keyed, keyed};

/// `cpuacct.stat` counts in USER_HZ, which is 100 on every architecture Ferry runs on.
const NANOSECONDS_A_TICK: u64 = 10_000_000;
/// The largest page count in bytes, shown where there is no limit; pages are 4 to 64 KiB.
const UNLIMITED: u64 = 1 << 62;

pub(super) fn times(cpuacct: &Group<'_>, cpu: &mut Cpu) -> Result<()> {
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

pub(super) fn modes(cpuacct: &Group<'_>, cpu: &mut Cpu) {
    let modes = cpuacct.read("cpuacct.usage_all").unwrap_or_default();
    (cpu.per_cpu_user, cpu.per_cpu_kernel) = by_mode(&modes);
}

/// A line `cpu user system`, then one a CPU.
fn by_mode(text: &str) -> (Vec<u64>, Vec<u64>) {
    let line = |line: &str| {
        let mut words = line.split_whitespace().skip(1).map(str::parse::<u64>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    };
    text.lines().skip(1).filter_map(line).unzip()
}

/// Processors and memory nodes that may be used, and the switches.
pub(super) fn cpuset(group: &Group<'_>) -> Result<Cpuset> {
    const SWITCHES: [&str; 9] = [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ];
    let list = |file: &str| -> Result<Vec<u32>> {
        let ranges = cpu_list(&group.read_known(file)?).unwrap_or_default();
        Ok(ranges.into_iter().flat_map(|(first, last)| first..=last).collect())
    };
    let switch = |name: &'static str| {
        let text = group.read(&format!("cpuset.{name}")).ok()?;
        Some((name, text.trim().parse().ok()?))
    };
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        mems: list("cpuset.mems")?,
        switches: SWITCHES.into_iter().filter_map(switch).collect(),
    })
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
        ..Memory::default()
    })
}

/// Each of them is optional, by kernel and by its configuration.
pub(super) fn charges(group: &Group<'_>, memory: &mut Memory) {
    let charge = |name: &str| {
        let value = |what: &str| {
            let text = group.read(&format!("memory.{name}.{what}")).unwrap_or_default();
            text.trim().parse().unwrap_or_default()
        };
        Charge {
            usage: value("usage_in_bytes"),
            max_usage: value("max_usage_in_bytes"),
            failures: value("failcnt"),
            limit: value("limit_in_bytes"),
        }
    };
    memory.kernel = charge("kmem");
    memory.kernel_tcp = charge("kmem.tcp");
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
        pressure: None,
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
    fn user_and_kernel_time_are_columns() {
        let text = "cpu user system\n0 12 3\n1 45 6\n";
        assert_eq!(by_mode(text), (vec![12, 45], vec![3, 6]));
    }

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
