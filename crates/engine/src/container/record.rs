//! A container as it is persisted. The live part (shim, waiters, streams) is the actor's.

use ferry_api::container::{Config, HostConfig};
use ferry_api::network::NetworkingConfig;
use ferry_storage::Document;
use ferry_supervise::{Health, IdMap};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::point::Point;
use super::state::Status;

/// Everything a new daemon needs to know of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    pub created: Timestamp,
    /// The image's id, `sha256:…`.
    pub image: String,
    /// As the user named it.
    pub image_name: String,
    /// Merged with the image's.
    pub config: Config,
    pub host_config: HostConfig,
    /// The labels that came with the request; the others are the image's, and steer nothing.
    #[serde(default)]
    pub given_labels: Vec<String>,
    #[serde(default)]
    pub networking: Option<NetworkingConfig>,
    pub platform: String,
    /// The program, and its arguments without it.
    pub path: String,
    pub args: Vec<String>,
    pub mounts: Vec<Point>,
    /// `--userns=auto`: the range of ids that is this container's.
    #[serde(default)]
    pub ids: Option<IdMap>,
    /// The names of its secrets. What they say is in memory only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Its places on networks while it runs. A record of before there were several has one or none.
    #[serde(default, alias = "endpoint", deserialize_with = "one_or_more")]
    pub endpoints: Vec<ferry_network::Endpoint>,
    /// Its published ports while it runs.
    #[serde(default)]
    pub ports: Vec<ferry_network::ports::Mapping>,
    pub run: Run,
}

/// How the last run went, or goes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    pub status: Status,
    /// In the host's PID namespace; 0 when it does not run.
    pub pid: i32,
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why the last start failed.
    pub error: String,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub restarts: u32,
    /// Somebody asked for it to stop: no restart policy applies.
    pub stopped: bool,
    /// The digest of resolv.conf as it was written; one with another was changed by the container.
    #[serde(default)]
    pub resolv: Option<ferry_image::Digest>,
    /// Of a container that is checked; the shim's word while it runs.
    #[serde(default)]
    pub health: Option<Health>,
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<ferry_network::Endpoint>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Many(Vec<ferry_network::Endpoint>),
        One(Option<Box<ferry_network::Endpoint>>),
    }
    Ok(match Form::deserialize(from)? {
        Form::Many(endpoints) => endpoints,
        Form::One(endpoint) => endpoint.map(|endpoint| *endpoint).into_iter().collect(),
    })
}

impl Document for Record {
    const KIND: &'static str = "container";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.id
    }
}

impl Record {
    /// The first twelve digits, as lists show them.
    pub fn short_id(&self) -> &str {
        &self.id[..12.min(self.id.len())]
    }
}
