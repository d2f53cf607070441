//! How this engine was told to run.

use std::path::PathBuf;

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
    pub debug: bool,
    /// Of the daemon, for `info`.
    pub labels: Vec<String>,
    pub registries: Registries,
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
    /// `bip`, for instance `172.17.0.1/16`; empty: chosen among the free ones.
    pub address: Option<String>,
    pub mtu: Option<u32>,
}
