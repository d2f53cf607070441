//! Waiting for a process of the container from the terminal it was started on.
//!
//! Signals go to the process; when it has a terminal of its own, a helper process copies between that and ours, so that
//! this one only waits.

use std::os::fd::{AsFd as _, OwnedFd};

use ferry_sys::clone::{self, Options};
use ferry_sys::exec::Signals;
use ferry_sys::{Child, SingleThreaded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios};
use rustix::time::Timespec;

use crate::error::{During as _, Result};

/// How long the last output may take once the process is gone.
const DRAIN: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// The exit status: the process's own, or 128 and the signal.
pub(super) fn wait(child: &Child, terminal: Option<OwnedFd>) -> Result<u8> {
    let what = || "wait for the container's process";
    let proof = SingleThreaded::check().during(what)?;
    let terminal = terminal.map(|master| Session::begin(&proof, master)).transpose()?;
    let signals = Signals::block_all().during(what)?;
    let exit = loop {
        if let Some(exit) = child.wait(false).during(what)? {
            break exit;
        }
        match signals.wait() {
            // What a container without a PID namespace leaves behind is not ours to reap; the child's is seen above.
            libc::SIGCHLD | libc::SIGURG => {}
            libc::SIGWINCH if terminal.is_some() => {
                if let Some(session) = &terminal {
                    session.resize();
                }
            }
            signal => drop(child.signal(signal)),
        }
    };
    drop(terminal);
    Ok(u8::try_from(exit.code() & 0xff).unwrap_or(1))
}

/// Our terminal in raw mode and the helper that copies; both end with it.
struct Session {
    master: OwnedFd,
    copier: Child,
    before: Option<Termios>,
}

impl Session {
    fn begin(proof: &SingleThreaded, master: OwnedFd) -> Result<Self> {
        let what = || "set up the terminal";
        let stdin = std::io::stdin();
        let before = rustix::termios::tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(&stdin, OptionalActions::Now, &raw).during(what)?;
        }
        let Some(copier) = clone::clone(proof, &Options::default()).during(what)? else {
            copy(&master);
            clone::exit_now(0);
        };
        let session = Self { master, copier, before };
        session.resize();
        Ok(session)
    }

    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It ends by itself when the last user of the terminal is gone.
        let mut fds = [PollFd::new(&self.copier.pidfd, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&DRAIN));
        let _ = self.copier.signal(libc::SIGKILL);
        let _ = self.copier.wait(true);
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Standard input to the master, the master to standard output, until the terminal's other side is closed.
fn copy(master: &OwnedFd) {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut buffer = vec![0; 16 * 1024];
    let mut reading = true;
    loop {
        let mut fds = vec![PollFd::new(master, PollFlags::IN)];
        if reading {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            // EIO: nobody has the terminal open any more.
            match rustix::io::read(master, &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => write_all(stdout.as_fd(), &buffer[..count]),
            }
        }
        if ready.get(1) == Some(&true) {
            match rustix::io::read(&stdin, &mut buffer) {
                Ok(0) | Err(_) => reading = false,
                Ok(count) => write_all(master.as_fd(), &buffer[..count]),
            }
        }
    }
}

fn write_all(to: std::os::fd::BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // Whoever reads it is gone; the program goes on.
            Err(_) => return,
        }
    }
}
