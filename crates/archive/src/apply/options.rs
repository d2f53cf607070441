//! What is asked for, and what came of it.

use std::path::PathBuf;

use rustix::fs::{Gid, Uid};

use super::Below;
use crate::{Limits, Recorder};

#[derive(Debug, Default)]
pub struct ApplyOptions<'a> {
    pub limits: Limits,
    pub whiteouts: Whiteouts,
    /// The directory inside the root that entries and hard links' targets are relative to. Links on the way to an entry are
    /// still followed inside the root.
    pub below: PathBuf,
    /// Where hard links to, and parents of, what is not in this layer come from.
    pub lower: Option<&'a dyn Below>,
    pub owner: Owner,
    /// What entries' and hard links' names begin with, and what to put in its place. Other entries are refused.
    pub rename: Option<(PathBuf, PathBuf)>,
    /// Refuse to replace a directory by something else, or something else by a directory (`docker cp`).
    pub keep_kinds: bool,
    /// Writes down how to make the archive again. The stream must be one that it [watches](Recorder::watch).
    pub recorder: Option<Recorder>,
}

/// Whom what is unpacked belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// To whom the archive says.
    #[default]
    Archive,
    /// To one user and group, whatever the archive says.
    Fixed(u32, u32),
    /// To whoever unpacks it: nobody's rights are needed.
    Unchanged,
}

impl Owner {
    /// The user and group of an entry; `None` to leave them.
    pub(super) fn of(self, uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
        match self {
            Self::Archive => (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            Self::Fixed(uid, gid) => (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            Self::Unchanged => (None, None),
        }
    }
}

/// What to do with names that begin with `.wh.`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// A layer: they become overlayfs's marks of deleted entries and opaque directories.
    #[default]
    Overlay,
    /// They are names like any other.
    Literal,
}

#[derive(Debug, Default)]
pub struct Applied {
    pub entries: u64,
    /// Of a layer: bytes of all files as [`tree::size`] counts them (holes included, hard links once). Else bytes written.
    pub bytes: u64,
    /// The archive marks its root as opaque, which overlayfs does not look at: the layers below must be left out.
    pub opaque_root: bool,
    /// The first hundred things that were left out.
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub path: PathBuf,
    pub what: String,
}
