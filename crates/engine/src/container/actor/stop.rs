//! Signals, stopping, restarting.

use std::time::Duration;

use ferry_supervise::Task;
use tokio::time::Instant;

use super::{Actor, Stopping, Then};
use crate::container::Answer;
use crate::container::state::{Permit, Status, Verb};
use crate::error::Result;

/// Between the stop signal and SIGKILL, unless the container or the request says otherwise.
const STOP_TIMEOUT: i64 = 10;

impl Actor {
    /// Asks the container to end, and kills it when its time is up.
    pub(super) async fn stop(&mut self, signal: Option<i32>, timeout: Option<i64>, then: Then) {
        match self.permit(Verb::Stop) {
            Ok(Permit::Go) => {}
            Ok(Permit::Already) => return then.already(),
            Err(error) => return then.refuse(error),
        }
        self.record.run.stopped = true;
        if self.record.run.status == Status::Restarting {
            self.restart = None;
            self.record.run.status = Status::Exited;
            self.publish();
            self.persist().await;
            if !matches!(then, Then::Remove { .. }) {
                self.event("stop", &[]);
            }
            return self
                .after_stop(Stopping {
                    deadline: None,
                    then: vec![then],
                })
                .await;
        }
        let seconds = timeout.or(self.record.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        let deadline = u64::try_from(seconds)
            .ok()
            .map(|seconds| Instant::now() + Duration::from_secs(seconds));
        match &mut self.stopping {
            // A stop is under way: the earlier deadline holds, and both are told.
            Some(stopping) => {
                stopping.deadline = stopping.deadline.into_iter().chain(deadline).min();
                stopping.then.push(then);
            }
            None => {
                self.stopping = Some(Stopping {
                    deadline,
                    then: vec![then],
                });
                let signal = signal.unwrap_or_else(|| crate::signal::of_container(&self.record.config));
                self.send_kill(signal).await;
            }
        }
    }

    pub(super) async fn restart_requested(&mut self, signal: Option<i32>, timeout: Option<i64>, reply: Answer<()>) {
        match self.permit(Verb::Restart) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(_) if self.record.run.status.is_live() => self.stop(signal, timeout, Then::Restart(reply)).await,
            Ok(_) => {
                if self.restart.take().is_some() {
                    self.event("stop", &[]);
                }
                let done = self.start().await;
                if done.is_ok() {
                    self.event("restart", &[]);
                }
                let _ = reply.send(done);
            }
        }
    }

    pub(super) async fn kill(&mut self, signal: i32) -> Result<()> {
        self.permit(Verb::Kill)?;
        if self.record.run.status == Status::Restarting {
            self.restart = None;
            self.record.run.status = Status::Exited;
            self.publish();
            return Ok(());
        }
        // Whoever kills a container does not want it back.
        if signal == libc::SIGKILL || signal == crate::signal::of_container(&self.record.config) {
            self.record.run.stopped = true;
        }
        let task = self.task()?.clone();
        Ok(self.signal(&task, signal).await?)
    }

    /// A signal that belongs to a stop: that the container has ended meanwhile is no error.
    pub(super) async fn send_kill(&mut self, signal: i32) {
        if let Some(task) = self.task.clone()
            && let Err(error) = self.signal(&task, signal).await
        {
            tracing::debug!(container = self.record.id, signal, %error, "signal");
        }
    }

    /// A frozen process takes no signal, SIGKILL included, and a supervisor that waits for one answers nobody: it is asked
    /// first and thawed before it answers.
    async fn signal(&mut self, task: &Task, signal: i32) -> std::result::Result<(), ferry_supervise::Error> {
        let (sent, thawed) = tokio::join!(task.kill(None, signal), self.thaw());
        if sent.is_ok() {
            self.event("kill", &[("signal", signal.to_string())]);
        }
        // Of a container that is killed Docker tells no more than its end.
        if thawed && signal != libc::SIGKILL {
            self.event("unpause", &[]);
        }
        sent
    }

    /// Whether it was frozen.
    async fn thaw(&mut self) -> bool {
        let thawed = self.record.run.status == Status::Paused && self.freeze(false).await.is_ok();
        if thawed {
            self.record.run.status = Status::Running;
            self.begin_checks().await;
            self.publish();
        }
        thawed
    }

    /// Stops a container that is not well, as somebody who asks for that would.
    pub(super) async fn stop_unhealthy(&mut self, again: bool) {
        // Nobody waits for the answer.
        let then = match again {
            true => Then::Renew,
            false => Then::Stopped(tokio::sync::oneshot::channel().0),
        };
        self.stop(None, None, then).await;
    }
}

impl Then {
    fn already(self) {
        match self {
            Self::Stopped(reply) => drop(reply.send(Ok(Permit::Already))),
            Self::Restart(reply) | Self::Remove { reply, .. } => drop(reply.send(Ok(()))),
            Self::Renew => {}
        }
    }

    fn refuse(self, error: crate::error::Error) {
        match self {
            Self::Stopped(reply) => drop(reply.send(Err(error))),
            Self::Restart(reply) | Self::Remove { reply, .. } => drop(reply.send(Err(error))),
            Self::Renew => {}
        }
    }
}
