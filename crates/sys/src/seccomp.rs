//! Loading a compiled seccomp filter: `seccomp(2)`.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// Installs a classic BPF program (an array of `struct sock_filter` in native byte order) on the calling thread.
///
/// Needs `CAP_SYS_ADMIN` in the user namespace, or no-new-privileges.
pub fn load(program: &[u8], flags: u64) -> io::Result<()> {
    install(program, flags).map(drop)
}

/// As [`load`], with a descriptor on which whoever holds it answers for the system calls that ask (`SCMP_ACT_NOTIFY`,
/// Linux 5.0). It closes on exec.
pub fn load_with_listener(program: &[u8], flags: u64) -> io::Result<OwnedFd> {
    const SECCOMP_FILTER_FLAG_NEW_LISTENER: u64 = 1 << 3;
    let fd = install(program, flags | SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: with NEW_LISTENER a successful call gives a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn install(program: &[u8], flags: u64) -> io::Result<libc::c_long> {
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut filter: Vec<libc::sock_filter> = program
        .chunks_exact(INSTRUCTION)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fprog = libc::sock_fprog {
        len,
        filter: filter.as_mut_ptr(),
    };
    const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
    // SAFETY: `fprog` points to `len` instructions that outlive the call; the kernel checks the program itself.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) };
    if result >= 0 {
        Ok(result)
    } else {
        Err(io::Error::last_os_error())
    }
}
