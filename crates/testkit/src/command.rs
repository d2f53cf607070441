//! Other programs, run to their end or watched while they run; never longer than their time.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const TIME: Duration = Duration::from_secs(60);

/// A command line to run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    input: Option<Vec<u8>>,
    time: Duration,
}

/// How it ended: `code` is the exit code, or 128 + the signal that ended it.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub line: String,
}

/// A program that still runs; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    stdout: Arc<Collected>,
    stderr: Arc<Collected>,
    readers: Vec<JoinHandle<()>>,
    time: Duration,
}

#[derive(Debug, Default)]
struct Collected {
    bytes: Mutex<Vec<u8>>,
    grown: Condvar,
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            command,
            input: None,
            time: TIME,
        }
    }

    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Where it starts.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(path);
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// These bytes on standard input, then its end.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self.command.stdin(Stdio::piped());
        self
    }

    /// Standard input stays open, for [`Running::send`].
    #[must_use]
    pub fn open_stdin(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The plain command, for a terminal.
    pub fn into_command(self) -> Command {
        self.command
    }

    #[track_caller]
    pub fn output(self) -> Output {
        self.spawn().finish()
    }

    /// Standard output, without the white space at its end; panics when the command fails.
    #[track_caller]
    pub fn ok(self) -> String {
        self.output().ok()
    }

    #[track_caller]
    pub fn spawn(mut self) -> Running {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("start `{line}`: {error}"));
        let (stdout, stderr) = (Arc::new(Collected::default()), Arc::new(Collected::default()));
        let mut readers = vec![
            collect(child.stdout.take().expect("piped"), Arc::clone(&stdout)),
            collect(child.stderr.take().expect("piped"), Arc::clone(&stderr)),
        ];
        if let Some(input) = self.input.take() {
            let mut stdin = child.stdin.take().expect("piped");
            // A program that does not read its input to the end is not this thread's business.
            readers.push(std::thread::spawn(move || drop(stdin.write_all(&input))));
        }
        Running {
            child,
            line,
            stdout,
            stderr,
            readers,
            time: self.time,
        }
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Collected>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            into.bytes.lock().unwrap().extend_from_slice(&buffer[..length]);
            into.grown.notify_all();
        }
    })
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until standard output contains `text`, and returns all of it so far.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_on(&self.stdout, text)
    }

    #[track_caller]
    pub fn wait_for_error(&self, text: &str) -> String {
        self.wait_on(&self.stderr, text)
    }

    #[track_caller]
    fn wait_on(&self, stream: &Collected, text: &str) -> String {
        let end = Instant::now() + self.time.min(Duration::from_secs(20));
        let mut bytes = stream.bytes.lock().unwrap();
        loop {
            let seen = String::from_utf8_lossy(&bytes).into_owned();
            if seen.contains(text) {
                return seen;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let error = String::from_utf8_lossy(&self.stderr.try_bytes()).into_owned();
                panic!(
                    "`{}` never printed {text:?}; so far: {seen:?}, stderr: {error:?}",
                    self.line
                );
            }
            bytes = stream.grown.wait_timeout(bytes, left).unwrap().0;
        }
    }

    /// What standard output holds so far.
    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn send(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("made with open_stdin");
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, signal);
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, no longer than its time.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        use std::os::unix::process::ExitStatusExt;
        self.child.stdin = None;
        let end = Instant::now() + self.time;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!(
                    "`{}` took longer than {:?}; it printed {:?}",
                    self.line,
                    self.time,
                    self.so_far()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // A daemon it started in the background may hold the pipes: do not wait for those for ever.
        let end = Instant::now() + Duration::from_secs(2);
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        Output {
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: self.so_far(),
            stderr: String::from_utf8_lossy(&self.stderr.bytes.lock().unwrap()).into_owned(),
            line: std::mem::take(&mut self.line),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Collected {
    fn try_bytes(&self) -> Vec<u8> {
        self.bytes.try_lock().map(|bytes| bytes.clone()).unwrap_or_default()
    }
}

impl Output {
    /// Standard output without the white space at its end; panics unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "{}", self.report("should succeed"));
        self.stdout.trim_end().to_owned()
    }

    /// Standard output without the white space at its end; panics unless it failed with this exit code.
    #[track_caller]
    pub fn says_and_fails(self, code: i32) -> String {
        let said = self.stdout.trim_end().to_owned();
        self.fails(code);
        said
    }

    /// Standard error without the white space at its end; panics unless it failed with this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        assert!(
            self.code == code,
            "{}",
            self.report(&format!("should exit with {code}"))
        );
        self.stderr.trim_end().to_owned()
    }

    fn report(&self, wanted: &str) -> String {
        let mut text = format!("`{}` {wanted}, it exited with {}", self.line, self.code);
        for (name, stream) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            let _ = write!(text, "\n--- {name}\n{}", stream.trim_end());
        }
        text
    }
}

/// Words as owned arguments: a small help for lists that grow.
pub fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}
