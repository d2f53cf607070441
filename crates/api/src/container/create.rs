use super::config::Config;
use super::host::HostConfig;
use crate::json;
use crate::network::NetworkingConfig;
use crate::wire::{omit, wire};

wire! {
    /// The body of `POST /containers/create`: the keys of [`Config`] and more beside them.
    ///
    /// `null` as the whole body is read by [`Create::parse`] as `None`, for which Docker has an error of its own.
    #[serde(rename_all = "PascalCase")]
    pub struct Create {
        flatten config: Config,
        #[serde(skip_serializing_if = "omit")]
        pub host_config: Option<HostConfig>,
        #[serde(skip_serializing_if = "omit")]
        pub networking_config: Option<NetworkingConfig>,
        /// Where docker-py puts what belongs into the [`HostConfig`]; Docker passes over it.
        #[serde(skip_serializing_if = "omit")]
        pub runtime: String,
        /// Ferry's own. What they say is never in an answer.
        #[serde(skip_serializing_if = "omit")]
        pub secrets: Vec<Secret>,
    }
}

impl Create {
    /// Reads a request body. `None` stands for `null`.
    pub fn parse(body: &[u8]) -> serde_json::Result<Option<Self>> {
        json::from_slice(body)
    }
}

/// Base64, which no log prints.
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SecretData(pub String);

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

crate::wire::plain!(SecretData);

wire! {
    /// A file below /run/secrets.
    #[serde(rename_all = "PascalCase")]
    pub struct Secret {
        /// The file's name; it has no slash.
        pub name: String,
        pub data: SecretData,
        /// By default the container's user, if that is a number or root.
        #[serde(rename = "UID", skip_serializing_if = "omit")]
        pub uid: Option<u32>,
        #[serde(rename = "GID", skip_serializing_if = "omit")]
        pub gid: Option<u32>,
        /// Permission bits; by default 0400.
        #[serde(skip_serializing_if = "omit")]
        pub mode: Option<u32>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Created {
        pub id: String,
        pub warnings: Option<Vec<String>>,
    }
}
