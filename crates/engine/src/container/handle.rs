//! What the rest of the engine holds of a container: its mailbox, and the last snapshot its actor published.

use std::sync::Arc;
use std::time::Duration;

use ferry_api::container::{Wait, WaitError, condition};
use ferry_supervise::Task;
use tokio::sync::{mpsc, oneshot, watch};

use super::Answer;
use super::actor::Command;
use super::archive::FilesGate;
use super::record::Record;
use super::state::{Permit, Status};
use crate::error::{Error, Kind, Result};

/// How long a container's actor may take to answer before the request fails. A stop waits longer, by its own time-out.
const ANSWER: Duration = Duration::from_secs(120);

/// One container. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    id: Arc<str>,
    mailbox: mpsc::Sender<Command>,
    published: watch::Receiver<Arc<Snapshot>>,
    files: FilesGate,
}

/// A container at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub record: Record,
    /// Ids of its execs, the finished ones too until they are forgotten.
    pub execs: Vec<String>,
    /// How the last run ended, which a waiter sees although the next one has begun.
    pub ended: Ended,
    /// It is gone, and so is what it had on disk.
    pub removed: bool,
    /// Its shim, from its start until it is gone.
    pub task: Option<Task>,
}

/// The end of the last run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    /// How many runs have ended, those that did not come to run included.
    pub count: u64,
    pub code: i32,
    /// Why it did not come to run.
    pub error: Option<String>,
}

impl Ended {
    /// By what the record says of the last one.
    pub fn of(record: &Record) -> Self {
        let run = &record.run;
        Self {
            count: 0,
            code: run.exit_code,
            error: (run.status == Status::Created && !run.error.is_empty()).then(|| run.error.clone()),
        }
    }

    pub fn again(&mut self, code: i32, error: Option<String>) {
        *self = Self {
            count: self.count + 1,
            code,
            error,
        };
    }
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

impl Condition {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | condition::NOT_RUNNING => Ok(Self::NotRunning),
            condition::NEXT_EXIT => Ok(Self::NextExit),
            condition::REMOVED => Ok(Self::Removed),
            other => Err(Error::invalid(format!("invalid condition: {other:?}"))),
        }
    }
}

impl Handle {
    pub fn new(
        id: &str,
        mailbox: mpsc::Sender<Command>,
        published: watch::Receiver<Arc<Snapshot>>,
        files: FilesGate,
    ) -> Self {
        Self {
            id: id.into(),
            mailbox,
            published,
            files,
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn files(&self) -> &FilesGate {
        &self.files
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.borrow())
    }

    /// Waits for the next snapshot; false when there will be none.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.published.clone()
    }

    /// Sends a command and waits for the answer. A container that does not answer is named.
    pub async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let gone = || Error::not_found(format!("No such container: {}", self.id));
        let command = command(sender);
        let limit = ANSWER.saturating_add(command.patience());
        self.mailbox.send(command).await.map_err(|_| gone())?;
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(gone()),
            Err(_) => {
                let name = self.snapshot().record.name.clone();
                Err(Error::new(
                    Kind::Internal,
                    format!("container {name} does not answer; its supervisor may be stuck"),
                ))
            }
        }
    }

    pub async fn start(&self) -> Result<Permit> {
        self.ask(|reply| Command::Start { reply }).await
    }

    /// The code of the run that ends the wait.
    pub fn wait(&self, condition: Condition) -> impl Future<Output = Wait> + Send + use<> {
        let mut published = self.published.clone();
        let seen = published.borrow().ended.count;
        async move {
            let met = |snapshot: &Arc<Snapshot>| match condition {
                // As in Docker, a container that will be restarted counts as running; its exit ends the wait all the same.
                Condition::NotRunning => {
                    let status = snapshot.record.run.status;
                    !(status.is_live() || status == Status::Restarting)
                        || snapshot.ended.count > seen
                        || snapshot.removed
                }
                Condition::NextExit => snapshot.ended.count > seen || snapshot.removed,
                Condition::Removed => snapshot.removed,
            };
            // An error: the actor is gone, with the engine.
            let _ = published.wait_for(met).await.map(drop);
            let snapshot = Arc::clone(&published.borrow());
            let ended = &snapshot.ended;
            // As in Docker: who waits for a later end is told what it was, and not why a start failed, which the start says.
            let error = match condition {
                Condition::NotRunning => ended.error.clone(),
                Condition::NextExit | Condition::Removed => None,
            };
            Wait {
                error: error.map(|message| WaitError { message }),
                status_code: i64::from(ended.code),
            }
        }
    }
}
