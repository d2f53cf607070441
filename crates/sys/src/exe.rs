//! The program's own binary, protected (rule D4 of the security design, CVE-2019-5736).
//!
//! A process that will enter a container is started from a detached, read-only clone of the mount the binary lies on.
//! `/proc/PID/exe` then leads to that mount, through which nobody can open the file for writing, root included, and
//! nothing had to be copied.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

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

/// Lets go of the mapped pages of this program's code and constants; what is still needed comes back, from the page
/// cache, as it is touched. They are shared with everybody who runs the binary, but count as this process's.
pub fn release_code() {
    let (start, end) = (&raw const __executable_start, &raw const etext);
    // SAFETY: takes a number and no pointer.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(65536);
    let first = start.addr().next_multiple_of(page);
    let length = (end.addr() & !(page - 1)).saturating_sub(first);
    // SAFETY: between the two lie only read-only, file-backed private mappings that nobody has written to: a page that is
    // dropped reads the same when it is back. A refusal drops nothing.
    let _ = unsafe {
        rustix::mm::madvise(
            start.with_addr(first).cast_mut().cast(),
            length,
            rustix::mm::Advice::LinuxDontNeed,
        )
    };
}

unsafe extern "C" {
    /// The first byte of the program's image, and the first one after its code (ld(1), `etext`(3)).
    static __executable_start: u8;
    static etext: u8;
}

/// The path by which a process that inherits `fd` can execute it: std's `Command` takes no descriptor.
pub fn path_of(fd: &OwnedFd) -> String {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Whether this process already runs from a mount, or a copy, that nobody can write to through `/proc/PID/exe`.
pub fn is_protected() -> io::Result<bool> {
    let exe = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let read_only = rustix::fs::fstatvfs(&exe)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(read_only || rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SealFlags::WRITE)))
}

/// A descriptor to start this binary again by, which a container that reaches its `/proc/PID/exe` cannot write through:
/// a read-only mount, or, where mounts are refused, a sealed copy in memory.
pub fn protected_or_copy() -> io::Result<OwnedFd> {
    if let Ok(fd) = protected() {
        return Ok(fd);
    }
    let mut exe = std::fs::File::open("/proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = std::fs::File::from(rustix::fs::memfd_create("ferry", flags)?);
    std::io::copy(&mut exe, &mut copy)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_that_was_let_go_runs_on() {
        super::release_code();
        assert_eq!(format!("{}", 1.5), "1.5");
    }
}
