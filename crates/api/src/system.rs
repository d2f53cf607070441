//! The engine itself: version, info, ping.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::container::Summary as ContainerSummary;
use crate::image::Summary as ImageSummary;
use crate::volume::Volume;
use crate::wire::{omit, wire};
use crate::{ApiVersion, Timestamp};

/// Headers of every answer and, from `builder-version` on, of `/_ping` alone. Lower case, as HTTP/2 wants them.
pub mod header {
    pub const API_VERSION: &str = "api-version";
    pub const OSTYPE: &str = "ostype";
    /// `true` or `false`.
    pub const DOCKER_EXPERIMENTAL: &str = "docker-experimental";
    /// `Docker/28.5.2 (linux)`.
    pub const SERVER: &str = "server";
    /// `1` classic, `2` BuildKit.
    pub const BUILDER_VERSION: &str = "builder-version";
    /// `inactive` without a swarm.
    pub const SWARM: &str = "swarm";
    /// [`PING_CACHE_CONTROL`].
    pub const CACHE_CONTROL: &str = "cache-control";
    /// `no-cache`.
    pub const PRAGMA: &str = "pragma";
}

pub const PING_CACHE_CONTROL: &str = "no-cache, no-store, must-revalidate";
/// The body of `GET /_ping`; `HEAD` has none and a content length of 0.
pub const PING_BODY: &str = "OK";

/// Content types of attach, exec and log streams: raw with a tty, multiplexed ([`crate::frame`]) without.
pub mod media_type {
    pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
    pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
}

wire! {
    /// `GET /version`.
    #[serde(rename_all = "PascalCase")]
    pub struct Version {
        pub platform: Platform,
        #[serde(skip_serializing_if = "omit")]
        pub components: Vec<Component>,
        pub version: String,
        pub api_version: ApiVersion,
        #[serde(rename = "MinAPIVersion", skip_serializing_if = "omit")]
        pub min_api_version: Option<ApiVersion>,
        pub git_commit: String,
        pub go_version: String,
        pub os: String,
        /// Go's name: `amd64`.
        pub arch: String,
        #[serde(skip_serializing_if = "omit")]
        pub kernel_version: String,
        #[serde(skip_serializing_if = "omit")]
        pub experimental: bool,
        /// RFC 3339 in Docker's own builds.
        #[serde(skip_serializing_if = "omit")]
        pub build_time: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Platform {
        pub name: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Component {
        pub name: String,
        pub version: String,
        #[serde(skip_serializing_if = "omit")]
        pub details: BTreeMap<String, String>,
    }

    /// `GET /info`.
    #[serde(rename_all = "PascalCase")]
    pub struct Info {
        #[serde(rename = "ID")]
        pub id: String,
        pub containers: i64,
        pub containers_running: i64,
        pub containers_paused: i64,
        pub containers_stopped: i64,
        pub images: i64,
        pub driver: String,
        pub driver_status: Option<Vec<[String; 2]>>,
        pub plugins: Plugins,
        pub memory_limit: bool,
        pub swap_limit: bool,
        #[serde(skip_serializing_if = "omit")]
        pub kernel_memory: bool,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "omit")]
        pub kernel_memory_tcp: bool,
        pub cpu_cfs_period: bool,
        pub cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        pub pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        pub debug: bool,
        /// Open files of the engine, like the next one only true when `debug` is.
        pub n_fd: i64,
        pub oom_kill_disable: bool,
        pub n_goroutines: i64,
        pub system_time: Timestamp,
        pub logging_driver: String,
        /// `cgroupfs`, `systemd` or `none`.
        pub cgroup_driver: String,
        /// `1` or `2`.
        #[serde(skip_serializing_if = "omit")]
        pub cgroup_version: String,
        pub n_events_listener: i64,
        pub kernel_version: String,
        pub operating_system: String,
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        #[serde(rename = "OSType")]
        pub os_type: String,
        /// The kernel's name: `x86_64`.
        pub architecture: String,
        pub index_server_address: String,
        pub registry_config: Option<RegistryConfig>,
        #[serde(rename = "NCPU")]
        pub n_cpu: i64,
        /// Bytes.
        pub mem_total: i64,
        pub generic_resources: Option<Vec<Value>>,
        pub docker_root_dir: String,
        pub http_proxy: String,
        pub https_proxy: String,
        pub no_proxy: String,
        /// The host's.
        pub name: String,
        pub labels: Option<Vec<String>>,
        pub experimental_build: bool,
        pub server_version: String,
        pub runtimes: Option<BTreeMap<String, Runtime>>,
        pub default_runtime: String,
        pub swarm: Swarm,
        pub live_restore_enabled: bool,
        pub isolation: String,
        pub init_binary: String,
        pub containerd_commit: Commit,
        pub runc_commit: Commit,
        pub init_commit: Commit,
        /// `name=seccomp,profile=builtin`.
        pub security_options: Option<Vec<String>>,
        #[serde(skip_serializing_if = "omit")]
        pub product_license: String,
        #[serde(skip_serializing_if = "omit")]
        pub default_address_pools: Vec<AddressPool>,
        #[serde(skip_serializing_if = "omit")]
        pub firewall_backend: Option<Firewall>,
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Option<Vec<String>>,
        #[serde(skip_serializing_if = "omit")]
        pub discovered_devices: Vec<Device>,
        #[serde(skip_serializing_if = "omit")]
        pub containerd: Option<Containerd>,
        pub warnings: Option<Vec<String>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Plugins {
        pub volume: Option<Vec<String>>,
        pub network: Option<Vec<String>>,
        pub authorization: Option<Vec<String>>,
        pub log: Option<Vec<String>>,
    }

    /// Sorted keys, here and in [`Index`].
    #[serde(rename_all = "PascalCase")]
    pub struct RegistryConfig {
        pub index_configs: Option<BTreeMap<String, Index>>,
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Option<Vec<String>>,
        pub mirrors: Option<Vec<String>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Index {
        pub mirrors: Option<Vec<String>>,
        pub name: String,
        pub official: bool,
        pub secure: bool,
    }

    #[serde(rename_all = "camelCase")]
    pub struct Runtime {
        #[serde(skip_serializing_if = "omit")]
        pub path: String,
        #[serde(skip_serializing_if = "omit")]
        pub runtime_args: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        pub runtime_type: String,
        #[serde(skip_serializing_if = "omit")]
        pub options: BTreeMap<String, Value>,
        /// `org.opencontainers.runtime-spec.features` → JSON text.
        #[serde(skip_serializing_if = "omit")]
        pub status: BTreeMap<String, String>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Swarm {
        #[serde(rename = "NodeID")]
        pub node_id: String,
        pub node_addr: String,
        /// `inactive` without a swarm.
        pub local_node_state: String,
        pub control_available: bool,
        pub error: String,
        pub remote_managers: Option<Vec<Peer>>,
        #[serde(skip_serializing_if = "omit")]
        pub nodes: i64,
        #[serde(skip_serializing_if = "omit")]
        pub managers: i64,
        #[serde(skip_serializing_if = "omit")]
        pub cluster: Option<Value>,
        #[serde(skip_serializing_if = "omit")]
        pub warnings: Vec<String>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Peer {
        #[serde(rename = "NodeID")]
        pub node_id: String,
        pub addr: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Commit {
        #[serde(rename = "ID")]
        pub id: String,
        /// Before API 1.49.
        #[serde(skip_serializing_if = "omit")]
        pub expected: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct AddressPool {
        pub base: String,
        /// Prefix length of each network taken from it.
        pub size: i64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Firewall {
        /// `iptables`, `nftables`.
        pub driver: String,
        #[serde(skip_serializing_if = "omit")]
        pub info: Vec<[String; 2]>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Device {
        /// `cdi`.
        pub source: String,
        #[serde(rename = "ID")]
        pub id: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Containerd {
        #[serde(skip_serializing_if = "omit")]
        pub address: String,
        pub namespaces: ContainerdNamespaces,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct ContainerdNamespaces {
        pub containers: String,
        pub plugins: String,
    }

    /// Ferry's own: the answer of `POST /system/check`.
    #[serde(rename_all = "PascalCase")]
    pub struct Check {
        pub images: i64,
        pub layers: i64,
        /// Of layers, as they came.
        pub blobs: i64,
        /// That were read.
        pub bytes: i64,
        pub findings: Vec<Finding>,
    }

    /// Something that is not as it should be.
    #[serde(rename_all = "PascalCase")]
    pub struct Finding {
        pub what: String,
        pub why: String,
        /// It is gone.
        pub repaired: bool,
        /// Why it is not, though it was to be.
        pub left: String,
    }

    /// `GET /system/df`.
    #[serde(rename_all = "PascalCase")]
    pub struct DiskUsage {
        /// Bytes of all layers, each counted once.
        pub layers_size: i64,
        pub images: Option<Vec<ImageSummary>>,
        pub containers: Option<Vec<ContainerSummary>>,
        pub volumes: Option<Vec<Volume>>,
        pub build_cache: Option<Vec<BuildCache>>,
        #[serde(skip_serializing_if = "omit")]
        pub builder_size: i64,
        /// Ferry's own: what the registry in the engine takes, where there is one.
        #[serde(skip_serializing_if = "omit")]
        pub registry: Option<RegistryUsage>,
    }

    /// What a builder keeps of a step.
    #[serde(rename_all = "PascalCase")]
    pub struct BuildCache {
        #[serde(rename = "ID")]
        pub id: String,
        /// With a space in front, as Docker spells it.
        #[serde(rename = " Parents", skip_serializing_if = "Vec::is_empty")]
        pub parents: Vec<String>,
        #[serde(rename = "Type")]
        pub kind: String,
        pub description: String,
        pub in_use: bool,
        pub shared: bool,
        pub size: i64,
        pub created_at: Timestamp,
        pub last_used_at: Option<Timestamp>,
        pub usage_count: i64,
    }

    /// `POST /build/prune`.
    #[serde(rename_all = "PascalCase")]
    pub struct BuildPrune {
        pub caches_deleted: Option<Vec<String>>,
        pub space_reclaimed: u64,
    }

    /// Ferry's own: the directory of a registry.
    #[serde(rename_all = "PascalCase")]
    pub struct RegistryUsage {
        pub root: String,
        /// Blobs and manifests, each counted once.
        pub blobs: i64,
        /// Bytes of all files, those of uploads as well.
        pub size: i64,
    }
}
