//! What is asked of a build: the frontend's attributes, typed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ferry_image::{Digest, Platform};

use crate::cache::CacheSource;

/// A Dockerfile and everything that changes what it becomes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Request {
    /// Of this build alone, chosen by who asks or by us.
    pub id: String,
    pub context: Location,
    /// Where the Dockerfile is; without it, in the context.
    pub dockerfile: Option<Location>,
    /// Its path there; empty for `Dockerfile`.
    pub filename: String,
    /// Named contexts (`--build-context`), by name, which is in lower case.
    pub contexts: BTreeMap<String, Named>,
    /// A stage by name or number; empty for the last.
    pub target: String,
    /// Empty for the engine's own.
    pub platform: Option<Platform>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub no_cache: NoCache,
    /// Ask the registries for base images even if there are local ones.
    pub pull: bool,
    pub run: RunOptions,
    pub entitlements: Entitlements,
    /// What may have been built before, elsewhere.
    #[serde(default)]
    pub cache_from: Vec<CacheSource>,
    /// Do not build but tell about the file.
    pub call: Option<Call>,
    /// Tell of every step that is done why it is ([`crate::progress::Explained`]).
    pub explain: bool,
    /// Nobody wants the files of the result: what a cache elsewhere has of it is not fetched.
    #[serde(default)]
    pub has_no_output: bool,
    /// Keep the files of a process that failed, as an image ([`crate::Failed::image`]).
    pub keep_failed: bool,
}

/// Where a context's files are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// A directory of the client's, by its name in the session.
    Directory(String),
    /// An archive, or a file that is the Dockerfile, which the client sends: by its name in the session.
    Upload(String),
    /// The same, and only an archive.
    Archive(String),
    /// A git repository, or by HTTP an archive or a Dockerfile.
    Url(String),
    /// No files at all.
    #[default]
    Nothing,
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Named {
    Files(Location),
    /// `docker-image://`
    Image(String),
    /// `oci-layout://`
    Layout(Layout),
    /// Another build's result, by the id its owner knows it by.
    Result(String),
}

/// An image in an OCI layout of the client's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Where it is kept, by the store's name in the session.
    pub store: String,
    /// Of its manifest, or of an index.
    pub digest: Digest,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoCache {
    #[default]
    None,
    All,
    /// Of these stages.
    Stages(Vec<String>),
}

/// Of every `RUN`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunOptions {
    /// `default`, `none`, `host` or a network's name; empty for the default.
    pub network: String,
    pub extra_hosts: Vec<(String, Address)>,
    pub hostname: String,
    /// Bytes; 0 for the default.
    pub shm_size: i64,
    /// Name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    pub cgroup_parent: String,
    pub limits: Limits,
}

/// What a name of `--add-host` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Address {
    Ip(IpAddr),
    /// The host, as the container's network knows it.
    HostGateway,
}

const HOST_GATEWAY: &str = "host-gateway";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::HostGateway => f.write_str(HOST_GATEWAY),
        }
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    /// IPv6 addresses may stand in brackets.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            HOST_GATEWAY => Ok(Self::HostGateway),
            text => text.trim_matches(['[', ']']).parse().map(Self::Ip),
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = std::net::AddrParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// As of `docker build`; 0 or empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: i64,
    pub memory_swap: i64,
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
}

/// What the user has allowed steps to ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlements {
    pub network_host: bool,
    pub security_insecure: bool,
    pub device: bool,
}

/// `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    Check,
    Outline,
    Targets,
    Describe,
}
