use super::host::{NetRate, RestartPolicy};
use super::ports::PortMap;
use super::resources::Resources;
use crate::wire::wire;

wire! {
    /// The body of `POST /containers/{id}/update`.
    #[serde(rename_all = "PascalCase")]
    pub struct Update {
        flatten resources: Resources,
        pub restart_policy: RestartPolicy,
        /// Ferry's own, like the two below it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub net_rate: Option<NetRate>,
        /// Ports to publish besides those that are.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub publish_add: Option<PortMap>,
        /// Ports to publish no more. A binding without a host port means all of that container port's (at that address, if
        /// it has one).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub publish_remove: Option<PortMap>,
    }

    #[serde(rename_all = "PascalCase")]
    pub struct Updated {
        pub warnings: Option<Vec<String>>,
    }
}
