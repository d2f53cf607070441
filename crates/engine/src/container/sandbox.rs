//! A process in a container that nobody lists: a step of a build.
//!
//! It is started as any container is, from the same record and the same plan, so that what isolates one isolates the other; but
//! the record is never stored. An engine that dies leaves its run directory, and the next one ends what is in it
//! ([`World`]'s strangers).

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferry_api::container::{Config, HostConfig};
use ferry_runtime::plan::Mount;
use ferry_supervise::{Attach, Event, Exit, Launch, Network, Resolver, Rootfs, Stdin, Task};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::record::{Record, Run};
use super::{create, files, plan, resources, validate};
use crate::error::{Error, Kind, Result, StartFailure};
use crate::networks::{Attachment, membership};
use crate::secrets::Given;
use crate::world::World;

/// How long a shim may take to end after its container.
const ENDING: std::time::Duration = std::time::Duration::from_secs(15);
/// A piece of output; frames are cut into some.
const PIECE: usize = 32 << 10;

/// What runs.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// 64 hex digits.
    pub id: String,
    pub config: Config,
    pub host: HostConfig,
    pub args: Vec<String>,
    pub rootfs: Rootfs,
    /// Beside those every container has.
    pub mounts: Vec<Mount>,
    pub secrets: Given,
    pub lines: Arc<Lines>,
}

/// Network namespaces of processes that have ended, for those that come after them: one build's, since nothing but a process of
/// that build was ever in them. Dropped, they are gone.
#[derive(Debug)]
pub(crate) struct Lines {
    world: Arc<World>,
    idle: Mutex<Vec<Line>>,
}

/// A namespace with its places on networks.
#[derive(Debug)]
struct Line {
    /// As the record has it that it was made for.
    mode: String,
    namespace: OwnedFd,
    record: Record,
}

impl Lines {
    pub fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            idle: Mutex::default(),
        }
    }

    fn take(&self, mode: &str) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().position(|line| line.mode == mode)?;
        Some(idle.swap_remove(at))
    }

    fn put(&self, line: Line) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        if lines.is_empty() {
            return;
        }
        let world = Arc::clone(&self.world);
        self.world.tasks.spawn(async move {
            for line in lines {
                world.networks.detach(&line.record, line.record.endpoints.clone()).await;
            }
        });
    }
}

/// Runs it to its end; its output, with the number of its stream, goes to `output`. `started` is called when its files are mounted.
/// Dropped, it is killed.
pub(crate) async fn run(
    world: &Arc<World>,
    sandbox: Sandbox,
    started: impl FnOnce() + Send,
    mut output: impl FnMut(u8, Bytes) + Send,
) -> Result<Exit> {
    let Sandbox {
        id,
        mut config,
        mut host,
        args,
        rootfs,
        mounts,
        secrets,
        lines,
    } = sandbox;
    validate::supported(&host)?;
    // A step's files belong to whom they say, whatever containers are given.
    "host".clone_into(&mut host.userns_mode);
    create::defaults(&mut host, world);
    resources::validate(&mut host, &world.host)?;
    if config.hostname.is_empty() {
        id[..12].clone_into(&mut config.hostname);
    }
    let networking = membership::of_request(&world.networks, &host, None)?;
    let (path, rest) = args
        .split_first()
        .ok_or_else(|| Error::invalid("there is no command to run"))?;
    let record = Record {
        id: id.clone(),
        name: id.clone(),
        created: Timestamp::now(),
        image: String::new(),
        image_name: String::new(),
        path: path.clone(),
        args: rest.to_vec(),
        config,
        host_config: host,
        given_labels: Vec::new(),
        networking,
        platform: "linux".to_owned(),
        mounts: Vec::new(),
        ids: None,
        secrets: Vec::new(),
        endpoints: Vec::new(),
        ports: Vec::new(),
        run: Run::default(),
    };
    world.secrets.put(&record, secrets).await?;
    let mut running = Running {
        world: Arc::clone(world),
        record: Some(record),
        lines,
        line: None,
        task: None,
        events: None,
    };
    let outcome = running.run(rootfs, mounts, started, &mut output).await;
    running.end(outcome.is_ok());
    outcome
}

/// What has to be taken away again.
struct Running {
    world: Arc<World>,
    /// `None` when that is under way.
    record: Option<Record>,
    lines: Arc<Lines>,
    /// The namespace it is in, if others can be after it.
    line: Option<Line>,
    task: Option<Task>,
    events: Option<mpsc::UnboundedReceiver<Event>>,
}

impl Running {
    async fn run(
        &mut self,
        rootfs: Rootfs,
        mounts: Vec<Mount>,
        started: impl FnOnce() + Send,
        output: &mut (impl FnMut(u8, Bytes) + Send),
    ) -> Result<Exit> {
        let mut stream = self.launch(rootfs, mounts).await?;
        started();
        let mut frames = Frames::default();
        let mut oom = false;
        let mut ended = None;
        loop {
            let events = self.events.as_mut();
            let next = async {
                match events {
                    Some(events) => events.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                piece = frames.next(&mut stream) => match piece {
                    Some((number, piece)) => output(number, piece),
                    None => break,
                },
                event = next, if ended.is_none() => match event {
                    Some(Event::Exited(exit)) => {
                        ended = Some(exit);
                        if let Some(task) = &self.task {
                            task.noted(None).await;
                        }
                    }
                    Some(Event::Oom) => oom = true,
                    Some(Event::Lost) | None => break,
                    Some(_) => {}
                },
            }
        }
        // Its output may end before it does.
        while ended.is_none() {
            match self.events.as_mut() {
                Some(events) => match events.recv().await {
                    Some(Event::Exited(exit)) => ended = Some(exit),
                    Some(Event::Oom) => oom = true,
                    Some(Event::Lost) | None => break,
                    Some(_) => {}
                },
                None => break,
            }
            if let Some(task) = self.task.as_ref().filter(|_| ended.is_some()) {
                task.noted(None).await;
            }
        }
        let lost = || Error::new(Kind::Internal, "the supervisor of the step's process was lost");
        let mut exit = ended.ok_or_else(lost)?;
        exit.oom_killed |= oom;
        Ok(exit)
    }

    /// Returns where its output comes from.
    async fn launch(&mut self, rootfs: Rootfs, mounts: Vec<Mount>) -> Result<UnixStream> {
        let world = Arc::clone(&self.world);
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| Error::internal(what, &error)
        };
        let record = self
            .record
            .as_mut()
            .ok_or_else(|| Error::new(Kind::Internal, "the step has ended"))?;
        world.apparmor.ready(record).await?;
        let mut plan = plan::build(record, &world)?;
        plan.mounts.extend(mounts);
        plan.mounts.sort_by_key(|mount| mount.target.components().count());
        let filter = crate::seccomp::filter(record, &world)?;
        let (dir, run_dir) = (world.container_dir(&record.id), world.run_dir(&record.id));
        let mode = record.host_config.network_mode.clone();
        let idle = self.lines.take(&mode);
        let attach = async {
            match &idle {
                Some(_) => Ok(None),
                None => world.networks.attach(&world, record).await.map(Some),
            }
        };
        let (shim, attached) = tokio::join!(world.supervisor.shim(), attach);
        let attached = attached?;
        match (&attached, &idle) {
            (Some(Attachment::Joined(joined)), _) => record.endpoints.clone_from(&joined.endpoints),
            (None, Some(idle)) => record.endpoints.clone_from(&idle.record.endpoints),
            _ => {}
        }
        self.line = idle;
        let mut shim = shim?;
        make_dirs(&[&dir, &run_dir]).map_err(failed("make the directories of a step's process"))?;
        files::write(record, &dir, &world)?;
        let has_resolver = matches!(&attached, Some(Attachment::Joined(joined)) if joined.resolver.is_some());
        let (network, namespace) = match attached {
            None => (
                Network::Given,
                self.line.as_ref().map(|line| line.namespace.try_clone()),
            ),
            Some(Attachment::Host) => (Network::Host, None),
            Some(Attachment::Private(namespace)) => (Network::Given, Some(Ok(namespace))),
            Some(Attachment::Joined(joined)) => {
                if let Some(sockets) = joined.resolver {
                    let settings = world.networks.names.write_settings(&world, record);
                    let settings = settings.map_err(failed("write the settings of a step's resolver"))?;
                    shim = shim.with_resolver(Resolver {
                        settings,
                        udp: sockets.udp,
                        tcp: sockets.tcp,
                    });
                }
                (Network::Given, Some(Ok(joined.namespace)))
            }
            Some(Attachment::InUserNamespace) => {
                return Err(Error::new(
                    Kind::Start(StartFailure::Setup),
                    "a step has no user namespace of its own",
                ));
            }
        };
        let namespace = namespace.transpose().map_err(failed("hold a network namespace"))?;
        // A resolver's sockets are bound once, and a process that may do anything may have done it to the namespace.
        if self.line.is_none()
            && !has_resolver
            && !record.host_config.privileged
            && let Some(namespace) = &namespace
        {
            self.line = Some(Line {
                mode,
                namespace: namespace.try_clone().map_err(failed("hold a network namespace"))?,
                record: record.clone(),
            });
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed("make a step's output"))?;
        ours.set_nonblocking(true).map_err(failed("make a step's output"))?;
        let attach = Attach {
            stdout: true,
            stderr: true,
            framed: Some(true),
            ..Attach::default()
        };
        let launch = Launch {
            id: record.id.clone(),
            exit_file: dir.join("exit"),
            run_dir,
            plan,
            seccomp: filter.to_vec(),
            rootfs,
            hierarchy: world.hierarchy.clone(),
            cgroup: world.cgroup_path(record),
            resources: resources::limits(&record.host_config, &resources::devices(&record.host_config)?),
            stdin: Stdin::Closed,
            log: None,
            network,
            clients: Vec::new(),
            resolver: None,
            relays: Vec::new(),
            health: None,
            runtime: crate::runtimes::of(record, &world)?,
        };
        let (sender, events) = mpsc::unbounded_channel();
        let clients = vec![(attach, OwnedFd::from(theirs))];
        let unasked = async |_: OwnedFd| Err("a step has no user namespace of its own".to_owned());
        let (task, warnings) = shim.launch(launch, namespace, clients, unasked, sender).await?;
        world.supervisor.prepare();
        for warning in warnings {
            tracing::warn!(step = record.id, warning);
        }
        (self.task, self.events) = (Some(task), Some(events));
        UnixStream::from_std(ours).map_err(failed("read a step's output"))
    }

    /// Takes everything away, in the background. One that has not ended is killed.
    fn end(&mut self, has_ended: bool) {
        let Some(record) = self.record.take() else { return };
        let (world, task, events) = (Arc::clone(&self.world), self.task.take(), self.events.take());
        let line = self.line.take();
        let endpoints = match line {
            Some(line) if has_ended => {
                self.lines.put(line);
                Vec::new()
            }
            Some(line) => line.record.endpoints,
            None => record.endpoints.clone(),
        };
        self.world.tasks.spawn(async move {
            world.networks.detach(&record, endpoints).await;
            if !has_ended {
                world.kill_leftovers(&record).await;
            }
            if let Some(mut events) = events {
                let gone = async {
                    while let Some(event) = events.recv().await {
                        match event {
                            Event::Exited(_) => {
                                if let Some(task) = &task {
                                    task.noted(None).await;
                                }
                            }
                            Event::Lost => break,
                            _ => {}
                        }
                    }
                };
                if tokio::time::timeout(ENDING, gone).await.is_err() {
                    tracing::warn!(step = record.id, "the supervisor of a step does not end");
                }
            }
            world.secrets.remove(&record.id).await;
            for dir in [world.run_dir(&record.id), world.container_dir(&record.id)] {
                crate::world::remove_dir(&dir).await;
            }
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(false);
    }
}

fn make_dirs(dirs: &[&PathBuf]) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o710);
    dirs.iter().try_for_each(|dir| private.create(dir))
}

/// Docker's stream frames, read piece by piece: a future that is dropped half-way loses nothing.
#[derive(Default)]
struct Frames {
    header: [u8; 8],
    has: usize,
    left: usize,
}

impl Frames {
    async fn next(&mut self, stream: &mut UnixStream) -> Option<(u8, Bytes)> {
        while self.left == 0 {
            let count = stream.read(&mut self.header[self.has..]).await.ok()?;
            if count == 0 {
                return None;
            }
            self.has += count;
            if self.has == self.header.len() {
                self.has = 0;
                let [_, _, _, _, a, b, c, d] = self.header;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            }
        }
        let mut piece = vec![0; self.left.min(PIECE)];
        let count = stream.read(&mut piece).await.ok()?;
        if count == 0 {
            return None;
        }
        piece.truncate(count);
        self.left -= count;
        Some((self.header[0], piece.into()))
    }
}
