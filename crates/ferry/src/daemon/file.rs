//! `daemon.json`: dockerd's keys, and one of our own. One that Ferry does not know is an error, not a wish unheard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::networks::Pool;
use crate::registry;

/// Each key is absent or set; what is set may not be a flag as well.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub hosts: Option<Vec<String>>,
    pub data_root: Option<PathBuf>,
    pub exec_root: Option<PathBuf>,
    pub pidfile: Option<PathBuf>,
    pub debug: Option<bool>,
    pub log_level: Option<String>,
    pub labels: Option<Vec<String>>,
    pub cgroup_parent: Option<String>,
    pub bridge: Option<String>,
    pub bip: Option<String>,
    pub bip6: Option<String>,
    pub mtu: Option<u32>,
    pub default_address_pools: Option<Vec<Pool>>,
    pub fixed_cidr: Option<String>,
    pub fixed_cidr_v6: Option<String>,
    pub ipv6: Option<bool>,
    pub ip: Option<String>,
    pub host_gateway_ip: Option<String>,
    pub host_gateway_ips: Option<Vec<String>>,
    pub icc: Option<bool>,
    pub ip_masq: Option<bool>,
    pub dns: Option<Vec<String>>,
    pub dns_opts: Option<Vec<String>>,
    pub dns_search: Option<Vec<String>>,
    /// Options of networks to be created, by driver.
    pub default_network_opts: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// Mean nothing: there is no such program either way.
    #[serde(rename = "userland-proxy")]
    pub _userland_proxy: Option<bool>,
    #[serde(rename = "userland-proxy-path")]
    pub _userland_proxy_path: Option<String>,
    pub iptables: Option<bool>,
    pub ip6tables: Option<bool>,
    pub ip_forward: Option<bool>,
    pub allow_direct_routing: Option<bool>,
    pub default_gateway: Option<String>,
    pub default_gateway_v6: Option<String>,
    pub firewall_backend: Option<String>,
    pub publish_through: Option<String>,
    pub log_driver: Option<String>,
    pub log_opts: Option<BTreeMap<String, String>>,
    pub registry_mirrors: Option<Vec<String>>,
    pub insecure_registries: Option<Vec<String>>,
    pub max_concurrent_downloads: Option<usize>,
    pub max_concurrent_uploads: Option<usize>,
    pub proxies: Option<Proxies>,
    /// Ferry's own: mirrors of any registry, by its host; `*` for all.
    pub mirrors: Option<BTreeMap<String, Vec<String>>>,
    /// Ferry's own: a registry that this engine serves, with the keys of `ferry registry serve --config`.
    pub registry: Option<registry::File>,
    /// Ferry's own: seconds without containers and clients after which the engine ends itself; 0 for never.
    pub idle_exit: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Proxies {
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
}

impl File {
    /// A file that is not there is empty, unless it was asked for by name.
    pub fn read(path: &Path, asked: bool) -> Result<Self> {
        let what = || format!("unable to configure the daemon with file {}", path.display());
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => Ok(Self::default()),
            Ok(text) => serde_json::from_str(&text).with_context(what),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !asked => Ok(Self::default()),
            Err(error) => Err(error).with_context(what),
        }
    }
}
