//! What the shim reports, and what follows from an exit.

use std::time::Duration;

use ferry_api::container::restart_policy;
use ferry_supervise::{Event, Exit, State};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::remove::Urgency;
use super::{Actor, RestartAt, Stopping, Then};
use crate::container::state::{Permit, Status};

/// Between a first exit and the restart; doubles each time.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(60);
/// A run of this length resets the back-off.
const GOOD_RUN: Duration = Duration::from_secs(10);

impl Actor {
    pub(super) async fn on_event(&mut self, event: Event) {
        match event {
            Event::Exited(exit) => self.on_exit(exit).await,
            Event::ExecExited { exec, code } => self.on_exec_exit(exec, code).await,
            Event::Oom => self.event("oom", &[]),
            Event::ProbeStarted { exec } => self.on_probe_started(&exec),
            Event::Probed { exec, health } => self.on_probed(exec, health).await,
            Event::Detached { exec: None } => self.event("detach", &[]),
            Event::Detached { exec: Some(exec) } => self.event("exec_detach", &[("execID", exec)]),
            Event::Found(state) => self.on_found(*state).await,
            Event::Lost => self.on_lost().await,
        }
    }

    /// What the shim says that did not answer when this engine started. An exit comes as an event of its own.
    async fn on_found(&mut self, state: State) {
        if !self.record.run.status.is_live() || state.exit.is_some() {
            return;
        }
        let run = &mut self.record.run;
        run.pid = state.pid;
        run.started_at = state.started_at.or(run.started_at);
        self.world.catch_up_on_health(&mut self.record, state.health);
        self.publish();
        drop(self.persist_later().await);
    }

    /// The connection to the shim is gone. After an exit that is how it should be; before, the shim took its container with
    /// it, unless it only gave up on an engine that was stopped for so long that it heard nothing.
    async fn on_lost(&mut self) {
        if !self.record.run.status.is_live() {
            return self.forget_shim();
        }
        let (sender, events) = mpsc::unbounded_channel();
        let run_dir = self.world.run_dir(&self.record.id);
        if let Ok((task, _)) = self.world.supervisor.adopt(&run_dir, sender).await {
            tracing::warn!(
                container = self.record.id,
                "the connection to the container's supervisor was made anew"
            );
            (self.task, self.events) = (Some(task), Some(events));
            return self.publish();
        }
        self.forget_shim();
        let record = self.world.container_dir(&self.record.id).join("exit");
        let exit = match Exit::read(&record) {
            Ok(Some(exit)) => exit,
            _ => {
                self.world.kill_leftovers(&self.record).await;
                let reason = Some("the container's supervisor was lost".to_owned());
                Exit {
                    code: 137,
                    oom_killed: false,
                    at: Timestamp::now(),
                    reason,
                }
            }
        };
        self.on_exit(exit).await;
    }

    pub(super) fn forget_shim(&mut self) {
        self.task = None;
        self.events = None;
        // The last snapshot holds the connection too.
        self.publish();
    }

    pub(super) async fn on_exit(&mut self, exit: Exit) {
        if !self.record.run.status.is_live() {
            return;
        }
        let started = self.record.run.started_at.unwrap_or(exit.at);
        let ran = Duration::try_from(exit.at.duration_since(started)).unwrap_or_default();
        let run = &mut self.record.run;
        run.status = Status::Exited;
        run.pid = 0;
        run.exit_code = exit.code;
        run.oom_killed = exit.oom_killed;
        run.finished_at = Some(exit.at);
        run.error = exit.reason.unwrap_or_default();
        if let Some(health) = &mut run.health {
            health.stop();
        }
        self.ended.again(exit.code, None);
        for entry in std::mem::take(&mut self.execs) {
            entry.ended(137);
        }
        self.disconnect().await;
        self.let_go_of_volumes().await;
        // Docker reports the stop that was asked for before the death it brought.
        if self.stopping.as_ref().is_some_and(Stopping::was_asked_for) {
            self.event("stop", &[]);
        }
        let more = [
            ("execDuration", ran.as_secs().to_string()),
            ("exitCode", exit.code.to_string()),
        ];
        self.event("die", &more);

        let stopping = self.stopping.take();
        let again = stopping.is_none() && self.schedule_restart(ran);
        if self.record.host_config.auto_remove && !again && !stopping.as_ref().is_some_and(Stopping::restarts) {
            // The record goes first: a waiter for `removed` is answered by it, and the files follow.
            self.remove(true, Urgency::Later).await;
            self.note_exit().await;
        } else {
            self.publish();
            self.note_exit().await;
            drop(self.persist_later().await);
        }
        if let Some(stopping) = stopping {
            self.after_stop(stopping).await;
        }
    }

    /// Lets the shim end its clients' streams: whoever sees the end of one finds the exit in the record.
    async fn note_exit(&self) {
        if let Some(task) = &self.task {
            task.noted(None).await;
        }
    }

    pub(super) async fn after_stop(&mut self, stopping: Stopping) {
        for then in stopping.then {
            match then {
                Then::Stopped(reply) => {
                    let _ = reply.send(Ok(Permit::Go));
                }
                Then::Restart(reply) => {
                    let done = self.start().await;
                    if done.is_ok() {
                        self.event("restart", &[]);
                    }
                    let _ = reply.send(done);
                }
                Then::Renew => {
                    self.record.run.restarts += 1;
                    self.start_by_policy().await;
                    if self.record.run.status.is_live() {
                        self.event("restart", &[]);
                    }
                }
                Then::Remove { volumes, reply } => {
                    if !self.removed {
                        self.remove(volumes, Urgency::Now).await;
                    }
                    let _ = reply.send(Ok(()));
                }
            }
        }
    }

    /// Whether the restart policy starts the container again; if so, when.
    fn schedule_restart(&mut self, ran: Duration) -> bool {
        let policy = &self.record.host_config.restart_policy;
        let run = &self.record.run;
        let wanted = match policy.name.as_str() {
            restart_policy::ALWAYS | restart_policy::UNLESS_STOPPED => true,
            restart_policy::ON_FAILURE => {
                let most = u32::try_from(policy.maximum_retry_count).unwrap_or(0);
                run.exit_code != 0 && (most == 0 || run.restarts < most)
            }
            _ => false,
        };
        if !wanted || run.stopped {
            return false;
        }
        self.backoff = if ran >= GOOD_RUN { FIRST_BACKOFF } else { self.backoff };
        self.restart = Some(RestartAt(Instant::now() + self.backoff));
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
        self.record.run.status = Status::Restarting;
        self.record.run.restarts += 1;
        true
    }

    pub(super) async fn start_by_policy(&mut self) {
        // A start that fails counts as a run that ended at once.
        if self.start().await.is_err() && self.schedule_restart(Duration::ZERO) {
            self.publish();
        }
    }
}

impl Stopping {
    /// By `stop` or `restart`, not only by a removal.
    fn was_asked_for(&self) -> bool {
        self.then.iter().any(|then| !matches!(then, Then::Remove { .. }))
    }

    fn restarts(&self) -> bool {
        self.then
            .iter()
            .any(|then| matches!(then, Then::Restart(_) | Then::Renew))
    }
}
