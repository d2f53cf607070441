//! What a group has used, in the kernel's own units unless a field says otherwise.

use std::collections::BTreeMap;

/// Plain numbers behind Docker's `stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub block_io: BlockIo,
}

/// Times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    pub total: u64,
    pub user: u64,
    pub kernel: u64,
    /// By CPU; empty on v2.
    pub per_cpu: Vec<u64>,
    /// Periods with a quota, those in which it ran out, and how long processes then waited.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled_time: u64,
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
    /// `memory.stat` as the kernel names it.
    pub stat: BTreeMap<String, u64>,
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
