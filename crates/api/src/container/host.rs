use std::collections::BTreeMap;

use super::ports::PortMap;
use super::resources::Resources;
use crate::volume::Mount;
use crate::wire::{Words, omit, wire};

pub mod restart_policy {
    pub const NO: &str = "no";
    pub const ALWAYS: &str = "always";
    pub const ON_FAILURE: &str = "on-failure";
    pub const UNLESS_STOPPED: &str = "unless-stopped";
}

wire! {
    /// The part of a container that depends on the host.
    #[serde(rename_all = "PascalCase")]
    pub struct HostConfig {
        /// `source:target[:options]`.
        pub binds: Option<Vec<String>>,
        /// Written by the client, not the engine.
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        pub log_config: LogConfig,
        /// `default`, `bridge`, `host`, `none`, `container:ID` or a network.
        pub network_mode: String,
        pub port_bindings: Option<PortMap>,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub volume_driver: String,
        /// `container[:ro|rw]`.
        pub volumes_from: Option<Vec<String>>,
        /// Rows and columns.
        pub console_size: [u64; 2],
        #[serde(skip_serializing_if = "omit")]
        pub annotations: BTreeMap<String, String>,
        pub cap_add: Option<Words>,
        pub cap_drop: Option<Words>,
        /// Empty, `private` or `host`.
        pub cgroupns_mode: String,
        pub dns: Option<Vec<String>>,
        pub dns_options: Option<Vec<String>>,
        pub dns_search: Option<Vec<String>>,
        /// `name:address`; the address may be `host-gateway`.
        pub extra_hosts: Option<Vec<String>>,
        pub group_add: Option<Vec<String>>,
        /// Empty, `none`, `private`, `shareable`, `host` or `container:ID`.
        pub ipc_mode: String,
        pub cgroup: String,
        /// `container[:alias]`.
        pub links: Option<Vec<String>>,
        pub oom_score_adj: i64,
        /// Empty, `host` or `container:ID`.
        pub pid_mode: String,
        pub privileged: bool,
        pub publish_all_ports: bool,
        pub readonly_rootfs: bool,
        pub security_opt: Option<Vec<String>>,
        #[serde(skip_serializing_if = "omit")]
        pub storage_opt: BTreeMap<String, String>,
        /// Target → mount options.
        #[serde(skip_serializing_if = "omit")]
        pub tmpfs: BTreeMap<String, String>,
        /// Empty or `host`.
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        /// Empty or `host`.
        pub userns_mode: String,
        /// Bytes of `/dev/shm`; 0 is the engine's default.
        pub shm_size: i64,
        #[serde(skip_serializing_if = "omit")]
        pub sysctls: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "omit")]
        pub runtime: String,
        /// Windows only.
        pub isolation: String,
        flatten resources: Resources,
        #[serde(skip_serializing_if = "omit")]
        pub mounts: Vec<Mount>,
        /// `null` asks for the defaults, `[]` for none.
        pub masked_paths: Option<Vec<String>>,
        /// `null` asks for the defaults, `[]` for none.
        pub readonly_paths: Option<Vec<String>>,
        /// `null` leaves it to the engine's configuration.
        #[serde(skip_serializing_if = "omit")]
        pub init: Option<bool>,
        /// Ferry's own; Docker has no such key.
        #[serde(skip_serializing_if = "omit")]
        pub net_rate: Option<NetRate>,
    }

    /// Limits of a container's traffic, of all its networks together, headers included. Absent: no limit,
    /// or in an update the one there is. 0: no limit.
    #[serde(rename_all = "PascalCase")]
    pub struct NetRate {
        /// Bytes a second that it receives.
        #[serde(skip_serializing_if = "omit")]
        pub r#in: Option<u64>,
        /// Bytes a second that it sends.
        #[serde(skip_serializing_if = "omit")]
        pub out: Option<u64>,
        /// Bytes that go at once after a pause, each way; absent or 0 leaves it to the engine.
        #[serde(skip_serializing_if = "omit")]
        pub burst: Option<u64>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct LogConfig {
        /// Empty is the engine's default.
        pub r#type: String,
        pub config: Option<BTreeMap<String, String>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct RestartPolicy {
        /// Empty or one of [`restart_policy`].
        pub name: String,
        /// For `on-failure`; 0 never gives up.
        pub maximum_retry_count: i64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct DeviceMapping {
        pub path_on_host: String,
        pub path_in_container: String,
        /// Of `rwm`.
        pub cgroup_permissions: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct DeviceRequest {
        pub driver: String,
        /// -1 is all.
        pub count: i64,
        #[serde(rename = "DeviceIDs")]
        pub device_ids: Option<Vec<String>>,
        /// Any of these lists, all of each.
        pub capabilities: Option<Vec<Vec<String>>>,
        pub options: Option<BTreeMap<String, String>>,
    }
}
