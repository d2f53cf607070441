//! Starting: everything that can go on at the same time does.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ferry_supervise::{Attach, Health, Launch, Network, Resolver, Stdin, Task};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::Actor;
use super::remove::Urgency;
use crate::container::state::{Permit, Status, Verb};
use crate::container::{files, health, links, plan, resources};
use crate::error::{Error, Kind, Result, StartFailure};
use crate::networks::{Attachment, publish};

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
                for endpoint in &self.record.endpoints {
                    if let Ok(network) = self.world.networks.find(&endpoint.network_id) {
                        crate::networks::event(&self.world, &network, "connect", Some(&self.record.id));
                    }
                }
                self.event("start", &[]);
                self.tell_linked();
                drop(self.persist_later().await);
                Ok(())
            }
            Err(error) => {
                self.clients.clear();
                // A shim that died half-way cannot clean up after itself. Where it could, nothing is left.
                self.world.kill_leftovers(&self.record).await;
                self.disconnect().await;
                self.let_go_of_volumes().await;
                let run = &mut self.record.run;
                run.exit_code = error.exit_code();
                run.error.clone_from(&error.message);
                run.pid = 0;
                if run.status != Status::Created {
                    run.status = Status::Exited;
                }
                self.ended.again(error.exit_code(), Some(error.message.clone()));
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
        links::check(&self.record, &world)?;
        if !self.record.mounts.is_empty() {
            world.volumes.mount(&world, &self.record).await?;
            crate::volumes::copy_up(&world, &self.record, crate::volumes::When::Started).await?;
        }
        world.secrets.are_there(&self.record)?;
        world.apparmor.ready(&self.record).await?;
        let plan = plan::build(&self.record, &world)?;
        let filter = crate::seccomp::filter(&self.record, &world)?;
        let runtime = crate::runtimes::of(&self.record, &world)?;
        let dir = world.container_dir(&self.record.id);
        let run_dir = world.run_dir(&self.record.id);

        // The shim's own start and the network's set-up need nothing of each other.
        world.networks.host.refresh();
        let (shim, attached) = tokio::join!(world.supervisor.shim(), world.networks.attach(&world, &self.record));
        let attached = attached?;
        let mut addressed = None;
        if let Attachment::Joined(joined) = &attached {
            self.record.endpoints.clone_from(&joined.endpoints);
            self.record.ports.clone_from(&joined.ports);
            addressed = Some(self.persist_later().await);
        }
        let mut shim = shim?;

        self.record.run.resolv = files::write(&self.record, &dir, &world)?;
        prepare_run_dir(&run_dir, &dir).map_err(|error| Error::internal("prepare the container's run", &error))?;
        let (network, namespace) = match attached {
            Attachment::Host => (Network::Host, None),
            Attachment::Private(namespace) => (Network::Given, Some(namespace)),
            Attachment::Joined(joined) => {
                // Its neighbours know it before it runs.
                world.networks.names.publish(&world, &self.record);
                if let Some(sockets) = joined.resolver {
                    shim = shim.with_resolver(self.resolver(sockets)?);
                }
                (Network::Given, Some(joined.namespace))
            }
            Attachment::InUserNamespace => (Network::New, None),
        };
        let log = crate::logs::options::of(&self.record, &world).await?;
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
            log,
            network,
            clients: Vec::new(),
            resolver: None,
            relays: publish::relays(&self.record.ports),
            health: health::check(&self.record, &world)?,
            runtime,
        };
        let past = launch.health.as_ref().map(|check| check.past.clone());
        let (sender, events) = mpsc::unbounded_channel();
        let clients = self.arrived().await;
        let mut joined = None;
        let configure = async |namespace: OwnedFd| {
            let configured = world.networks.configure(&world, &self.record, namespace.as_fd());
            joined = configured.await.map_err(|error| error.message)?;
            if let Some(joined) = &joined {
                // Its neighbours know it before it runs, and it knows itself.
                let mut known = self.record.clone();
                known.endpoints.clone_from(&joined.endpoints);
                world.networks.names.publish(&world, &known);
            }
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
        if let Some(joined) = joined {
            self.record.endpoints = joined.endpoints;
            self.record.ports = joined.ports;
            if let Err(error) = self.serve(&task, joined.resolver).await {
                // It runs already, with less than it was promised.
                let _ = task.kill(None, libc::SIGKILL).await;
                return Err(error);
            }
        }
        let run = &mut self.record.run;
        run.status = Status::Running;
        run.pid = task.pid();
        run.started_at = Some(Timestamp::now());
        run.exit_code = 0;
        run.oom_killed = false;
        run.health = past.map(Health::new);
        run.error.clear();
        self.task = Some(task);
        self.events = Some(events);
        Ok(())
    }

    /// What the shim does for a container whose network came after the launch.
    async fn serve(&self, task: &Task, resolver: Option<ferry_network::resolver::Sockets>) -> Result<()> {
        let relays = publish::relays(&self.record.ports);
        if !relays.is_empty() {
            task.relay(relays).await?;
        }
        if let Some(sockets) = resolver {
            task.resolver(self.resolver(sockets)?).await?;
        }
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
                // That container is over: there is nobody to connect to again.
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

    /// The settings of the container's resolver, written, with the sockets it answers at.
    pub(super) fn resolver(&self, sockets: ferry_network::resolver::Sockets) -> Result<Resolver> {
        let world = &self.world;
        let settings = world.networks.names.write_settings(world, &self.record);
        let settings =
            settings.map_err(|error| Error::internal("write the settings of the container's resolver", &error))?;
        Ok(Resolver {
            settings,
            udp: sockets.udp,
            tcp: sockets.tcp,
        })
    }

    pub(super) async fn let_go_of_volumes(&self) {
        if !self.record.mounts.is_empty() {
            self.world.volumes.unmount(&self.world, &self.record).await;
        }
    }

    /// Takes the container off its networks: its ports are free at once; the rest is done in the background, since nothing
    /// waits for a namespace to die.
    pub(super) async fn disconnect(&mut self) {
        let world = Arc::clone(&self.world);
        world.networks.unpublish(&mut self.record).await;
        let endpoints = std::mem::take(&mut self.record.endpoints);
        if endpoints.is_empty() {
            return;
        }
        for endpoint in &endpoints {
            if let Ok(network) = world.networks.find(&endpoint.network_id) {
                crate::networks::event(&world, &network, "disconnect", Some(&self.record.id));
            }
        }
        world.networks.detach(&self.record, endpoints).await;
    }
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
