//! Namespaces a thread gives itself. Entering an existing one is `rustix::thread::move_into_link_name_space`, safe there.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::thread::UnshareFlags;

use crate::SingleThreaded;

/// Moves the calling thread, and no other, into a new network namespace that holds only a `lo` that is down
/// (unshare(2), `CLONE_NEWNET`; needs CAP_SYS_ADMIN). Never on a thread that others share, such as a tokio worker.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare is unsafe only for CLONE_FILES, which lets threads see different descriptor tables; this call
    // passes CLONE_NEWNET alone, which changes nothing that Rust's I/O safety rests on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Makes the calling process's cgroup the root of a new cgroup namespace (unshare(2), `CLONE_NEWCGROUP`, Linux 4.6).
pub fn unshare_cgroup() -> io::Result<()> {
    // SAFETY: as above; only CLONE_NEWCGROUP is passed.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }?;
    Ok(())
}

/// Gives the children of the calling thread a new time namespace, whose offsets can be set through
/// `/proc/PID/timens_offsets` until somebody is in it (unshare(2), `CLONE_NEWTIME`, Linux 5.6).
pub fn unshare_time() -> io::Result<()> {
    // SAFETY: as above; only CLONE_NEWTIME is passed, and the caller itself stays where it is.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWTIME) }?;
    Ok(())
}

/// Gives the calling process, which must be single-threaded or the only one to use it, a copy of its mount namespace
/// (unshare(2), `CLONE_NEWNS`).
pub fn unshare_mounts(_proof: &SingleThreaded) -> io::Result<()> {
    // SAFETY: as above; only CLONE_NEWNS is passed.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}

/// Which kind of namespace a descriptor is open on, as its `CLONE_NEW*` flag (ioctl_ns(2), `NS_GET_NSTYPE`, Linux 4.11).
/// `ENOTTY` for what is no namespace.
pub fn kind_of(namespace: BorrowedFd<'_>) -> io::Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the descriptor is open; this request takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    u64::try_from(kind).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::linux::fs::MetadataExt as _;

    use super::*;

    fn current() -> u64 {
        std::fs::metadata("/proc/thread-self/ns/net").unwrap().st_ino()
    }

    #[test]
    fn only_the_calling_thread_leaves_its_network() {
        let before = current();
        let inside = std::thread::spawn(|| {
            unshare_network().unwrap();
            current()
        });
        assert_ne!(inside.join().unwrap(), before);
        assert_eq!(current(), before);
    }

    #[test]
    fn a_namespace_says_what_it_is() {
        let kind = |path: &str| kind_of(std::fs::File::open(path).unwrap().as_fd());
        assert_eq!(kind("/proc/self/ns/net").unwrap(), 0x4000_0000);
        assert_eq!(kind("/proc/self/ns/time").unwrap(), 0x80);
        assert!(kind("/dev/null").is_err());
    }
}
