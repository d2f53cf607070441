//! What a step wrote, so that the next time only what is different is written: the rest is linked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ferry_sys::Root;
use serde::{Deserialize, Serialize};

/// Regular files of a layer by their paths in it, without attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub files: BTreeMap<PathBuf, Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// SHA-256.
    pub content: [u8; 32],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
}

/// An earlier layer on the same file system that nobody writes to.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    pub root: &'a Root,
    pub manifest: &'a Manifest,
}
