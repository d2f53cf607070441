use super::host::{DeviceMapping, DeviceRequest};
use crate::wire::{omit, wire};

wire! {
    /// Limits, in `HostConfig` and in `POST /containers/{id}/update`. 0 is no limit, or "leave it" in an update, unless
    /// said otherwise.
    #[serde(rename_all = "PascalCase")]
    pub struct Resources {
        /// Relative weight, 2 to 262144; 1024 is one share.
        pub cpu_shares: i64,
        /// Bytes.
        pub memory: i64,
        /// CPUs in units of 10⁻⁹ (`--cpus 1.5` is 1500000000).
        pub nano_cpus: i64,
        pub cgroup_parent: String,
        /// 10 to 1000.
        pub blkio_weight: u16,
        pub blkio_weight_device: Option<Vec<WeightDevice>>,
        pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        /// Microseconds.
        pub cpu_period: i64,
        /// Microseconds of each period.
        pub cpu_quota: i64,
        /// Microseconds.
        pub cpu_realtime_period: i64,
        /// Microseconds.
        pub cpu_realtime_runtime: i64,
        /// `0-3,5`.
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        pub devices: Option<Vec<DeviceMapping>>,
        /// `c 1:3 rwm`.
        pub device_cgroup_rules: Option<Vec<String>>,
        pub device_requests: Option<Vec<DeviceRequest>>,
        /// Bytes; gone since kernel 5.4, read and ignored.
        #[serde(skip_serializing_if = "omit")]
        pub kernel_memory: i64,
        /// Bytes; cgroup v1 only.
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "omit")]
        pub kernel_memory_tcp: i64,
        /// Bytes, the soft limit.
        pub memory_reservation: i64,
        /// Bytes of memory and swap together; -1 is unlimited swap.
        pub memory_swap: i64,
        /// 0 to 100; `null` and, from the docker CLI, -1 leave the kernel's.
        pub memory_swappiness: Option<i64>,
        pub oom_kill_disable: Option<bool>,
        /// 0 and -1 are unlimited; `null` leaves it.
        pub pids_limit: Option<i64>,
        pub ulimits: Option<Vec<Ulimit>>,
        /// Windows only, like the three below.
        pub cpu_count: i64,
        pub cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct WeightDevice {
        pub path: String,
        /// 10 to 1000.
        pub weight: u16,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct ThrottleDevice {
        pub path: String,
        /// Bytes or operations a second, by the field it stands in.
        pub rate: u64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Ulimit {
        /// `nofile`, without `RLIMIT_`.
        pub name: String,
        /// -1 is unlimited.
        pub hard: i64,
        pub soft: i64,
    }
}
