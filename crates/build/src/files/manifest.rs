//! What a step wrote, so that the next time only what is different is written: the rest is linked.
//!
//! ```text
//! body = layer record*
//! layer = length (2 bytes) text
//! record = length (2 bytes) path sha256 (32 bytes) mode uid gid (4 bytes each) mtime(s, ns) (8 bytes each), little endian
//! ```

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_sys::Root;

use super::whole::{self, Magic};
use crate::error::Result;

const MAGIC: &Magic = b"FERRYMF1";
const MOST: usize = 256 << 20;

/// Regular files of a layer by their paths in it, without attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub files: HashMap<PathBuf, Record>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Manifest {
    /// What was saved at `path`: the layer's name and its files.
    pub fn open(path: &Path) -> Option<(String, Self)> {
        let body = whole::read(path, MAGIC, MOST)?;
        let mut left = body.as_slice();
        let layer = String::from_utf8(text(&mut left)?.to_owned()).ok()?;
        let mut files = HashMap::with_capacity(left.len() / 100);
        while !left.is_empty() {
            let path = Path::new(OsStr::from_bytes(text(&mut left)?)).to_owned();
            let content = *take(&mut left)?;
            let mut number = || take(&mut left).map(|bytes| u32::from_le_bytes(*bytes));
            let (mode, uid, gid) = (number()?, number()?, number()?);
            let mut number = || take(&mut left).map(|bytes| i64::from_le_bytes(*bytes));
            let mtime = (number()?, number()?);
            let record = Record {
                content,
                mode,
                uid,
                gid,
                mtime,
            };
            files.insert(path, record);
        }
        Some((layer, Self { files }))
    }

    /// The first file that the other one has not, or not like this one.
    pub fn difference(&self, other: &Self) -> Option<PathBuf> {
        let only = |one: &Self, other: &Self| {
            let paths = one
                .files
                .iter()
                .filter(|(path, record)| other.files.get(*path) != Some(record));
            paths.map(|(path, _)| path).min().cloned()
        };
        [only(self, other), only(other, self)].into_iter().flatten().min()
    }

    /// Keeps it, as that of the layer of this name, if it is not too large.
    pub fn save(&self, path: &Path, layer: &str) -> Result<()> {
        let mut body = Vec::with_capacity(self.files.len() * 120);
        put(&mut body, layer.as_bytes());
        for (path, record) in &self.files {
            put(&mut body, path.as_os_str().as_bytes());
            body.extend(record.content);
            body.extend(
                [record.mode, record.uid, record.gid]
                    .iter()
                    .flat_map(|number| number.to_le_bytes()),
            );
            body.extend(
                [record.mtime.0, record.mtime.1]
                    .iter()
                    .flat_map(|number| number.to_le_bytes()),
            );
        }
        match body.len() > MOST {
            true => Ok(()),
            false => whole::write(path, MAGIC, &body),
        }
    }
}

fn put(body: &mut Vec<u8>, text: &[u8]) {
    // No path of a file system is longer.
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    body.extend(length.to_le_bytes());
    body.extend(&text[..length.into()]);
}

fn take<'a, const N: usize>(left: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = left.split_first_chunk()?;
    *left = rest;
    Some(taken)
}

fn text<'a>(left: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_le_bytes(*take(left)?);
    let (taken, rest) = left.split_at_checked(length.into())?;
    *left = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        let record = |byte: u8| Record {
            content: [byte; 32],
            mode: 0o755,
            uid: 7,
            gid: u32::MAX,
            mtime: (-5, 999_999_999),
        };
        let files = [("a", 1), ("dir/\u{fc}ber", 2)].map(|(path, byte)| (PathBuf::from(path), record(byte)));
        let manifest = Manifest { files: files.into() };
        manifest.save(&path, "sha256:abc").unwrap();
        assert_eq!(Manifest::open(&path), Some(("sha256:abc".to_owned(), manifest)));
        whole::write(&path, MAGIC, &[3, 0, b'a', b'b', b'c', 9, 0]).unwrap();
        assert_eq!(Manifest::open(&path), None);
    }
}
