//! A client that asks by TCP: messages with their length before them (RFC 1035, 4.2.2; RFC 7766).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

/// How long a connection may be quiet.
const QUIET: Duration = Duration::from_secs(30);
/// No query is longer.
const MAX_QUERY: usize = 4096;
/// A client that takes no answers is given no more.
const MAX_PENDING: usize = 128 * 1024;
/// Queries taken at once.
const MAX_QUERIES: usize = 64;

pub(super) struct Connection {
    pub number: u64,
    socket: OwnedFd,
    /// Read, and not a whole query yet.
    input: Vec<u8>,
    /// What the connection did not take yet.
    output: Vec<u8>,
    heard: Instant,
    /// Queries without an answer yet.
    waiting: usize,
    /// The client sends no more; it may wait for answers still.
    ended: bool,
    gone: bool,
}

impl Connection {
    pub fn new(number: u64, socket: OwnedFd) -> Self {
        Self {
            number,
            socket,
            input: Vec::new(),
            output: Vec::new(),
            heard: Instant::now(),
            waiting: 0,
            ended: false,
            gone: false,
        }
    }

    pub fn flags(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        if !self.ended && self.output.len() <= MAX_PENDING {
            flags |= PollFlags::IN;
        }
        if !self.output.is_empty() {
            flags |= PollFlags::OUT;
        }
        flags
    }

    pub fn quiet_until(&self) -> Instant {
        self.heard + QUIET
    }

    /// Nothing will come of it any more.
    pub fn is_over(&self) -> bool {
        self.gone || (self.ended && self.waiting == 0 && self.output.is_empty())
    }

    pub fn read(&mut self, buffer: &mut [u8]) {
        // A query that is cut short is at most that long; more comes with the next read.
        let room = buffer.len().min(MAX_QUERIES * 64);
        match rustix::io::read(&self.socket, &mut buffer[..room]) {
            Ok(0) if self.ended => self.gone = true,
            Ok(0) => self.ended = true,
            Ok(length) => {
                self.heard = Instant::now();
                self.input.extend_from_slice(&buffer[..length]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
    }

    /// The whole queries that have come.
    pub fn take_queries(&mut self) -> Vec<Vec<u8>> {
        let mut queries = Vec::new();
        let mut rest = self.input.as_slice();
        while let Some((length, body)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > MAX_QUERY {
                self.gone = true;
                break;
            }
            let Some((query, after)) = body.split_at_checked(length) else {
                break;
            };
            queries.push(query.to_vec());
            rest = after;
        }
        self.input = rest.to_vec();
        self.waiting += queries.len();
        queries
    }

    pub fn send(&mut self, answer: &[u8]) {
        self.waiting = self.waiting.saturating_sub(1);
        let Ok(length) = u16::try_from(answer.len()) else {
            return;
        };
        if self.output.len() > MAX_PENDING {
            self.gone = true;
            return;
        }
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(answer);
        self.flush();
    }

    pub fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.output.len() && !self.gone {
            match rustix::net::send(
                &self.socket,
                &self.output[sent..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.gone = true,
            }
        }
        self.output.drain(..sent);
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
