//! A container's place on the network, and the networks that are built in: bridge, host, none.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_api::network::{self, EndpointResource, EndpointSettings, Inspect, Ipam, IpamConfig, mode};
use ferry_api::{Filters, Timestamp};
use ferry_network::namespace::{Namespace, adopt};
use ferry_network::{Addressing, Attach, Bridge, Endpoint, Subnet};
use ferry_storage::{Document, Durability, Store};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::container::Record;
use crate::error::{Error, Result};
use crate::world::World;

/// The networks. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Networks {
    world: Arc<World>,
}

/// Connects containers. Blocking work is done where it may block.
#[derive(Debug)]
pub(crate) struct Attacher {
    bridge: Option<Arc<Bridge>>,
    ids: Ids,
    /// What of the bridge's changes to the host is recorded.
    saved: Mutex<ferry_network::Record>,
    store: Store,
}

/// What a container is given.
pub(crate) enum Attachment {
    Host,
    Private(OwnedFd),
    Bridge(OwnedFd, Endpoint),
    /// The namespace is made with the container's user namespace, and set up then.
    InUserNamespace,
}

/// The built-in networks' ids, made once for a data root, and what the bridge changed on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Ids {
    key: String,
    bridge: String,
    host: String,
    none: String,
    created: jiff::Timestamp,
    #[serde(default)]
    state: ferry_network::Record,
}

impl Document for Ids {
    const KIND: &'static str = "networks";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

const KEY: &str = "builtin";
/// Namespaces that are kept ready.
const POOL: usize = 2;

impl Attacher {
    pub async fn open(config: &Config, store: &Store) -> Result<Self> {
        let ids = match store.db.all::<Ids>().await?.into_iter().next() {
            Some(ids) => ids,
            None => {
                let id = || ferry_kit::Id::random().to_string();
                let ids = Ids {
                    key: KEY.to_owned(),
                    bridge: id(),
                    host: id(),
                    none: id(),
                    created: jiff::Timestamp::now(),
                    state: ferry_network::Record::default(),
                };
                store.db.put(&ids, Durability::Process).await?;
                ids
            }
        };
        let bridge = match &config.bridge {
            Some(settings) => {
                let (subnet, gateway) = settings.address.as_deref().map(parse_address).transpose()?.unzip();
                let defaults = ferry_network::Config::default();
                let settings = ferry_network::Config {
                    network_id: ids.bridge.clone(),
                    name: settings.name.clone(),
                    subnet,
                    gateway,
                    mtu: settings.mtu.unwrap_or(defaults.mtu),
                    table: settings.name.clone(),
                    pool: POOL,
                    ..defaults
                };
                let bridge = Bridge::new(settings, ids.state.clone());
                Some(Arc::new(
                    bridge.map_err(|error| Error::internal("set up the bridge network", &error))?,
                ))
            }
            None => None,
        };
        Ok(Self {
            bridge,
            saved: Mutex::new(ids.state.clone()),
            ids,
            store: store.clone(),
        })
    }

    /// An id that stays with the data root, for `info`.
    pub fn engine_id(&self) -> &str {
        &self.ids.bridge
    }

    /// What the container's network mode gives it.
    pub async fn attach(&self, record: &Record) -> Result<Attachment> {
        let own_user_namespace = record.ids.is_some();
        match kind_of(record) {
            mode::HOST => Ok(Attachment::Host),
            kind if kind.starts_with("container:") => Ok(Attachment::Host),
            _ if own_user_namespace => Ok(Attachment::InUserNamespace),
            mode::NONE => {
                let bridge = self.bridge.clone();
                let made = run("make a network namespace", move || match bridge {
                    Some(bridge) => bridge.private(),
                    None => Ok(Namespace::create()?.fd),
                });
                made.await.map(Attachment::Private)
            }
            _ => {
                let (bridge, request) = (self.bridge()?, request(record)?);
                let (namespace, endpoint) =
                    run("connect the container to its network", move || bridge.attach(request)).await?;
                self.save().await;
                Ok(Attachment::Bridge(namespace, endpoint))
            }
        }
    }

    /// Sets up a namespace that was made with a user namespace.
    pub async fn configure(&self, record: &Record, namespace: BorrowedFd<'_>) -> Result<Option<Endpoint>> {
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
        let (bridge, request) = (self.bridge()?, request(record)?);
        let endpoint = run("connect the container to its network", move || {
            bridge.configure(namespace.as_fd(), request)
        });
        let endpoint = endpoint.await?;
        self.save().await;
        Ok(Some(endpoint))
    }

    /// In the background: a namespace takes its time to die.
    pub fn detach(&self, record: &Record, endpoint: Endpoint) {
        let Some(bridge) = self.bridge.clone() else { return };
        let id = record.id.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = bridge.detach(&endpoint) {
                tracing::warn!(container = id, %error, "cannot take the container off its network");
            }
        });
    }

    /// What the kernel has is made to match the containers that run.
    pub async fn reconcile(&self, live: Vec<Endpoint>) {
        let Some(bridge) = self.bridge.clone() else { return };
        if let Err(error) = run("repair the network", move || bridge.reconcile(&live).map(drop)).await {
            tracing::error!(%error, "cannot repair the network");
        }
    }

    /// Removes bridge and firewall table, and puts back what was changed.
    pub async fn shutdown(&self) {
        let Some(bridge) = self.bridge.clone() else { return };
        if let Err(error) = run("remove the network", move || bridge.shutdown()).await {
            tracing::error!(%error, "cannot remove the network");
        }
        self.save().await;
    }

    fn bridge(&self) -> Result<Arc<Bridge>> {
        self.bridge
            .clone()
            .ok_or_else(|| Error::invalid("this engine runs with --bridge=none: use --network host or --network none"))
    }

    /// Keeps what the bridge changed on the host, if it changed something since.
    async fn save(&self) {
        let Some(bridge) = &self.bridge else { return };
        let state = bridge.record();
        let known =
            |state: &ferry_network::Record| *self.saved.lock().unwrap_or_else(PoisonError::into_inner) == *state;
        // On the way of every start: written only when there is something new.
        if known(&state) {
            return;
        }
        let ids = Ids {
            state: state.clone(),
            ..self.ids.clone()
        };
        match self.store.db.put(&ids, Durability::Process).await {
            Ok(()) => *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = state,
            Err(error) => tracing::error!(%error, "cannot record what the network changed on the host"),
        }
    }
}

/// Does blocking work where that is allowed.
async fn run<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> ferry_network::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| Error::internal(what, &error)),
        Err(error) => Err(Error::internal(what, &error)),
    }
}

/// The network mode with its default: `bridge`, `host`, `none` or `container:…`.
pub(crate) fn kind_of(record: &Record) -> &str {
    match record.host_config.network_mode.as_str() {
        "" | mode::DEFAULT => mode::BRIDGE,
        mode => mode,
    }
}

fn request(record: &Record) -> Result<Attach> {
    let endpoint = record
        .networking
        .as_ref()
        .and_then(|networking| networking.endpoints_config.as_ref())
        .and_then(|endpoints| endpoints.values().flatten().next());
    let mac = match (&record.config.mac_address, endpoint) {
        (mac, _) if !mac.is_empty() => Some(mac.as_str()),
        (_, Some(endpoint)) if !endpoint.mac_address.is_empty() => Some(endpoint.mac_address.as_str()),
        _ => None,
    };
    let mac = mac.map(|text| {
        text.parse()
            .map_err(|_| Error::invalid(format!("{text} is not a valid mac address")))
    });
    Ok(Attach {
        id: record.id.clone(),
        hostname: record.config.hostname.clone(),
        mac: mac.transpose()?,
        ..Attach::default()
    })
}

/// `172.17.0.1/16`: the bridge's address and its subnet.
fn parse_address(text: &str) -> Result<(Subnet, std::net::Ipv4Addr)> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let address = address.parse().ok()?;
        Some((Subnet::containing(address, prefix.parse().ok()?)?, address))
    });
    parsed.ok_or_else(|| {
        Error::invalid(format!(
            "invalid bridge address {text:?}: want an address with its prefix, like 172.17.0.1/16"
        ))
    })
}

impl Networks {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    pub fn list(&self, filters: &Filters) -> Result<Vec<Inspect>> {
        const FILTERS: [&str; 8] = ["dangling", "driver", "id", "label", "name", "scope", "type", "idOrName"];
        filters
            .validate(&FILTERS)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let dangling = filters
            .flag("dangling", false)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let kind_is = |kind: &str| !filters.contains("type") || filters.values("type").any(|value| value == kind);
        let wanted = |network: &Inspect| {
            filters.pattern("name", &network.name)
                && filters.prefix("id", &network.id)
                && filters.exact("driver", &network.driver)
                && filters.exact("scope", &network.scope)
                && kind_is("builtin")
                && !filters.contains("label")
                && !dangling
        };
        Ok(self.all().into_iter().filter(wanted).collect())
    }

    /// By name, id, or a unique beginning of an id.
    pub fn inspect(&self, name: &str) -> Result<Inspect> {
        let networks = self.all();
        let found = networks
            .iter()
            .find(|network| network.name == name || network.id == name);
        let found = found.or_else(|| {
            networks
                .iter()
                .find(|network| !name.is_empty() && network.id.starts_with(name))
        });
        let mut network = found
            .cloned()
            .ok_or_else(|| Error::not_found(format!("network {name} not found")))?;
        network.containers = Some(self.members(&network.name));
        Ok(network)
    }

    fn members(&self, network: &str) -> BTreeMap<String, EndpointResource> {
        let mut members = BTreeMap::new();
        for handle in self.world.containers.all() {
            let snapshot = handle.snapshot();
            let record = &snapshot.record;
            if !record.run.status.is_live() || kind_of(record) != network {
                continue;
            }
            let mut member = EndpointResource {
                name: record.name.clone(),
                ..EndpointResource::default()
            };
            if let Some(endpoint) = &record.endpoint {
                member.endpoint_id.clone_from(&endpoint.endpoint_id);
                member.mac_address = endpoint.mac.to_string();
                member.ipv4_address = format!("{}/{}", endpoint.ip, endpoint.prefix);
            }
            members.insert(record.id.clone(), member);
        }
        members
    }

    fn all(&self) -> Vec<Inspect> {
        let attacher = &self.world.networks;
        let mut all = Vec::new();
        let plain = |name: &str, id: &str, driver: &str| Inspect {
            name: name.to_owned(),
            id: id.to_owned(),
            created: Timestamp(attacher.ids.created),
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            enable_ipv4: true,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: None,
                config: None,
            },
            containers: Some(BTreeMap::new()),
            options: Some(BTreeMap::new()),
            labels: Some(BTreeMap::new()),
            ..Inspect::default()
        };
        if let Some(bridge) = &attacher.bridge {
            let mut network = plain(mode::BRIDGE, &attacher.ids.bridge, mode::BRIDGE);
            if let Some(Addressing { subnet, gateway }) = bridge.addressing() {
                network.ipam.config = Some(vec![IpamConfig {
                    subnet: subnet.to_string(),
                    gateway: gateway.to_string(),
                    ..IpamConfig::default()
                }]);
            }
            let name = self
                .world
                .config
                .bridge
                .as_ref()
                .map(|bridge| bridge.name.clone())
                .unwrap_or_default();
            network.options = Some(BTreeMap::from(
                [
                    ("com.docker.network.bridge.default_bridge", "true"),
                    ("com.docker.network.bridge.enable_icc", "true"),
                    ("com.docker.network.bridge.enable_ip_masquerade", "true"),
                    ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
                    ("com.docker.network.bridge.name", name.as_str()),
                    ("com.docker.network.driver.mtu", "1500"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
            ));
            all.push(network);
        }
        all.push(plain(mode::HOST, &attacher.ids.host, mode::HOST));
        all.push(plain(mode::NONE, &attacher.ids.none, "null"));
        all
    }
}

/// The container's endpoint as `inspect` and `ps` show it.
pub(crate) fn endpoint_settings(world: &World, record: &Record) -> EndpointSettings {
    let ids = &world.networks.ids;
    let running = record.run.status.is_live();
    let id = match kind_of(record) {
        mode::HOST => &ids.host,
        mode::NONE => &ids.none,
        _ => &ids.bridge,
    };
    let mut settings = network::EndpointSettings {
        network_id: if running { id.clone() } else { String::new() },
        ..EndpointSettings::default()
    };
    if let (Some(endpoint), true) = (&record.endpoint, running) {
        settings.endpoint_id.clone_from(&endpoint.endpoint_id);
        settings.mac_address = endpoint.mac.to_string();
        settings.gateway = endpoint.gateway.to_string();
        settings.ip_address = endpoint.ip.to_string();
        settings.ip_prefix_len = i64::from(endpoint.prefix);
    }
    settings
}
