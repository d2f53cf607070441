//! Starting: everything that can go on at the same time does.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ferry_network::Endpoint;
use ferry_supervise::{Attach, Launch, LogFile, Network, Stdin};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Actor;
use super::remove::Urgency;
use crate::container::state::{Permit, Status, Verb};
use crate::container::{files, plan, resources};
use crate::error::{Error, Kind, Result, StartFailure};
use crate::networks::Attachment;

/// What a shim reports faster than its actor listens waits here.
const EVENTS: usize = 64;
/// How long a start waits for a client whose attach was answered and whose connection is on the way.
const ARRIVAL: Duration = Duration::from_secs(2);

impl Actor {
    pub(super) async fn start_requested(&mut self) -> Result<Permit> {
        match self.permit(Verb::Start)? {
            Permit::Already => return Ok(Permit::Already),
            Permit::Go => {}
        }
        self.record.run.restarts = 0;
        self.backoff = super::exit::FIRST_BACKOFF;
        self.start().await.map(|()| Permit::Go)
    }

    /// Starts the container and publishes the outcome; a failed start leaves its reason in the record.
    pub(super) async fn start(&mut self) -> Result<()> {
        self.record.run.stopped = false;
        // Held until everybody sees that it runs: from then on its files are copied from inside.
        let alone = self.files.start().await;
        let launched = match &alone {
            Ok(_) => self.launch().await,
            Err(error) => Err(error.clone()),
        };
        match launched {
            Ok(()) => {
                self.publish();
                self.event("start", &[]);
                drop(self.persist_later().await);
                Ok(())
            }
            Err(error) => {
                self.clients.clear();
                self.disconnect().await;
                let run = &mut self.record.run;
                run.exit_code = error.exit_code();
                run.error.clone_from(&error.message);
                run.pid = 0;
                if run.status != Status::Created {
                    run.status = Status::Exited;
                }
                self.exits += 1;
                if self.record.host_config.auto_remove {
                    self.remove(true, Urgency::Now).await;
                } else {
                    self.publish();
                    self.persist().await;
                }
                Err(error)
            }
        }
    }

    async fn launch(&mut self) -> Result<()> {
        self.wait_for_old_shim().await?;
        let world = Arc::clone(&self.world);
        world.wait_for_space().await;
        let plan = plan::build(&self.record, &world)?;
        let filter = crate::seccomp::filter(&self.record, &world)?;
        let dir = world.container_dir(&self.record.id);
        let run_dir = world.run_dir(&self.record.id);

        // The shim's own start and the network's set-up need nothing of each other.
        let (shim, attached) = tokio::join!(world.supervisor.shim(), world.networks.attach(&self.record));
        let attached = attached?;
        let mut addressed = None;
        if let Attachment::Bridge(_, endpoint) = &attached {
            self.record.endpoint = Some(endpoint.clone());
            addressed = Some(self.persist_later().await);
        }
        let shim = shim?;

        files::write(&self.record, &dir, &world)?;
        prepare_run_dir(&run_dir, &dir).map_err(|error| Error::internal("prepare the container's run", &error))?;
        let (network, namespace) = match attached {
            Attachment::Host => (Network::Host, None),
            Attachment::Private(namespace) | Attachment::Bridge(namespace, _) => (Network::Given, Some(namespace)),
            Attachment::InUserNamespace => (Network::New, None),
        };
        let config = &self.record.config;
        let launch = Launch {
            id: self.record.id.clone(),
            exit_file: dir.join("exit"),
            run_dir,
            plan,
            seccomp: filter.to_vec(),
            rootfs: plan::rootfs(&self.record, &world)?,
            hierarchy: world.hierarchy.clone(),
            cgroup: world.cgroup_path(&self.record),
            resources: resources::limits(&self.record.host_config, &resources::devices(&self.record.host_config)?),
            stdin: match (config.open_stdin, config.stdin_once) {
                (false, _) => Stdin::Closed,
                (true, false) => Stdin::Open,
                (true, true) => Stdin::Once,
            },
            log: self.log_file()?,
            network,
            clients: Vec::new(),
        };
        let (sender, events) = mpsc::channel(EVENTS);
        let clients = self.arrived().await;
        let mut endpoint = None;
        let configure = async |namespace: OwnedFd| {
            endpoint = configure(&world, &self.record, namespace)
                .await
                .map_err(|error| error.message)?;
            Ok(())
        };
        let (task, warnings) = shim.launch(launch, namespace, clients, configure, sender).await?;
        if let Some(written) = addressed {
            // Long done: the address of a container that runs is not given to another one, whatever becomes of this daemon.
            written.await;
        }
        world.supervisor.prepare();
        for warning in warnings {
            tracing::warn!(container = self.record.id, warning);
        }
        if endpoint.is_some() {
            self.record.endpoint = endpoint;
        }
        let run = &mut self.record.run;
        run.status = Status::Running;
        run.pid = task.pid();
        run.started_at = Some(Timestamp::now());
        run.exit_code = 0;
        run.oom_killed = false;
        run.error.clear();
        self.task = Some(task);
        self.events = Some(events);
        Ok(())
    }

    /// The clients that attached before the start. Their upgrades are answered already, so they are here or nearly so.
    async fn arrived(&mut self) -> Vec<(Attach, OwnedFd)> {
        let mut clients = Vec::new();
        for client in std::mem::take(&mut self.clients) {
            if let Ok(Ok(client)) = tokio::time::timeout(ARRIVAL, client).await {
                clients.push(client);
            }
        }
        clients
    }

    /// The shim of the run before may still be removing that run's cgroup and socket, which have the same names.
    async fn wait_for_old_shim(&mut self) -> Result<()> {
        while self.events.is_some() {
            let limit = std::time::Duration::from_secs(15);
            match tokio::time::timeout(limit, super::next_event(&mut self.events)).await {
                Ok(ferry_supervise::Event::Lost) => self.forget_shim(),
                Ok(_) => {}
                Err(_) => {
                    return Err(Error::new(
                        Kind::Start(StartFailure::Setup),
                        "the supervisor of the container's last run does not end",
                    ));
                }
            }
        }
        Ok(())
    }

    fn log_file(&self) -> Result<Option<LogFile>> {
        crate::logs::file_of(&self.record, &self.world)
    }

    /// Takes the container off its network, in the background: nothing waits for a namespace to die.
    pub(super) async fn disconnect(&mut self) {
        if let Some(endpoint) = self.record.endpoint.take() {
            self.world.networks.detach(&self.record, endpoint);
        }
    }
}

async fn configure(
    world: &Arc<crate::world::World>,
    record: &crate::container::Record,
    namespace: OwnedFd,
) -> Result<Option<Endpoint>> {
    world.networks.configure(record, namespace.as_fd()).await
}

/// An empty run directory, and no exit record of an earlier run.
fn prepare_run_dir(run_dir: &std::path::Path, dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(run_dir)?;
    private.create(dir.join("log"))?;
    match std::fs::remove_file(dir.join("exit")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
