//! What a group has used, in the kernel's own units unless a field says otherwise.

use std::collections::BTreeMap;

/// Plain numbers behind Docker's `stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub block_io: BlockIo,
    /// v1, and only in a container with a limit of it.
    pub cpuset: Option<Cpuset>,
    /// By size (`2MB`).
    pub huge_pages: BTreeMap<String, HugePages>,
    pub rdma: Vec<Rdma>,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    /// By CPU; empty on v2.
    pub per_cpu: Vec<u64>,
    pub per_cpu_kernel: Vec<u64>,
    pub per_cpu_user: Vec<u64>,
    /// Periods with a quota, those in which it ran out, and how long processes then waited.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
    /// v2, on a kernel that keeps it.
    pub pressure: Option<Pressure>,
}

/// Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub usage: u64,
    /// Highest usage; 0 where the kernel does not keep it (v2 before 5.19).
    pub max_usage: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
    /// Swap alone on v2, memory and swap on v1; `None` without swap accounting.
    pub swap_usage: Option<u64>,
    pub swap_limit: Option<u64>,
    /// How often an allocation met the limit.
    pub failures: u64,
    /// Of kernel memory and of that in TCP buffers; v1.
    pub kernel: Charge,
    pub kernel_tcp: Charge,
    /// `memory.stat` as the kernel names it.
    pub stat: BTreeMap<String, u64>,
    pub pressure: Option<Pressure>,
}

/// A counter of v1's that nothing limits any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    pub usage: u64,
    pub max_usage: u64,
    pub failures: u64,
    /// 0 where the kernel has no limit.
    pub limit: u64,
}

/// How much processes waited for something (accounting/psi.rst): some of them, and all of them at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// Averages in percent, as the kernel writes them, and a total in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stall {
    pub avg10: String,
    pub avg60: String,
    pub avg300: String,
    pub total: u64,
}

/// The files of a v1 cpuset: what may be used, and its switches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpuset {
    pub cpus: Vec<u32>,
    pub mems: Vec<u32>,
    /// By the file's name without `cpuset.`; a relaxed domain level of -1 is none.
    pub switches: BTreeMap<&'static str, i64>,
}

/// Bytes; of reservations where the kernel counts those.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugePages {
    pub usage: u64,
    /// v1 alone.
    pub max_usage: u64,
    pub failures: u64,
}

/// Of one device; without a limit there is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    pub device: String,
    pub handles: u64,
    pub objects: u64,
    pub handle_limit: Option<u64>,
    pub object_limit: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    /// `None` is unlimited.
    pub limit: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Bytes and operations, by device and `Read`, `Write`, …
    pub service_bytes: Vec<BlockIoEntry>,
    pub serviced: Vec<BlockIoEntry>,
    pub pressure: Option<Pressure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockIoEntry {
    pub major: u64,
    pub minor: u64,
    /// As the kernel writes it on v1 (`Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`); `read` and `write` on v2.
    pub operation: String,
    pub value: u64,
}

/// Lines of a name and a number; others are skipped.
pub(crate) fn flat_keyed(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    });
    pairs.collect()
}

/// The number behind one name of a flat keyed file.
pub(crate) fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
pub(crate) fn pressure(text: &str) -> Pressure {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        let value = |key: &str| {
            line.into_iter()
                .flat_map(str::split_whitespace)
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or("0")
        };
        Stall {
            avg10: value("avg10").to_owned(),
            avg60: value("avg60").to_owned(),
            avg300: value("avg300").to_owned(),
            total: value("total").parse().unwrap_or_default(),
        }
    };
    Pressure {
        some: stall("some"),
        full: stall("full"),
    }
}

/// The sizes of huge pages that a group's files are for, from their names.
pub(crate) fn page_sizes(names: &[String]) -> Vec<&str> {
    let mut sizes: Vec<&str> = names
        .iter()
        .filter_map(|name| Some(name.strip_prefix("hugetlb.")?.split_once('.')?.0))
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_line_by_line() {
        let pressure = pressure(
            "some avg10=0.12 avg60=1.00 avg300=2.50 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        );
        assert_eq!((pressure.some.avg10.as_str(), pressure.some.total), ("0.12", 77));
        assert_eq!(pressure.full.total, 3);
    }

    #[test]
    fn page_sizes_are_in_the_names_of_files() {
        let names = [
            "hugetlb.2MB.max",
            "hugetlb.2MB.rsvd.max",
            "hugetlb.1GB.events",
            "cgroup.procs",
        ];
        assert_eq!(page_sizes(&names.map(str::to_owned)), ["1GB", "2MB"]);
    }
}
