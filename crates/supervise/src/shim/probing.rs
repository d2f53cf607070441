//! The shim's part in looking after the container's health: starting the checks that its monitor says are due, and passing on
//! what came of them.

use std::time::Instant;

use ferry_runtime::{Failure, Kind};
use jiff::Timestamp;
use rustix::process::Signal;

use super::Shim;
use super::exec::Ends;
use super::health::Due;
use super::process::Ended;
use crate::health::Probe;
use crate::wire::{Message, Refusal};

impl Shim {
    pub(super) fn look_after_health(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        match monitor.due() {
            None => {}
            Some(Due::Done) => self.tell_health(None),
            Some(Due::Kill(exec)) => self.kill_probe(&exec),
            // What is frozen by somebody else could not answer, and a process made there would not even start.
            Some(Due::Start) if self.cgroup.is_frozen() => monitor.wait_a_little(),
            Some(Due::Start) => self.start_probe(),
        }
    }

    fn start_probe(&mut self) {
        let (Some(monitor), Some(first)) = (&mut self.monitor, self.processes.first()) else {
            return;
        };
        if !matches!(monitor.check.probe, Probe::Exec(_)) {
            if monitor.converse(first.child.pid.as_raw_nonzero().get()) {
                self.tell_health(None);
            }
            return;
        }
        let id = ferry_kit::Id::random().to_string();
        let start = Timestamp::now();
        self.tell(Message::ProbeStarted { exec: id.clone() });
        let started = self.run_probe(&id, start);
        let Some(monitor) = &mut self.monitor else { return };
        match started {
            Ok(()) => monitor.exec_started(id, start),
            Err(failure) => self.probe_failed(&id, start, &failure),
        }
    }

    /// A check did not come to run.
    pub(super) fn probe_failed(&mut self, exec: &str, start: Timestamp, failure: &Failure) {
        let Some(monitor) = &mut self.monitor else { return };
        let code = match failure.kind {
            Kind::NotFound => 127,
            Kind::NotExecutable => 126,
            Kind::Setup => 128,
        };
        monitor.failed(start, failure.message.clone());
        self.tell_health(Some((exec.to_owned(), Some(code))));
    }

    /// Starts the program of the check in the container.
    fn run_probe(&mut self, id: &str, start: Timestamp) -> Result<(), Failure> {
        let gone = || Failure::new(Kind::Setup, "the container is not running");
        let Some(Probe::Exec(process)) = self.monitor.as_ref().map(|monitor| &monitor.check.probe) else {
            return Err(gone());
        };
        if process.args.is_empty() {
            return Err(Failure::new(Kind::Setup, "the health check names no program"));
        }
        if self.foreign.is_some() {
            let process = process.clone();
            return self.begin_probe(id, start, &process);
        }
        let (io, ends) = Ends::of_probe(id)?;
        let started = self.fork(process, io, &self.launch.seccomp)?;
        match self.join(started, ends) {
            Err(Refusal::Start(failure)) => Err(failure),
            Err(_) => Err(gone()),
            Ok(_) => Ok(()),
        }
    }

    /// Ends the check's whole process group: it began a session.
    pub(super) fn kill_probe(&mut self, exec: &str) {
        if self.errands.iter_mut().any(|errand| errand.kills(exec)) {
            return;
        }
        let probe = self
            .processes
            .iter()
            .find(|process| process.exec.as_deref() == Some(exec));
        if let Some(probe) = probe.filter(|probe| probe.exit.is_none()) {
            // It is not reaped yet, so the number is still its own.
            let _ = rustix::process::kill_process_group(probe.child.pid, Signal::KILL);
            let _ = probe.child.signal(libc::SIGKILL);
        }
    }

    /// The check's socket is ready.
    pub(super) fn hear_probe(&mut self, buffer: &mut [u8]) {
        if self.monitor.as_mut().is_some_and(|monitor| monitor.handle(buffer)) {
            self.tell_health(None);
        }
    }

    /// Whether the process that ended was the check under way.
    pub(super) fn note_probe_exit(&mut self, index: usize, code: i32) -> bool {
        let process = &mut self.processes[index];
        let (Some(exec), Some(monitor)) = (process.exec.clone(), &mut self.monitor) else {
            return false;
        };
        if !monitor.is(&exec) {
            return false;
        }
        monitor.exec_ended(code, process.streams.capture.take());
        // What it left behind may hold its output open; nobody listens there any more.
        process.exit = Some(Ended {
            since: Instant::now(),
            noted: true,
        });
        self.tell_health(Some((exec, Some(code))));
        true
    }

    pub(super) fn check_health(&mut self, check: bool) {
        let Some(monitor) = &mut self.monitor else { return };
        if check {
            monitor.resume();
        } else if let Some(exec) = monitor.pause() {
            self.kill_probe(&exec);
        }
    }

    fn tell_health(&mut self, exec: Option<(String, Option<i32>)>) {
        if let Some(monitor) = &self.monitor {
            let health = monitor.health.clone();
            self.tell(Message::Probed { exec, health });
        }
    }
}
