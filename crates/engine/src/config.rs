//! How this engine was told to run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

pub use ferry_api::container::Ulimit;
pub use ferry_build::output::Prune as BuildPrune;
pub use ferry_network::ipam::Pool as AddressPool;
pub use ferry_network::ipnet;
use ipnet::IpNet;

pub use crate::runtimes::OWN as OWN_RUNTIME;

/// The daemon's settings, after the command line and daemon.json are merged.
#[derive(Debug, Clone)]
pub struct Config {
    /// Images, layers, records: survives a reboot.
    pub data_root: PathBuf,
    /// Sockets and run state.
    pub exec_root: PathBuf,
    /// Cgroup all containers lie in, below each hierarchy's root, without a leading slash.
    pub cgroup_parent: String,
    /// The default bridge; `None` for `--bridge=none`, which touches neither links nor firewall.
    pub bridge: Option<Bridge>,
    /// Where networks' subnets come from that ask for none; a family without one has the usual ones.
    pub pools: Vec<AddressPool>,
    /// Options of networks to be created, by driver.
    pub network_options: BTreeMap<String, BTreeMap<String, String>>,
    pub dns: Dns,
    /// What `host-gateway` stands for in `--add-host`; none: the container's own gateway. At most one of a family.
    pub host_gateways: Vec<IpAddr>,
    /// Of containers that name none.
    pub log_driver: String,
    /// Of containers with that driver, where they do not say otherwise.
    pub log_options: BTreeMap<String, String>,
    pub debug: bool,
    /// Of the daemon, for `info`.
    pub labels: Vec<String>,
    pub registries: Registries,
    pub containers: Defaults,
    pub runtimes: Runtimes,
    /// Soft and hard limit on open files of containers that ask for none; `None`: the daemon's own.
    pub open_files: Option<(u64, u64)>,
    pub builds: Builds,
    /// The directory of a registry that is served beside the engine, for `system df`.
    pub registry: Option<PathBuf>,
}

/// What containers get that ask for nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    pub ulimits: Vec<Ulimit>,
    /// Bytes of /dev/shm.
    pub shm_size: i64,
    /// `host` or `private`; `None`: as the machine's control groups suggest.
    pub cgroupns: Option<String>,
    /// `private` or `shareable`.
    pub ipc: String,
    pub init: bool,
    pub no_new_privileges: bool,
    /// The profile's text; `unconfined`; `None` for the usual one.
    pub seccomp: Option<String>,
    /// Those that are neither privileged nor share a namespace of the host's get a user namespace of their own.
    pub own_users: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            ulimits: Vec::new(),
            shm_size: 64 << 20,
            cgroupns: None,
            ipc: "private".to_owned(),
            init: false,
            no_new_privileges: false,
            seccomp: None,
            own_users: false,
        }
    }
}

/// What builds may do, and what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    pub collection: Collection,
    /// Whether `--allow network.host` is granted.
    pub network_host: bool,
    /// Whether `--allow security.insecure` is granted.
    pub security_insecure: bool,
    /// Whether `--allow device` is granted.
    pub device: bool,
}

impl Default for Builds {
    fn default() -> Self {
        Self {
            collection: Collection::Usual {
                reserved: 0,
                max_used: 0,
                min_free: 0,
            },
            network_host: true,
            security_insecure: false,
            device: true,
        }
    }
}

/// What is removed by itself of what is kept of builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collection {
    /// BuildKit's rules, with these bytes; all 0: by the size of the disk.
    Usual {
        reserved: u64,
        max_used: u64,
        min_free: u64,
    },
    /// One after the other.
    Rules(Vec<BuildPrune>),
}

/// Who makes the processes of containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtimes {
    /// Of containers that name none.
    pub default: String,
    /// OCI runtimes beside Ferry's own, by name.
    pub known: BTreeMap<String, Runtime>,
}

impl Default for Runtimes {
    fn default() -> Self {
        Self {
            default: OWN_RUNTIME.to_owned(),
            known: BTreeMap::new(),
        }
    }
}

/// A program with runc's command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Absolute.
    pub path: PathBuf,
    /// Before those of each command.
    pub args: Vec<String>,
}

/// Whether the text is a seccomp profile as Docker's; else what is wrong.
pub fn check_seccomp(profile: &str) -> Result<(), String> {
    match ferry_seccomp::parse_docker_profile(profile.as_bytes()) {
        Ok(_) => Ok(()),
        Err(error) => Err(crate::error::chain(&error)),
    }
}

/// What may change while the engine runs.
#[derive(Debug, Clone)]
pub struct Reload {
    pub debug: bool,
    pub labels: Vec<String>,
    pub registries: Registries,
    pub containers: Defaults,
    pub runtimes: Runtimes,
    /// What the event says that is none of the engine's: `shutdown-timeout` and the like.
    pub more: BTreeMap<String, String>,
}

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct Registries {
    pub client: ferry_distribution::Options,
    /// Layers that are fetched at a time, all pulls together; at least one.
    pub downloads: usize,
    /// Layers that are sent at a time, all pushes together; at least one.
    pub uploads: usize,
}

/// The default bridge network.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// At most 15 bytes.
    pub name: String,
    /// Its own address, and the subnet (`bip`); `None`: chosen among the free ones.
    pub address: Option<IpNet>,
    pub address6: Option<IpNet>,
    /// Containers get addresses of this part of it; without an address, it is the subnet.
    pub fixed: Option<IpNet>,
    pub fixed6: Option<IpNet>,
    pub ipv6: bool,
    pub mtu: Option<u32>,
    /// Its containers reach each other.
    pub icc: bool,
    pub masquerade: bool,
    /// Where ports are published when nothing else is said.
    pub binding: Option<IpAddr>,
    /// Published ports pass the host's own input rules: each is a socket of its container's shim.
    pub through_input: bool,
}

/// What containers are given that ask for nothing themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses.
    pub servers: Vec<String>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}
