use std::collections::BTreeMap;

use super::descriptor::Descriptor;
use super::summary::Manifest;
use crate::Timestamp;
use crate::container::{GraphDriver, PortSet};
use crate::wire::{Empty, omit, wire};

wire! {
    /// `GET /images/{name}/json`.
    ///
    /// `Config` comes last and sorted because Docker since 28.2 rebuilds it as a Go map.
    #[serde(rename_all = "PascalCase")]
    pub struct Inspect {
        pub id: String,
        /// Never `null`, like `repo_digests`.
        pub repo_tags: Option<Vec<String>>,
        pub repo_digests: Option<Vec<String>>,
        pub parent: String,
        pub comment: String,
        /// Left out when the image does not say (API 1.44 and newer; the zero time before).
        #[serde(skip_serializing_if = "omit")]
        pub created: Option<Timestamp>,
        pub docker_version: String,
        pub author: String,
        pub architecture: String,
        #[serde(skip_serializing_if = "omit")]
        pub variant: String,
        pub os: String,
        #[serde(skip_serializing_if = "omit")]
        pub os_version: String,
        /// Bytes of all layers, unpacked.
        pub size: i64,
        /// The same, before API 1.44.
        #[serde(skip_serializing_if = "omit")]
        pub virtual_size: i64,
        pub graph_driver: GraphDriver,
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        pub metadata: Metadata,
        /// API 1.48 and newer, from stores that keep manifests.
        #[serde(skip_serializing_if = "omit")]
        pub descriptor: Option<Descriptor>,
        #[serde(skip_serializing_if = "omit")]
        pub manifests: Vec<Manifest>,
        pub config: Option<Config>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct RootFs {
        #[serde(skip_serializing_if = "omit")]
        pub r#type: String,
        /// Digests of the unpacked layers, lowest first.
        #[serde(skip_serializing_if = "omit")]
        pub layers: Vec<String>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Metadata {
        /// On this engine; zero when never.
        pub last_tag_time: Timestamp,
    }

    /// What an image says about its containers. Cmd, Entrypoint, Env, Labels, OnBuild, User, Volumes and WorkingDir are
    /// always there,
    /// the rest only when set.
    #[serde(rename_all = "PascalCase")]
    pub struct Config {
        /// Windows only.
        #[serde(skip_serializing_if = "omit")]
        pub args_escaped: bool,
        pub cmd: Option<Vec<String>>,
        pub entrypoint: Option<Vec<String>>,
        pub env: Option<Vec<String>>,
        #[serde(skip_serializing_if = "omit")]
        pub exposed_ports: PortSet,
        #[serde(skip_serializing_if = "omit")]
        pub healthcheck: Option<HealthCheck>,
        pub labels: Option<BTreeMap<String, String>>,
        pub on_build: Option<Vec<String>>,
        #[serde(skip_serializing_if = "omit")]
        pub shell: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        pub stop_signal: String,
        pub user: String,
        pub volumes: Option<BTreeMap<String, Empty>>,
        pub working_dir: String,
    }

    /// As [`crate::container::HealthCheck`], with sorted keys.
    #[serde(rename_all = "PascalCase")]
    pub struct HealthCheck {
        #[serde(skip_serializing_if = "omit")]
        pub interval: i64,
        #[serde(skip_serializing_if = "omit")]
        pub retries: i64,
        #[serde(skip_serializing_if = "omit")]
        pub start_interval: i64,
        #[serde(skip_serializing_if = "omit")]
        pub start_period: i64,
        #[serde(skip_serializing_if = "omit")]
        pub test: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        pub timeout: i64,
    }
}

impl From<HealthCheck> for crate::container::HealthCheck {
    fn from(check: HealthCheck) -> Self {
        let HealthCheck {
            interval,
            retries,
            start_interval,
            start_period,
            test,
            timeout,
        } = check;
        Self {
            test,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
            on_failure: String::new(),
        }
    }
}
