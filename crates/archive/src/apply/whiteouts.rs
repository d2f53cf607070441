//! Whiteouts mean the layers below and never this one, in whichever order they come.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;

use super::{Applier, DIRECTORY, write_error};
use crate::reader::Entry;
use crate::{Error, Result, tree};

impl Applier<'_> {
    pub(super) fn whiteout(&mut self, entry: &Entry, parent: &Path, hidden: &OsStr) -> Result<()> {
        if matches!(hidden.as_bytes(), b"" | b"." | b"..") {
            return Err(Error::Escapes {
                path: entry.path.clone(),
            });
        }
        let path = parent.join(hidden);
        let dir = self.parent(parent)?;
        let made = rustix::fs::mknodat(&dir, hidden, FileType::CharacterDevice, Mode::empty(), 0);
        if made != Err(Errno::EXIST) {
            return made.map_err(|source| write_error(&path, "make the whiteout", source.into()));
        }
        // An entry of this very layer: it hides what is below by itself, unless both are directories.
        match rustix::fs::openat(&dir, hidden, DIRECTORY, Mode::empty()) {
            Ok(fd) => self.set_opaque(&path, fd.as_fd()),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(source) => Err(write_error(&path, "open", source.into())),
        }
    }

    pub(super) fn opaque(&mut self, parent: &Path) -> Result<()> {
        if parent.as_os_str().is_empty() {
            self.applied.opaque_root = true;
            return Ok(());
        }
        let dir = self.parent(parent)?;
        let fd = rustix::fs::openat(&dir, ".", DIRECTORY, Mode::empty());
        let fd = fd.map_err(|source| write_error(parent, "open", source.into()))?;
        self.set_opaque(parent, fd.as_fd())
    }

    pub(super) fn set_opaque(&mut self, path: &Path, dir: BorrowedFd<'_>) -> Result<()> {
        tree::set_xattr(dir, OsStr::new(tree::OPAQUE), b"y").map_err(|source| write_error(path, "make opaque", source))
    }
}
