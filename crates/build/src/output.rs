//! What becomes of a result, and what is kept of builds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use jiff::Timestamp;

/// One `--output`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    pub kind: OutputKind,
    /// As the client gives them: `name`, `push`, `dest`, `rewrite-timestamp`, …
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputKind {
    /// Into the engine's own images; `push` sends it to its registry as well.
    #[default]
    Image,
    /// An archive as of `docker save`.
    Docker,
    /// An OCI layout as an archive, or as a directory with `tar=false`.
    Oci,
    /// The files as an archive.
    Tar,
    /// The files as a directory.
    Local,
}

/// A thing that the builder keeps: a step's result, a cache mount, a context's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub id: String,
    pub parents: Vec<String>,
    /// `regular`, `source.local`, `source.git.checkout`, `exec.cachemount`, `internal`: BuildKit's words.
    pub kind: String,
    pub description: String,
    /// Bytes that go with it.
    pub size: u64,
    pub in_use: bool,
    /// An image or another kept thing needs the same files.
    pub shared: bool,
    pub created: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
    pub used: u64,
}

impl Kept {
    /// Whether builds write into it.
    pub fn is_mutable(&self) -> bool {
        matches!(self.kind.as_str(), "exec.cachemount" | "source.local")
    }
}

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// Shared and internal things too.
    pub all: bool,
    /// As BuildKit reads them: `id=`, `type=`, `until=24h`, `unused-for=`, `inuse`, `shared`, …; each of the outer list may match.
    pub filters: Vec<String>,
    /// Seconds since its last use.
    pub keep_seconds: u64,
    /// Bytes; 0 for no word about it.
    pub reserved: u64,
    pub max_used: u64,
    pub min_free: u64,
}
