//! Builds of clients: those under way, those that are remembered, and results that other builds can name.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_build::Session;
use ferry_build::progress::{Event, Events};
use ferry_buildkit::RpcStatus;
use ferry_buildkit::control::{BuildHistoryRecord, CacheOptionsEntry, Exporter, SolveRequest};
use ferry_buildkit::frontend::ReturnRequest;
use ferry_engine::builds::Solved;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::entry::{Entry, History};
use super::log::Log;
use super::progress;

/// How long a call waits for the build it belongs to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a result can be named after its build has ended: another build of the same client may be about to.
const GRACE: Duration = Duration::from_secs(30);

/// What a client asked for otherwise than by attributes, and who it is if not a session.
#[derive(Debug, Clone)]
pub struct Asked {
    pub request: ferry_build::Request,
    pub session: Arc<dyn Session>,
}

/// One build.
#[derive(Debug)]
pub struct Build {
    pub entry: Arc<Entry>,
    pub session: String,
    pub asked: Option<Asked>,
    pub entitlements: Vec<String>,
    pub inputs: BTreeMap<String, ferry_buildkit::pb::Definition>,
    /// Caches that all of it may take from.
    pub caches: Vec<CacheOptionsEntry>,
    pub events: Events,
    /// The client has gone, or has given it up.
    pub canceled: CancellationToken,
    /// Results, by their ids.
    results: Mutex<BTreeMap<String, Solved>>,
    /// Who waits for the frontend's result.
    returned: Mutex<Option<oneshot::Sender<ReturnRequest>>>,
    /// Nothing happens any more but what is on its way to the log.
    over: CancellationToken,
}

/// Held as long as a build is under way; dropped, the build has ended.
#[derive(Debug)]
pub struct Running {
    builds: Builds,
    pub build: Arc<Build>,
    /// What the frontend comes to.
    pub frontend: oneshot::Receiver<ReturnRequest>,
}

/// All builds.
#[derive(Debug, Clone)]
pub struct Builds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    running: Mutex<HashMap<String, Arc<Build>>>,
    history: History,
    /// Where logs are written.
    dir: Option<PathBuf>,
    changed: watch::Sender<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Build {
    pub fn keep(&self, solved: Solved) {
        lock(&self.results).insert(solved.id().to_owned(), solved);
    }

    pub fn result(&self, id: &str) -> Option<Solved> {
        lock(&self.results).get(id).cloned()
    }

    /// The frontend is through.
    pub fn end_frontend(&self, result: ReturnRequest) -> bool {
        let waiting = lock(&self.returned).take();
        waiting.is_some_and(|waiting| waiting.send(result).is_ok())
    }

    /// Writes what happens to the log, until the build is over.
    async fn write(&self, mut happening: mpsc::UnboundedReceiver<Event>) {
        let mut counts = progress::Counts::default();
        let mut events = Vec::new();
        loop {
            let is_over = tokio::select! {
                biased;
                received = happening.recv_many(&mut events, progress::BATCH) => received == 0,
                () = self.over.cancelled() => true,
            };
            if events.is_empty() && is_over {
                break;
            }
            for event in &events {
                counts.take(event);
            }
            self.entry.log.add(progress::response(events.drain(..)));
        }
        self.entry.count(&counts);
        self.entry.log.end();
    }
}

impl Builds {
    /// `dir`: where the history is; without one, nothing can be built.
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner {
            running: Mutex::default(),
            history: History::open(dir.clone()),
            dir,
            changed: watch::Sender::new(()),
        }))
    }

    /// Begins one. The error: another one has this name.
    pub fn begin(&self, request: &SolveRequest, asked: Option<Asked>, frontend: &str) -> std::io::Result<Running> {
        let (events, happening) = Events::new();
        let (returned, returning) = oneshot::channel();
        let record = BuildHistoryRecord {
            r#ref: request.r#ref.clone(),
            frontend: frontend.to_owned(),
            frontend_attrs: request.frontend_attrs.clone(),
            exporters: exporters(request),
            created_at: Some(progress::timestamp(Timestamp::now())),
            ..BuildHistoryRecord::default()
        };
        let dir = self.0.dir.as_deref().ok_or(std::io::ErrorKind::NotFound)?;
        let log = Log::new(dir)?;
        let build = Arc::new(Build {
            entry: Arc::new(Entry::new(record, log, request.internal)),
            session: request.session.clone(),
            asked,
            entitlements: request.entitlements.clone(),
            inputs: request.frontend_inputs.clone(),
            caches: request.cache.iter().flat_map(|cache| cache.imports.clone()).collect(),
            events,
            canceled: CancellationToken::new(),
            results: Mutex::default(),
            returned: Mutex::new(Some(returned)),
            over: CancellationToken::new(),
        });
        let mut running = lock(&self.0.running);
        if running.contains_key(&build.entry.reference) {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        running.insert(build.entry.reference.clone(), Arc::clone(&build));
        drop(running);
        self.0.changed.send_replace(());
        let (builds, writing) = (self.clone(), Arc::clone(&build));
        tokio::spawn(async move {
            writing.write(happening).await;
            let storing = tokio::task::spawn_blocking(move || builds.0.history.store(&writing.entry));
            let _ = storing.await;
        });
        Ok(Running {
            builds: self.clone(),
            build,
            frontend: returning,
        })
    }

    /// One that is under way, or about to begin. For one that has ended nobody waits.
    pub async fn running(&self, reference: &str) -> Option<Arc<Build>> {
        self.any(reference).await?;
        lock(&self.0.running).get(reference).cloned()
    }

    /// One that is under way, about to begin, or remembered.
    pub async fn any(&self, reference: &str) -> Option<Arc<Entry>> {
        self.wait(|| self.known(reference)).await
    }

    fn known(&self, reference: &str) -> Option<Arc<Entry>> {
        let running = lock(&self.0.running)
            .get(reference)
            .map(|build| Arc::clone(&build.entry));
        running.or_else(|| self.0.history.find(reference))
    }

    async fn wait<T>(&self, find: impl Fn() -> Option<T>) -> Option<T> {
        let mut changed = self.0.changed.subscribe();
        let coming = async {
            loop {
                match find() {
                    Some(found) => return found,
                    None => drop(changed.changed().await),
                }
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.ok()
    }

    /// The records of those under way and of those that have ended, the latest last.
    pub fn records(&self) -> (Vec<BuildHistoryRecord>, Vec<BuildHistoryRecord>) {
        let running = lock(&self.0.running);
        let told = running.values().filter(|build| !build.entry.is_internal);
        let running = told.map(|build| build.entry.record()).collect();
        (running, self.0.history.records())
    }

    /// Whether there was such a one.
    pub fn forget(&self, reference: &str) -> bool {
        self.0.history.forget(reference)
    }

    /// The error: too many are kept.
    pub fn pin(&self, reference: &str, pinned: bool) -> Result<(), String> {
        self.0.history.pin(reference, pinned)
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let build = Arc::clone(&self.build);
        build.canceled.cancel();
        let entry = &build.entry;
        if entry.record().completed_at.is_none() {
            entry.note(Err(RpcStatus {
                code: Code::Cancelled.into(),
                message: "context canceled".to_owned(),
                details: Vec::new(),
            }));
        }
        let inner = &self.builds.0;
        lock(&inner.running).remove(&entry.reference);
        // Also one that is in no history is asked how it was, right behind.
        inner.history.add(Arc::clone(entry));
        build.over.cancel();
        inner.changed.send_replace(());
        let builds = self.builds.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            lock(&build.results).clear();
            if build.entry.is_internal {
                builds.forget(&build.entry.reference);
            }
        });
    }
}

/// What becomes of it; as clients said it before there could be several.
pub fn exporters(request: &SolveRequest) -> Vec<Exporter> {
    match request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        true => vec![Exporter {
            r#type: request.exporter_deprecated.clone(),
            attrs: request.exporter_attrs_deprecated.clone(),
        }],
        false => request.exporters.clone(),
    }
}
