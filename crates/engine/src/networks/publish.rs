//! Published ports: from the request's port map to what is published, and back to what is shown.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ferry_api::container::{PortBinding, PortMap, PortSummary};
use ferry_api::network::{HeldPort, HoldingContainer, HoldingProcess};
use ferry_network::ports::{Mapping, Owner, Protocol, Publish, Socket};
use ferry_supervise::{Relay, RelayProtocol};

use crate::container::Record;
use crate::error::{Error, Result};

/// The most ports that one container may publish; each is looked at more than once.
const MOST: usize = 65_536;

/// What the container asks to be published.
pub(crate) fn requests(record: &Record) -> Result<Vec<Publish>> {
    let host = &record.host_config;
    let mut requests = of_map(host.port_bindings.as_ref())?;
    if host.publish_all_ports {
        for port in record.config.exposed_ports.keys() {
            let (protocol, first, last) = port_key(port)?;
            let has = |known: &Publish| {
                known.protocol == protocol && (known.container.0..=known.container.1).contains(&first)
            };
            for port in first..=last {
                if !requests.iter().any(has) {
                    requests.push(Publish {
                        protocol,
                        container: (port, port),
                        host: None,
                        address: None,
                    });
                }
            }
        }
    }
    Ok(joined(requests))
}

/// What a port map of the API asks for.
pub(crate) fn of_map(map: Option<&PortMap>) -> Result<Vec<Publish>> {
    let mut requests = Vec::new();
    for (port, bindings) in map.into_iter().flatten() {
        let (protocol, first, last) = port_key(port)?;
        let empty = [PortBinding::default()];
        let bindings = match bindings.as_deref() {
            None | Some([]) => &empty[..],
            Some(bindings) => bindings,
        };
        for binding in bindings {
            requests.push(Publish {
                protocol,
                container: (first, last),
                host: host_port(&binding.host_port)?,
                address: match binding.host_ip.as_str() {
                    "" => None,
                    text => Some(
                        text.trim_start_matches('[')
                            .trim_end_matches(']')
                            .parse()
                            .map_err(|_| Error::invalid(format!("invalid host IP address {text:?} of port {port}")))?,
                    ),
                },
            });
        }
        if requests.len() > MOST {
            return Err(Error::invalid(format!("more than {MOST} ports are published")));
        }
    }
    Ok(requests)
}

/// `80/tcp`, `80`, `80-82/udp`.
fn port_key(text: &str) -> Result<(Protocol, u16, u16)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let wrong = || Error::invalid(format!("invalid port specification: {text:?}"));
    let protocol = Protocol::parse(protocol).map_err(|_| Error::invalid(format!("invalid proto: {protocol}")))?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    match first != 0 && first <= last {
        true => Ok((protocol, first, last)),
        false => Err(wrong()),
    }
}

fn host_port(text: &str) -> Result<Option<(u16, u16)>> {
    let wrong = || {
        Error::invalid(format!(
            "invalid host port {text:?}: want a number or a range like 8000-8010"
        ))
    };
    let (first, last) = match text {
        "" | "0" => return Ok(None),
        text => text.split_once('-').unwrap_or((text, text)),
    };
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    match first != 0 && first <= last {
        true => Ok(Some((first, last))),
        false => Err(wrong()),
    }
}

/// Ports that follow each other on both sides become a range: the command line sends each one of a range by itself.
fn joined(mut requests: Vec<Publish>) -> Vec<Publish> {
    // Those that lead equally far come one after the other, whatever else their container's ports are published as.
    requests.sort_by_key(|request| {
        let distance = request
            .host
            .map(|host| i32::from(host.0) - i32::from(request.container.0));
        (
            request.protocol,
            request.address,
            distance,
            request.container.0,
            request.host,
        )
    });
    let mut all: Vec<Publish> = Vec::new();
    for request in requests {
        let follows = |before: &Publish| {
            let next = |one: (u16, u16), other: (u16, u16)| one.1.checked_add(1) == Some(other.0);
            let even = |publish: &Publish, host: (u16, u16)| {
                host.1 - host.0 == publish.container.1.wrapping_sub(publish.container.0)
            };
            let hosts = match (before.host, request.host) {
                (Some(one), Some(other)) => next(one, other) && even(before, one) && even(&request, other),
                (None, None) => true,
                _ => false,
            };
            before.protocol == request.protocol
                && before.address == request.address
                && next(before.container, request.container)
                && hosts
        };
        match all.last_mut().filter(|before| follows(before)) {
            Some(before) => {
                before.container.1 = request.container.1;
                before.host = before.host.zip(request.host).map(|(one, other)| (one.0, other.1));
            }
            None => all.push(request),
        }
    }
    all
}

/// As `inspect` shows them: exposed ones without a binding too.
pub(crate) fn shown(record: &Record) -> PortMap {
    let mut map: PortMap = BTreeMap::new();
    if !record.run.status.is_live() {
        return map;
    }
    for port in record.config.exposed_ports.keys() {
        let key = if port.contains('/') {
            port.clone()
        } else {
            format!("{port}/tcp")
        };
        map.insert(key, None);
    }
    for mapping in &record.ports {
        for step in 0..mapping.count {
            let key = format!("{}/{}", mapping.to_port.saturating_add(step), mapping.protocol);
            let binding = PortBinding {
                host_ip: mapping.address.to_string(),
                host_port: match mapping.is_routed() {
                    true => String::new(),
                    false => mapping.port.saturating_add(step).to_string(),
                },
            };
            map.entry(key).or_default().get_or_insert_default().push(binding);
        }
    }
    map
}

/// As container lists show them.
pub(crate) fn summary(record: &Record) -> Vec<PortSummary> {
    let mut list = Vec::new();
    for (port, bindings) in shown(record) {
        let Ok((protocol, private_port, _)) = port_key(&port) else {
            continue;
        };
        let entry = |ip: &str, public_port| PortSummary {
            ip: ip.to_owned(),
            private_port,
            public_port,
            r#type: protocol.name().to_owned(),
        };
        match bindings {
            None => list.push(entry("", 0)),
            Some(bindings) => list.extend(
                bindings
                    .iter()
                    .map(|binding| entry(&binding.host_ip, binding.host_port.parse().unwrap_or(0))),
            ),
        }
    }
    list
}

/// The same ports again, for an endpoint of another address.
pub(crate) fn again(mappings: &[Mapping]) -> Vec<Publish> {
    let request = |mapping: &Mapping| Publish {
        protocol: mapping.protocol,
        container: (
            mapping.to_port,
            mapping.to_port.saturating_add(mapping.count.saturating_sub(1)),
        ),
        host: (!mapping.is_routed()).then(|| (mapping.port, mapping.last())),
        address: Some(mapping.address),
    };
    mappings.iter().map(request).collect()
}

/// What the container's shim shall listen at.
pub(crate) fn relays(mappings: &[Mapping]) -> Vec<Relay> {
    let relays = |mapping: &Mapping| {
        let protocol = match mapping.protocol {
            Protocol::Tcp => Some(RelayProtocol::Tcp),
            Protocol::Udp => Some(RelayProtocol::Udp),
            Protocol::Sctp => None,
        };
        let relay = move |(listen, to)| {
            Some(Relay {
                protocol: protocol?,
                listen,
                to,
            })
        };
        mapping.relays().filter_map(relay).collect::<Vec<_>>()
    };
    mappings.iter().flat_map(relays).collect()
}

/// A socket of the host's, and whose it is.
pub(crate) type Owned = (Socket, Option<Owner>);

pub(crate) fn with_owners(sockets: Vec<Socket>, owners: &[Owner]) -> Vec<Owned> {
    let owner = |socket: &Socket| owners.iter().find(|owner| owner.inode == socket.inode).cloned();
    let listening = sockets.into_iter().filter(|socket| !socket.connected);
    listening
        .map(|socket| (owner(&socket), socket))
        .map(|(owner, socket)| (socket, owner))
        .collect()
}

/// The list of `ferry ports`: published ports by container, then what processes of the host are bound to.
pub(crate) fn held(published: &[(String, Mapping)], sockets: &[Owned], name: impl Fn(&str) -> String) -> Vec<HeldPort> {
    let process = |(socket, owner): &Owned| HoldingProcess {
        pid: owner.as_ref().map_or(0, |owner| owner.pid),
        name: owner.as_ref().map(|owner| owner.name.clone()).unwrap_or_default(),
        uid: socket.uid,
    };
    let protocol = |socket: &Socket| match socket.protocol {
        ferry_network::ports::SocketProtocol::Tcp => Protocol::Tcp,
        ferry_network::ports::SocketProtocol::Udp => Protocol::Udp,
        ferry_network::ports::SocketProtocol::Sctp => Protocol::Sctp,
    };
    let mut seen = vec![false; sockets.len()];
    let mut all = Vec::new();
    for (id, mapping) in published.iter().filter(|(_, mapping)| !mapping.is_routed()) {
        let relays: HashSet<_> = mapping.relays().map(|(listen, _)| listen).collect();
        let mut in_the_way = None;
        for (index, (socket, _)) in sockets.iter().enumerate() {
            let meets = protocol(socket) == mapping.protocol
                && (mapping.port..=mapping.last()).contains(&socket.port)
                && socket.takes(mapping.address);
            // Those of the container's shim are no others'.
            let own = relays.contains(&SocketAddr::new(socket.address, socket.port));
            if meets && (own || in_the_way.is_none()) {
                seen[index] = true;
                in_the_way = in_the_way.or((!own).then_some(index));
            }
        }
        all.push(HeldPort {
            host_ip: mapping.address.to_string(),
            host_port: mapping.port,
            host_port_end: mapping.last(),
            protocol: mapping.protocol.name().to_owned(),
            container: Some(HoldingContainer {
                id: id.clone(),
                name: name(id),
                port: mapping.to_port,
            }),
            process: in_the_way.and_then(|index| sockets.get(index)).map(process),
        });
    }
    for (owned, _) in sockets.iter().zip(seen).filter(|(_, seen)| !seen) {
        let socket = &owned.0;
        all.push(HeldPort {
            host_ip: socket.address.to_string(),
            host_port: socket.port,
            host_port_end: socket.port,
            protocol: protocol(socket).name().to_owned(),
            container: None,
            process: Some(process(owned)),
        });
    }
    all
}

/// What is left of the mapping after orders to publish no more: one without a host port is about every one of the container's.
pub(crate) fn without(mapping: &Mapping, remove: &[Publish]) -> Vec<Mapping> {
    let about = |publish: &&Publish| {
        publish.protocol == mapping.protocol && publish.address.is_none_or(|address| address == mapping.address)
    };
    let remove: Vec<_> = remove.iter().filter(about).collect();
    let mut left: Vec<Mapping> = Vec::new();
    for step in 0..mapping.count {
        let to_port = mapping.to_port.saturating_add(step);
        let port = match mapping.is_routed() {
            true => mapping.port,
            false => mapping.port.saturating_add(step),
        };
        let goes = remove.iter().any(|publish| {
            (publish.container.0..=publish.container.1).contains(&to_port)
                && publish.host.is_none_or(|host| (host.0..=host.1).contains(&port))
        });
        if goes {
            continue;
        }
        match left
            .last_mut()
            .filter(|left| left.to_port.checked_add(left.count) == Some(to_port))
        {
            Some(left) => left.count += 1,
            None => left.push(Mapping {
                port,
                to_port,
                count: 1,
                ..*mapping
            }),
        }
    }
    left
}

/// Takes bindings out of a port map.
pub(crate) fn subtract(map: &mut PortMap, remove: &[Publish]) -> Result<()> {
    for (port, bindings) in map.iter_mut() {
        let (protocol, first, last) = port_key(port)?;
        let goes = |binding: &PortBinding| {
            remove.iter().any(|publish| {
                publish.protocol == protocol
                    && publish.container.0 <= first
                    && last <= publish.container.1
                    && (publish.host.is_none() || host_port(&binding.host_port).ok() == Some(publish.host))
                    && publish
                        .address
                        .is_none_or(|address| binding.host_ip == address.to_string())
            })
        };
        if let Some(bindings) = bindings {
            bindings.retain(|binding| !goes(binding));
        }
    }
    map.retain(|_, bindings| bindings.as_ref().is_none_or(|bindings| !bindings.is_empty()));
    Ok(())
}

/// `0.0.0.0:8080`, as in messages.
pub(crate) fn place(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &[(&str, &str)])]) -> PortMap {
        let binding = |(ip, port): &(&str, &str)| PortBinding {
            host_ip: (*ip).to_owned(),
            host_port: (*port).to_owned(),
        };
        entries
            .iter()
            .map(|(key, bindings)| ((*key).to_owned(), Some(bindings.iter().map(binding).collect())))
            .collect()
    }

    #[test]
    fn ports_that_follow_each_other_are_one_range() {
        let each: Vec<(String, String)> = (0..1_000)
            .map(|n| (format!("{}/udp", 10_000 + n), format!("{}", 20_000 + n)))
            .collect();
        let map: PortMap = each
            .iter()
            .map(|(key, host)| {
                let binding = PortBinding {
                    host_ip: String::new(),
                    host_port: host.clone(),
                };
                (key.clone(), Some(vec![binding]))
            })
            .collect();
        let requests = joined(of_map(Some(&map)).unwrap());
        assert_eq!(requests.len(), 1);
        assert_eq!(
            (requests[0].container, requests[0].host),
            ((10_000, 10_999), Some((20_000, 20_999)))
        );
    }

    #[test]
    fn two_ranges_that_lead_to_the_same_ports_are_two() {
        let map: PortMap = (0..1_000)
            .map(|n| {
                let binding = |port: i32| PortBinding {
                    host_ip: String::new(),
                    host_port: port.to_string(),
                };
                (
                    format!("{}/udp", 10_000 + n),
                    Some(vec![binding(10_000 + n), binding(30_000 + n)]),
                )
            })
            .collect();
        let requests = joined(of_map(Some(&map)).unwrap());
        let hosts: Vec<_> = requests.iter().filter_map(|request| request.host).collect();
        assert_eq!(hosts, [(10_000, 10_999), (30_000, 30_999)]);
    }

    #[test]
    fn ports_are_taken_out_of_a_range() {
        let mapping = Mapping {
            protocol: Protocol::Tcp,
            address: "0.0.0.0".parse().unwrap(),
            port: 8000,
            to: "172.17.0.2".parse().unwrap(),
            to_port: 80,
            count: 10,
            relayed: false,
            near: false,
        };
        let publish = |container, host| Publish {
            protocol: Protocol::Tcp,
            container,
            host,
            address: None,
        };
        let left = |remove: &[Publish]| -> Vec<_> {
            let left = without(&mapping, remove);
            left.iter().map(|left| (left.port, left.to_port, left.count)).collect()
        };
        assert_eq!(left(&[]), [(8000, 80, 10)]);
        assert_eq!(left(&[publish((83, 84), None)]), [(8000, 80, 3), (8005, 85, 5)]);
        assert_eq!(left(&[publish((80, 80), Some((8000, 8000)))]), [(8001, 81, 9)]);
        assert_eq!(left(&[publish((80, 80), Some((9000, 9000)))]), [(8000, 80, 10)]);
        assert_eq!(left(&[publish((1, 100), None)]), []);
    }

    #[test]
    fn what_does_not_follow_stays_apart() {
        let several: [(&str, &[(&str, &str)]); 4] = [
            ("80/tcp", &[("", "8080"), ("127.0.0.1", "81")]),
            ("81/tcp", &[("", "8082")]),
            ("82/udp", &[("", "8083")]),
            ("83/tcp", &[("", "")]),
        ];
        assert_eq!(joined(of_map(Some(&map(&several))).unwrap()).len(), 5);
    }

    #[test]
    fn bad_ports_are_named() {
        for (key, host, ip) in [
            ("0/tcp", "", ""),
            ("x/tcp", "", ""),
            ("80/foo", "", ""),
            ("80/tcp", "99999", ""),
            ("80/tcp", "9-8", ""),
            ("80/tcp", "", "nope"),
        ] {
            let wrong: [(&str, &[(&str, &str)]); 1] = [(key, &[(ip, host)])];
            assert!(of_map(Some(&map(&wrong))).is_err(), "{key} {host} {ip}");
        }
    }
}
