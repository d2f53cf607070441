//! The task that owns one container. Requests and what its shim reports go into its mailbox; nobody else changes its record.
//!
//! The loop never waits for the container itself: a stop that is under way is state ([`Stopping`]) with a deadline, so
//! events go on arriving and a second request finds the first one. What it does wait for is bounded: the disk, the shim's
//! answer, the network.

mod exec;
mod exit;
mod health;
mod networks;
mod remove;
mod start;
mod stop;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ferry_api::container::{HostConfig, Update, Updated};
use ferry_api::network::EndpointSettings;
use ferry_storage::{Batch, Durability};
use ferry_supervise::{Attach, Event, Task};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::archive::FilesGate;
use super::exec::Entry;
use super::handle::{Ended, Handle, Snapshot};
use super::record::Record;
use super::resources;
use super::state::{Permit, Status, Verb};
use super::{Answer, Permit as StartPermit};
use crate::error::{Error, Kind, Result};
use crate::networks::Stored;
use crate::world::World;

/// Requests that wait for the actor.
const MAILBOX: usize = 64;

/// What is asked of a container.
pub(crate) enum Command {
    Start {
        reply: Answer<StartPermit>,
    },
    Stop {
        signal: Option<i32>,
        timeout: Option<i64>,
        reply: Answer<Permit>,
    },
    Restart {
        signal: Option<i32>,
        timeout: Option<i64>,
        reply: Answer<()>,
    },
    Kill {
        signal: i32,
        reply: Answer<()>,
    },
    Pause {
        reply: Answer<()>,
    },
    Unpause {
        reply: Answer<()>,
    },
    Unlink {
        alias: String,
        reply: Answer<bool>,
    },
    Rename {
        name: String,
        reply: Answer<()>,
    },
    Remove {
        force: bool,
        volumes: bool,
        reply: Answer<()>,
    },
    Update {
        update: Box<Update>,
        reply: Answer<Updated>,
    },
    Resize {
        exec: Option<String>,
        rows: u16,
        columns: u16,
        reply: Answer<()>,
    },
    Connect {
        network: Arc<Stored>,
        settings: Box<EndpointSettings>,
        reply: Answer<()>,
    },
    Disconnect {
        network: Arc<Stored>,
        reply: Answer<()>,
    },
    /// The host has other name servers, or a container that this one is linked to another address.
    Renew {
        reply: Answer<()>,
    },
    /// Does nothing but come behind what the shim has said.
    Settle {
        reply: Answer<()>,
    },
    Attach {
        client: oneshot::Receiver<(Attach, OwnedFd)>,
        reply: Answer<()>,
    },
    AddExec {
        entry: Arc<Entry>,
        reply: Answer<()>,
    },
    RunExec {
        entry: Arc<Entry>,
        size: Option<(u16, u16)>,
        client: Option<(Attach, OwnedFd)>,
        reply: Answer<()>,
    },
}

impl Command {
    /// How long the container itself may take over this, by its own time-out.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Stop { timeout, .. } | Self::Restart { timeout, .. } => match timeout {
                Some(seconds) if *seconds < 0 => Duration::MAX,
                Some(seconds) => Duration::from_secs(seconds.unsigned_abs()),
                // The container's own time-out is not known here; it is seldom long.
                None => Duration::from_secs(24 * 3600),
            },
            _ => Duration::ZERO,
        }
    }
}

pub(crate) struct Actor {
    world: Arc<World>,
    record: Record,
    published: watch::Sender<Arc<Snapshot>>,
    ended: Ended,
    /// The shim, from its start until it is gone; longer than the container runs.
    task: Option<Task>,
    events: Option<mpsc::UnboundedReceiver<Event>>,
    stopping: Option<Stopping>,
    /// Clients that attach before the container starts; their connections are on the way.
    clients: Vec<oneshot::Receiver<(Attach, OwnedFd)>>,
    execs: Vec<Arc<Entry>>,
    restart: Option<RestartAt>,
    /// The next back-off of the restart policy.
    backoff: Duration,
    removed: bool,
    /// What copies files of it; a start waits for that.
    files: FilesGate,
}

/// A stop under way.
struct Stopping {
    /// When SIGKILL follows; `None`: never, or sent already.
    deadline: Option<Instant>,
    /// What to do when it has ended.
    then: Vec<Then>,
}

enum Then {
    Stopped(Answer<Permit>),
    Restart(Answer<()>),
    /// A restart that nobody asked for: the container was not well.
    Renew,
    Remove {
        volumes: bool,
        reply: Answer<()>,
    },
}

/// A start that the restart policy has scheduled.
struct RestartAt(Instant);

/// Starts the actor of a new container, or of one that was read from disk.
pub(crate) fn spawn(
    world: &Arc<World>,
    record: Record,
    live: Option<(Task, mpsc::UnboundedReceiver<Event>)>,
) -> Handle {
    let (mailbox, commands) = mpsc::channel(MAILBOX);
    let snapshot = Snapshot {
        record: record.clone(),
        execs: Vec::new(),
        ended: Ended::of(&record),
        removed: false,
        task: live.as_ref().map(|(task, _)| task.clone()),
    };
    let files = FilesGate::default();
    let (published, receiver) = watch::channel(Arc::new(snapshot));
    let handle = Handle::new(&record.id, mailbox, receiver, files.clone());
    let (task, events) = live.unzip();
    let actor = Actor {
        world: Arc::clone(world),
        ended: Ended::of(&record),
        record,
        published,
        task,
        events,
        stopping: None,
        clients: Vec::new(),
        execs: Vec::new(),
        restart: None,
        backoff: exit::FIRST_BACKOFF,
        removed: false,
        files,
    };
    world.tasks.spawn(actor.run(commands));
    handle
}

impl Actor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let closing = self.world.closing.clone();
        while !self.removed {
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                event = next_event(&mut self.events) => self.on_event(event).await,
                command = commands.recv() => match command {
                    Some(command) => {
                        self.hear_the_end().await;
                        self.on_command(command).await;
                    }
                    None => break,
                },
                () = sleep_until(deadline), if deadline.is_some() => {
                    self.hear_the_end().await;
                    self.on_deadline().await;
                }
                // The engine ends; containers do not.
                () = closing.cancelled() => break,
            }
        }
    }

    /// A connection that the shim has closed carries nothing more: what it said before is dealt with, and that it is gone.
    async fn hear_the_end(&mut self) {
        while self.events.is_some() && self.task.as_ref().is_some_and(Task::is_closed) {
            let event = next_event(&mut self.events).await;
            self.on_event(event).await;
        }
    }

    async fn on_command(&mut self, command: Command) {
        // A client that has gone away does not need the answer.
        match command {
            Command::Start { reply } => {
                let done = self.start_requested().await;
                let _ = reply.send(done);
            }
            Command::Stop { signal, timeout, reply } => self.stop(signal, timeout, Then::Stopped(reply)).await,
            Command::Restart { signal, timeout, reply } => self.restart_requested(signal, timeout, reply).await,
            Command::Kill { signal, reply } => {
                let done = self.kill(signal).await;
                let _ = reply.send(done);
            }
            Command::Pause { reply } => {
                let done = self.pause().await;
                let _ = reply.send(done);
            }
            Command::Unpause { reply } => {
                let done = self.unpause().await;
                let _ = reply.send(done);
            }
            Command::Unlink { alias, reply } => {
                let _ = reply.send(self.unlink(&alias).await);
            }
            Command::Rename { name, reply } => {
                let done = self.rename(name).await;
                let _ = reply.send(done);
            }
            Command::Remove { force, volumes, reply } => self.remove_requested(force, volumes, reply).await,
            Command::Update { update, reply } => {
                let done = self.update(&update).await;
                let _ = reply.send(done);
            }
            Command::Resize {
                exec,
                rows,
                columns,
                reply,
            } => {
                let done = self.resize(exec.as_deref(), rows, columns).await;
                let _ = reply.send(done);
            }
            Command::Connect {
                network,
                settings,
                reply,
            } => {
                let done = self.join(&network, *settings).await;
                let _ = reply.send(done);
            }
            Command::Disconnect { network, reply } => {
                let done = self.leave(&network).await;
                let _ = reply.send(done);
            }
            Command::Renew { reply } => {
                let done = self.renew_names().await;
                let _ = reply.send(done);
            }
            Command::Settle { reply } => drop(reply.send(Ok(()))),
            Command::Attach { client, reply } => {
                let done = self.attach(client);
                let _ = reply.send(done);
            }
            Command::AddExec { entry, reply } => {
                let done = self.add_exec(entry);
                let _ = reply.send(done);
            }
            Command::RunExec {
                entry,
                size,
                client,
                reply,
            } => {
                let done = self.run_exec(entry, size, client).await;
                let _ = reply.send(done);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stop = self.stopping.as_ref().and_then(|stopping| stopping.deadline);
        let restart = self.restart.as_ref().map(|restart| restart.0);
        stop.into_iter().chain(restart).min()
    }

    async fn on_deadline(&mut self) {
        let now = Instant::now();
        if self.restart.as_ref().is_some_and(|restart| restart.0 <= now) {
            self.restart = None;
            self.start_by_policy().await;
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.deadline.is_some_and(|deadline| deadline <= now)
        {
            stopping.deadline = None;
            self.send_kill(libc::SIGKILL).await;
        }
    }

    /// Lets everybody see the record as it is now.
    fn publish(&mut self) {
        let snapshot = Snapshot {
            record: self.record.clone(),
            execs: self.execs.iter().map(|entry| entry.id.clone()).collect(),
            ended: self.ended.clone(),
            removed: self.removed,
            task: self.task.clone(),
        };
        self.published.send_replace(Arc::new(snapshot));
    }

    /// Writes the record. Run state survives the daemon, not a power loss: the run does not either.
    async fn persist(&self) {
        if let Err(error) = self.world.store.db.put(&self.record, Durability::Process).await {
            // The kernel and the exit record are the truth that the next daemon starts from; the record only lags.
            tracing::error!(container = self.record.id, %error, "cannot write the container's record");
        }
    }

    /// The same, to be waited for later or not at all: a daemon that dies before it is written finds out by itself, from the
    /// shim or the exit record.
    async fn persist_later(&self) -> impl Future<Output = ()> + Send + use<> {
        let (db, record) = (&self.world.store.db, &self.record);
        let mut batch = Batch::default();
        let put = batch.put(record);
        let written = db.commit_later(batch).await;
        let id = record.id.clone();
        async move {
            if let Err(error) = put.and(written.await) {
                tracing::error!(container = id, %error, "cannot write the container's record");
            }
        }
    }

    fn permit(&self, verb: Verb) -> Result<Permit> {
        self.record.run.status.permit(verb, &self.record.name, &self.record.id)
    }

    fn task(&self) -> Result<&Task> {
        self.task
            .as_ref()
            .ok_or_else(|| Error::conflict(format!("container {} is not running", self.record.id)))
    }

    fn event(&self, action: &str, more: &[(&str, String)]) {
        self.world.events.container(&self.record, action, more);
    }

    async fn pause(&mut self) -> Result<()> {
        self.permit(Verb::Pause)?;
        // A check that began now would be frozen with the container, and the shim, which waits for its start, would hear nothing.
        self.end_checks().await?;
        if let Err(error) = self.freeze(true).await {
            self.begin_checks().await;
            return Err(error);
        }
        self.record.run.status = Status::Paused;
        self.publish();
        self.event("pause", &[]);
        self.persist().await;
        Ok(())
    }

    async fn unpause(&mut self) -> Result<()> {
        self.permit(Verb::Unpause)?;
        self.freeze(false).await?;
        self.begin_checks().await;
        self.record.run.status = Status::Running;
        self.publish();
        self.event("unpause", &[]);
        self.persist().await;
        Ok(())
    }

    async fn freeze(&self, freeze: bool) -> Result<()> {
        let cgroup = self.world.cgroup_of(&self.record)?;
        let done = tokio::task::spawn_blocking(move || if freeze { cgroup.freeze() } else { cgroup.thaw() }).await;
        let what = if freeze { "pause" } else { "unpause" };
        match done {
            Ok(done) => done.map_err(|error| Error::internal(format!("{what} container {}", self.record.id), &error)),
            Err(error) => Err(Error::internal(what, &error)),
        }
    }

    async fn rename(&mut self, name: String) -> Result<()> {
        if name == self.record.name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        let containers = &self.world.containers;
        containers.reserve(&name, &self.record.id)?;
        let old = std::mem::replace(&mut self.record.name, name);
        if let Err(error) = self.world.store.db.put(&self.record, self.durability()).await {
            containers.release_name(&self.record.name, &self.record.id);
            self.record.name = old;
            return Err(error.into());
        }
        containers.release_name(&old, &self.record.id);
        if self.record.run.status.is_live() {
            self.world.networks.names.publish(&self.world, &self.record);
        }
        self.publish();
        self.event("rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    async fn update(&mut self, update: &Update) -> Result<Updated> {
        let mut host_config = self.record.host_config.clone();
        resources::update(&mut host_config, update).map_err(|error| match error.kind {
            // What contradicts what is set, not the request itself.
            Kind::Conflict => Error::conflict(format!("Cannot update container {}: {error}", self.record.id)),
            _ => error,
        })?;
        let mut warnings = resources::validate(&mut host_config, &self.world.host)?;
        let limits = self.limit(&mut host_config, update).await?;
        let done = self.update_rest(&mut host_config, update, &mut warnings).await;
        if let Err(error) = done {
            self.put_back(limits).await;
            return Err(error);
        }
        self.record.host_config = host_config;
        self.world.store.db.put(&self.record, self.durability()).await?;
        self.publish();
        self.event("update", &[]);
        Ok(Updated {
            warnings: (!warnings.is_empty()).then_some(warnings),
        })
    }

    async fn update_rest(&mut self, host: &mut HostConfig, update: &Update, warnings: &mut Vec<String>) -> Result<()> {
        if self.record.run.status.is_live() {
            let cgroup = self.world.cgroup_of(&self.record)?;
            let limits = resources::limits(host, &[]);
            let done = tokio::task::spawn_blocking(move || cgroup.update(&limits)).await;
            let done = done.map_err(|error| Error::internal("update", &error))?;
            let more =
                done.map_err(|error| Error::internal(format!("Cannot update container {}", self.record.id), &error))?;
            warnings.extend(more.iter().map(ToString::to_string));
        }
        self.republish(host, update).await
    }

    async fn resize(&self, exec: Option<&str>, rows: u16, columns: u16) -> Result<()> {
        self.permit(Verb::Resize)?;
        self.task()?.resize(exec, rows, columns).await?;
        self.event(
            "resize",
            &[("height", rows.to_string()), ("width", columns.to_string())],
        );
        Ok(())
    }

    fn attach(&mut self, client: oneshot::Receiver<(Attach, OwnedFd)>) -> Result<()> {
        self.permit(Verb::Attach)?;
        self.event("attach", &[]);
        if !self.record.run.status.is_live() {
            self.clients.push(client);
            return Ok(());
        }
        let task = self.task()?.clone();
        self.world.tasks.spawn(async move {
            // A client that does not come, or a container that is gone when it does: the connection just ends.
            if let Ok((attach, connection)) = client.await {
                let _ = task.attach(None, attach, connection).await;
            }
        });
        Ok(())
    }

    /// What the user set up survives a power loss, unless it goes with the run.
    fn durability(&self) -> Durability {
        if self.record.host_config.auto_remove {
            Durability::Process
        } else {
            Durability::Power
        }
    }
}

async fn next_event(events: &mut Option<mpsc::UnboundedReceiver<Event>>) -> Event {
    match events {
        Some(receiver) => receiver.recv().await.unwrap_or(Event::Lost),
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}
