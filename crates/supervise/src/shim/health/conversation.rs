//! A check over a socket: somebody listens, and for HTTP somebody answers. Never waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// The most of an answer that is looked at for its first line.
const LINE: usize = 1024;

pub(super) struct Conversation {
    socket: OwnedFd,
    address: SocketAddr,
    connected: bool,
    /// What is still to be sent; `None` if a connection is all that is wanted.
    request: Option<Vec<u8>>,
    answer: Vec<u8>,
}

pub(super) struct Outcome {
    pub well: bool,
    pub text: String,
}

fn outcome(well: bool, text: String) -> Option<Outcome> {
    Some(Outcome { well, text })
}

/// The kernel's words, as Go's errors are.
fn words(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    text.to_lowercase()
}

impl Conversation {
    pub fn tcp(address: SocketAddr) -> Result<Self, String> {
        Self::connect(address, None)
    }

    pub fn http(address: SocketAddr, path: &str) -> Result<Self, String> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: ferry-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        Self::connect(address, Some(request.into_bytes()))
    }

    fn connect(address: SocketAddr, request: Option<Vec<u8>>) -> Result<Self, String> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let failed = |error| format!("connect to {address}: {}", words(error));
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failed)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(Self {
            socket,
            address,
            connected: false,
            request,
            answer: Vec::new(),
        })
    }

    pub fn wait_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        let sending = !self.connected || self.request.as_ref().is_some_and(|request| !request.is_empty());
        let flags = if sending { PollFlags::OUT } else { PollFlags::IN };
        (self.socket.as_fd(), flags)
    }

    /// Goes on as far as it goes without waiting; what came of it when it is over.
    pub fn go_on(&mut self, buffer: &mut [u8]) -> Option<Outcome> {
        let address = self.address;
        if !self.connected {
            let error = match rustix::net::sockopt::socket_error(&self.socket) {
                Ok(Ok(())) => None,
                Ok(Err(error)) | Err(error) => Some(error),
            };
            if let Some(error) = error {
                return outcome(false, format!("connect to {address}: {}", words(error)));
            }
            self.connected = true;
        }
        let Some(request) = &mut self.request else {
            return outcome(true, format!("connected to {address}"));
        };
        while !request.is_empty() {
            match rustix::net::send(&self.socket, request, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(request.drain(..sent)),
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(error) => return outcome(false, format!("ask {address}: {}", words(error))),
            }
        }
        loop {
            match rustix::net::recv(&self.socket, &mut *buffer, rustix::net::RecvFlags::empty()) {
                Ok((_, 0)) => return outcome(false, format!("{address} ended the connection without an answer")),
                Ok((_, count)) => {
                    let room = LINE - self.answer.len();
                    self.answer.extend_from_slice(&buffer[..count.min(room)]);
                    if let Some(end) = self.answer.iter().position(|&byte| byte == b'\n') {
                        return Some(judge(&self.answer[..end]));
                    }
                    if self.answer.len() == LINE {
                        return outcome(false, format!("{address} does not answer with HTTP"));
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(error) => return outcome(false, format!("hear from {address}: {}", words(error))),
            }
        }
    }
}

/// `HTTP/1.1 200 OK`.
fn judge(line: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    let mut words = text.split(' ');
    let http = words.next().is_some_and(|version| version.starts_with("HTTP/"));
    let code = words
        .next()
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse::<u16>().ok());
    match code {
        Some(code) if http => Outcome {
            well: (200..400).contains(&code),
            text,
        },
        _ => Outcome {
            well: false,
            text: format!("not an answer of HTTP: {text}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_and_three_hundred_are_well() {
        for (line, well) in [
            ("HTTP/1.1 200 OK\r", true),
            ("HTTP/1.0 204", true),
            ("HTTP/1.1 302 Found", true),
            ("HTTP/1.1 404 Not Found\r", false),
            ("HTTP/1.1 503 x", false),
            ("HTTP/1.1 2000 x", false),
            ("SSH-2.0-OpenSSH", false),
            ("", false),
            ("\u{0}\u{1}", false),
        ] {
            assert_eq!(judge(line.as_bytes()).well, well, "{line}");
        }
    }
}
