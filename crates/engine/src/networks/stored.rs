//! A network as it is persisted.

use std::collections::BTreeMap;

use ferry_api::Timestamp;
use ferry_api::network::{ConfigReference, Inspect, Ipam, IpamConfig};
use ferry_network::Network;
use ferry_network::network::Range;
use ferry_storage::Document;
use serde::{Deserialize, Serialize};

/// A network of the user's, or one that is built in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub id: String,
    pub name: String,
    pub created: jiff::Timestamp,
    /// As the API calls it.
    pub driver: String,
    pub enable_ipv4: bool,
    pub enable_ipv6: bool,
    pub internal: bool,
    pub attachable: bool,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// Names that the user reserved addresses for.
    #[serde(default)]
    pub reserved: BTreeMap<String, BTreeMap<String, String>>,
    /// Of a family that is off: shown, and nothing else.
    #[serde(default)]
    pub unused: Vec<IpamConfig>,
    /// `None` for `host`, `none` and for a network that is only a configuration for others.
    pub network: Option<Network>,
    /// The configuration of a network that is one for others.
    #[serde(default)]
    pub config_only: Option<Vec<IpamConfig>>,
    #[serde(default)]
    pub config_from: String,
}

impl Document for Stored {
    const KIND: &'static str = "network";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.id
    }
}

impl Stored {
    /// One of those that are always there.
    pub fn builtin(name: &str, id: &str, driver: &str, created: jiff::Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            created,
            driver: driver.to_owned(),
            enable_ipv4: true,
            enable_ipv6: false,
            internal: false,
            attachable: false,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            ipam_options: None,
            reserved: BTreeMap::new(),
            unused: Vec::new(),
            network: None,
            config_only: None,
            config_from: String::new(),
        }
    }

    /// Without its containers.
    pub fn inspect(&self) -> Inspect {
        let config = match (&self.network, &self.config_only) {
            (Some(network), _) => {
                let used = network.ranges.iter().map(|range| self.ipam(range));
                Some(self.unused.iter().cloned().chain(used).collect())
            }
            (None, Some(config)) => Some(config.clone()),
            (None, None) => None,
        };
        Inspect {
            name: self.name.clone(),
            id: self.id.clone(),
            created: Timestamp(self.created),
            scope: "local".to_owned(),
            driver: self.driver.clone(),
            enable_ipv4: self.enable_ipv4,
            enable_ipv6: self.enable_ipv6,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: self.ipam_options.clone(),
                config,
            },
            internal: self.internal,
            attachable: self.attachable,
            config_from: ConfigReference {
                network: self.config_from.clone(),
            },
            config_only: self.config_only.is_some(),
            containers: Some(BTreeMap::new()),
            options: Some(self.options.clone()),
            labels: Some(self.labels.clone()),
            ..Inspect::default()
        }
    }

    fn ipam(&self, range: &Range) -> IpamConfig {
        let subnet = range.subnet.to_string();
        IpamConfig {
            ip_range: range.pool.map(|pool| pool.to_string()).unwrap_or_default(),
            gateway: range.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            auxiliary_addresses: self.reserved.get(&subnet).cloned().unwrap_or_default(),
            subnet,
        }
    }
}
