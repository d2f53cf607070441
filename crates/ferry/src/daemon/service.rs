//! What the daemon and the service manager say to each other: sockets that were opened for it, and how far it is
//! (sd_listen_fds(3), sd_notify(3)).

use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::{Context as _, Result, bail};
use ferry_server::{Acceptor, Listener};
use listenfd::ListenFd;
use rustix::io::FdFlags;

/// The number of the first socket that is passed.
const FIRST: i32 = 3;

/// The sockets that were opened for this process, each taken once.
pub struct Inherited(ListenFd);

impl std::fmt::Debug for Inherited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inherited")
    }
}

impl Inherited {
    /// To be called once: whoever asks again gets none.
    pub fn of_environment() -> Self {
        Self(ListenFd::from_env())
    }

    /// All that are left, or the one of that number. TCP is served with TLS, if there is any.
    pub fn listeners(&mut self, number: Option<i32>, tls: Option<&Acceptor>) -> Result<Vec<Listener>> {
        let numbers: Vec<usize> = match number {
            None => (0..self.0.len()).collect(),
            Some(number) => vec![usize::try_from(number - FIRST).unwrap_or(usize::MAX)],
        };
        let mut listeners = Vec::new();
        for index in numbers {
            listeners.extend(self.listener(index, tls)?);
        }
        if listeners.is_empty() {
            // Docker's words.
            bail!(
                "no sockets found via socket activation: make sure the service was started by systemd (fd:// needs ferry.socket; \
                 without it use unix:///run/ferry/ferry.sock)"
            );
        }
        Ok(listeners)
    }

    fn listener(&mut self, index: usize, tls: Option<&Acceptor>) -> Result<Option<Listener>> {
        let what = || format!("use the socket {} that systemd passed", index.saturating_add(3));
        if let Ok(Some(socket)) = self.0.take_unix_listener(index) {
            private(&socket)?;
            return Listener::inherited_unix(socket).map(Some).with_context(what);
        }
        match self.0.take_tcp_listener(index).with_context(what)? {
            Some(socket) => {
                private(&socket)?;
                Listener::inherited_tcp(socket, tls.cloned())
                    .map(Some)
                    .with_context(what)
            }
            None => Ok(None),
        }
    }
}

/// No program that this one starts has it.
fn private(socket: &impl AsFd) -> Result<()> {
    rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC).context("keep a socket from other programs")
}

/// Where the manager listens, if there is one that wants to know.
#[derive(Debug, Clone, Default)]
pub struct Manager(Option<String>);

impl Manager {
    pub fn of_environment() -> Self {
        Self(std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty()))
    }

    pub fn ready(&self) {
        self.say("READY=1");
    }

    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Until `ready` is said again.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// A manager that does not listen is no reason to fail.
    fn say(&self, text: &str) {
        let Some(path) = &self.0 else { return };
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(path),
        };
        let said = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
        if let Err(error) = said {
            tracing::warn!(%error, socket = path, "the service manager cannot be told: {text}");
        }
    }
}
