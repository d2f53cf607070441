//! Several layers as the one tree that overlayfs would show, as a tar stream: `export`.
//!
//! Nothing is mounted: the directories of all layers are read side by side. It is the tree without what is mounted into the
//! container, of one that runs as well as of one that does not.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_sys::Root;
use rustix::fs::{FileType, OFlags};

use crate::create::{Form, MAX_DEPTH, Walk, failed, sink};
use crate::diff::{Shift, Written, look, open, too_deep};
use crate::{Error, Result, tree};

/// Directories that are open at a time.
const OPEN: usize = 4096;

/// A directory of one or more layers.
struct Level {
    /// Topmost first, with the number of the layer.
    dirs: Vec<(usize, OwnedFd)>,
    path: PathBuf,
    /// What is left of it, last name first, and the place in `dirs` where it is.
    left: Vec<(CString, usize)>,
}

/// Writes the tree of `layers`, topmost first, without an entry for its top, with a complete archive's end. `shift` is of the
/// first layer alone.
pub fn merged<W: Write>(layers: &[Root], shift: Option<Shift>, stream: W) -> Result<Written<W>> {
    let form = |layer: usize| Form {
        shift: shift.filter(|_| layer == 0),
        layer: true,
    };
    let mut walk = Walk::new(stream, form(0));
    let mut tops = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let top = layer.resolve("", OFlags::RDONLY | OFlags::DIRECTORY);
        tops.push((at, top.map_err(|source| failed(Path::new("."), source))?));
    }
    let mut stack = vec![level(tops, PathBuf::new())?];
    while let Some(current) = stack.last_mut() {
        let Some((name, at)) = current.left.pop() else {
            stack.pop();
            continue;
        };
        let path = current.path.join(OsStr::from_bytes(name.to_bytes()));
        let (layer, dir) = &current.dirs[at];
        let Some(stat) = look(dir.as_fd(), &name, &path)? else {
            continue;
        };
        if tree::is_whiteout(&stat) {
            continue;
        }
        walk.form = form(*layer);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            walk.leaf(dir.as_fd(), &name, &stat, path, None)?;
            continue;
        }
        let dirs = directories(&current.dirs[at..], &name, &path)?;
        let Some((_, top)) = dirs.first() else { continue };
        walk.plain_directory(top.as_fd(), &path)?;
        if stack.len() >= MAX_DEPTH {
            return Err(too_deep());
        }
        if stack.iter().map(|level| level.dirs.len()).sum::<usize>() + dirs.len() > OPEN {
            return Err(Error::TooLarge {
                what: "directories inside each other, over all layers",
                limit: OPEN as u64,
            });
        }
        stack.push(level(dirs, path)?);
    }
    Ok(Written {
        warnings: std::mem::take(&mut walk.warnings),
        size: walk.size,
        stream: walk.writer.finish().map_err(sink)?,
    })
}

fn level(dirs: Vec<(usize, OwnedFd)>, path: PathBuf) -> Result<Level> {
    let mut names = BTreeMap::new();
    for (at, (_, dir)) in dirs.iter().enumerate() {
        for name in tree::names(dir.as_fd()).map_err(|source| failed(&path, source))? {
            names.entry(name).or_insert(at);
        }
    }
    Ok(Level {
        dirs,
        path,
        left: names.into_iter().rev().collect(),
    })
}

/// What one name in several layers' directories, topmost first, shows as a directory.
pub(crate) fn directories(dirs: &[(usize, OwnedFd)], name: &CString, path: &Path) -> Result<Vec<(usize, OwnedFd)>> {
    let mut found = Vec::new();
    for (layer, dir) in dirs {
        let Some(stat) = look(dir.as_fd(), name, path)? else {
            continue;
        };
        let fd = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => open(dir.as_fd(), name, path)?,
            _ => None,
        };
        let Some(fd) = fd else { break };
        let opaque = tree::is_opaque(fd.as_fd());
        found.push((*layer, fd));
        if opaque {
            break;
        }
    }
    Ok(found)
}
