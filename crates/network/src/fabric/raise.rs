//! The host's side of the networks: made when first needed, made again when it is gone, removed in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::AsFd as _;

use ferry_netlink::Route;
use ferry_netlink::route::{Link, LinkId, Port, Request};

use super::{Fabric, NEIGHBOURS_A_SEND, State};
use crate::endpoint::ALIAS;
use crate::firewall::{self, Firewall};
use crate::ipam::{self, Addresses};
use crate::network::{Driver, Gateway, LINK_PREFIX, Network, overlap};
use crate::plan::{BridgeLink, Desired, Observed, Place, Plan, Step, plan, raise};
use crate::ports::Mapping;
use crate::{Error, Mac, Result, apply, foreign, namespace};

impl Fabric {
    /// The index of the network's link on the host, made if it is not there yet.
    pub(super) fn ensure(&self, state: &mut State, id: &str) -> Result<u32> {
        let net = state
            .networks
            .get(id)
            .ok_or_else(|| Error::NoNetwork { id: id.to_owned() })?;
        if let (Some(index), true) = (net.index, state.up) {
            return Ok(index);
        }
        if net.network.bridge().is_none() {
            return self.find_parent(state, id);
        }
        self.choose_again(state, id)?;
        let net = state
            .networks
            .get_mut(id)
            .ok_or_else(|| Error::NoNetwork { id: id.to_owned() })?;
        let was_wanted = std::mem::replace(&mut net.wanted, true);
        let network = net.network.clone();
        let first_v6 = network.has(true) && !forwards_v6(state, id);
        let done = if !state.up || first_v6 || self.raise_one(state, &network).is_err() {
            // As we left it, it is without this network.
            state.wall.suspect();
            self.set_up(state, false).map(drop)
        } else {
            Ok(())
        };
        let net = state
            .networks
            .get_mut(id)
            .ok_or_else(|| Error::NoNetwork { id: id.to_owned() })?;
        let lost = || Error::Taken {
            name: network.link().to_owned(),
        };
        match (done, net.index) {
            (Ok(()), Some(index)) => Ok(index),
            (Ok(()), None) => Err(lost()),
            (Err(error), _) => {
                net.wanted = was_wanted;
                Err(error)
            }
        }
    }

    /// One more bridge, beside those that stand: looks at nothing but it.
    fn raise_one(&self, state: &mut State, network: &Network) -> Result<()> {
        let wanted = bridge_link(network);
        let link = state.route.link(&LinkId::Name(&wanted.name))?;
        let addresses = match &link {
            Some(_) => state.route.addresses()?,
            None => Vec::new(),
        };
        let observed = Observed {
            links: link.into_iter().collect(),
            addresses,
            ..Observed::default()
        };
        let plan = raise(&observed, &wanted)?;
        state
            .wall
            .amend(&firewall::addition(&self.config.table, &parts(&[network])))?;
        let State {
            route, record, wall, ..
        } = state;
        let applied = namespace::inside(self.host.as_fd(), || apply::apply(&plan, route, record, wall));
        if let Err(error) = applied {
            let _ = state
                .wall
                .amend(&firewall::subtraction(&self.config.table, &parts(&[network])));
            return Err(error);
        }
        let index = state.route.link(&LinkId::Name(&wanted.name))?.map(|link| link.index);
        if let Some(net) = state.networks.get_mut(&network.id) {
            net.index = index;
        }
        // One with a name of its own needs a rule of its own.
        if !network.link().starts_with(LINK_PREFIX) {
            self.admit(state);
        }
        Ok(())
    }

    /// Takes one network from the firewall. Returns the index of its bridge, where it is there, which is to be deleted.
    pub(super) fn lower(&self, state: &mut State, id: &str) -> Result<Option<u32>> {
        let Some(net) = state.networks.get_mut(id) else {
            return Ok(None);
        };
        let in_table = std::mem::take(&mut net.wanted) && state.up;
        net.index = None;
        let network = net.network.clone();
        if network.bridge().is_none() {
            return Ok(None);
        }
        let alias = format!("{ALIAS}{}", network.id);
        let found = state.route.link(&LinkId::Name(network.link()))?;
        let ours = found.filter(|link| link.alias.as_ref() == Some(&alias));
        if in_table
            && state
                .wall
                .amend(&firewall::subtraction(&self.config.table, &parts(&[&network])))
                .is_err()
        {
            // Not as we left it: made anew, without this one.
            state.wall.suspect();
            self.set_up(state, false)?;
        }
        Ok(ours.map(|link| link.index))
    }

    fn find_parent(&self, state: &mut State, id: &str) -> Result<u32> {
        let net = state
            .networks
            .get(id)
            .ok_or_else(|| Error::NoNetwork { id: id.to_owned() })?;
        let name = net.network.link();
        let found = state.route.link(&LinkId::Name(name))?;
        found.map(|link| link.index).ok_or_else(|| Error::Unusable {
            what: format!("network {}", net.network.name),
            reason: format!("its parent interface {name} does not exist on this host"),
        })
    }

    /// An automatic network nobody is on gets another subnet when the host has a use for its own now.
    fn choose_again(&self, state: &mut State, id: &str) -> Result<()> {
        let Some(net) = state.networks.get(id) else {
            return Ok(());
        };
        if !net.automatic || !net.is_unused() {
            return Ok(());
        }
        let network = net.network.clone();
        let alias = format!("{ALIAS}{}", network.id);
        let own = state.route.link(&LinkId::Name(network.link()))?;
        let own: Vec<_> = own
            .filter(|link| link.alias.as_ref() == Some(&alias))
            .map(|link| link.index)
            .into_iter()
            .collect();
        let used = ipam::in_the_way(apply::used_networks(&mut state.route, &own)?);
        let mut chosen = network;
        for range in &mut chosen.ranges {
            if used.iter().any(|used| overlap(used, &range.subnet)) {
                let used = state.in_the_way(&own)?;
                range.subnet = self.config.pools.choose(range.is_v6(), &used)?;
                range.gateway = Some(ipam::first(&range.subnet));
            }
        }
        if let Some(net) = state.networks.get_mut(id)
            && net.network != chosen
        {
            net.addresses = chosen.ranges.iter().cloned().map(Addresses::new).collect();
            net.network = chosen;
        }
        Ok(())
    }

    /// Removes all that is ours: what that is shows in names and aliases.
    pub(super) fn tear_down(&self, state: &mut State) -> Result<Plan> {
        state.up = false;
        let desired = Desired {
            bridges: Vec::new(),
            queues: BTreeSet::new(),
            firewall: None,
            ..self.desired(state, true)
        };
        for net in state.networks.values_mut() {
            net.index = None;
            net.wanted = false;
            net.addresses = net.network.ranges.iter().cloned().map(Addresses::new).collect();
            net.endpoints.clear();
        }
        state.ports = crate::ports::Ports::default();
        state.limits.clear();
        state.doomed.clear();
        state.obstacles = state.wall.admit(&[])?;
        self.change(state, desired)
    }

    /// Observes, plans, applies, and notes what came of it. With `prune`, host ends of endpoints nobody has go.
    pub(super) fn set_up(&self, state: &mut State, prune: bool) -> Result<Plan> {
        state.up = false;
        let mut desired = self.desired(state, prune);
        let plan = loop {
            match self.change(state, desired.clone()) {
                // Somebody else's link has a bridge's name: that network waits, and the others do not wait for it.
                Err(Error::Taken { name }) if desired.bridges.iter().any(|bridge| bridge.name == name) => {
                    desired.leave_out(&name);
                }
                done => break done?,
            }
        };
        let links = state.route.links()?;
        let changed: BTreeSet<&str> = plan.steps.iter().filter_map(Step::changed_bridge).collect();
        let State { networks, route, .. } = &mut *state;
        for net in networks.values_mut().filter(|net| net.wanted) {
            let name = net.network.link();
            let left_out = net.has_bridge() && !desired.bridges.iter().any(|bridge| bridge.name == name);
            let link = links.iter().find(|link| link.name == name && !left_out);
            net.index = link.map(|link| link.index);
            if changed.contains(name) {
                net.teach(route, &links)?;
            }
        }
        state.up = true;
        self.admit(state);
        Ok(plan)
    }

    /// Others' firewalls let our bridges pass, as far as they can be made to; what they cannot is kept for `info`.
    fn admit(&self, state: &mut State) {
        let wanted = state.networks.values().filter(|net| net.wanted).map(|net| &net.network);
        let links = foreign::links(wanted);
        state.obstacles = match state.wall.admit(&links) {
            Ok(obstacles) => obstacles,
            Err(error) => vec![format!("others' firewall chains cannot be looked at: {error}")],
        };
    }

    fn change(&self, state: &mut State, mut desired: Desired) -> Result<Plan> {
        let State {
            route, record, wall, ..
        } = state;
        namespace::inside(self.host.as_fd(), || {
            let observed = apply::observe(route, wall)?;
            *record = observed.recall(std::mem::take(record));
            desired.record = record.clone();
            let plan = plan(&observed, &desired)?;
            apply::apply(&plan, route, record, wall)?;
            Ok(plan)
        })
    }

    fn desired(&self, state: &State, prune: bool) -> Desired {
        let wanted: Vec<_> = state
            .networks
            .values()
            .filter(|net| net.wanted && net.network.bridge().is_some())
            .map(|net| net.network.clone())
            .collect();
        let mut endpoints = BTreeMap::new();
        for net in state.networks.values() {
            let link = net.network.link();
            let isolated = Some(net.is_isolated());
            endpoints.extend(net.endpoints.keys().map(|id| {
                let port = Port {
                    isolated,
                    ..Port::default()
                };
                let bridge = link.to_owned();
                (id.clone(), Place { bridge, port })
            }));
        }
        for (_, mapping) in state.ports.of(None).filter(|(_, mapping)| mapping.is_translated()) {
            let holder = state.networks.values().find_map(|net| net.holder(mapping.to));
            if let Some(place) = holder.and_then(|endpoint| endpoints.get_mut(endpoint)) {
                place.port.hairpin = Some(true);
            }
        }
        let ports: Vec<Mapping> = state.ports.of(None).map(|(_, mapping)| *mapping).collect();
        let routed = ports.iter().copied().filter(Mapping::is_routed).collect();
        let ports = ports.into_iter().filter(Mapping::is_translated).collect();
        Desired {
            bridges: wanted.iter().map(bridge_link).collect(),
            networks: state.networks.keys().cloned().collect(),
            forward: (
                self.config.forward && wanted.iter().any(|network| network.has(false)),
                self.config.forward && wanted.iter().any(|network| network.has(true)),
            ),
            firewall: Some(Firewall {
                table: self.config.table.clone(),
                networks: wanted,
                ports,
                routed,
                was_off: (false, false),
            }),
            table: self.config.table.clone(),
            endpoints,
            queues: state.queues(),
            prune,
            record: state.record.clone(),
        }
    }
}

/// True when another network has turned on all that IPv6 needs.
fn forwards_v6(state: &State, except: &str) -> bool {
    let mut others = state.networks.iter().filter(|(id, _)| *id != except);
    others.any(|(_, net)| net.index.is_some() && net.network.bridge().is_some() && net.network.has(true))
}

/// The bridge's, always the same, so that it does not change with its ports.
pub(super) fn mac(network: &Network) -> Mac {
    let of_gateway = network.ranges.iter().find_map(|range| match range.gateway? {
        IpAddr::V4(v4) => Some(Mac::of(v4)),
        IpAddr::V6(v6) => Some(Mac::of_v6(v6)),
    });
    of_gateway.unwrap_or(Mac([0x02, 0x46, 0, 0, 0, 1]))
}

fn bridge_link(network: &Network) -> BridgeLink {
    let addresses: Vec<(IpAddr, u8)> = network
        .ranges
        .iter()
        .filter(|range| network.gateway_mode(range.is_v6()) != Gateway::Isolated)
        .filter_map(|range| Some((range.gateway?, range.subnet.prefix_len())))
        .collect();
    BridgeLink {
        name: network.link().to_owned(),
        network_id: network.id.clone(),
        mac: mac(network),
        mtu: network.mtu,
        addresses,
    }
}

impl super::Net {
    /// True for a network whose endpoints have a host end.
    pub(super) fn has_bridge(&self) -> bool {
        matches!(self.network.driver, Driver::Bridge(_))
    }

    /// Gives the bridge what it has to know of its endpoints: which address each has, and behind which port. One that was
    /// made again, and a port that was elsewhere, have lost it.
    fn teach(&self, route: &mut Route, links: &[Link]) -> Result<()> {
        let Some(bridge) = self.index.filter(|_| self.has_bridge()) else {
            return Ok(());
        };
        let ports = links.iter().filter(|link| link.master == Some(bridge));
        let ports: HashMap<&str, u32> = ports.map(|port| (port.name.as_str(), port.index)).collect();
        let mut requests = Vec::new();
        for endpoint in self.endpoints.values() {
            // One that is on its way has no port yet, and brings all this itself.
            if let Some(port) = ports.get(endpoint.host_ifname.as_str()) {
                let mac = endpoint.mac.0;
                requests.push(Request::AddForward { port: *port, mac });
                let neighbour = |(address, _)| Request::AddNeighbour {
                    link: bridge,
                    address,
                    mac,
                };
                requests.extend(endpoint.addresses().map(neighbour));
            }
        }
        for some in requests.chunks(NEIGHBOURS_A_SEND) {
            route.submit(some)?.into_iter().try_for_each(apply::gone_is_fine)?;
        }
        Ok(())
    }

    /// True when its endpoints do not reach each other.
    pub(super) fn is_isolated(&self) -> bool {
        self.network.bridge().is_some_and(|bridge| !bridge.icc)
    }

    /// The endpoint that has an address.
    fn holder(&self, address: IpAddr) -> Option<&str> {
        self.addresses.iter().find_map(|addresses| addresses.holder(address))
    }
}

/// Networks alone.
fn parts<'a>(networks: &'a [&'a Network]) -> firewall::Parts<'a> {
    firewall::Parts {
        networks,
        ..firewall::Parts::default()
    }
}
