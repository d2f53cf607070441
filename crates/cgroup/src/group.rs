//! One directory of one hierarchy: the only place where control files are opened.
//!
//! Everything is a path below the hierarchy's mount, resolved from its `O_PATH` descriptor, so that the work of a
//! start is one system call a directory and three a control file. Control files are opened without `O_TRUNC`, which
//! kernfs answers with a lock it does not need.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How long a removal waits for a group to become empty: a killed process leaves its group only when it is reaped by
/// the kernel, which under load takes longer than the wait(2) that reported it.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

/// Mounting the hierarchy deeper than this is refused by the walk below, which a container steers by making children.
const MAX_DEPTH: usize = 64;

/// Parents may be removed while a child is being made in them.
const MAKE_ATTEMPTS: u32 = 8;

/// A directory of a hierarchy; it need not exist.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group<'a> {
    pub root: BorrowedFd<'a>,
    /// Where the hierarchy is mounted; only for messages.
    pub mount: &'a Path,
    /// Relative to the mount, `""` is the mount itself.
    pub path: &'a str,
}

/// `a` and `a/b` for `a/b/c`.
pub(crate) fn parents(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

/// Opens the directory a hierarchy is mounted on.
pub(crate) fn open_mount(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|source| {
        Error::Io {
            action: "open",
            path: path.to_owned(),
            source: source.into(),
        }
    })
}

impl<'a> Group<'a> {
    pub fn with_path<'b>(&self, path: &'b str) -> Group<'b>
    where
        'a: 'b,
    {
        Group {
            root: self.root,
            mount: self.mount,
            path,
        }
    }

    /// The absolute path of a control file, for messages.
    pub fn file(&self, name: &str) -> PathBuf {
        let mut path = self.mount.join(self.path);
        if !name.is_empty() {
            path.push(name);
        }
        path
    }

    fn relative(&self, name: &str) -> String {
        match (self.path, name) {
            ("", "") => ".".to_owned(),
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}/{name}"),
        }
    }

    pub fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        rustix::fs::openat(self.root, self.relative(name), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Opens the directory itself, for `CLONE_INTO_CGROUP`.
    pub fn open_dir(&self) -> Result<OwnedFd> {
        self.open("", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|e| self.io_error("open", "", e))
    }

    /// Opens the file whose writer of `0` joins the group.
    pub fn open_for_joining(&self, name: &str) -> Result<OwnedFd> {
        self.open(name, OFlags::WRONLY)
            .map_err(|e| self.io_error("open", name, e))
    }

    pub fn exists(&self, name: &str) -> bool {
        rustix::fs::statat(self.root, self.relative(name), AtFlags::empty()).is_ok()
    }

    pub fn read(&self, name: &str) -> rustix::io::Result<String> {
        let file = self.open(name, OFlags::RDONLY)?;
        read_to_end(file.as_fd())
    }

    /// Reads a file that is there in every kernel this crate knows.
    pub fn read_known(&self, name: &str) -> Result<String> {
        self.read(name).map_err(|e| self.io_error("read", name, e))
    }

    /// Reads one number; `max` and `-1` are `None`.
    pub fn read_number(&self, name: &str) -> Result<Option<u64>> {
        let text = self.read_known(name)?;
        match text.trim() {
            "max" | "-1" => Ok(None),
            number => match number.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Error::Unexpected {
                    file: self.file(name),
                    content: number.chars().take(80).collect(),
                }),
            },
        }
    }

    pub fn write(&self, name: &str, value: &str) -> rustix::io::Result<()> {
        let file = self.open(name, OFlags::WRONLY)?;
        write_once(file.as_fd(), value)
    }

    /// Writes a value and gives what the file then holds, trimmed: one open for both.
    pub fn write_and_read(&self, name: &str, value: &str) -> rustix::io::Result<String> {
        let file = self.open(name, OFlags::RDWR)?;
        write_once(file.as_fd(), value)?;
        let mut buffer = [0u8; 256];
        let length = retry(|| rustix::io::pread(&file, &mut buffer[..], 0))?;
        let held = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        Ok(held.trim().to_owned())
    }

    pub fn chown(&self, name: &str, owner: Uid) -> rustix::io::Result<()> {
        rustix::fs::chownat(self.root, self.relative(name), Some(owner), None, AtFlags::empty())
    }

    pub fn make(&self) -> rustix::io::Result<()> {
        rustix::fs::mkdirat(self.root, self.relative(""), Mode::from_raw_mode(0o755))
    }

    /// Makes the directory; its parents only when they turn out to be missing. One that exists is taken.
    pub fn make_with_parents(&self) -> Result<()> {
        let fail = |path, e: Errno| Error::Io {
            action: "create",
            path,
            source: e.into(),
        };
        for _ in 0..MAKE_ATTEMPTS {
            match self.make() {
                Ok(()) | Err(Errno::EXIST) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(fail(self.file(""), e)),
            }
            for parent in parents(self.path) {
                let parent = self.with_path(parent);
                match parent.make() {
                    Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                    Err(e) => return Err(fail(parent.file(""), e)),
                }
            }
        }
        Err(fail(self.file(""), Errno::NOENT))
    }

    /// Names of the child groups.
    pub fn children(&self) -> Result<Vec<String>> {
        self.entries(FileType::Directory)
    }

    /// Names of the control files.
    pub fn files(&self) -> Result<Vec<String>> {
        self.entries(FileType::RegularFile)
    }

    fn entries(&self, kind: FileType) -> Result<Vec<String>> {
        let fail = |e| self.io_error("read", "", e);
        let directory = self.open("", OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == kind && name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    /// Pids (thread group ids) in this group and every group below it, each once.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        self.collect_pids(&mut pids, 0)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn collect_pids(&self, pids: &mut Vec<i32>, depth: usize) -> Result<()> {
        match self.read("cgroup.procs") {
            // A process of another pid namespace reads as 0.
            Ok(text) => pids.extend(
                text.lines()
                    .filter_map(|l| l.trim().parse::<i32>().ok())
                    .filter(|pid| *pid > 0),
            ),
            // A threaded v2 child has no processes of its own: they are listed by its domain.
            Err(Errno::OPNOTSUPP) => {}
            // A child may vanish between the listing and the reading.
            Err(Errno::NOENT | Errno::NODEV) if depth > 0 => return Ok(()),
            Err(e) => return Err(self.io_error("read", "cgroup.procs", e)),
        }
        if depth >= MAX_DEPTH {
            return Ok(());
        }
        let children = match self.children() {
            Err(Error::NotFound(_)) if depth > 0 => return Ok(()),
            other => other?,
        };
        for child in children {
            let path = self.relative(&child);
            self.with_path(&path).collect_pids(pids, depth + 1)?;
        }
        Ok(())
    }

    /// Removes the group and every group below it; one that is not there is no error.
    pub fn remove(&self) -> Result<()> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            match self.remove_directory() {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY | Errno::NOTEMPTY) => self.remove_children(0)?,
                Err(e) => return Err(self.io_error("remove", "", e)),
            }
            match self.remove_directory() {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(_) if started.elapsed() < REMOVE_DEADLINE => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(20));
                }
                Err(_) => {
                    let processes = self.pids().map_or(0, |pids| pids.len());
                    return Err(Error::Busy {
                        path: self.file(""),
                        seconds: REMOVE_DEADLINE.as_secs(),
                        processes,
                    });
                }
            }
        }
    }

    fn remove_children(&self, depth: usize) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Ok(());
        }
        let children = match self.children() {
            Err(Error::NotFound(_)) => return Ok(()),
            other => other?,
        };
        for child in children {
            let path = self.relative(&child);
            let child = self.with_path(&path);
            if child.remove_directory().is_err() {
                child.remove_children(depth + 1)?;
                // What is still busy is met again by the caller's next round.
                let _ = child.remove_directory();
            }
        }
        Ok(())
    }

    /// A single rmdir.
    pub fn remove_directory(&self) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(self.root, self.relative(""), AtFlags::REMOVEDIR)
    }

    pub fn io_error(&self, action: &'static str, name: &str, errno: Errno) -> Error {
        match errno {
            Errno::NOENT | Errno::NODEV if name.is_empty() || !self.exists("") => Error::NotFound(self.file("")),
            errno => Error::Io {
                action,
                path: self.file(name),
                source: errno.into(),
            },
        }
    }

    pub fn refused(&self, name: &str, value: &str, meaning: impl Into<String>, errno: Errno) -> Error {
        Error::Refused {
            file: self.file(name),
            value: value.to_owned(),
            meaning: meaning.into(),
            source: io::Error::from(errno),
        }
    }
}

/// Joins the group whose `tasks` or `cgroup.procs` is open in `file`.
pub(crate) fn join(file: BorrowedFd<'_>) -> rustix::io::Result<()> {
    write_once(file, "0")
}

/// Control files take a value in one write; a short write would be half a value.
pub(crate) fn write_once(file: BorrowedFd<'_>, value: &str) -> rustix::io::Result<()> {
    let written = retry(|| rustix::io::write(file, value.as_bytes()))?;
    if written == value.len() { Ok(()) } else { Err(Errno::IO) }
}

fn read_to_end(file: BorrowedFd<'_>) -> rustix::io::Result<String> {
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let length = retry(|| rustix::io::read(file, &mut buffer[..]))?;
        if length == 0 {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        text.extend_from_slice(buffer.get(..length).unwrap_or_default());
    }
}

/// What a file holds now, for one that stays open to be polled.
pub(crate) fn read_from_start(file: BorrowedFd<'_>) -> rustix::io::Result<String> {
    let mut buffer = [0u8; 4096];
    let length = retry(|| rustix::io::pread(file, &mut buffer[..], 0))?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

/// A signal may interrupt a write that waits for the kernel's cgroup lock.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
