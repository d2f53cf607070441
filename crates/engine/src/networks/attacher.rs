//! Connects containers: the engine's hold on the host's networks, and the list of them.

mod ports;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ferry_api::network::{Create, EndpointSettings, IpamConfig, mode};
use ferry_network::ipnet::IpNet;
use ferry_network::namespace::{Namespace, adopt};
use ferry_network::network::{Bridge, Driver, Gateway, Range};
use ferry_network::ports::{Mapping, Publish};
use ferry_network::{Attach, Draft, Endpoint, Fabric, Limits, Live, Network, ipam, resolver};
use ferry_storage::{Document, Durability, Store};
use ferry_supervise::Task;
use serde::{Deserialize, Serialize};

use super::failure::{blocking, explain, run};
use super::host::{self, Known};
use super::names::Names;
use super::stored::Stored;
use super::{draft, guard, kind_of, limits, membership, publish};
use crate::config::Config;
use crate::container::Record;
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// Namespaces that are kept ready.
const POOL: usize = 2;
const KEY: &str = "builtin";

/// Connects containers. Blocking work is done where it may block.
#[derive(Debug)]
pub(crate) struct Attacher {
    /// `None` for `--bridge=none`.
    fabric: Option<Arc<Fabric>>,
    ids: Ids,
    /// What of the changes to the host is recorded, and the default bridge's network.
    saved: Mutex<Saved>,
    list: RwLock<BTreeMap<String, Arc<Stored>>>,
    pub names: Names,
    /// The host's name servers.
    pub host: Known,
    /// Published ports obey the host's input rules.
    through_input: bool,
    /// Options of networks to be created, by driver.
    options: BTreeMap<String, BTreeMap<String, String>>,
    store: Store,
}

type Saved = (ferry_network::Record, Option<Network>);

/// What a container is given.
pub(crate) enum Attachment {
    Host,
    Private(OwnedFd),
    Joined(Box<Joined>),
    /// The namespace is made with the container's user namespace, and set up then.
    InUserNamespace,
}

/// A namespace with everything in it.
pub(crate) struct Joined {
    pub namespace: OwnedFd,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Mapping>,
    pub resolver: Option<resolver::Sockets>,
}

/// The built-in networks' ids, made once for a data root, and what was changed on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ids {
    key: String,
    bridge: String,
    host: String,
    none: String,
    created: jiff::Timestamp,
    #[serde(default)]
    state: ferry_network::Record,
    #[serde(default)]
    network: Option<Network>,
}

impl Document for Ids {
    const KIND: &'static str = "networks";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

impl Attacher {
    pub async fn open(config: &Config, store: &Store) -> Result<Self> {
        let mut ids = match store.db.all::<Ids>().await?.into_iter().next() {
            Some(ids) => ids,
            None => {
                let id = || ferry_kit::Id::random().to_string();
                Ids {
                    key: KEY.to_owned(),
                    bridge: id(),
                    host: id(),
                    none: id(),
                    created: jiff::Timestamp::now(),
                    state: ferry_network::Record::default(),
                    network: None,
                }
            }
        };
        let mut list = BTreeMap::new();
        for stored in store.db.all::<Stored>().await? {
            list.insert(stored.id.clone(), Arc::new(stored));
        }
        let fabric = match &config.bridge {
            Some(settings) => {
                let made = fabric(settings, &config.pools, &mut ids, &list);
                Some(Arc::new(
                    made.map_err(|error| Error::internal("set up the networks", &error))?,
                ))
            }
            None => None,
        };
        store.db.put(&ids, Durability::Process).await?;
        for (name, id, driver) in [(mode::HOST, &ids.host, mode::HOST), (mode::NONE, &ids.none, "null")] {
            let stored = Stored::builtin(name, id, driver, ids.created);
            list.insert(id.clone(), Arc::new(stored));
        }
        let attacher = Self {
            fabric,
            saved: Mutex::new((ids.state.clone(), ids.network.clone())),
            list: RwLock::new(list),
            names: Names::new(&config.exec_root),
            host: Known::new(&config.dns),
            options: config.network_options.clone(),
            through_input: config.bridge.as_ref().is_some_and(|bridge| bridge.through_input),
            ids,
            store: store.clone(),
        };
        attacher.refresh_bridge(config);
        Ok(attacher)
    }

    /// An id that stays with the data root, for `info`.
    pub fn engine_id(&self) -> &str {
        &self.ids.bridge
    }

    /// All networks, the built-in ones first.
    pub fn all(&self) -> Vec<Arc<Stored>> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = list.values().cloned().collect();
        drop(list);
        let place = |stored: &Stored| {
            [mode::BRIDGE, mode::HOST, mode::NONE]
                .iter()
                .position(|name| *name == stored.name)
        };
        all.sort_by(|one, other| {
            let key = |stored: &Stored| (place(stored).unwrap_or(usize::MAX), stored.created);
            key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
        });
        all
    }

    /// By name, id, or a unique beginning of an id.
    pub fn find(&self, name: &str) -> Result<Arc<Stored>> {
        let name = if name == mode::DEFAULT { mode::BRIDGE } else { name };
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        let exact = list
            .get(name)
            .or_else(|| list.values().find(|stored| stored.name == name));
        if let Some(stored) = exact {
            return Ok(Arc::clone(stored));
        }
        let mut found = list
            .values()
            .filter(|stored| !name.is_empty() && stored.id.starts_with(name));
        match (found.next(), found.count()) {
            (Some(stored), 0) => Ok(Arc::clone(stored)),
            (Some(_), more) => Err(Error::invalid(format!(
                "network {name} is ambiguous ({} matches found based on ID prefix)",
                more + 1
            ))),
            (None, _) => Err(Error::not_found(format!("network {name} not found"))),
        }
    }

    pub async fn create(&self, name: String, request: Create) -> Result<Arc<Stored>> {
        let taken = || Error::conflict(format!("network with name {name} already exists"));
        if self.all().iter().any(|stored| stored.name == name) {
            return Err(taken());
        }
        let id = ferry_kit::Id::random().to_string();
        let from = request
            .config_from
            .as_ref()
            .map(|from| from.network.clone())
            .unwrap_or_default();
        let mut request = Create {
            name: name.clone(),
            ..request
        };
        let driver = if request.driver.is_empty() {
            mode::BRIDGE
        } else {
            &request.driver
        };
        if let Some(defaults) = self.options.get(driver).filter(|_| !request.config_only) {
            let options = request.options.get_or_insert_default();
            for (key, value) in defaults {
                options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let config_only = request.config_only.then(|| configs(&request));
        if !from.is_empty() {
            let other = self.find(&from)?;
            let Some(config) = &other.config_only else {
                return Err(Error::new(
                    Kind::Forbidden,
                    format!("config network {from:?} is not a config-only network"),
                ));
            };
            let ipam = request.ipam.get_or_insert_default();
            ipam.config = Some(config.clone());
            request.enable_ipv6 = Some(other.enable_ipv6);
            request.internal |= other.internal;
            request.options.get_or_insert_default().extend(other.options.clone());
        }
        let mut stored = Stored {
            driver: match request.driver.as_str() {
                _ if config_only.is_some() => "null".to_owned(),
                "" => mode::BRIDGE.to_owned(),
                driver => driver.to_owned(),
            },
            enable_ipv4: request.enable_ipv4.unwrap_or(true),
            enable_ipv6: request.enable_ipv6.unwrap_or(false),
            internal: request.internal,
            attachable: request.attachable,
            options: request.options.clone().unwrap_or_default(),
            labels: request.labels.clone().unwrap_or_default(),
            ipam_options: request.ipam.as_ref().and_then(|ipam| ipam.options.clone()),
            reserved: configs(&request)
                .into_iter()
                .map(|config| (config.subnet, config.auxiliary_addresses))
                .collect(),
            config_from: from,
            ..Stored::builtin(&name, &id, "", jiff::Timestamp::now())
        };
        if config_only.is_none() {
            let draft = draft::of(&id, &request)?;
            (stored.enable_ipv4, stored.enable_ipv6) = (draft.v4, draft.v6);
            if !draft.v6 {
                stored.unused = configs(&request);
                stored.unused.retain(|config| config.subnet.contains(':'));
            }
            let fabric = self.fabric()?;
            let network = run("create the network", move || fabric.create(draft)).await?;
            stored.network = Some(network);
        }
        stored.config_only = config_only;
        let stored = Arc::new(stored);
        if !self.insert(&stored) {
            self.take_down(&id).await?;
            return Err(taken());
        }
        let made = match self.store.db.put(&*stored, Durability::Power).await {
            Ok(()) => self.raise(&stored).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = made {
            // Nothing half-made stays.
            let _ = self.remove(&stored).await;
            return Err(error);
        }
        Ok(stored)
    }

    /// False when another one has got the name meanwhile.
    fn insert(&self, stored: &Arc<Stored>) -> bool {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let free = !list.values().any(|other| other.name == stored.name);
        if free {
            list.insert(stored.id.clone(), Arc::clone(stored));
        }
        free
    }

    /// Forgets a network nobody is on.
    pub async fn remove(&self, stored: &Stored) -> Result<()> {
        self.take_down(&stored.id).await?;
        self.list
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&stored.id);
        self.store.db.delete::<Stored>(&stored.id, Durability::Power).await?;
        self.names.remove_network(&stored.id);
        Ok(())
    }

    async fn take_down(&self, id: &str) -> Result<()> {
        let (Some(fabric), id) = (self.fabric.clone(), id.to_owned()) else {
            return Ok(());
        };
        run("remove the network", move || fabric.remove(&id)).await
    }

    async fn raise(&self, stored: &Stored) -> Result<()> {
        if stored.network.is_none() {
            return Ok(());
        }
        let (fabric, id) = (self.fabric()?, stored.id.clone());
        run("set up the network", move || fabric.raise(&id)).await?;
        self.save().await;
        Ok(())
    }

    /// What the container's networks give it.
    pub async fn attach(&self, world: &Arc<World>, record: &Record) -> Result<Attachment> {
        let own_user_namespace = record.ids.is_some();
        match kind_of(record) {
            mode::HOST => Ok(Attachment::Host),
            kind if kind.starts_with("container:") => Ok(Attachment::Host),
            _ if own_user_namespace => Ok(Attachment::InUserNamespace),
            mode::NONE => {
                let fabric = self.fabric.clone();
                let made = run("make a network namespace", move || match fabric {
                    Some(fabric) => fabric.private(),
                    None => Ok(Namespace::create()?.fd),
                });
                made.await.map(Attachment::Private)
            }
            _ => {
                let (fabric, attaches) = (self.fabric()?, self.attaches(record)?);
                let requests = publish::requests(record)?;
                let (id, resolve) = (record.id.clone(), self.host.get().needs_resolver(record));
                let joined = move || {
                    let (namespace, endpoints) = fabric.attach(attaches)?;
                    complete(&fabric, &id, namespace, endpoints, &requests, resolve)
                };
                let joined = blocking(joined)
                    .await?
                    .map_err(|error| explain(world, record, &error))?;
                self.save().await;
                Ok(Attachment::Joined(Box::new(joined)))
            }
        }
    }

    /// Sets up a namespace that was made with a user namespace.
    pub async fn configure(
        &self,
        world: &Arc<World>,
        record: &Record,
        namespace: BorrowedFd<'_>,
    ) -> Result<Option<Joined>> {
        let namespace = namespace
            .try_clone_to_owned()
            .map_err(|error| Error::internal("hold the network namespace", &error))?;
        if kind_of(record) == mode::NONE {
            run("set up the network namespace", move || {
                adopt(namespace.as_fd()).map(drop)
            })
            .await?;
            return Ok(None);
        }
        let (fabric, attaches) = (self.fabric()?, self.attaches(record)?);
        let requests = publish::requests(record)?;
        let (id, resolve) = (record.id.clone(), self.host.get().needs_resolver(record));
        let joined = move || {
            let endpoints = fabric.configure(namespace.as_fd(), attaches)?;
            complete(&fabric, &id, namespace, endpoints, &requests, resolve)
        };
        let joined = blocking(joined)
            .await?
            .map_err(|error| explain(world, record, &error))?;
        self.save().await;
        Ok(Some(joined))
    }

    /// One more network for a container that runs. Ports follow the way out.
    pub async fn connect(
        &self,
        world: &Arc<World>,
        record: &mut Record,
        task: &Task,
        stored: &Stored,
        settings: &EndpointSettings,
        namespace: OwnedFd,
    ) -> Result<()> {
        let fabric = self.fabric()?;
        let attach = membership::attach(record, stored, settings)?;
        let before = record.endpoints.clone();
        let joined = run("connect the container to the network", move || {
            fabric.connect(namespace.as_fd(), attach, &before)
        });
        let endpoint = joined.await?;
        record.endpoints.push(endpoint);
        self.move_ports(world, record, task).await
    }

    pub async fn disconnect(
        &self,
        world: &Arc<World>,
        record: &mut Record,
        task: &Task,
        stored: &Stored,
        namespace: OwnedFd,
    ) -> Result<()> {
        let fabric = self.fabric()?;
        let (gone, rest): (Vec<_>, Vec<_>) = record
            .endpoints
            .drain(..)
            .partition(|endpoint| endpoint.network_id == stored.id);
        record.endpoints = rest.clone();
        for endpoint in gone {
            self.names.forget(&endpoint.network_id, &endpoint.endpoint_id);
            let (fabric, rest) = (Arc::clone(&fabric), rest.clone());
            let namespace = namespace
                .try_clone()
                .map_err(|error| Error::internal("hold the network namespace", &error))?;
            run("take the container off the network", move || {
                fabric.disconnect(namespace.as_fd(), &endpoint, &rest)
            })
            .await?;
        }
        self.move_ports(world, record, task).await
    }

    /// Gives the endpoints back: when this returns, their addresses and networks are free. The links follow in the
    /// background, since a namespace takes its time to die.
    pub async fn detach(&self, record: &Record, endpoints: Vec<Endpoint>) {
        let Some(fabric) = self.fabric.clone().filter(|_| !endpoints.is_empty()) else {
            return;
        };
        for endpoint in &endpoints {
            if self
                .find(&endpoint.network_id)
                .is_ok_and(|network| network.name != mode::BRIDGE)
            {
                self.names.forget(&endpoint.network_id, &endpoint.endpoint_id);
            }
        }
        let id = record.id.clone();
        let (sender, released) = tokio::sync::oneshot::channel();
        tokio::task::spawn_blocking(move || {
            endpoints.iter().for_each(|endpoint| fabric.release(endpoint));
            // Nobody who waits for it has gone: the actor does not end in between.
            let _ = sender.send(());
            for endpoint in endpoints {
                if let Err(error) = fabric.detach(&endpoint) {
                    tracing::warn!(container = id, %error, "cannot take the container off its network");
                }
            }
        });
        let _ = released.await;
    }

    /// What the kernel has is made to match the containers that run.
    pub async fn reconcile(&self, live: Vec<Live>) {
        let Some(fabric) = self.fabric.clone() else { return };
        if let Err(error) = run("repair the network", move || fabric.reconcile(&live).map(drop)).await {
            tracing::error!(%error, "cannot repair the network");
        }
    }

    /// Puts back what somebody else flushed, as long as the engine runs.
    pub fn guard(&self, world: &Arc<World>) {
        world.tasks.spawn(host::follow(Arc::clone(world)));
        let Some(fabric) = self.fabric.clone() else { return };
        let closing = world.closing.clone();
        world.tasks.spawn(async move {
            if let Err(error) = guard::watch(fabric, closing).await {
                tracing::error!(%error, "cannot watch the firewall: what somebody flushes comes back with the next container only");
            }
        });
    }

    /// Removes bridges and firewall table, and puts back what was changed.
    pub async fn shutdown(&self) {
        let Some(fabric) = self.fabric.clone() else { return };
        if let Err(error) = run("remove the network", move || fabric.shutdown()).await {
            tracing::error!(%error, "cannot remove the network");
        }
        self.save().await;
    }

    /// What a user should know who makes a container: what of others' firewalls is in its way, and which it goes past.
    pub async fn warnings(&self, kind: &str, publishes: &[Publish]) -> Vec<String> {
        let Some(fabric) = self.fabric.clone() else {
            return Vec::new();
        };
        if kind == mode::HOST || kind == mode::NONE || kind.starts_with("container:") {
            return Vec::new();
        }
        let asked = Arc::clone(&fabric);
        let obstacles = run("look at the host's firewall", move || Ok(asked.obstacles())).await;
        let mut warnings = obstacles.unwrap_or_default();
        let open = |publish: &&Publish| publish.address.is_none_or(|address| !address.is_loopback());
        if self.through_input || !publishes.iter().any(|publish| open(&publish)) {
            return warnings;
        }
        let Ok(guards) = run("look at the host's firewall", move || fabric.input_guards()).await else {
            return warnings;
        };
        if !guards.is_empty() {
            warnings.push(format!(
                "published ports are open although this host's firewall lets in only what its rules name ({}): set \
                 \"publish-through\": \"input\" in daemon.json to have its rules decide, or publish on one address, as with -p 127.0.0.1:8080:80",
                guards.join(", ")
            ));
        }
        warnings
    }

    /// What reads what went through a container's limits; `None` where it has none.
    pub fn meter(&self, record: &Record) -> Option<limits::Meter> {
        let fabric = self.fabric.clone()?;
        (!limits::of_host(&record.host_config).is_none()).then(|| limits::Meter {
            fabric,
            id: record.id.clone(),
        })
    }

    /// Other limits for a container that runs. On failure it keeps those it has.
    pub async fn limit(&self, id: &str, limits: Limits) -> Result<()> {
        let (fabric, id) = (self.fabric()?, id.to_owned());
        run("limit the container's traffic", move || fabric.limit(&id, limits)).await
    }

    /// What of others' firewalls is in containers' way, for `info`.
    pub fn obstacles(&self) -> Vec<String> {
        self.fabric
            .as_ref()
            .map(|fabric| fabric.obstacles())
            .unwrap_or_default()
    }

    fn attaches(&self, record: &Record) -> Result<Vec<Attach>> {
        let wanted = membership::wanted(record);
        let join = |(name, settings): (&String, &EndpointSettings)| {
            let network = self.find(name).map_err(|error| {
                Error::new(
                    error.kind,
                    format!("failed to set up container networking: {}", error.message),
                )
            })?;
            membership::check(&network, settings)?;
            membership::joinable(record, &network)?;
            membership::attach(record, &network, settings)
        };
        wanted.iter().map(join).collect()
    }

    fn fabric(&self) -> Result<Arc<Fabric>> {
        self.fabric
            .clone()
            .ok_or_else(|| Error::invalid("this engine runs with --bridge=none: use --network host or --network none"))
    }

    /// Keeps what was changed on the host, if it changed something since.
    async fn save(&self) {
        let Some(fabric) = &self.fabric else { return };
        let now = (fabric.record(), fabric.network(&self.ids.bridge));
        // On the way of every start: written only when there is something new.
        if *self.saved.lock().unwrap_or_else(PoisonError::into_inner) == now {
            return;
        }
        let ids = Ids {
            state: now.0.clone(),
            network: now.1.clone(),
            ..self.ids.clone()
        };
        match self.store.db.put(&ids, Durability::Process).await {
            Ok(()) => {
                *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = now.clone();
                let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
                if let Some(stored) = list.get_mut(&self.ids.bridge) {
                    Arc::make_mut(stored).network = now.1;
                }
            }
            Err(error) => tracing::error!(%error, "cannot record what the network changed on the host"),
        }
    }

    /// The default bridge as the list shows it.
    fn refresh_bridge(&self, config: &Config) {
        let (Some(fabric), Some(settings)) = (&self.fabric, &config.bridge) else {
            return;
        };
        let mut stored = Stored::builtin(mode::BRIDGE, &self.ids.bridge, mode::BRIDGE, self.ids.created);
        let mtu = settings.mtu.unwrap_or(MTU).to_string();
        let text = |on: bool| if on { "true" } else { "false" };
        let binding = settings
            .binding
            .map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string());
        stored.enable_ipv6 = settings.ipv6;
        stored.options = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", text(settings.icc)),
            (
                "com.docker.network.bridge.enable_ip_masquerade",
                text(settings.masquerade),
            ),
            ("com.docker.network.bridge.host_binding_ipv4", binding.as_str()),
            ("com.docker.network.bridge.name", settings.name.as_str()),
            ("com.docker.network.driver.mtu", mtu.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        stored.network = fabric.network(&self.ids.bridge);
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.insert(stored.id.clone(), Arc::new(stored));
    }
}

const MTU: u32 = 1500;

/// The networks of this engine, with the default bridge and all that are stored.
fn fabric(
    settings: &crate::config::Bridge,
    pools: &[ipam::Pool],
    ids: &mut Ids,
    list: &BTreeMap<String, Arc<Stored>>,
) -> ferry_network::Result<Fabric> {
    let config = ferry_network::Config {
        table: settings.name.clone(),
        pool: POOL,
        pools: ipam::Pools::configured(pools, ipam::unique_local(&ids.bridge))?,
        relay: settings.through_input,
        ..ferry_network::Config::default()
    };
    let fabric = Fabric::new(config, ids.state.clone())?;
    for stored in list.values() {
        if let Some(network) = &stored.network
            && let Err(error) = fabric.add(network.clone(), false)
        {
            tracing::error!(network = stored.name, %error, "cannot use the network");
        }
    }
    let driver = Driver::Bridge(Bridge {
        link: settings.name.clone(),
        icc: settings.icc,
        masquerade: settings.masquerade,
        source: None,
        binding: settings.binding,
        gateway4: Gateway::Nat,
        gateway6: Gateway::Nat,
    });
    let of_family = |(own, fixed): (Option<IpNet>, Option<IpNet>)| {
        let subnet = own.or(fixed)?.trunc();
        Some(Range {
            subnet,
            gateway: Some(own.map_or_else(|| ipam::first(&subnet), |own| own.addr())),
            pool: fixed.filter(|fixed| *fixed != subnet),
            reserved: Vec::new(),
        })
    };
    let families = [(settings.address, settings.fixed), (settings.address6, settings.fixed6)];
    let ranges: Vec<_> = families.into_iter().filter_map(of_family).collect();
    let mtu = settings.mtu.unwrap_or(MTU);
    let fits = |known: &Network| {
        known.driver == driver
            && known.mtu == mtu
            && known.has(true) == settings.ipv6
            && ranges.iter().all(|range| known.ranges.contains(range))
    };
    match ids.network.clone().filter(fits) {
        Some(known) => fabric.add(known, ranges.is_empty())?,
        None => {
            let automatic = ranges.is_empty();
            let network = fabric.create(Draft {
                id: ids.bridge.clone(),
                name: mode::BRIDGE.to_owned(),
                driver,
                v4: true,
                v6: settings.ipv6,
                ranges,
                internal: false,
                mtu,
                prefix: "eth".to_owned(),
                automatic,
            })?;
            ids.network = Some(network);
        }
    }
    Ok(fabric)
}

/// Ports and resolver of a namespace that has its interfaces. A failure leaves nothing behind.
fn complete(
    fabric: &Fabric,
    id: &str,
    namespace: OwnedFd,
    endpoints: Vec<Endpoint>,
    requests: &[ferry_network::ports::Publish],
    resolve: bool,
) -> ferry_network::Result<Joined> {
    let finish = || {
        let ports = match out(&endpoints) {
            Some(endpoint) => fabric.publish(id, endpoint, requests)?,
            None => Vec::new(),
        };
        let resolver = resolve.then(|| resolver::restore(namespace.as_fd())).transpose();
        if resolver.is_err() {
            let _ = fabric.unpublish(id, &ports);
        }
        Ok((ports, resolver?))
    };
    match finish() {
        Ok((ports, resolver)) => Ok(Joined {
            namespace,
            endpoints,
            ports,
            resolver,
        }),
        Err(error) => {
            for endpoint in &endpoints {
                let _ = fabric.detach(endpoint);
            }
            Err(error)
        }
    }
}

/// The endpoint that ports are published at.
fn out(endpoints: &[Endpoint]) -> Option<&Endpoint> {
    ferry_network::way_out(endpoints, false)
        .or_else(|| ferry_network::way_out(endpoints, true))
        .or(endpoints.first())
}

fn configs(request: &Create) -> Vec<IpamConfig> {
    let configs = request.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    configs.into_iter().flatten().cloned().collect()
}
