//! Lines for a syslog server, without waiting for it: what it does not take is kept up to a bound.
//!
//! The layouts are those of Docker's driver (RFC 3164, RFC 5424, and what local programs send); a message ends in a newline, which
//! is what separates them on a stream (RFC 6587, 3.4.2).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::{AGAIN, Driver};
use crate::log::Line;
use crate::logging::{Syslog, SyslogAddress, SyslogLayout};

/// How long a start waits for the server, and an end for the rest to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where a host's syslog may listen, as Go's log/syslog looks.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const ERROR: u8 = 3;
const INFORMATIONAL: u8 = 6;

#[derive(Debug)]
pub(super) struct Sender {
    spec: Syslog,
    server: Option<Server>,
    tried: Instant,
    messages: VecDeque<Vec<u8>>,
    /// Of all of them.
    bytes: usize,
    /// Of the first that were sent already.
    sent: usize,
    zone: TimeZone,
}

#[derive(Debug)]
struct Server {
    socket: OwnedFd,
    stream: bool,
}

impl Sender {
    /// Fails when the server cannot be reached.
    pub fn connect(spec: Syslog) -> io::Result<Self> {
        let server = Server::connect(&spec.address)?;
        server.wait(PATIENCE)?;
        if server.stream {
            sockopt::socket_error(&server.socket)??;
        }
        Ok(Self {
            spec,
            server: Some(server),
            tried: Instant::now(),
            messages: VecDeque::new(),
            bytes: 0,
            sent: 0,
            zone: TimeZone::system(),
        })
    }

    fn message(&self, line: &Line<'_>) -> Vec<u8> {
        let severity = if line.stderr { ERROR } else { INFORMATIONAL };
        let priority = u32::from(self.spec.facility) * 8 + u32::from(severity);
        let at = line.at.to_zoned(self.zone.clone());
        let (host, tag, pid) = (&self.spec.hostname, &self.spec.tag, std::process::id());
        let short = at.strftime("%b %e %H:%M:%S");
        let long = |time: &str| format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - ");
        let mut message = match self.spec.layout {
            SyslogLayout::Unix => format!("<{priority}>{short} {tag}[{pid}]: "),
            SyslogLayout::Rfc3164 => format!("<{priority}>{short} {host} {tag}[{pid}]: "),
            SyslogLayout::Rfc5424 => long(&at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()),
            SyslogLayout::Rfc5424Micro => long(&at.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string()),
        }
        .into_bytes();
        message.extend_from_slice(line.bytes);
        if !message.ends_with(b"\n") {
            message.push(b'\n');
        }
        message
    }

    fn drop_first(&mut self) {
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.len();
        }
        self.sent = 0;
    }
}

impl Driver for Sender {
    fn take(&mut self, line: &Line<'_>) {
        // A container that may be made to wait has been; what is too much all the same is what it had said before.
        if self.bytes < self.spec.buffer || (self.spec.wait && self.bytes < 2 * self.spec.buffer) {
            let message = self.message(line);
            self.bytes += message.len();
            self.messages.push_back(message);
        }
    }

    fn flush(&mut self) {
        while let Some(message) = self.messages.front() {
            if self.server.is_none() {
                if self.tried.elapsed() < AGAIN {
                    return;
                }
                self.tried = Instant::now();
                self.server = Server::connect(&self.spec.address).ok();
            }
            let Some(server) = &self.server else { return };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&server.socket, &message[self.sent..], flags) {
                Ok(count) if server.stream && self.sent + count < message.len() => self.sent += count,
                // Too long for a datagram is lost, and so is what an earlier one's refusal (ICMP) is told by.
                Ok(_) | Err(Errno::MSGSIZE) => self.drop_first(),
                Err(Errno::CONNREFUSED) if matches!(self.spec.address, SyslogAddress::Udp(_)) => self.drop_first(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.server = None;
                    // A server cannot make anything of the rest of a message.
                    self.sent = 0;
                }
            }
        }
    }

    fn finish(&mut self) {
        let end = Instant::now() + PATIENCE;
        self.flush();
        while !self.messages.is_empty() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            match &self.server {
                Some(server) => drop(server.wait(left)),
                None => std::thread::sleep(left.min(AGAIN / 10)),
            }
            self.flush();
        }
    }

    fn is_full(&self) -> bool {
        self.spec.wait && self.bytes >= self.spec.buffer
    }

    fn waits(&self) -> Option<Option<BorrowedFd<'_>>> {
        let socket = || self.server.as_ref().map(|server| server.socket.as_fd());
        (!self.messages.is_empty()).then(socket)
    }
}

impl Server {
    fn connect(address: &SyslogAddress) -> io::Result<Self> {
        let unix = |path: &Path, kind| {
            let address = SocketAddrUnix::new(path)?;
            let socket = socket(AddressFamily::UNIX, kind)?;
            rustix::net::connect(&socket, &address)?;
            Ok::<_, Errno>(Self {
                socket,
                stream: kind == SocketType::STREAM,
            })
        };
        let internet = |address: &std::net::SocketAddr, kind| {
            let family = if address.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = socket(family, kind)?;
            match rustix::net::connect(&socket, address) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(Self {
                    socket,
                    stream: kind == SocketType::STREAM,
                }),
                Err(error) => Err(error),
            }
        };
        let server = match address {
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
        Ok(server?)
    }

    /// Until something can be sent; fails when that is later than `limit`.
    fn wait(&self, limit: Duration) -> io::Result<()> {
        let limit = limit.try_into().map_err(|_| Errno::INVAL)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], Some(&limit)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn socket(family: AddressFamily, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn spec(path: &Path, layout: SyslogLayout) -> Syslog {
        Syslog {
            address: SyslogAddress::UnixDatagram(path.to_owned()),
            facility: 3,
            layout,
            tag: "web".to_owned(),
            hostname: "here".to_owned(),
            buffer: 1000,
            wait: false,
        }
    }

    #[test]
    fn messages_have_the_layout_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let pid = std::process::id();
        let cases = [
            (SyslogLayout::Unix, format!("<30>Jan  2 03:04:05 web[{pid}]: hello\n")),
            (
                SyslogLayout::Rfc3164,
                format!("<30>Jan  2 03:04:05 here web[{pid}]: hello\n"),
            ),
            (
                SyslogLayout::Rfc5424,
                format!("<30>1 2026-01-02T03:04:05+00:00 here web {pid} web - hello\n"),
            ),
            (
                SyslogLayout::Rfc5424Micro,
                format!("<30>1 2026-01-02T03:04:05.000007+00:00 here web {pid} web - hello\n"),
            ),
        ];
        for (layout, expected) in cases {
            let mut sender = Sender::connect(spec(&path, layout)).unwrap();
            sender.zone = TimeZone::UTC;
            sender.take(&Line {
                stderr: false,
                at: "2026-01-02T03:04:05.000007Z".parse().unwrap(),
                bytes: b"hello\n",
            });
            sender.finish();
            let mut buffer = [0; 200];
            let count = server.recv(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..count]), expected);
        }
    }

    #[test]
    fn a_server_that_takes_nothing_costs_lines_and_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _server = UnixDatagram::bind(&path).unwrap();
        let mut sender = Sender::connect(spec(&path, SyslogLayout::Unix)).unwrap();
        for _ in 0..5000 {
            sender.take(&Line {
                stderr: true,
                at: jiff::Timestamp::UNIX_EPOCH,
                bytes: &[b'x'; 100],
            });
            sender.flush();
        }
        assert!(sender.bytes <= 1200, "{}", sender.bytes);
        assert!(sender.waits().is_some() && !sender.is_full());
    }
}
