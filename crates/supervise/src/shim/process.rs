//! A process of the container with its streams: the first one, or an exec.
//!
//! Output goes to the log, then to every attached client. When a client is behind, its process's output is not read until
//! it has caught up: the client sets the pace, as with a pipe, and nothing is buffered without bound.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use ferry_runtime::Failure;
use ferry_runtime::start::Io;
use ferry_sys::Child;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::client::{Client, Input};
use super::health::Capture;
use super::log::Log;
use crate::wire::{Refusal, Reply};

/// Input that waits for the process is bounded by this, beyond which the client is not read.
const INPUT: usize = 64 * 1024;

/// The most a pipe or terminal holds, unless somebody enlarged it (fcntl(2) F_SETPIPE_SZ).
const PIPE: usize = 1024 * 1024;

pub(super) struct Process {
    /// `None`: the container's first process.
    pub exec: Option<String>,
    pub child: Child,
    pub streams: Streams,
    pub exit: Option<Ended>,
}

pub(super) struct Ended {
    pub since: Instant,
    /// The daemon knows, so the streams may end.
    pub noted: bool,
}

pub(super) struct Streams {
    pub terminal: bool,
    /// The terminal's master, or the write end of the input pipe.
    pub stdin: Option<OwnedFd>,
    /// Read ends of stdout and stderr; a terminal has only the first, its master.
    pub outputs: [Option<OwnedFd>; 2],
    pub log: Option<Log>,
    /// The process checks the container's health: what it says is part of the result.
    pub capture: Option<Capture>,
    pub clients: Vec<Client>,
    /// Typed and not yet taken by the process.
    pub input: Vec<u8>,
    /// Close the input when a client's ends and all of it was taken.
    close_with_client: bool,
    closing: bool,
}

impl Process {
    pub fn signal(&self, signal: i32) -> Result<Reply, Refusal> {
        match self.child.signal(signal) {
            Ok(()) => Ok(Reply::Done),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(Refusal::Gone),
            Err(error) => Err(Refusal::Other(error.to_string())),
        }
    }
}

/// What a process is started with, and our ends of its input and outputs.
type Ends = (Io, Option<OwnedFd>, [Option<OwnedFd>; 2]);

/// Of a new process; a terminal's come when there is one.
pub(super) fn ends_of(terminal: bool, open_stdin: bool) -> Result<Ends, Failure> {
    match terminal {
        true => Ok((Io::Terminal { plain: false }, None, [None, None])),
        false => pipes(open_stdin).map_err(|error| Failure::setup("make pipes", &error.into())),
    }
}

/// The process's ends of new pipes, and ours.
fn pipes(open_stdin: bool) -> rustix::io::Result<Ends> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
    let (out_read, stdout) = pipe()?;
    let (err_read, stderr) = pipe()?;
    let (stdin, write) = if open_stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (
            rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            None,
        )
    };
    for fd in [Some(&out_read), Some(&err_read), write.as_ref()].into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Ok((
        Io::Streams { stdin, stdout, stderr },
        write,
        [Some(out_read), Some(err_read)],
    ))
}

impl Streams {
    pub fn of_pipes(
        stdin: Option<OwnedFd>,
        outputs: [Option<OwnedFd>; 2],
        close_with_client: bool,
        log: Option<Log>,
    ) -> Self {
        let (clients, input) = (Vec::new(), Vec::new());
        Self {
            terminal: false,
            stdin,
            outputs,
            log,
            capture: None,
            clients,
            input,
            close_with_client,
            closing: false,
        }
    }

    /// `keep_input`: without it what clients type is dropped.
    pub fn of_terminal(master: OwnedFd, keep_input: bool, log: Option<Log>) -> rustix::io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let stdin = if keep_input {
            Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?)
        } else {
            None
        };
        let mut streams = Self::of_pipes(stdin, [Some(master), None], false, log);
        streams.terminal = true;
        Ok(streams)
    }

    /// Whether a client is behind, or a server of logs, so that output has to wait.
    pub fn is_blocked(&self) -> bool {
        self.clients.iter().any(Client::is_behind) || self.log.as_ref().is_some_and(Log::is_full)
    }

    /// Whether clients may send more input.
    pub fn takes_input(&self) -> bool {
        self.input.len() < INPUT && !self.closing
    }

    /// Reads one piece of output and passes it on. False when there is nothing more for now.
    pub fn pump(&mut self, stream: usize, buffer: &mut [u8]) -> bool {
        let Some(fd) = &self.outputs[stream] else { return false };
        match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => self.end_output(stream),
            Ok(count) => {
                if let Some(log) = &mut self.log {
                    log.write(stream, &buffer[..count]);
                }
                if let Some(capture) = &mut self.capture {
                    capture.write(&buffer[..count]);
                }
                for client in &mut self.clients {
                    client.send(stream, &buffer[..count]);
                }
                return true;
            }
            Err(Errno::AGAIN) => {}
            Err(Errno::INTR) => return true,
            // A terminal's end, or worse: either way there is no more.
            Err(_) => self.end_output(stream),
        }
        false
    }

    fn end_output(&mut self, stream: usize) {
        self.outputs[stream] = None;
        if self.terminal {
            self.stdin = None;
        }
    }

    /// Takes all the output there is. After the process's end this is all it said.
    pub fn drain(&mut self, buffer: &mut [u8]) {
        for stream in 0..2 {
            // What was said before the end fits the pipe; a process left behind may go on writing for ever.
            let mut pieces = PIPE.div_ceil(buffer.len()) + 1;
            while pieces > 0 && self.pump(stream, buffer) {
                pieces -= 1;
            }
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    /// Reads from client `index`; true if it detached.
    pub fn read_client(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let came = self.clients[index].read(buffer, &mut self.input);
        self.after_input(index, &came)
    }

    /// Takes what client `index` sent with its request.
    pub fn give_client(&mut self, index: usize, bytes: &[u8]) -> bool {
        let came = self.clients[index].take(bytes, &mut self.input);
        self.after_input(index, &came)
    }

    fn after_input(&mut self, _index: usize, came: &Input) -> bool {
        if self.stdin.is_none() {
            self.input.clear();
        }
        if matches!(came, Input::End) && self.close_with_client {
            self.closing = true;
        }
        self.feed();
        matches!(came, Input::Detached)
    }

    /// Gives the process what was typed, as far as it takes it.
    pub fn feed(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        let mut taken = 0;
        while taken < self.input.len() {
            match rustix::io::write(stdin, &self.input[taken..]) {
                Ok(count) => taken += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    taken = self.input.len();
                    self.closing = true;
                }
            }
        }
        self.input.drain(..taken);
        if self.input.is_empty() {
            self.input = Vec::new();
            if self.closing {
                self.stdin = None;
            }
        }
    }

    /// Sends what was held back, and forgets clients that are gone.
    pub fn sweep(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        for client in self.clients.iter_mut().filter(|client| client.is_held()) {
            client.flush();
        }
        let before = self.clients.len();
        self.clients.retain(|client| !client.gone);
        if self.clients.len() < before && self.close_with_client && self.clients.iter().all(|client| !client.reading) {
            self.closing = true;
            self.feed();
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) -> rustix::io::Result<()> {
        let Some(master) = self.outputs[0].as_ref().filter(|_| self.terminal) else {
            return Err(Errno::NOTTY);
        };
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(master.as_fd(), size)
    }
}
