//! `tmpcopyup`: what the image has below a directory, copied into the tmpfs that is going to cover it.
//!
//! Source and target are descriptors, and every step goes one component down without following a link.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timestamps};

/// Deeper trees than this are refused: each level holds two descriptors.
const DEPTH: usize = 64;

/// Copies the content of directory `from` into directory `to`, with owners, modes and times.
pub(crate) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    level(from, to, 0)
}

fn level(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > DEPTH {
        return Err(io::Error::other("the directory is nested too deeply to be copied"));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        copy_entry(from, to, name, depth)?;
    }
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, owner(&stat).0, owner(&stat).1)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    rustix::fs::futimens(to, &times(&stat))?;
    Ok(())
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let (uid, gid) = owner(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from(0o700))?;
            level(open_dir(from, name)?.as_fd(), open_dir(to, name)?.as_fd(), depth + 1)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut source = std::fs::File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = std::fs::File::from(rustix::fs::openat(to, name, flags, Mode::from(0o600))?);
            io::copy(&mut source, &mut target)?;
            rustix::fs::fchown(&target, uid, gid)?;
            rustix::fs::fchmod(&target, mode)?;
            Ok(rustix::fs::futimens(&target, &times(&stat))?)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, name)?;
            Ok(rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
            Ok(rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn owner(stat: &Stat) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    let (uid, gid) = (stat.st_uid, stat.st_gid);
    (
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
    )
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| rustix::time::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn a_tree_is_copied_with_modes_and_links_and_not_what_they_lead_to() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(from.path().join("a/b")).unwrap();
        std::fs::write(from.path().join("a/b/file"), "text").unwrap();
        std::fs::set_permissions(from.path().join("a"), std::fs::Permissions::from_mode(0o711)).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        let open = |dir: &tempfile::TempDir| std::fs::File::open(dir.path()).unwrap();
        tree(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("a/b/file")).unwrap(), "text");
        assert_eq!(std::fs::metadata(to.path().join("a")).unwrap().mode() & 0o7777, 0o711);
        let link = std::fs::read_link(to.path().join("link")).unwrap();
        assert_eq!(link, std::path::Path::new("/etc/passwd"));
    }
}
