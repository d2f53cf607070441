//! Containers: what makes one, what it is asked, what it answers.

mod changes;
mod config;
mod create;
mod health;
mod host;
mod inspect;
mod ports;
mod resources;
mod state;
mod stats;
mod summary;
mod top;
mod update;
mod wait;

pub use changes::{Change, ChangeKind, CommitResponse, PathStat, Prune};
pub use config::Config;
pub use create::{Create, Created, Secret, SecretData};
pub use health::{Health, HealthCheck, HealthResult, health_status};
pub use host::{DeviceMapping, DeviceRequest, HostConfig, LogConfig, NetRate, RestartPolicy, restart_policy};
pub use inspect::{GraphDriver, Inspect};
pub use ports::{PortBinding, PortMap, PortSet, PortSummary};
pub use resources::{Resources, ThrottleDevice, Ulimit, WeightDevice};
pub use state::{State, status};
pub use stats::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetRateStats, NetRateUse, NetworkStats, PidsStats,
    Stats, StorageStats, ThrottlingData,
};
pub use summary::{HostConfigSummary, NetworkSettingsSummary, Summary};
pub use top::Top;
pub use update::{Update, Updated};
pub use wait::{Wait, WaitError, condition};
