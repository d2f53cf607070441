use std::collections::BTreeMap;

use super::ports::PortSummary;
use crate::image::Descriptor;
use crate::network::EndpointSettings;
use crate::volume::MountPoint;
use crate::wire::{omit, wire};

wire! {
    /// One of `GET /containers/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Summary {
        pub id: String,
        /// With a leading slash each.
        pub names: Option<Vec<String>>,
        pub image: String,
        #[serde(rename = "ImageID")]
        pub image_id: String,
        #[serde(skip_serializing_if = "omit")]
        pub image_manifest_descriptor: Option<Descriptor>,
        /// Path and arguments, those with blanks in single quotes.
        pub command: String,
        /// Seconds since the Unix epoch.
        pub created: i64,
        pub ports: Option<Vec<PortSummary>>,
        /// Bytes, with `size=1`; left out when 0.
        #[serde(skip_serializing_if = "omit")]
        pub size_rw: i64,
        /// Bytes, with `size=1`; left out when 0.
        #[serde(skip_serializing_if = "omit")]
        pub size_root_fs: i64,
        pub labels: Option<BTreeMap<String, String>>,
        /// One of [`super::status`].
        pub state: String,
        /// For people: `Up 2 minutes (healthy)`.
        pub status: String,
        pub host_config: HostConfigSummary,
        pub network_settings: Option<NetworkSettingsSummary>,
        pub mounts: Option<Vec<MountPoint>>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct HostConfigSummary {
        #[serde(skip_serializing_if = "omit")]
        pub network_mode: String,
        #[serde(skip_serializing_if = "omit")]
        pub annotations: BTreeMap<String, String>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct NetworkSettingsSummary {
        pub networks: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }
}
