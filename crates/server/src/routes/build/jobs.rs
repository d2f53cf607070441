//! Builds that clients gave a name (`buildid`): to cancel them, or to send their context by a request of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Result};

/// How long a build and its context wait for each other, as in dockerd.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Jobs(Arc<Known>);

#[derive(Debug)]
struct Known {
    running: Mutex<HashMap<String, Arc<CancellationToken>>>,
    uploads: Mutex<HashMap<String, Upload>>,
    changed: watch::Sender<()>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self(Arc::new(Known {
            running: Mutex::default(),
            uploads: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }
}

/// A context that comes with a request.
#[derive(Debug)]
pub struct Upload {
    body: Body,
    over: Option<Over>,
}

/// Tells the request that a context came with that it has been read.
#[derive(Debug)]
struct Over(Arc<CancellationToken>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Upload {
    pub fn new(body: Body) -> Self {
        Self { body, over: None }
    }

    pub fn into_stream(self) -> impl futures_util::Stream<Item = Result<Bytes, axum::Error>> + Send + Unpin {
        let over = self.over;
        self.body.into_data_stream().inspect(move |_| {
            let _held = &over;
        })
    }
}

/// A build under way, which can be canceled; forgotten when it is dropped.
#[derive(Debug)]
pub struct Job {
    jobs: Jobs,
    name: String,
    canceled: Arc<CancellationToken>,
}

impl Job {
    pub async fn canceled(&self) {
        self.canceled.cancelled().await;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut running = lock(&self.jobs.0.running);
        if running
            .get(&self.name)
            .is_some_and(|known| Arc::ptr_eq(known, &self.canceled))
        {
            running.remove(&self.name);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// An empty name is nobody's.
    pub fn begin(&self, name: &str) -> Job {
        let canceled = Arc::new(CancellationToken::new());
        if !name.is_empty() {
            lock(&self.0.running).insert(name.to_owned(), Arc::clone(&canceled));
        }
        Job {
            jobs: self.clone(),
            name: name.to_owned(),
            canceled,
        }
    }

    /// One that has ended, or never was, is none the worse.
    pub fn cancel(&self, name: &str) {
        if let Some(canceled) = lock(&self.0.running).get(name) {
            canceled.cancel();
        }
    }

    /// Gives a build its context, and returns when it has been read.
    pub async fn offer(&self, name: &str, body: Body) -> Result<()> {
        let over = Arc::new(CancellationToken::new());
        let upload = Upload {
            body,
            over: Some(Over(Arc::clone(&over))),
        };
        self.put(name, upload)?;
        let offered = Offered {
            jobs: self,
            name,
            over: &over,
        };
        self.0.changed.send_replace(());
        let waited = tokio::time::timeout(PATIENCE, over.cancelled()).await;
        if waited.is_ok() {
            return Ok(());
        }
        match offered.withdraw() {
            true => Err(Failure::invalid(format!("no build {name} asks for its context"))),
            false => {
                over.cancelled().await;
                Ok(())
            }
        }
    }

    fn put(&self, name: &str, upload: Upload) -> Result<()> {
        match lock(&self.0.uploads).entry(name.to_owned()) {
            Entry::Occupied(_) => Err(Failure::invalid(format!(
                "the build {name} is being sent a context already"
            ))),
            Entry::Vacant(place) => {
                place.insert(upload);
                Ok(())
            }
        }
    }

    /// The context of a build, which may be about to come.
    pub async fn context(&self, name: &str) -> Result<Upload> {
        let mut changed = self.0.changed.subscribe();
        let coming = async {
            loop {
                let upload = lock(&self.0.uploads).remove(name);
                match upload {
                    Some(upload) => return upload,
                    None => drop(changed.changed().await),
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, coming).await;
        waited.map_err(|_| Failure::invalid(format!("nobody sends the context of the build {name}")))
    }
}

/// A context that nobody has taken goes with the request that brought it.
struct Offered<'a> {
    jobs: &'a Jobs,
    name: &'a str,
    over: &'a Arc<CancellationToken>,
}

impl Offered<'_> {
    /// Whether nobody had taken it.
    fn withdraw(&self) -> bool {
        let mut uploads = lock(&self.jobs.0.uploads);
        let waiting = uploads.get(self.name).and_then(|upload| upload.over.as_ref());
        let is_waiting = waiting.is_some_and(|over| Arc::ptr_eq(&over.0, self.over));
        let withdrawn = is_waiting.then(|| uploads.remove(self.name)).flatten();
        drop(uploads);
        withdrawn.is_some()
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_and_its_context_find_each_other() {
        let jobs = Jobs::default();
        let (offered, taken) = tokio::join!(jobs.offer("a", Body::from("x")), async {
            let upload = jobs.context("a").await.unwrap();
            let pieces: Vec<_> = upload.into_stream().collect().await;
            pieces.len()
        });
        assert!(offered.is_ok() && taken == 1);
        let (offered, taken) = tokio::join!(jobs.offer("b", Body::empty()), jobs.context("c"));
        assert!(offered.is_err() && taken.is_err());
        assert!(lock(&jobs.0.uploads).is_empty());
    }

    #[tokio::test]
    async fn what_is_canceled_is_the_build_of_that_name() {
        let jobs = Jobs::default();
        let (one, two) = (jobs.begin("one"), jobs.begin("two"));
        jobs.cancel("one");
        jobs.cancel("nobody");
        one.canceled().await;
        assert!(!two.canceled.is_cancelled());
        drop((one, two));
        assert!(lock(&jobs.0.running).is_empty());
    }
}
