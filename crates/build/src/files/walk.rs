//! All that is below a directory, by descriptors: a directory that becomes a link meanwhile is left out.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_archive::reader::Kind;
use ferry_archive::tree;
use ferry_dockerfile::Ignore;
use ferry_dockerfile::ignore::Matched;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::entry::{Entry, link_target, xattrs};
use super::failed;
use crate::error::{Error, Result};

/// Each level holds a descriptor.
const MAX_DEPTH: usize = 1024;
const MAX_ENTRIES: usize = 5_000_000;

/// What of it is taken.
#[derive(Debug, Default)]
pub(super) struct Filters<'a> {
    /// With paths from the source's root.
    pub ignore: Option<&'a Ignore>,
    /// Where the walk begins, for `ignore`.
    pub at: String,
    pub exclude: Ignore,
    /// If there is one, only what it matches.
    pub include: Option<Include>,
}

#[derive(Debug)]
pub(super) struct Include {
    matches: Ignore,
    /// The same as an exception, which tells where it cannot match.
    reaches: Ignore,
}

impl Include {
    pub fn new(pattern: &str) -> Result<Self> {
        let wrong = |error: ferry_dockerfile::ignore::Error| Error::invalid(error.to_string());
        Ok(Self {
            matches: Ignore::new([pattern]).map_err(wrong)?,
            reaches: Ignore::new([format!("!{pattern}")]).map_err(wrong)?,
        })
    }
}

/// What the patterns said of a directory.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub ignore: Matched,
    pub exclude: Matched,
    pub include: Matched,
}

impl Filters<'_> {
    fn whole(&self, path: &str) -> String {
        match self.at.as_str() {
            "" => path.to_owned(),
            at => format!("{at}/{path}"),
        }
    }

    fn look(&self, path: &str, above: &State) -> (bool, State) {
        let mut state = State::default();
        let mut taken = true;
        if let Some(ignore) = self.ignore {
            let (ignored, matched) = ignore.look(&self.whole(path), &above.ignore);
            taken &= !ignored;
            state.ignore = matched;
        }
        if !self.exclude.is_empty() {
            let (excluded, matched) = self.exclude.look(path, &above.exclude);
            taken &= !excluded;
            state.exclude = matched;
        }
        if let Some(include) = &self.include {
            let (included, matched) = include.matches.look(path, &above.include);
            taken &= included;
            state.include = matched;
        }
        (taken, state)
    }

    /// Whether nothing below a directory that is not taken can be taken.
    fn can_skip(&self, path: &str, above: &State) -> bool {
        let skip = |ignore: &Ignore, path: &str, above: &Matched| ignore.look(path, above).0 && ignore.can_skip(path);
        self.ignore
            .is_some_and(|ignore| skip(ignore, &self.whole(path), &above.ignore))
            || skip(&self.exclude, path, &above.exclude)
            || self
                .include
                .as_ref()
                .is_some_and(|include| !include.matches.look(path, &above.include).0 && include.reaches.can_skip(path))
    }
}

pub(super) struct Walk<'a> {
    pub filters: &'a Filters<'a>,
    /// Without capabilities.
    pub plain: bool,
    /// In the source's root.
    pub at: &'a Path,
    pub found: Vec<Entry>,
    /// Directories that are taken if something below them is.
    pub pending: Vec<Entry>,
}

/// A directory whose entries are looked at.
struct Level {
    dir: OwnedFd,
    path: PathBuf,
    state: State,
    /// Names that are left.
    names: std::vec::IntoIter<CString>,
    /// How many directories were pending before it.
    waiting: usize,
}

impl Walk<'_> {
    /// All below a directory: parents before what is in them, names in the order of their bytes.
    pub fn directory(&mut self, dir: OwnedFd, state: State) -> Result<()> {
        // No call for each level: how many there are is up to whoever made the tree.
        let mut open = vec![self.level(dir, PathBuf::new(), state)?];
        while let Some(level) = open.last_mut() {
            let Some(name) = level.names.next() else {
                self.pending.truncate(level.waiting);
                open.pop();
                continue;
            };
            if let Some(inner) = self.child(level, &name)? {
                open.push(inner);
            }
            if open.len() > MAX_DEPTH || self.found.len() > MAX_ENTRIES {
                let path = open.last().map(|level| self.at.join(&level.path)).unwrap_or_default();
                let path = path.display();
                let what = format!("/{path}: more than {MAX_DEPTH} levels or {MAX_ENTRIES} files");
                return Err(Error::Invalid(what));
            }
        }
        Ok(())
    }

    fn level(&self, dir: OwnedFd, path: PathBuf, state: State) -> Result<Level> {
        let names = tree::names(dir.as_fd()).map_err(|error| failed("read", &self.at.join(&path), error))?;
        Ok(Level {
            dir,
            path,
            state,
            names: names.into_iter(),
            waiting: self.pending.len(),
        })
    }

    /// Takes an entry, if it is one to take; a directory in which others may be.
    fn child(&mut self, level: &Level, name: &CStr) -> Result<Option<Level>> {
        let dir = &level.dir;
        let child = level.path.join(OsStr::from_bytes(name.to_bytes()));
        let at = self.at;
        let unable = |action: &'static str| {
            let child = &child;
            move |error: Errno| failed(action, &at.join(child), error)
        };
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.map_err(unable("look at"))?,
        };
        let text = child.to_string_lossy();
        let (taken, below) = self.filters.look(&text, &level.state);
        let Some(mut entry) = Entry::new(child.clone(), &stat) else {
            return Ok(None);
        };
        if !entry.is_directory() {
            if taken {
                if entry.kind == Kind::Symlink {
                    entry.target = link_target(dir.as_fd(), name).map_err(unable("read the link"))?;
                }
                self.take(entry);
            }
            return Ok(None);
        }
        if !taken && self.filters.can_skip(&text, &level.state) {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            inner => inner.map_err(unable("open"))?,
        };
        let unread = |error| failed("read the attributes of", &at.join(&child), error);
        entry.xattrs = xattrs(inner.as_fd(), self.plain).map_err(unread)?;
        let waiting = self.pending.len();
        match taken {
            true => self.take(entry),
            false => self.pending.push(entry),
        }
        let inner = self.level(inner, child, below)?;
        Ok(Some(Level { waiting, ..inner }))
    }

    fn take(&mut self, entry: Entry) {
        self.found.append(&mut self.pending);
        self.found.push(entry);
    }
}

/// The beginning of a path's parts, for whoever looks at each directory on the way.
pub(super) fn above(path: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    let mut sofar = PathBuf::new();
    path.components().map(move |part| {
        sofar.push(part);
        sofar.clone()
    })
}
