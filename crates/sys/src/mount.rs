//! Detached mounts: file systems and bind mounts that are in no namespace until somebody attaches them.
//!
//! Everything here works on descriptors (`fsopen`, `open_tree`, `mount_setattr`, `move_mount`; Linux 5.2 and 5.12), so a
//! mount is complete before anybody can see it and its target is the very directory that was checked (rule D2).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// A mount that is attached nowhere. Dropping it before [`attach`](Self::attach) unmounts it.
#[derive(Debug)]
pub struct Mount {
    fd: OwnedFd,
}

/// Attributes of one mount (`MOUNT_ATTR_*`), as `mount_setattr(2)` takes them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    /// The whole tree below, not only the top mount.
    pub recursive: bool,
}

pub const RDONLY: u64 = 0x1;
pub const NOSUID: u64 = 0x2;
pub const NODEV: u64 = 0x4;
pub const NOEXEC: u64 = 0x8;
pub const ATIME: u64 = 0x70;
pub const RELATIME: u64 = 0x00;
pub const NOATIME: u64 = 0x10;
pub const STRICTATIME: u64 = 0x20;
pub const NODIRATIME: u64 = 0x80;
pub const IDMAP: u64 = 0x0010_0000;
pub const NOSYMFOLLOW: u64 = 0x0020_0000;

pub const PRIVATE: u64 = libc::MS_PRIVATE;
pub const SLAVE: u64 = libc::MS_SLAVE;
pub const SHARED: u64 = libc::MS_SHARED;
pub const UNBINDABLE: u64 = libc::MS_UNBINDABLE;

impl Mount {
    /// A new instance of the file system `kind` with `key=value` options (a flag has an empty value).
    ///
    /// A refusal by the file system carries the kernel's own words where it gives any (`fsopen` keeps a log).
    pub fn new(kind: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<Self> {
        let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            let done = match *value {
                "" => rustix::mount::fsconfig_set_flag(&fs, *key),
                value => rustix::mount::fsconfig_set_string(&fs, *key, value),
            };
            done.map_err(|error| with_log(&fs, error, key))?;
        }
        Self::create(&fs, attributes)
    }

    /// Finishes a file system context.
    pub(crate) fn create(fs: &OwnedFd, attributes: u64) -> io::Result<Self> {
        rustix::mount::fsconfig_create(fs).map_err(|error| with_log(fs, error, "create"))?;
        let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).map_err(io::Error::other)?);
        let fd = rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Ok(Self { fd })
    }

    /// A clone of the mount at `path` below `dir` (an empty path: `dir` itself), with what is mounted below it if
    /// `recursive`. This is a bind mount that is not attached yet.
    pub fn clone_of(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<Self> {
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if path.as_os_str().is_empty() {
            flags |= OpenTreeFlags::AT_EMPTY_PATH;
        }
        if recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        Ok(Self {
            fd: rustix::mount::open_tree(dir, path, flags)?,
        })
    }

    /// A clone of the mount at an absolute path of the engine's own.
    pub fn clone_path(path: &Path, recursive: bool) -> io::Result<Self> {
        Self::clone_of(rustix::fs::CWD, path, recursive)
    }

    /// Takes over a mount descriptor another process made.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub fn set(&self, attributes: Attributes) -> io::Result<()> {
        set_attributes(self.fd.as_fd(), attributes, None)
    }

    /// Maps the owners of files through a user namespace (Linux 5.12; the mount must be new and detached).
    pub fn idmap(&self, user_namespace: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
        let attributes = Attributes {
            set: IDMAP,
            recursive,
            ..Attributes::default()
        };
        set_attributes(self.fd.as_fd(), attributes, Some(user_namespace))
    }

    /// Attaches the mount on the very object that `target` is open on, in the caller's mount namespace.
    pub fn attach(&self, target: BorrowedFd<'_>) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(rustix::mount::move_mount(&self.fd, "", target, "", flags)?)
    }
}

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Changes the attributes of the mount `fd` is open on.
pub fn set_attributes(
    fd: BorrowedFd<'_>,
    attributes: Attributes,
    user_namespace: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if attributes.recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let attr = MountAttr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: user_namespace.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: the path is the empty string that AT_EMPTY_PATH asks for, and `attr` has the size that is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Adds what the kernel wrote into the file system context's log to an error.
fn with_log(fs: &OwnedFd, error: Errno, key: &str) -> io::Error {
    let mut log = [0; 512];
    match rustix::io::read(fs, &mut log) {
        Ok(length) if length > 0 => {
            let text = String::from_utf8_lossy(&log[..length]);
            let text = text.trim_end().trim_start_matches("e ").to_owned();
            io::Error::new(io::Error::from(error).kind(), format!("{key}: {error} ({text})"))
        }
        _ => error.into(),
    }
}

/// `struct mount_attr` of linux/mount.h, version 0 (Linux 5.12).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}
