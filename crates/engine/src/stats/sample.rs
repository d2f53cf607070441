//! One sample in the shape of the API (moby daemon/stats_unix.go).

use std::collections::BTreeMap;

use ferry_api::container::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats, ThrottlingData,
};
use ferry_api::network::mode;
use ferry_cgroup::{BlockIoEntry, Cpu};

use super::host;
use crate::container::Record;
use crate::networks::Attacher;
use crate::networks::limits::Meter;

/// Where the container's interfaces are seen from.
#[derive(Debug)]
pub(super) struct Source {
    /// `None` for the host's own, which are not the container's.
    pid: Option<i32>,
    meter: Option<Meter>,
}

impl Source {
    pub fn of(networks: &Attacher, record: &Record) -> Self {
        let own = record.host_config.network_mode != mode::HOST;
        Self {
            pid: own.then_some(record.run.pid),
            meter: networks.meter(record),
        }
    }
}

/// All but the times of CPUs. `memory`: the host's, in bytes.
pub(super) fn of(usage: ferry_cgroup::Stats, source: &Source, memory: u64) -> Stats {
    // Only v1 has times by CPU.
    let is_v1 = !usage.cpu.per_cpu.is_empty();
    Stats {
        pids_stats: PidsStats {
            current: usage.pids.current,
            limit: usage.pids.limit.unwrap_or_default(),
        },
        blkio_stats: block_io(usage.block_io.service_bytes, usage.block_io.serviced, is_v1),
        memory_stats: MemoryStats {
            usage: usage.memory.usage,
            max_usage: if is_v1 { usage.memory.max_usage } else { 0 },
            stats: usage.memory.stat,
            failcnt: if is_v1 { usage.memory.failures } else { 0 },
            limit: usage.memory.limit.map_or(memory, |limit| limit.min(memory)),
            ..MemoryStats::default()
        },
        networks: source.pid.map(interfaces).unwrap_or_default(),
        net_rate: source.meter.as_ref().map(Meter::read).unwrap_or_default(),
        ..Stats::default()
    }
}

pub(super) fn cpu(cpu: &Cpu, host: &host::Times) -> CpuStats {
    CpuStats {
        cpu_usage: CpuUsage {
            total_usage: cpu.total,
            percpu_usage: cpu.per_cpu.clone(),
            usage_in_kernelmode: cpu.kernel,
            usage_in_usermode: cpu.user,
        },
        system_cpu_usage: host.total,
        online_cpus: host.cpus,
        throttling_data: ThrottlingData {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_time,
        },
    }
}

/// On v2 Docker has bytes alone, and `null` for the rest.
fn block_io(bytes: Vec<BlockIoEntry>, operations: Vec<BlockIoEntry>, is_v1: bool) -> BlkioStats {
    let entries = |entries: Vec<BlockIoEntry>| {
        let entry = |entry: BlockIoEntry| BlkioStatEntry {
            major: entry.major,
            minor: entry.minor,
            op: entry.operation,
            value: entry.value,
        };
        entries.into_iter().map(entry).collect::<Vec<_>>()
    };
    let empty = || is_v1.then(Vec::new);
    BlkioStats {
        io_service_bytes_recursive: Some(entries(bytes)),
        io_serviced_recursive: is_v1.then(|| entries(operations)),
        io_queue_recursive: empty(),
        io_service_time_recursive: empty(),
        io_wait_time_recursive: empty(),
        io_merged_recursive: empty(),
        io_time_recursive: empty(),
        sectors_recursive: empty(),
    }
}

/// Of the network namespace of a process, loopback aside.
fn interfaces(pid: i32) -> BTreeMap<String, NetworkStats> {
    std::fs::read_to_string(format!("/proc/{pid}/net/dev")).map_or_else(|_| BTreeMap::new(), |text| parse(&text))
}

/// Two lines of titles, then `name: ` and sixteen numbers: eight received, eight sent (proc_pid_net(5)).
fn parse(text: &str) -> BTreeMap<String, NetworkStats> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, sent @ ..] = numbers.as_slice() else {
            return None;
        };
        let [tx_bytes, tx_packets, tx_errors, tx_dropped, ..] = sent else {
            return None;
        };
        let counted = NetworkStats {
            rx_bytes: *rx_bytes,
            rx_packets: *rx_packets,
            rx_errors: *rx_errors,
            rx_dropped: *rx_dropped,
            tx_bytes: *tx_bytes,
            tx_packets: *tx_packets,
            tx_errors: *tx_errors,
            tx_dropped: *tx_dropped,
            ..NetworkStats::default()
        };
        Some((name.trim().to_owned(), counted))
    };
    text.lines()
        .skip(2)
        .filter_map(interface)
        .filter(|(name, _)| name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes ...\n    lo:  1 1 0 0 0 0 0 0  1 1 0 0 0 0 0 0\n  eth0: \
                    1042      11    1    2    0     0          0         0      126       3    4    5    0     0       0          0\n";
        let parsed = parse(text);
        assert_eq!(parsed.keys().collect::<Vec<_>>(), ["eth0"]);
        let eth0 = &parsed["eth0"];
        assert_eq!(
            [eth0.rx_bytes, eth0.rx_packets, eth0.rx_errors, eth0.rx_dropped],
            [1042, 11, 1, 2]
        );
        assert_eq!(
            [eth0.tx_bytes, eth0.tx_packets, eth0.tx_errors, eth0.tx_dropped],
            [126, 3, 4, 5]
        );
        assert!(parse("a\nb\nbad: 1 2\n").is_empty());
    }
}
