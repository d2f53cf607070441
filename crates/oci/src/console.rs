//! What goes out over sockets of the caller's: a terminal's master, a pidfd, a seccomp listener.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::error::{During as _, Result};

/// Connects to a listening stream socket.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd> {
    let what = || format!("dial unix {}", path.display());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).during(what)?;
    let address = SocketAddrUnix::new(path).during(what)?;
    rustix::net::connect(&socket, &address).during(what)?;
    Ok(socket)
}

/// Sends a descriptor with a message that names it (as runc's `utils.SendFile` does).
pub(crate) fn send_fd(socket: &OwnedFd, message: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    // A stream may take less than all at a time; the descriptor went with the first byte.
    let mut rest = message.get(sent..).unwrap_or_default();
    while !rest.is_empty() {
        let count = rustix::net::send(socket, rest, SendFlags::NOSIGNAL)?;
        rest = rest.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// `--pidfd-socket`.
pub(crate) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let socket = connect(path)?;
    send_fd(&socket, b"pidfd", pidfd.as_fd()).during(|| "send the pidfd")
}
