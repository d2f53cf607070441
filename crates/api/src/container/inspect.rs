use std::collections::BTreeMap;

use super::config::Config;
use super::host::HostConfig;
use super::state::State;
use crate::Timestamp;
use crate::image::Descriptor;
use crate::network::NetworkSettings;
use crate::volume::MountPoint;
use crate::wire::{omit, wire};

wire! {
    /// `GET /containers/{id}/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Inspect {
        pub id: String,
        pub created: Timestamp,
        pub path: String,
        pub args: Option<Vec<String>>,
        pub state: Option<State>,
        /// The image's id.
        pub image: String,
        pub resolv_conf_path: String,
        pub hostname_path: String,
        pub hosts_path: String,
        pub log_path: String,
        /// With a leading slash.
        pub name: String,
        pub restart_count: i64,
        pub driver: String,
        pub platform: String,
        pub mount_label: String,
        pub process_label: String,
        pub app_armor_profile: String,
        /// `null` when there are none.
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        pub host_config: Option<HostConfig>,
        pub graph_driver: GraphDriver,
        /// Bytes, with `size=1`.
        #[serde(skip_serializing_if = "omit")]
        pub size_rw: Option<i64>,
        /// Bytes, with `size=1`.
        #[serde(skip_serializing_if = "omit")]
        pub size_root_fs: Option<i64>,
        pub mounts: Option<Vec<MountPoint>>,
        pub config: Option<Config>,
        pub network_settings: Option<NetworkSettings>,
        #[serde(skip_serializing_if = "omit")]
        pub image_manifest_descriptor: Option<Descriptor>,
    }

    /// What keeps the root file system, of a container or an image.
    #[serde(rename_all = "PascalCase")]
    pub struct GraphDriver {
        pub data: Option<BTreeMap<String, String>>,
        pub name: String,
    }
}
