//! One file, directory, link or device of a source.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use ferry_archive::reader::{Kind, Time};
use ferry_archive::tree;
use rustix::fs::Stat;
use rustix::io::Errno;

pub(super) type Xattrs = Vec<(OsString, Vec<u8>)>;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// In its part; empty: the part's own.
    pub path: PathBuf,
    pub kind: Kind,
    /// 12 bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub stamp: Stamp,
    pub links: u64,
    /// Of a symbolic link.
    pub target: OsString,
    /// Of a directory; of a file once its content is known.
    pub xattrs: Xattrs,
    /// The SHA-256 of a file, once it is known.
    pub content: Option<[u8; 32]>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_possible_wrap,
    reason = "the widths and signs of a stat differ between architectures; nanoseconds fit all"
)]
impl Stamp {
    pub fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }

    pub fn modified(&self) -> Time {
        Time {
            secs: self.mtime.0,
            nanos: u32::try_from(self.mtime.1).unwrap_or_default(),
        }
    }
}

impl Entry {
    /// `None`: a socket.
    pub fn new(path: PathBuf, stat: &Stat) -> Option<Self> {
        Some(Self {
            path,
            kind: tree::kind(stat)?,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            stamp: Stamp::of(stat),
            #[allow(
                clippy::unnecessary_cast,
                reason = "the width of st_nlink differs between architectures"
            )]
            links: stat.st_nlink as u64,
            target: OsString::new(),
            xattrs: Vec::new(),
            content: None,
        })
    }

    pub fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// The attributes of an open file; of a context's, without capabilities.
pub(super) fn xattrs(fd: BorrowedFd<'_>, plain: bool) -> std::io::Result<Xattrs> {
    let mut found = tree::xattrs(fd)?;
    found.retain(|(name, _)| !(plain && name == "security.capability"));
    found.sort();
    Ok(found)
}

pub(super) fn link_target(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OsString, Errno> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(OsString::from_vec(target.into_bytes()))
}
