//! The place that is written to: a draft, on top of what is below it.
//!
//! Paths are those of both together, without links: [`Place::resolve`] takes links apart, and everything else refuses them. A
//! directory that is only below is made in the draft as it is there before something is put into it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use ferry_archive::reader::Time;
use ferry_archive::tree::{self, timestamps};
use ferry_sys::Root;
use rustix::fs::{FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::entry::{Xattrs, xattrs};
use super::{Options, Written, failed, owner};
use crate::error::{Error, Result};

const MAX_LINKS: usize = 40;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

#[derive(Debug)]
pub struct Place<'a> {
    pub(super) below: Option<&'a Root>,
    pub(super) draft: &'a Root,
    pub(super) options: &'a Options<'a>,
    /// Of directories, to be set when all is done.
    times: BTreeMap<PathBuf, Time>,
    /// Directories of the draft that hide what is below.
    opaque: BTreeMap<PathBuf, ()>,
    pub(super) written: Written,
}

/// An entry, and whether it is in the draft.
#[derive(Debug)]
pub(super) struct Found {
    pub stat: Stat,
    pub is_new: bool,
}

/// What one of the two has at a path.
enum Seen {
    Is(Stat),
    Nothing,
    /// Something on the way is no directory, and hides what is below.
    Hidden,
}

fn seen(root: &Root, path: &Path) -> Result<Seen> {
    match root.resolve_no_links(path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) => rustix::fs::fstat(&fd)
            .map(Seen::Is)
            .map_err(|error| failed("look at", path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::Nothing),
        Err(error) if is_no_directory(&error) => Ok(Seen::Hidden),
        Err(error) => Err(failed("look at", path, error)),
    }
}

impl Found {
    pub fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Symlink
    }

    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(below: Option<&'a Root>, draft: &'a Root, options: &'a Options<'a>) -> Self {
        Self {
            below,
            draft,
            options,
            times: BTreeMap::new(),
            opaque: BTreeMap::new(),
            written: Written::default(),
        }
    }

    pub(super) fn owner(&mut self, text: Option<&str>) -> Result<Option<(u32, u32)>> {
        let Some(text) = text else { return Ok(None) };
        let (owner, warnings) = owner::owner(text, self.below)?;
        self.written.warnings.extend(warnings);
        Ok(Some(owner))
    }

    /// Not later than the epoch that was asked for.
    pub(super) fn clamp(&self, time: Time) -> Time {
        match self.options.epoch {
            Some(epoch) if time.secs >= epoch => Time { secs: epoch, nanos: 0 },
            _ => time,
        }
    }

    pub(super) fn look(&self, path: &Path) -> Result<Option<Found>> {
        match seen(self.draft, path)? {
            Seen::Is(stat) => return Ok(Some(Found { stat, is_new: true })),
            Seen::Hidden => return Ok(None),
            Seen::Nothing => {}
        }
        let Some(below) = self.seen_below(path) else {
            return Ok(None);
        };
        Ok(match seen(below, path)? {
            Seen::Is(stat) => Some(Found { stat, is_new: false }),
            Seen::Hidden | Seen::Nothing => None,
        })
    }

    /// What is below, if no directory above `path` hides it.
    pub(super) fn seen_below(&self, path: &Path) -> Option<&'a Root> {
        // None of them is below another, so that the one above `path` is the last that is not after it.
        let mut before = self.opaque.range::<Path, _>((Bound::Unbounded, Bound::Included(path)));
        let is_hidden = before.next_back().is_some_and(|(above, ())| path.starts_with(above));
        self.below.filter(|_| !is_hidden)
    }

    /// Where `path` is without its links, those of missing things as well.
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf> {
        self.resolve_in(PathBuf::new(), path)
    }

    /// As [`Place::resolve`], from a directory whose path has no links.
    pub(super) fn resolve_in(&self, mut done: PathBuf, path: &Path) -> Result<PathBuf> {
        let mut left = parts(path);
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(&part);
            let found = self.look(&done)?;
            let Some(found) = found.filter(Found::is_link) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::Invalid(format!("\"/{}\": too many links", path.display())));
            }
            let root = if found.is_new { Some(self.draft) } else { self.below };
            let target = root.map(|root| {
                let fd = root.resolve_no_links(&done, OFlags::PATH | OFlags::NOFOLLOW)?;
                Ok(rustix::fs::readlinkat(&fd, "", Vec::new())?)
            });
            let target = target
                .transpose()
                .map_err(|error: io::Error| failed("read the link", &done, error))?;
            let target = PathBuf::from(OsString::from_vec(target.unwrap_or_default().into_bytes()));
            done.pop();
            if target.is_absolute() {
                done = PathBuf::new();
            }
            left.extend(parts(&target));
        }
        Ok(done)
    }

    /// Opens a directory of the draft.
    pub(super) fn open(&self, path: &Path) -> Result<OwnedFd> {
        let dir = self
            .draft
            .resolve_no_links(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW);
        dir.map_err(|error| failed("open", path, error))
    }

    /// Makes a directory in the draft with all above it: as they are below, or new ones with this owner and mode. The bit by which
    /// directories inherit their group is inherited too, and without an owner the group is.
    pub(super) fn make_directories(&mut self, path: &Path, owner: Option<(u32, u32)>, mode: u32) -> Result<()> {
        let is_missing = |path: &&Path| {
            let found = self.draft.resolve_no_links(path, DIRECTORY | OFlags::NOFOLLOW);
            !path.as_os_str().is_empty() && found.is_err()
        };
        let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
        for path in missing.into_iter().rev() {
            match self.look(path)? {
                None => self.make(path, owner, mode)?,
                Some(found) if !found.is_directory() => {
                    return Err(Error::Invalid(format!("mkdir /{}: not a directory", path.display())));
                }
                Some(found) if found.is_new => {}
                Some(found) => self.copy_up(path, &found.stat)?,
            }
        }
        Ok(())
    }

    fn make(&mut self, path: &Path, owner: Option<(u32, u32)>, mode: u32) -> Result<()> {
        self.mkdir(path)?;
        self.touched(path.parent().unwrap_or(Path::new("")));
        self.touched(path);
        let made = rustix::fs::fstat(self.open(path)?).map_err(|error| failed("look at", path, error))?;
        let owner = owner.unwrap_or((made.st_uid, made.st_gid));
        let inherited = made.st_mode & Mode::SGID.as_raw_mode();
        self.attributes(path, owner, mode | inherited, &Vec::new())
    }

    fn mkdir(&self, path: &Path) -> Result<()> {
        let (parent, name) = split(path);
        let dir = self
            .draft
            .resolve_no_links(parent, DIRECTORY)
            .map_err(|error| failed("open", parent, error))?;
        rustix::fs::mkdirat(&dir, name, Mode::from(0o700)).map_err(|error| failed("make the directory", path, error))
    }

    /// Makes a directory as it is below. Its parent is in the draft.
    pub(super) fn copy_up(&mut self, path: &Path, stat: &Stat) -> Result<()> {
        self.mkdir(path)?;
        let mut found = Vec::new();
        if let Some(below) = self.below {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let dir = below
                .resolve_no_links(path, flags)
                .map_err(|error| failed("open", path, error))?;
            let unread = |error| failed("read the attributes of", path, error);
            found = xattrs(dir.as_fd(), false).map_err(unread)?;
        }
        let mode = stat.st_mode & 0o7777;
        self.attributes(path, (stat.st_uid, stat.st_gid), mode, &found)?;
        self.times.insert(path.to_owned(), tree::mtime(stat));
        Ok(())
    }

    /// Owner, mode and attributes of a directory of the draft.
    pub(super) fn attributes(&self, path: &Path, owner: (u32, u32), mode: u32, xattrs: &Xattrs) -> Result<()> {
        let dir = self.open(path)?;
        let unwritten = |error: Errno| failed("change the owner or mode of", path, error);
        rustix::fs::fchown(&dir, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).map_err(unwritten)?;
        rustix::fs::fchmod(&dir, Mode::from(mode)).map_err(unwritten)?;
        set_xattrs(dir.as_fd(), path, xattrs)
    }

    /// Makes the directory of a tree that is copied: over one that is there.
    pub(super) fn directory(&mut self, path: &Path) -> Result<()> {
        match self.look(path)? {
            Some(found) if !found.is_directory() => {
                return Err(Error::Invalid(format!(
                    "cannot copy to non-directory: /{}",
                    path.display()
                )));
            }
            Some(found) if found.is_new => return Ok(()),
            Some(found) => self.copy_up(path, &found.stat)?,
            None => self.mkdir(path)?,
        }
        self.touched(path.parent().unwrap_or(Path::new("")));
        Ok(())
    }

    /// Makes room in the draft for what replaces everything; `is_directory`: a directory follows, that hides what is below.
    pub(super) fn remove(&mut self, path: &Path, found: &Found, is_directory: bool) -> Result<()> {
        if found.is_new {
            self.draft
                .remove_all(path)
                .map_err(|error| failed("replace", path, error))?;
            forget(&mut self.times, path);
            forget(&mut self.opaque, path);
            let files = &mut self.written.manifest.files;
            match found.is_directory() {
                true => files.retain(|known, _| !known.starts_with(path)),
                false => drop(files.remove(path)),
            }
        }
        if is_directory {
            self.mkdir(path)?;
            let dir = self.open(path)?;
            // Something of the same name may be below what was in the draft.
            if found.is_new && self.seen_below(path).is_some() {
                tree::set_xattr(dir.as_fd(), tree::OPAQUE.as_ref(), b"y")
                    .map_err(|error| failed("make opaque", path, error))?;
                self.opaque.insert(path.to_owned(), ());
            }
        }
        self.touched(path.parent().unwrap_or(Path::new("")));
        Ok(())
    }

    /// Something in this directory changed now.
    pub(super) fn touched(&mut self, path: &Path) {
        match self.options.epoch {
            Some(secs) if !path.as_os_str().is_empty() => {
                self.times.insert(path.to_owned(), Time { secs, nanos: 0 });
            }
            _ => {
                self.times.remove(path);
            }
        }
    }

    pub(super) fn set_time(&mut self, path: &Path, time: Time) {
        let time = self.clamp(time);
        self.times.insert(path.to_owned(), time);
    }

    /// Sets the times of directories, and tells what was done.
    pub(super) fn finish(self) -> Result<Written> {
        for (path, time) in &self.times {
            let dir = self.open(path)?;
            rustix::fs::futimens(&dir, &timestamps(*time)).map_err(|error| failed("set the times of", path, error))?;
        }
        Ok(self.written)
    }
}

/// Like BuildKit, without those that the file system does not take.
pub(super) fn set_xattrs(fd: std::os::fd::BorrowedFd<'_>, path: &Path, xattrs: &Xattrs) -> Result<()> {
    for (name, value) in xattrs.iter().filter(|(name, _)| !tree::is_overlay_xattr(name)) {
        match tree::set_xattr(fd, name, value) {
            Err(error) if error.raw_os_error().map(Errno::from_raw_os_error) == Some(Errno::NOSPC) => {
                return Err(failed("set an attribute of", path, error));
            }
            Err(error) => tracing::debug!(%error, path = %path.display(), "attribute left out"),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Removes a path, and all below it.
fn forget<V>(known: &mut BTreeMap<PathBuf, V>, path: &Path) {
    let from = known.range::<Path, _>((Bound::Included(path), Bound::Unbounded));
    let gone = from.map(|(known, _)| known).take_while(|known| known.starts_with(path));
    for path in gone.cloned().collect::<Vec<_>>() {
        known.remove(&path);
    }
}

/// The directory a path is in, and its name there.
pub(super) fn split(path: &Path) -> (&Path, &std::ffi::OsStr) {
    let parent = path.parent().unwrap_or(Path::new(""));
    (parent, path.file_name().unwrap_or_default())
}

fn is_no_directory(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOTDIR | Errno::LOOP))
}

fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}
