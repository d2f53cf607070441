//! Volumes, and everything mounted into a container.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Timestamp;
use crate::wire::{Empty, omit, wire};

/// Types of [`Mount`] and [`MountPoint`].
pub mod mount_type {
    pub const BIND: &str = "bind";
    pub const VOLUME: &str = "volume";
    pub const TMPFS: &str = "tmpfs";
    pub const IMAGE: &str = "image";
    pub const NPIPE: &str = "npipe";
    pub const CLUSTER: &str = "cluster";
}

/// Values of [`BindOptions::propagation`]; empty is `RPRIVATE`.
pub mod propagation {
    pub const RPRIVATE: &str = "rprivate";
    pub const PRIVATE: &str = "private";
    pub const RSHARED: &str = "rshared";
    pub const SHARED: &str = "shared";
    pub const RSLAVE: &str = "rslave";
    pub const SLAVE: &str = "slave";
}

wire! {
    /// A mount asked for with `--mount`.
    #[serde(rename_all = "PascalCase")]
    pub struct Mount {
        /// One of [`mount_type`].
        #[serde(skip_serializing_if = "omit")]
        pub r#type: String,
        /// A host path, a volume's or an image's name; empty for an anonymous volume and for tmpfs.
        #[serde(skip_serializing_if = "omit")]
        pub source: String,
        #[serde(skip_serializing_if = "omit")]
        pub target: String,
        /// Recursive where the kernel can.
        #[serde(skip_serializing_if = "omit")]
        pub read_only: bool,
        /// Read and ignored on Linux.
        #[serde(skip_serializing_if = "omit")]
        pub consistency: String,
        #[serde(skip_serializing_if = "omit")]
        pub bind_options: Option<BindOptions>,
        #[serde(skip_serializing_if = "omit")]
        pub volume_options: Option<VolumeOptions>,
        #[serde(skip_serializing_if = "omit")]
        pub image_options: Option<ImageOptions>,
        #[serde(skip_serializing_if = "omit")]
        pub tmpfs_options: Option<TmpfsOptions>,
        #[serde(skip_serializing_if = "omit")]
        pub cluster_options: Option<Empty>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct BindOptions {
        /// One of [`propagation`] or empty.
        #[serde(skip_serializing_if = "omit")]
        pub propagation: String,
        #[serde(skip_serializing_if = "omit")]
        pub non_recursive: bool,
        #[serde(skip_serializing_if = "omit")]
        pub create_mountpoint: bool,
        #[serde(skip_serializing_if = "omit")]
        pub read_only_non_recursive: bool,
        #[serde(skip_serializing_if = "omit")]
        pub read_only_force_recursive: bool,
        /// Ferry's own: owners are shown as the container's ids in its user namespace.
        #[serde(rename = "IDMap", skip_serializing_if = "omit")]
        pub idmap: bool,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct VolumeOptions {
        #[serde(skip_serializing_if = "omit")]
        pub no_copy: bool,
        #[serde(skip_serializing_if = "omit")]
        pub labels: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "omit")]
        pub subpath: String,
        #[serde(skip_serializing_if = "omit")]
        pub driver_config: Option<Driver>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct ImageOptions {
        #[serde(skip_serializing_if = "omit")]
        pub subpath: String,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Driver {
        #[serde(skip_serializing_if = "omit")]
        pub name: String,
        #[serde(skip_serializing_if = "omit")]
        pub options: BTreeMap<String, String>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct TmpfsOptions {
        /// 0 is the kernel's default, half of the memory.
        #[serde(skip_serializing_if = "omit")]
        pub size_bytes: i64,
        /// Permission bits; 0 is 1777.
        #[serde(skip_serializing_if = "omit")]
        pub mode: u32,
        /// `["noexec"]` or `["name", "value"]` each.
        #[serde(skip_serializing_if = "omit")]
        pub options: Vec<Vec<String>>,
    }

    /// A mount a container has.
    #[serde(rename_all = "PascalCase")]
    pub struct MountPoint {
        #[serde(skip_serializing_if = "omit")]
        pub r#type: String,
        /// The volume's.
        #[serde(skip_serializing_if = "omit")]
        pub name: String,
        /// On the host; empty for tmpfs.
        pub source: String,
        pub destination: String,
        #[serde(skip_serializing_if = "omit")]
        pub driver: String,
        /// The options after the second colon of a bind, `z` for volumes.
        pub mode: String,
        #[serde(rename = "RW")]
        pub rw: bool,
        /// Empty for volumes and tmpfs.
        pub propagation: String,
    }

    /// `GET /volumes/{name}`.
    #[serde(rename_all = "PascalCase")]
    pub struct Volume {
        #[serde(skip_serializing_if = "omit")]
        pub cluster_volume: Option<Value>,
        /// To the second.
        #[serde(skip_serializing_if = "omit")]
        pub created_at: Option<Timestamp>,
        pub driver: String,
        pub labels: Option<BTreeMap<String, String>>,
        pub mountpoint: String,
        pub name: String,
        pub options: Option<BTreeMap<String, String>>,
        pub scope: String,
        #[serde(skip_serializing_if = "omit")]
        pub status: BTreeMap<String, Value>,
        /// Only in `GET /system/df`.
        #[serde(skip_serializing_if = "omit")]
        pub usage_data: Option<Usage>,
    }

    /// -1 when not known.
    #[serde(rename_all = "PascalCase")]
    pub struct Usage {
        pub ref_count: i64,
        /// Bytes.
        pub size: i64,
    }

    /// `GET /volumes`.
    #[serde(rename_all = "PascalCase")]
    pub struct List {
        pub volumes: Option<Vec<Volume>>,
        pub warnings: Option<Vec<String>>,
    }

    /// The body of `POST /volumes/create`.
    #[serde(rename_all = "PascalCase")]
    pub struct Create {
        #[serde(skip_serializing_if = "omit")]
        pub cluster_volume_spec: Option<Value>,
        #[serde(skip_serializing_if = "omit")]
        pub driver: String,
        #[serde(skip_serializing_if = "omit")]
        pub driver_opts: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "omit")]
        pub labels: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "omit")]
        pub name: String,
    }

    /// `POST /volumes/prune`.
    #[serde(rename_all = "PascalCase")]
    pub struct Prune {
        pub volumes_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}
