use std::collections::BTreeMap;

use crate::wire::{omit, wire};

wire! {
    /// An OCI content descriptor (image-spec 1.1, descriptor.md).
    #[serde(rename_all = "camelCase")]
    pub struct Descriptor {
        pub media_type: String,
        pub digest: String,
        /// Bytes.
        pub size: i64,
        #[serde(skip_serializing_if = "omit")]
        pub urls: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        pub annotations: BTreeMap<String, String>,
        /// Base64.
        #[serde(skip_serializing_if = "omit")]
        pub data: String,
        #[serde(skip_serializing_if = "omit")]
        pub platform: Option<Platform>,
        #[serde(skip_serializing_if = "omit")]
        pub artifact_type: String,
    }

    #[serde(rename_all = "camelCase")]
    pub struct Platform {
        pub architecture: String,
        pub os: String,
        #[serde(rename = "os.version", skip_serializing_if = "omit")]
        pub os_version: String,
        #[serde(rename = "os.features", skip_serializing_if = "omit")]
        pub os_features: Vec<String>,
        #[serde(skip_serializing_if = "omit")]
        pub variant: String,
    }
}
