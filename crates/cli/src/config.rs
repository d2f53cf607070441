//! `~/.docker/config.json`, as far as the commands here look at it. Unknown keys are left alone.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    pub detach_keys: String,
    pub ps_format: String,
    pub images_format: String,
    pub networks_format: String,
    pub stats_format: String,
    pub current_context: String,
    pub cli_plugins_extra_dirs: Vec<String>,
    pub volumes_format: String,
    /// By host, or `default`.
    pub proxies: BTreeMap<String, Proxy>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxy {
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub ftp_proxy: String,
    pub all_proxy: String,
}

impl Config {
    /// Nothing set when the file is not there or cannot be read; `Err` holds docker's warning when it is no JSON.
    pub fn load(directory: &Path) -> Result<Self, String> {
        let path = directory.join("config.json");
        let Ok(text) = fs::read(&path) else {
            return Ok(Self::default());
        };
        serde_json::from_slice(&text)
            .map_err(|error| format!("WARNING: Error loading config file: {}: {error}", path.display()))
    }

    /// `NAME=value` for a container, both spellings, in the order docker sends them.
    pub fn proxy_variables(&self, host: &str) -> Vec<String> {
        let Some(proxy) = self.proxies.get(host).or_else(|| self.proxies.get("default")) else {
            return Vec::new();
        };
        let pairs = [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ];
        let set = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        set.flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
            .collect()
    }
}
