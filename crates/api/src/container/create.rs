use super::config::Config;
use super::host::HostConfig;
use crate::network::NetworkingConfig;
use crate::wire::{omit, wire};

/// The body of `POST /containers/create`: the keys of [`Config`] and two more beside them.
///
/// `null` as the whole body is read by [`Create::parse`] as `None`, for which Docker has an error of its own.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Create {
    #[serde(flatten)]
    pub config: Config,
    #[serde(skip_serializing_if = "omit")]
    pub host_config: Option<HostConfig>,
    #[serde(skip_serializing_if = "omit")]
    pub networking_config: Option<NetworkingConfig>,
}

impl Create {
    /// Reads a request body. `None` stands for `null`.
    pub fn parse(body: &[u8]) -> serde_json::Result<Option<Self>> {
        serde_json::from_slice(body)
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Created {
        pub id: String,
        pub warnings: Option<Vec<String>>,
    }
}
