use std::collections::BTreeMap;

use super::descriptor::{Descriptor, Platform};
use crate::wire::{omit, wire};

pub mod manifest_kind {
    pub const IMAGE: &str = "image";
    pub const ATTESTATION: &str = "attestation";
    pub const UNKNOWN: &str = "unknown";
}

wire! {
    /// One of `GET /images/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Summary {
        /// How many containers use it; -1 when not counted.
        pub containers: i64,
        /// Seconds since the Unix epoch.
        pub created: i64,
        pub id: String,
        pub labels: Option<BTreeMap<String, String>>,
        pub parent_id: String,
        #[serde(skip_serializing_if = "omit")]
        pub descriptor: Option<Descriptor>,
        /// With `manifests=1`.
        #[serde(skip_serializing_if = "omit")]
        pub manifests: Vec<Manifest>,
        pub repo_digests: Option<Vec<String>>,
        pub repo_tags: Option<Vec<String>>,
        /// Bytes shared with other images; -1 unless `shared-size=1`.
        pub shared_size: i64,
        /// Bytes of all layers, unpacked.
        pub size: i64,
        /// The same, before API 1.44.
        #[serde(skip_serializing_if = "omit")]
        pub virtual_size: i64,
    }

    /// A manifest of a multi-platform image.
    #[serde(rename_all = "PascalCase")]
    pub struct Manifest {
        #[serde(rename = "ID")]
        pub id: String,
        pub descriptor: Descriptor,
        /// Whether all of its content is here.
        pub available: bool,
        pub size: ContentSize,
        /// One of [`manifest_kind`].
        pub kind: String,
        #[serde(skip_serializing_if = "omit")]
        pub image_data: Option<ImageData>,
        #[serde(skip_serializing_if = "omit")]
        pub attestation_data: Option<Attestation>,
    }

    /// Bytes, as stored; `total` adds what is unpacked.
    #[serde(rename_all = "PascalCase")]
    pub struct ContentSize {
        pub content: i64,
        pub total: i64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct ImageData {
        pub platform: Platform,
        pub size: UnpackedSize,
        pub containers: Option<Vec<String>>,
    }

    /// Bytes.
    #[serde(rename_all = "PascalCase")]
    pub struct UnpackedSize {
        pub unpacked: i64,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Attestation {
        /// The digest of the image manifest it speaks of.
        pub r#for: String,
    }
}
