//! Unpacks a tar stream into a directory.
//!
//! The parent of an entry is resolved inside the root (links of the same tree are followed, as after `chroot`), and the
//! entry itself is made with `*at` calls on that descriptor, exclusively: what stood there before is removed, a final link
//! is replaced and never followed.

mod below;
mod entries;
mod links;
mod metadata;
mod options;
mod parents;
mod whiteouts;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use ferry_sys::Root;
use ferry_sys::root::remove_tree;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

pub use self::below::Below;
pub use self::options::{Applied, ApplyOptions, Owner, Warning, Whiteouts};
use crate::reader::{Entry, Kind, Reader, Time};
use crate::{Error, Limits, Result, tree};

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

pub(crate) const WARNINGS: usize = 100;

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
}

fn stat(dir: BorrowedFd<'_>, path: &Path, name: &OsStr) -> Result<Stat> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.map_err(|source| write_error(path, "look at", source.into()))
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

fn write_error(path: &Path, action: &'static str, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        action,
        source,
    }
}
