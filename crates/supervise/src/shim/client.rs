//! One attached client: the connection a user's terminal or SDK holds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::detach::Detach;
use crate::wire::AttachRequest;

/// How long the first output waits for the client to have read the answer to its request.
const HOLD: Duration = Duration::from_millis(250);
/// How often it is looked whether it has. Nothing tells.
pub(super) const LOOK: Duration = Duration::from_millis(1);

/// What came of reading from a client.
pub(super) enum Input {
    Bytes,
    /// The client sends no more; it may still listen.
    End,
    Detached,
    Nothing,
}

pub(super) struct Client {
    fd: OwnedFd,
    /// Which of stdout and stderr it wants.
    pub wants: [bool; 2],
    /// It may still send input.
    pub reading: bool,
    /// Streams are multiplexed with Docker's 8-byte headers; not for a terminal, unless asked for.
    framed: bool,
    detach: Option<Detach>,
    /// What the connection did not take yet.
    pending: Vec<u8>,
    /// Output waits until then for the answer to the request to be read. Clients that read it through a buffer (docker-py)
    /// lose what comes together with it.
    held: Option<Instant>,
    pub gone: bool,
}

impl Client {
    pub fn new(fd: OwnedFd, request: &AttachRequest, terminal: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self {
            fd,
            wants: [request.stdout, request.stderr],
            reading: true,
            framed: request.framed.unwrap_or(!terminal),
            detach: Detach::new(request.detach_keys.clone()),
            pending: Vec::new(),
            held: Instant::now().checked_add(HOLD),
            gone: false,
        })
    }

    /// Whether output has to wait for this client.
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether output waits for the client to read the answer to its request: to be looked at every [`LOOK`].
    pub fn is_held(&self) -> bool {
        self.held.is_some() && self.is_behind()
    }

    /// Sends output of `stream` (0: stdout, 1: stderr); what the connection does not take is kept.
    pub fn send(&mut self, stream: usize, bytes: &[u8]) {
        if self.gone || !self.wants[stream] {
            return;
        }
        if self.framed {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
            let kind = if stream == 0 { 1 } else { 2 };
            self.pending.extend_from_slice(&[kind, 0, 0, 0]);
            self.pending.extend_from_slice(&length);
        }
        self.pending.extend_from_slice(bytes);
        self.flush();
    }

    /// Sends what is kept, as far as the connection takes it.
    pub fn flush(&mut self) {
        if let Some(until) = self.held {
            let unread = ferry_sys::socket::unread(&self.fd).is_ok_and(|unread| unread > 0);
            if unread && Instant::now() < until {
                return;
            }
            self.held = None;
        }
        let mut sent = 0;
        while sent < self.pending.len() && !self.gone {
            match rustix::net::send(&self.fd, &self.pending[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.gone = true,
            }
        }
        self.pending.drain(..sent);
        if self.pending.is_empty() || self.gone {
            self.pending = Vec::new();
        }
    }

    /// Reads what the client sent into `input`, without the detach keys.
    pub fn read(&mut self, buffer: &mut [u8], input: &mut Vec<u8>) -> Input {
        match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(0) => {
                self.reading = false;
                Input::End
            }
            Ok(count) => self.take(&buffer[..count], input),
            Err(Errno::AGAIN | Errno::INTR) => Input::Nothing,
            Err(_) => {
                self.gone = true;
                Input::End
            }
        }
    }

    /// Takes bytes from the client that were read already.
    pub fn take(&mut self, bytes: &[u8], input: &mut Vec<u8>) -> Input {
        let Some(detach) = &mut self.detach else {
            input.extend_from_slice(bytes);
            return Input::Bytes;
        };
        if detach.filter(bytes, input) {
            self.gone = true;
            return Input::Detached;
        }
        Input::Bytes
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
