//! Metadata is set in the order owner, mode, attributes, times: chown clears set-uid bits and capabilities. Times of
//! directories wait until everything else is done.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Applier, HANDLE, WARNINGS, Warning, write_error};
use crate::reader::{Entry, Kind, Time};
use crate::tree::timestamps;
use crate::{Result, tree};

/// Directory times are set early when their paths need more memory than this.
const TIMES_BYTES: usize = 32 << 20;

impl Applier<'_> {
    /// Owner, mode and attributes of an open file, in this order.
    pub(super) fn metadata(&mut self, entry: &Entry, path: &Path, fd: BorrowedFd<'_>) -> Result<()> {
        let (uid, gid) = self.options.owner.of(entry.uid, entry.gid);
        rustix::fs::fchown(fd, uid, gid).map_err(|source| write_error(path, "change the owner of", source.into()))?;
        rustix::fs::fchmod(fd, Mode::from(entry.mode))
            .map_err(|source| write_error(path, "change the mode of", source.into()))?;
        self.xattrs(entry, path, fd)
    }

    /// The same for what cannot be opened: a symbolic link, a device, a FIFO.
    pub(super) fn unopened(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let (uid, gid) = self.options.owner.of(entry.uid, entry.gid);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(dir, name, uid, gid, nofollow)
            .map_err(|source| write_error(path, "change the owner of", source.into()))?;
        rustix::fs::utimensat(dir, name, &timestamps(entry.mtime), nofollow)
            .map_err(|source| write_error(path, "set the times of", source.into()))?;
        if entry.kind == Kind::Symlink && entry.xattrs.is_empty() {
            return Ok(());
        }
        let fd = rustix::fs::openat(dir, name, HANDLE, Mode::empty());
        let fd = fd.map_err(|source| write_error(path, "open", source.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|source| write_error(path, "look at", source.into()))?;
        if tree::kind(&stat) != Some(entry.kind) {
            return Err(write_error(path, "make", Errno::STALE.into()));
        }
        if entry.kind != Kind::Symlink {
            tree::set_mode(fd.as_fd(), entry.mode).map_err(|source| write_error(path, "change the mode of", source))?;
        }
        self.xattrs(entry, path, fd.as_fd())
    }

    pub(super) fn xattrs(&mut self, entry: &Entry, path: &Path, fd: BorrowedFd<'_>) -> Result<()> {
        for (name, value) in &entry.xattrs {
            if tree::is_overlay_xattr(name) {
                self.warn(path, format!("attribute {} left out", name.display()));
                continue;
            }
            let Err(error) = tree::set_xattr(fd, name, value) else {
                continue;
            };
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            match errno {
                // As Docker: the file system or a namespace cannot do it, which most programs never notice.
                Some(Errno::NOTSUP | Errno::PERM) => self.warn(path, format!("attribute {}: {error}", name.display())),
                _ => return Err(write_error(path, "set an attribute of", error)),
            }
        }
        Ok(())
    }

    fn warn(&mut self, path: &Path, what: String) {
        if self.applied.warnings.len() < WARNINGS {
            self.applied.warnings.push(Warning {
                path: path.to_owned(),
                what,
            });
        }
    }

    pub(super) fn later(&mut self, path: &Path, mtime: Time) -> Result<()> {
        self.times_bytes += path.as_os_str().len() + size_of::<(PathBuf, Time)>();
        self.times.push((path.to_owned(), mtime));
        if self.times_bytes > TIMES_BYTES {
            self.set_directory_times()
        } else {
            Ok(())
        }
    }

    pub(super) fn set_directory_times(&mut self) -> Result<()> {
        self.times_bytes = 0;
        for (path, mtime) in std::mem::take(&mut self.times) {
            let failed = |source: io::Error| write_error(&path, "set the times of", source);
            let fd = match self
                .root
                .resolve(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            {
                Ok(fd) => fd,
                // Replaced by something else since.
                Err(error)
                    if matches!(
                        error.raw_os_error().map(Errno::from_raw_os_error),
                        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            rustix::fs::futimens(&fd, &timestamps(mtime)).map_err(|source| failed(source.into()))?;
        }
        Ok(())
    }
}
