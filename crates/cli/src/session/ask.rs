//! Questions on a terminal.

use std::os::fd::BorrowedFd;

use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::io::AsyncReadExt as _;

use super::Input;
use crate::failure::{Failure, Result, io_text};
use crate::ui::Ui;

/// The longest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// One line that somebody types.
pub async fn line(ui: &mut Ui, question: &str) -> Result<String> {
    let terminal = terminal(ui)?;
    ui.print(question);
    Ok(read(terminal).await?.trim().to_owned())
}

/// One line that is not shown while it is typed.
pub async fn secret(ui: &mut Ui, question: &str) -> Result<String> {
    let terminal = terminal(ui)?;
    ui.print(question);
    let silence = Silence::begin(terminal);
    // Ctrl-C would end the program with the terminal still silent.
    let answer = tokio::select! {
        answer = read(terminal) => answer,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("").code(130)),
    };
    drop(silence);
    ui.print("\n");
    answer
}

fn terminal(ui: &Ui) -> Result<BorrowedFd<'static>> {
    let terminal = ui.stdin.filter(|fd| termios::isatty(fd));
    terminal.ok_or_else(|| Failure::new("Error: Cannot perform an interactive login from a non TTY device"))
}

async fn read(terminal: BorrowedFd<'static>) -> Result<String> {
    let mut input = Input::new(terminal);
    let (mut text, mut byte) = (Vec::new(), [0]);
    while text.len() < ANSWER_MAX {
        let count = input.read(&mut byte).await;
        let count = count.map_err(|error| Failure::new(format!("read the answer: {}", io_text(&error))))?;
        if count == 0 || byte[0] == b'\n' {
            break;
        }
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).trim_end_matches('\r').to_owned())
}

/// A terminal that does not show what is typed. It is put back as it was when this value goes.
struct Silence {
    terminal: BorrowedFd<'static>,
    before: Termios,
}

impl Silence {
    fn begin(terminal: BorrowedFd<'static>) -> Option<Self> {
        let before = termios::tcgetattr(terminal).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(terminal, OptionalActions::Flush, &silent).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
