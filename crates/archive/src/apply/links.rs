//! Hard links.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::{Applier, HANDLE, write_error};
use crate::reader::Entry;
use crate::tree::timestamps;
use crate::{Error, Result, tree};

impl Applier<'_> {
    pub(super) fn hard_link(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let missing = || Error::MissingTarget {
            path: path.to_owned(),
            target: Path::new(&entry.link).to_owned(),
        };
        let target = self.renamed(Path::new(&entry.link))?;
        let target = self.options.below.join(target);
        let target_name = target.file_name().ok_or_else(missing)?;
        let target_parent = target.parent().unwrap_or(Path::new(""));
        let mut source = self.root.resolve(target_parent, OFlags::PATH | OFlags::DIRECTORY);
        let found = source
            .as_ref()
            .ok()
            .and_then(|from| rustix::fs::statat(from, target_name, AtFlags::SYMLINK_NOFOLLOW).ok());
        let found = match found {
            Some(stat) => stat,
            None => {
                self.copy_up(&target)?.ok_or_else(missing)?;
                source = self.root.resolve(target_parent, OFlags::PATH | OFlags::DIRECTORY);
                let from = source.as_ref().map_err(|_| missing())?;
                rustix::fs::statat(from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?
            }
        };
        let source = source.map_err(|source| write_error(path, "link", source))?;
        let present = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        if present.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == (found.st_dev, found.st_ino)) {
            return self.linked(entry, path, dir, name);
        }
        // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one to the link itself.
        let link = |dir: BorrowedFd<'_>| rustix::fs::linkat(&source, target_name, dir, name, AtFlags::empty());
        self.exclusive(path, dir, name, "link", link)?;
        self.linked(entry, path, dir, name)
    }

    /// What the entry of a hard link says of the file, which is the last word, as in Docker and containerd. Mostly it repeats
    /// what was said, without the attributes: then nothing is done, because chown would take the capabilities away.
    fn linked(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let fd = rustix::fs::openat(dir, name, HANDLE, Mode::empty());
        let fd = fd.map_err(|source| write_error(path, "open", source.into()))?;
        let stat = rustix::fs::fstat(&fd).map_err(|source| write_error(path, "look at", source.into()))?;
        let (uid, gid) = self.options.owner.of(entry.uid, entry.gid);
        let same =
            uid.is_none_or(|uid| uid.as_raw() == stat.st_uid) && gid.is_none_or(|gid| gid.as_raw() == stat.st_gid);
        if !same {
            rustix::fs::chownat(&fd, "", uid, gid, AtFlags::EMPTY_PATH)
                .map_err(|source| write_error(path, "change the owner of", source.into()))?;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(());
        }
        if !same || stat.st_mode & 0o7777 != entry.mode {
            tree::set_mode(fd.as_fd(), entry.mode).map_err(|source| write_error(path, "change the mode of", source))?;
        }
        self.xattrs(entry, path, fd.as_fd())?;
        if tree::mtime(&stat) == entry.mtime {
            return Ok(());
        }
        rustix::fs::utimensat(dir, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|source| write_error(path, "set the times of", source.into()))
    }
}
