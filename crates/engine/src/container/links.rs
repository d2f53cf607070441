//! `--link` on the default bridge: what of the other container's a program finds in its environment, and the names that links
//! are known by (moby daemon/links). On other networks a link is a name of the resolver's and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_api::container::HostConfig;
use ferry_api::network::mode;
use ferry_network::Endpoint;

use super::handle::Snapshot;
use super::record::Record;
use crate::error::{Error, Kind, Result};
use crate::networks::{kind_of, link_parts};
use crate::world::World;

/// An exposed port as environments sort it: TCP first.
type Port = (u8, String, u16);

/// Whether what is asked of a container to be created can be linked.
pub(super) fn check_request(host: &HostConfig, world: &World) -> Result<()> {
    if host.network_mode == mode::HOST && host.links.iter().flatten().next().is_some() {
        return Err(Error::invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ));
    }
    // Elsewhere it is a name that the other container may yet get.
    let known = matches!(
        host.network_mode.as_str(),
        "" | mode::DEFAULT | mode::BRIDGE | mode::NONE
    );
    for link in host.links.iter().flatten().filter(|_| known) {
        let target = link_parts(link).0;
        world
            .containers
            .find(target)
            .map_err(|error| Error::invalid(format!("could not get container for {target}: {}", error.message)))?;
    }
    Ok(())
}

/// The containers that this one is linked to have to run.
pub(super) fn check(record: &Record, world: &World) -> Result<()> {
    for (other, alias) in targets(record, world) {
        let other = &other.record;
        if !other.run.status.is_live() {
            return Err(Error::new(
                Kind::Internal,
                format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.name, record.name
                ),
            ));
        }
    }
    Ok(())
}

/// Variables before the container's own.
pub(super) fn environment(record: &Record, world: &World) -> Vec<String> {
    let mut env = Vec::new();
    // The container's own place there is not known yet.
    let bridge = world.networks.find(mode::BRIDGE).map(|network| network.id.clone());
    for (other, alias) in targets(record, world) {
        let other = &other.record;
        let there = |endpoint: &&Endpoint| bridge.as_ref().is_ok_and(|bridge| *bridge == endpoint.network_id);
        let address = other.endpoints.iter().find(there).and_then(|endpoint| endpoint.ip);
        let ports = address.map(|address| (address.to_string(), exposed(other)));
        env.extend(variables(&record.name, &alias, other, ports));
    }
    env
}

/// `/CHILD/ALIAS` for every link to a container, by that container's id: Docker lists them among its names.
pub(super) fn names(world: &World) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for handle in world.containers.all() {
        let snapshot = handle.snapshot();
        for (other, alias) in targets(&snapshot.record, world) {
            let name = format!("/{}/{alias}", snapshot.record.name);
            names.entry(other.record.id.clone()).or_default().push(name);
        }
    }
    names
}

/// As `inspect` shows them: `/TARGET:/CHILD/ALIAS`.
pub(super) fn shown(record: &Record, world: &World) -> Option<Vec<String>> {
    let links: Vec<String> = targets(record, world)
        .into_iter()
        .map(|(other, alias)| format!("/{}:/{}/{alias}", other.record.name, record.name))
        .collect();
    (!links.is_empty()).then_some(links)
}

/// The containers that are there, each alias once.
fn targets(record: &Record, world: &World) -> Vec<(Arc<Snapshot>, String)> {
    if kind_of(record) != mode::BRIDGE {
        return Vec::new();
    }
    let mut found: Vec<(Arc<Snapshot>, String)> = Vec::new();
    for link in record.host_config.links.iter().flatten() {
        let (target, alias) = link_parts(link);
        if let Ok(handle) = world.containers.find(target)
            && !found.iter().any(|(_, known)| known == alias)
        {
            found.push((handle.snapshot(), alias.to_owned()));
        }
    }
    found
}

fn exposed(record: &Record) -> Vec<Port> {
    let port = |text: &String| {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Some((u8::from(protocol != "tcp"), protocol.to_owned(), number.parse().ok()?))
    };
    let mut ports: Vec<Port> = record.config.exposed_ports.keys().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

fn variables(child: &str, alias: &str, other: &Record, ports: Option<(String, Vec<Port>)>) -> Vec<String> {
    let prefix = alias.to_uppercase().replace('-', "_");
    let mut env = Vec::new();
    if let Some((address, ports)) = ports {
        if let Some((_, protocol, number)) = ports.first() {
            env.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
        }
        for run in ports.chunk_by(|one, two| one.1 == two.1 && Some(two.2) == one.2.checked_add(1)) {
            let ([(_, protocol, first), _, .., (_, _, last)], 3..) = (run, run.len()) else {
                continue;
            };
            let name = format!("{prefix}_PORT_{first}_{}", protocol.to_uppercase());
            env.extend([
                format!("{name}_START={protocol}://{address}:{first}"),
                format!("{name}_PORT_START={first}"),
                format!("{name}_END={protocol}://{address}:{last}"),
                format!("{name}_PORT_END={last}"),
            ]);
        }
        for (_, protocol, number) in &ports {
            let name = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
            env.extend([
                format!("{name}={protocol}://{address}:{number}"),
                format!("{name}_ADDR={address}"),
                format!("{name}_PORT={number}"),
                format!("{name}_PROTO={protocol}"),
            ]);
        }
    }
    env.push(format!("{prefix}_NAME=/{child}/{alias}"));
    for (name, value) in other
        .config
        .env
        .iter()
        .flatten()
        .filter_map(|entry| entry.split_once('='))
    {
        if !matches!(name, "HOME" | "PATH") {
            env.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    env
}
