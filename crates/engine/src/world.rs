//! What the services and actors share, how it comes up, and how it goes down.

use std::collections::HashSet;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferry_cgroup::{Cgroup, Hierarchy};
use ferry_storage::{Document as _, Store};
use ferry_supervise::{Event, Exit, State, Supervisor, Task};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apparmor::AppArmor;
use crate::builds::Builds;
use crate::config::{Config, Reload};
use crate::container::{Containers, Execs, Ids, Index, Place, Record, Status, spawn, start_in_order};
use crate::error::{Error, Result};
use crate::events::Bus;
use crate::images::Images;
use crate::live::Live;
use crate::metrics::{self, Counts};
use crate::networks::{Attacher, Networks};
use crate::seccomp;
use crate::secrets::Secrets;
use crate::stats::Sampler;
use crate::system::{Host, System};
use crate::volumes::{self, Shelf, Volumes};

/// How long the engine's own tasks may take to end.
const CLOSING: Duration = Duration::from_secs(10);
/// Free bytes below which a new container waits for old ones to be gone; how often, and how long at a time.
const SPACE_WANTED: u64 = 4 << 20;
const SPACE_TRIES: u32 = 100;
const SPACE_PAUSE: Duration = Duration::from_millis(50);
/// How long an engine that starts waits for a shim that the one before left half-way through a start.
const SHIM_TRIES: u32 = 100;
const SHIM_PAUSE: Duration = Duration::from_millis(20);

/// A connection to a shim that was found, what it said, and what it will report.
type Found = (Task, Option<State>, mpsc::UnboundedReceiver<Event>);

/// The engine: one value a daemon has. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    pub containers: Containers,
    pub images: Images,
    pub networks: Networks,
    pub volumes: Volumes,
    pub system: System,
    pub builds: Builds,
    pub events: Arc<Bus>,
    world: Arc<World>,
}

/// What the services and actors work on. Each takes of it what it needs; nothing in here calls a service back.
#[derive(Debug)]
pub(crate) struct World {
    pub config: Config,
    pub host: Host,
    pub store: Store,
    pub supervisor: Supervisor,
    pub hierarchy: Hierarchy,
    pub networks: Attacher,
    pub volumes: Shelf,
    pub secrets: Secrets,
    pub containers: Index,
    pub execs: Execs,
    pub ids: Ids,
    pub seccomp: seccomp::Cache,
    pub apparmor: AppArmor,
    pub events: Arc<Bus>,
    pub stats: Sampler,
    pub counts: Counts,
    /// Settings that may be replaced.
    pub live: Live,
    pub tasks: TaskTracker,
    /// Removals of files that are under way.
    pub removals: AtomicUsize,
    pub closing: CancellationToken,
}

impl Engine {
    /// Opens the data root, finds the containers that an earlier daemon left running, and repairs what does not match.
    pub fn open(config: Config) -> BoxFuture<'static, Result<Self>> {
        Box::pin(async move {
            let failed = |what: &str, error: &(dyn std::error::Error + 'static)| Error::internal(what, error);
            if !rustix::process::geteuid().is_root() {
                let why = "the engine makes namespaces, mounts and control groups: start it as root (or with sudo)";
                return Err(Error::new(crate::error::Kind::Internal, why));
            }
            make_private(&config.exec_root).map_err(|error| {
                failed(
                    &format!("make the run directory {}", config.exec_root.display()),
                    &error,
                )
            })?;
            let root = config.data_root.clone();
            let store = tokio::task::spawn_blocking(move || Store::open(&root)).await;
            let store = store.map_err(|error| failed("open the data root", &error))??;
            let hierarchy = Hierarchy::detect().map_err(|error| failed("find the control groups", &error))?;
            let supervisor = Supervisor::new().map_err(|error| failed("protect the engine's binary", &error))?;
            let networks = Attacher::open(&config, &store).await?;
            let events = Arc::new(Bus::default());
            let world = Arc::new(World {
                host: Host::read(),
                store,
                supervisor,
                hierarchy,
                networks,
                volumes: Shelf::new(&config.data_root),
                secrets: Secrets::new(&config.exec_root),
                containers: Index::default(),
                execs: Execs::default(),
                ids: Ids::default(),
                seccomp: seccomp::Cache::default(),
                apparmor: AppArmor::detect(),
                events: Arc::clone(&events),
                stats: Sampler::default(),
                counts: Counts::default(),
                live: Live::new(&config)?,
                tasks: TaskTracker::new(),
                removals: AtomicUsize::new(0),
                closing: CancellationToken::new(),
                config,
            });
            let preparing = Arc::clone(&world);
            world.tasks.spawn(async move { preparing.apparmor.prepare().await });
            world.reconcile().await?;
            world.tasks.spawn(Sampler::tend(Arc::clone(&world)));
            world.tasks.spawn(crate::logs::keeper::tend(Arc::clone(&world)));
            Ok(Self {
                containers: Containers::new(Arc::clone(&world)),
                images: Images::new(Arc::clone(&world)),
                networks: Networks::new(Arc::clone(&world)),
                volumes: Volumes::new(Arc::clone(&world)),
                system: System::new(Arc::clone(&world)),
                builds: Builds::new(Arc::clone(&world)),
                events,
                world,
            })
        })
    }

    /// Whether a container runs or waits for its restart.
    pub fn is_busy(&self) -> bool {
        let busy = |status: Status| status.is_live() || status == Status::Restarting;
        self.world
            .containers
            .all()
            .iter()
            .any(|handle| busy(handle.snapshot().record.run.status))
    }

    /// What Prometheus reads, as text.
    pub fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async move { metrics::text(&self.world).await })
    }

    /// Replaces what may change while it runs, and publishes dockerd's event of it. What is under way goes on as it began; of
    /// settings that cannot be used, none are taken.
    pub fn reload(&self, reload: Reload) -> Result<()> {
        crate::live::reload(&self.world, reload)
    }

    /// Ends the engine, not the containers: they live on in their shims. Without any, bridge and firewall table go too.
    pub fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.world.closing.cancel();
            self.world.tasks.close();
            if tokio::time::timeout(CLOSING, self.world.tasks.wait()).await.is_err() {
                tracing::warn!("some tasks did not end in time");
            }
            if !self.is_busy() {
                self.world.networks.shutdown().await;
                let _ = self.world.hierarchy.remove_empty(&self.world.config.cgroup_parent);
            }
        })
    }
}

/// Does on a thread of its own what blocks.
pub(crate) async fn blocking<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    // Boxed, so that a task is compiled once for each type of result.
    let work: Box<dyn FnOnce() -> T + Send> = Box::new(work);
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(what, &error))
}

/// A directory that only root may look into.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path.join("containers"))?;
    std::fs::set_permissions(path.join("containers"), std::fs::Permissions::from_mode(0o700))
}

impl World {
    /// The container's directory in the data root.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.store.root().join("containers").join(id)
    }

    /// On a disk that is all but full: waits a while for what has been removed and is still being deleted.
    pub async fn wait_for_space(&self) {
        for _ in 0..SPACE_TRIES {
            let full = rustix::fs::statvfs(self.store.root())
                .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < SPACE_WANTED);
            if !full || !self.is_freeing_space() {
                return;
            }
            tokio::time::sleep(SPACE_PAUSE).await;
        }
    }

    fn is_freeing_space(&self) -> bool {
        let deleting = || std::fs::read_dir(self.store.root().join("tmp"));
        self.removals.load(Ordering::Relaxed) > 0 || deleting().is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Where a layer is unpacked.
    pub fn layer_dir(&self, chain: &ferry_image::Digest) -> PathBuf {
        self.store.root().join("layers").join(chain.encoded()).join("fs")
    }

    /// The container's run directory: its shim's socket lies there.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.config.exec_root.join("containers").join(id)
    }

    /// The container's control group, below each hierarchy's root.
    pub fn cgroup_path(&self, record: &Record) -> String {
        let parent = match record.host_config.resources.cgroup_parent.trim_matches('/') {
            "" => self.config.cgroup_parent.trim_matches('/'),
            parent => parent,
        };
        format!("{parent}/{}", record.id)
    }

    /// Of a container that runs, not as recorded: the daemon before may have died half-way through a pause or its end.
    fn kernel_status(&self, record: &Record) -> Status {
        match self.cgroup_of(record).is_ok_and(|cgroup| cgroup.is_frozen()) {
            true => Status::Paused,
            false => Status::Running,
        }
    }

    pub fn cgroup_of(&self, record: &Record) -> Result<Cgroup> {
        let what = || format!("find the control group of container {}", record.id);
        self.hierarchy
            .open(&self.cgroup_path(record))
            .map_err(|error| Error::internal(what(), &error))
    }

    /// Ends what may be left of a container whose shim is gone.
    pub async fn kill_leftovers(&self, record: &Record) {
        let (hierarchy, path) = (self.hierarchy.clone(), self.cgroup_path(record));
        let done = tokio::task::spawn_blocking(move || hierarchy.clear(&path)).await;
        if let Ok(Err(error)) = done {
            tracing::error!(container = record.id, %error, "cannot end what is left of the container");
        }
    }

    /// Removes a container's files in the background, when `after` is done: nobody waits for that.
    pub fn remove_files(self: &Arc<Self>, id: &str, after: impl Future<Output = ()> + Send + 'static) {
        let (world, id) = (Arc::clone(self), id.to_owned());
        self.removals.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(async move {
            after.await;
            if let Err(error) = world.store.snapshots.remove(&id).await {
                tracing::error!(container = id, %error, "cannot remove the container's files");
            }
            remove_dir(&world.run_dir(&id)).await;
            world.secrets.remove(&id).await;
            world.removals.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Holds every record against the kernel: the shim if it answers, else the exit record, else what is lost is said.
    async fn reconcile(self: &Arc<Self>) -> Result<()> {
        let mut living = Vec::new();
        let mut again = Vec::new();
        let mut places = Vec::new();
        let records = self.store.db.all::<Record>().await?;
        let known: HashSet<String> = records.iter().map(|record| record.id.clone()).collect();
        self.secrets.settle(known.clone()).await;
        let used = records.iter().flat_map(volumes::names).map(str::to_owned).collect();
        let mut left = self.volumes.load(self, &used).await?;
        let mut made = Vec::new();
        // All at once: one that does not answer holds up no other.
        let shims: Vec<_> = records
            .iter()
            .map(|record| tokio::spawn(Arc::clone(self).find_shim(record.clone())))
            .collect();
        for (mut record, shim) in records.into_iter().zip(shims) {
            if let Err(error) = self.containers.reserve(&record.name, &record.id) {
                tracing::error!(container = record.id, %error, "two containers have one name");
                record.name = self.containers.reserve_any(&record.id);
            }
            if let Some(range) = record.ids {
                self.ids.adopt(&record.id, range);
            }
            let live = match shim.await.unwrap_or_default() {
                // The container runs, as far as anybody can tell. What it is comes as an event.
                Some((task, None, events)) => {
                    tracing::warn!(
                        container = record.id,
                        "the container's supervisor does not answer; is it stopped?"
                    );
                    record.run.status = self.kernel_status(&record);
                    record.run.started_at = record.run.started_at.or_else(|| Some(Timestamp::now()));
                    Some((task, events))
                }
                Some((task, Some(state), events)) if state.exit.is_none() => {
                    if record.run.pid != task.pid() {
                        // The daemon before died between the start and its record.
                        record.run.started_at = state.started_at.or(record.run.started_at);
                    }
                    record.run.pid = task.pid();
                    record.run.status = self.kernel_status(&record);
                    record.run.started_at = record.run.started_at.or_else(|| Some(Timestamp::now()));
                    self.catch_up_on_health(&mut record, state.health);
                    if record.run.health.is_some() && record.run.status == Status::Running {
                        let _ = task.check_health(true).await;
                    }
                    Some((task, events))
                }
                // It ended, and its shim has waited for somebody to note it.
                Some((task, Some(state), _)) => {
                    self.note_past_exit(&mut record, state.exit);
                    task.noted(None).await;
                    None
                }
                None => {
                    self.bury(&mut record);
                    None
                }
            };
            if live.is_none() && record.host_config.auto_remove && record.run.status != Status::Created {
                self.containers.release_name(&record.name, &record.id);
                self.ids.release(&record.id);
                self.store
                    .db
                    .delete::<Record>(&record.id, ferry_storage::Durability::Process)
                    .await?;
                self.remove_files(&record.id, async {});
                left.extend(volumes::own(&record));
                continue;
            }
            if live.is_some() {
                self.volumes.adopt(&record).await;
                living.push(ferry_network::Live {
                    holder: record.id.clone(),
                    endpoints: record.endpoints.clone(),
                    ports: record.ports.clone(),
                    limits: crate::networks::limits::of_host(&record.host_config),
                });
                self.networks.names.publish(self, &record);
            } else {
                record.endpoints.clear();
                record.ports.clear();
                again.extend(wants_to_run(&record).then(|| record.id.clone()));
            }
            places.push(Place::of(&record));
            made.extend((record.run.status == Status::Created).then(|| record.clone()));
            self.containers.insert(spawn(self, record, live));
        }
        self.volumes.settle().await;
        // The engine before may have died between a container's record and what its image has for its volumes.
        for record in made {
            if let Err(error) = volumes::copy_up(self, &record, volumes::When::Made).await {
                tracing::error!(container = record.id, %error, "cannot fill the container's volumes");
            }
        }
        self.volumes.remove_unused(self, &left).await;
        self.networks.reconcile(living).await;
        self.networks.guard(self);
        self.remove_strangers().await;
        self.remove_ownerless(&known);
        let again = again.iter().filter_map(|id| self.containers.find(id).ok()).collect();
        start_in_order(&places, again, &self.containers.all(), |start| {
            self.tasks.spawn(start.run());
        });
        Ok(())
    }

    /// The container's shim, if it has one. If not, nothing of its last run is left, and no shim that is late can make it run.
    async fn find_shim(self: Arc<Self>, record: Record) -> Option<Found> {
        let run_dir = self.run_dir(&record.id);
        let mut left = SHIM_TRIES;
        loop {
            let (sender, events) = mpsc::unbounded_channel();
            if let Ok((task, state)) = self.supervisor.adopt(&run_dir, sender).await {
                return Some((task, state, events));
            }
            let starts = Supervisor::is_taken(&run_dir).unwrap_or(false);
            if !starts || left == 0 {
                self.kill_leftovers(&record).await;
            }
            match Supervisor::clear(&run_dir) {
                Ok(true) => return None,
                Ok(false) if left > 0 => {}
                Ok(false) => {
                    tracing::error!(
                        container = record.id,
                        "a supervisor that has not begun its work does not answer"
                    );
                    return None;
                }
                Err(error) => {
                    tracing::warn!(container = record.id, %error, "cannot remove a run directory");
                    return None;
                }
            }
            left = left.saturating_sub(1);
            tokio::time::sleep(SHIM_PAUSE).await;
        }
    }

    /// A container whose shim is gone: what its exit record says, or that nobody knows.
    fn bury(&self, record: &mut Record) {
        let exit_file = self.container_dir(&record.id).join("exit");
        match Exit::read(&exit_file) {
            Ok(Some(exit)) => self.note_past_exit(record, Some(exit)),
            _ if record.run.status.is_live() => {
                let reason = Some("the container's supervisor was lost".to_owned());
                let exit = Exit {
                    code: 137,
                    oom_killed: false,
                    at: Timestamp::now(),
                    reason,
                };
                self.note_past_exit(record, Some(exit));
            }
            _ => {}
        }
        if record.run.status == Status::Removing {
            record.run.status = Status::Dead;
        }
    }

    /// The checks went on while there was no daemon.
    pub fn catch_up_on_health(&self, record: &mut Record, health: Option<ferry_supervise::Health>) {
        let before = record.run.health.take().map(|health| health.status);
        record.run.health = health;
        match record.run.health.as_ref().map(|health| health.status) {
            Some(now) if before != Some(now) && now != ferry_supervise::HealthStatus::Starting => {
                self.events
                    .container(record, &format!("health_status: {}", now.name()), &[]);
            }
            _ => {}
        }
    }

    fn note_past_exit(&self, record: &mut Record, exit: Option<Exit>) {
        let Some(exit) = exit else { return };
        let run = &mut record.run;
        // The exit record of an earlier run is older than this run's start.
        if run.status == Status::Exited && run.finished_at == Some(exit.at) {
            return;
        }
        run.status = Status::Exited;
        if let Some(health) = &mut run.health {
            health.stop();
        }
        run.pid = 0;
        run.exit_code = exit.code;
        run.oom_killed = exit.oom_killed;
        run.finished_at = Some(exit.at);
        run.error = exit.reason.unwrap_or_default();
    }

    /// Run directories of containers that no record knows: their shims are told to end by the loss of their container.
    async fn remove_strangers(&self) {
        let Ok(entries) = std::fs::read_dir(self.config.exec_root.join("containers")) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str() else { continue };
            // An agent's, of a build that ended with the engine.
            if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
                let _ = std::fs::remove_file(entry.path());
                continue;
            }
            if self.containers.find(id).is_ok_and(|handle| handle.id() == id) {
                continue;
            }
            self.remove_stranger(id, entry.path()).await;
        }
    }

    /// The files of containers whose removal an earlier engine died in. Those of a container whose record cannot be read stay.
    fn remove_ownerless(self: &Arc<Self>, known: &HashSet<String>) {
        let unreadable: Vec<_> = self.store.db.quarantined();
        for id in self.store.snapshots.containers() {
            let unreadable = unreadable.iter().any(|bad| bad.kind == Record::KIND && bad.key == id);
            if unreadable {
                tracing::error!(
                    container = id,
                    "the container's record cannot be read: it is ended, and its files are left as they are"
                );
            } else if !known.contains(&id) {
                self.remove_files(&id, async {});
            }
        }
    }

    async fn remove_stranger(&self, id: &str, run_dir: PathBuf) {
        let path = format!("{}/{id}", self.config.cgroup_parent.trim_matches('/'));
        let hierarchy = self.hierarchy.clone();
        let done = tokio::task::spawn_blocking(move || {
            // A shim that is alive sees its container end, and ends; one that only begins is waited for.
            for _ in 0..SHIM_TRIES {
                if let Ok(cgroup) = hierarchy.open(&path) {
                    let _ = cgroup.kill(libc::SIGKILL);
                }
                if !Supervisor::is_taken(&run_dir).unwrap_or(false) {
                    let _ = hierarchy.clear(&path);
                }
                if Supervisor::clear(&run_dir).unwrap_or(true) {
                    return true;
                }
                std::thread::sleep(SHIM_PAUSE);
            }
            false
        });
        if !done.await.unwrap_or(false) {
            tracing::error!(
                container = id,
                "the supervisor of a container that was removed does not end; is it stopped?"
            );
        }
    }
}

/// A restart policy starts it with the engine, unless somebody stopped it.
fn wants_to_run(record: &Record) -> bool {
    use ferry_api::container::restart_policy;
    let run = &record.run;
    match record.host_config.restart_policy.name.as_str() {
        restart_policy::ALWAYS => run.status != Status::Created,
        restart_policy::UNLESS_STOPPED => run.status != Status::Created && !run.stopped,
        restart_policy::ON_FAILURE => {
            let most = u32::try_from(record.host_config.restart_policy.maximum_retry_count).unwrap_or(0);
            // Between an exit and its restart that restart is counted already.
            let left = most == 0 || run.restarts < most || run.status == Status::Restarting;
            let ended = matches!(run.status, Status::Exited | Status::Restarting);
            ended && run.exit_code != 0 && !run.stopped && left
        }
        _ => false,
    }
}

pub(crate) async fn remove_dir(path: &Path) {
    let path = path.to_owned();
    let done = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(path)).await;
    if let Ok(Err(error)) = done
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot remove a run directory");
    }
}
