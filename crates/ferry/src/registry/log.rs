//! The log, on standard error. Lines are gathered and written some at a time: a system call for each request would cost as much
//! as the request.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Written at once when there is so much.
const FULL: usize = 64 << 10;
/// Written in any case after this.
const DELAY: Duration = Duration::from_millis(200);

#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<Vec<u8>>>);

/// Starts logging. What is left has to be flushed at the end.
pub fn start(level: LevelFilter) -> Output {
    let output = Output::default();
    tracing_subscriber::fmt()
        .with_writer(output.clone())
        .with_ansi(io::stderr().is_terminal())
        .with_max_level(level)
        .init();
    let flushing = output.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(DELAY);
            flushing.flush();
        }
    });
    output
}

impl Output {
    pub fn flush(&self) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !lines.is_empty() {
            // Nobody is left to tell that standard error does not work.
            let _ = io::stderr().write_all(&lines);
            lines.clear();
        }
    }
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let full = {
            let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lines.extend_from_slice(line);
            lines.len() >= FULL
        };
        if full {
            Self::flush(self);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
