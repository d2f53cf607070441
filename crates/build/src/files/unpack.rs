//! `ADD` of archives: what is one is told by its content, and unpacked as Docker unpacks it: over whatever is there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use ferry_archive::reader::{Entry, Kind, Reader};
use ferry_archive::tree::timestamps;
use ferry_archive::{Limits, decompress};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::creation::{copy_content, create, exclusive, finish};
use super::entry::xattrs;
use super::place::{Found, Place, set_xattrs, split};
use super::select::Part;
use super::{Attributes, Source, content, failed};
use crate::aside::Awaiting;
use crate::error::{Error, Result};
use crate::graph::Copy;

/// Whether the part is an archive, which then is unpacked into the destination. Its modes stay as they are, and its owners if
/// no other was asked for.
pub(super) fn unpack(
    place: &mut Place<'_>,
    source: Source<'_>,
    part: &Part,
    copy: &Copy,
    attributes: &Attributes,
) -> Result<bool> {
    let is_file = part.entries.first().is_some_and(|entry| entry.kind == Kind::File);
    if !is_file {
        return Ok(false);
    }
    let parent = split(&part.at).0;
    let dir = source.root.resolve_no_links(parent, OFlags::PATH | OFlags::DIRECTORY);
    let dir = dir.map_err(|error| failed("open", parent, error))?;
    let (mut file, stamp) = content::open(dir.as_fd(), &part.at)?;
    if part.entries.first().is_some_and(|entry| entry.stamp != stamp) {
        return Err(content::changed(&part.at));
    }
    let is_archive = match decompress(&mut file) {
        Ok(stream) => matches!(Reader::new(stream, Limits::default()).next_entry(), Ok(Some(_))),
        Err(_) => false,
    };
    if !is_archive {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(0))
        .map_err(|error| failed("read", &part.at, error))?;
    let into = place.resolve(Path::new(&copy.destination))?;
    place.make_directories(&into, attributes.owner, 0o755)?;
    let wrong = |error: ferry_archive::Error| Error::Invalid(told(&part.at, &error));
    let stream = decompress(file).map_err(wrong)?;
    let mut reader = Reader::new(stream, Limits::default());
    let owner = attributes.owner;
    let mut archive = Archive {
        place,
        into,
        owner,
        dated: BTreeSet::new(),
        way: Vec::new(),
    };
    while let Some(entry) = reader.next_entry().map_err(wrong)? {
        archive.entry(&entry, &mut reader)?;
    }
    Ok(true)
}

/// An error with its causes.
fn told(path: &Path, error: &dyn std::error::Error) -> String {
    let mut text = format!("/{}: {error}", path.display());
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

struct Archive<'a, 'b> {
    place: &'a mut Place<'b>,
    into: PathBuf,
    owner: Option<(u32, u32)>,
    /// Directories whose time the archive says.
    dated: BTreeSet<PathBuf>,
    /// The last entry's directory and those above it, the top first: by the archive, and where they are. Not each entry looks
    /// for links from the root.
    way: Vec<(PathBuf, PathBuf)>,
}

impl Archive<'_, '_> {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let Some(path) = self.real(&entry.path)? else {
            return Ok(());
        };
        let (parent, name) = split(&path);
        self.place.make_directories(parent, Some((0, 0)), 0o755)?;
        let found = self.place.look(&path)?;
        let time = self.place.clamp(entry.mtime);
        let owner = self.owner.unwrap_or((entry.uid, entry.gid));
        let is_on_way = |found: &Found| found.is_link() || found.is_directory() && entry.kind != Kind::Directory;
        if found.as_ref().is_some_and(is_on_way) {
            self.way.clear();
        }
        if entry.kind == Kind::Directory {
            match found {
                Some(found) if !found.is_directory() => self.place.remove(&path, &found, true)?,
                _ => self.place.directory(&path)?,
            }
            self.place.attributes(&path, owner, entry.mode, &entry.xattrs)?;
            self.place.set_time(&path, entry.mtime);
            self.dated.insert(path);
            return Ok(());
        }
        if let Some(found) = found {
            self.place.remove(&path, &found, false)?;
        }
        if !self.dated.contains(parent) {
            self.place.touched(parent);
        }
        self.place.written.manifest.files.remove(&path);
        let dir = self.place.open(parent)?;
        let node = |kind, device| {
            exclusive(dir.as_fd(), name, &path, |dir| {
                rustix::fs::mknodat(dir, name, kind, Mode::from(0o600), device)
            })?;
            let mode = Mode::from(entry.mode);
            rustix::fs::chmodat(&dir, name, mode, AtFlags::empty())
                .map_err(|error| failed("change the mode of", &path, error))
        };
        match entry.kind {
            Kind::File => {
                let file = create(dir.as_fd(), name, &path, entry.mode)?;
                write(entry, reader, &file, &path)?;
                finish(&file, &path, owner, entry.mode)?;
                set_xattrs(file.as_fd(), &path, &entry.xattrs)?;
                return rustix::fs::futimens(&file, &timestamps(time))
                    .map_err(|error| failed("set the times of", &path, error));
            }
            Kind::HardLink => return self.link(entry, &dir, &path),
            Kind::Symlink => exclusive(dir.as_fd(), name, &path, |dir| {
                rustix::fs::symlinkat(entry.link.as_os_str(), dir, name)
            })?,
            Kind::Fifo => node(FileType::Fifo, 0)?,
            Kind::Character { major: 0, minor: 0 } => {
                let what = "is a character device 0:0, by which layers mark deleted files";
                return Err(Error::Invalid(format!("/{} {what}", path.display())));
            }
            Kind::Character { major, minor } => node(FileType::CharacterDevice, rustix::fs::makedev(major, minor))?,
            Kind::Block { major, minor } => node(FileType::BlockDevice, rustix::fs::makedev(major, minor))?,
            Kind::Directory => {}
        }
        let unwritten = |error: rustix::io::Errno| failed("change the owner or times of", &path, error);
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
        rustix::fs::chownat(&dir, name, uid, gid, nofollow).map_err(unwritten)?;
        rustix::fs::utimensat(&dir, name, &timestamps(time), nofollow).map_err(unwritten)
    }

    /// Where a name of the archive is; `None`: the destination itself, which stays as it is.
    fn real(&mut self, name: &Path) -> Result<Option<PathBuf>> {
        let mut clean = PathBuf::new();
        let mut depth = 0_usize;
        for component in name.components() {
            match component {
                Component::Normal(part) => {
                    clean.push(part);
                    depth += 1;
                }
                Component::ParentDir if depth > 0 => {
                    clean.pop();
                    depth -= 1;
                }
                Component::ParentDir if !name.has_root() => {
                    return Err(Error::Invalid(format!(
                        "invalid entry name {:?}: it leads out of the archive",
                        name.display()
                    )));
                }
                _ => {}
            }
            if depth > Limits::default().depth {
                return Err(Error::Invalid(format!(
                    "an entry's name has more than {} parts",
                    Limits::default().depth
                )));
            }
        }
        let Some(last) = clean.file_name() else { return Ok(None) };
        let parent = self.directory(split(&clean).0)?;
        Ok(Some(parent.join(last)))
    }

    /// Where a directory of the archive is.
    fn directory(&mut self, path: &Path) -> Result<PathBuf> {
        while self.way.last().is_some_and(|(above, _)| !path.starts_with(above)) {
            self.way.pop();
        }
        if self.way.is_empty() {
            let into = self.place.resolve(&self.into)?;
            self.way.push((PathBuf::new(), into));
        }
        let (mut sofar, mut at) = self.way.last().cloned().unwrap_or_default();
        for part in path.components().skip(sofar.components().count()) {
            sofar.push(part);
            at = self.place.resolve_in(at, part.as_ref())?;
            self.way.push((sofar.clone(), at.clone()));
        }
        Ok(at)
    }

    /// A second name of a file: of the archive, or of what is below, which then is copied first.
    fn link(&mut self, entry: &Entry, dir: &OwnedFd, path: &Path) -> Result<()> {
        let missing = || {
            Error::Invalid(format!(
                "/{} is a hard link to {:?}, which is not there",
                path.display(),
                entry.link
            ))
        };
        let existing = self.real(Path::new(&entry.link))?.ok_or_else(missing)?;
        let found = self
            .place
            .look(&existing)?
            .filter(|found| !found.is_directory())
            .ok_or_else(missing)?;
        let (parent, old) = split(&existing);
        if !found.is_new {
            self.copy_up(&existing, &found.stat)?;
        }
        let (from, name) = (self.place.open(parent)?, split(path).1);
        exclusive(dir.as_fd(), name, path, |dir| {
            rustix::fs::linkat(&from, old, dir, name, AtFlags::empty())
        })
    }

    fn copy_up(&mut self, path: &Path, stat: &rustix::fs::Stat) -> Result<()> {
        let (parent, name) = split(path);
        self.place.make_directories(parent, Some((0, 0)), 0o755)?;
        let Some(below) = self.place.below else { return Ok(()) };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Invalid(format!(
                "/{} is no file that a hard link could be made to",
                path.display()
            )));
        }
        let from = below.resolve_no_links(parent, OFlags::PATH | OFlags::DIRECTORY);
        let from = from.map_err(|error| failed("open", parent, error))?;
        let (file, stamp) = content::open(from.as_fd(), path)?;
        let dir = self.place.open(parent)?;
        let mode = stat.st_mode & 0o7777;
        let to = create(dir.as_fd(), name, path, mode)?;
        copy_content(&file, &to, stamp.size).map_err(|error| failed("write", path, error))?;
        finish(&to, path, (stat.st_uid, stat.st_gid), mode)?;
        let found = xattrs(file.as_fd(), false).map_err(|error| failed("read the attributes of", path, error))?;
        set_xattrs(to.as_fd(), path, &found)?;
        let time = timestamps(self.place.clamp(stamp.modified()));
        rustix::fs::futimens(&to, &time).map_err(|error| failed("set the times of", path, error))
    }
}

fn write<R: Read>(entry: &Entry, reader: &mut Reader<R>, mut file: &File, path: &Path) -> Result<()> {
    let broken = |error: io::Error| match error
        .get_ref()
        .and_then(|error| error.downcast_ref::<ferry_archive::Error>())
    {
        Some(error) => Error::Invalid(told(path, error)),
        None => failed("unpack", path, error),
    };
    match &entry.segments {
        None => {
            let copied = io::copy(&mut Awaiting(reader.by_ref().take(entry.size)), &mut file).map_err(broken)?;
            if copied < entry.size {
                return Err(Error::Invalid(format!(
                    "/{}: unexpected EOF: the archive ends in it",
                    path.display()
                )));
            }
        }
        Some(segments) => {
            for segment in segments {
                file.seek(SeekFrom::Start(segment.offset)).map_err(broken)?;
                io::copy(&mut Awaiting(reader.by_ref().take(segment.len)), &mut file).map_err(broken)?;
            }
            file.set_len(entry.size).map_err(broken)?;
        }
    }
    Ok(())
}
