//! The sending end: all entries of a directory, and the files that are asked for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use ferry_sys::Root;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{Error, Packet, PacketType, Result, Stat, mode};

/// Bytes of a file in one packet.
const CHUNK: usize = 32 * 1024;
/// Each level holds a descriptor.
const DEEPEST: usize = 1024;

/// One transfer.
#[derive(Debug)]
pub struct Sender {
    root: Root,
    next: u32,
    files: HashMap<u32, String>,
    /// The first path of files with several names.
    links: HashMap<(u64, u64), String>,
}

impl Sender {
    pub fn new(root: Root) -> Self {
        Self {
            root,
            next: 0,
            files: HashMap::new(),
            links: HashMap::new(),
        }
    }

    /// Sends the entries.
    pub fn list(&mut self, send: &mut dyn FnMut(Packet) -> Result<()>) -> Result<()> {
        let top = self.root.resolve_no_links(".", OFlags::DIRECTORY | OFlags::RDONLY);
        // No call for each level: how many there are is up to whoever made the tree.
        let mut open = vec![Level::read(top.map_err(Error::io("open", "."))?, String::new())?];
        while let Some(level) = open.last_mut() {
            let Some(name) = level.names.next() else {
                open.pop();
                continue;
            };
            if let Some(inside) = self.entry(level, &name, send)? {
                open.push(inside);
            }
            if open.len() > DEEPEST {
                let at = open.last().map(|level| level.path.as_str()).unwrap_or_default();
                return Err(Error::Protocol(format!(
                    "{at:?} is more than {DEEPEST} levels deep: too deep to be sent"
                )));
            }
        }
        send(Packet::of(PacketType::PacketStat))
    }

    /// Sends one; what is in it, if it is a directory.
    fn entry(
        &mut self,
        level: &Level,
        name: &OsString,
        send: &mut dyn FnMut(Packet) -> Result<()>,
    ) -> Result<Option<Level>> {
        let (dir, at) = (level.dir.as_fd(), &level.path);
        // Paths travel as text.
        let Some(text) = name.to_str() else {
            let shown = name.to_string_lossy();
            return Err(Error::Protocol(format!(
                "{shown:?} in {at:?} is not UTF-8, which cannot be sent"
            )));
        };
        let path = if at.is_empty() {
            text.to_owned()
        } else {
            format!("{at}/{text}")
        };
        let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = found.map_err(Error::io("look at", &path))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind == FileType::Socket {
            return Ok(None);
        }
        let mut stat = of(dir, name, path.clone(), &found)?;
        let number = self.next;
        self.next += 1;
        if kind == FileType::RegularFile {
            let inode = (found.st_dev, found.st_ino);
            match self.links.get(&inode) {
                Some(first) if found.st_nlink > 1 => stat.linkname.clone_from(first),
                _ => {
                    if found.st_nlink > 1 {
                        self.links.insert(inode, path.clone());
                    }
                }
            }
            self.files.insert(number, path.clone());
        }
        send(Packet {
            stat: Some(stat),
            ..Packet::of(PacketType::PacketStat)
        })?;
        if kind != FileType::Directory {
            return Ok(None);
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = rustix::fs::openat(dir, name, flags, Mode::empty());
        Level::read(inside.map_err(Error::io("open", &path))?, path).map(Some)
    }

    /// Answers a packet. `true`: it was the last one.
    pub fn take(&mut self, packet: &Packet, send: &mut dyn FnMut(Packet) -> Result<()>) -> Result<bool> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketReq) => {
                let path = self.files.remove(&packet.id);
                let path = path.ok_or_else(|| Error::Protocol(format!("there is no file {} to be sent", packet.id)))?;
                self.file(packet.id, &path, send)?;
                Ok(false)
            }
            Ok(PacketType::PacketFin) => {
                send(Packet::of(PacketType::PacketFin))?;
                Ok(true)
            }
            Ok(PacketType::PacketErr) => Err(Error::Remote(String::from_utf8_lossy(&packet.data).into_owned())),
            _ => Err(Error::Protocol("a packet that makes no sense here".to_owned())),
        }
    }

    fn file(&self, id: u32, path: &str, send: &mut dyn FnMut(Packet) -> Result<()>) -> Result<()> {
        let fd = self
            .root
            .resolve_no_links(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK);
        let mut file = std::fs::File::from(fd.map_err(Error::io("open", path))?);
        let mut data = |data: Bytes| {
            send(Packet {
                id,
                data,
                ..Packet::of(PacketType::PacketData)
            })
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).map_err(Error::io("read", path))?;
            data(Bytes::copy_from_slice(&chunk[..read]))?;
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// A directory whose entries are sent.
struct Level {
    dir: OwnedFd,
    path: String,
    /// Those that are left.
    names: std::vec::IntoIter<OsString>,
}

impl Level {
    fn read(dir: OwnedFd, path: String) -> Result<Self> {
        let mut names = Vec::new();
        for found in Dir::read_from(&dir).map_err(Error::io("look at", &path))? {
            let found = found.map_err(Error::io("look at", &path))?;
            let name = found.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        let names = names.into_iter();
        Ok(Self { dir, path, names })
    }
}

/// A file as the protocol tells of it, or nothing for one that is not there.
pub fn stat(root: &Root, path: &str) -> Result<Stat> {
    let (dir, name) = match path.trim_matches('/') {
        "" | "." => (root.resolve(".", OFlags::PATH | OFlags::DIRECTORY), OsString::from(".")),
        inside => {
            let (dir, name) = root.parent(inside).map_err(Error::io("look at", path))?;
            (Ok(dir), name)
        }
    };
    let dir = dir.map_err(Error::io("look at", path))?;
    let found = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::io("look at", path))?;
    of(dir.as_fd(), &name, name.to_string_lossy().into_owned(), &found)
}

fn of(dir: BorrowedFd<'_>, name: &OsString, path: String, found: &rustix::fs::Stat) -> Result<Stat> {
    let linkname = match FileType::from_raw_mode(found.st_mode) {
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(Error::io("read the link", &path))?;
            String::from_utf8_lossy(target.as_bytes()).into_owned()
        }
        _ => String::new(),
    };
    let nanoseconds = i64::try_from(found.st_mtime_nsec).unwrap_or(0);
    Ok(Stat {
        linkname,
        mode: mode::from_raw(found.st_mode),
        uid: found.st_uid,
        gid: found.st_gid,
        size: found.st_size,
        mod_time: found.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds),
        devmajor: rustix::fs::major(found.st_rdev).into(),
        devminor: rustix::fs::minor(found.st_rdev).into(),
        xattrs: BTreeMap::new(),
        path,
    })
}
