//! Files of the host's on their way into layers.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layer::{Kind, Layer, Meta};

/// How much a layer may take of what is there.
pub struct Budget {
    entries: u64,
    bytes: u64,
    /// Of one file.
    largest: u64,
    owner: Option<u64>,
}

impl Budget {
    pub fn new(scale: f64, entries: u32, megabytes: u32) -> Self {
        Self {
            entries: scaled(scale, entries),
            bytes: scaled(scale, megabytes * 1000) * 1000,
            largest: u64::MAX,
            owner: None,
        }
    }

    /// Whoever owns them here: with this owner.
    pub fn owned_by(self, owner: u64) -> Self {
        Self {
            owner: Some(owner),
            ..self
        }
    }

    /// Only files of so many KiB at most.
    pub fn short(self, kibibytes: u64) -> Self {
        Self {
            largest: kibibytes << 10,
            ..self
        }
    }
}

/// So many times the scale, and at least one.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number below 2^53"
)]
pub fn scaled(scale: f64, count: u32) -> u64 {
    ((f64::from(count) * scale) as u64).max(1)
}

/// Files of the host's, in the order of their names; what one layer does not take is there for the next.
pub struct Walk {
    /// Where it is, and what it is called in the image; the next one last.
    waiting: Vec<(PathBuf, Vec<u8>)>,
}

impl Walk {
    pub fn new(roots: &[(PathBuf, &str)]) -> Self {
        let waiting = roots
            .iter()
            .rev()
            .map(|(from, to)| (from.clone(), to.as_bytes().to_vec()));
        Self {
            waiting: waiting.collect(),
        }
    }

    pub fn fill(&mut self, layer: &mut Layer, budget: &Budget) -> Result<()> {
        self.fill_with_names(layer, budget).map(drop)
    }

    /// Adds what fits; the names of the files, without directories and links.
    pub fn fill_with_names(&mut self, layer: &mut Layer, budget: &Budget) -> Result<Vec<Vec<u8>>> {
        let mut left = budget.bytes.saturating_sub(layer.bytes());
        let mut files = Vec::new();
        while layer.entries < budget.entries && left > 64 << 10 {
            let Some((path, name, metadata)) = self.next()? else {
                break;
            };
            let meta = Meta {
                mode: metadata.mode() & 0o7777,
                uid: budget.owner.unwrap_or(metadata.uid().into()),
                gid: budget.owner.unwrap_or(metadata.gid().into()),
                time: (metadata.mtime(), 0),
                xattrs: &[],
            };
            if metadata.is_dir() {
                layer.add(&name, &meta, Kind::Directory)?;
            } else if metadata.is_symlink() {
                let to = fs::read_link(&path)?;
                layer.add(&name, &meta, Kind::Symlink(to.as_os_str().as_bytes()))?;
            } else if metadata.is_file() && metadata.len() <= left.min(budget.largest) {
                let data = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                layer.add(&name, &meta, Kind::File(&data))?;
                left = left.saturating_sub(metadata.len() + 1024);
                files.push(name);
            }
        }
        Ok(files)
    }

    fn next(&mut self) -> Result<Option<(PathBuf, Vec<u8>, Metadata)>> {
        while let Some((path, name)) = self.waiting.pop() {
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                for child in children(&path)?.into_iter().rev() {
                    let last = child.file_name().unwrap_or_default().as_bytes().to_vec();
                    // It would remove something.
                    if !last.starts_with(b".wh.") {
                        let below = [name.as_slice(), &last].join(&b'/');
                        self.waiting.push((child, below));
                    }
                }
            }
            return Ok(Some((path, name, metadata)));
        }
        Ok(None)
    }
}

/// What is in a directory, in the order of names.
pub fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
