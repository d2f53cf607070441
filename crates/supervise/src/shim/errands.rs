//! Commands of another runtime that are under way: the shim goes on meanwhile, and answers when they have ended.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use ferry_runtime::errand;
use ferry_runtime::plan::Process;
use ferry_runtime::{Failure, Kind};
use jiff::Timestamp;
use rustix::process::{Pid, WaitOptions};

use super::Shim;
use super::exec::Ends;
use super::foreign::{Birth, Running};
use crate::wire::{ExecRequest, Message, Refusal, Reply, Request};

/// How often the shim looks for processes that were left to it.
pub(super) const LOOK: Duration = Duration::from_secs(10);

/// How long a command may take: whoever asked for it waits.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Errand {
    running: Running,
    until: Instant,
    what: What,
}

enum What {
    Kill { call: Option<u64>, signal: i32 },
    Exec(Box<Starting>),
}

struct Starting {
    /// The call to answer, of a daemon that is still there.
    call: Option<u64>,
    /// It checks the container's health, since then.
    probe: Option<Timestamp>,
    birth: Birth,
    ends: Ends,
    /// It shall not run any longer when it does.
    killed: bool,
}

impl Errand {
    fn new(running: Running, what: What) -> Self {
        Self {
            running,
            until: Instant::now() + LIMIT,
            what,
        }
    }

    /// Ready when the command has ended.
    pub fn ready(&self) -> BorrowedFd<'_> {
        self.running.child.pidfd.as_fd()
    }

    /// Ready when the terminal of what it starts is there.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        match &self.what {
            What::Exec(starting) => starting.birth.waits(),
            What::Kill { .. } => None,
        }
    }

    /// Whoever asked is gone.
    pub fn forget_call(&mut self) {
        match &mut self.what {
            What::Kill { call, .. } => *call = None,
            What::Exec(starting) => starting.call = None,
        }
    }

    /// Whether it starts this exec, which then ends at once.
    pub fn kills(&mut self, exec: &str) -> bool {
        match &mut self.what {
            What::Exec(starting) if starting.ends.exec == exec => {
                starting.killed = true;
                true
            }
            _ => false,
        }
    }
}

impl Shim {
    /// Takes on what another runtime has to do for a request, which is answered later. Any other request comes back.
    pub(super) fn delegate(
        &mut self,
        call: u64,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Option<(Request, Vec<OwnedFd>)> {
        if self.foreign.is_none() {
            return Some((request, fds));
        }
        let begun = match request {
            Request::Exec(request) => self.begin_exec(call, &request, fds),
            Request::Kill { exec: None, signal } => self.begin_kill(call, signal),
            other => return Some((other, fds)),
        };
        if let Err(refusal) = begun {
            self.reply(Some(call), Err(refusal));
        }
        None
    }

    fn reply(&mut self, call: Option<u64>, result: Result<Reply, Refusal>) {
        if let Some(id) = call {
            self.tell(Message::Reply { id, result });
        }
    }

    fn begin_exec(&mut self, call: u64, request: &ExecRequest, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        self.first().ok_or(Refusal::Gone)?;
        let (io, ends) = Ends::of(request, fds).map_err(Refusal::Start)?;
        self.begin(Some(call), None, &request.process, &io, ends)
            .map_err(Refusal::Start)
    }

    /// Has the runtime start a check of the container's health.
    pub(super) fn begin_probe(&mut self, exec: &str, start: Timestamp, process: &Process) -> Result<(), Failure> {
        let (io, ends) = Ends::of_probe(exec)?;
        self.begin(None, Some(start), process, &io, ends)
    }

    fn begin(
        &mut self,
        call: Option<u64>,
        probe: Option<Timestamp>,
        process: &Process,
        io: &ferry_runtime::start::Io,
        ends: Ends,
    ) -> Result<(), Failure> {
        let gone = || Failure::new(Kind::Setup, "the container is not running");
        let foreign = self.foreign.as_mut().ok_or_else(gone)?;
        let (running, birth) = foreign.exec(&self.proof, process, io)?;
        let starting = Starting {
            call,
            probe,
            birth,
            ends,
            killed: false,
        };
        self.errands.push(Errand::new(running, What::Exec(Box::new(starting))));
        Ok(())
    }

    fn begin_kill(&mut self, call: u64, signal: i32) -> Result<(), Refusal> {
        self.first().ok_or(Refusal::Gone)?;
        let foreign = self.foreign.as_mut().ok_or(Refusal::Gone)?;
        match foreign.kill(&self.proof, signal) {
            Ok(running) => {
                let call = Some(call);
                self.errands.push(Errand::new(running, What::Kill { call, signal }));
            }
            Err(_) => {
                let done = self.signal(signal);
                self.reply(Some(call), done);
            }
        }
        Ok(())
    }

    /// Signals the container's first process, without its runtime.
    fn signal(&self, signal: i32) -> Result<Reply, Refusal> {
        self.first().ok_or(Refusal::Gone)?.signal(signal)
    }

    /// Goes on with what the commands that have ended were for.
    pub(super) fn end_errands(&mut self) {
        let mut index = 0;
        while let Some(errand) = self.errands.get_mut(index) {
            if let What::Exec(starting) = &mut errand.what {
                // What is wrong with it is said at the end.
                let _ = starting.birth.take_terminal();
            }
            let code = match errand.running.child.wait(false) {
                Ok(None) if errand.until > Instant::now() => {
                    index += 1;
                    continue;
                }
                Ok(None) => None,
                Ok(Some(exit)) => Some(exit.code()),
                // Nobody else reaps our children; if it is gone all the same, it did not end well.
                Err(_) => Some(255),
            };
            let errand = self.errands.remove(index);
            let done = match code {
                Some(code) => errand.running.ended(code),
                None => {
                    let _ = errand::kill(&errand.running.child);
                    let text = format!("the runtime's command did not end within {} s", LIMIT.as_secs());
                    Err(Failure::new(Kind::Setup, text))
                }
            };
            match errand.what {
                What::Kill { call, signal } => {
                    // A runtime that fails must not keep a container alive.
                    let done = done.map_or_else(|_| self.signal(signal), |()| Ok(Reply::Done));
                    self.reply(call, done);
                }
                What::Exec(starting) => self.end_start(*starting, done),
            }
        }
    }

    fn end_start(&mut self, starting: Starting, done: Result<(), Failure>) {
        let exec = starting.ends.exec.clone();
        let started = done.and_then(|()| starting.birth.end()).map_err(Refusal::Start);
        let result = started.and_then(|started| self.join(started, starting.ends));
        // Of one that was given up meanwhile nothing is said.
        let awaited = self.monitor.as_ref().is_some_and(|monitor| monitor.is(&exec));
        if let (Err(Refusal::Start(failure)), Some(start), true) = (&result, starting.probe, awaited) {
            self.probe_failed(&exec, start, failure);
        }
        if starting.killed {
            self.kill_probe(&exec);
        }
        self.reply(starting.call, result);
    }

    /// The container is over: nobody waits for these any more.
    pub(super) fn drop_errands(&mut self) {
        for mut errand in std::mem::take(&mut self.errands) {
            let _ = errand::kill(&errand.running.child);
            let call = match &mut errand.what {
                What::Kill { call, .. } => call.take(),
                What::Exec(starting) => starting.call.take(),
            };
            self.reply(call, Err(Refusal::Gone));
        }
    }

    /// Reaps what others have left to this process: it is the parent of all that a runtime starts and leaves.
    pub(super) fn reap(&self) {
        // What a command under way makes is not known yet, and may have ended already.
        if self.foreign.is_none() || !self.errands.is_empty() {
            return;
        }
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in pids.filter_map(Pid::from_raw) {
            if self.processes.iter().all(|process| process.child.pid != pid) {
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}
