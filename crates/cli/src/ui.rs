//! Where output goes and what kind of thing is at the other end.

use std::{
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{event, io::Errno, termios};
use tokio::io::unix::AsyncFd;

/// How much is written at once to something that may block: what a pipe takes whole when it says it is writable (pipe(7)).
const PIECE: usize = 4096;

/// A standard stream, or memory in tests.
#[derive(Debug)]
pub enum Output {
    Fd(BorrowedFd<'static>),
    Memory(Vec<u8>),
}

#[derive(Debug)]
pub struct Ui {
    pub stdout: Output,
    pub stderr: Output,
    /// None when there is nothing to read (tests).
    pub stdin: Option<BorrowedFd<'static>>,
    /// What was wrong first, for a person who may have meant something else.
    pub complaint: Option<String>,
}

/// Which of the two a byte goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Stdout,
    Stderr,
}

impl Ui {
    /// The process's own standard streams.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            stdout: Output::Fd(rustix::stdio::stdout()),
            stderr: Output::Fd(rustix::stdio::stderr()),
            stdin: Some(rustix::stdio::stdin()),
            complaint: None,
        }
    }

    /// Collects what is written.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            stdout: Output::Memory(Vec::new()),
            stderr: Output::Memory(Vec::new()),
            stdin: None,
            complaint: None,
        }
    }

    /// What [`Ui::memory`] has collected on stdout.
    #[must_use]
    pub fn printed(&self) -> String {
        self.stdout.text()
    }

    /// What [`Ui::memory`] has collected on stderr.
    #[must_use]
    pub fn complained(&self) -> String {
        self.stderr.text()
    }

    /// Text on stdout, as it is. A reader that has gone is no error of the command.
    pub fn print(&mut self, text: &str) {
        let _ = self.stdout.write_all(text.as_bytes());
    }

    pub fn line(&mut self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// A remark beside the output, marked as Docker marks it (docker/cli `internal/tui`).
    pub fn note(&mut self, text: &str) {
        let terminal = self.stdout_is_terminal();
        let (head, indent) = match terminal {
            true => ("\x1b[1;106;30mi\x1b[0m \x1b[96mInfo → \x1b[0m", "i Info → ".len()),
            false => (" Info -> ", " Info -> ".len()),
        };
        self.print(head);
        for (at, line) in text.lines().enumerate() {
            let indent = if at > 0 { " ".repeat(indent) } else { String::new() };
            self.line(&match terminal {
                true => format!("{indent}\x1b[3m{line}\x1b[0m"),
                false => format!("{indent}{line}"),
            });
        }
    }

    pub fn error_line(&mut self, text: &str) {
        if self.complaint.is_none() {
            self.complaint = Some(text.to_owned());
        }
        let _ = self.stderr.write_all(format!("{text}\n").as_bytes());
    }

    pub fn channel(&mut self, channel: Channel) -> &mut Output {
        match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
        }
    }

    /// Text on one of the two, as it is.
    pub fn write(&mut self, channel: Channel, text: &str) {
        let _ = self.channel(channel).write_all(text.as_bytes());
    }

    #[must_use]
    pub fn is_terminal(&self, channel: Channel) -> bool {
        match channel {
            Channel::Stdout => self.stdout.is_terminal(),
            Channel::Stderr => self.stderr.is_terminal(),
        }
    }

    /// Rows and columns of the terminal there.
    #[must_use]
    pub fn size_of(&self, channel: Channel) -> Option<(u16, u16)> {
        let output = match channel {
            Channel::Stdout => &self.stdout,
            Channel::Stderr => &self.stderr,
        };
        match output {
            Output::Fd(fd) => size(*fd),
            Output::Memory(_) => None,
        }
    }

    #[must_use]
    pub fn stdin_is_terminal(&self) -> bool {
        self.stdin.is_some_and(termios::isatty)
    }

    #[must_use]
    pub fn stdout_is_terminal(&self) -> bool {
        self.is_terminal(Channel::Stdout)
    }

    /// Columns of the terminal on stdin, as docker's help asks it; 80 elsewhere.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.stdin.and_then(size).map_or(80, |(_, columns)| columns.into())
    }

    /// Rows and columns of the terminal on stdout.
    #[must_use]
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        self.size_of(Channel::Stdout)
    }
}

fn size(fd: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 || size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

impl Output {
    fn text(&self) -> String {
        match self {
            Self::Memory(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Fd(_) => String::new(),
        }
    }

    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Fd(fd) if termios::isatty(fd))
    }

    /// Writes all of it, letting the rest of the program go on while the other end is slow.
    pub async fn write_slowly(&mut self, mut content: &[u8]) -> io::Result<()> {
        let fd = match self {
            Self::Memory(bytes) => {
                bytes.extend_from_slice(content);
                return Ok(());
            }
            Self::Fd(fd) => *fd,
        };
        while !content.is_empty() {
            if !ready(fd, event::PollFlags::OUT)? {
                wait_writable(fd).await?;
            }
            match rustix::io::write(fd, &content[..content.len().min(PIECE)]) {
                Ok(count) => content = &content[count..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.write(content),
            Self::Fd(fd) => match rustix::io::write(*fd, content) {
                Err(Errno::AGAIN) => {
                    let _ = event::poll(&mut [event::PollFd::new(&*fd, event::PollFlags::OUT)], None);
                    Err(io::ErrorKind::Interrupted.into())
                }
                result => result.map_err(Into::into),
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a read or write would not wait. Errors and hang-ups count as ready: the call itself tells.
pub fn ready(fd: BorrowedFd<'_>, want: event::PollFlags) -> io::Result<bool> {
    let mut polled = [event::PollFd::new(&fd, want)];
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
    match event::poll(&mut polled, Some(&now)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn wait_writable(fd: BorrowedFd<'static>) -> io::Result<()> {
    // What epoll does not know (files) never blocks.
    #[expect(
        deprecated,
        reason = "a standard stream stays open as long as the process; its successor is unsafe"
    )]
    let Ok(waiter) = AsyncFd::with_interest(fd, tokio::io::Interest::WRITABLE) else {
        return Ok(());
    };
    loop {
        let mut guard = waiter.writable().await?;
        if ready(fd.as_fd(), event::PollFlags::OUT)? {
            return Ok(());
        }
        guard.clear_ready();
    }
}
