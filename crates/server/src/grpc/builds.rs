//! Builds of clients: those under way, those that are remembered, and results that other builds can name.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ferry_build::Session;
use ferry_build::progress::{Event, Events};
use ferry_buildkit::RpcStatus;
use ferry_buildkit::control::{BuildHistoryRecord, Exporter, SolveRequest};
use ferry_buildkit::frontend::ReturnRequest;
use ferry_engine::builds::Solved;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::log::Log;
use super::progress;

/// How long a call waits for the build it belongs to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many builds are remembered.
const REMEMBERED: usize = 100;
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
    pub reference: String,
    pub session: String,
    pub asked: Option<Asked>,
    pub entitlements: Vec<String>,
    pub inputs: BTreeMap<String, ferry_buildkit::pb::Definition>,
    pub events: Events,
    pub log: Log,
    /// The client has gone, or has given it up.
    pub canceled: CancellationToken,
    /// Results, by their ids.
    results: Mutex<BTreeMap<String, Solved>>,
    /// Who waits for the frontend's result.
    returned: Mutex<Option<oneshot::Sender<ReturnRequest>>>,
    /// It is a client's own question, and in no history.
    is_internal: bool,
    record: Mutex<BuildHistoryRecord>,
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
    /// The latest at the end.
    ended: Mutex<VecDeque<Arc<Build>>>,
    changed: watch::Sender<()>,
}

impl Default for Builds {
    fn default() -> Self {
        Self(Arc::new(Inner {
            running: Mutex::default(),
            ended: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }
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

    pub fn record(&self) -> BuildHistoryRecord {
        lock(&self.record).clone()
    }

    /// What became of it.
    pub fn note(&self, outcome: Result<BTreeMap<String, String>, RpcStatus>) {
        let mut record = lock(&self.record);
        record.completed_at = Some(progress::timestamp(Timestamp::now()));
        match outcome {
            Ok(told) => record.exporter_response = told,
            Err(status) => record.error = Some(status),
        }
    }

    pub fn pin(&self, pinned: bool) {
        lock(&self.record).pinned = pinned;
    }

    /// Writes what happens to the log, until the build is over.
    async fn write(self: Arc<Self>, mut happening: mpsc::UnboundedReceiver<Event>) {
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
            self.log.add(progress::response(events.drain(..)));
        }
        counts.note(&mut lock(&self.record));
        self.log.end();
    }
}

impl Builds {
    /// Begins one. The error: another one has this name.
    pub fn begin(
        &self,
        request: &SolveRequest,
        asked: Option<Asked>,
        dir: &Path,
        frontend: &str,
    ) -> std::io::Result<Running> {
        let (events, happening) = Events::new();
        let (returned, returning) = oneshot::channel();
        let build = Arc::new(Build {
            reference: request.r#ref.clone(),
            session: request.session.clone(),
            asked,
            entitlements: request.entitlements.clone(),
            inputs: request.frontend_inputs.clone(),
            events,
            log: Log::new(dir)?,
            canceled: CancellationToken::new(),
            results: Mutex::default(),
            returned: Mutex::new(Some(returned)),
            is_internal: request.internal,
            record: Mutex::new(BuildHistoryRecord {
                r#ref: request.r#ref.clone(),
                frontend: frontend.to_owned(),
                frontend_attrs: request.frontend_attrs.clone(),
                exporters: exporters(request),
                created_at: Some(progress::timestamp(Timestamp::now())),
                ..BuildHistoryRecord::default()
            }),
            over: CancellationToken::new(),
        });
        let mut running = lock(&self.0.running);
        if running.contains_key(&build.reference) {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        running.insert(build.reference.clone(), Arc::clone(&build));
        drop(running);
        self.0.changed.send_replace(());
        tokio::spawn(Arc::clone(&build).write(happening));
        Ok(Running {
            builds: self.clone(),
            build,
            frontend: returning,
        })
    }

    /// One that is under way, or about to begin.
    pub async fn running(&self, reference: &str) -> Option<Arc<Build>> {
        self.wait(|| lock(&self.0.running).get(reference).cloned()).await
    }

    /// One that is under way, about to begin, or remembered.
    pub async fn any(&self, reference: &str) -> Option<Arc<Build>> {
        self.wait(|| self.known(reference)).await
    }

    fn known(&self, reference: &str) -> Option<Arc<Build>> {
        let running = lock(&self.0.running).get(reference).cloned();
        running.or_else(|| {
            let ended = lock(&self.0.ended);
            ended.iter().find(|build| build.reference == reference).cloned()
        })
    }

    async fn wait(&self, find: impl Fn() -> Option<Arc<Build>>) -> Option<Arc<Build>> {
        let mut changed = self.0.changed.subscribe();
        let coming = async {
            loop {
                match find() {
                    Some(build) => return build,
                    None => drop(changed.changed().await),
                }
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.ok()
    }

    /// The records of those under way and of those that have ended, the latest last.
    pub fn records(&self) -> (Vec<BuildHistoryRecord>, Vec<BuildHistoryRecord>) {
        let record = |build: &Arc<Build>| (!build.is_internal).then(|| build.record());
        let running = lock(&self.0.running).values().filter_map(record).collect();
        let ended = lock(&self.0.ended).iter().filter_map(record).collect();
        (running, ended)
    }

    /// Whether there was such a one.
    pub fn forget(&self, reference: &str) -> bool {
        let mut ended = lock(&self.0.ended);
        let before = ended.len();
        ended.retain(|build| build.reference != reference);
        ended.len() < before
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let build = Arc::clone(&self.build);
        build.canceled.cancel();
        build.over.cancel();
        if build.record().completed_at.is_none() {
            build.note(Err(RpcStatus {
                code: Code::Cancelled.into(),
                message: "context canceled".to_owned(),
                details: Vec::new(),
            }));
        }
        let inner = &self.builds.0;
        lock(&inner.running).remove(&build.reference);
        let mut ended = lock(&inner.ended);
        // Also one that is in no history is asked how it was, right behind.
        ended.push_back(Arc::clone(&build));
        while ended.len() > REMEMBERED
            && let Some(oldest) = ended.iter().position(|build| !lock(&build.record).pinned)
        {
            ended.remove(oldest);
        }
        drop(ended);
        inner.changed.send_replace(());
        let builds = self.builds.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            lock(&build.results).clear();
            if build.is_internal {
                builds.forget(&build.reference);
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
