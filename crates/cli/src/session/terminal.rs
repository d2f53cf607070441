use std::os::fd::BorrowedFd;

use rustix::termios::{self, OptionalActions, Termios};

/// A terminal that passes every key on. It is put back as it was when this value goes, also while a panic unwinds.
#[derive(Debug)]
pub struct RawMode {
    terminal: BorrowedFd<'static>,
    before: Termios,
}

impl RawMode {
    /// Nothing when this is no terminal.
    pub fn enter(terminal: BorrowedFd<'static>) -> Option<Self> {
        let before = termios::tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
