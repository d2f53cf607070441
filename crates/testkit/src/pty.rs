//! A program on a terminal of its own, driven by what it prints.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const TIME: Duration = Duration::from_secs(20);

/// The side of the terminal where a person would sit: 24 rows of 80 columns at first.
#[derive(Debug)]
pub struct Pty {
    master: File,
    child: Child,
    screen: Arc<(Mutex<Vec<u8>>, Condvar)>,
    /// How much of the screen `expect` has gone past.
    seen: usize,
}

impl Pty {
    /// Starts the command with the terminal as its controlling one.
    #[track_caller]
    pub fn spawn(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        size(&master, 24, 80);
        // setsid(1) makes it the controlling terminal without code between fork and exec of ours.
        let mut outer = Command::new("setsid");
        outer.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave);
        let child = outer.spawn().unwrap();
        drop(outer);
        let master = File::from(master);
        let screen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (mut reader, shared) = (master.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO when the last one on the other side is gone.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                shared.0.lock().unwrap().extend_from_slice(&buffer[..length]);
                shared.1.notify_all();
            }
        });
        Self {
            master,
            child,
            screen,
            seen: 0,
        }
    }

    /// Waits for `text` after what was expected before; returns everything up to and with it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + TIME;
        let mut screen = self.screen.0.lock().unwrap();
        loop {
            let fresh = String::from_utf8_lossy(&screen[self.seen..]).into_owned();
            if let Some(at) = screen[self.seen..]
                .windows(text.len())
                .position(|bytes| bytes == text.as_bytes())
            {
                let until = self.seen + at + text.len();
                let found = String::from_utf8_lossy(&screen[self.seen..until]).into_owned();
                self.seen = until;
                return found;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "the terminal never showed {text:?}; it shows {fresh:?}"
            );
            screen = self.screen.1.wait_timeout(screen, left).unwrap().0;
        }
    }

    /// Types.
    #[track_caller]
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Changes the window; the kernel tells the foreground processes by SIGWINCH.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        size(&self.master, rows, columns);
    }

    /// Everything that was ever shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.0.lock().unwrap()).into_owned()
    }

    /// The exit code of the program, when it ends.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let end = Instant::now() + TIME;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(
                Instant::now() < end,
                "it does not end; the terminal shows {:?}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(terminal: impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Pty;

    #[test]
    fn a_shell_sees_its_terminal_and_its_size() {
        let mut pty = Pty::spawn(Command::new("sh").env("PS1", "ready> "));
        pty.expect("ready> ");
        pty.resize(33, 99);
        pty.send("stty size; tty\n");
        pty.expect("33 99");
        pty.expect("/dev/pts/");
        pty.send("exit 7\n");
        assert_eq!(pty.wait(), 7);
    }
}
