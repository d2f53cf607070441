//! Publishing ports, and taking them back.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;

use ferry_netlink::Route;
use ferry_netlink::conntrack::{Conntrack, Flows};
use ferry_netlink::diag::Sockets;
use ferry_netlink::route::{Change, LinkId, Port, Request};

use super::{Fabric, State};
use crate::endpoint::Endpoint;
use crate::firewall::{self, Parts};
use crate::namespace;
use crate::network::Gateway;
use crate::ports::{Bound, Mapping, Protocol, Publish, Ways};
use crate::sysctl::Sysctls;
use crate::{Error, Result};

/// Lets a container reach itself by a port that it published: on hosts whose bridges ask the firewall
/// (`net.bridge.bridge-nf-call-iptables`), such a packet is never routed, but sent back by the port it came from.
fn hairpin(route: &mut Route, host_end: &str) -> ferry_netlink::Result<()> {
    let port = Port {
        hairpin: Some(true),
        ..Port::default()
    };
    let change = Change {
        port,
        ..Change::default()
    };
    let link = LinkId::Name(host_end);
    route.run(&[Request::ChangeLink { link, change }])
}

/// Whether programs in the thread's network namespace can listen at IPv6 addresses.
fn listens_v6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Whether what passes a bridge meets the firewall of IPv4, and of IPv6, in the thread's network namespace (br_netfilter). What
/// is translated there is not routed, but handed to the bridge's port, which gives nothing to another that is apart.
fn filter_bridged() -> Result<(bool, bool)> {
    let sysctls = Sysctls::open()?;
    let on = |key| sysctls.read(key).map(|value| value.is_some_and(|value| value != "0"));
    Ok((
        on("bridge/bridge-nf-call-iptables")?,
        on("bridge/bridge-nf-call-ip6tables")?,
    ))
}

/// Packets to an address that is none of the thread's network namespace would never meet the rules.
fn check_local(requests: &[Publish]) -> Result<()> {
    let mut last = None;
    for request in requests {
        let is_special = |address: &IpAddr| address.is_unspecified() || address.is_loopback();
        let address = request.address.filter(|address| !is_special(address));
        let Some(address) = address.filter(|address| last != Some(*address)) else {
            continue;
        };
        last = Some(address);
        if UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable) {
            let port = request.host.map_or(0, |host| host.0);
            return Err(Error::NotLocal { address, port });
        }
    }
    Ok(())
}

impl Fabric {
    /// Publishes ports of an endpoint for `holder`. All or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::PortTaken`], with who has it; [`Error::NoPort`]; [`Error::NotLocal`]; [`Error::Invalid`] for ranges that do
    /// not fit.
    pub fn publish(&self, holder: &str, endpoint: &Endpoint, requests: &[Publish]) -> Result<Vec<Mapping>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        // The kernel is asked each time: it alone knows what is bound, and no socket need be held for what is not.
        let (bound, listens_v6, filters) = namespace::inside(self.host.as_fd(), || {
            check_local(requests)?;
            Ok((Sockets::open()?.bound()?, listens_v6(), filter_bridged()?))
        })?;
        let bound: Vec<_> = bound
            .iter()
            .filter(|socket| !socket.connected)
            .map(Bound::from)
            .collect();
        let mut state = self.lock();
        let State { networks, ports, .. } = &mut *state;
        let net = networks.get(&endpoint.network_id).ok_or_else(|| Error::NoNetwork {
            id: endpoint.network_id.clone(),
        })?;
        let (network, apart) = (&net.network, net.is_isolated());
        let Some(bridge) = network.bridge() else {
            // Such containers are neighbours of the host's, and need nothing of it.
            return Ok(Vec::new());
        };
        let mode = |v6| network.gateway_mode(v6);
        let translated = |v6| matches!(mode(v6), Gateway::Nat | Gateway::Open) && !network.internal;
        let requests: Vec<_> = requests
            .iter()
            .map(|request| Publish {
                address: request.address.or(bridge.binding),
                ..request.clone()
            })
            .collect();
        let ways = Ways {
            v4: endpoint.ip.filter(|_| translated(false)),
            v6: endpoint.ip6.filter(|_| translated(true)),
            relay: self.config.relay,
            listens_v6,
            near: (apart && filters.0, apart && filters.1),
        };
        let routed: Vec<_> = endpoint
            .addresses()
            .filter(|(address, _)| mode(address.is_ipv6()) == Gateway::Routed)
            .flat_map(|(address, _)| requests.iter().map(move |request| Mapping::routed(request, address)))
            .collect();
        let mut mappings = ports.take(holder, &requests, &ways, &bound)?;
        ports.adopt(holder, &routed);
        let translated: Vec<_> = mappings.iter().copied().filter(Mapping::is_translated).collect();
        let near = firewall::near(&[network], &translated);
        let amended = match state.up && (!translated.is_empty() || !routed.is_empty()) {
            true => state.wall.amend(&firewall::addition(
                &self.config.table,
                &Parts {
                    ports: &translated,
                    routed: &routed,
                    near: &near,
                    ..Parts::default()
                },
            )),
            false => Ok(()),
        };
        let hairpin = match translated.is_empty() {
            true => Ok(()),
            false => hairpin(&mut state.route, &endpoint.host_ifname),
        };
        mappings.extend(routed);
        if amended.is_err() || hairpin.is_err() {
            // Host or table are not as we left them: once more, with everything.
            state.wall.suspect();
            if let Err(error) = self.set_up(&mut state, false) {
                state.ports.release(holder, &mappings);
                return Err(error);
            }
        }
        self.forget_flows(&mappings);
        Ok(mappings)
    }

    /// UDP has no connections: what the kernel remembers of a port would go on to where it led before.
    fn forget_flows(&self, mappings: &[Mapping]) {
        self.forget(&flows_of(mappings));
    }

    fn forget(&self, flows: &[Flows]) {
        if flows.is_empty() {
            return;
        }
        // A flow that is remembered all the same ends by itself when it is not used for a while.
        let _ = namespace::inside(self.host.as_fd(), || Ok(Conntrack::open()?.forget(flows)?));
    }

    /// What an endpoint sent over UDP goes on to get answers for a while: who has its address next is not to get them.
    pub(super) fn forget_questions(&self, endpoint: &Endpoint) {
        let flows = endpoint.addresses().map(|(address, _)| Flows {
            protocol: Some(Protocol::Udp.number()),
            asked_by: Some(address),
            destination: None,
            ports: None,
            answered_by: None,
        });
        self.forget(&flows.collect::<Vec<_>>());
    }

    /// Takes ports back whose container has ended, and ends the connections to them: who has its address next is not reached
    /// by clients of this one. Fine if they are gone.
    pub fn close(&self, holder: &str, mappings: &[Mapping]) -> Result<()> {
        let done = self.unpublish(holder, mappings);
        let mut flows: Vec<_> = mappings
            .iter()
            .filter(|mapping| !mapping.is_routed())
            .map(|mapping| Flows {
                protocol: None,
                asked_by: None,
                destination: None,
                ports: None,
                answered_by: Some(mapping.to),
            })
            .collect();
        flows.dedup();
        self.forget(&flows);
        done
    }

    /// Takes ports back; connections that are there go on. Fine if they are gone.
    pub fn unpublish(&self, holder: &str, mappings: &[Mapping]) -> Result<()> {
        self.reduce(holder, mappings, &[])
    }

    /// Takes ports back but for `left`, which is part of them: that never stops to be published.
    pub fn reduce(&self, holder: &str, mappings: &[Mapping], left: &[Mapping]) -> Result<()> {
        if mappings.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        state.ports.release(holder, mappings);
        state.ports.adopt(holder, left);
        if !state.up {
            return Ok(());
        }
        let kinds = |mappings: &[Mapping]| -> (Vec<_>, Vec<_>) {
            let of = |belongs: fn(&Mapping) -> bool| mappings.iter().copied().filter(belongs).collect();
            (of(Mapping::is_routed), of(Mapping::is_translated))
        };
        let ((routed, ports), (routed_left, ports_left)) = (kinds(mappings), kinds(left));
        if routed.is_empty() && ports.is_empty() {
            return Ok(());
        }
        let table = &self.config.table;
        let networks: Vec<_> = state.networks.values().map(|net| &net.network).collect();
        let near = |ports| firewall::near(&networks, ports);
        let (near, near_left) = (near(&ports), near(&ports_left));
        let parts = |ports, routed, near| Parts {
            ports,
            routed,
            near,
            ..Parts::default()
        };
        let mut batch = firewall::subtraction(table, &parts(&ports, &routed, &near));
        let addition = firewall::addition(table, &parts(&ports_left, &routed_left, &near_left));
        batch.commands.extend(addition.commands);
        if state.wall.amend(&batch).is_err() {
            state.wall.suspect();
            self.set_up(&mut state, false)?;
        }
        drop(state);
        self.forget_flows(mappings);
        Ok(())
    }

    /// The host's sockets that have a port.
    pub fn sockets(&self) -> Result<Vec<ferry_netlink::diag::Bound>> {
        namespace::inside(self.host.as_fd(), || Ok(Sockets::open()?.bound()?))
    }

    /// Every published port, with who has it.
    pub fn published(&self) -> Vec<(String, Mapping)> {
        let state = self.lock();
        state
            .ports
            .of(None)
            .map(|(who, mapping)| (who.to_owned(), *mapping))
            .collect()
    }
}

/// The flows to these ports that have no end of their own: of UDP. Ports that follow each other are one range.
fn flows_of(mappings: &[Mapping]) -> Vec<Flows> {
    let udp = |mapping: &&Mapping| mapping.protocol == Protocol::Udp && mapping.is_translated();
    let mut ports: Vec<_> = mappings
        .iter()
        .filter(udp)
        .map(|mapping| (mapping.address, mapping.port, mapping.last()))
        .collect();
    ports.sort_unstable();
    ports.dedup_by(|next, before| {
        let follows = next.0 == before.0 && next.1 <= before.2.saturating_add(1);
        if follows {
            before.2 = before.2.max(next.2);
        }
        follows
    });
    let flows = |(address, first, last): (IpAddr, u16, u16)| Flows {
        protocol: Some(Protocol::Udp.number()),
        asked_by: None,
        destination: Some(address).filter(|address| !address.is_unspecified()),
        ports: Some(first..=last),
        answered_by: None,
    };
    ports.into_iter().map(flows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_follow_each_other_are_forgotten_as_one_range() {
        let mapping = |protocol, port, count| Mapping {
            protocol,
            address: "0.0.0.0".parse().unwrap(),
            port,
            to: "172.17.0.2".parse().unwrap(),
            to_port: port,
            count,
            relayed: false,
            near: false,
        };
        let mut mappings: Vec<_> = (1..=1000).rev().map(|port| mapping(Protocol::Udp, port, 1)).collect();
        mappings.extend([
            mapping(Protocol::Udp, 1001, 10),
            mapping(Protocol::Udp, 2000, 1),
            mapping(Protocol::Tcp, 1, 1),
        ]);
        let ranges: Vec<_> = flows_of(&mappings)
            .into_iter()
            .filter_map(|flows| flows.ports)
            .collect();
        assert_eq!(ranges, [1..=1010, 2000..=2000]);
    }
}
