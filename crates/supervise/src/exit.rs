//! How a container ended, on disk before anybody is told.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The exit record. Survives the daemon and the shim; a power loss may lose it, and the container with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128 plus the signal if one ended it.
    pub code: i32,
    /// The kernel killed at least one of its processes for memory.
    pub oom_killed: bool,
    pub at: Timestamp,
    /// Why it ended, where the code does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Exit {
    /// Written beside and renamed, so that nobody reads half of it.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("tmp");
        std::fs::write(&beside, serde_json::to_vec(self)?)?;
        std::fs::rename(&beside, path)
    }

    /// `None` if there is no record.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
