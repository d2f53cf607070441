//! What a container changed: the upper directory of an overlay as a layer's tar stream.
//!
//! Byte for byte what Docker's `commit` writes of the same files (moby go-archive, `TarWithOptions` with overlay whiteouts):
//! names in the order of their bytes, times in whole seconds, `.wh.` for what was deleted, `.wh..wh..opq` for a directory
//! that hides what is below. Beyond Docker, every extended attribute travels, not only capabilities.

use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use ferry_sys::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::ahead::Ahead;
use crate::apply::Warning;
use crate::create::{Form, MAX_DEPTH, Walk, failed, sink};
use crate::{Error, Recorder, Result, tree};

#[derive(Debug, Default)]
pub struct DiffOptions<'a> {
    /// The container has a user namespace of its own: what its files' owners are inside.
    pub shift: Option<Shift>,
    /// Names relative to the top that the engine made to mount something on. They are left out as long as they are empty,
    /// and so is a directory that was copied up only to hold them.
    pub made: &'a [PathBuf],
    /// The layers below, topmost first.
    pub lower: &'a [Root],
    /// Writes the recipe of what the stream becomes, which is to be its [`Recorder::record`].
    pub recorder: Option<Recorder>,
}

/// A tree as a tar stream.
#[derive(Debug)]
pub struct Written<W> {
    pub stream: W,
    /// The first hundred things that were left out.
    pub warnings: Vec<Warning>,
    /// Bytes of all files as [`tree::size`] counts them.
    pub size: u64,
}

/// The ids of a user namespace: `count` of them from `start` on are those from 0 on inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    pub start: u32,
    pub count: u32,
}

impl Shift {
    /// The id inside; one from outside of the range stays as it is.
    pub fn inside(self, id: u32) -> u32 {
        match id.checked_sub(self.start) {
            Some(inside) if inside < self.count => inside,
            _ => id,
        }
    }

    /// Takes the namespace out of a file's capabilities: those of its root become those of root anywhere (capabilities(7),
    /// "File capability extended attribute versioning": version 3 is version 2 with the root's id behind).
    pub fn capability(self, value: &mut Vec<u8>) {
        const REVISION_2: u8 = 2;
        const REVISION_3: u8 = 3;
        let (Some(&[_, _, _, REVISION_3]), Some((_, root)), 24) =
            (value.first_chunk::<4>(), value.split_last_chunk::<4>(), value.len())
        else {
            return;
        };
        match self.inside(u32::from_le_bytes(*root)) {
            0 => {
                value.truncate(20);
                value[3] = REVISION_2;
            }
            inside => value[20..].copy_from_slice(&inside.to_le_bytes()),
        }
    }
}

/// Writes what is in `upper`, without an entry for the directory itself, with a complete archive's end.
///
/// Fails with [`Error::Write`] where a file cannot be read, [`Error::Read`] where the stream cannot be written.
pub fn diff<W: Write>(upper: &Root, stream: W, options: &DiffOptions<'_>) -> Result<Written<W>> {
    let form = Form {
        shift: options.shift,
        layer: true,
    };
    let mut walk = Walk::new(stream, form).recorded_by(options.recorder.clone());
    thread::scope(|scope| written(upper, &mut walk, options, &mut Ahead::new(scope)))?;
    Ok(Written {
        warnings: std::mem::take(&mut walk.warnings),
        size: walk.size,
        stream: walk.writer.finish().map_err(sink)?,
    })
}

fn written<W: Write>(
    upper: &Root,
    walk: &mut Walk<W>,
    options: &DiffOptions<'_>,
    ahead: &mut Ahead<'_, '_>,
) -> Result<()> {
    let top = upper
        .resolve("", OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(|source| failed(Path::new("."), source))?;
    let mut stack = vec![list(top, PathBuf::new())?];
    while let Some((dir, path, left)) = stack.last_mut() {
        if ahead.is_idle() {
            let files = left.iter().rev().take_while(|(_, is_file)| *is_file);
            let files = files.map(|(name, _)| name);
            if Ahead::wants(files.clone().count()) {
                let begun = ahead.begin(dir.as_fd(), path, files.cloned().collect());
                begun.map_err(|source| failed(path, source))?;
            }
        }
        let Some((name, _)) = left.pop() else {
            stack.pop();
            continue;
        };
        let child = path.join(OsStr::from_bytes(name.to_bytes()));
        let found = match ahead.next() {
            Some(found) => found?,
            None => look(dir.as_fd(), &name, &child)?.map(|stat| (stat, None)),
        };
        let Some((stat, loaded)) = found else {
            continue;
        };
        if options.vanishes(dir.as_fd(), &name, &stat, &child)? {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            walk.leaf(dir.as_fd(), &name, &stat, child, loaded)?;
            continue;
        }
        let Some(fd) = open(dir.as_fd(), &name, &child)? else {
            continue;
        };
        if stack.len() >= MAX_DEPTH {
            return Err(too_deep());
        }
        walk.directory(fd.as_fd(), &child)?;
        stack.push(list(fd, child)?);
    }
    Ok(())
}

/// Takes away what the engine made in `upper` only to mount something on, and directories that were made or copied up only
/// to hold it: what [`diff`] would leave out. Asks for the layers below, topmost first, only if there may be something.
///
/// Whatever stays keeps its times.
pub fn tidy<E: From<Error>>(
    upper: &Root,
    made: &[PathBuf],
    lower: impl FnOnce() -> std::result::Result<Vec<Root>, E>,
) -> std::result::Result<(), E> {
    let is_there = |path: &PathBuf| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        upper.resolve_no_links(path, flags).is_ok()
    };
    if !made.iter().any(is_there) {
        return Ok(());
    }
    let lower = lower()?;
    let options = DiffOptions {
        made,
        lower: &lower,
        ..DiffOptions::default()
    };
    Ok(options.tidy(upper)?)
}

impl DiffOptions<'_> {
    fn tidy(&self, upper: &Root) -> Result<()> {
        let made = self.made;
        let mut paths: Vec<&Path> = made.iter().flat_map(|made| made.ancestors()).collect();
        paths.retain(|path| !path.as_os_str().is_empty());
        // What is in a directory goes before it.
        paths.sort_unstable_by_key(|path| std::cmp::Reverse(path.components().count()));
        paths.dedup();
        for path in paths {
            let wrong = |source| failed(path, source);
            let parent = path.parent().unwrap_or(Path::new(""));
            let dir = match upper.resolve_no_links(parent, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(dir) => dir,
                // Not there, or a link, which is none of ours.
                Err(_) => continue,
            };
            let name = path.file_name().unwrap_or_default();
            let name = CString::new(name.as_bytes()).map_err(|_| wrong(Errno::INVAL.into()))?;
            let Some(stat) = look(dir.as_fd(), &name, path)? else {
                continue;
            };
            if self.vanishes(dir.as_fd(), &name, &stat, path)? {
                let before = rustix::fs::fstat(&dir).map_err(|source| wrong(source.into()))?;
                let flags = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => AtFlags::REMOVEDIR,
                    _ => AtFlags::empty(),
                };
                rustix::fs::unlinkat(&dir, &name, flags).map_err(|source| wrong(source.into()))?;
                rustix::fs::futimens(&dir, &tree::times(&before)).map_err(|source| wrong(source.into()))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn too_deep() -> Error {
    Error::TooLarge {
        what: "components of name",
        limit: MAX_DEPTH as u64,
    }
}

/// An entry, or `None` if it is gone by now.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &CString, path: &Path) -> Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        stat => stat.map(Some).map_err(|source| failed(path, source.into())),
    }
}

/// A directory, or `None` if it is gone or something else by now.
pub(crate) fn open(dir: BorrowedFd<'_>, name: &CString, path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        fd => fd.map(Some).map_err(|source| failed(path, source.into())),
    }
}

/// A directory with the names in it, last one first, and whether they are said to be of files.
type Level = (OwnedFd, PathBuf, Vec<(CString, bool)>);

fn list(dir: OwnedFd, path: PathBuf) -> Result<Level> {
    let mut names = tree::kinds(dir.as_fd()).map_err(|source| failed(&path, source))?;
    names.reverse();
    let names = names.into_iter();
    let names = names.map(|(name, kind)| (name, kind == FileType::RegularFile));
    Ok((dir, path, names.collect()))
}

/// What becomes of an entry that the engine may have made.
enum Fate {
    Stays,
    Vanishes,
    /// If all vanishes that is in it.
    VanishesWith(Level),
}

impl DiffOptions<'_> {
    /// Whether this is there only because the engine needed something to mount on.
    pub(crate) fn vanishes(&self, dir: BorrowedFd<'_>, name: &CString, stat: &Stat, path: &Path) -> Result<bool> {
        let mut open = match self.fate(dir, name, stat, path)? {
            Fate::Stays => return Ok(false),
            Fate::Vanishes => return Ok(true),
            Fate::VanishesWith(level) => vec![level],
        };
        while let Some((dir, path, names)) = open.last_mut() {
            let Some((name, _)) = names.pop() else {
                open.pop();
                continue;
            };
            let child = path.join(OsStr::from_bytes(name.to_bytes()));
            let Some(stat) = look(dir.as_fd(), &name, &child)? else {
                continue;
            };
            match self.fate(dir.as_fd(), &name, &stat, &child)? {
                Fate::Stays => return Ok(false),
                Fate::Vanishes => {}
                Fate::VanishesWith(level) => open.push(level),
            }
        }
        Ok(true)
    }

    fn fate(&self, dir: BorrowedFd<'_>, name: &CString, stat: &Stat, path: &Path) -> Result<Fate> {
        let made = self.made.iter().any(|made| made == path);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if made && stat.st_size == 0 => Fate::Vanishes,
            FileType::Directory if made || self.made.iter().any(|made| made.starts_with(path)) => {
                if !made && !self.is_as_below(path, stat)? {
                    return Ok(Fate::Stays);
                }
                match open(dir, name, path)? {
                    Some(fd) if !tree::is_opaque(fd.as_fd()) => Fate::VanishesWith(list(fd, path.to_owned())?),
                    _ => Fate::Stays,
                }
            }
            _ => Fate::Stays,
        })
    }

    /// A directory with the owner and the mode it has below; where it has none, what the engine makes it with.
    fn is_as_below(&self, path: &Path, stat: &Stat) -> Result<bool> {
        let inside = |id: u32| self.shift.map_or(id, |shift| shift.inside(id));
        let here = (stat.st_mode & 0o7777, inside(stat.st_uid), inside(stat.st_gid));
        for layer in self.lower {
            let found = layer.resolve_no_links(path, OFlags::PATH | OFlags::NOFOLLOW);
            let found = match found {
                Ok(fd) => rustix::fs::fstat(&fd).map_err(|source| failed(path, source.into()))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                // Something else stands there or on the way: what is here is new.
                Err(_) => break,
            };
            return Ok(here == (found.st_mode & 0o7777, found.st_uid, found.st_gid));
        }
        Ok(here == (0o755, 0, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_lose_the_namespace_of_their_root() {
        let shift = Shift {
            start: 100_000,
            count: 65_536,
        };
        let v3 = |root: u32| [&[1, 0, 0, 3][..], &[7; 16], &root.to_le_bytes()].concat();
        let v2 = [&[1, 0, 0, 2][..], &[7; 16]].concat();
        for (value, expected) in [
            (v3(100_000), v2.clone()),
            (v3(100_007), v3(7)),
            (v3(5), v3(5)),
            (v2.clone(), v2),
            (vec![1, 0], vec![1, 0]),
            (Vec::new(), Vec::new()),
        ] {
            let mut changed = value;
            shift.capability(&mut changed);
            assert_eq!(changed, expected);
        }
        assert_eq!(
            [99_999, 100_000, 165_535, 165_536].map(|id| shift.inside(id)),
            [99_999, 0, 65_535, 165_536]
        );
    }
}
