//! Networks, and a container's place on them.
//!
//! ```text
//!   Networks (the API's verbs) ─▶ Attacher ─▶ ferry_network::Fabric (the host)
//!                                   ├─ Stored: what is persisted of a network
//!                                   └─ Names: what the containers' resolvers know
//!   membership: what a container asked for ─▶ Attach ;  publish: port maps ─▶ Publish
//! ```

mod attacher;
mod draft;
mod failure;
mod guard;
mod host;
pub(crate) mod limits;
pub(crate) mod membership;
mod names;
pub(crate) mod publish;
mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_api::Filters;
use ferry_api::events::kind;
use ferry_api::network::{
    Connect, Create, Created, Disconnect, EndpointResource, EndpointSettings, HeldPort, Inspect, Prune, mode,
};
use futures_util::future::BoxFuture;

pub(crate) use self::attacher::{Attacher, Attachment};
pub(crate) use self::names::Names;
pub(crate) use self::stored::Stored;
use crate::container::{Command, Record};
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// The networks. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Networks {
    world: Arc<World>,
}

/// `CONTAINER:ALIAS`, as the command line gives it or as Docker keeps it (`/CONTAINER:/OWN/ALIAS`).
pub(crate) fn link_parts(link: &str) -> (&str, &str) {
    let (target, alias) = link.split_once(':').unwrap_or((link, link));
    (
        target.trim_start_matches('/'),
        alias.rsplit('/').next().unwrap_or(alias),
    )
}

/// The network mode with its default: `bridge`, `host`, `none`, `container:…`, or a network.
pub(crate) fn kind_of(record: &Record) -> &str {
    match record.host_config.network_mode.as_str() {
        "" | mode::DEFAULT => mode::BRIDGE,
        mode => mode,
    }
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
        let dangling = match filters.contains("dangling") {
            true => Some(
                filters
                    .flag("dangling", false)
                    .map_err(|error| Error::invalid(error.to_string()))?,
            ),
            false => None,
        };
        if let Some(wrong) = filters
            .values("type")
            .find(|kind| !matches!(*kind, "builtin" | "custom"))
        {
            return Err(Error::invalid(format!("invalid filter: 'type'='{wrong}'")));
        }
        let wanted = |network: &Arc<Stored>| {
            let builtin = is_builtin(&network.name);
            let kind = if builtin { "builtin" } else { "custom" };
            let named = |value: &str| value == network.name || network.id.starts_with(value);
            filters.pattern("name", &network.name)
                && filters.prefix("id", &network.id)
                && filters.exact("driver", &network.driver)
                && filters.exact("scope", "local")
                && filters.exact("type", kind)
                && filters.labels("label", &network.labels)
                && (!filters.contains("idOrName") || filters.values("idOrName").any(named))
                && dangling.is_none_or(|dangling| dangling == (!builtin && self.members(network).is_empty()))
        };
        let all = self.world.networks.all();
        Ok(all
            .iter()
            .filter(|network| wanted(network))
            .map(|network| network.inspect())
            .collect())
    }

    /// By name, id, or a unique beginning of an id.
    pub fn inspect(&self, name: &str) -> Result<Inspect> {
        let network = self.world.networks.find(name)?;
        Ok(Inspect {
            containers: Some(self.members(&network)),
            ..network.inspect()
        })
    }

    pub fn create(&self, request: Create) -> BoxFuture<'_, Result<Created>> {
        Box::pin(async move {
            let name = request.name.trim().to_owned();
            if name.is_empty() {
                return Err(Error::invalid("invalid name: name is empty"));
            }
            if is_builtin(&name) || name == mode::DEFAULT {
                return Err(Error::new(
                    Kind::Forbidden,
                    format!("operation is not permitted on predefined {name} network"),
                ));
            }
            if name.contains(['/', '\n', '\0']) || name.starts_with("container:") {
                return Err(Error::invalid(format!("invalid name: {name:?}")));
            }
            if request.ingress || !matches!(request.scope.as_str(), "" | "local") {
                return Err(Error::unsupported(
                    "networks of a swarm are not there: create a local one, without --ingress and --scope",
                ));
            }
            let stored = self.world.networks.create(name, request).await?;
            self.event(&stored, "create", None);
            let unused: Vec<&str> = stored.unused.iter().map(|config| config.subnet.as_str()).collect();
            let warning = match unused.is_empty() {
                true => String::new(),
                false => format!(
                    "the network has no IPv6, and {} is not used: create it with --ipv6 (EnableIPv6)",
                    unused.join(", ")
                ),
            };
            Ok(Created {
                id: stored.id.clone(),
                warning,
            })
        })
    }

    pub fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let network = self.world.networks.find(name)?;
            if is_builtin(&network.name) {
                return Err(Error::new(
                    Kind::Forbidden,
                    format!("{} is a pre-defined network and cannot be removed", network.name),
                ));
            }
            if let Some((_, member)) = self.members(&network).into_iter().next() {
                return Err(Error::new(
                    Kind::Forbidden,
                    format!(
                        "error while removing network: network {} has active endpoints (name:{:?} id:{:?})",
                        network.name,
                        member.name,
                        member.endpoint_id.get(..12).unwrap_or_default()
                    ),
                ));
            }
            self.world.networks.remove(&network).await?;
            self.event(&network, "destroy", None);
            Ok(())
        })
    }

    pub fn connect<'a>(&'a self, name: &'a str, request: Connect) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let network = self.world.networks.find(name)?;
            let handle = self.world.containers.find(&request.container)?;
            let settings = request.endpoint_config.unwrap_or_default();
            membership::check(&network, &settings)?;
            handle
                .ask(|reply| Command::Connect {
                    network,
                    settings: Box::new(settings),
                    reply,
                })
                .await
        })
    }

    pub fn disconnect<'a>(&'a self, name: &'a str, request: Disconnect) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let network = self.world.networks.find(name)?;
            let handle = self.world.containers.find(&request.container)?;
            handle.ask(|reply| Command::Disconnect { network, reply }).await
        })
    }

    /// Removes every network of the user's that no container runs on.
    pub fn prune<'a>(&'a self, filters: &'a Filters) -> BoxFuture<'a, Result<Prune>> {
        Box::pin(async move {
            const FILTERS: [&str; 3] = ["label", "label!", "until"];
            filters
                .validate(&FILTERS)
                .map_err(|error| Error::invalid(error.to_string()))?;
            let until = crate::images::until(filters)?;
            let mut deleted = Vec::new();
            for network in self.world.networks.all() {
                let unlabelled = !filters.contains("label!") || !filters.labels("label!", &network.labels);
                let wanted = !is_builtin(&network.name)
                    && filters.labels("label", &network.labels)
                    && unlabelled
                    && until.is_none_or(|until| network.created < until)
                    && self.members(&network).is_empty();
                // One that somebody joined meanwhile stays.
                if wanted && self.world.networks.remove(&network).await.is_ok() {
                    self.event(&network, "destroy", None);
                    deleted.push(network.name.clone());
                }
            }
            self.world.events.publish(
                kind::NETWORK,
                "prune",
                "",
                BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]),
            );
            Ok(Prune {
                networks_deleted: (!deleted.is_empty()).then_some(deleted),
            })
        })
    }

    /// Who has which port of the host: containers that published it, and processes that are bound to it.
    pub fn ports(&self) -> BoxFuture<'_, Result<Vec<HeldPort>>> {
        Box::pin(async move { self.world.networks.ports(&self.world).await })
    }

    /// The containers that run on it.
    fn members(&self, network: &Stored) -> BTreeMap<String, EndpointResource> {
        let mut members = BTreeMap::new();
        for handle in self.world.containers.all() {
            let snapshot = handle.snapshot();
            let record = &snapshot.record;
            if !record.run.status.is_live() {
                continue;
            }
            let endpoint = record
                .endpoints
                .iter()
                .find(|endpoint| endpoint.network_id == network.id);
            // Those of the modes have none; whoever left a network may still have it as its mode.
            let by_mode = network.network.is_none() && kind_of(record) == network.name;
            if endpoint.is_none() && !by_mode {
                continue;
            }
            let mut member = EndpointResource {
                name: record.name.clone(),
                ..EndpointResource::default()
            };
            if let Some(endpoint) = endpoint {
                member.endpoint_id.clone_from(&endpoint.endpoint_id);
                member.mac_address = endpoint.mac.to_string();
                for (address, prefix) in endpoint.addresses() {
                    let text = format!("{address}/{prefix}");
                    match address.is_ipv4() {
                        true => member.ipv4_address = text,
                        false => member.ipv6_address = text,
                    }
                }
            }
            members.insert(record.id.clone(), member);
        }
        members
    }

    fn event(&self, network: &Stored, action: &str, container: Option<&str>) {
        event(&self.world, network, action, container);
    }
}

/// Tells of a network, and of the container that joined or left it.
pub(crate) fn event(world: &World, network: &Stored, action: &str, container: Option<&str>) {
    let mut attributes = BTreeMap::from([
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), network.driver.clone()),
    ]);
    attributes.extend(container.map(|id| ("container".to_owned(), id.to_owned())));
    world.events.publish(kind::NETWORK, action, &network.id, attributes);
}

fn is_builtin(name: &str) -> bool {
    matches!(name, mode::BRIDGE | mode::HOST | mode::NONE)
}

/// A container's endpoint settings on the network of its mode.
pub(crate) fn main_settings(world: &World, record: &Record) -> EndpointSettings {
    let mut shown = membership::shown(world, record);
    let found = world.networks.find(kind_of(record)).ok();
    let name = found.map_or_else(|| kind_of(record).to_owned(), |network| network.name.clone());
    shown.remove(&name).flatten().unwrap_or_default()
}
