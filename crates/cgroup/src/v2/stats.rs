//! Usage. A file that is missing belongs to a controller that is not switched on, or to a newer kernel.

use rustix::io::Errno;

use crate::error::Result;
use crate::group::Group;
use crate::rdma;
use crate::stats::{BlockIo, BlockIoEntry, Cpu, Memory, Pids, Stats, flat_keyed, keyed, pressure};

pub(super) fn read(group: &Group<'_>) -> Result<Stats> {
    // Not every kernel keeps it, and some only when told to at their start (EOPNOTSUPP).
    let pressure = |name: &str| Ok(text(group, name)?.map(|text| pressure(&text)));
    let mut stats = usage(group)?;
    stats.cpu.pressure = pressure("cpu.pressure")?;
    stats.memory.pressure = pressure("memory.pressure")?;
    stats.block_io.pressure = pressure("io.pressure")?;
    stats.huge_pages = super::hugetlb::stats(group)?;
    stats.rdma = rdma::stats(group)?;
    Ok(stats)
}

pub(super) fn usage(group: &Group<'_>) -> Result<Stats> {
    let text = |name: &str| text(group, name);
    let number = |name: &str| Ok(text(name)?.and_then(|text| text.trim().parse::<u64>().ok()));
    let failures = text("memory.events")?
        .and_then(|text| keyed(&text, "max"))
        .unwrap_or_default();
    Ok(Stats {
        cpu: times(group)?,
        memory: Memory {
            usage: number("memory.current")?.unwrap_or_default(),
            max_usage: number("memory.peak")?.unwrap_or_default(),
            limit: number("memory.max")?,
            swap_usage: number("memory.swap.current")?,
            swap_limit: number("memory.swap.max")?,
            failures,
            stat: text("memory.stat")?.map(|text| flat_keyed(&text)).unwrap_or_default(),
            ..Memory::default()
        },
        pids: Pids {
            current: number("pids.current")?.unwrap_or_default(),
            limit: number("pids.max")?,
        },
        block_io: block_io(&text("io.stat")?.unwrap_or_default()),
        ..Stats::default()
    })
}

pub(super) fn times(group: &Group<'_>) -> Result<Cpu> {
    Ok(cpu(&text(group, "cpu.stat")?.unwrap_or_default()))
}

/// `None` for a file that is not there in a group that is.
fn text(group: &Group<'_>, name: &str) -> Result<Option<String>> {
    match group.read(name) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::NOENT | Errno::OPNOTSUPP) if group.exists("") => Ok(None),
        Err(e) => Err(group.io_error("read", name, e)),
    }
}

fn cpu(stat: &str) -> Cpu {
    let count = |name: &str| keyed(stat, name).unwrap_or_default();
    let microseconds = |name: &str| count(name).saturating_mul(1000);
    Cpu {
        total: microseconds("usage_usec"),
        user: microseconds("user_usec"),
        kernel: microseconds("system_usec"),
        periods: count("nr_periods"),
        throttled_periods: count("nr_throttled"),
        throttled_time: microseconds("throttled_usec"),
        ..Cpu::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn block_io(text: &str) -> BlockIo {
    let mut block_io = BlockIo::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            let entry = |operation: &str| BlockIoEntry {
                major,
                minor,
                operation: operation.to_owned(),
                value,
            };
            match key {
                "rbytes" => block_io.service_bytes.push(entry("read")),
                "wbytes" => block_io.service_bytes.push(entry("write")),
                "rios" => block_io.serviced.push(entry("read")),
                "wios" => block_io.serviced.push(entry("write")),
                _ => {}
            }
        }
    }
    block_io
}
