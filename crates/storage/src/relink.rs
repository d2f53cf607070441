//! A directory once more, whose files are those of the first.
//!
//! For a layer that lies on other layers than before: files are hard links, directories are made anew with what they have.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use ferry_archive::tree;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// Makes `to`, an empty directory of the engine's own, the same as `from`. Blocks.
pub(crate) fn relink(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut stack = vec![Level::open(open(from, c".")?, open(to, c".")?)?];
    while let Some(level) = stack.last_mut() {
        let Some(name) = level.left.pop() else {
            // After what is in it, whose making changes it.
            if let Some(level) = stack.pop() {
                dress(level.from.as_fd(), level.to.as_fd())?;
            }
            continue;
        };
        let stat = rustix::fs::statat(&level.from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            rustix::fs::mkdirat(&level.to, &name, Mode::RWXU)?;
            let next = Level::open(open(level.from.as_fd(), &name)?, open(level.to.as_fd(), &name)?)?;
            stack.push(next);
            continue;
        }
        match rustix::fs::linkat(&level.from, &name, &level.to, &name, AtFlags::empty()) {
            // A file has so many names and no more.
            Err(Errno::MLINK) => copy(level, &name, &stat)?,
            done => done?,
        }
    }
    Ok(())
}

struct Level {
    from: OwnedFd,
    to: OwnedFd,
    left: Vec<CString>,
}

impl Level {
    fn open(from: OwnedFd, to: OwnedFd) -> io::Result<Self> {
        let left = tree::names(from.as_fd())?;
        Ok(Self { from, to, left })
    }
}

fn open(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Owner, mode, attributes and times, overlayfs's own attributes too.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    for (name, value) in tree::xattrs(from)? {
        tree::set_xattr(to, &name, &value)?;
    }
    if tree::is_opaque(from) {
        tree::set_xattr(to, tree::OPAQUE.as_ref(), b"y")?;
    }
    tree::set_mode(to, stat.st_mode & 0o7777)?;
    Ok(rustix::fs::futimens(to, &tree::times(&stat))?)
}

fn copy(level: &Level, name: &CString, stat: &Stat) -> io::Result<()> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::MLINK.into());
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(&level.from, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = rustix::fs::openat(&level.to, name, flags, Mode::RUSR)?;
    io::copy(
        &mut std::fs::File::from(rustix::io::dup(&from)?),
        &mut std::fs::File::from(rustix::io::dup(&to)?),
    )?;
    dress(from.as_fd(), to.as_fd())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use rustix::fs::{Timespec, Timestamps};

    use super::*;

    #[test]
    fn a_tree_is_made_once_more_of_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", from.join("a/link")).unwrap();
        std::fs::set_permissions(from.join("a"), std::fs::Permissions::from_mode(0o1711)).unwrap();
        let times = |second| Timestamps {
            last_access: Timespec {
                tv_sec: second,
                tv_nsec: 0,
            },
            last_modification: Timespec {
                tv_sec: second,
                tv_nsec: 7,
            },
        };
        rustix::fs::utimensat(rustix::fs::CWD, from.join("a"), &times(1000), AtFlags::empty()).unwrap();
        let open = |path: &std::path::Path| std::fs::File::open(path).unwrap();
        relink(open(&from).as_fd(), open(&to).as_fd()).unwrap();
        let made = std::fs::metadata(to.join("a")).unwrap();
        assert_eq!(
            (made.mode() & 0o7777, made.mtime(), made.mtime_nsec()),
            (0o1711, 1000, 7)
        );
        let inode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(to.join("a/b/file")), inode(from.join("a/b/file")));
        assert_eq!(std::fs::read_link(to.join("a/link")).unwrap().to_str(), Some("nowhere"));
    }
}
