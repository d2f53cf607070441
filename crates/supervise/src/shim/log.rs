//! What becomes of the container's output beside the clients that are attached: it is cut into lines, which go to drivers.
//!
//! A log that cannot be written (a full disk, a server that is gone) costs lines, never the container.

mod file;
mod syslog;

use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::PollFlags;

use self::file::LogWriter;
use self::syslog::Sender;
use crate::log::{LINE, Line};
use crate::logging::Logging;

/// Between two attempts to reach a server that is gone.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// A socket, and what it has to be ready for.
pub(super) type Ready<'a> = (BorrowedFd<'a>, PollFlags);

/// Where lines go.
trait Driver: Debug {
    /// Takes a line, perhaps only into memory.
    fn take(&mut self, line: &Line<'_>);

    /// Gets out what it took, as far as that does not wait.
    fn flush(&mut self);

    /// Gets out what it took; this may wait, for a bounded time. It is not the end: more may come.
    fn finish(&mut self) {
        self.flush();
    }

    /// Whether it holds so much that the container has to wait.
    fn is_full(&self) -> bool {
        false
    }

    /// Something is to be flushed: when this is ready, or after a while if there is nothing to wait for.
    fn waits(&self) -> Option<Option<Ready<'_>>> {
        None
    }
}

#[derive(Debug)]
pub(super) struct Log {
    /// Unfinished lines of stdout and stderr.
    partial: [Vec<u8>; 2],
    drivers: Vec<Box<dyn Driver>>,
}

impl Log {
    pub fn open(logging: &Logging) -> io::Result<Self> {
        let mut drivers: Vec<Box<dyn Driver>> = Vec::new();
        if let Some(file) = &logging.file {
            drivers.push(Box::new(LogWriter::open(file.clone())?));
        }
        if let Some(syslog) = &logging.syslog {
            drivers.push(Box::new(Sender::connect(syslog.clone())?));
        }
        Ok(Self {
            partial: [Vec::new(), Vec::new()],
            drivers,
        })
    }

    /// Takes what `stream` (0: stdout, 1: stderr) said; whole lines are written at once.
    pub fn write(&mut self, stream: usize, mut bytes: &[u8]) {
        let now = Timestamp::now();
        while !bytes.is_empty() {
            let room = LINE - self.partial[stream].len();
            let window = &bytes[..bytes.len().min(room)];
            let (taken, complete) = match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (window.len(), window.len() == room),
            };
            if complete && self.partial[stream].is_empty() {
                self.push(stream, &bytes[..taken], now);
            } else {
                self.partial[stream].extend_from_slice(&bytes[..taken]);
                if complete {
                    let line = std::mem::take(&mut self.partial[stream]);
                    self.push(stream, &line, now);
                }
            }
            bytes = &bytes[taken..];
        }
        self.flush();
    }

    /// Writes unfinished lines; at the end of a stream.
    pub fn finish(&mut self) {
        for stream in 0..2 {
            let line = std::mem::take(&mut self.partial[stream]);
            if !line.is_empty() {
                self.push(stream, &line, Timestamp::now());
            }
        }
        for driver in &mut self.drivers {
            driver.finish();
        }
    }

    pub fn flush(&mut self) {
        for driver in &mut self.drivers {
            driver.flush();
        }
    }

    pub fn is_full(&self) -> bool {
        self.drivers.iter().any(|driver| driver.is_full())
    }

    /// See [`Driver::waits`].
    pub fn waits(&self) -> impl Iterator<Item = Option<Ready<'_>>> {
        self.drivers.iter().filter_map(|driver| driver.waits())
    }

    fn push(&mut self, stream: usize, bytes: &[u8], at: Timestamp) {
        let line = Line {
            stderr: stream == 1,
            at,
            bytes,
        };
        for driver in &mut self.drivers {
            driver.take(&line);
        }
    }
}
