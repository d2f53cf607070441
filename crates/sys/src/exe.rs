//! The program's own binary, protected (rule D4 of the security design, CVE-2019-5736).
//!
//! A process that will enter a container is started from a detached, read-only clone of the mount the binary lies on.
//! `/proc/PID/exe` then leads to that mount, through which nobody can open the file for writing, root included, and
//! nothing had to be copied.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::mount::{Attributes, Mount, RDONLY};

/// A descriptor of this process's binary through a read-only mount of its own; run it by [`path_of`].
pub fn protected() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let exe = rustix::fs::open("/proc/self/exe", flags, Mode::empty())?;
    let mount = Mount::clone_of(exe.as_fd(), Path::new(""), false)?;
    mount.set(Attributes {
        set: RDONLY,
        ..Attributes::default()
    })?;
    Ok(mount.into_fd())
}

/// The path by which a process that inherits `fd` can execute it: std's `Command` takes no descriptor.
pub fn path_of(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
