//! What an entry refers to and its own layer has not: hard links to, and parents of, what is in the layers below.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ferry_sys::Root;
use ferry_sys::handle::path_of;
use rustix::fs::{Mode, OFlags, Stat};

use super::{Applier, HANDLE, write_error};
use crate::reader::{Entry, Kind, Reader};
use crate::tree::timestamps;
use crate::{Limits, Result, tree};

/// The layers below one that is being unpacked.
pub trait Below: std::fmt::Debug + Sync {
    /// Topmost first. Asked only when an entry refers to what is not in its own layer, which is rare: a layer may be unpacked
    /// before those below are there, and this wait for them.
    fn roots(&self) -> io::Result<&[Root]>;
}

impl Below for Vec<Root> {
    fn roots(&self) -> io::Result<&[Root]> {
        Ok(self)
    }
}

impl Applier<'_> {
    /// The topmost entry `path` of the layers below that neither they nor this one hide.
    pub(super) fn lower(&self, path: &Path) -> Result<Option<(Root, Stat)>> {
        let failed = |source: io::Error| write_error(path, "look below for", source);
        let lower = match self.options.lower {
            Some(below) => below.roots().map_err(failed)?,
            None => &[],
        };
        for (at, layer) in std::iter::once(self.root).chain(lower).enumerate() {
            match layer.resolve(path, HANDLE) {
                Ok(fd) if at > 0 => {
                    let stat = rustix::fs::fstat(&fd).map_err(|source| failed(source.into()))?;
                    if tree::is_whiteout(&stat) {
                        return Ok(None);
                    }
                    return Ok(Some((Root::from_fd(fd), stat)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
            let above = path.ancestors().skip(1);
            let mut open = above.filter(|above| !above.as_os_str().is_empty()).filter_map(|above| {
                layer
                    .resolve(above, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
                    .ok()
            });
            if open.any(|dir| tree::is_opaque(dir.as_fd())) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// An entry as an archive of the layer below would have it, if it is of this kind.
    pub(super) fn described(&self, path: &Path, below: &Root, stat: &Stat, kind: Kind) -> Result<Option<Entry>> {
        if tree::kind(stat) != Some(kind) {
            return Ok(None);
        }
        let xattrs = tree::xattrs(below.as_fd()).map_err(|source| write_error(path, "read attributes of", source))?;
        let (uid, gid) = (stat.st_uid, stat.st_gid);
        Ok(Some(Entry {
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: tree::mtime(stat),
            xattrs,
            ..Entry::blank(path, kind)
        }))
    }

    /// Copies a file of the layers below into this one, as overlayfs does before it changes one.
    pub(super) fn copy_up(&mut self, path: &Path) -> Result<Option<()>> {
        let Some((below, stat)) = self.lower(path)? else {
            return Ok(None);
        };
        let Some(kind) = tree::kind(&stat) else { return Ok(None) };
        let Some(mut entry) = self.described(path, &below, &stat, kind)? else {
            return Ok(None);
        };
        let failed = |source: io::Error| write_error(path, "copy up", source);
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        match kind {
            Kind::Directory => return Ok(None),
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(&below, "", Vec::new()).map_err(|source| failed(source.into()))?;
                entry.link = OsString::from(OsStr::from_bytes(target.as_bytes()));
                self.entry(&entry, &mut Reader::new(io::empty(), Limits::default()))?;
            }
            Kind::File => {
                let parent = path.parent().unwrap_or(Path::new(""));
                let name = path.file_name().unwrap_or_default();
                let dir = self.parent(parent)?;
                let dir = dir.as_fd();
                // Re-opened through its own handle: no path is looked up twice.
                let mut from = File::open(path_of(below.as_fd())).map_err(failed)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let create = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, name, flags, Mode::from(0o600));
                let mut file = File::from(self.exclusive(path, dir, name, "create", create)?);
                io::copy(&mut from, &mut file).map_err(failed)?;
                self.applied.bytes += size;
                self.metadata(&entry, path, file.as_fd())?;
                rustix::fs::futimens(&file, &timestamps(entry.mtime)).map_err(|source| failed(source.into()))?;
            }
            _ => self.entry(&entry, &mut Reader::new(io::empty(), Limits::default()))?,
        }
        Ok(Some(()))
    }
}
