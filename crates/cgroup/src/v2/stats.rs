//! Usage. A file that is missing belongs to a controller that is not switched on, or to a newer kernel.

use rustix::io::Errno;

use crate::error::Result;
use crate::group::Group;
use crate::rdma;
use crate::stats::{BlockIo, BlockIoEntry, Cpu, Memory, Pids, Stats, flat_keyed, keyed, pressure};

pub(super) fn read(group: &Group<'_>) -> Result<Stats> {
    let text = |name: &str| match group.read(name) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::NOENT | Errno::OPNOTSUPP) if group.exists("") => Ok(None),
        Err(e) => Err(group.io_error("read", name, e)),
    };
    let number = |name: &str| Ok(text(name)?.and_then(|text| text.trim().parse::<u64>().ok()));
    // Not every kernel keeps it, and some only when told to at their start (EOPNOTSUPP).
    let pressure = |name: &str| Ok(text(name)?.map(|text| pressure(&text)));
    let failures = text("memory.events")?
        .and_then(|text| keyed(&text, "max"))
        .unwrap_or_default();
    Ok(Stats {
        cpu: Cpu {
            pressure: pressure("cpu.pressure")?,
            ..cpu(&text("cpu.stat")?.unwrap_or_default())
        },
        memory: Memory {
            usage: number("memory.current")?.unwrap_or_default(),
            max_usage: number("memory.peak")?.unwrap_or_default(),
            limit: number("memory.max")?,
            swap_usage: number("memory.swap.current")?,
            swap_limit: number("memory.swap.max")?,
            failures,
            stat: text("memory.stat")?.map(|text| flat_keyed(&text)).unwrap_or_default(),
            pressure: pressure("memory.pressure")?,
            ..Memory::default()
        },
        pids: Pids {
            current: number("pids.current")?.unwrap_or_default(),
            limit: number("pids.max")?,
        },
        block_io: BlockIo {
            pressure: pressure("io.pressure")?,
            ..block_io(&text("io.stat")?.unwrap_or_default())
        },
        cpuset: None,
        huge_pages: super::hugetlb::stats(group)?,
        rdma: rdma::stats(group)?,
    })
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
