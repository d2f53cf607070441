//! Writing a step's files into a draft.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_archive::{ApplyOptions, Below, Owner, Whiteouts, apply, decompress, tree};
use ferry_dockerfile::instruction::Chmod;
use ferry_sys::Root;
use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::Source;
use super::owner;
use super::place::{self, New, Place};
use super::select::{Entry, Group, select};
use crate::error::{Error, Result};
use crate::graph::{Action, Copy, Files};

/// Files that wait before they are written, several at a time.
const WAITING: usize = 4096;
const THREADS: usize = 4;
const BUFFER: usize = 256 << 10;

/// How files are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// No file is newer.
    pub epoch: Option<Timestamp>,
}

/// Writes all that a step writes. `sources` are by the places of its inputs, `below` is what the draft will lie on. Blocks.
pub fn write(
    files: &Files,
    sources: &[Option<Source<'_>>],
    below: Option<&Root>,
    draft: &Root,
    options: Options,
) -> Result<()> {
    let mut writer = Writer {
        place: Place::new(below, draft),
        below,
        options,
        waiting: Vec::new(),
        links: Vec::new(),
        times: Vec::new(),
    };
    for action in &files.actions {
        match action {
            Action::Copy(copy) => {
                let source = sources.get(copy.input).and_then(Option::as_ref);
                let source = source.ok_or_else(|| Error::Internal("a copy without a source".to_owned()))?;
                writer.copy(source, copy)?;
            }
            Action::MakeDirectory { path, mode, owner } => {
                let (uid, gid) = writer.owner(owner.as_deref())?.unwrap_or_default();
                let new = New { mode: *mode, uid, gid };
                let made = writer.place.directory(Path::new(path), new);
                made.map_err(|error| match error {
                    Error::Invalid(why) if why.ends_with("not a directory") => {
                        Error::Invalid(format!("lstat {path}: not a directory"))
                    }
                    other => other,
                })?;
            }
            Action::Documents {
                files,
                destination,
                chmod,
                owner,
            } => writer.documents(files, destination, chmod.as_deref(), owner.as_deref())?,
        }
    }
    writer.finish()
}

struct Writer<'a> {
    place: Place<'a>,
    below: Option<&'a Root>,
    options: Options,
    waiting: Vec<Job>,
    /// Names of files that are written under another one: where, and which.
    links: Vec<(Arc<OwnedFd>, OsString, Arc<OwnedFd>, OsString)>,
    /// Times of directories, to be set when nothing is written into them any more.
    times: Vec<(PathBuf, Timestamps)>,
}

/// A regular file to be copied.
struct Job {
    from: PathBuf,
    dir: Arc<OwnedFd>,
    name: OsString,
    meta: Meta,
}

#[derive(Clone)]
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    times: Timestamps,
}

/// What all files of a copy have in common.
struct Common {
    owner: Option<(u32, u32)>,
    chmod: Option<Chmod>,
    /// Of directories that lead to the files.
    new: New,
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(code) if code == Errno::NOSPC.raw_os_error() => Error::Internal("no space left on device".to_owned()),
        _ => Error::internal(format!("copy {}", path.display()), &error),
    }
}

impl Writer<'_> {
    fn owner(&self, owner: Option<&str>) -> Result<Option<(u32, u32)>> {
        owner.map(|owner| owner::parse(owner, self.below)).transpose()
    }

    fn common(&self, owner: Option<&str>, chmod: Option<&str>) -> Result<Common> {
        let owner = self.owner(owner)?;
        let chmod = chmod.map(Chmod::parse).transpose()?;
        let (uid, gid) = owner.unwrap_or_default();
        let mode = match chmod {
            // As BuildKit makes them, with its umask; symbols are for what is copied alone.
            Some(Chmod::Octal(mode)) => mode & 0o777 & !0o022,
            _ => 0o755,
        };
        Ok(Common {
            owner,
            chmod,
            new: New { mode, uid, gid },
        })
    }

    fn copy(&mut self, source: &Source<'_>, copy: &Copy) -> Result<()> {
        let groups = select(source, copy)?;
        let common = self.common(copy.owner.as_deref(), copy.chmod.as_deref())?;
        for group in &groups {
            self.group(source, copy, group, &common)?;
            self.flush(source)?;
        }
        Ok(())
    }

    fn group(&mut self, source: &Source<'_>, copy: &Copy, group: &Group, common: &Common) -> Result<()> {
        let destination = Path::new(&copy.destination);
        if group.parents {
            let top = self.place.directory(destination, common.new)?;
            return self.entries(source, copy, group, &top, common);
        }
        if group.top.is_directory() {
            if let Some(found) = self.place.existing(destination)?
                && !found.is_directory()
            {
                return Err(Error::invalid(format!(
                    "cannot copy to non-directory: {}",
                    copy.destination.trim_end_matches('/')
                )));
            }
            let top = self.place.directory(destination, common.new)?;
            self.entries(source, copy, group, &top, common)?;
            let times = self.times_of(&group.top.stat);
            // Times that nobody has set are none.
            if group.top.stat.st_mtime != 0 && !group.by_pattern {
                self.times.push((top, times));
            }
            return Ok(());
        }
        if copy.unpack && self.unpack(source, copy, group, common)? {
            return Ok(());
        }
        let real = self.file_at(&copy.destination, &group.name, common)?;
        self.entry(source, copy, &group.top, &real, common, &mut HashMap::new())
    }

    /// Where a file goes: into a directory if one is meant or there.
    fn file_at(&mut self, destination: &str, name: &[u8], common: &Common) -> Result<PathBuf> {
        let path = Path::new(destination);
        let into = destination.ends_with('/') || self.place.existing(path)?.is_some_and(|found| found.is_directory());
        match into {
            true => Ok(self.place.directory(path, common.new)?.join(OsStr::from_bytes(name))),
            false => self.place.file(path, common.new),
        }
    }

    fn entries(&mut self, source: &Source<'_>, copy: &Copy, group: &Group, top: &Path, common: &Common) -> Result<()> {
        let mut linked = HashMap::new();
        for entry in &group.entries {
            let real = top.join(&entry.below);
            self.entry(source, copy, entry, &real, common, &mut linked)?;
            if self.waiting.len() >= WAITING {
                self.flush(source)?;
            }
        }
        Ok(())
    }

    fn meta(&self, source: &Source<'_>, copy: &Copy, stat: &Stat, common: &Common) -> Meta {
        let own = match source.plain_owner || !copy.keep_owner {
            true => (0, 0),
            false => (stat.st_uid, stat.st_gid),
        };
        let (uid, gid) = common.owner.unwrap_or(own);
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mode = stat.st_mode & 0o7777;
        Meta {
            mode: common
                .chmod
                .as_ref()
                .map_or(mode, |chmod| chmod.apply(mode, is_directory)),
            uid,
            gid,
            times: self.times_of(stat),
        }
    }

    fn times_of(&self, stat: &Stat) -> Timestamps {
        let mut times = tree::times(stat);
        if let Some(epoch) = self.options.epoch {
            let latest = Timespec {
                tv_sec: epoch.as_second(),
                tv_nsec: 0,
            };
            if times.last_modification.tv_sec >= latest.tv_sec {
                times.last_modification = latest;
            }
        }
        times.last_access = times.last_modification;
        times
    }

    fn entry(
        &mut self,
        source: &Source<'_>,
        copy: &Copy,
        entry: &Entry,
        real: &Path,
        common: &Common,
        linked: &mut HashMap<(u64, u64), (Arc<OwnedFd>, OsString)>,
    ) -> Result<()> {
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Err(Error::invalid("cannot replace to directory / with file"));
        };
        let meta = self.meta(source, copy, &entry.stat, common);
        let found = self.place.find(real)?;
        if entry.is_directory() {
            return self.make_directory(source, entry, real, meta, found);
        }
        let dir = self.place.open(parent)?;
        match found {
            Some(found) if found.is_directory() => {
                return Err(Error::invalid(format!(
                    "cannot replace to directory /{} with file",
                    real.display()
                )));
            }
            Some(found) if found.in_draft => {
                // It may wait to be written.
                self.flush(source)?;
                rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(|error| failed(real, error.into()))?;
            }
            _ => {}
        }
        let stat = &entry.stat;
        let wrong = |error: std::io::Error| failed(real, error);
        match entry.kind() {
            FileType::RegularFile => {
                if stat.st_nlink > 1
                    && let Some((known, first)) = linked.get(&(stat.st_dev, stat.st_ino))
                {
                    self.links
                        .push((Arc::clone(known), first.clone(), dir, name.to_owned()));
                    return Ok(());
                }
                if stat.st_nlink > 1 {
                    linked.insert((stat.st_dev, stat.st_ino), (Arc::clone(&dir), name.to_owned()));
                }
                self.waiting.push(Job {
                    from: entry.path.clone(),
                    dir,
                    name: name.to_owned(),
                    meta,
                });
                Ok(())
            }
            FileType::Symlink => {
                let target = read_link(source, &entry.path)?;
                rustix::fs::symlinkat(target, &dir, name).map_err(|error| wrong(error.into()))?;
                self.dress_by_name(&dir, name, &meta, true).map_err(wrong)
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                // It would be the mark of a deleted file.
                if tree::is_whiteout(stat) {
                    return Ok(());
                }
                let mode = Mode::from(0o600);
                let made = rustix::fs::mknodat(&dir, name, entry.kind(), mode, stat.st_rdev);
                made.map_err(|error| wrong(error.into()))?;
                self.dress_by_name(&dir, name, &meta, false).map_err(wrong)
            }
            // BuildKit leaves an empty file where a socket was.
            _ => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&dir, name, flags, Mode::from(0o600));
                let file = file.map_err(|error| wrong(error.into()))?;
                finish(&file, &meta).map_err(wrong)
            }
        }
    }

    fn make_directory(
        &mut self,
        source: &Source<'_>,
        entry: &Entry,
        real: &Path,
        meta: Meta,
        found: Option<place::Found>,
    ) -> Result<()> {
        let wrong = |error: std::io::Error| failed(real, error);
        let new = New {
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
        };
        let made = match found {
            Some(found) if found.is_directory() => self.place.open(real)?,
            Some(_) => {
                return Err(Error::invalid(format!(
                    "cannot copy to non-directory: /{}",
                    real.display()
                )));
            }
            None => {
                let (parent, name) = (
                    real.parent().unwrap_or(Path::new("")),
                    real.file_name().unwrap_or_default(),
                );
                let dir = self.place.open(parent)?;
                self.times.push((real.to_owned(), meta.times));
                place::make(&dir, name, new).map_err(wrong)?;
                self.place.open(real)?
            }
        };
        let opened = open_source(source, &entry.path, OFlags::DIRECTORY)?;
        copy_attributes(source, &opened, &made).map_err(wrong)?;
        place::dress(&made, new).map_err(wrong)
    }

    fn dress_by_name(&self, dir: &OwnedFd, name: &OsStr, meta: &Meta, is_link: bool) -> std::io::Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), flags)?;
        if !is_link {
            rustix::fs::chmodat(dir, name, Mode::from(meta.mode), AtFlags::empty())?;
        }
        Ok(rustix::fs::utimensat(dir, name, &meta.times, flags)?)
    }

    /// Copies what waits, several files at a time.
    fn flush(&mut self, source: &Source<'_>) -> Result<()> {
        let jobs = std::mem::take(&mut self.waiting);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        // A few files are copied before another thread has begun.
        const FEW: usize = 16;
        if jobs.len() <= FEW || threads == 1 {
            let mut buffer = Vec::new();
            for job in &jobs {
                copy_file(source, job, &mut buffer)?;
            }
        } else {
            let next = AtomicUsize::new(0);
            let wrong = Mutex::new(None);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let mut buffer = Vec::new();
                        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if let Err(error) = copy_file(source, job, &mut buffer) {
                                next.store(jobs.len(), Ordering::Relaxed);
                                wrong
                                    .lock()
                                    .unwrap_or_else(PoisonError::into_inner)
                                    .get_or_insert(error);
                            }
                        }
                    });
                }
            });
            if let Some(error) = wrong.into_inner().unwrap_or_else(PoisonError::into_inner) {
                return Err(error);
            }
        }
        for (from, first, to, name) in self.links.drain(..) {
            let linked = rustix::fs::linkat(&from, &first, &to, &name, AtFlags::empty());
            linked.map_err(|error| failed(Path::new(&name), error.into()))?;
        }
        Ok(())
    }

    fn documents(
        &mut self,
        files: &[(String, Vec<u8>)],
        destination: &str,
        chmod: Option<&str>,
        owner: Option<&str>,
    ) -> Result<()> {
        let common = self.common(owner, chmod)?;
        for (name, content) in files {
            let real = self.file_at(destination, name.as_bytes(), &common)?;
            let wrong = |error: std::io::Error| failed(&real, error);
            let (parent, last) = (
                real.parent().unwrap_or(Path::new("")),
                real.file_name().unwrap_or_default(),
            );
            let dir = self.place.open(parent)?;
            if let Some(found) = self.place.find(&real)?
                && found.in_draft
            {
                rustix::fs::unlinkat(&dir, last, AtFlags::empty()).map_err(|error| wrong(error.into()))?;
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&dir, last, flags, Mode::from(0o600));
            let mut file = File::from(file.map_err(|error| wrong(error.into()))?);
            std::io::Write::write_all(&mut file, content).map_err(wrong)?;
            let file = OwnedFd::from(file);
            let mode = common.chmod.as_ref().map_or(0o644, |chmod| chmod.apply(0o644, false));
            let new = New { mode, ..common.new };
            place::dress(&file, new).map_err(wrong)?;
        }
        Ok(())
    }

    /// Unpacks an archive; false if it is none.
    fn unpack(&mut self, source: &Source<'_>, copy: &Copy, group: &Group, common: &Common) -> Result<bool> {
        const BLOCK: u64 = 512;
        if group.top.kind() != FileType::RegularFile {
            return Ok(false);
        }
        let open = || open_source(source, &group.top.path, OFlags::empty()).map(File::from);
        let mut head = Vec::new();
        let Ok(mut reader) = decompress(open()?) else {
            return Ok(false);
        };
        let read = std::io::Read::read_to_end(&mut std::io::Read::take(&mut reader, BLOCK), &mut head);
        let is_empty = head.iter().all(|&byte| byte == 0);
        if read.is_err() || is_empty || !crate::frontend::is_tar(&head) {
            return Ok(false);
        }
        let new = New {
            mode: 0o755,
            ..common.new
        };
        let real = self.place.directory(Path::new(&copy.destination), new)?;
        let dir = self.place.open(&real)?;
        let dir = rustix::io::dup(&*dir).map_err(|error| failed(&real, error.into()))?;
        let lower = match self.below {
            Some(below) => below.resolve_no_links(&real, OFlags::PATH | OFlags::DIRECTORY).ok(),
            None => None,
        };
        let lower: Vec<Root> = lower.into_iter().map(Root::from_fd).collect();
        let lower = Lower(lower);
        let wrong = |error: ferry_archive::Error| {
            Error::invalid(format!(
                "{}: {}",
                group.top.path.display(),
                ferry_kit::error::chain(&error)
            ))
        };
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            owner: match common.owner {
                Some((uid, gid)) => Owner::Fixed(uid, gid),
                None => Owner::Archive,
            },
            lower: Some(&lower),
            ..ApplyOptions::default()
        };
        let stream = decompress(open()?).map_err(wrong)?;
        apply(stream, &Root::from_fd(dir), &options).map_err(wrong)?;
        Ok(true)
    }

    /// Directories get their times last, inner ones first.
    fn finish(mut self) -> Result<()> {
        let times = std::mem::take(&mut self.times);
        for (real, times) in times.iter().rev() {
            let dir = self.place.open(real)?;
            rustix::fs::futimens(&*dir, times).map_err(|error| failed(real, error.into()))?;
        }
        Ok(())
    }
}

/// What lies below a directory that an archive is unpacked into.
#[derive(Debug)]
struct Lower(Vec<Root>);

impl Below for Lower {
    fn roots(&self) -> std::io::Result<&[Root]> {
        Ok(&self.0)
    }
}

fn open_source(source: &Source<'_>, path: &Path, more: OFlags) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let opened = source.root.resolve_no_links(path, flags);
    opened.map_err(|error| failed(path, error))
}

fn read_link(source: &Source<'_>, path: &Path) -> Result<OsString> {
    let link = source.root.resolve_no_links(path, OFlags::PATH | OFlags::NOFOLLOW);
    let link = link.map_err(|error| failed(path, error))?;
    let target = rustix::fs::readlinkat(&link, "", Vec::new());
    let target = target.map_err(|error| failed(path, error.into()))?;
    Ok(OsString::from_vec(target.into_bytes()))
}

/// Attributes travel, but for a context's rights: nobody has looked at them.
fn copy_attributes(source: &Source<'_>, from: &OwnedFd, to: &OwnedFd) -> std::io::Result<()> {
    for (name, value) in tree::xattrs(from.as_fd())? {
        let bytes = name.as_bytes();
        let is_kept = match source.plain_owner {
            true => bytes.starts_with(b"user."),
            false => bytes != b"security.selinux",
        };
        if is_kept {
            tree::set_xattr(to.as_fd(), &name, &value)?;
        }
    }
    Ok(())
}

fn finish(file: &OwnedFd, meta: &Meta) -> std::io::Result<()> {
    place::dress(
        file,
        New {
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
        },
    )?;
    Ok(rustix::fs::futimens(file, &meta.times)?)
}

fn copy_file(source: &Source<'_>, job: &Job, buffer: &mut Vec<u8>) -> Result<()> {
    let wrong = |error: std::io::Error| failed(&job.from, error);
    let from = open_source(source, &job.from, OFlags::empty())?;
    let stat = rustix::fs::fstat(&from).map_err(|error| wrong(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(wrong(std::io::Error::other("it changed while it was copied")));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&*job.dir, &job.name, flags, Mode::from(0o600));
    let to = to.map_err(|error| wrong(error.into()))?;
    copy_content(&from, &to, u64::try_from(stat.st_size).unwrap_or(0), buffer).map_err(wrong)?;
    // Owner before attributes: a change of owner takes capabilities away.
    rustix::fs::fchown(
        &to,
        Some(Uid::from_raw(job.meta.uid)),
        Some(Gid::from_raw(job.meta.gid)),
    )
    .map_err(|error| wrong(error.into()))?;
    copy_attributes(source, &from, &to).map_err(wrong)?;
    tree::set_mode(to.as_fd(), job.meta.mode & 0o7777).map_err(wrong)?;
    rustix::fs::futimens(&to, &job.meta.times).map_err(|error| wrong(error.into()))
}

/// By the kernel where it can, in one call for a small file.
fn copy_content(from: &OwnedFd, to: &OwnedFd, size: u64, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    /// Smaller files are read and written faster.
    const SMALL: u64 = 64 << 10;
    let mut done = 0_u64;
    while size > SMALL {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) => return Ok(()),
            Ok(count) => done += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) if done == 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    buffer.resize(BUFFER, 0);
    loop {
        let count = match rustix::io::read(from, &mut buffer[..]) {
            Ok(0) => return Ok(()),
            Err(Errno::INTR) => continue,
            count => count?,
        };
        let mut left = &buffer[..count];
        while !left.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(to, left))?;
            left = &left[written..];
        }
        done += count as u64;
        // Read to its end: the next call would say so.
        if done == size && size <= SMALL {
            return Ok(());
        }
    }
}
