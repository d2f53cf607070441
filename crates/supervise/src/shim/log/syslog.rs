//! Lines for a syslog server, without waiting for it: what it does not take is kept up to a bound.
//!
//! The layouts are those of Docker's driver (RFC 3164, RFC 5424, and what local programs send); a message ends in a newline, which
//! is what separates them on a stream (RFC 6587, 3.4.2); over TLS those of RFC 5424 have their length before them (RFC 5425, 4.3).

mod server;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ferry_tls::Connector;
use jiff::tz::TimeZone;

use self::server::{Failed, Server};
use super::{AGAIN, Driver, Ready};
use crate::log::Line;
use crate::logging::{Syslog, SyslogAddress, SyslogLayout};

/// How long a start waits for the server, and an end for the rest to be taken.
const PATIENCE: Duration = Duration::from_secs(2);
const ERROR: u8 = 3;
const INFORMATIONAL: u8 = 6;

#[derive(Debug)]
pub(super) struct Sender {
    spec: Syslog,
    server: Option<Server>,
    tls: Option<Connector>,
    tried: Instant,
    messages: VecDeque<Vec<u8>>,
    /// Of all of them.
    bytes: usize,
    /// Of the first that were sent already.
    sent: usize,
    zone: TimeZone,
}

impl Sender {
    /// Fails when the server cannot be reached.
    pub fn connect(spec: Syslog) -> io::Result<Self> {
        let tls = spec.tls.as_ref().map(server::connector).transpose()?;
        let mut server = Server::connect(&spec, tls.as_ref())?;
        server.greet(PATIENCE)?;
        Ok(Self {
            spec,
            server: Some(server),
            tls,
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
        let is_long = matches!(self.spec.layout, SyslogLayout::Rfc5424 | SyslogLayout::Rfc5424Micro);
        if self.tls.is_some() && is_long {
            let length = format!("{} ", message.len());
            message.splice(..0, length.into_bytes());
        }
        message
    }

    fn is_behind(&self) -> bool {
        !self.messages.is_empty() || self.server.as_ref().is_some_and(Server::is_behind)
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
                self.server = Server::connect(&self.spec, self.tls.as_ref()).ok();
            }
            let Some(server) = &mut self.server else { return };
            match server.send(&message[self.sent..]) {
                Ok(count) if server.is_stream() && self.sent + count < message.len() => self.sent += count,
                // Too long for a datagram is lost, and so is what an earlier one's refusal (ICMP) is told by.
                Ok(_) | Err(Failed::TooLong) => self.drop_first(),
                Err(Failed::Refused) if matches!(self.spec.address, SyslogAddress::Udp(_)) => self.drop_first(),
                Err(Failed::Later) => return,
                Err(Failed::Refused | Failed::Gone) => {
                    self.server = None;
                    // A server cannot make anything of the rest of a message.
                    self.sent = 0;
                }
            }
        }
        if self.server.as_mut().is_some_and(|server| server.flush().is_err()) {
            self.server = None;
        }
    }

    fn finish(&mut self) {
        let end = Instant::now() + PATIENCE;
        self.flush();
        while self.is_behind() && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            match &self.server {
                Some(server) => drop(server.wait(left)),
                None => std::thread::sleep(left.min(AGAIN / 10)),
            }
            self.flush();
        }
        if let Some(mut server) = self.server.take() {
            server.close(end);
        }
    }

    fn is_full(&self) -> bool {
        self.spec.wait && self.bytes >= self.spec.buffer
    }

    fn waits(&self) -> Option<Option<Ready<'_>>> {
        self.is_behind().then(|| self.server.as_ref().map(Server::ready))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;

    fn spec(path: &Path, layout: SyslogLayout) -> Syslog {
        Syslog {
            address: SyslogAddress::UnixDatagram(path.to_owned()),
            tls: None,
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
