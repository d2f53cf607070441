//! Directories, files and nodes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Applier, DIRECTORY, Whiteouts, stat, write_error};
use crate::reader::{self, Entry, Reader};
use crate::tree::timestamps;
use crate::{Error, Result, tree};

impl Applier<'_> {
    pub(super) fn directory(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let mut opaque = false;
        let made = rustix::fs::mkdirat(dir, name, Mode::from(0o700));
        if made == Err(Errno::EXIST) {
            let stat = stat(dir, path, name)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                // A whiteout of this layer: what it hid stays hidden below the new directory.
                opaque = self.options.whiteouts == Whiteouts::Overlay && tree::is_whiteout(&stat);
                let make = |dir: BorrowedFd<'_>| rustix::fs::mkdirat(dir, name, Mode::from(0o700));
                self.exclusive(path, dir, name, "make the directory", make)?;
            }
        } else {
            made.map_err(|source| write_error(path, "make the directory", source.into()))?;
        }
        let fd = rustix::fs::openat(dir, name, DIRECTORY, Mode::empty());
        let fd = fd.map_err(|source| write_error(path, "open", source.into()))?;
        if opaque {
            self.set_opaque(path, fd.as_fd())?;
        }
        self.metadata(entry, path, fd.as_fd())?;
        self.later(path, entry.mtime)?;
        // The next entries are most likely in here.
        self.remember(path.to_owned(), fd);
        Ok(())
    }

    pub(super) fn file<R: Read>(
        &mut self,
        entry: &Entry,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, name, flags, Mode::from(0o600));
        let mut file = File::from(self.exclusive(path, dir, name, "create", create)?);
        let failed = |source| write_error(path, "write", source);
        let place = self.place(path, dir);
        match &entry.segments {
            None => {
                self.record(place.as_deref(), 0, entry.size)?;
                self.copy(path, reader, &mut file, entry.size)?;
            }
            Some(segments) => {
                for segment in segments {
                    file.seek(SeekFrom::Start(segment.offset)).map_err(failed)?;
                    self.record(place.as_deref(), segment.offset, segment.len)?;
                    self.copy(path, reader, &mut file, segment.len)?;
                }
                file.set_len(entry.size).map_err(failed)?;
            }
        }
        self.applied.bytes = self.applied.bytes.saturating_add(entry.size);
        self.metadata(entry, path, file.as_fd())?;
        rustix::fs::futimens(&file, &timestamps(entry.mtime))
            .map_err(|source| write_error(path, "set the times of", source.into()))
    }

    /// Where an entry of this directory really is, if that is to be written down.
    pub(super) fn place(&mut self, path: &Path, dir: BorrowedFd<'_>) -> Option<PathBuf> {
        let recorder = self.options.recorder.as_ref()?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let known = self.place.as_ref().filter(|(known, _)| known == parent);
        let real = match known {
            Some((_, real)) => real.clone(),
            None => {
                let real = recorder.place(dir);
                self.place = Some((parent.to_owned(), real.clone()));
                real
            }
        };
        Some(real?.join(path.file_name()?))
    }

    fn record(&self, place: Option<&Path>, offset: u64, len: u64) -> Result<()> {
        match (&self.options.recorder, place) {
            (Some(recorder), Some(place)) => recorder
                .content(place, offset, len)
                .map_err(|source| write_error(place, "write the recipe for", source)),
            _ => Ok(()),
        }
    }

    fn copy<R: Read>(&mut self, path: &Path, reader: &mut Reader<R>, file: &mut File, mut left: u64) -> Result<()> {
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match reader.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(Error::Truncated),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(reader::read_error(error)),
            };
            file.write_all(&self.buffer[..count])
                .map_err(|source| write_error(path, "write", source))?;
            left -= count as u64;
        }
        Ok(())
    }

    pub(super) fn node(
        &mut self,
        entry: &Entry,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileType,
        device: rustix::fs::Dev,
    ) -> Result<()> {
        let make = |dir: BorrowedFd<'_>| rustix::fs::mknodat(dir, name, kind, Mode::from(0o600), device);
        self.exclusive(path, dir, name, "make the device", make)?;
        self.unopened(entry, path, dir, name)
    }
}
