//! Containers: the service that finds them, makes them, and passes requests on to their actors.

mod actor;
mod archive;
mod commit;
mod create;
mod exec;
mod files;
mod handle;
mod health;
mod ids;
mod inspect;
mod kernel;
mod links;
mod list;
mod merge;
mod mounts;
mod order;
mod plan;
mod point;
mod prune;
mod record;
mod resources;
mod sandbox;
mod state;
mod top;
mod validate;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ferry_api::container::{Create, Created, Inspect, Summary, Top, Update, Updated, Wait};
use ferry_api::{Filters, exec as api_exec};
use ferry_supervise::Attach;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

pub(crate) use self::actor::{Command, spawn};
pub use self::archive::{Archive, PutOptions};
pub(crate) use self::exec::Execs;
use self::handle::Condition;
pub(crate) use self::handle::{Handle, Snapshot};
pub(crate) use self::ids::Ids;
pub(crate) use self::order::{Place, start as start_in_order};
pub(crate) use self::plan::{bind, capabilities, rootfs};
pub(crate) use self::point::Point;
pub(crate) use self::record::Record;
pub(crate) use self::sandbox::{Lines, Sandbox, run as run_sandbox};
pub use self::state::{Permit, Status};
use crate::error::{Error, Result};
use crate::logs::{Logs, Query as LogQuery};
use crate::stats::Watch;
use crate::world::World;

/// All containers. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Containers {
    world: Arc<World>,
}

/// Containers by id, and ids by name. A name is reserved before its container exists.
#[derive(Debug, Default)]
pub(crate) struct Index {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Handle>,
    by_name: HashMap<String, String>,
}

/// Which containers `ps` shows.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
    /// Only the newest so many, running or not; 0 for all.
    pub limit: usize,
    /// Compute the size of the writable layer (slow).
    pub size: bool,
    pub filters: Filters,
}

/// What an attached client sees, and how it detaches.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Replay the log first.
    pub logs: bool,
    /// Stay for what comes.
    pub stream: bool,
    /// `ctrl-p,ctrl-q`; `None` for the default.
    pub detach_keys: Option<String>,
}

/// A container is ready to take a client's connection. The HTTP upgrade is answered between the two.
#[derive(Debug)]
pub struct Attachment {
    pub tty: bool,
    attach: Attach,
    /// Where the container waits for the connection: it does not start without it.
    place: oneshot::Sender<(Attach, OwnedFd)>,
    /// The log so far, to be sent first.
    pub replay: Option<Logs>,
    pub stream: bool,
}

impl Attachment {
    /// Hands the connection over. It is closed after the container's last byte.
    pub fn connect(mut self, connection: OwnedFd, already_read: Vec<u8>) {
        self.attach.already_read = already_read;
        // A container that is gone meanwhile has no more to say; the connection ends with it.
        let _ = self.place.send((self.attach, connection));
    }
}

/// How long a kill waits for the container to have ended (moby `Daemon.Kill`).
const KILLED: Duration = Duration::from_secs(10);

/// What the answer to `POST /containers/create` is.
pub type CreateResponse = Created;

impl Containers {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Makes a container. `name`: the user's, or one is made up.
    pub fn create<'a>(
        &'a self,
        name: Option<&'a str>,
        platform: Option<&'a str>,
        request: Create,
    ) -> BoxFuture<'a, Result<Created>> {
        Box::pin(async move {
            self.timed("create", create::create(&self.world, name, platform, request))
                .await
        })
    }

    /// Newest first, each as soon as it is put together.
    pub async fn list(&self, options: &ListOptions, take: impl FnMut(Summary)) -> Result<()> {
        list::list(&self.world, options, take).await
    }

    pub fn inspect<'a>(&'a self, name: &'a str, size: bool) -> BoxFuture<'a, Result<Inspect>> {
        Box::pin(async move { inspect::inspect(&self.world, &self.find(name)?.snapshot(), size).await })
    }

    pub async fn start(&self, name: &str) -> Result<Permit> {
        let handle = self.find(name)?;
        self.timed("start", handle.ask(|reply| Command::Start { reply })).await
    }

    /// `timeout`: seconds until SIGKILL, negative for never; `None`: the container's own.
    pub async fn stop(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<Permit> {
        let signal = signal.map(crate::signal::parse).transpose()?;
        self.find(name)?
            .ask(|reply| Command::Stop { signal, timeout, reply })
            .await
    }

    pub async fn restart(&self, name: &str, signal: Option<&str>, timeout: Option<i64>) -> Result<()> {
        let signal = signal.map(crate::signal::parse).transpose()?;
        self.find(name)?
            .ask(|reply| Command::Restart { signal, timeout, reply })
            .await
    }

    /// `signal`: a name or a number; `None` for SIGKILL.
    pub async fn kill(&self, name: &str, signal: Option<&str>) -> Result<()> {
        let signal = signal
            .filter(|signal| !signal.is_empty())
            .map_or(Ok(libc::SIGKILL), crate::signal::parse)?;
        let handle = self.find(name)?;
        let ended = handle.wait(Condition::NotRunning);
        handle.ask(|reply| Command::Kill { signal, reply }).await?;
        if signal == libc::SIGKILL {
            // Who looks next shall see it ended, as with Docker. What the kernel does not let end is not waited for.
            let _ = tokio::time::timeout(KILLED, ended).await;
        }
        Ok(())
    }

    pub async fn pause(&self, name: &str) -> Result<()> {
        self.find(name)?.ask(|reply| Command::Pause { reply }).await
    }

    pub async fn unpause(&self, name: &str) -> Result<()> {
        self.find(name)?.ask(|reply| Command::Unpause { reply }).await
    }

    pub async fn rename(&self, name: &str, new: &str) -> Result<()> {
        let handle = self.find(name)?;
        let new = new.trim_start_matches('/').to_owned();
        validate::name(&new)?;
        handle.ask(|reply| Command::Rename { name: new, reply }).await
    }

    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<()> {
        let handle = self.find(name)?;
        self.timed("delete", handle.ask(|reply| Command::Remove { force, volumes, reply }))
            .await
    }

    /// For the metrics, what is done takes its time.
    async fn timed<T>(&self, action: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begin = Instant::now();
        let done = work.await?;
        self.world.counts.action(action, begin.elapsed());
        Ok(done)
    }

    /// Takes a link from the container that has it: `CHILD/ALIAS`.
    pub async fn unlink(&self, name: &str) -> Result<()> {
        let none = || Error::not_found(format!("No such container: {name}"));
        let Some((child, alias)) = name.trim_start_matches('/').split_once('/') else {
            self.find(name)?;
            return Err(Error::conflict(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let handle = self.find(child).map_err(|_| none())?;
        let alias = alias.to_owned();
        match handle.ask(|reply| Command::Unlink { alias, reply }).await? {
            true => Ok(()),
            false => Err(none()),
        }
    }

    pub fn update<'a>(&'a self, name: &'a str, update: Update) -> BoxFuture<'a, Result<Updated>> {
        Box::pin(async move {
            let update = Box::new(update);
            self.find(name)?.ask(|reply| Command::Update { update, reply }).await
        })
    }

    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        self.find(name)?
            .ask(|reply| Command::Resize {
                exec: None,
                rows,
                columns,
                reply,
            })
            .await
    }

    /// The answer comes later; that the container exists and the condition is a valid one is known at once.
    pub fn wait(&self, name: &str, condition: &str) -> Result<impl Future<Output = Wait> + Send + use<>> {
        let condition = Condition::parse(condition)?;
        Ok(self.find(name)?.wait(condition))
    }

    pub fn top<'a>(&'a self, name: &'a str, arguments: &'a str) -> BoxFuture<'a, Result<Top>> {
        Box::pin(async move { top::top(&self.world, &self.find(name)?.snapshot(), arguments).await })
    }

    /// Finds a container whose statistics are to be seen.
    pub fn stats(&self, name: &str) -> Result<Watch> {
        Ok(Watch::new(Arc::clone(&self.world), self.find(name)?))
    }

    /// Keeps a place for a client. Its connection follows with [`Attachment::connect`], after the HTTP upgrade; a start
    /// that is asked for between the two waits for it, so that not a byte is missed.
    pub fn attach<'a>(&'a self, name: &'a str, options: &'a AttachOptions) -> BoxFuture<'a, Result<Attachment>> {
        Box::pin(async move {
            let handle = self.find(name)?;
            let snapshot = handle.snapshot();
            let record = &snapshot.record;
            record
                .run
                .status
                .permit(state::Verb::Attach, &record.name, &record.id)?;
            let detach_keys = crate::signal::detach_keys(options.detach_keys.as_deref())?;
            let attach = Attach {
                stdin: options.stdin && record.config.open_stdin,
                stdout: options.stdout,
                stderr: options.stderr,
                framed: None,
                detach_keys,
                already_read: Vec::new(),
            };
            let replay = match options.logs {
                true => {
                    let query = LogQuery {
                        stdout: options.stdout,
                        stderr: options.stderr,
                        ..LogQuery::default()
                    };
                    Some(Logs::open(&self.world, &handle, query).await?)
                }
                false => None,
            };
            let (place, client) = oneshot::channel();
            handle.ask(|reply| Command::Attach { client, reply }).await?;
            Ok(Attachment {
                tty: record.config.tty,
                attach,
                place,
                replay,
                stream: options.stream,
            })
        })
    }

    pub fn logs<'a>(&'a self, name: &'a str, query: LogQuery) -> BoxFuture<'a, Result<Logs>> {
        Box::pin(async move { Logs::open(&self.world, &self.find(name)?, query).await })
    }

    pub fn exec_create<'a>(
        &'a self,
        name: &'a str,
        request: api_exec::Create,
    ) -> BoxFuture<'a, Result<api_exec::Created>> {
        Box::pin(async move { exec::create(&self.world, &self.find(name)?, request).await })
    }

    /// What is known of an exec that is about to start; then [`ExecStart::run`].
    pub fn exec_start(&self, id: &str, request: &api_exec::Start) -> Result<exec::ExecStart> {
        exec::start(&self.world, id, request)
    }

    pub fn exec_inspect(&self, id: &str) -> Result<api_exec::Inspect> {
        exec::inspect(&self.world, id)
    }

    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        exec::resize(&self.world, id, rows, columns).await
    }

    fn find(&self, name: &str) -> Result<Handle> {
        self.world.containers.find(name)
    }
}

pub use commit::{Commit, Export};
pub use exec::ExecStart;

impl Index {
    /// By full id, name, or unique beginning of an id, in this order.
    pub fn find(&self, wanted: &str) -> Result<Handle> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = inner.by_id.get(wanted) {
            return Ok(handle.clone());
        }
        let name = wanted.trim_start_matches('/');
        if let Some(handle) = inner.by_name.get(name).and_then(|id| inner.by_id.get(id)) {
            return Ok(handle.clone());
        }
        let none = || Error::not_found(format!("No such container: {wanted}"));
        if wanted.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        if !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none());
        }
        let mut matches = inner
            .by_id
            .range(wanted.to_owned()..)
            .take_while(|(id, _)| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {wanted}"
            ))),
            (None, _) => Err(none()),
        }
    }

    pub fn all(&self) -> Vec<Handle> {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .values()
            .cloned()
            .collect()
    }

    /// Takes a name for `id`; the error names who has it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(holder) = inner.by_name.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        inner.by_name.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// A made-up name that nobody has, taken for `id`.
    pub fn reserve_any(&self, id: &str) -> String {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let name = ferry_kit::names::generate(|name| inner.by_name.contains_key(name));
        inner.by_name.insert(name.clone(), id.to_owned());
        name
    }

    pub fn release_name(&self, name: &str, id: &str) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.by_name.get(name).is_some_and(|holder| holder == id) {
            inner.by_name.remove(name);
        }
    }

    pub fn insert(&self, handle: Handle) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.by_id.insert(handle.id().to_owned(), handle);
    }

    pub fn remove(&self, id: &str) {
        self.inner
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .by_id
            .remove(id);
    }
}

/// A reply to a command.
pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;
