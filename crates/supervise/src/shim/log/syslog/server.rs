//! The socket to a syslog server, with TLS over it or without.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use ferry_tls::{ClientFiles, Connector, Session};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::logging::{Syslog, SyslogAddress, SyslogTls};
use crate::shim::log::Ready;

/// Where a host's syslog may listen, as Go's log/syslog looks.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

#[derive(Debug)]
pub struct Server {
    socket: OwnedFd,
    stream: bool,
    session: Option<Session>,
}

/// Why something was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// There is no room now.
    Later,
    TooLong,
    Refused,
    Gone,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match (error.kind(), Errno::from_io_error(&error)) {
            (ErrorKind::WouldBlock, _) => Self::Later,
            (_, Some(Errno::MSGSIZE)) => Self::TooLong,
            (ErrorKind::ConnectionRefused, _) => Self::Refused,
            _ => Self::Gone,
        }
    }
}

/// What a start needs of the files.
pub fn connector(tls: &SyslogTls) -> io::Result<Connector> {
    let files = ClientFiles {
        ca: tls.ca.clone(),
        identity: tls.identity.clone(),
        skip_verify: tls.skip_verify,
    };
    Connector::read(&files).map_err(io::Error::other)
}

impl Server {
    pub fn connect(spec: &Syslog, connector: Option<&Connector>) -> io::Result<Self> {
        let unix = |path: &Path, kind| {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket(AddressFamily::UNIX, kind)?;
            rustix::net::connect(&socket, &address)?;
            Ok::<_, Errno>(Self::new(socket, kind))
        };
        let internet = |address: &std::net::SocketAddr, kind| {
            let family = if address.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = socket(family, kind)?;
            match rustix::net::connect(&socket, address) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(Self::new(socket, kind)),
                Err(error) => Err(error),
            }
        };
        let mut server = match &spec.address {
            SyslogAddress::Local => {
                let kinds = [SocketType::DGRAM, SocketType::STREAM];
                let places = kinds.iter().flat_map(|kind| LOCAL.map(|path| (*kind, path)));
                let mut servers = places.filter_map(|(kind, path)| unix(Path::new(path), kind).ok());
                let none = || {
                    io::Error::other(
                        "Unix syslog delivery error: this host's syslog does not listen; give --log-opt syslog-address",
                    )
                };
                return servers.next().ok_or_else(none);
            }
            SyslogAddress::Unix(path) => unix(path, SocketType::STREAM),
            SyslogAddress::UnixDatagram(path) => unix(path, SocketType::DGRAM),
            SyslogAddress::Udp(address) => internet(address, SocketType::DGRAM),
            SyslogAddress::Tcp(address) => internet(address, SocketType::STREAM),
        };
        if let (Ok(server), Some(connector), Some(tls)) = (&mut server, connector, &spec.tls) {
            server.session = Some(connector.session(&tls.host)?);
        }
        Ok(server?)
    }

    fn new(socket: OwnedFd, kind: SocketType) -> Self {
        Self {
            socket,
            stream: kind == SocketType::STREAM,
            session: None,
        }
    }

    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Waits until the server is there, and has proved who it is.
    pub fn greet(&mut self, limit: Duration) -> io::Result<()> {
        let end = Instant::now() + limit;
        self.wait(limit)?;
        if self.stream {
            sockopt::socket_error(&self.socket)??;
        }
        while !self.is_ready() {
            self.flush().map_err(|error| match ferry_tls::of_io(&error) {
                Some(tls) => io::Error::other(ferry_tls::explain(tls)),
                None => error,
            })?;
            if !self.is_ready() {
                self.wait(end.saturating_duration_since(Instant::now()))?;
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.session.as_ref().is_none_or(Session::is_ready)
    }

    /// Whether something that was sent is still here.
    pub fn is_behind(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_behind)
    }

    /// What has to be waited for before anything can be sent.
    pub fn ready(&self) -> Ready<'_> {
        let flags = match self.is_ready() || self.is_behind() {
            true => PollFlags::OUT,
            false => PollFlags::IN,
        };
        (self.socket.as_fd(), flags)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Failed> {
        let mut socket = Socket(&self.socket);
        Ok(match &mut self.session {
            Some(session) => session.send(&mut socket, bytes)?,
            None => socket.write(bytes)?,
        })
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.exchange(&mut Socket(&self.socket)),
            None => Ok(()),
        }
    }

    /// Tells a server that speaks TLS that no more comes, and waits until it closes in turn (RFC 5425 section 4.4): what it
    /// says to a socket that is closed, a session's ticket for instance, ends the connection, with all that is on its way.
    pub fn close(&mut self, end: Instant) {
        let Some(session) = &mut self.session else { return };
        session.close(&mut Socket(&self.socket));
        while session.exchange(&mut Socket(&self.socket)).is_ok() {
            let flags = match session.is_behind() {
                true => PollFlags::IN | PollFlags::OUT,
                false => {
                    // For one that does not look at what TLS says.
                    let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
                    PollFlags::IN
                }
            };
            let left = end.saturating_duration_since(Instant::now());
            let mut sockets = [PollFd::new(&self.socket, flags)];
            let limit = left.try_into().unwrap_or_default();
            if !matches!(poll(&mut sockets, Some(&limit)), Ok(1) | Err(Errno::INTR)) {
                return;
            }
        }
    }

    /// Until it is ready; fails when that is later than `limit`.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = limit.try_into().map_err(|_| Errno::INVAL)?;
        let (socket, flags) = self.ready();
        match poll(&mut [PollFd::from_borrowed_fd(socket, flags)], Some(&limit)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            session.close(&mut Socket(&self.socket));
        }
    }
}

/// It never waits.
struct Socket<'a>(&'a OwnedFd);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = retry(|| rustix::net::recv(self.0, &mut *buffer, RecvFlags::DONTWAIT))?;
        Ok(count)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(retry(|| rustix::net::send(self.0, bytes, flags))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

fn socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}
