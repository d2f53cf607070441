//! The container's resolver: the sockets of [`ferry_dns::Resolver`].
//!
//! Its own two sockets are in the container's network namespace, and so are those towards servers that the container chose;
//! the others are in the host's. A socket belongs to the namespace its thread is in when it makes it, so the thread goes
//! there and back: two system calls, and nothing else runs meanwhile.
//!
//! The files that the daemon writes are looked at when a question comes, and read again when they are others.

mod client;
mod exchange;
mod files;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ferry_dns::{Action, From, Server, Transport};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use rustix::thread::LinkNameSpaceType;

use self::client::Connection;
use self::exchange::{Exchange, Heard};
use self::files::Files;

/// Questions taken at once, so that a container that floods its resolver does not starve its own output.
const BATCH: usize = 64;
/// Clients by TCP at the same time; one more takes the place of the one that has been quiet for longest.
const MAX_CONNECTIONS: usize = 32;

pub(super) struct Resolver {
    udp: OwnedFd,
    tcp: OwnedFd,
    container: OwnedFd,
    host: OwnedFd,
    files: Files,
    names: ferry_dns::Resolver<Asker>,
    connections: Vec<Connection>,
    exchanges: Vec<Exchange>,
    /// The number of the next connection.
    next: u64,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asker {
    Udp(SocketAddr),
    Tcp(u64),
}

/// Which of the sockets is ready. Numbers, since places change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready {
    Udp,
    Tcp,
    Connection(u64),
    Exchange(u64),
}

impl Resolver {
    pub fn new(settings: &Path, udp: OwnedFd, tcp: OwnedFd) -> io::Result<Self> {
        for socket in [&udp, &tcp] {
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        let host = rustix::fs::open(
            "/proc/thread-self/ns/net",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            container: ferry_sys::ns::of_socket(udp.as_fd())?,
            host,
            udp,
            tcp,
            files: Files::new(settings),
            names: ferry_dns::Resolver::new(random),
            connections: Vec::new(),
            exchanges: Vec::new(),
            next: 0,
        })
    }

    /// Gives what to wait for to `add`.
    pub fn wait_for<'s>(&'s self, mut add: impl FnMut(Ready, BorrowedFd<'s>, PollFlags)) {
        add(Ready::Udp, self.udp.as_fd(), PollFlags::IN);
        add(Ready::Tcp, self.tcp.as_fd(), PollFlags::IN);
        for connection in &self.connections {
            add(
                Ready::Connection(connection.number),
                connection.as_fd(),
                connection.flags(),
            );
        }
        for exchange in &self.exchanges {
            add(Ready::Exchange(exchange.number), exchange.as_fd(), exchange.flags());
        }
    }

    /// How long until [`Resolver::expire`] has something to do.
    pub fn due(&self) -> Option<Duration> {
        let quiet = self.connections.iter().map(Connection::quiet_until).min();
        let due = [self.names.next_deadline(), quiet].into_iter().flatten().min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    pub fn handle(&mut self, ready: Ready, flags: PollFlags, buffer: &mut [u8]) {
        match ready {
            Ready::Udp => self.take_datagrams(buffer),
            Ready::Tcp => self.accept(),
            Ready::Connection(number) => self.serve(number, flags, buffer),
            Ready::Exchange(number) => self.listen(number, flags, buffer),
        }
    }

    /// What is due by time; costs nothing when nothing is.
    pub fn expire(&mut self) {
        if self.names.in_flight() == 0 && self.connections.is_empty() {
            return;
        }
        let now = Instant::now();
        self.connections.retain(|connection| connection.quiet_until() > now);
        let mut actions = Vec::new();
        self.names.expire(now, &mut actions);
        self.act(now, actions);
    }

    fn take_datagrams(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        let mut actions = Vec::new();
        self.files.refresh(&mut self.names, &mut actions);
        for _ in 0..BATCH {
            match rustix::net::recvfrom(&self.udp, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _, Some(from))) => {
                    if let Ok(from) = from.try_into() {
                        let asker = Asker::Udp(from);
                        self.names
                            .query(now, Transport::Udp, asker, &buffer[..length], &mut actions);
                    }
                }
                Ok((_, _, None)) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.act(now, actions);
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.tcp, flags) else {
            return;
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            let quietest = (0..self.connections.len()).min_by_key(|&index| self.connections[index].quiet_until());
            if let Some(index) = quietest {
                self.connections.swap_remove(index);
            }
        }
        self.next += 1;
        self.connections.push(Connection::new(self.next, socket));
    }

    fn serve(&mut self, number: u64, flags: PollFlags, buffer: &mut [u8]) {
        let now = Instant::now();
        let mut actions = Vec::new();
        let Some(index) = self.connection(number) else { return };
        let connection = &mut self.connections[index];
        if flags.contains(PollFlags::OUT) {
            connection.flush();
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            connection.read(buffer);
        }
        let queries = connection.take_queries();
        if !queries.is_empty() {
            self.files.refresh(&mut self.names, &mut actions);
        }
        for query in queries {
            let asker = Asker::Tcp(number);
            self.names.query(now, Transport::Tcp, asker, &query, &mut actions);
        }
        self.act(now, actions);
    }

    /// Something of a server's.
    fn listen(&mut self, number: u64, flags: PollFlags, buffer: &mut [u8]) {
        let now = Instant::now();
        let mut actions = Vec::new();
        // A datagram that is no answer may be followed by the one that is.
        for _ in 0..BATCH {
            let Some(exchange) = self.exchanges.iter_mut().find(|exchange| exchange.number == number) else {
                break;
            };
            match exchange.progress(flags, buffer) {
                Heard::Nothing => break,
                Heard::Failed => self.names.failed(now, number, &mut actions),
                Heard::Message(range) => self.names.answer(now, number, &buffer[range], &mut actions),
            }
            // Closes what is answered.
            self.act(now, std::mem::take(&mut actions));
        }
    }

    fn act(&mut self, now: Instant, actions: Vec<Action<Asker>>) {
        let mut queue = VecDeque::from(actions);
        while let Some(action) = queue.pop_front() {
            match action {
                Action::Reply {
                    client: Asker::Udp(to),
                    bytes,
                } => {
                    // A client that does not take its answers, or is gone, asks again or does not.
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let _ = rustix::net::sendto(&self.udp, &bytes, flags, &to);
                }
                Action::Reply {
                    client: Asker::Tcp(number),
                    bytes,
                } => {
                    if let Some(index) = self.connection(number) {
                        self.connections[index].send(&bytes);
                    }
                }
                Action::Ask {
                    exchange,
                    server,
                    transport,
                    bytes,
                } => {
                    if self.ask(exchange, &server, transport, &bytes).is_err() {
                        let mut more = Vec::new();
                        self.names.failed(now, exchange, &mut more);
                        queue.extend(more);
                    }
                }
                Action::Close { exchange } => self.exchanges.retain(|known| known.number != exchange),
            }
        }
        self.connections.retain(|connection| !connection.is_over());
    }

    fn ask(&mut self, number: u64, server: &Server, transport: Transport, bytes: &[u8]) -> io::Result<()> {
        if let Some(known) = self.exchanges.iter_mut().find(|known| known.number == number) {
            return known.again(bytes);
        }
        let socket = match server.from {
            From::Host => exchange::socket(server, transport)?,
            From::Container => {
                enter(&self.container)?;
                let socket = exchange::socket(server, transport);
                // Cannot fail for a namespace that the thread came from; if it did, servers of the host would be asked from the
                // container, which can do less.
                enter(&self.host)?;
                socket?
            }
        };
        self.exchanges
            .push(Exchange::start(number, socket, server, transport, bytes)?);
        Ok(())
    }

    fn connection(&self, number: u64) -> Option<usize> {
        self.connections
            .iter()
            .position(|connection| connection.number == number)
    }
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?)
}

/// From the kernel: 16 bits that nobody can guess.
fn random() -> u16 {
    let mut bytes = [0; 2];
    // Does not fail for so few bytes; it waits until the kernel has collected enough at boot.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}
