//! What the shim says of the container's health, and what follows from it.

use ferry_supervise::{Health, HealthStatus};

use super::Actor;
use crate::container::health::{self, OnFailure};
use crate::error::Result;

impl Actor {
    pub(super) fn on_probe_started(&self, exec: &str) {
        let command = health::command_line(&self.record);
        let more = [("execID", exec.to_owned())];
        self.event(&format!("exec_create: {command}"), &more);
        self.event(&format!("exec_start: {command}"), &more);
    }

    pub(super) async fn on_probed(&mut self, exec: Option<(String, Option<i32>)>, health: Health) {
        if let Some((_, code)) = &exec {
            self.world.counts.health_check(*code != Some(0));
        }
        if let Some((exec, Some(code))) = exec {
            self.event("exec_die", &[("execID", exec), ("exitCode", code.to_string())]);
        }
        self.note_health(health).await;
    }

    /// A change is on disk before anybody sees it: a daemon that comes later tells of what this one has missed, and only of that.
    async fn note_health(&mut self, health: Health) {
        if !self.record.run.status.is_live() {
            return;
        }
        let before = self.record.run.health.as_ref().map(|health| health.status);
        let (now, streak) = (health.status, health.failing_streak);
        self.record.run.health = Some(health);
        if before == Some(now) {
            self.publish();
        } else {
            self.persist().await;
            self.publish();
            self.event(&format!("health_status: {}", now.name()), &[]);
        }
        // Not by the status alone: after a pause a container counts as unhealthy before anything was checked.
        if now == HealthStatus::Unhealthy && streak >= health::retries(&self.record) {
            self.act_on_failure().await;
        }
    }

    /// `--health-on-failure`. A container that somebody stops already is left alone.
    async fn act_on_failure(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        match OnFailure::of(&self.record) {
            OnFailure::None => {}
            OnFailure::Restart => self.stop_unhealthy(true).await,
            OnFailure::Stop => self.stop_unhealthy(false).await,
            // Not what somebody asked for: a restart policy applies.
            OnFailure::Kill => self.send_kill(libc::SIGKILL).await,
        }
    }

    /// While the container is paused nobody looks after its health.
    pub(super) async fn end_checks(&mut self) -> Result<()> {
        if let Some(health) = &mut self.record.run.health {
            let task = self.task.as_ref();
            let task = task.ok_or(ferry_supervise::Error::Lost)?;
            task.check_health(false).await?;
            health.stop();
        }
        Ok(())
    }

    pub(super) async fn begin_checks(&self) {
        if self.record.run.health.is_some()
            && let Some(task) = &self.task
            && let Err(error) = task.check_health(true).await
        {
            tracing::warn!(container = self.record.id, %error, "tell the supervisor about health checks");
        }
    }
}
