//! Further processes in the container: our ends of their streams, and how they join the others.

use std::os::fd::{AsFd as _, OwnedFd};

use ferry_runtime::exec::{Exec, Extra, exec};
use ferry_runtime::plan::Process as Plan;
use ferry_runtime::start::{Io, Started};
use ferry_runtime::{Failure, Kind};

use super::health::Capture;
use super::process::{Process, Streams, ends_of};
use super::{Shim, add_client};
use crate::wire::{AttachRequest, ExecRequest, Refusal, Reply};

/// Our side of a process that is being started.
pub(super) struct Ends {
    pub exec: String,
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    keep_input: bool,
    client: Option<(AttachRequest, OwnedFd)>,
    /// It checks the container's health.
    probe: bool,
}

impl Ends {
    /// Of an exec; the other side is the process's.
    pub fn of(request: &ExecRequest, mut fds: Vec<OwnedFd>) -> Result<(Io, Self), Failure> {
        let (io, stdin, outputs) = ends_of(request.process.terminal, request.stdin)?;
        let ends = Self {
            exec: request.id.clone(),
            stdin,
            outputs,
            keep_input: request.stdin,
            client: request.attach.clone().zip(fds.pop()),
            probe: false,
        };
        Ok((io, ends))
    }

    pub fn of_probe(exec: &str) -> Result<(Io, Self), Failure> {
        let (io, stdin, outputs) = ends_of(false, false)?;
        let ends = Self {
            exec: exec.to_owned(),
            stdin,
            outputs,
            keep_input: false,
            client: None,
            probe: true,
        };
        Ok((io, ends))
    }

    fn streams(&mut self, terminal: Option<OwnedFd>) -> rustix::io::Result<Streams> {
        let mut streams = match terminal {
            Some(master) => Streams::of_terminal(master, self.keep_input, None)?,
            None => Streams::of_pipes(self.stdin.take(), std::mem::take(&mut self.outputs), !self.probe, None),
        };
        streams.capture = self.probe.then(Capture::default);
        Ok(streams)
    }
}

impl Shim {
    pub(super) fn exec(&mut self, request: &ExecRequest, fds: Vec<OwnedFd>) -> Result<Reply, Refusal> {
        let (io, ends) = Ends::of(request, fds).map_err(Refusal::Start)?;
        self.first().ok_or(Refusal::Gone)?;
        let started = self.fork(&request.process, io, &request.seccomp);
        self.join(started.map_err(Refusal::Start)?, ends)
    }

    /// The container's first process, while it runs.
    pub(super) fn first(&self) -> Option<&Process> {
        self.processes.first().filter(|first| first.exit.is_none())
    }

    /// Makes a process in the container.
    pub(super) fn fork(&self, process: &Plan, io: Io, seccomp: &[u8]) -> Result<Started, Failure> {
        let gone = || Failure::new(Kind::Setup, "the container is not running");
        exec(
            &self.proof,
            Exec {
                process,
                target: self.first().ok_or_else(gone)?.child.pidfd.as_fd(),
                namespaces: &self.launch.plan.namespaces,
                cgroup: Some(&self.cgroup),
                io,
                seccomp: (!seccomp.is_empty()).then_some(seccomp),
                extra: Extra::default(),
            },
        )
    }

    /// Looks after a process from now on.
    pub(super) fn join(&mut self, started: Started, mut ends: Ends) -> Result<Reply, Refusal> {
        let pid = started.child.pid.as_raw_nonzero().get();
        let streams = ends.streams(started.terminal);
        let mut streams =
            streams.map_err(|error| Refusal::Start(Failure::setup("set up the streams", &error.into())))?;
        if let Some((attach, connection)) = ends.client {
            add_client(&mut streams, connection, &attach)?;
        }
        self.processes.push(Process {
            exec: Some(ends.exec),
            child: started.child,
            streams,
            exit: None,
        });
        Ok(Reply::Started {
            pid,
            warnings: Vec::new(),
        })
    }
}
