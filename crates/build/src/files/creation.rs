//! New entries of the draft, and what is in them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::failed;
use crate::aside::{Awaiting, go_on};
use crate::error::{Error, Result};

/// Bytes that the kernel copies at a time, so that what nobody waits for ends soon.
const PIECE: usize = 64 << 20;

pub(super) fn is_directory(path: &Path) -> Error {
    Error::Invalid(format!("cannot replace to directory /{} with file", path.display()))
}

/// Makes an entry in place of whatever is there, directories aside.
pub(super) fn exclusive<T>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> Result<T> {
    match make(dir) {
        Err(Errno::EXIST) => make_room(dir, name, path)?,
        done => return done.map_err(|error| failed("make", path, error)),
    }
    make(dir).map_err(|error| failed("make", path, error))
}

pub(super) fn make_room(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Err(is_directory(path)),
        done => done.map_err(|error| failed("replace", path, error)),
    }
}

/// `mode` is at most what it will have; [`finish`] gives it the rest.
pub(super) fn create(dir: BorrowedFd<'_>, name: &OsStr, path: &Path, mode: u32) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let make = |dir: BorrowedFd<'_>| rustix::fs::openat(dir, name, flags, Mode::from(mode & 0o777));
    exclusive(dir, name, path, make).map(File::from)
}

/// Owner, then mode: a new owner takes set-uid bits away. To look is a tenth of the work of a change.
pub(super) fn finish(file: &File, path: &Path, owner: (u32, u32), mode: u32) -> Result<()> {
    let unwritten = |error: Errno| failed("change the owner or mode of", path, error);
    let stat = rustix::fs::fstat(file).map_err(unwritten)?;
    let is_new_owner = (stat.st_uid, stat.st_gid) != owner;
    if is_new_owner {
        rustix::fs::fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).map_err(unwritten)?;
    }
    if is_new_owner || stat.st_mode & 0o7777 != mode {
        rustix::fs::fchmod(file, Mode::from(mode)).map_err(unwritten)?;
    }
    Ok(())
}

/// The kernel copies what it can, from `from`'s position.
pub(super) fn copy_content(from: &File, mut to: &File, size: u64) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        go_on()?;
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        match rustix::fs::copy_file_range(from, None, to, None, most) {
            Ok(0) => break,
            Ok(count) => left -= count as u64,
            Err(Errno::INTR) => {}
            // Between file systems, or not at all.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::IO) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if left > 0 {
        let copied = io::copy(&mut Awaiting(from.take(left)), &mut to)?;
        left -= copied;
    }
    match left {
        0 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter")),
    }
}
