use std::collections::BTreeMap;

use super::health::HealthCheck;
use super::ports::PortSet;
use crate::wire::{Empty, Words, omit, wire};

wire! {
    /// The part of a container that does not depend on the host. Images carry one too, in a slightly different shape
    /// ([`crate::image::Config`]).
    #[serde(rename_all = "PascalCase")]
    pub struct Config {
        pub hostname: String,
        pub domainname: String,
        /// `user`, `uid`, `user:group`, `uid:gid` or a mix; empty is the image's, then root.
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        /// `80/tcp`, `53/udp`, …
        #[serde(skip_serializing_if = "omit")]
        pub exposed_ports: PortSet,
        pub tty: bool,
        pub open_stdin: bool,
        /// Close stdin after the one attached client has gone.
        pub stdin_once: bool,
        /// `NAME=value`; `NAME` alone removes one the image sets.
        pub env: Option<Vec<String>>,
        pub cmd: Option<Words>,
        #[serde(skip_serializing_if = "omit")]
        pub healthcheck: Option<HealthCheck>,
        /// Windows only.
        #[serde(skip_serializing_if = "omit")]
        pub args_escaped: bool,
        /// As the operator wrote it.
        pub image: String,
        /// Paths that get an anonymous volume.
        pub volumes: Option<BTreeMap<String, Empty>>,
        pub working_dir: String,
        pub entrypoint: Option<Words>,
        #[serde(skip_serializing_if = "omit")]
        pub network_disabled: bool,
        /// Replaced by the endpoint's in API 1.44 and still sent by old clients.
        #[serde(skip_serializing_if = "omit")]
        pub mac_address: String,
        pub on_build: Option<Vec<String>>,
        pub labels: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "omit")]
        pub stop_signal: String,
        /// Seconds; negative waits for ever.
        #[serde(skip_serializing_if = "omit")]
        pub stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "omit")]
        pub shell: Option<Words>,
    }
}
