//! One entry of a directory: whether it is the sender's, and making it so.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use ferry_sys::Root;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat as Found, Timespec, Timestamps, Uid, XattrFlags};

use super::super::{Error, Result, Stat, mode, path};

/// Extended attributes that are taken over: what is of users, and what a file is allowed.
const ATTRIBUTES: [&str; 2] = ["user.", "security.capability"];

fn found(parent: BorrowedFd<'_>, name: &str) -> Option<Found> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

fn kind(found: &Found) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn has_access(found: &Found, stat: &Stat) -> bool {
    let permissions = Mode::from_raw_mode(found.st_mode);
    (found.st_uid, found.st_gid) == (stat.uid, stat.gid) && permissions == mode::permissions(stat.mode)
}

/// Whether the file is there: the same size, time, owner and mode.
pub fn is_same(parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> bool {
    found(parent, name).is_some_and(|found| {
        let time = times(stat.mod_time).last_modification;
        kind(&found) == FileType::RegularFile
            && found.st_size == stat.size
            && (found.st_mtime, i64::try_from(found.st_mtime_nsec)) == (time.tv_sec, Ok(time.tv_nsec))
            && has_access(&found, stat)
    })
}

/// A time as nanoseconds since 1970.
pub fn times(nanoseconds: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn clear(parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<()> {
    match ferry_sys::root::remove_tree(parent, name.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &stat.path)(error)),
        _ => Ok(()),
    }
}

/// Owner, mode and attributes. The owner comes first: a change of it takes the set-id bits away.
fn set_access(fd: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    let (uid, gid) = owner(stat)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(Error::io("set the owner of", &stat.path))?;
    rustix::fs::fchmod(fd, mode::permissions(stat.mode)).map_err(Error::io("set the mode of", &stat.path))?;
    for (name, value) in &stat.xattrs {
        if ATTRIBUTES.iter().any(|known| name.starts_with(known)) {
            // Not every file system has them, and a context is one without.
            let _ = rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty());
        }
    }
    Ok(())
}

/// The highest number means "leave it" to the kernel.
fn owner(stat: &Stat) -> Result<(Uid, Gid)> {
    if stat.uid == u32::MAX || stat.gid == u32::MAX {
        return Err(Error::Protocol(format!("invalid owner of {:?}", stat.path)));
    }
    Ok((Uid::from_raw(stat.uid), Gid::from_raw(stat.gid)))
}

/// Whether it was there already.
pub fn directory(parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<bool> {
    let was_there = found(parent, name).is_some_and(|found| kind(&found) == FileType::Directory);
    if !was_there {
        clear(parent, name, stat)?;
        rustix::fs::mkdirat(parent, name, Mode::RWXU).map_err(Error::io("make", &stat.path))?;
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(Error::io("open", &stat.path))?;
    set_access(fd.as_fd(), stat)?;
    Ok(was_there)
}

/// An empty file that is a new one: links to it can be made at once, and what comes goes into it.
pub fn placeholder(parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<()> {
    clear(parent, name, stat)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(Error::io("make", &stat.path))?;
    Ok(())
}

/// What [`placeholder`] made.
pub fn open(root: &Root, stat: &Stat) -> Result<File> {
    let fd = root.resolve_no_links(&stat.path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK);
    Ok(File::from(fd.map_err(Error::io("open", &stat.path))?))
}

/// All of it is there: now it is the sender's.
pub fn complete(file: &File, stat: &Stat) -> Result<()> {
    set_access(file.as_fd(), stat)?;
    rustix::fs::futimens(file, &times(stat.mod_time)).map_err(Error::io("set the time of", &stat.path))
}

/// To a file that came before.
pub fn hard_link(root: &Root, parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<()> {
    let target = &stat.linkname;
    let missing = || {
        Error::Protocol(format!(
            "{:?} is a link to {target:?}, which did not come before it",
            stat.path
        ))
    };
    if path::order(target, &stat.path) != std::cmp::Ordering::Less {
        return Err(missing());
    }
    let (directory, file) = path::split(target);
    let directory = if directory.is_empty() { "." } else { directory };
    let directory = root.resolve_no_links(directory, OFlags::PATH | OFlags::DIRECTORY);
    let directory = directory.map_err(|_| missing())?;
    let first = found(directory.as_fd(), file).filter(|found| kind(found) == FileType::RegularFile);
    let first = first.ok_or_else(missing)?;
    if found(parent, name).is_some_and(|second| (second.st_dev, second.st_ino) == (first.st_dev, first.st_ino)) {
        return Ok(());
    }
    clear(parent, name, stat)?;
    rustix::fs::linkat(&directory, file, parent, name, AtFlags::empty()).map_err(Error::io("link", &stat.path))
}

pub fn symbolic_link(parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<()> {
    let target = &stat.linkname;
    let is_there = found(parent, name).is_some_and(|found| kind(&found) == FileType::Symlink)
        && rustix::fs::readlinkat(parent, name, Vec::new()).is_ok_and(|there| there.as_bytes() == target.as_bytes());
    if !is_there {
        clear(parent, name, stat)?;
        rustix::fs::symlinkat(target.as_str(), parent, name).map_err(Error::io("make the link", &stat.path))?;
    }
    let (uid, gid) = owner(stat)?;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::io("set the owner of", &stat.path))?;
    set_time(parent, name, stat)
}

fn set_time(parent: BorrowedFd<'_>, name: &str, stat: &Stat) -> Result<()> {
    rustix::fs::utimensat(parent, name, &times(stat.mod_time), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::io("set the time of", &stat.path))
}

/// A pipe or a device, which nobody opens here. One with the numbers 0:0 means a removed file to overlay.
pub fn special(parent: BorrowedFd<'_>, name: &str, kind: FileType, stat: &Stat) -> Result<()> {
    let number = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let (major, minor) = (number(stat.devmajor), number(stat.devminor));
    if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
        return Err(Error::Protocol(format!("{:?} is a device that cannot be", stat.path)));
    }
    clear(parent, name, stat)?;
    let device = match kind {
        FileType::Fifo => 0,
        _ => rustix::fs::makedev(major, minor),
    };
    rustix::fs::mknodat(parent, name, kind, mode::permissions(stat.mode), device)
        .map_err(Error::io("make the device", &stat.path))?;
    let (uid, gid) = owner(stat)?;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::io("set the owner of", &stat.path))?;
    // Not the umask's.
    rustix::fs::chmodat(parent, name, mode::permissions(stat.mode), AtFlags::empty())
        .map_err(Error::io("set the mode of", &stat.path))?;
    set_time(parent, name, stat)
}
