//! Unpacks a tar stream into a directory.
//!
//! The parent of an entry is resolved inside the root (links of the same tree are followed, as after `chroot`), and the
//! entry itself is made with `*at` calls on that descriptor, exclusively: what stood there before is removed, a final link
//! is replaced and never followed. The last parents are kept open; the cache is emptied whenever something is removed,
//! because only that can change what a path resolved before means.
//!
//! Metadata is set in the order owner, mode, attributes, times: chown clears set-uid bits and capabilities. Times of
//! directories wait until everything else is done.
//!
//! Whiteouts mean the layers below and never this one, in whichever order they come.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use ferry_sys::Root;
use ferry_sys::handle::path_of;
use ferry_sys::root::remove_tree;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::reader::{self, Entry, Kind, Reader, Time};
use crate::{Error, Limits, Recorder, Result, tree};

#[derive(Debug, Default)]
pub struct ApplyOptions<'a> {
    pub limits: Limits,
    pub whiteouts: Whiteouts,
    /// The directory inside the root that entries and hard links' targets are relative to. Links on the way to an entry are
    /// still followed inside the root.
    pub below: PathBuf,
    /// Where hard links to, and parents of, what is not in this layer come from.
    pub lower: Option<&'a dyn Below>,
    pub owner: Owner,
    /// What entries' and hard links' names begin with, and what to put in its place. Other entries are refused.
    pub rename: Option<(PathBuf, PathBuf)>,
    /// Refuse to replace a directory by something else, or something else by a directory (`docker cp`).
    pub keep_kinds: bool,
    /// Writes down how to make the archive again. The stream must be one that it [watches](Recorder::watch).
    pub recorder: Option<Recorder>,
}

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

/// Whom what is unpacked belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owner {
    /// To whom the archive says.
    #[default]
    Archive,
    /// To one user and group, whatever the archive says.
    Fixed(u32, u32),
    /// To whoever unpacks it: nobody's rights are needed.
    Unchanged,
}

impl Owner {
    /// The user and group of an entry; `None` to leave them.
    fn of(self, uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
        match self {
            Self::Archive => (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            Self::Fixed(uid, gid) => (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
            Self::Unchanged => (None, None),
        }
    }
}

/// What to do with names that begin with `.wh.`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whiteouts {
    /// A layer: they become overlayfs's marks of deleted entries and opaque directories.
    #[default]
    Overlay,
    /// They are names like any other.
    Literal,
}

#[derive(Debug, Default)]
pub struct Applied {
    pub entries: u64,
    /// Of a layer: bytes of all files as [`tree::size`] counts them (holes included, hard links once). Else bytes written.
    pub bytes: u64,
    /// The archive marks its root as opaque, which overlayfs does not look at: the layers below must be left out.
    pub opaque_root: bool,
    /// The first hundred things that were left out.
    pub warnings: Vec<Warning>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub path: PathBuf,
    pub what: String,
}

/// Reads an uncompressed tar stream to its very end (past the end of the archive, for the sake of a hashing reader) and
/// unpacks it below `root`. What was unpacked stays there when this fails.
pub fn apply<R: Read>(stream: R, root: &Root, options: &ApplyOptions<'_>) -> Result<Applied> {
    let mut reader = Reader::new(stream, options.limits.clone());
    let mut applier = Applier {
        root,
        options,
        parents: Vec::new(),
        times: Vec::new(),
        times_bytes: 0,
        removed: false,
        place: None,
        buffer: vec![0; 64 << 10],
        applied: Applied::default(),
    };
    while let Some(entry) = reader.next_entry()? {
        applier.entry(&entry, &mut reader)?;
    }
    applier.set_directory_times()?;
    reader.drain()?;
    if applier.removed && options.whiteouts == Whiteouts::Overlay {
        let size = tree::size(root.as_fd());
        applier.applied.bytes = size.map_err(|source| write_error(Path::new("."), "measure", source))?;
    }
    Ok(applier.applied)
}

struct Applier<'a> {
    root: &'a Root,
    options: &'a ApplyOptions<'a>,
    /// The last parents used, newest last.
    parents: Vec<(PathBuf, Rc<OwnedFd>)>,
    times: Vec<(PathBuf, Time)>,
    times_bytes: usize,
    removed: bool,
    /// A parent as entries name it, and where it really is: for the recorder.
    place: Option<(PathBuf, Option<PathBuf>)>,
    buffer: Vec<u8>,
    applied: Applied,
}

const PARENTS: usize = 8;
pub(crate) const WARNINGS: usize = 100;
/// Directory times are set early when their paths need more memory than this.
const TIMES_BYTES: usize = 32 << 20;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Applier<'_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        self.applied.entries += 1;
        let path = self.renamed(&entry.path)?;
        if path.as_os_str().is_empty() {
            return self.root_entry(entry);
        }
        let path = self.options.below.join(path);
        let Some(name) = path.file_name() else {
            return self.root_entry(entry);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.options.whiteouts == Whiteouts::Overlay {
            if path.as_os_str().as_bytes().starts_with(b".wh..wh.") && name != ".wh..wh..opq" {
                return Ok(());
            }
            match name.as_bytes().strip_prefix(b".wh.") {
                Some(b".wh..opq") => return self.opaque(parent),
                Some(aufs) if aufs.starts_with(b".wh.") => return Ok(()),
                Some(hidden) => return self.whiteout(entry, parent, OsStr::from_bytes(hidden)),
                None => {}
            }
        }
        let dir = self.parent(parent)?;
        let dir = dir.as_fd();
        match entry.kind {
            Kind::Directory => self.directory(entry, &path, dir, name),
            Kind::File => self.file(entry, &path, dir, name, reader),
            Kind::Symlink => {
                self.exclusive(&path, dir, name, "link", |dir| {
                    rustix::fs::symlinkat(entry.link.as_os_str(), dir, name)
                })?;
                self.applied.bytes += entry.link.len() as u64;
                self.unopened(entry, &path, dir, name)
            }
            Kind::HardLink => self.hard_link(entry, &path, dir, name),
            Kind::Fifo => self.node(entry, &path, dir, name, FileType::Fifo, 0),
            Kind::Character { major, minor } => self.node(
                entry,
                &path,
                dir,
                name,
                FileType::CharacterDevice,
                rustix::fs::makedev(major, minor),
            ),
            Kind::Block { major, minor } => self.node(
                entry,
                &path,
                dir,
                name,
                FileType::BlockDevice,
                rustix::fs::makedev(major, minor),
            ),
        }
    }

    /// A name of the archive, clean and with the beginning that is wanted.
    fn renamed(&self, path: &Path) -> Result<PathBuf> {
        let clean = clean(path, &self.options.limits)?;
        let Some((old, new)) = &self.options.rename else {
            return Ok(clean);
        };
        match clean.strip_prefix(old) {
            Ok(rest) if rest.as_os_str().is_empty() => Ok(new.clone()),
            Ok(rest) => Ok(new.join(rest)),
            Err(_) => Err(Error::Escapes { path: path.to_owned() }),
        }
    }

    /// `./`: the metadata of the directory itself. Anything else there would replace the root.
    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::Escapes {
                path: entry.path.clone(),
            });
        }
        let path = self.options.below.as_path();
        let fd = self.root.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY);
        let fd = fd.map_err(|source| write_error(Path::new("."), "open", source))?;
        self.metadata(entry, path, fd.as_fd())?;
        self.later(path, entry.mtime)
    }

    fn directory(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
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

    fn file<R: Read>(
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
    fn place(&mut self, path: &Path, dir: BorrowedFd<'_>) -> Option<PathBuf> {
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

    fn node(
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

    fn hard_link(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
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

    fn whiteout(&mut self, entry: &Entry, parent: &Path, hidden: &OsStr) -> Result<()> {
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

    fn opaque(&mut self, parent: &Path) -> Result<()> {
        if parent.as_os_str().is_empty() {
            self.applied.opaque_root = true;
            return Ok(());
        }
        let dir = self.parent(parent)?;
        let fd = rustix::fs::openat(&dir, ".", DIRECTORY, Mode::empty());
        let fd = fd.map_err(|source| write_error(parent, "open", source.into()))?;
        self.set_opaque(parent, fd.as_fd())
    }

    fn set_opaque(&mut self, path: &Path, dir: BorrowedFd<'_>) -> Result<()> {
        tree::set_xattr(dir, OsStr::new(tree::OPAQUE), b"y").map_err(|source| write_error(path, "make opaque", source))
    }

    /// Makes an entry that must not exist; if it does, removes it with all below it and makes it then.
    fn exclusive<T>(
        &mut self,
        path: &Path,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        action: &'static str,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let failed = |source: Errno| write_error(path, action, source.into());
        match make(dir) {
            Err(Errno::EXIST) => {}
            done => return done.map_err(failed),
        }
        if self.options.keep_kinds {
            let directory = FileType::from_raw_mode(stat(dir, path, name)?.st_mode) == FileType::Directory;
            let wanted = action == "make the directory";
            if directory != wanted {
                let what = if directory {
                    "cannot overwrite directory with non-directory"
                } else {
                    "cannot overwrite non-directory with directory"
                };
                return Err(Error::Unsupported {
                    path: path.to_owned(),
                    what: what.to_owned(),
                });
            }
        }
        let retired = match (self.place(path, dir), &self.options.recorder) {
            (Some(place), Some(recorder)) => recorder.retire(dir, name, &place)?,
            _ => false,
        };
        if !retired {
            remove_tree(dir, name).map_err(|source| write_error(path, "replace", source))?;
        }
        self.place = None;
        self.removed = true;
        // They may have been reached through what is gone.
        self.parents.clear();
        make(dir).map_err(failed)
    }

    /// Owner, mode and attributes of an open file, in this order.
    fn metadata(&mut self, entry: &Entry, path: &Path, fd: BorrowedFd<'_>) -> Result<()> {
        let (uid, gid) = self.options.owner.of(entry.uid, entry.gid);
        rustix::fs::fchown(fd, uid, gid).map_err(|source| write_error(path, "change the owner of", source.into()))?;
        rustix::fs::fchmod(fd, Mode::from(entry.mode))
            .map_err(|source| write_error(path, "change the mode of", source.into()))?;
        self.xattrs(entry, path, fd)
    }

    /// The same for what cannot be opened: a symbolic link, a device, a FIFO.
    fn unopened(&mut self, entry: &Entry, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
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

    fn xattrs(&mut self, entry: &Entry, path: &Path, fd: BorrowedFd<'_>) -> Result<()> {
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

    /// The open directory `path`, which is made if it is missing.
    fn parent(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
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

    fn remember(&mut self, path: PathBuf, fd: OwnedFd) -> Rc<OwnedFd> {
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
                ..blank(&sofar, Kind::Directory)
            });
            self.metadata(&model, &sofar, dir.as_fd())?;
            if model.mtime != Time::default() {
                self.later(&sofar, model.mtime)?;
            }
        }
        Ok(dir)
    }

    fn later(&mut self, path: &Path, mtime: Time) -> Result<()> {
        self.times_bytes += path.as_os_str().len() + size_of::<(PathBuf, Time)>();
        self.times.push((path.to_owned(), mtime));
        if self.times_bytes > TIMES_BYTES {
            self.set_directory_times()
        } else {
            Ok(())
        }
    }

    fn set_directory_times(&mut self) -> Result<()> {
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

    /// The topmost entry `path` of the layers below that neither they nor this one hide.
    fn lower(&self, path: &Path) -> Result<Option<(Root, Stat)>> {
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
    fn described(&self, path: &Path, below: &Root, stat: &Stat, kind: Kind) -> Result<Option<Entry>> {
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
            ..blank(path, kind)
        }))
    }

    /// Copies a file of the layers below into this one, as overlayfs does before it changes one.
    fn copy_up(&mut self, path: &Path) -> Result<Option<()>> {
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

fn stat(dir: BorrowedFd<'_>, path: &Path, name: &OsStr) -> Result<Stat> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_err(|source| write_error(path, "look at", source.into()))
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn blank(path: &Path, kind: Kind) -> Entry {
    Entry {
        path: path.to_owned(),
        kind,
        link: OsString::new(),
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
        segments: None,
        offset: 0,
    }
}

/// A name as Docker cleans it: no `.`, no `..`, no slash at either end. A relative one that leads out is refused, an
/// absolute one starts at the root.
fn clean(path: &Path, limits: &Limits) -> Result<PathBuf> {
    let mut cleaned = PathBuf::new();
    let mut depth = 0;
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                cleaned.push(name);
                depth += 1;
            }
            Component::ParentDir if depth > 0 => {
                cleaned.pop();
                depth -= 1;
            }
            Component::ParentDir if !path.has_root() => return Err(Error::Escapes { path: path.to_owned() }),
            _ => {}
        }
        if depth > limits.depth {
            return Err(Error::TooLarge {
                what: "components of name",
                limit: limits.depth as u64,
            });
        }
    }
    Ok(cleaned)
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.secs,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn write_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        action,
        source,
    }
}
