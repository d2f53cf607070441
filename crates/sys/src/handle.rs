//! Naming an open file to a system call that takes no descriptor, by the kernel's own link to it.
//!
//! The links are those of /proc, until [`Proc::enter`] has put a private instance of procfs in its place: what stands at
//! `/proc` inside a container is the container's affair (CVE-2025-52881), and need not be there at all.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::mount::{Mount, NODEV, NOEXEC, NOSUID};

/// Set for good, before the process looks at anything of the container.
static PRIVATE: AtomicBool = AtomicBool::new(false);

/// A path that stands for an open file, however it was opened (`O_PATH` descriptors take no `f*xattr` calls). Good for the
/// next call only, and never to be looked up inside a [`Root`](crate::Root).
pub fn path_of(fd: BorrowedFd<'_>) -> String {
    let directory = if PRIVATE.load(Ordering::Relaxed) { "" } else { "/proc/" };
    format!("{directory}self/fd/{}", fd.as_raw_fd())
}

/// A procfs of this process's own, with nothing in it but processes, attached nowhere (fsopen(2); `subset=pid` is Linux 5.8).
#[derive(Debug)]
pub struct Proc(Mount);

impl Proc {
    /// Made with the PID namespace the caller is in.
    pub fn new() -> io::Result<Self> {
        Mount::new("proc", &[("subset", "pid")], NOSUID | NODEV | NOEXEC).map(Self)
    }

    /// Makes it the process's working directory, from which [`path_of`] then starts. For good.
    pub fn enter(self) -> io::Result<()> {
        rustix::process::fchdir(self.0.as_fd())?;
        PRIVATE.store(true, Ordering::Relaxed);
        Ok(())
    }
}
