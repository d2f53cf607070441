//! What a container changed, as a list: `docker diff`.
//!
//! As Docker's overlay2 has it, which compares the tree with the one below: a file that was copied up and is the same as
//! before is no change, and a directory is one when something in it is.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_sys::Root;
use rustix::fs::{FileType, OFlags, Stat};

use crate::create::{MAX_DEPTH, failed};
use crate::diff::{DiffOptions, look, open, too_deep};
use crate::merged::directories;
use crate::{Error, Result, tree};

/// More are no list that anybody reads: an error, not the engine's memory.
const MAX_CHANGES: usize = 2_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Modified,
    Added,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Relative to the top.
    pub path: PathBuf,
    pub change: Change,
}

/// Compares `upper` with the layers below it. A directory comes before what is in it, names in the order of their bytes.
pub fn changed(upper: &Root, options: &DiffOptions<'_>) -> Result<Vec<Changed>> {
    let top = |root: &Root| {
        root.resolve("", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|source| failed(Path::new("."), source))
    };
    let lower = options.lower.iter().enumerate().map(|(at, root)| Ok((at, top(root)?)));
    let mut walk = Walk {
        options,
        open: Vec::new(),
        found: Vec::new(),
    };
    walk.enter(top(upper)?, lower.collect::<Result<Vec<_>>>()?, PathBuf::new(), true)?;
    while let Some(level) = walk.open.last_mut() {
        match level.names.pop_first() {
            Some(name) => walk.entry(&name)?,
            None => drop(walk.open.pop()),
        }
    }
    Ok(walk.found)
}

struct Walk<'a> {
    options: &'a DiffOptions<'a>,
    /// From the top to the directory whose entries are compared. No call for each: how many there are is up to the container.
    open: Vec<Level>,
    found: Vec<Changed>,
}

struct Level {
    upper: OwnedFd,
    /// The directory in the layers below, topmost first; none for one that is new.
    below: Vec<(usize, OwnedFd)>,
    path: PathBuf,
    /// Names that are left.
    names: BTreeSet<CString>,
    /// Whether it is in the list.
    is_told: bool,
}

impl Walk<'_> {
    fn enter(&mut self, upper: OwnedFd, below: Vec<(usize, OwnedFd)>, path: PathBuf, is_told: bool) -> Result<()> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep());
        }
        let unread = |source| failed(&path, source);
        let mut names: BTreeSet<CString> = tree::names(upper.as_fd()).map_err(unread)?.into_iter().collect();
        if tree::is_opaque(upper.as_fd()) {
            for (_, dir) in &below {
                names.extend(tree::names(dir.as_fd()).map_err(unread)?);
            }
        }
        self.open.push(Level {
            upper,
            below,
            path,
            names,
            is_told,
        });
        Ok(())
    }

    /// Compares an entry of the innermost directory.
    fn entry(&mut self, name: &CString) -> Result<()> {
        let Some(level) = self.open.last() else { return Ok(()) };
        let (upper, below) = (level.upper.as_fd(), &level.below);
        let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
        let old = find(below, name, &path)?;
        let new = look(upper, name, &path)?.filter(|stat| !tree::is_whiteout(stat));
        let Some(stat) = new else {
            let is_gone = old.is_some();
            return if is_gone {
                self.add(path, Change::Deleted)
            } else {
                Ok(())
            };
        };
        if self.options.vanishes(upper, name, &stat, &path)? {
            return Ok(());
        }
        let change = match &old {
            None => Some(Change::Added),
            Some((dir, old)) => {
                let same = self.same(old, &stat) && same_capability(*dir, upper, name, &stat, &path)?;
                (!same).then_some(Change::Modified)
            }
        };
        let inside = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => open(upper, name, &path)?,
            _ => None,
        };
        let inside = inside
            .map(|fd| Ok((fd, directories(below, name, &path)?)))
            .transpose()?;
        if let Some(change) = change {
            self.add(path.clone(), change)?;
        }
        match inside {
            Some((fd, below)) => self.enter(fd, below, path, change.is_some()),
            None => Ok(()),
        }
    }

    /// Adds a change, and before it the directories it is in: something in them is not as it was.
    fn add(&mut self, path: PathBuf, change: Change) -> Result<()> {
        // What is above one that is told is told.
        let known = self.open.iter().rposition(|level| level.is_told).map_or(0, |at| at + 1);
        let above = self.open[known..].iter_mut().map(|level| {
            level.is_told = true;
            (level.path.clone(), Change::Modified)
        });
        let added = above.chain([(path, change)]);
        self.found.extend(added.map(|(path, change)| Changed { path, change }));
        if self.found.len() > MAX_CHANGES {
            return Err(Error::TooLarge {
                what: "number of changes",
                limit: MAX_CHANGES as u64,
            });
        }
        Ok(())
    }

    /// What moby's go-archive compares (`statDifferent`).
    fn same(&self, old: &Stat, new: &Stat) -> bool {
        let inside = |id: u32| self.options.shift.map_or(id, |shift| shift.inside(id));
        let entry = |stat: &Stat| (stat.st_mode, stat.st_rdev);
        let content = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        entry(old) == entry(new)
            && (old.st_uid, old.st_gid) == (inside(new.st_uid), inside(new.st_gid))
            && (FileType::from_raw_mode(new.st_mode) == FileType::Directory || content(old) == content(new))
    }
}

/// An entry of the layers below, with the directory it is in.
fn find<'a>(below: &'a [(usize, OwnedFd)], name: &CString, path: &Path) -> Result<Option<(BorrowedFd<'a>, Stat)>> {
    for (_, dir) in below {
        if let Some(stat) = look(dir.as_fd(), name, path)? {
            return Ok((!tree::is_whiteout(&stat)).then_some((dir.as_fd(), stat)));
        }
    }
    Ok(None)
}

fn same_capability(old: BorrowedFd<'_>, new: BorrowedFd<'_>, name: &CString, stat: &Stat, path: &Path) -> Result<bool> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(true);
    }
    let capability = |dir| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()) {
            Ok(file) => file,
            // Gone by now: nothing to compare.
            Err(_) => return Ok(None),
        };
        let mut value = vec![0; 64];
        let file = ferry_sys::handle::path_of(file.as_fd());
        match rustix::fs::getxattr(file, "security.capability", &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(None),
            Err(error) => Err(failed(path, error.into())),
        }
    };
    Ok(capability(old)? == capability(new)?)
}
