//! What files contain: read once, by several threads, and told as one digest.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_archive::reader::Kind;
use ferry_image::Digest;
use ferry_image::{Algorithm, Hasher as Sha};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, Stamp, Xattrs, xattrs};
use super::index::Index;
use super::select::Part;
use super::{Source, failed, parallel};
use crate::aside::go_on;
use crate::error::{Error, Result};
use crate::graph::Copy;

const BUFFER: usize = 128 << 10;
/// A file that changes while it is read is read again.
const READINGS: usize = 3;

impl Part {
    /// Where an entry is in the source's root.
    pub(super) fn place(&self, path: &Path) -> PathBuf {
        match path.as_os_str().is_empty() {
            true => self.at.clone(),
            false => self.at.join(path),
        }
    }
}

/// Makes the content of every file of a part known.
pub(super) fn read(source: Source<'_>, part: &mut Part, mut index: Option<&mut Index>) -> Result<()> {
    for entry in &mut part.entries {
        if let (Some(index), Kind::File, None) = (index.as_deref_mut(), entry.kind, entry.content) {
            entry.content = index.get(&entry.stamp);
        }
    }
    let batches = parallel::batches(&part.entries, |_, entry| {
        entry.kind == Kind::File && entry.content.is_none()
    });
    let done = parallel::map(&batches, |batch| {
        let mut buffer = vec![0; BUFFER];
        let parent = part.place(batch.parent);
        let parent = match part.entries[batch.entries[0]].path.as_os_str().is_empty() {
            true => part.at.parent().unwrap_or(Path::new("")).to_owned(),
            false => parent,
        };
        let dir = source.root.resolve_no_links(&parent, OFlags::PATH | OFlags::DIRECTORY);
        let dir = dir.map_err(|error| vanished(&parent, error))?;
        let each = batch.entries.iter().map(|&at| {
            let place = part.place(&part.entries[at].path);
            hash(dir.as_fd(), &place, source.plain_owner, &mut buffer).map(|read| (at, read))
        });
        each.collect::<Result<Vec<_>>>()
    })?;
    for (at, read) in done.into_iter().flatten() {
        if let (Some(index), true) = (index.as_deref_mut(), read.xattrs.is_empty()) {
            index.insert(read.stamp, read.content);
        }
        let entry = &mut part.entries[at];
        (entry.stamp, entry.content, entry.xattrs) = (read.stamp, Some(read.content), read.xattrs);
    }
    Ok(())
}

struct Read {
    stamp: Stamp,
    content: [u8; 32],
    xattrs: Xattrs,
}

fn hash(dir: BorrowedFd<'_>, place: &Path, plain: bool, buffer: &mut [u8]) -> Result<Read> {
    for _ in 0..READINGS {
        let (mut file, before) = open(dir, place)?;
        let mut hasher = Sha256::new();
        let mut left = before.size;
        // One that has grown has another stamp.
        while left > 0 {
            go_on().map_err(|error| failed("read", place, error))?;
            match file.read(buffer).map_err(|error| failed("read", place, error))? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    left = left.saturating_sub(count as u64);
                }
            }
        }
        let unread = |error| failed("read the attributes of", place, error);
        let xattrs = xattrs(file.as_fd(), plain).map_err(unread)?;
        let after = rustix::fs::fstat(&file).map_err(|error| failed("look at", place, error))?;
        if Stamp::of(&after) == before {
            return Ok(Read {
                stamp: before,
                content: hasher.finalize().into(),
                xattrs,
            });
        }
    }
    Err(changed(place))
}

/// Opens a regular file of a source, which waits for nobody.
pub(super) fn open(dir: BorrowedFd<'_>, place: &Path) -> Result<(File, Stamp)> {
    let name = place.file_name().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::LOOP) => return Err(changed(place)),
        fd => fd.map_err(|error| vanished(place, error.into()))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(|error| failed("look at", place, error))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(changed(place));
    }
    Ok((File::from(fd), Stamp::of(&stat)))
}

fn vanished(place: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::NotFound(format!("/{} vanished while the build read it", place.display()))
        }
        _ => failed("open", place, error),
    }
}

pub(super) fn changed(place: &Path) -> Error {
    Error::Invalid(format!(
        "/{} changed while the build read it: build again when nobody writes it, or name it in .dockerignore",
        place.display()
    ))
}

/// A digest of fields: each with its length, so that no two lists are the same bytes.
pub(super) struct Hasher(Sha);

impl Hasher {
    pub fn new() -> Self {
        Self(Sha::new(Algorithm::Sha256))
    }

    pub fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub fn part(&mut self, part: &Part, source: Source<'_>, copy: &Copy) {
        self.field(part.name.as_bytes());
        self.0.update(&(part.entries.len() as u64).to_le_bytes());
        for (at, entry) in part.entries.iter().enumerate() {
            self.field(entry.path.as_os_str().as_bytes());
            let is_top = at == 0 && entry.is_directory();
            self.metadata(
                entry,
                !is_top,
                copy.keep_owner && !source.plain_owner && copy.owner.is_none(),
            );
        }
    }

    /// The directory that is copied itself leaves its own behind.
    fn metadata(&mut self, entry: &Entry, with_mode: bool, with_owner: bool) {
        let (kind, device) = match entry.kind {
            Kind::File | Kind::HardLink => (b'f', (0, 0)),
            Kind::Directory => (b'd', (0, 0)),
            Kind::Symlink => (b'l', (0, 0)),
            Kind::Fifo => (b'p', (0, 0)),
            Kind::Character { major, minor } => (b'c', (major, minor)),
            Kind::Block { major, minor } => (b'b', (major, minor)),
        };
        let mode = if with_mode { entry.mode } else { 0 };
        let (uid, gid) = if with_owner { (entry.uid, entry.gid) } else { (0, 0) };
        self.0.update(&[kind]);
        for number in [mode, uid, gid, device.0, device.1] {
            self.0.update(&number.to_le_bytes());
        }
        self.field(entry.target.as_bytes());
        self.field(entry.content.as_ref().map_or(&[], |content| content.as_slice()));
        if with_mode {
            self.0.update(&(entry.xattrs.len() as u64).to_le_bytes());
            for (name, value) in &entry.xattrs {
                self.field(name.as_bytes());
                self.field(value);
            }
        }
    }

    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}
