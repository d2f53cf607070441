//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_api::network::mode;
use ferry_image::Digest;

use super::handle::Snapshot;
use super::record::Record;
use crate::error::{Error, Result};
use crate::networks::{kind_of, link_parts};
use crate::world::World;

/// The files, by their names in the container's directory.
pub(crate) const NAMES: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// Writes the files for the start that is about to come. Returns the digest of resolv.conf, see [`renew`]; a container
/// that joins another one's network has that one's files, and none of its own.
pub(crate) fn write(record: &Record, dir: &Path, world: &World) -> Result<Option<Digest>> {
    if network_owner(record, world).is_some() {
        return Ok(None);
    }
    let failed =
        |error: std::io::Error| Error::internal(format!("write the container's files in {}", dir.display()), &error);
    let hostname = hostname(record, world);
    std::fs::write(dir.join("hostname"), format!("{hostname}\n")).map_err(failed)?;
    std::fs::write(dir.join("hosts"), hosts(record, &hostname, world)?).map_err(failed)?;
    let resolv = resolv_conf(record, world);
    std::fs::write(dir.join("resolv.conf"), &resolv).map_err(failed)?;
    if let Some(range) = record.ids {
        for name in NAMES {
            std::os::unix::fs::chown(dir.join(name), Some(range.start), Some(range.start)).map_err(failed)?;
        }
    }
    Ok(Some(Digest::of(&resolv)))
}

/// Writes what a container that never ran would have, for who looks at its files before.
pub(crate) fn prepare(record: &Record, world: &World) -> Result<()> {
    let dir = world.container_dir(&record.id);
    match NAMES.iter().all(|name| dir.join(name).exists()) {
        true => Ok(()),
        false => write(record, &dir, world).map(drop),
    }
}

/// Where one of the files is.
pub(crate) fn path(record: &Record, world: &World, name: &str) -> PathBuf {
    let owner = network_owner(record, world);
    let id = owner.as_ref().map_or(&record.id, |owner| &owner.record.id);
    world.container_dir(id).join(name)
}

/// The container whose network this one has joined.
fn network_owner(record: &Record, world: &World) -> Option<Arc<Snapshot>> {
    /// More in a row would be a circle.
    const MOST: usize = 16;
    let mut owner: Option<Arc<Snapshot>> = None;
    for _ in 0..MOST {
        let kind = kind_of(owner.as_ref().map_or(record, |owner| &owner.record));
        let Some(other) = kind.strip_prefix("container:") else {
            break;
        };
        owner = Some(world.containers.find(other).ok()?.snapshot());
    }
    owner
}

/// The host name the container sees.
pub(crate) fn hostname(record: &Record, world: &World) -> String {
    let owner = network_owner(record, world);
    let record = owner.as_ref().map_or(record, |owner| &owner.record);
    let host = &record.host_config;
    if host.uts_mode == "host" || (kind_of(record) == mode::HOST && record.config.hostname.is_empty()) {
        return world.host.hostname.clone();
    }
    match record.config.hostname.as_str() {
        "" => record.short_id().to_owned(),
        name => name.to_owned(),
    }
}

fn hosts(record: &Record, hostname: &str, world: &World) -> Result<String> {
    if kind_of(record) == mode::HOST
        && let Ok(text) = std::fs::read_to_string("/etc/hosts")
    {
        return Ok(text + &extra_hosts(record, world)?);
    }
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    text.push_str(&extra_hosts(record, world)?);
    text.push_str(&links(record, world));
    let names = match record.config.domainname.as_str() {
        "" => hostname.to_owned(),
        domain => format!("{hostname}.{domain} {hostname}"),
    };
    for (address, _) in record.endpoints.iter().flat_map(ferry_network::Endpoint::addresses) {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    Ok(text)
}

/// `--link CONTAINER:ALIAS`: where the other one is now.
fn links(record: &Record, world: &World) -> String {
    let lines = link_lines(record, world).into_iter();
    lines.map(|(ip, names)| format!("{ip}\t{names}\n")).collect()
}

fn link_lines(record: &Record, world: &World) -> Vec<(std::net::Ipv4Addr, String)> {
    let mut lines = Vec::new();
    for link in record.host_config.links.iter().flatten() {
        let (target, alias) = link_parts(link);
        let Ok(handle) = world.containers.find(target) else {
            continue;
        };
        let other = &handle.snapshot().record;
        let shared = |endpoint: &&ferry_network::Endpoint| {
            let mine = record.endpoints.iter().any(|own| own.network_id == endpoint.network_id);
            mine && endpoint.ip.is_some()
        };
        let found = other.endpoints.iter().find(shared).and_then(|endpoint| endpoint.ip);
        lines.extend(found.map(|ip| (ip, format!("{alias} {} {}", other.short_id(), other.name))));
    }
    lines
}

/// Where the containers that it is linked to are now, in a hosts file that the container may have changed otherwise.
pub(crate) fn renew_links(record: &Record, dir: &Path, world: &World) -> Result<()> {
    let lines = link_lines(record, world);
    if lines.is_empty() {
        return Ok(());
    }
    let failed = |error: std::io::Error| Error::internal("write the container's hosts file", &error);
    let path = dir.join("hosts");
    let before = std::fs::read_to_string(&path).map_err(failed)?;
    let mut text = before.clone();
    for (ip, names) in lines {
        let is_of = |line: &str| line.split_once('\t').is_some_and(|(_, found)| found == names);
        let kept: String = text
            .lines()
            .filter(|line| !is_of(line))
            .map(|line| format!("{line}\n"))
            .collect();
        text = format!("{kept}{ip}\t{names}\n");
    }
    match text == before {
        true => Ok(()),
        false => std::fs::write(path, text).map_err(failed),
    }
}

/// Writes resolv.conf again with the host's servers as they are now, unless the container or somebody else has changed the file
/// since it was written. Returns its digest.
pub(crate) fn renew(record: &Record, dir: &Path, world: &World) -> Result<Option<Digest>> {
    let Some(before) = record.run.resolv.clone() else {
        return Ok(None);
    };
    let failed = |error: std::io::Error| Error::internal("write the container's resolv.conf", &error);
    let path = dir.join("resolv.conf");
    let found = std::fs::read_to_string(&path).map_err(failed)?;
    if before != Digest::of(&found) {
        return Ok(Some(before));
    }
    let text = resolv_conf(record, world);
    if text != found {
        std::fs::write(path, &text).map_err(failed)?;
    }
    Ok(Some(Digest::of(&text)))
}

fn extra_hosts(record: &Record, world: &World) -> Result<String> {
    let mut text = String::new();
    for entry in record.host_config.extra_hosts.iter().flatten() {
        let split = entry.split_once('=').or_else(|| entry.split_once(':'));
        let (name, address) = split.ok_or_else(|| Error::invalid(format!("bad format for add-host: {entry:?}")))?;
        let gateway = ferry_network::way_out(&record.endpoints, false).and_then(|endpoint| endpoint.gateway);
        let gateway = gateway.map(IpAddr::V4).or_else(|| bridge_address(record, world));
        let configured = &world.config.host_gateways;
        let addresses = match (address, gateway) {
            ("host-gateway", _) if !configured.is_empty() => configured.iter().map(ToString::to_string).collect(),
            ("host-gateway", Some(gateway)) => vec![gateway.to_string()],
            ("host-gateway", None) => vec!["127.0.0.1".to_owned()],
            (address, _) => vec![address.to_owned()],
        };
        addresses
            .iter()
            .for_each(|address| text.push_str(&format!("{address}\t{name}\n")));
    }
    Ok(text)
}

/// The host's address on a network that leads nowhere.
fn bridge_address(record: &Record, world: &World) -> Option<IpAddr> {
    record.endpoints.iter().find_map(|endpoint| {
        let stored = world.networks.find(&endpoint.network_id).ok()?;
        let mut ranges = stored.network.as_ref()?.ranges.iter();
        ranges.find_map(|range| range.gateway.filter(IpAddr::is_ipv4))
    })
}

/// What of the files follows the container's networks, written in place: they are mounted in the container. Returns the digest
/// of resolv.conf.
pub(crate) fn refresh(record: &Record, dir: &Path, world: &World) -> Result<Digest> {
    let failed = |error: std::io::Error| Error::internal("write the container's hosts file", &error);
    std::fs::write(dir.join("hosts"), hosts(record, &hostname(record, world), world)?).map_err(failed)?;
    let resolv = resolv_conf(record, world);
    std::fs::write(dir.join("resolv.conf"), &resolv).map_err(failed)?;
    Ok(Digest::of(&resolv))
}

/// Its own resolver's address where it has one; else what `--dns` says, or the host's, without name servers that the container
/// cannot reach.
fn resolv_conf(record: &Record, world: &World) -> String {
    let on_host = world.networks.host.get();
    let asks = &record.host_config;
    let dns = on_host.asked(&asks.dns, &on_host.dns.servers);
    let search = on_host.asked(&asks.dns_search, &on_host.dns.search);
    let options = on_host.asked(&asks.dns_options, &on_host.dns.options);
    let asks_nothing = [dns, search, options].iter().all(Option::is_none);
    if kind_of(record) == mode::HOST && asks_nothing {
        return on_host.text.clone();
    }
    let resolver = on_host.needs_resolver(record);
    if !resolver && asks_nothing {
        return on_host.reachable();
    }
    let lines = |key: &str| -> Vec<String> {
        let found = on_host.text.lines().filter_map(|line| line.trim().strip_prefix(key));
        found.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let mut text = String::new();
    match (resolver, dns) {
        (true, _) => text.push_str(&format!("nameserver {}\n", ferry_network::resolver::ADDRESS)),
        (false, Some(servers)) => servers
            .iter()
            .for_each(|server| text.push_str(&format!("nameserver {server}\n"))),
        (false, None) => {
            let kept = on_host.reachable();
            let servers = kept.lines().filter(|line| line.trim().starts_with("nameserver"));
            servers.for_each(|line| text.push_str(&format!("{line}\n")));
        }
    }
    let search = match search {
        Some([none]) if none == "." => Vec::new(),
        Some(search) => search.to_vec(),
        None => lines("search"),
    };
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    let mut options = options.map_or_else(|| lines("options"), <[String]>::to_vec);
    if resolver && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}
