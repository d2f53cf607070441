//! Namespaces a thread gives itself. Entering an existing one is `rustix::thread::move_into_link_name_space`, safe there.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

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

/// Gives the calling thread a copy of its mount namespace, and a root and working directory of its own. For a thread that ends
/// with what it does there.
pub fn unshare_mounts_of_thread() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS implies CLONE_FS, and both change what paths mean to this thread alone; no memory or descriptor is
    // unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    Ok(())
}

/// statfs(2) of a namespace's file (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// `_IO(0xb7, 3)` (linux/nsfs.h).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Which `CLONE_NEW…` the open file is a namespace of; `None` when it is none. Unlike its name in /proc/self/fd this
/// also tells of one that is mounted somewhere (ioctl_nsfs(2), `NS_GET_NSTYPE`, Linux 4.11).
pub fn kind(file: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    // Asked first: to a device the same request may mean something else.
    if rustix::fs::fstatfs(file)?.f_type != NSFS_MAGIC {
        return Ok(None);
    }
    // SAFETY: the descriptor is borrowed, so it is open, and this request takes no argument.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    match u64::try_from(kind) {
        Ok(kind) => Ok(Some(kind)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// `SIOCGSKNS` (linux/sockios.h).
const SIOCGSKNS: libc::c_ulong = 0x894c;

/// The network namespace that a socket belongs to, whichever its owner is in (`SIOCGSKNS`, Linux 4.10; needs CAP_NET_ADMIN
/// there).
pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed, so it is open, and this request takes no argument.
    let namespace = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(namespace) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
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
    fn a_socket_tells_its_namespace_from_outside() {
        let inside = std::thread::spawn(|| {
            unshare_network().unwrap();
            (std::net::UdpSocket::bind("0.0.0.0:0").unwrap(), current())
        });
        let (socket, inode) = inside.join().unwrap();
        let namespace = of_socket(socket.as_fd()).unwrap();
        assert_eq!(File::from(namespace).metadata().unwrap().st_ino(), inode);
        assert!(of_socket(File::open("/dev/null").unwrap().as_fd()).is_err());
    }

    #[test]
    fn a_namespace_tells_its_kind_and_other_files_are_none() {
        let kind_of = |path: &str| kind(File::open(path).unwrap().as_fd()).unwrap();
        assert_eq!(kind_of("/proc/self/ns/net"), Some(0x4000_0000));
        assert_eq!(kind_of("/proc/self/ns/mnt"), Some(0x0002_0000));
        assert_eq!(kind_of("/proc/self/status"), None);
        assert_eq!(kind_of("/dev/null"), None);
    }
}
