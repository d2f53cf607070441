//! `daemon.json`: dockerd's keys, and one of our own. One that Ferry does not know is an error, not a wish unheard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::builder::Builder;
use super::defaults::{Limit, Size};
use super::networks::Pool;
use super::others;
use super::runtimes::Entry;
use crate::registry;

/// Each key is absent or set; what is set may not be a flag as well.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub hosts: Option<Vec<String>>,
    pub group: Option<String>,
    pub tls: Option<bool>,
    pub tlsverify: Option<bool>,
    pub tlscacert: Option<PathBuf>,
    pub tlscert: Option<PathBuf>,
    pub tlskey: Option<PathBuf>,
    pub data_root: Option<PathBuf>,
    pub exec_root: Option<PathBuf>,
    pub pidfile: Option<PathBuf>,
    pub debug: Option<bool>,
    pub log_level: Option<String>,
    pub log_format: Option<String>,
    pub raw_logs: Option<bool>,
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
    pub metrics_addr: Option<String>,
    pub registry_mirrors: Option<Vec<String>>,
    pub insecure_registries: Option<Vec<String>>,
    pub max_concurrent_downloads: Option<usize>,
    pub max_concurrent_uploads: Option<usize>,
    pub max_download_attempts: Option<u32>,
    pub default_ulimits: Option<BTreeMap<String, Limit>>,
    pub default_shm_size: Option<Size>,
    pub default_cgroupns_mode: Option<String>,
    pub default_ipc_mode: Option<String>,
    pub init: Option<bool>,
    pub no_new_privileges: Option<bool>,
    pub seccomp_profile: Option<String>,
    pub userns_remap: Option<String>,
    pub runtimes: Option<BTreeMap<String, Entry>>,
    pub default_runtime: Option<String>,
    pub builder: Option<Builder>,
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

/// A file as it was read.
#[derive(Debug, Default)]
pub struct Read {
    pub file: File,
    /// Those of [`others`], which are no fields.
    pub others: Map<String, Value>,
    /// All that are set, to see what changes.
    pub keys: Map<String, Value>,
}

impl File {
    /// A file that is not there is empty, unless it was asked for by name.
    pub fn read(path: &Path, asked: bool) -> Result<Read> {
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => Ok(Read::default()),
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !asked => Ok(Read::default()),
            Err(error) => bail!("open {}: {}", path.display(), ferry_kit::error::io_text(&error)),
        }
    }

    fn parse(text: &str) -> Result<Read> {
        let keys: Map<String, Value> = serde_json::from_str(text).context("invalid JSON")?;
        let (others, own): (Map<_, _>, Map<_, _>) =
            keys.clone().into_iter().partition(|(key, _)| others::is_known(key));
        // One by one, so that an error has its key.
        let mut unknown = Vec::new();
        for (key, value) in &own {
            match Self::only(key, value) {
                Ok(_) => {}
                Err(error) if is_unknown(key, &error) => unknown.push(key.as_str()),
                Err(error) => bail!("invalid JSON: {key}: {error}"),
            }
        }
        if !unknown.is_empty() {
            // Docker's words.
            bail!(
                "the following directives don't match any configuration option: {}",
                unknown.join(", ")
            );
        }
        let file = serde_json::from_value(Value::Object(own)).context("invalid JSON")?;
        Ok(Read { file, others, keys })
    }

    fn only(key: &str, value: &Value) -> serde_json::Result<Self> {
        let mut map = Map::new();
        map.insert(key.to_owned(), value.clone());
        serde_json::from_value(Value::Object(map))
    }

    /// Whether it is a key of the file.
    #[cfg(test)]
    pub fn keys(key: &str) -> bool {
        Self::only(key, &Value::Null).is_ok()
    }
}

fn is_unknown(key: &str, error: &serde_json::Error) -> bool {
    error.to_string().starts_with(&format!("unknown field `{key}`"))
}
