//! One netlink socket: send a buffer of requests, collect what the kernel says to each.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::SocketAddr;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::wire::{self, Message};
use crate::{Error, Result};

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The kernel fills dumps to the size of the buffer, at most 32 KiB.
const DATAGRAM: usize = 32 * 1024;
/// Room for the answers to a large batch, where the caller may (CAP_NET_ADMIN); the default holds about 200.
const ANSWERS: usize = 4 << 20;

/// The most that is sent at once: some 300,000 elements of a map.
const LARGEST: usize = 32 << 20;

pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    port: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("socket", &self.socket)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// The kernel's word on one request: `None` for done.
#[derive(Debug)]
pub(crate) struct Answer {
    pub sequence: u32,
    pub refused: Option<(Errno, Option<String>)>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace (netlink(7)).
    pub fn open(protocol: isize) -> Result<Self> {
        let mut socket = netlink_sys::Socket::new(protocol).map_err(Error::Open)?;
        let port = socket.bind_auto().map_err(Error::Open)?.port_number();
        // The explanation, and not the whole request back. Both are older than any supported kernel.
        socket.set_ext_ack(true).map_err(Error::Open)?;
        socket.set_cap_ack(true).map_err(Error::Open)?;
        Ok(Self {
            socket,
            sequence: 0,
            port,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Enlarges both queues for batches of thousands of elements. Failing is harmless: small batches still pass.
    pub fn enlarge(&self) {
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, ANSWERS);
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&self.socket, ANSWERS);
    }

    /// The socket's number in its namespace, which the kernel chose.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// The next sequence number; never 0, which the kernel uses for what nobody asked for.
    pub fn next(&mut self) -> u32 {
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        self.sequence
    }

    /// Sends `requests` in one datagram and gives every message that comes back to `take`, acknowledgements apart.
    pub fn exchange(&mut self, requests: &[u8], mut take: impl FnMut(Message<'_>)) -> Result<Vec<Answer>> {
        self.drain();
        self.make_room(requests.len())?;
        let sent = self
            .socket
            .send_to(requests, &SocketAddr::new(0, 0), 0)
            .map_err(|source| Error::Transport {
                operation: "send",
                source,
            })?;
        if sent != requests.len() {
            return Err(Error::TooLong(format!("{} bytes in one datagram", requests.len())));
        }
        let mut answers = Vec::new();
        while let Some(length) = self.receive()? {
            for message in wire::messages(&self.buffer[..length]) {
                match message.kind {
                    ERROR => answers.push(answer(message)?),
                    DONE => answers.push(Answer {
                        sequence: message.sequence,
                        refused: code(message.payload)?,
                    }),
                    _ => take(message),
                }
            }
        }
        Ok(answers)
    }

    /// A datagram has to fit into the send queue, all at once. Where that cannot be, sending says so.
    fn make_room(&self, length: usize) -> Result<()> {
        if length > LARGEST {
            return Err(Error::TooLong(format!("{length} bytes in one datagram")));
        }
        if length > ANSWERS {
            let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.socket, length + DATAGRAM);
        }
        Ok(())
    }

    /// Answers nobody waited for, left by an exchange that failed half-way, must not be taken for the next one's.
    fn drain(&mut self) {
        while matches!(self.receive(), Ok(Some(_))) {}
    }

    /// Joins a multicast group of the protocol; what it says comes by [`Socket::heard`].
    pub fn join(&mut self, group: u32) -> Result<()> {
        self.socket.add_membership(group).map_err(Error::Open)
    }

    /// Gives everything that was said to the groups joined to `take`. False when some of it was lost.
    pub fn heard(&mut self, mut take: impl FnMut(Message<'_>)) -> Result<bool> {
        loop {
            match self.receive() {
                Ok(Some(length)) => wire::messages(&self.buffer[..length]).for_each(&mut take),
                Ok(None) => return Ok(true),
                Err(Error::Transport { source, .. }) if source.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&mut self) -> Result<Option<usize>> {
        loop {
            // The answers are already queued (see the crate's page), so an empty queue is the end.
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match rustix::net::recv(self.socket.as_fd(), self.buffer.as_mut_slice(), flags) {
                Ok((length, whole)) if length == whole => return Ok(Some(length)),
                Ok(_) => return Err(Error::Malformed("longer than any the kernel should send")),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let source = errno.into();
                    return Err(Error::Transport {
                        operation: "receive",
                        source,
                    });
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn code(payload: &[u8]) -> Result<Option<(Errno, Option<String>)>> {
    let raw = wire::u32_at(payload, 0).map_or(0, u32::cast_signed);
    match raw {
        0 => Ok(None),
        -4095..=-1 => Ok(Some((Errno::from_raw_os_error(-raw), None))),
        _ => Err(Error::Malformed("an error number out of range")),
    }
}

/// `struct nlmsgerr`: the error, the request's header or all of it, then attributes (netlink(7)).
fn answer(message: Message<'_>) -> Result<Answer> {
    const EXPLANATION: u16 = 1;
    let mut refused = code(message.payload)?;
    if let Some((_, text)) = &mut refused
        && message.flags & wire::ACK_TLVS != 0
    {
        let request = match wire::u32_at(message.payload, 4) {
            Some(length) if message.flags & wire::CAPPED == 0 => usize::try_from(length).unwrap_or(usize::MAX),
            _ => wire::HEADER,
        };
        let attributes = message
            .payload
            .get(4_usize.saturating_add(request).saturating_add(3) & !3..)
            .unwrap_or_default();
        *text = wire::attribute(attributes, EXPLANATION).map(wire::text);
    }
    Ok(Answer {
        sequence: message.sequence,
        refused,
    })
}
