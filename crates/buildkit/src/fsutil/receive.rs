//! The receiving end: a directory becomes what the other side has, and only files that differ are asked for.
//!
//! Nothing that comes is believed: names are checked, every path is resolved below the root without following a link, and files,
//! entries and what is asked for at a time are bounded. A file is replaced, never written over, and has its time last: one that
//! was cut in the midst is another one than the sender's, and comes again.

mod entry;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use ferry_sys::Root;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{Error, Packet, PacketType, Result, Stat, mode, path};

/// How many files are asked for at a time. fsutil's sender stops reading what it is asked when it has some 130.
const ASKED: usize = 64;

/// What a sender may send.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Files, directories, links.
    pub entries: u32,
    /// Bytes of their paths together: they are held until all is there.
    pub names: usize,
    /// Bytes that a file may have more than was announced: it may grow while it is sent.
    pub growth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 5_000_000,
            names: 256 << 20,
            growth: 256 << 20,
        }
    }
}

/// One transfer.
#[derive(Debug)]
pub struct Receiver {
    root: Root,
    limits: Limits,
    /// Number of the next entry.
    next: u32,
    /// Bytes of paths so far.
    names: usize,
    /// The last entry's path.
    last: Option<String>,
    /// Directories that the next entry may be in, the top first.
    open: Vec<Level>,
    /// Files that were announced and are not asked for yet.
    waiting: VecDeque<(u32, Wanted)>,
    asked: HashMap<u32, Coming>,
    /// Times of directories, which are set when nothing changes them any more.
    times: Vec<(String, i64)>,
    listed: bool,
    finished: bool,
    received: u64,
}

/// A directory whose entries come.
#[derive(Debug)]
struct Level {
    path: String,
    fd: OwnedFd,
    /// Its entries, if there may have been others before.
    names: Option<HashSet<OsString>>,
}

/// A file that is not what the sender has.
#[derive(Debug)]
struct Wanted {
    stat: Stat,
}

/// A file that comes.
#[derive(Debug)]
struct Coming {
    wanted: Wanted,
    file: File,
    size: u64,
}

impl Receiver {
    /// Into `root`, whose content is what an earlier transfer left there, or nothing.
    pub fn new(root: Root, limits: Limits) -> Result<Self> {
        let fd = root.resolve_no_links(".", OFlags::DIRECTORY | OFlags::RDONLY);
        let fd = fd.map_err(Error::io("open", "."))?;
        let top = Level {
            path: String::new(),
            fd,
            names: Some(HashSet::new()),
        };
        Ok(Self {
            root,
            limits,
            next: 0,
            names: 0,
            last: None,
            open: vec![top],
            waiting: VecDeque::new(),
            asked: HashMap::new(),
            times: Vec::new(),
            listed: false,
            finished: false,
            received: 0,
        })
    }

    /// Bytes of files so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes a packet; what is to be sent for it is added to `answers`. `true`: this was the last one.
    pub fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) -> Result<bool> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) => match packet.stat {
                Some(stat) => self.announce(stat)?,
                None => self.end_list()?,
            },
            Ok(PacketType::PacketData) => self.data(packet.id, &packet.data)?,
            Ok(PacketType::PacketErr) => {
                return Err(Error::Remote(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            Ok(PacketType::PacketFin) if self.finished => return Ok(true),
            Ok(PacketType::PacketFin) => return Err(broken("it ended before everything was there")),
            Ok(PacketType::PacketReq) | Err(_) => return Err(broken("a packet that makes no sense here")),
        }
        self.ask(answers)?;
        if self.listed && !self.finished && self.asked.is_empty() && self.waiting.is_empty() {
            self.finish()?;
            answers.push(Packet::of(PacketType::PacketFin));
        }
        Ok(false)
    }

    fn announce(&mut self, stat: Stat) -> Result<()> {
        if self.listed {
            return Err(broken("an entry after the last one"));
        }
        path::check(&stat.path)?;
        let in_order = |last: &String| path::order(last, &stat.path) == Ordering::Less;
        if !self.last.as_ref().is_none_or(in_order) {
            return Err(broken(&format!("{:?} is out of order", stat.path)));
        }
        let number = self.next;
        if number >= self.limits.entries {
            let most = self.limits.entries;
            return Err(broken(&format!(
                "more than {most} entries: exclude some by .dockerignore"
            )));
        }
        self.next += 1;
        self.names += stat.path.len() + stat.linkname.len();
        if self.names > self.limits.names {
            return Err(broken("the paths of its entries are too long together"));
        }
        self.last = Some(stat.path.clone());
        let (parent, name) = path::split(&stat.path);
        while self.open.last().is_some_and(|level| level.path != parent) && self.open.len() > 1 {
            self.close_level()?;
        }
        let Some(level) = self.open.last_mut().filter(|level| level.path == parent) else {
            return Err(broken(&format!(
                "{:?} is in no directory that was announced",
                stat.path
            )));
        };
        if let Some(names) = &mut level.names {
            names.insert(OsStr::new(name).to_owned());
        }
        match mode::file_type(stat.mode) {
            Some(FileType::Directory) => {
                let was_there = entry::directory(level.fd.as_fd(), name, &stat)?;
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&level.fd, name, flags, Mode::empty());
                let fd = fd.map_err(Error::io("open", &stat.path))?;
                self.times.push((stat.path.clone(), stat.mod_time));
                self.open.push(Level {
                    path: stat.path,
                    fd,
                    names: was_there.then(HashSet::new),
                });
            }
            Some(FileType::RegularFile) if !stat.linkname.is_empty() => {
                path::check(&stat.linkname)?;
                entry::hard_link(&self.root, level.fd.as_fd(), name, &stat)?;
            }
            Some(FileType::RegularFile) => {
                if !entry::is_same(level.fd.as_fd(), name, &stat) {
                    entry::placeholder(level.fd.as_fd(), name, &stat)?;
                    self.waiting.push_back((number, Wanted { stat }));
                }
            }
            Some(FileType::Symlink) => entry::symbolic_link(level.fd.as_fd(), name, &stat)?,
            Some(kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice)) => {
                entry::special(level.fd.as_fd(), name, kind, &stat)?;
            }
            _ => return Err(broken(&format!("{:?} is no kind of file that can be sent", stat.path))),
        }
        Ok(())
    }

    /// Removes what the sender does not have.
    fn close_level(&mut self) -> Result<()> {
        let Some(level) = self.open.pop() else { return Ok(()) };
        let Some(names) = level.names else { return Ok(()) };
        let failed = || Error::io("look at", &level.path);
        let mut others = Vec::new();
        for found in Dir::read_from(&level.fd).map_err(failed())? {
            let found = found.map_err(failed())?;
            let name = OsStr::from_bytes(found.file_name().to_bytes());
            if name != "." && name != ".." && !names.contains(name) {
                others.push(name.to_owned());
            }
        }
        for name in others {
            ferry_sys::root::remove_tree(level.fd.as_fd(), &name).map_err(Error::io("remove", &name))?;
        }
        Ok(())
    }

    fn end_list(&mut self) -> Result<()> {
        if self.listed {
            return Err(broken("a second end of its list"));
        }
        self.listed = true;
        while !self.open.is_empty() {
            self.close_level()?;
        }
        Ok(())
    }

    fn ask(&mut self, answers: &mut Vec<Packet>) -> Result<()> {
        while self.asked.len() < ASKED
            && let Some((number, wanted)) = self.waiting.pop_front()
        {
            let file = entry::open(&self.root, &wanted.stat)?;
            self.asked.insert(number, Coming { wanted, file, size: 0 });
            answers.push(Packet {
                id: number,
                ..Packet::of(PacketType::PacketReq)
            });
        }
        Ok(())
    }

    fn data(&mut self, number: u32, data: &[u8]) -> Result<()> {
        let coming = self.asked.get_mut(&number);
        let coming = coming.ok_or_else(|| broken(&format!("data of the file {number}, which was not asked for")))?;
        if data.is_empty() {
            let Some(coming) = self.asked.remove(&number) else {
                return Ok(());
            };
            return entry::complete(&coming.file, &coming.wanted.stat);
        }
        let stat = &coming.wanted.stat;
        coming.size += data.len() as u64;
        self.received += data.len() as u64;
        let most = u64::try_from(stat.size).unwrap_or(0).saturating_add(self.limits.growth);
        if coming.size > most {
            let (path, size) = (&stat.path, stat.size);
            return Err(broken(&format!(
                "{path:?} was announced with {size} bytes and does not end"
            )));
        }
        coming.file.write_all(data).map_err(Error::io("write", &stat.path))
    }

    fn finish(&mut self) -> Result<()> {
        self.finished = true;
        // What is inside comes later than its directory, so that the innermost are first from behind.
        for (path, time) in self.times.drain(..).rev() {
            let (parent, name) = path::split(&path);
            let parent = if parent.is_empty() { "." } else { parent };
            let fd = self.root.resolve_no_links(parent, OFlags::PATH | OFlags::DIRECTORY);
            let fd = fd.map_err(Error::io("open", parent))?;
            rustix::fs::utimensat(&fd, name, &entry::times(time), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::io("set the time of", &path))?;
        }
        Ok(())
    }
}

fn broken(what: &str) -> Error {
    Error::Protocol(format!("the client's transfer of files is broken: {what}"))
}

#[cfg(test)]
mod tests;
