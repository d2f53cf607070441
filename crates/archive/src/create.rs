//! Writes what lies below a directory as a tar stream: `docker cp` out of a container, `export`.
//!
//! The tree may change meanwhile, and whoever changes it may mean harm. Every directory is opened once, without following
//! links and without crossing into another file system of the tree unless asked; its entries are reached through that
//! descriptor. An entry that disappears is left out; a file that shrinks while it is read is filled up with zeros, one that
//! grows is cut off, as the header has promised a size.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use ferry_sys::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::ahead::{self, Content, Loaded};
use crate::apply::{WARNINGS, Warning};
use crate::diff::Shift;
use crate::reader::{Entry, Kind, Time};
use crate::{Error, Recorder, Result, Writer, tree};

#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// What the top entry is called, instead of its own name; empty for a tree without a name, whose top entry is `./`.
    pub name: Option<PathBuf>,
    /// Go into file systems that are mounted below.
    pub cross_mounts: bool,
    /// Leave out the top entry itself and write only what is in it.
    pub contents_only: bool,
}

/// What makes a file the same file.
type Inode = (u64, u64);

/// A tree on its way into a stream.
pub(crate) struct Walk<W: Write> {
    pub writer: Writer<W>,
    pub cross_mounts: bool,
    pub form: Form,
    pub warnings: Vec<Warning>,
    /// Bytes of what was written, as [`tree::size`] counts them.
    pub size: u64,
    /// Files with several links that were written, and under which name.
    linked: HashMap<Inode, PathBuf>,
    buffer: Vec<u8>,
    /// Is told of the contents of files, whose paths must be those below its root.
    recorder: Option<Recorder>,
}

/// How what is on disk is put into words.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Form {
    /// Ids on disk are those of a user namespace: these are taken back.
    pub shift: Option<Shift>,
    /// Times are cut to seconds, overlayfs's marks become whiteouts, and attributes of this machine are left out.
    pub layer: bool,
}

/// Directories one inside the other: each holds a descriptor while it is walked.
pub(crate) const MAX_DEPTH: usize = 1024;

/// Writes `path` and everything below it, in the order of names, with a complete archive's end. Links on the way to `path`
/// are followed inside the root, a final one is written as a link. Sockets are left out. Returns the stream.
///
/// Fails with [`Error::Write`] where a file cannot be read, [`Error::Read`] where the stream cannot be written.
pub fn create<W: Write>(root: &Root, path: &Path, stream: W, options: &CreateOptions) -> Result<W> {
    let mut walk = Walk::new(stream, Form::default());
    walk.cross_mounts = options.cross_mounts;
    let failed = |source| failed(path, source);
    let top = root.resolve(path, OFlags::PATH | OFlags::NOFOLLOW).map_err(failed)?;
    let stat = rustix::fs::fstat(&top).map_err(|source| failed(source.into()))?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => path.file_name().map(PathBuf::from).unwrap_or_default(),
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let dir = root
            .resolve(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
            .map_err(failed)?;
        walk.tree(dir, name, options.contents_only)?;
    } else {
        let (parent, last) = root.parent(path).map_err(failed)?;
        let last = CString::new(last.into_vec()).map_err(|_| failed(Errno::INVAL.into()))?;
        walk.leaf(parent.as_fd(), &last, &stat, name, None)?;
    }
    walk.writer.finish().map_err(sink)
}

impl<W: Write> Walk<W> {
    pub fn new(stream: W, form: Form) -> Self {
        Self {
            writer: Writer::new(stream),
            cross_mounts: false,
            form,
            warnings: Vec::new(),
            size: 0,
            linked: HashMap::new(),
            buffer: vec![0; 256 << 10],
            recorder: None,
        }
    }

    pub fn recorded_by(mut self, recorder: Option<Recorder>) -> Self {
        self.recorder = recorder;
        self
    }

    fn tree(&mut self, top: OwnedFd, name: PathBuf, contents_only: bool) -> Result<()> {
        let mut stack = vec![self.enter(top, name, contents_only)?];
        while let Some((dir, path, left)) = stack.last_mut() {
            let Some(child) = left.pop() else {
                stack.pop();
                continue;
            };
            let child_path = path.join(OsStr::from_bytes(child.to_bytes()));
            let stat = match rustix::fs::statat(&*dir, &child, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat.map_err(|source| failed(&child_path, source.into()))?,
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let dir = rustix::io::dup(&*dir).map_err(|source| failed(&child_path, source.into()))?;
                self.leaf(dir.as_fd(), &child, &stat, child_path, None)?;
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            if !self.cross_mounts {
                resolve |= ResolveFlags::NO_XDEV;
            }
            match rustix::fs::openat2(&*dir, &child, flags, Mode::empty(), resolve) {
                Ok(fd) => {
                    if stack.len() >= MAX_DEPTH {
                        return Err(Error::TooLarge {
                            what: "components of name",
                            limit: MAX_DEPTH as u64,
                        });
                    }
                    let entered = self.enter(fd, child_path, false)?;
                    stack.push(entered);
                }
                // Gone, or something else by now; or a mount point, which is written as the empty directory it covers.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(Errno::XDEV) => {
                    let entry = self.form.entry(child_path, Kind::Directory, &stat, Vec::new());
                    self.writer.header(&entry).map_err(sink)?;
                }
                Err(source) => return Err(failed(&child_path, source.into())),
            }
        }
        Ok(())
    }

    /// Writes a directory's own entry and lists it, last name first.
    fn enter(&mut self, dir: OwnedFd, path: PathBuf, silent: bool) -> Result<(OwnedFd, PathBuf, Vec<CString>)> {
        let wrong = |source| failed(&path, source);
        if !silent {
            let name = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &path
            };
            self.directory(dir.as_fd(), name)?;
        }
        let mut names = tree::names(dir.as_fd()).map_err(wrong)?;
        names.reverse();
        Ok((dir, path, names))
    }

    /// Writes the entry of an open directory.
    pub fn plain_directory(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<Entry> {
        let stat = rustix::fs::fstat(dir).map_err(|source| failed(path, source.into()))?;
        let xattrs = self.attributes(dir, path)?;
        let entry = self.form.entry(path.to_owned(), Kind::Directory, &stat, xattrs);
        self.writer.header(&entry).map_err(sink)?;
        Ok(entry)
    }

    /// The same, and in a layer that it hides what is below if it does.
    pub fn directory(&mut self, dir: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let entry = self.plain_directory(dir, path)?;
        if !self.form.layer || !tree::is_opaque(dir) {
            return Ok(());
        }
        // As Docker writes it: of the directory's owner, without a time.
        let mark = Entry {
            path: path.join(".wh..wh..opq"),
            kind: Kind::File,
            mode: entry.mode & 0o777,
            mtime: Time::default(),
            xattrs: Vec::new(),
            ..entry
        };
        self.writer.header(&mark).map_err(sink)
    }

    /// Writes anything but a directory; a file that is there already need not be opened.
    pub fn leaf(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        path: PathBuf,
        loaded: Option<Loaded>,
    ) -> Result<()> {
        let Some(kind) = tree::kind(stat) else {
            self.warn(&path, "sockets are left out");
            return Ok(());
        };
        let inode: Inode = (stat.st_dev, stat.st_ino);
        let first = match stat.st_nlink > 1 {
            true => self.linked.get(&inode).map(|first| first.as_os_str().to_owned()),
            false => None,
        };
        if first.is_none() {
            self.size = self
                .size
                .saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
            if stat.st_nlink > 1 {
                self.linked.insert(inode, path.clone());
            }
        }
        if self.form.layer && tree::is_whiteout(stat) {
            let mut hidden = OsString::from(".wh.");
            hidden.push(OsStr::from_bytes(name.to_bytes()));
            let entry = Entry {
                kind: Kind::File,
                mode: 0o600,
                // The kernel links its whiteouts to each other, and Docker leaves the link's target in the header.
                link: first.unwrap_or_default(),
                ..self.form.entry(path.with_file_name(hidden), kind, stat, Vec::new())
            };
            return self.writer.header(&entry).map_err(sink);
        }
        if let Some(link) = first {
            let mut entry = Entry {
                link,
                ..self.form.entry(path, Kind::HardLink, stat, Vec::new())
            };
            if let Some(Loaded { xattrs, .. }) = loaded {
                entry.xattrs = self.travelling(xattrs, &entry.path);
            } else if self.form.layer {
                // Go's headers of hard links have the attributes as well.
                let fd = match rustix::fs::openat(
                    dir,
                    name,
                    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                ) {
                    Err(Errno::NOENT) => return Ok(()),
                    fd => fd.map_err(|source| failed(&entry.path, source.into()))?,
                };
                entry.xattrs = self.attributes(fd.as_fd(), &entry.path)?;
            }
            return self.writer.header(&entry).map_err(sink);
        }
        if kind == Kind::File {
            let loaded = match loaded {
                None => ahead::load(dir, name, stat, &path)?,
                loaded => loaded,
            };
            return loaded.map_or(Ok(()), |loaded| self.file(loaded, path));
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let wrong = |source| failed(&path, source);
        let fd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            fd => fd.map_err(|source| wrong(source.into()))?,
        };
        let now = rustix::fs::fstat(&fd).map_err(|source| wrong(source.into()))?;
        if (now.st_dev, now.st_ino) != inode || tree::kind(&now) != Some(kind) {
            return Ok(());
        }
        let xattrs = self.attributes(fd.as_fd(), &path)?;
        if kind == Kind::Symlink {
            let target = rustix::fs::readlinkat(&fd, "", Vec::new()).map_err(|source| wrong(source.into()))?;
            let link = OsString::from_vec(target.into_bytes());
            return self
                .writer
                .header(&Entry {
                    link,
                    ..self.form.entry(path, kind, &now, xattrs)
                })
                .map_err(sink);
        }
        let entry = self.form.entry(path, kind, &now, xattrs);
        self.writer.header(&entry).map_err(sink)
    }

    fn file(&mut self, loaded: Loaded, path: PathBuf) -> Result<()> {
        let xattrs = self.travelling(loaded.xattrs, &path);
        let entry = self.form.entry(path, Kind::File, &loaded.stat, xattrs);
        self.writer.header(&entry).map_err(sink)?;
        if let Some(recorder) = &self.recorder {
            recorder.content(&entry.path, 0, entry.size).map_err(sink)?;
        }
        match loaded.content {
            Content::Here(bytes) => self.writer.data(&bytes).map_err(sink)?,
            Content::Open(file) => self.content(&entry.path, file, entry.size)?,
        }
        self.writer.pad(entry.size).map_err(sink)
    }

    /// The attributes that travel.
    fn attributes(&mut self, fd: BorrowedFd<'_>, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>> {
        let xattrs = tree::xattrs(fd).map_err(|source| failed(path, source))?;
        Ok(self.travelling(xattrs, path))
    }

    fn travelling(&mut self, mut xattrs: Vec<(OsString, Vec<u8>)>, path: &Path) -> Vec<(OsString, Vec<u8>)> {
        if self.form.layer {
            // A label of this machine's policy.
            xattrs.retain(|(name, _)| name != "security.selinux");
        }
        let before = xattrs.len();
        // A record ends its key at the first of these.
        xattrs.retain(|(name, _)| !name.as_bytes().contains(&b'='));
        if xattrs.len() < before {
            self.warn(path, "an attribute with an equals sign in its name is left out");
        }
        if let Some(shift) = self.form.shift {
            for (_, value) in xattrs.iter_mut().filter(|(name, _)| name == "security.capability") {
                shift.capability(value);
            }
        }
        xattrs
    }

    fn warn(&mut self, path: &Path, what: &str) {
        if self.warnings.len() < WARNINGS {
            self.warnings.push(Warning {
                path: path.to_owned(),
                what: what.to_owned(),
            });
        }
    }

    fn content(&mut self, path: &Path, mut file: File, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match file.read(&mut self.buffer[..most]) {
                Ok(0) => {
                    self.buffer[..most].fill(0);
                    most
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(path, error)),
            };
            self.writer.data(&self.buffer[..count]).map_err(sink)?;
            left -= count as u64;
        }
        Ok(())
    }
}

impl Form {
    pub fn entry(&self, path: PathBuf, kind: Kind, stat: &Stat, xattrs: Vec<(OsString, Vec<u8>)>) -> Entry {
        let inside = |id: u32| self.shift.map_or(id, |shift| shift.inside(id));
        let mut mtime = tree::mtime(stat);
        if self.layer {
            mtime.nanos = 0;
        }
        Entry {
            path,
            kind,
            link: OsString::new(),
            mode: stat.st_mode & 0o7777,
            uid: inside(stat.st_uid),
            gid: inside(stat.st_gid),
            size: if kind == Kind::File {
                u64::try_from(stat.st_size).unwrap_or_default()
            } else {
                0
            },
            mtime,
            xattrs,
            segments: None,
            offset: 0,
        }
    }
}

pub(crate) fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        action: "read",
        source,
    }
}

pub(crate) fn sink(source: io::Error) -> Error {
    Error::Read { source }
}
