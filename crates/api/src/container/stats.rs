use std::collections::BTreeMap;

use crate::Timestamp;
use crate::wire::{omit, wire};

wire! {
    /// One sample of `GET /containers/{id}/stats`. The zero value is what a stopped container answers, with its name
    /// and id.
    #[serde(rename_all = "snake_case")]
    pub struct Stats {
        #[serde(skip_serializing_if = "omit")]
        pub name: String,
        #[serde(skip_serializing_if = "omit")]
        pub id: String,
        pub read: Timestamp,
        /// When the sample before was read; zero for a first one.
        pub preread: Timestamp,
        pub pids_stats: PidsStats,
        pub blkio_stats: BlkioStats,
        /// Windows only, like `storage_stats`.
        pub num_procs: u32,
        pub storage_stats: StorageStats,
        pub cpu_stats: CpuStats,
        pub precpu_stats: CpuStats,
        pub memory_stats: MemoryStats,
        /// By interface.
        #[serde(skip_serializing_if = "omit")]
        pub networks: BTreeMap<String, NetworkStats>,
        /// Ferry's own; absent without a limit of traffic.
        #[serde(skip_serializing_if = "omit")]
        pub net_rate: NetRateStats,
    }

    #[serde(rename_all = "snake_case")]
    pub struct PidsStats {
        #[serde(skip_serializing_if = "omit")]
        pub current: u64,
        #[serde(skip_serializing_if = "omit")]
        pub limit: u64,
    }

    /// On cgroup v2 only the first list is filled and the rest are `null`.
    #[serde(rename_all = "snake_case")]
    pub struct BlkioStats {
        pub io_service_bytes_recursive: Option<Vec<BlkioStatEntry>>,
        pub io_serviced_recursive: Option<Vec<BlkioStatEntry>>,
        pub io_queue_recursive: Option<Vec<BlkioStatEntry>>,
        pub io_service_time_recursive: Option<Vec<BlkioStatEntry>>,
        pub io_wait_time_recursive: Option<Vec<BlkioStatEntry>>,
        pub io_merged_recursive: Option<Vec<BlkioStatEntry>>,
        pub io_time_recursive: Option<Vec<BlkioStatEntry>>,
        pub sectors_recursive: Option<Vec<BlkioStatEntry>>,
    }

    #[serde(rename_all = "snake_case")]
    pub struct BlkioStatEntry {
        pub major: u64,
        pub minor: u64,
        pub op: String,
        pub value: u64,
    }

    #[serde(rename_all = "snake_case")]
    pub struct StorageStats {
        #[serde(skip_serializing_if = "omit")]
        pub read_count_normalized: u64,
        #[serde(skip_serializing_if = "omit")]
        pub read_size_bytes: u64,
        #[serde(skip_serializing_if = "omit")]
        pub write_count_normalized: u64,
        #[serde(skip_serializing_if = "omit")]
        pub write_size_bytes: u64,
    }

    #[serde(rename_all = "snake_case")]
    pub struct CpuStats {
        pub cpu_usage: CpuUsage,
        /// Nanoseconds of all CPUs since boot, idle included.
        #[serde(skip_serializing_if = "omit")]
        pub system_cpu_usage: u64,
        #[serde(skip_serializing_if = "omit")]
        pub online_cpus: u32,
        pub throttling_data: ThrottlingData,
    }

    /// Nanoseconds.
    #[serde(rename_all = "snake_case")]
    pub struct CpuUsage {
        pub total_usage: u64,
        /// cgroup v1 only.
        #[serde(skip_serializing_if = "omit")]
        pub percpu_usage: Vec<u64>,
        pub usage_in_kernelmode: u64,
        pub usage_in_usermode: u64,
    }

    #[serde(rename_all = "snake_case")]
    pub struct ThrottlingData {
        pub periods: u64,
        pub throttled_periods: u64,
        /// Nanoseconds.
        pub throttled_time: u64,
    }

    /// Bytes.
    #[serde(rename_all = "snake_case")]
    pub struct MemoryStats {
        #[serde(skip_serializing_if = "omit")]
        pub usage: u64,
        /// cgroup v1 only.
        #[serde(skip_serializing_if = "omit")]
        pub max_usage: u64,
        /// `memory.stat`. Clients subtract `total_inactive_file` (v1) or `inactive_file` (v2) from `usage`.
        #[serde(skip_serializing_if = "omit")]
        pub stats: BTreeMap<String, u64>,
        /// A count; cgroup v1 only.
        #[serde(skip_serializing_if = "omit")]
        pub failcnt: u64,
        /// The host's memory when there is no limit.
        #[serde(skip_serializing_if = "omit")]
        pub limit: u64,
        /// Windows only, like the two below.
        #[serde(rename = "commitbytes", skip_serializing_if = "omit")]
        pub commit: u64,
        #[serde(rename = "commitpeakbytes", skip_serializing_if = "omit")]
        pub commit_peak: u64,
        #[serde(rename = "privateworkingset", skip_serializing_if = "omit")]
        pub private_working_set: u64,
    }

    /// What went through the limits of a container's traffic ([`super::NetRate`]) since they hold.
    #[serde(rename_all = "snake_case")]
    pub struct NetRateStats {
        #[serde(skip_serializing_if = "omit")]
        pub r#in: Option<NetRateUse>,
        #[serde(skip_serializing_if = "omit")]
        pub out: Option<NetRateUse>,
    }

    #[serde(rename_all = "snake_case")]
    pub struct NetRateUse {
        /// Bytes a second.
        pub rate: u64,
        pub bytes: u64,
        pub packets: u64,
        /// Packets for which there was no room to wait.
        pub dropped: u64,
        /// How often a packet had to wait.
        pub delayed: u64,
        /// Bytes that wait now.
        pub waiting: u64,
    }

    #[serde(rename_all = "snake_case")]
    pub struct NetworkStats {
        pub rx_bytes: u64,
        pub rx_packets: u64,
        pub rx_errors: u64,
        pub rx_dropped: u64,
        pub tx_bytes: u64,
        pub tx_packets: u64,
        pub tx_errors: u64,
        pub tx_dropped: u64,
        /// Windows only, like `instance_id`.
        #[serde(skip_serializing_if = "omit")]
        pub endpoint_id: String,
        #[serde(skip_serializing_if = "omit")]
        pub instance_id: String,
    }
}
