//! What containers that run use, under cAdvisor's names. `name` is the container's name, `id` its id and `image` what it was made
//! of; who made it with compose finds project and service, too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ferry_api::container::{BlkioStatEntry, NetworkStats, Stats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::container::Record;
use crate::world::World;

/// Labels of a container's that become labels here; all of them could be any number.
const LABELS: [(&str, &str); 2] = [
    (
        "com.docker.compose.project",
        "container_label_com_docker_compose_project",
    ),
    (
        "com.docker.compose.service",
        "container_label_com_docker_compose_service",
    ),
];

type Label = (&'static str, String);

/// One container.
#[derive(Debug)]
struct Used {
    labels: Vec<Label>,
    stats: Arc<Stats>,
    /// Seconds since 1970.
    started: f64,
    /// Bytes; 0 for no limit.
    memory_limit: u64,
}

/// All that run.
#[derive(Debug)]
pub(super) struct Usage {
    containers: Vec<Used>,
    /// Block devices by number, as cAdvisor shows them: `/dev/vda`.
    devices: BTreeMap<(u64, u64), String>,
}

/// A value, and the label that tells it from others of its container.
type Value = (Option<Label>, f64);

struct Metric {
    /// Counters get `_total` behind it.
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: fn(&Usage, &Used) -> Vec<Value>,
}

const fn counter(name: &'static str, help: &'static str, values: fn(&Usage, &Used) -> Vec<Value>) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::Counter,
        values,
    }
}

const fn gauge(name: &'static str, help: &'static str, values: fn(&Usage, &Used) -> Vec<Value>) -> Metric {
    Metric {
        name,
        help,
        kind: MetricType::Gauge,
        values,
    }
}

const METRICS: &[Metric] = &[
    counter(
        "container_cpu_usage_seconds",
        "Cumulative cpu time consumed in seconds.",
        |_, used| {
            let label = ("cpu", "total".to_owned());
            vec![(Some(label), seconds(used.stats.cpu_stats.cpu_usage.total_usage))]
        },
    ),
    counter(
        "container_cpu_user_seconds",
        "Cumulative user cpu time consumed in seconds.",
        |_, used| one(seconds(used.stats.cpu_stats.cpu_usage.usage_in_usermode)),
    ),
    counter(
        "container_cpu_system_seconds",
        "Cumulative system cpu time consumed in seconds.",
        |_, used| one(seconds(used.stats.cpu_stats.cpu_usage.usage_in_kernelmode)),
    ),
    counter(
        "container_cpu_cfs_periods",
        "Number of elapsed enforcement period intervals.",
        |_, used| one(number(used.stats.cpu_stats.throttling_data.periods)),
    ),
    counter(
        "container_cpu_cfs_throttled_periods",
        "Number of throttled period intervals.",
        |_, used| one(number(used.stats.cpu_stats.throttling_data.throttled_periods)),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds",
        "Total time duration the container has been throttled.",
        |_, used| one(seconds(used.stats.cpu_stats.throttling_data.throttled_time)),
    ),
    gauge(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed.",
        |_, used| one(number(used.stats.memory_stats.usage)),
    ),
    gauge(
        "container_memory_working_set_bytes",
        "Current working set in bytes: usage without the files that were not used lately.",
        |_, used| one(number(working_set(&used.stats))),
    ),
    gauge(
        "container_memory_rss",
        "Size of memory that belongs to no file, in bytes.",
        |_, used| one(number(memory(&used.stats, "total_rss", "anon"))),
    ),
    gauge(
        "container_memory_cache",
        "Number of bytes of page cache memory.",
        |_, used| one(number(memory(&used.stats, "total_cache", "file"))),
    ),
    gauge(
        "container_memory_mapped_file",
        "Size of memory mapped files in bytes.",
        |_, used| one(number(memory(&used.stats, "total_mapped_file", "file_mapped"))),
    ),
    gauge(
        "container_spec_memory_limit_bytes",
        "Memory limit for the container; 0 for none.",
        |_, used| one(number(used.memory_limit)),
    ),
    counter(
        "container_network_receive_bytes",
        "Cumulative count of bytes received.",
        |_, used| interfaces(used, |interface| interface.rx_bytes),
    ),
    counter(
        "container_network_receive_packets",
        "Cumulative count of packets received.",
        |_, used| interfaces(used, |interface| interface.rx_packets),
    ),
    counter(
        "container_network_receive_errors",
        "Cumulative count of errors encountered while receiving.",
        |_, used| interfaces(used, |interface| interface.rx_errors),
    ),
    counter(
        "container_network_receive_packets_dropped",
        "Cumulative count of packets dropped while receiving.",
        |_, used| interfaces(used, |interface| interface.rx_dropped),
    ),
    counter(
        "container_network_transmit_bytes",
        "Cumulative count of bytes transmitted.",
        |_, used| interfaces(used, |interface| interface.tx_bytes),
    ),
    counter(
        "container_network_transmit_packets",
        "Cumulative count of packets transmitted.",
        |_, used| interfaces(used, |interface| interface.tx_packets),
    ),
    counter(
        "container_network_transmit_errors",
        "Cumulative count of errors encountered while transmitting.",
        |_, used| interfaces(used, |interface| interface.tx_errors),
    ),
    counter(
        "container_network_transmit_packets_dropped",
        "Cumulative count of packets dropped while transmitting.",
        |_, used| interfaces(used, |interface| interface.tx_dropped),
    ),
    counter(
        "container_fs_reads_bytes",
        "Cumulative count of bytes read.",
        |usage, used| usage.blocks(bytes(used), "read"),
    ),
    counter(
        "container_fs_writes_bytes",
        "Cumulative count of bytes written.",
        |usage, used| usage.blocks(bytes(used), "write"),
    ),
    counter(
        "container_fs_reads",
        "Cumulative count of reads completed.",
        |usage, used| usage.blocks(operations(used), "read"),
    ),
    counter(
        "container_fs_writes",
        "Cumulative count of writes completed.",
        |usage, used| usage.blocks(operations(used), "write"),
    ),
    gauge(
        "container_threads",
        "Number of threads running inside the container.",
        |_, used| one(number(used.stats.pids_stats.current)),
    ),
    gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, 0 for no limit.",
        |_, used| one(number(used.stats.pids_stats.limit)),
    ),
    gauge(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        |_, used| one(used.started),
    ),
    gauge(
        "container_last_seen",
        "Last time a container was seen by the exporter, in seconds since unix epoch.",
        |_, used| one(used.stats.read.0.as_duration().as_secs_f64()),
    ),
];

impl Usage {
    /// A container whose use cannot be read, as it ends just now, is left out.
    pub async fn gather(world: &Arc<World>) -> Self {
        let mut usage = Self {
            containers: Vec::new(),
            devices: BTreeMap::new(),
        };
        for handle in world.containers.all() {
            let snapshot = handle.snapshot();
            match world.stats.sample(world, &snapshot).await {
                Ok(Some(stats)) => usage.add(&snapshot.record, stats),
                Ok(None) => {}
                Err(error) => tracing::debug!(container = snapshot.record.id, %error, "no sample for the metrics"),
            }
        }
        usage
    }

    fn add(&mut self, record: &Record, stats: Arc<Stats>) {
        let own = [
            ("id", &record.id),
            ("image", &record.image_name),
            ("name", &record.name),
        ];
        self.push(Used {
            labels: labels(own, record.config.labels.as_ref()),
            stats,
            started: record.run.started_at.unwrap_or_default().as_duration().as_secs_f64(),
            memory_limit: u64::try_from(record.host_config.resources.memory).unwrap_or(0),
        });
    }

    fn push(&mut self, used: Used) {
        for entry in bytes(&used) {
            let number = (entry.major, entry.minor);
            self.devices
                .entry(number)
                .or_insert_with(|| device(entry.major, entry.minor));
        }
        self.containers.push(used);
    }

    /// What was done of an operation, by device.
    fn blocks(&self, entries: &[BlkioStatEntry], operation: &str) -> Vec<Value> {
        let mut by_device = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.op.eq_ignore_ascii_case(operation)) {
            *by_device.entry((entry.major, entry.minor)).or_insert(0) += entry.value;
        }
        let name = |(major, minor)| {
            let known = self.devices.get(&(major, minor)).cloned();
            known.unwrap_or_else(|| format!("{major}:{minor}"))
        };
        by_device
            .into_iter()
            .map(|(device, value)| (Some(("device", name(device))), number(value)))
            .collect()
    }
}

impl Collector for Usage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Titles without values would be of no use.
        if self.containers.is_empty() {
            return Ok(());
        }
        for metric in METRICS {
            let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            for used in &self.containers {
                for (label, value) in (metric.values)(self, used) {
                    let mut labels = used.labels.clone();
                    labels.extend(label);
                    let mut encoder = encoder.encode_family(&labels)?;
                    match metric.kind {
                        MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)?,
                        _ => encoder.encode_gauge(&value)?,
                    }
                }
            }
        }
        Ok(())
    }
}

fn labels(own: [(&'static str, &String); 3], all: Option<&BTreeMap<String, String>>) -> Vec<Label> {
    let chosen = LABELS.iter().filter_map(|(key, label)| Some((*label, all?.get(*key)?)));
    own.into_iter()
        .chain(chosen)
        .map(|(label, value)| (label, value.clone()))
        .collect()
}

/// As the kernel names it, if it still has it.
fn device(major: u64, minor: u64) -> String {
    let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
    let name = link.ok().and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

fn bytes(used: &Used) -> &[BlkioStatEntry] {
    used.stats
        .blkio_stats
        .io_service_bytes_recursive
        .as_deref()
        .unwrap_or_default()
}

fn operations(used: &Used) -> &[BlkioStatEntry] {
    used.stats
        .blkio_stats
        .io_serviced_recursive
        .as_deref()
        .unwrap_or_default()
}

fn interfaces(used: &Used, value: fn(&NetworkStats) -> u64) -> Vec<Value> {
    let of = |(name, interface): (&String, &NetworkStats)| {
        let label = ("interface", name.clone());
        (Some(label), number(value(interface)))
    };
    used.stats.networks.iter().map(of).collect()
}

/// An entry of `memory.stat`, by its name in v1 or in v2.
fn memory(stats: &Stats, v1: &str, v2: &str) -> u64 {
    let entries = &stats.memory_stats.stats;
    entries.get(v1).or_else(|| entries.get(v2)).copied().unwrap_or(0)
}

fn working_set(stats: &Stats) -> u64 {
    let unused = memory(stats, "total_inactive_file", "inactive_file");
    stats.memory_stats.usage.saturating_sub(unused)
}

fn one(value: f64) -> Vec<Value> {
    vec![(None, value)]
}

fn seconds(nanoseconds: u64) -> f64 {
    std::time::Duration::from_nanos(nanoseconds).as_secs_f64()
}

/// Exact up to 2^53.
fn number(value: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    let number = value as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_api::container::BlkioStats;
    use prometheus_client::encoding::prometheus_text;
    use prometheus_client::registry::Registry;

    fn written(usage: Usage) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(usage));
        let mut out = String::new();
        prometheus_text::encode(&mut out, &registry).unwrap();
        out
    }

    fn empty() -> Usage {
        Usage {
            containers: Vec::new(),
            devices: BTreeMap::new(),
        }
    }

    #[test]
    fn what_users_named_cannot_break_a_line() {
        let odd = "one\" } 1\ncontainer_threads 7\\".to_owned();
        let given = BTreeMap::from([
            ("com.docker.compose.service".to_owned(), odd),
            ("x".to_owned(), "y".to_owned()),
        ]);
        let texts = ["0123", "app:1", "web"].map(str::to_owned);
        let own = [("id", &texts[0]), ("image", &texts[1]), ("name", &texts[2])];
        let mut stats = Stats::default();
        let entry = |op: &str, value| BlkioStatEntry {
            major: 4095,
            minor: 1,
            op: op.to_owned(),
            value,
        };
        stats.blkio_stats = BlkioStats {
            io_service_bytes_recursive: Some(vec![entry("Read", 5), entry("Total", 9), entry("Write", 4)]),
            ..BlkioStats::default()
        };
        stats.memory_stats.usage = 100;
        stats.memory_stats.stats = [("inactive_file".to_owned(), 30)].into();
        stats.cpu_stats.cpu_usage.total_usage = 1_500_000_000;
        let mut usage = empty();
        usage.push(Used {
            labels: labels(own, Some(&given)),
            stats: Arc::new(stats),
            started: 1.0,
            memory_limit: 0,
        });
        let text = written(usage);
        let own = "id=\"0123\",image=\"app:1\",name=\"web\",container_label_com_docker_compose_service=\"one\\\" } 1\\ncontainer_threads 7\\\\\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{own},cpu=\"total\"}} 1.5"),
            format!("container_memory_working_set_bytes{{{own}}} 70.0"),
            format!("container_fs_reads_bytes_total{{{own},device=\"4095:1\"}} 5.0"),
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        let threads = text.lines().filter(|line| line.starts_with("container_threads"));
        assert_eq!(threads.count(), 2, "{text}");
    }

    #[test]
    fn nothing_runs_and_nothing_is_said() {
        assert_eq!(written(empty()), "");
    }
}
