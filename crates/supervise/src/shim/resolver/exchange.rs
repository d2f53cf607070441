//! One question to one server, over a socket of its own: its port is random, and the kernel lets nobody else's packets in.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ferry_dns::{Server, Transport};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub(super) struct Exchange {
    pub number: u64,
    socket: OwnedFd,
    /// By TCP: what is to be sent, with its length.
    output: Vec<u8>,
    /// By TCP: what has come of the answer, with its length. `None` by UDP.
    input: Option<Vec<u8>>,
}

pub(super) enum Heard {
    Nothing,
    /// Where in the buffer it is.
    Message(std::ops::Range<usize>),
    Failed,
}

/// A socket in the thread's network namespace.
pub(super) fn socket(server: &Server, transport: Transport) -> io::Result<OwnedFd> {
    let family = match server.socket_address() {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match transport {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, kind, flags, None)?)
}

impl Exchange {
    pub fn start(
        number: u64,
        socket: OwnedFd,
        server: &Server,
        transport: Transport,
        bytes: &[u8],
    ) -> io::Result<Self> {
        match rustix::net::connect(&socket, &server.socket_address()) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let mut exchange = Self {
            number,
            socket,
            output: Vec::new(),
            input: None,
        };
        match transport {
            Transport::Udp => exchange.again(bytes)?,
            Transport::Tcp => {
                let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
                exchange.output.extend_from_slice(&length.to_be_bytes());
                exchange.output.extend_from_slice(bytes);
                exchange.input = Some(Vec::new());
            }
        }
        Ok(exchange)
    }

    /// Sends by UDP.
    pub fn again(&mut self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    pub fn flags(&self) -> PollFlags {
        if self.output.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        }
    }

    /// Goes on with what is possible now.
    pub fn progress(&mut self, flags: PollFlags, buffer: &mut [u8]) -> Heard {
        if !self.output.is_empty() && flags.intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP) {
            match rustix::net::send(&self.socket, &self.output, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
                Err(_) => return Heard::Failed,
            }
            return Heard::Nothing;
        }
        let received = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Heard::Nothing,
            // A refused port, an unreachable network.
            Err(_) => return Heard::Failed,
        };
        let Some(input) = &mut self.input else {
            return Heard::Message(0..received);
        };
        if received == 0 {
            return Heard::Failed;
        }
        input.extend_from_slice(&buffer[..received]);
        let Some((length, body)) = input.split_first_chunk() else {
            return Heard::Nothing;
        };
        let length = usize::from(u16::from_be_bytes(*length));
        match (body.get(..length), buffer.get_mut(..length)) {
            (Some(message), Some(place)) => {
                place.copy_from_slice(message);
                *input = Vec::new();
                Heard::Message(0..length)
            }
            // The kernel holds the rest back until it is read, and the message is at most 64 KiB.
            _ if input.len() < usize::from(u16::MAX) + 2 => Heard::Nothing,
            _ => Heard::Failed,
        }
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
