//! The checks of the container's health, one at a time: when the next one is due, and what the one under way has said.
//!
//! A check is a process of the container's, which the shim forks as it does an exec, or a conversation over a socket in the
//! container's network namespace, which costs no process at all.

mod conversation;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use self::conversation::{Conversation, Outcome};
use crate::health::{Health, HealthCheck, NO_CODE, OUTPUT, Probe, ProbeResult};

/// A check that cannot be made now, for instance since somebody froze the container, is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Monitor {
    pub check: HealthCheck,
    pub health: Health,
    /// The container's start.
    started: Timestamp,
    began: Instant,
    state: State,
}

enum State {
    Waiting(Instant),
    Running(Running),
    /// The container is paused.
    Paused,
}

struct Running {
    start: Timestamp,
    deadline: Instant,
    timed_out: bool,
    what: What,
}

enum What {
    /// An exec of this id.
    Exec(String),
    Conversation(Conversation),
}

/// What has to be done.
pub(super) enum Due {
    Start,
    /// The exec has had its time.
    Kill(String),
    /// A result came of itself.
    Done,
}

/// The output of a check, as far as it is kept.
#[derive(Default)]
pub(super) struct Capture {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Capture {
    pub fn write(&mut self, bytes: &[u8]) {
        let room = OUTPUT - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// As Go's JSON shows it: every byte that is not UTF-8 is U+FFFD.
    fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes.len());
        for chunk in self.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        if self.truncated {
            text.push_str("...");
        }
        text
    }
}

impl Monitor {
    pub fn new(mut check: HealthCheck, started: Timestamp) -> Self {
        let health = Health::new(std::mem::take(&mut check.past));
        let mut monitor = Self {
            check,
            health,
            started,
            began: Instant::now(),
            state: State::Paused,
        };
        monitor.wait();
        monitor
    }

    fn wait(&mut self) {
        let interval = self.health.interval(&self.check, self.began.elapsed());
        let next = Instant::now().checked_add(interval);
        // Longer than a clock can say is never.
        self.state = next.map_or(State::Paused, State::Waiting);
    }

    pub fn wait_a_little(&mut self) {
        self.state = State::Waiting(Instant::now() + AGAIN);
    }

    /// How long until something is due.
    pub fn due_in(&self) -> Option<Duration> {
        let at = match &self.state {
            State::Waiting(at) => *at,
            State::Running(running) if !running.timed_out => running.deadline,
            State::Running(_) | State::Paused => return None,
        };
        Some(at.saturating_duration_since(Instant::now()))
    }

    /// What is due now. A conversation that has had its time is over.
    pub fn due(&mut self) -> Option<Due> {
        let now = Instant::now();
        match &mut self.state {
            State::Waiting(at) if *at <= now => Some(Due::Start),
            State::Running(running) if !running.timed_out && running.deadline <= now => {
                running.timed_out = true;
                match &running.what {
                    What::Exec(exec) => Some(Due::Kill(exec.clone())),
                    What::Conversation(_) => {
                        self.done(NO_CODE, String::new());
                        Some(Due::Done)
                    }
                }
            }
            _ => None,
        }
    }

    /// Whether `exec` is the check under way.
    pub fn is(&self, exec: &str) -> bool {
        matches!(&self.state, State::Running(Running { what: What::Exec(id), .. }) if id == exec)
    }

    /// A check by exec `exec` runs from now on.
    pub fn exec_started(&mut self, exec: String, start: Timestamp) {
        self.running(What::Exec(exec), start);
    }

    /// A check by exec did not come to run.
    pub fn failed(&mut self, start: Timestamp, reason: String) {
        self.note(start, NO_CODE, reason);
    }

    /// The exec of the check has ended.
    pub fn exec_ended(&mut self, code: i32, capture: Option<Capture>) {
        self.done(code, capture.unwrap_or_default().text());
    }

    /// Begins a check without a process; true if it is over already. `first`: the container's first process.
    pub fn converse(&mut self, first: i32) -> bool {
        let start = Timestamp::now();
        let begun = match &self.check.probe {
            Probe::Http { address, path } => {
                in_network(first, || Conversation::http(*address, path)).and_then(std::convert::identity)
            }
            Probe::Tcp(address) => in_network(first, || Conversation::tcp(*address)).and_then(std::convert::identity),
            Probe::Exec(_) => return false,
        };
        match begun {
            Ok(conversation) => {
                self.running(What::Conversation(conversation), start);
                false
            }
            Err(reason) => {
                self.note(start, 1, reason);
                true
            }
        }
    }

    /// The socket of the check under way, and what to wait for.
    pub fn socket(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Running(Running {
                what: What::Conversation(conversation),
                ..
            }) => Some(conversation.wait_for()),
            _ => None,
        }
    }

    /// The socket is ready; true if the check is over.
    pub fn handle(&mut self, buffer: &mut [u8]) -> bool {
        let State::Running(Running {
            what: What::Conversation(conversation),
            ..
        }) = &mut self.state
        else {
            return false;
        };
        match conversation.go_on(buffer) {
            None => false,
            Some(Outcome { well, text }) => {
                self.done(i32::from(!well), text);
                true
            }
        }
    }

    /// Stops checking, until [`Self::resume`]; the exec that has to be killed.
    pub fn pause(&mut self) -> Option<String> {
        self.health.stop();
        match std::mem::replace(&mut self.state, State::Paused) {
            State::Running(Running {
                what: What::Exec(exec), ..
            }) => Some(exec),
            _ => None,
        }
    }

    pub fn resume(&mut self) {
        if matches!(self.state, State::Paused) {
            self.wait();
        }
    }

    fn running(&mut self, what: What, start: Timestamp) {
        let now = Instant::now();
        self.state = State::Running(Running {
            start,
            // Longer than a clock can say: as good as never.
            deadline: now
                .checked_add(self.check.timeout)
                .unwrap_or(now + Duration::from_secs(1 << 32)),
            timed_out: false,
            what,
        });
    }

    fn done(&mut self, code: i32, output: String) {
        let State::Running(running) = &self.state else { return };
        let (start, timed_out) = (running.start, running.timed_out);
        if !timed_out {
            return self.note(start, code, output);
        }
        let timeout = jiff::SignedDuration::try_from(self.check.timeout).unwrap_or(jiff::SignedDuration::MAX);
        let timeout = ferry_kit::duration::format(timeout);
        let said = if output.is_empty() {
            String::new()
        } else {
            format!(": {output}")
        };
        self.note(
            start,
            NO_CODE,
            format!("Health check exceeded timeout ({timeout}){said}"),
        );
    }

    fn note(&mut self, start: Timestamp, exit_code: i32, output: String) {
        let result = ProbeResult {
            start,
            end: Timestamp::now(),
            exit_code,
            output,
        };
        self.health.note(result, &self.check, self.started);
        self.wait();
    }
}

/// Makes a socket in the container's network namespace: the thread goes there and back, and nothing else runs meanwhile.
fn in_network<T>(first: i32, make: impl FnOnce() -> T) -> Result<T, String> {
    let open = |path: &str| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let failed = |error: rustix::io::Errno| format!("enter the container's network: {error}");
    let host: OwnedFd = open("/proc/thread-self/ns/net").map_err(failed)?;
    let container = open(&format!("/proc/{first}/ns/net")).map_err(failed)?;
    let enter = |namespace: &OwnedFd| {
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(namespace), Some(LinkNameSpaceType::Network))
    };
    enter(&container).map_err(failed)?;
    let made = make();
    // The way back needs no more than the way there did.
    enter(&host).map_err(failed)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_and_bytes_that_are_no_text_are_replaced() {
        let mut capture = Capture::default();
        capture.write(b"\xff\xfea\xe2\x82");
        assert_eq!(capture.text(), "\u{fffd}\u{fffd}a\u{fffd}\u{fffd}");
        let mut capture = Capture::default();
        capture.write(&[b'x'; 4000]);
        capture.write(&[b'y'; 96]);
        assert_eq!(capture.text().len(), 4096);
        capture.write(b"z");
        capture.write(b"z");
        assert_eq!(&capture.text()[4090..], "yyyyyy...");
    }
}
