//! The directories that entries are in. The last ones are kept open; the cache is emptied whenever something is removed, because
//! only that can change what a path resolved before means.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Applier, DIRECTORY, Whiteouts, stat, write_error};
use crate::reader::{Entry, Kind, Time};
use crate::{Result, tree};

/// Kept open.
const PARENTS: usize = 8;

impl Applier<'_> {
    /// The open directory `path`, which is made if it is missing.
    pub(super) fn parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        if let Some((_, fd)) = self.parents.iter().rev().find(|(known, _)| known == path) {
            return Ok(Rc::clone(fd));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match self.root.resolve(path, flags) {
            Err(error) if is_missing(&error) => self.make_parents(path)?,
            fd => fd.map_err(|source| write_error(path, "open", source))?,
        };
        Ok(self.remember(path.to_owned(), fd))
    }

    pub(super) fn remember(&mut self, path: PathBuf, fd: OwnedFd) -> Rc<OwnedFd> {
        let fd = Rc::new(fd);
        self.parents.retain(|(known, _)| *known != path);
        if self.parents.len() >= PARENTS {
            self.parents.remove(0);
        }
        self.parents.push((path, Rc::clone(&fd)));
        fd
    }

    /// Makes the missing directories of `path`: like those of the layers below where they have them, else 0755 and root's.
    fn make_parents(&mut self, path: &Path) -> Result<OwnedFd> {
        let mut sofar = PathBuf::new();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut dir = self
            .root
            .resolve("", flags)
            .map_err(|source| write_error(path, "open", source))?;
        for name in path {
            sofar.push(name);
            let failed = |source: Errno| write_error(&sofar, "make the directory", source.into());
            let mut hidden = false;
            match self.root.resolve(&sofar, flags) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_missing(&error) && self.options.whiteouts == Whiteouts::Overlay => {
                    // A whiteout of this layer gives way to a directory that hides what is below as well.
                    hidden = tree::is_whiteout(&stat(dir.as_fd(), &sofar, name)?);
                    if !hidden {
                        return Err(write_error(&sofar, "open", error));
                    }
                    rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(failed)?;
                    self.removed = true;
                }
                fd => {
                    dir = fd.map_err(|source| write_error(&sofar, "open", source))?;
                    continue;
                }
            }
            rustix::fs::mkdirat(&dir, name, Mode::from(0o755)).map_err(failed)?;
            dir = rustix::fs::openat(&dir, name, DIRECTORY, Mode::empty()).map_err(failed)?;
            if hidden {
                self.set_opaque(&sofar, dir.as_fd())?;
            }
            let model = if hidden { None } else { self.lower(&sofar)? };
            let model = match &model {
                Some((below, stat)) => self.described(&sofar, below, stat, Kind::Directory)?,
                None => None,
            };
            let model = model.unwrap_or(Entry {
                mode: 0o755,
                ..Entry::blank(&sofar, Kind::Directory)
            });
            self.metadata(&model, &sofar, dir.as_fd())?;
            if model.mtime != Time::default() {
                self.later(&sofar, model.mtime)?;
            }
        }
        Ok(dir)
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
