use std::collections::BTreeMap;

use crate::wire::{Empty, omit, wire};

/// `80/tcp` → where on the host. `null` for a port that is exposed and not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

pub type PortSet = BTreeMap<String, Empty>;

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct PortBinding {
        /// Empty is every address.
        pub host_ip: String,
        /// A number or a range as text; empty picks one.
        pub host_port: String,
    }

    /// A port as container lists show it.
    #[serde(rename_all = "PascalCase")]
    pub struct PortSummary {
        #[serde(rename = "IP", skip_serializing_if = "omit")]
        pub ip: String,
        pub private_port: u16,
        /// 0 when the port is exposed and not published.
        #[serde(skip_serializing_if = "omit")]
        pub public_port: u16,
        pub r#type: String,
    }
}
