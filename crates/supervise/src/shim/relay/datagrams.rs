//! UDP: whoever sends is given a socket of its own towards the container, by which the answers are known.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ferry_sys::datagram;
use rustix::net::{RecvFlags, SendFlags, SocketType};

/// As long as Docker remembers who sent something.
const QUIET: Duration = Duration::from_secs(90);
/// How often it is looked for who has been quiet.
const SWEEP: Duration = Duration::from_secs(15);
/// At the same time; one more takes the place of the one that has been quiet for longest.
const MAX: usize = 4096;
/// Datagrams of a turn.
const TURN: usize = 64;

#[derive(Default)]
pub(super) struct Sessions {
    sessions: HashMap<u64, Session>,
    clients: HashMap<Client, u64>,
    next_sweep: Option<Instant>,
}

/// By which listener somebody came, who, and to which address of ours: answers come from there.
type Client = (u64, SocketAddr, Option<IpAddr>);

struct Session {
    client: Client,
    socket: OwnedFd,
    last: Instant,
}

impl Sessions {
    /// When to look for who has been quiet.
    pub fn due(&self) -> Option<Instant> {
        self.next_sweep
    }

    pub fn expire(&mut self) {
        let now = Instant::now();
        if self.next_sweep.is_some_and(|due| due <= now) {
            self.keep(|session| session.last + QUIET > now);
        }
    }

    /// The listener is gone.
    pub fn forget(&mut self, listener: u64) {
        self.keep(|session| session.client.0 != listener);
    }

    fn keep(&mut self, keep: impl Fn(&Session) -> bool) {
        self.sessions.retain(|_, session| keep(session));
        self.clients.retain(|_, number| self.sessions.contains_key(number));
        self.next_sweep = (!self.sessions.is_empty()).then(|| Instant::now() + SWEEP);
    }

    /// Passes on what has come to a listener. `register` has a new session's socket waited for, and gives it a number.
    pub fn pass_on(
        &mut self,
        (number, listener): (u64, &OwnedFd),
        to: SocketAddr,
        buffer: &mut [u8],
        mut register: impl FnMut(&OwnedFd) -> io::Result<u64>,
    ) {
        for _ in 0..TURN {
            let Ok((length, from, at)) = datagram::receive(listener, buffer) else {
                return;
            };
            let client = (number, from, at);
            let known = self
                .clients
                .get(&client)
                .and_then(|number| self.sessions.get_mut(number));
            let session = match known {
                Some(session) => session,
                // A datagram may be lost; the sender will send again.
                None => match self.open(client, to, &mut register) {
                    Ok(session) => session,
                    Err(_) => continue,
                },
            };
            session.last = Instant::now();
            // Refused or unreachable: told to nobody, as by a wire.
            let _ = rustix::net::send(
                &session.socket,
                &buffer[..length],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
        }
    }

    fn open(
        &mut self,
        client: Client,
        to: SocketAddr,
        register: &mut impl FnMut(&OwnedFd) -> io::Result<u64>,
    ) -> io::Result<&mut Session> {
        if self.sessions.len() >= MAX {
            let quietest = self.sessions.iter().min_by_key(|(_, session)| session.last);
            if let Some(number) = quietest.map(|(number, _)| *number)
                && let Some(session) = self.sessions.remove(&number)
            {
                self.clients.remove(&session.client);
            }
        }
        let socket = super::towards(to, SocketType::DGRAM)?;
        let number = register(&socket)?;
        let last = Instant::now();
        self.next_sweep.get_or_insert(last + SWEEP);
        self.clients.insert(client, number);
        let session = Session { client, socket, last };
        Ok(self.sessions.entry(number).or_insert(session))
    }

    /// By which listener the session's client came.
    pub fn listener(&self, number: u64) -> Option<u64> {
        self.sessions.get(&number).map(|session| session.client.0)
    }

    /// Passes on what the container answers.
    pub fn answer(&mut self, number: u64, listener: &OwnedFd, buffer: &mut [u8]) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        let (_, client, at) = session.client;
        for _ in 0..TURN {
            match rustix::net::recv(&session.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    session.last = Instant::now();
                    let _ = datagram::send(listener, &buffer[..length], client, at);
                }
                // That the container refuses is reported once, and with that over.
                Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
    }
}
