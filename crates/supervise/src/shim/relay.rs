//! Ports of the host's that cannot be translated: `[::1]`, IPv6 for a container that has none, and all of a network that is
//! published through the host's input rules. Bytes go from socket to socket by `splice(2)`, without coming here.
//!
//! All its descriptors are behind one epoll descriptor, so the shim's own loop has one more to wait for, however many
//! connections there are. A turn does a bounded amount of work: the container's output does not wait for its visitors.

mod datagrams;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use self::datagrams::Sessions;
use self::stream::{Progress, Stream};
use crate::launch::{Relay, RelayProtocol};

/// Events taken in one turn.
const TURN: usize = 64;
/// Connections at the same time, as far as there are descriptors; the next ones wait in the listeners' queues.
const MAX_STREAMS: usize = 4096;
/// Descriptors of a connection: two sockets, two pipes.
const OF_A_STREAM: u64 = 6;
/// Descriptors that the container's streams and execs may need.
const RESERVED: u64 = 256;
const BACKLOG: i32 = 1024;

pub(super) struct Relays {
    epoll: OwnedFd,
    listeners: HashMap<u64, Listener>,
    streams: HashMap<u64, Stream>,
    sessions: Sessions,
    /// The numbers of everything start above it.
    last: u64,
    most: usize,
    /// No more connections are taken until one ends.
    paused: bool,
}

struct Listener {
    relay: Relay,
    socket: OwnedFd,
}

/// What epoll gives back: whose descriptor it is, and which of its descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Listener,
    /// A client's end, or the container's.
    End(usize),
    /// A session of a UDP listener.
    Session,
}

impl Place {
    fn data(self, number: u64) -> EventData {
        let place = match self {
            Place::Listener => 0,
            Place::End(0) => 1,
            Place::End(_) => 2,
            Place::Session => 3,
        };
        EventData::new_u64(number << 2 | place)
    }

    fn of(data: EventData) -> (Self, u64) {
        let place = match data.u64() & 3 {
            0 => Place::Listener,
            1 => Place::End(0),
            2 => Place::End(1),
            _ => Place::Session,
        };
        (place, data.u64() >> 2)
    }
}

impl Relays {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            listeners: HashMap::new(),
            streams: HashMap::new(),
            sessions: Sessions::default(),
            last: 0,
            most: most_streams(),
            paused: false,
        })
    }

    /// Listens at these and no others from now on. What goes on at those that stay goes on; on failure all is as it was. A
    /// port that shall lead elsewhere has to be given up first.
    pub fn set(&mut self, wanted: &[Relay]) -> Result<(), String> {
        let wanted: HashSet<Relay> = wanted.iter().copied().collect();
        let known: HashSet<Relay> = self.listeners.values().map(|listener| listener.relay).collect();
        let mut opened = Vec::new();
        for relay in wanted.difference(&known) {
            let failed = |error| format!("listen at {} ({}): {error}", relay.listen, relay.protocol);
            opened.push((*relay, bound(relay).map_err(failed)?));
        }
        let gone = self
            .listeners
            .extract_if(|_, listener| !wanted.contains(&listener.relay));
        for (number, _) in gone.collect::<Vec<_>>() {
            self.streams.retain(|_, stream| stream.listener != number);
            self.sessions.forget(number);
        }
        for (relay, socket) in opened {
            self.add(relay, socket).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn add(&mut self, relay: Relay, socket: OwnedFd) -> io::Result<()> {
        let number = self.next();
        if !self.paused || relay.protocol == RelayProtocol::Udp {
            epoll::add(&self.epoll, &socket, Place::Listener.data(number), EventFlags::IN)?;
        }
        self.listeners.insert(number, Listener { relay, socket });
        Ok(())
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// How long until [`Relays::expire`] has something to do.
    pub fn due(&self) -> Option<Duration> {
        let due = self.sessions.due()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Forgets who has been quiet for long.
    pub fn expire(&mut self) {
        self.sessions.expire();
    }

    /// Goes on with what is ready.
    pub fn handle(&mut self, buffer: &mut [u8]) {
        let mut events = Vec::with_capacity(TURN);
        let now = Some(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 });
        if epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), now).is_err() {
            return;
        }
        for Event { flags, data } in events {
            match Place::of(data) {
                (Place::Listener, number) => self.hear(number, buffer),
                (Place::End(end), number) => self.go_on(number, end, flags),
                (Place::Session, number) => {
                    let listener = self.sessions.listener(number);
                    if let Some(listener) = listener.and_then(|number| self.listeners.get(&number)) {
                        self.sessions.answer(number, &listener.socket, buffer);
                    }
                }
            }
        }
    }

    fn hear(&mut self, number: u64, buffer: &mut [u8]) {
        let Some(Listener { relay, socket }) = self.listeners.get(&number) else {
            return;
        };
        let to = relay.to;
        if relay.protocol == RelayProtocol::Udp {
            let (epoll, last) = (&self.epoll, &mut self.last);
            return self.sessions.pass_on((number, socket), to, buffer, |session| {
                *last += 1;
                epoll::add(epoll, session, Place::Session.data(*last), EventFlags::IN)?;
                Ok(*last)
            });
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(socket, flags) {
            Ok(client) => {
                let stream = self.next();
                // A container that cannot be asked at all is as one that refuses.
                if let Ok(mut opened) = Stream::open(number, client, to)
                    && opened.register(&self.epoll, stream).is_ok()
                {
                    self.streams.insert(stream, opened);
                }
                if self.streams.len() >= self.most {
                    self.pause(true);
                }
            }
            Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM)
                if !self.streams.is_empty() =>
            {
                self.pause(true);
            }
            // Who came is gone already; or nobody holds a descriptor here that could be given back.
            Err(_) => {}
        }
    }

    fn go_on(&mut self, number: u64, end: usize, flags: EventFlags) {
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let progress = stream.go_on(end, flags);
        let over = progress == Progress::Over || stream.register(&self.epoll, number).is_err();
        if over {
            self.streams.remove(&number);
            if self.paused {
                self.pause(false);
            }
        }
    }

    /// Takes no more connections, or takes them again.
    fn pause(&mut self, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        for (number, listener) in &self.listeners {
            if listener.relay.protocol == RelayProtocol::Udp {
                continue;
            }
            // Both fail only for what is not there, or is there already.
            let _ = match paused {
                true => epoll::delete(&self.epoll, &listener.socket),
                false => epoll::add(
                    &self.epoll,
                    &listener.socket,
                    Place::Listener.data(*number),
                    EventFlags::IN,
                ),
            };
        }
    }
}

impl AsFd for Relays {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn most_streams() -> usize {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let streams = allowed.map_or(u64::MAX, |allowed| allowed.saturating_sub(RESERVED) / OF_A_STREAM);
    usize::try_from(streams).unwrap_or(MAX_STREAMS).clamp(16, MAX_STREAMS)
}

/// A socket of the thread's network namespace at the relay's address.
fn bound(relay: &Relay) -> io::Result<OwnedFd> {
    let family = match relay.listen {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match relay.protocol {
        RelayProtocol::Tcp => SocketType::STREAM,
        RelayProtocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if relay.listen.is_ipv6() {
        // Each family has a listener of its own, or none.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match relay.protocol {
        RelayProtocol::Tcp => {
            // Connections of an earlier run that are over may still be remembered.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &relay.listen)?;
            rustix::net::listen(&socket, BACKLOG)?;
        }
        RelayProtocol::Udp => {
            ferry_sys::datagram::tell_destination(&socket)?;
            rustix::net::bind(&socket, &relay.listen)?;
        }
    }
    Ok(socket)
}

/// A socket towards the container.
fn towards(to: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match to {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}
