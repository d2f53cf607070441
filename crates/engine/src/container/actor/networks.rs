//! Joining and leaving networks, while the container runs or not.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ferry_api::Empty;
use ferry_api::container::{HostConfig, Update};
use ferry_api::network::EndpointSettings;
use ferry_network::Limits;

use super::Actor;
use crate::container::files;
use crate::error::{Error, Kind, Result};
use crate::networks::{Names, Stored, event, kind_of, limits, link_parts, membership, publish};

impl Actor {
    pub(super) async fn join(&mut self, network: &Stored, settings: EndpointSettings) -> Result<()> {
        membership::joinable(&self.record, network)?;
        limits::on(&limits::of_host(&self.record.host_config), network)?;
        let mut wanted = membership::wanted(&self.record);
        if wanted.contains_key(&network.name) {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "endpoint with name {} already exists in network {}",
                    self.record.name, network.name
                ),
            ));
        }
        let before = self.record.clone();
        wanted.insert(network.name.clone(), settings.clone());
        self.want(wanted);
        if self.record.run.status.is_live() {
            let joined = self.join_now(network, &settings).await;
            if let Err(error) = joined {
                let world = Arc::clone(&self.world);
                if let (Ok(namespace), Ok(task)) = (self.namespace(), self.task().cloned()) {
                    // Its link, if it came that far.
                    let left = world
                        .networks
                        .disconnect(&world, &mut self.record, &task, network, namespace);
                    if let Err(error) = left.await {
                        tracing::warn!(
                            container = self.record.id,
                            error = error.message,
                            "a network that was half joined"
                        );
                    }
                }
                // What was made of it goes with the endpoints that the old record does not have.
                let more: Vec<_> = self.record.endpoints.clone();
                self.record.networking = before.networking;
                let known = |id: &String| before.endpoints.iter().any(|endpoint| endpoint.endpoint_id == *id);
                let (rest, gone) = more.into_iter().partition(|endpoint| known(&endpoint.endpoint_id));
                self.record.endpoints = rest;
                self.world.networks.detach(&self.record, gone).await;
                return Err(error);
            }
        }
        self.world.store.db.put(&self.record, self.durability()).await?;
        self.publish();
        event(&self.world, network, "connect", Some(&self.record.id));
        Ok(())
    }

    async fn join_now(&mut self, network: &Stored, settings: &EndpointSettings) -> Result<()> {
        let world = Arc::clone(&self.world);
        let namespace = self.namespace()?;
        let had_resolver = Names::has_resolver(&world, &self.record);
        let task = self.task()?.clone();
        world
            .networks
            .connect(&world, &mut self.record, &task, network, settings, namespace)
            .await?;
        world.networks.names.publish(&world, &self.record);
        self.refresh_names(had_resolver).await
    }

    pub(super) async fn leave(&mut self, network: &Stored) -> Result<()> {
        let mut wanted = membership::wanted(&self.record);
        if wanted.remove(&network.name).is_none() {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "container {} is not connected to network {}",
                    self.record.id, network.name
                ),
            ));
        }
        if self.record.run.status.is_live() {
            let world = Arc::clone(&self.world);
            let namespace = self.namespace()?;
            let task = self.task()?.clone();
            world
                .networks
                .disconnect(&world, &mut self.record, &task, network, namespace)
                .await?;
        }
        self.want(wanted);
        if self.record.run.status.is_live() {
            let had_resolver = Names::has_resolver(&self.world, &self.record);
            self.refresh_names(had_resolver).await?;
        }
        self.world.store.db.put(&self.record, self.durability()).await?;
        self.publish();
        event(&self.world, network, "disconnect", Some(&self.record.id));
        Ok(())
    }

    /// Forgets the link of this alias; false if there is none.
    pub(super) async fn unlink(&mut self, alias: &str) -> Result<bool> {
        let links = self.record.host_config.links.get_or_insert_default();
        let before = links.len();
        links.retain(|link| link_parts(link).1 != alias);
        if links.len() == before {
            return Ok(false);
        }
        if links.is_empty() {
            self.record.host_config.links = None;
        }
        self.world.store.db.put(&self.record, self.durability()).await?;
        self.publish();
        if self.record.run.status.is_live() {
            let had_resolver = Names::has_resolver(&self.world, &self.record);
            self.refresh_names(had_resolver).await?;
        }
        Ok(true)
    }

    /// What the container sees of its names: its hosts file, and its resolver.
    async fn refresh_names(&mut self, had_resolver: bool) -> Result<()> {
        let world = Arc::clone(&self.world);
        let dir = world.container_dir(&self.record.id);
        self.record.run.resolv = Some(files::refresh(&self.record, &dir, &world)?);
        self.refresh_resolver(had_resolver).await
    }

    /// What the container sees of its names when not its networks, but others have changed.
    pub(super) async fn renew_names(&mut self) -> Result<()> {
        if !self.record.run.status.is_live() {
            return Ok(());
        }
        let world = Arc::clone(&self.world);
        let dir = world.container_dir(&self.record.id);
        files::renew_links(&self.record, &dir, &world)?;
        let resolv = files::renew(&self.record, &dir, &world)?;
        if resolv != self.record.run.resolv {
            self.record.run.resolv = resolv;
            self.persist().await;
        }
        let has_resolver = Names::has_resolver(&world, &self.record);
        self.refresh_resolver(has_resolver).await
    }

    /// Containers that are linked to this one by their hosts files. The start does not wait for it.
    pub(super) fn tell_linked(&self) {
        let (world, id, name) = (
            Arc::clone(&self.world),
            self.record.id.clone(),
            self.record.name.clone(),
        );
        self.world.tasks.spawn(async move {
            for handle in world.containers.all() {
                let snapshot = handle.snapshot();
                let links = snapshot.record.host_config.links.iter().flatten();
                let mut targets = links.map(|link| link_parts(link).0);
                let linked = targets.any(|target| target == name || (target.len() >= 12 && id.starts_with(target)));
                if linked && snapshot.record.run.status.is_live() && handle.id() != id {
                    // One that ends meanwhile need not know.
                    let _ = handle.ask(|reply| super::Command::Renew { reply }).await;
                }
            }
        });
    }

    async fn refresh_resolver(&mut self, had_resolver: bool) -> Result<()> {
        let world = Arc::clone(&self.world);
        if !had_resolver && !world.networks.host.get().needs_resolver(&self.record) {
            return Ok(());
        }
        if had_resolver {
            let written = world.networks.names.write_settings(&world, &self.record);
            written.map_err(|error| Error::internal("write the settings of the container's resolver", &error))?;
            return Ok(());
        }
        let namespace = self.namespace()?;
        let sockets = tokio::task::spawn_blocking(move || {
            use std::os::fd::AsFd as _;
            ferry_network::resolver::restore(namespace.as_fd())
        });
        let sockets = sockets
            .await
            .map_err(|error| Error::internal("open the container's resolver", &error))?;
        let sockets = sockets.map_err(|error| Error::internal("open the container's resolver", &error))?;
        let resolver = self.resolver(sockets)?;
        Ok(self.task()?.resolver(resolver).await?)
    }

    /// `update --publish-add` and `--publish-rm`: now if it runs, and for every start to come.
    pub(super) async fn republish(&mut self, host: &mut HostConfig, update: &Update) -> Result<()> {
        let (add, remove) = (
            publish::of_map(update.publish_add.as_ref())?,
            publish::of_map(update.publish_remove.as_ref())?,
        );
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        if self.record.run.status.is_live() {
            let world = Arc::clone(&self.world);
            let task = self.task()?.clone();
            world
                .networks
                .republish(&world, &mut self.record, &task, add, &remove)
                .await?;
        }
        let map = host.port_bindings.get_or_insert_default();
        publish::subtract(map, &remove)?;
        for (port, bindings) in update.publish_add.iter().flatten() {
            let known = map.entry(port.clone()).or_default().get_or_insert_default();
            known.extend(bindings.iter().flatten().cloned());
            self.record.config.exposed_ports.insert(port.clone(), Empty);
        }
        Ok(())
    }

    /// `update --net-rate` and its like: now if it runs, and for every start to come. Returns the limits there were, if they
    /// were changed now.
    pub(super) async fn limit(&self, host: &mut HostConfig, update: &Update) -> Result<Option<Limits>> {
        let before = limits::of_host(host);
        limits::update(host, update.net_rate.as_ref());
        let now = limits::of_host(host);
        if now == before {
            return Ok(None);
        }
        limits::check(&self.world.networks, host, &membership::wanted(&self.record))?;
        if !self.record.run.status.is_live() {
            return Ok(None);
        }
        self.world.networks.limit(&self.record.id, now).await?;
        Ok(Some(before))
    }

    /// The limits there were before an update that failed.
    pub(super) async fn put_back(&self, before: Option<Limits>) {
        let Some(before) = before else { return };
        if let Err(error) = self.world.networks.limit(&self.record.id, before).await {
            tracing::error!(container = self.record.id, %error, "cannot undo the change of the container's limits");
        }
    }

    fn want(&mut self, wanted: membership::Wanted) {
        // The mode's own network may be one that it left: then the next is the mode, as far as anybody asks.
        if !wanted.contains_key(kind_of(&self.record))
            && let Some(first) = wanted.keys().next()
        {
            self.record.host_config.network_mode.clone_from(first);
        }
        let networking = self.record.networking.get_or_insert_default();
        networking.endpoints_config = Some(
            wanted
                .into_iter()
                .map(|(name, settings)| (name, Some(settings)))
                .collect(),
        );
    }

    /// The container's network namespace.
    fn namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/net", self.record.run.pid);
        let file = std::fs::File::open(&path);
        file.map(OwnedFd::from).map_err(|error| {
            Error::internal(
                format!("open the network namespace of container {}", self.record.name),
                &error,
            )
        })
    }
}
