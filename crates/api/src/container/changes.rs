use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::wire::wire;

/// One of `GET /containers/{id}/changes`; no changes at all are `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    pub path: String,
    pub kind: ChangeKind,
}

/// 0, 1, 2 on the wire; `C`, `A`, `D` for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum ChangeKind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

impl ChangeKind {
    pub fn letter(self) -> char {
        match self {
            Self::Modified => 'C',
            Self::Added => 'A',
            Self::Deleted => 'D',
        }
    }
}

impl From<ChangeKind> for u8 {
    fn from(kind: ChangeKind) -> u8 {
        kind as u8
    }
}

impl TryFrom<u8> for ChangeKind {
    type Error = String;
    fn try_from(byte: u8) -> Result<Self, String> {
        match byte {
            0 => Ok(Self::Modified),
            1 => Ok(Self::Added),
            2 => Ok(Self::Deleted),
            other => Err(format!("unknown kind of change {other}")),
        }
    }
}

wire! {
    /// `POST /commit`.
    #[serde(rename_all = "PascalCase")]
    pub struct CommitResponse {
        pub id: String,
    }

    /// `POST /containers/prune`.
    #[serde(rename_all = "PascalCase")]
    pub struct Prune {
        /// Ids; `null` when none.
        pub containers_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }

    /// The `X-Docker-Container-Path-Stat` header of `/containers/{id}/archive`: this as JSON in base64.
    #[serde(rename_all = "camelCase")]
    pub struct PathStat {
        pub name: String,
        /// Bytes.
        pub size: i64,
        /// Go's `os.FileMode`: permission bits, and the type from bit 31 (directory) down; not `st_mode`.
        pub mode: u32,
        pub mtime: Timestamp,
        pub link_target: String,
    }
}
