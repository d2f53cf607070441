//! Copies a part into the draft.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_archive::reader::{Kind, Time};
use ferry_archive::tree::timestamps;
use ferry_sys::Root;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::creation::{copy_content, create, exclusive, finish, is_directory, make_room};
use super::entry::{Entry, Stamp, xattrs};
use super::manifest::Record;
use super::place::{Place, set_xattrs, split};
use super::select::Part;
use super::{Attributes, Source, content, failed, parallel};
use crate::error::{Error, Result};
use crate::graph::Copy;

pub(super) fn copy(
    place: &mut Place<'_>,
    source: Source<'_>,
    part: &Part,
    copy: &Copy,
    attributes: &Attributes,
) -> Result<()> {
    let Some(top) = part.entries.first() else { return Ok(()) };
    let target = target(place, &part.name, top.is_directory(), &copy.destination, attributes)?;
    let tree = Tree {
        source,
        part,
        attributes,
        target: &target,
    };
    if !top.is_directory() {
        return tree.files(place);
    }
    match place.look(&target)? {
        Some(found) if !found.is_directory() => {
            return Err(Error::Invalid(format!(
                "cannot copy to non-directory: /{}",
                target.display()
            )));
        }
        _ => place.make_directories(&target, attributes.owner, attributes.mode_of_parents())?,
    }
    for entry in part.entries[1..].iter().filter(|entry| entry.is_directory()) {
        let path = target.join(&entry.path);
        place.directory(&path)?;
        let mode = attributes.mode(entry.mode, true);
        place.attributes(&path, tree.owner(entry), mode, &entry.xattrs)?;
    }
    tree.files(place)?;
    // What is in them is there now.
    for entry in part.entries.iter().filter(|entry| entry.is_directory()) {
        place.set_time(&part_path(&target, entry), entry.stamp.modified());
    }
    Ok(())
}

fn part_path(target: &Path, entry: &Entry) -> PathBuf {
    match entry.path.as_os_str().is_empty() {
        true => target.to_owned(),
        false => target.join(&entry.path),
    }
}

/// Where a source goes, with all directories above it made.
fn target(
    place: &mut Place<'_>,
    name: &OsStr,
    is_tree: bool,
    destination: &str,
    attributes: &Attributes,
) -> Result<PathBuf> {
    let owner = attributes.owner;
    let mode = attributes.mode_of_parents();
    let (parents, last) = destination.rsplit_once('/').unwrap_or(("", destination));
    let parents = match last {
        "." => destination,
        _ => parents,
    };
    let parents = place.resolve(Path::new(parents))?;
    place.make_directories(&parents, owner, mode)?;
    let mut target = place.resolve(Path::new(destination))?;
    if !is_tree && (target.as_os_str().is_empty() || place.look(&target)?.is_some_and(|found| found.is_directory())) {
        target.push(name);
    }
    place.make_directories(split(&target).0, owner, mode)?;
    Ok(target)
}

/// A file that is written in the Dockerfile.
pub(super) fn document(
    place: &mut Place<'_>,
    name: &str,
    content: &[u8],
    destination: &str,
    attributes: &Attributes,
) -> Result<()> {
    let name = Path::new(name).file_name().unwrap_or_default();
    let target = target(place, name, false, destination, attributes)?;
    if place.look(&target)?.is_some_and(|found| found.is_directory()) {
        return Err(is_directory(&target));
    }
    let (parent, name) = split(&target);
    let dir = place.open(parent)?;
    let mode = attributes.mode(0o644, false);
    let mut file = create(dir.as_fd(), name, &target, mode)?;
    file.write_all(content)
        .map_err(|error| failed("write", &target, error))?;
    finish(&file, &target, attributes.owner.unwrap_or_default(), mode)?;
    if let Some(secs) = place.options.epoch {
        let time = timestamps(Time { secs, nanos: 0 });
        rustix::fs::futimens(&file, &time).map_err(|error| failed("set the times of", &target, error))?;
    }
    place.written.manifest.files.remove(&target);
    place.touched(parent);
    Ok(())
}

struct Tree<'a> {
    source: Source<'a>,
    part: &'a Part,
    attributes: &'a Attributes,
    /// Where the part goes.
    target: &'a Path,
}

/// Where the files of one directory come from and go to.
struct Directories {
    from: OwnedFd,
    to: OwnedFd,
    below: Option<OwnedFd>,
    previous: Option<OwnedFd>,
}

impl Tree<'_> {
    fn owner(&self, entry: &Entry) -> (u32, u32) {
        match self.attributes.owner {
            Some(owner) => owner,
            None if self.attributes.keep_owner && !self.source.plain_owner => (entry.uid, entry.gid),
            None => (0, 0),
        }
    }

    /// All but directories, which are there.
    fn files(&self, place: &mut Place<'_>) -> Result<()> {
        let entries = &self.part.entries;
        // The first name of a file that has several is copied, the others are linked to it.
        let mut first = HashMap::new();
        let mut others = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            if entry.kind == Kind::File && entry.links > 1 {
                let inode = (entry.stamp.device, entry.stamp.inode);
                let to = *first.entry(inode).or_insert(at);
                if to != at {
                    others.push((at, to));
                }
            }
        }
        let is_first = |at: usize, entry: &Entry| {
            entry.links < 2
                || first
                    .get(&(entry.stamp.device, entry.stamp.inode))
                    .is_none_or(|to| *to == at)
        };
        let batches = parallel::batches(entries, |at, entry| !entry.is_directory() && is_first(at, entry));
        for batch in &batches {
            let dir = self.directory_of(batch);
            place.touched(&dir);
        }
        let shared = &*place;
        let done = parallel::map(&batches, |batch| self.batch(shared, batch))?;
        for (at, record, linked) in done.into_iter().flatten() {
            let path = part_path(self.target, &entries[at]);
            place.written.linked += u64::from(linked);
            match record {
                Some(record) => place.written.manifest.files.insert(path, record),
                None => place.written.manifest.files.remove(&path),
            };
        }
        for (at, to) in others {
            let (path, existing) = (self.target.join(&entries[at].path), self.target.join(&entries[to].path));
            self.link(place, &existing, &path)?;
        }
        Ok(())
    }

    fn is_alone(&self, batch: &parallel::Batch<'_>) -> bool {
        self.part.entries[batch.entries[0]].path.as_os_str().is_empty()
    }

    /// Where a batch goes.
    fn directory_of(&self, batch: &parallel::Batch<'_>) -> PathBuf {
        match self.is_alone(batch) {
            true => split(self.target).0.to_owned(),
            false if batch.parent.as_os_str().is_empty() => self.target.to_owned(),
            false => self.target.join(batch.parent),
        }
    }

    /// The place of each entry, what is known of it, and whether it was linked.
    fn batch(&self, place: &Place<'_>, batch: &parallel::Batch<'_>) -> Result<Vec<(usize, Option<Record>, bool)>> {
        let from = match self.is_alone(batch) {
            true => split(&self.part.at).0.to_owned(),
            false => self.part.place(batch.parent),
        };
        let to = self.directory_of(batch);
        let open = |root: &Root, path: &Path| root.resolve_no_links(path, OFlags::PATH | OFlags::DIRECTORY);
        let directories = Directories {
            from: open(self.source.root, &from).map_err(|error| failed("open", &from, error))?,
            to: open(place.draft, &to).map_err(|error| failed("open", &to, error))?,
            below: place.seen_below(&to).and_then(|below| open(below, &to).ok()),
            previous: place
                .options
                .previous
                .and_then(|previous| open(previous.root, &to).ok()),
        };
        let mut done = Vec::with_capacity(batch.entries.len());
        for &at in &batch.entries {
            let entry = &self.part.entries[at];
            let path = part_path(self.target, entry);
            if let Some(below) = &directories.below {
                let name = split(&path).1;
                let stat = rustix::fs::statat(below, name, AtFlags::SYMLINK_NOFOLLOW);
                if stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
                    return Err(is_directory(&path));
                }
            }
            let (record, linked) = self.entry(place, entry, &path, &directories)?;
            done.push((at, record, linked));
        }
        Ok(done)
    }

    fn entry(
        &self,
        place: &Place<'_>,
        entry: &Entry,
        path: &Path,
        dirs: &Directories,
    ) -> Result<(Option<Record>, bool)> {
        let name = split(path).1;
        let time = place.clamp(entry.stamp.modified());
        match entry.kind {
            Kind::File => return self.file(place, entry, path, dirs),
            Kind::Symlink => exclusive(dirs.to.as_fd(), name, path, |dir| {
                rustix::fs::symlinkat(entry.target.as_os_str(), dir, name)
            })?,
            Kind::Fifo => self.node(entry, path, dirs, FileType::Fifo, 0)?,
            Kind::Character { major: 0, minor: 0 } => {
                return Err(Error::Invalid(format!(
                    "/{} is a character device 0:0, by which layers mark deleted files: exclude it",
                    path.display()
                )));
            }
            Kind::Character { major, minor } => {
                self.node(
                    entry,
                    path,
                    dirs,
                    FileType::CharacterDevice,
                    rustix::fs::makedev(major, minor),
                )?;
            }
            Kind::Block { major, minor } => {
                self.node(
                    entry,
                    path,
                    dirs,
                    FileType::BlockDevice,
                    rustix::fs::makedev(major, minor),
                )?;
            }
            Kind::Directory | Kind::HardLink => return Ok((None, false)),
        }
        let unwritten = |error: Errno| failed("change the owner or times of", path, error);
        let (uid, gid) = self.owner(entry);
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&dirs.to, name, uid, gid, nofollow).map_err(unwritten)?;
        rustix::fs::utimensat(&dirs.to, name, &timestamps(time), nofollow).map_err(unwritten)?;
        Ok((None, false))
    }

    fn node(&self, entry: &Entry, path: &Path, dirs: &Directories, kind: FileType, device: u64) -> Result<()> {
        let name = split(path).1;
        exclusive(dirs.to.as_fd(), name, path, |dir| {
            rustix::fs::mknodat(dir, name, kind, Mode::from(0o600), device)
        })?;
        // Nobody else writes in the draft: it is still the device.
        let mode = Mode::from(self.attributes.mode(entry.mode, false));
        rustix::fs::chmodat(&dirs.to, name, mode, AtFlags::empty())
            .map_err(|error| failed("change the mode of", path, error))
    }

    fn file(
        &self,
        place: &Place<'_>,
        entry: &Entry,
        path: &Path,
        dirs: &Directories,
    ) -> Result<(Option<Record>, bool)> {
        let name = split(path).1;
        let time = place.clamp(entry.stamp.modified());
        let (uid, gid) = self.owner(entry);
        let mode = self.attributes.mode(entry.mode, false);
        let record = match entry.content {
            Some(content) if entry.xattrs.is_empty() => Some(Record {
                content,
                mode,
                uid,
                gid,
                mtime: (time.secs, time.nanos.into()),
            }),
            _ => None,
        };
        if let (Some(record), Some(previous), Some(dir)) = (&record, place.options.previous, &dirs.previous)
            && previous.manifest.files.get(path) == Some(record)
        {
            let link = || rustix::fs::linkat(dir, name, &dirs.to, name, AtFlags::empty());
            match link() {
                Ok(()) => return Ok((Some(record.clone()), true)),
                Err(Errno::EXIST) => {
                    make_room(dirs.to.as_fd(), name, path)?;
                    if link().is_ok() {
                        return Ok((Some(record.clone()), true));
                    }
                }
                // It has too many names, or is gone.
                Err(_) => {}
            }
        }
        let from = self.part.place(&entry.path);
        let (source, stamp) = content::open(dirs.from.as_fd(), &from)?;
        let to = create(dirs.to.as_fd(), name, path, mode)?;
        copy_content(&source, &to, stamp.size).map_err(|error| failed("write", path, error))?;
        let after = rustix::fs::fstat(&source).map_err(|error| failed("look at", &from, error))?;
        if stamp != entry.stamp || Stamp::of(&after) != stamp {
            return Err(content::changed(&from));
        }
        finish(&to, path, (uid, gid), mode)?;
        let read;
        let attributes = match entry.content {
            // They were read with it, and no time has changed since.
            Some(_) => &entry.xattrs,
            None => {
                let unread = |error| failed("read the attributes of", &from, error);
                read = xattrs(source.as_fd(), self.source.plain_owner).map_err(unread)?;
                &read
            }
        };
        set_xattrs(to.as_fd(), path, attributes)?;
        rustix::fs::futimens(&to, &timestamps(time)).map_err(|error| failed("set the times of", path, error))?;
        Ok((record, false))
    }

    fn link(&self, place: &mut Place<'_>, existing: &Path, path: &Path) -> Result<()> {
        if place.look(path)?.is_some_and(|found| found.is_directory()) {
            return Err(is_directory(path));
        }
        let ((from, old), (to, new)) = (split(existing), split(path));
        let (from, dir) = (place.open(from)?, place.open(to)?);
        exclusive(dir.as_fd(), new, path, |dir| {
            rustix::fs::linkat(&from, old, dir, new, AtFlags::empty())
        })?;
        place.written.manifest.files.remove(path);
        place.touched(to);
        Ok(())
    }
}
