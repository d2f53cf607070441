//! Which networks a container is on, and what it asked of each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferry_api::container::HostConfig;
use ferry_api::network::{EndpointSettings, NetworkingConfig, mode};
use ferry_network::{Attach, Endpoint};

use super::stored::Stored;
use super::{Attacher, kind_of};
use crate::container::Record;
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// What a container asked of each of its networks, by the network's name, in the order in which it joins them.
pub(crate) type Wanted = BTreeMap<String, EndpointSettings>;

/// The networks of a container that is being created: each under its name, with what does not fit refused. A network
/// that does not exist is no error yet, as with Docker; the start says so.
pub(crate) fn of_request(
    attacher: &Attacher,
    host: &HostConfig,
    networking: Option<NetworkingConfig>,
) -> Result<Option<NetworkingConfig>> {
    let asked = networking
        .and_then(|networking| networking.endpoints_config)
        .unwrap_or_default();
    let mode = host.network_mode.as_str();
    let mut wanted = BTreeMap::new();
    if mode == mode::HOST || mode == mode::NONE || mode.starts_with("container:") {
        // The command line names the mode as a network.
        if let Some(other) = asked.keys().find(|name| *name != mode && *name != mode::DEFAULT) {
            return Err(Error::invalid(format!(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {mode} and {other}"
            )));
        }
        return Ok(None);
    }
    for (name, settings) in asked {
        let settings = settings.unwrap_or_default();
        let name = match name.as_str() {
            "" | mode::DEFAULT => mode::BRIDGE.to_owned(),
            _ => name,
        };
        let found = attacher.find(&name).ok();
        if let Some(network) = &found {
            check(network, &settings).map_err(|error| {
                Error::new(
                    error.kind,
                    format!("invalid config for network {name}: {}", error.message),
                )
            })?;
        }
        wanted.insert(found.map_or(name, |network| network.name.clone()), Some(settings));
    }
    let first = attacher
        .find(mode)
        .map_or_else(|_| mode.to_owned(), |network| network.name.clone());
    wanted.entry(first).or_insert_with(|| Some(EndpointSettings::default()));
    Ok(Some(NetworkingConfig {
        endpoints_config: Some(wanted),
    }))
}

/// That what is asked of the network can be had there, in Docker's words.
pub(crate) fn check(network: &Stored, settings: &EndpointSettings) -> Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let asked = [(&ipam.ipv4_address, "IPv4"), (&ipam.ipv6_address, "IPv6")];
    let builtin = network.name == mode::BRIDGE;
    if asked.iter().any(|(text, _)| !text.is_empty()) {
        if builtin {
            wrong.push("user specified IP address is supported on user defined networks only".to_owned());
        }
        for (text, family) in asked.into_iter().filter(|(text, _)| !text.is_empty()) {
            match text.parse::<IpAddr>() {
                Ok(address) if address.is_ipv4() == (family == "IPv4") => {
                    let ranges = network.network.iter().flat_map(|network| &network.ranges);
                    let unused = network.unused.iter().filter_map(|config| config.subnet.parse().ok());
                    let mut subnets = ranges
                        .map(|range| range.subnet)
                        .chain(unused)
                        .filter(|subnet| subnet.addr().is_ipv4() == address.is_ipv4());
                    match subnets.clone().next() {
                        None => wrong.push(format!("network {} has no subnet for {address}", network.name)),
                        Some(_) if subnets.any(|subnet| subnet.contains(&address)) => {}
                        Some(first) => wrong.push(format!(
                            "no configured subnet contains IP address {address}: network {} is {first}",
                            network.name
                        )),
                    }
                }
                _ => wrong.push(format!("invalid {family} address: {text}")),
            }
        }
    }
    if builtin && settings.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        wrong.push("network-scoped aliases are only supported for user-defined networks".to_owned());
    }
    for text in &ipam.link_local_ips {
        if text.parse::<IpAddr>().is_err() {
            wrong.push(format!("invalid link-local IP address: {text}"));
        }
    }
    if !settings.mac_address.is_empty() && settings.mac_address.parse::<ferry_network::Mac>().is_err() {
        wrong.push(format!("{} is not a valid mac address", settings.mac_address));
    }
    for key in settings.driver_opts.iter().flatten().map(|(key, _)| key) {
        // As with Docker, keys of others' are kept and shown; of its own, one that would do nothing is refused.
        if key.starts_with("com.docker.network.") && !matches!(key.as_str(), IFNAME | SYSCTLS) {
            wrong.push(format!("unknown option of the endpoint: {key}"));
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::invalid(format!("invalid endpoint settings:\n{one}"))),
        several => {
            let list: String = several.iter().map(|one| format!("\n* {one}")).collect();
            Err(Error::invalid(format!("invalid endpoint settings:{list}")))
        }
    }
}

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What the container wants; nothing for modes without a network of its own.
pub(crate) fn wanted(record: &Record) -> Wanted {
    let kind = kind_of(record);
    if kind == mode::HOST || kind == mode::NONE || kind.starts_with("container:") {
        return Wanted::new();
    }
    let asked = record
        .networking
        .as_ref()
        .and_then(|networking| networking.endpoints_config.as_ref());
    match asked {
        // A record of before there were networks of one's own.
        None => Wanted::from([(kind.to_owned(), EndpointSettings::default())]),
        // It may have left all of them.
        Some(asked) => asked
            .iter()
            .map(|(name, settings)| {
                let name = if name == mode::DEFAULT { mode::BRIDGE } else { name };
                (name.to_owned(), settings.clone().unwrap_or_default())
            })
            .collect(),
    }
}

/// The request to join one network.
pub(crate) fn attach(record: &Record, network: &Stored, settings: &EndpointSettings) -> Result<Attach> {
    let mac = match (settings.mac_address.as_str(), record.config.mac_address.as_str()) {
        ("", "") => None,
        ("", text) if kind_of(record) == network.name || kind_of(record) == network.id => Some(text),
        ("", _) => None,
        (text, _) => Some(text),
    };
    let mac = mac.map(|text| {
        text.parse()
            .map_err(|_| Error::invalid(format!("{text} is not a valid mac address")))
    });
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let address = |text: &str| match text {
        "" => Ok(None),
        text => text
            .parse::<IpAddr>()
            .map(Some)
            .map_err(|_| Error::invalid(format!("invalid IP address: {text}"))),
    };
    let options = settings.driver_opts.clone().unwrap_or_default();
    Ok(Attach {
        network: network.id.clone(),
        id: record.id.clone(),
        hostname: record.config.hostname.clone(),
        mac: mac.transpose()?,
        ip: match address(&ipam.ipv4_address)? {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        },
        ip6: match address(&ipam.ipv6_address)? {
            Some(IpAddr::V6(ip)) if network.enable_ipv6 => Some(ip),
            _ => None,
        },
        more: ipam
            .link_local_ips
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        ifname: options.get(IFNAME).cloned(),
        sysctls: match options.get(SYSCTLS) {
            Some(text) => sysctls(text)?,
            None => Vec::new(),
        },
        priority: settings.gw_priority,
        limits: super::limits::of_host(&record.host_config),
    })
}

/// `net.ipv4.conf.IFNAME.log_martians=1,…`, of the interface alone.
fn sysctls(text: &str) -> Result<Vec<(String, String)>> {
    let wrong = |entry: &str| {
        Error::invalid(format!(
            "invalid sysctl {entry:?} of an endpoint: want net.X.Y.IFNAME.Z=VALUE, where X is ipv4, ipv6 or mpls"
        ))
    };
    let mut all = Vec::new();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let (key, value) = entry.split_once('=').ok_or_else(|| wrong(entry))?;
        let parts: Vec<_> = key.split('.').collect();
        match parts.as_slice() {
            [
                "net",
                family @ ("ipv4" | "ipv6" | "mpls"),
                kind @ ("conf" | "neigh"),
                "IFNAME",
                name,
            ] if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                all.push((format!("{family}/{kind}/IFNAME/{name}"), value.to_owned()));
            }
            _ => return Err(wrong(entry)),
        }
    }
    Ok(all)
}

/// The names by which the network's DNS knows the container: its own, its aliases, its short id. None on the default
/// bridge.
pub(crate) fn dns_names(record: &Record, network: &str, settings: &EndpointSettings) -> Option<Vec<String>> {
    if network == mode::BRIDGE {
        return None;
    }
    let mut names = vec![record.name.clone()];
    let aliases = settings.aliases.iter().flatten().cloned();
    for name in aliases.chain([record.short_id().to_owned()]) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    if !record.config.hostname.is_empty() && !names.contains(&record.config.hostname) {
        names.push(record.config.hostname.clone());
    }
    Some(names)
}

/// A container's networks as `inspect` and `ps` show them.
pub(crate) fn shown(world: &World, record: &Record) -> BTreeMap<String, Option<EndpointSettings>> {
    let attacher = &world.networks;
    let live = record.run.status.is_live();
    let kind = kind_of(record);
    if kind == mode::HOST || kind == mode::NONE {
        let id = attacher
            .find(kind)
            .map(|network| network.id.clone())
            .unwrap_or_default();
        let settings = EndpointSettings {
            network_id: if live { id } else { String::new() },
            ..EndpointSettings::default()
        };
        return BTreeMap::from([(kind.to_owned(), Some(settings))]);
    }
    let started = record.run.started_at.is_some();
    let show = |(name, asked): (String, EndpointSettings)| {
        let network = attacher.find(&name).ok();
        let mut settings = EndpointSettings {
            dns_names: if started {
                dns_names(record, &name, &asked)
            } else {
                None
            },
            // The default bridge's is known while it runs only, as ever.
            network_id: match &network {
                Some(network) if live || (started && name != mode::BRIDGE) => network.id.clone(),
                _ => String::new(),
            },
            ..asked
        };
        let endpoint = record.endpoints.iter().find(|endpoint| {
            network
                .as_ref()
                .is_some_and(|network| network.id == endpoint.network_id)
        });
        if let (Some(endpoint), true) = (endpoint, live) {
            fill(&mut settings, endpoint);
        }
        (name, Some(settings))
    };
    wanted(record).into_iter().map(show).collect()
}

fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    settings.endpoint_id.clone_from(&endpoint.endpoint_id);
    settings.mac_address = endpoint.mac.to_string();
    settings.gateway = text(endpoint.gateway(false));
    settings.ip_address = text(endpoint.ip.map(IpAddr::V4));
    settings.ip_prefix_len = i64::from(endpoint.prefix);
    settings.ipv6_gateway = text(endpoint.gateway(true));
    settings.global_ipv6_address = text(endpoint.ip6.map(IpAddr::V6));
    settings.global_ipv6_prefix_len = i64::from(endpoint.prefix6);
}

/// Whether a container may join networks at all while it is there.
pub(crate) fn joinable(record: &Record, network: &Stored) -> Result<()> {
    let kind = kind_of(record);
    let refused = |text: String| Err(Error::new(Kind::Forbidden, text));
    if network.driver == "host" {
        return refused(
            "cannot connect container to host network - container must be created in host network mode".to_owned(),
        );
    }
    if network.config_only.is_some() {
        return refused(format!(
            "cannot connect to network {}: it is only a configuration for others (--config-only)",
            network.name
        ));
    }
    if kind == mode::HOST {
        return refused("cannot connect container to another network: it shares the host's".to_owned());
    }
    if kind.starts_with("container:") {
        return refused(
            "container sharing network namespace with another container or host cannot be connected to any other network"
                .to_owned(),
        );
    }
    if kind == mode::NONE || network.driver == "null" {
        return refused(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
                .to_owned(),
        );
    }
    Ok(())
}
