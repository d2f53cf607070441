//! Where files are written: in a draft, as seen through what lies below it.
//!
//! Paths are walked part by part. What the draft has counts before what is below; links of either are followed inside, as after a
//! chroot. A directory that is only below is made in the draft as it is there when something has to be written into it.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ferry_archive::tree;
use ferry_sys::Root;
use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Links that are followed on one way, as BuildKit counts them.
const MAX_LINKS: usize = 255;
/// Directories that are kept open.
const OPEN: usize = 256;

pub struct Place<'a> {
    below: Option<&'a Root>,
    draft: &'a Root,
    open: HashMap<PathBuf, Arc<OwnedFd>>,
}

/// What a directory gets that was not there.
#[derive(Debug, Clone, Copy)]
pub struct New {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub stat: Stat,
    pub in_draft: bool,
}

impl Found {
    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::internal(format!("write /{}", path.display()), &error)
}

impl<'a> Place<'a> {
    pub fn new(below: Option<&'a Root>, draft: &'a Root) -> Self {
        Self {
            below,
            draft,
            open: HashMap::new(),
        }
    }

    /// What is at a path whose parents are no links.
    pub fn find(&self, path: &Path) -> Result<Option<Found>> {
        if path.as_os_str().is_empty() {
            let top = self.draft.resolve("", OFlags::PATH | OFlags::DIRECTORY);
            let top = top.map_err(|error| failed(path, error))?;
            let stat = rustix::fs::fstat(&top).map_err(|error| failed(path, error.into()))?;
            return Ok(Some(Found { stat, in_draft: true }));
        }
        for (root, in_draft) in [(Some(self.draft), true), (self.below, false)] {
            let Some(root) = root else { continue };
            match root.resolve_no_links(path, OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(fd) => {
                    let stat = rustix::fs::fstat(&fd).map_err(|error| failed(path, error.into()))?;
                    return Ok(Some(Found { stat, in_draft }));
                }
                Err(error) if is_missing(&error) => {}
                // A link of what is below, where the draft has a directory.
                Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {}
                Err(error) => return Err(failed(path, error)),
            }
        }
        Ok(None)
    }

    fn link(&self, path: &Path) -> Result<PathBuf> {
        for root in [Some(self.draft), self.below].into_iter().flatten() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                break;
            };
            let Ok(dir) = root.resolve_no_links(parent, OFlags::PATH | OFlags::DIRECTORY) else {
                continue;
            };
            if let Ok(target) = rustix::fs::readlinkat(&dir, name, Vec::new()) {
                return Ok(PathBuf::from(OsString::from_vec(target.into_bytes())));
            }
        }
        Err(failed(path, Errno::NOENT.into()))
    }

    /// Where a path leads: its directories, made if they are not there, without links; the last part, if it is a link, is
    /// followed as well.
    pub fn directory(&mut self, path: &Path, new: New) -> Result<PathBuf> {
        let real = self.follow(path, Some(new))?;
        Ok(real)
    }

    /// The same for a file: the last part need not be there, and nothing is made but what leads to it.
    pub fn file(&mut self, path: &Path, new: New) -> Result<PathBuf> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Ok(PathBuf::new());
            };
            let real = self.follow(parent, Some(new))?.join(name);
            match self.find(&real)? {
                Some(found) if FileType::from_raw_mode(found.stat.st_mode) == FileType::Symlink => {
                    let target = self.link(&real)?;
                    path = match target.is_absolute() {
                        true => target,
                        false => real.parent().unwrap_or(Path::new("")).join(target),
                    };
                }
                _ => return Ok(real),
            }
        }
        Err(Error::invalid("too many links"))
    }

    /// What a path leads to if all of it is there.
    pub fn existing(&mut self, path: &Path) -> Result<Option<Found>> {
        match self.follow(path, None) {
            Ok(real) => self.find(&real),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn follow(&mut self, path: &Path, new: Option<New>) -> Result<PathBuf> {
        let mut left: VecDeque<OsString> = parts(path).collect();
        let mut real = PathBuf::new();
        let mut links = 0;
        while let Some(part) = left.pop_front() {
            if part == OsStr::new("..") {
                real.pop();
                continue;
            }
            let next = real.join(&part);
            match self.find(&next)? {
                Some(found) if found.is_directory() => real = next,
                Some(found) if FileType::from_raw_mode(found.stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::invalid("too many links"));
                    }
                    let target = self.link(&next)?;
                    if target.is_absolute() {
                        real.clear();
                    }
                    for part in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                        left.push_front(part);
                    }
                }
                Some(_) if left.is_empty() && new.is_none() => real = next,
                Some(_) => return Err(Error::invalid(format!("mkdir /{}: not a directory", next.display()))),
                None => {
                    let Some(new) = new else {
                        return Err(Error::NotFound(format!("/{}", next.display())));
                    };
                    let dir = self.open(&real)?;
                    make(&dir, &part, new).map_err(|error| failed(&next, error))?;
                    real = next;
                }
            }
        }
        Ok(real)
    }

    /// A directory of the draft; one that is only below is made as it is there.
    pub fn open(&mut self, real: &Path) -> Result<Arc<OwnedFd>> {
        if let Some(open) = self.open.get(real) {
            return Ok(Arc::clone(open));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = match self.draft.resolve_no_links(real, flags) {
            Ok(opened) => opened,
            Err(error) if is_missing(&error) => {
                let (parent, name) = (
                    real.parent().unwrap_or(Path::new("")),
                    real.file_name().unwrap_or_default(),
                );
                let dir = self.open(parent)?;
                let below = self.below.ok_or_else(|| failed(real, error))?;
                let model = below
                    .resolve_no_links(real, flags)
                    .map_err(|error| failed(real, error))?;
                rustix::fs::mkdirat(&dir, name, Mode::RWXU).map_err(|error| failed(real, error.into()))?;
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&dir, name, flags, Mode::empty());
                let made = made.map_err(|error| failed(real, error.into()))?;
                like(&model, &made).map_err(|error| failed(real, error))?;
                made
            }
            Err(error) => return Err(failed(real, error)),
        };
        if self.open.len() >= OPEN {
            self.open.clear();
        }
        let opened = Arc::new(opened);
        self.open.insert(real.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// A directory with exactly the mode and the owner.
pub fn make(dir: &OwnedFd, name: &OsStr, new: New) -> std::io::Result<OwnedFd> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    dress(&made, new)?;
    Ok(made)
}

/// Owner first: a change of it takes special bits away.
pub fn dress(fd: &OwnedFd, new: New) -> std::io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(new.uid)), Some(Gid::from_raw(new.gid)))?;
    tree::set_mode(fd.as_fd(), new.mode & 0o7777)
}

/// Owner, mode, attributes and times of another one.
fn like(model: &OwnedFd, made: &OwnedFd) -> std::io::Result<()> {
    let stat = rustix::fs::fstat(model)?;
    for (name, value) in tree::xattrs(model.as_fd())? {
        tree::set_xattr(made.as_fd(), &name, &value)?;
    }
    dress(
        made,
        New {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        },
    )?;
    Ok(rustix::fs::futimens(made, &tree::times(&stat))?)
}

fn is_missing(error: &std::io::Error) -> bool {
    let missing = [Errno::NOENT, Errno::NOTDIR].map(|errno| Some(errno.raw_os_error()));
    missing.contains(&error.raw_os_error())
}
