//! What a socket tells beside its bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// How much of what was sent is on the way: for a unix socket what its peer has not read, with the kernel's own additions, so
/// only 0 means something exact. `ioctl(2)` `SIOCOUTQ`, which is `TIOCOUTQ` by another name.
pub fn unread(socket: impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for the length of the call, and the kernel writes one int, which `count` is.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_read_is_no_longer_on_the_way() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
        ours.write_all(b"ab").unwrap();
        assert!(unread(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0]).unwrap();
        assert!(unread(&ours).unwrap() > 0);
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(unread(&ours).unwrap(), 0);
        assert!(unread(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
