use super::host::RestartPolicy;
use super::resources::Resources;
use crate::wire::wire;

/// The body of `POST /containers/{id}/update`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Update {
    #[serde(flatten)]
    pub resources: Resources,
    #[serde(deserialize_with = "crate::wire::or_default")]
    pub restart_policy: RestartPolicy,
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Updated {
        pub warnings: Option<Vec<String>>,
    }
}
