//! What is on disk: attributes of an open file, and the size of a tree as Docker counts it.

use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use ferry_sys::handle::path_of;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::reader::{Kind, Time};

/// Extended attributes that steer overlayfs: never taken from an archive, never written to one.
pub const OVERLAY_XATTRS: [&str; 2] = ["trusted.overlay.", "user.overlay."];
/// Marks a directory that hides everything below it (Documentation/filesystems/overlayfs.rst).
pub const OPAQUE: &str = "trusted.overlay.opaque";

pub fn is_overlay_xattr(name: &OsStr) -> bool {
    OVERLAY_XATTRS
        .iter()
        .any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

/// Whether this is overlayfs's mark of a deleted entry: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether this directory hides everything below it, as a mount with or without `userxattr` says it.
pub fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    [OPAQUE, "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 8];
        matches!(rustix::fs::fgetxattr(dir, *name, &mut value[..]), Ok(1) if value[0] == b'y')
    })
}

/// What an archive would call this file; `None` for a socket, which no archive holds.
pub fn kind(stat: &Stat) -> Option<Kind> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Character { major, minor },
        FileType::BlockDevice => Kind::Block { major, minor },
        _ => return None,
    })
}

pub fn mtime(stat: &Stat) -> Time {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the width of st_mtime_nsec differs between architectures"
    )]
    Time {
        secs: stat.st_mtime as i64,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    }
}

/// As utimensat(2) takes them.
pub fn times(stat: &Stat) -> Timestamps {
    let modified = mtime(stat);
    let modified = Timespec {
        tv_sec: modified.secs,
        tv_nsec: i64::from(modified.nanos),
    };
    // When it was read last is nobody's concern.
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// Sets an attribute of the file itself (a link, not its target), however it was opened.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> io::Result<()> {
    match rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
        Err(Errno::BADF) => Ok(rustix::fs::setxattr(path_of(fd), name, value, XattrFlags::empty())?),
        done => Ok(done?),
    }
}

/// Changes the mode of exactly the file that is open, which must not be a symbolic link: by name it could be another one
/// by now.
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    match rustix::fs::fchmod(fd, Mode::from(mode)) {
        Err(Errno::BADF) => Ok(rustix::fs::chmod(path_of(fd), Mode::from(mode))?),
        done => Ok(done?),
    }
}

/// All attributes but overlayfs's own; empty where the file system has none.
pub fn xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    // Most files have none, and the kernel says so at once.
    if let Ok(0) | Err(Errno::NOTSUP) = rustix::fs::flistxattr(fd, &mut [0; 256][..]) {
        return Ok(Vec::new());
    }
    let path = path_of(fd);
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::listxattr(&path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let mut value = vec![0; if length == 0 { 0 } else { 64 << 10 }];
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let name = OsString::from_vec(name.to_vec());
        if is_overlay_xattr(&name) {
            continue;
        }
        match rustix::fs::getxattr(&path, &name, &mut value[..]) {
            Ok(length) => found.push((name, value[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// The entries of a directory without `.` and `..`, in the order of their bytes.
pub fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let names = kinds(dir)?.into_iter().map(|(name, _)| name);
    Ok(names.collect())
}

/// The same, with what the file system says that they are: where it says something, and for the moment.
pub fn kinds(dir: BorrowedFd<'_>) -> io::Result<Vec<(CString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    Ok(names)
}

/// Bytes of all files below `dir` as Docker's overlay2 counts a layer: apparent sizes of everything but directories,
/// hard links once. Does not cross mounts; whoever changes the tree meanwhile changes the answer and nothing else.
pub fn size(dir: BorrowedFd<'_>) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut total = 0_u64;
    walk(dir, |_, _, stat| {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_directory && (stat.st_nlink <= 1 || seen.insert(stat.st_ino)) {
            total = total.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
        }
        Ok(())
    })?;
    Ok(total)
}

/// Makes `dir` and everything below it not younger than that. Does not cross mounts.
pub fn clamp_times(dir: BorrowedFd<'_>, latest: Time) -> io::Result<()> {
    let is_younger = |stat: &Stat| (mtime(stat).secs, mtime(stat).nanos) > (latest.secs, latest.nanos);
    if is_younger(&rustix::fs::fstat(dir)?) {
        // The descriptor may be one that names the directory and no more.
        rustix::fs::utimensat(dir, c".", &timestamps(latest), AtFlags::empty())?;
    }
    walk(dir, |parent, name, stat| {
        if is_younger(stat) {
            rustix::fs::utimensat(parent, name, &timestamps(latest), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    })
}

/// A file's two times, for the calls that set them.
pub fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.secs,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Shows `visit` everything below `dir`: the directory it is in, its name and what it is. Does not cross mounts.
fn walk(
    dir: BorrowedFd<'_>,
    mut visit: impl FnMut(BorrowedFd<'_>, &std::ffi::CStr, &Stat) -> io::Result<()>,
) -> io::Result<()> {
    let open = |at: BorrowedFd<'_>, name: &std::ffi::CStr| -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(at, name, flags, Mode::empty())
    };
    let device = rustix::fs::fstat(dir)?.st_dev;
    // One descriptor a level: an iterative walk keeps a deep tree from eating the stack.
    let mut stack: Vec<(OwnedFd, Vec<CString>)> = Vec::new();
    let top = open(dir, c".")?;
    let children = names(top.as_fd())?;
    stack.push((top, children));
    loop {
        let depth = stack.len();
        let Some((fd, children)) = stack.last_mut() else { break };
        let Some(name) = children.pop() else {
            stack.pop();
            continue;
        };
        let stat = match rustix::fs::statat(&*fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if stat.st_dev != device {
            continue;
        }
        visit(fd.as_fd(), &name, &stat)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory && depth < MAX_DEPTH {
            match open(fd.as_fd(), &name) {
                Ok(child) => {
                    let children = names(child.as_fd())?;
                    stack.push((child, children));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Deeper directories than this are not looked into: each level holds a descriptor.
const MAX_DEPTH: usize = 2048;
