//! Namespaces a thread gives itself. Entering an existing one is `rustix::thread::move_into_link_name_space`, safe there.

use std::io;

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
/// `/proc/self/timens_offsets` until the first of them is born (unshare(2), `CLONE_NEWTIME`, Linux 5.6).
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

#[cfg(test)]
mod tests {
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
}
