//! One attach: addresses, a link, its configuration inside. What is dropped before it is complete goes back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::MutexGuard;
use std::time::Duration;

use ferry_netlink::Route;
use ferry_netlink::route::{Change, Gateway, LinkId, Peer, Port, Request, Veth};
use rustix::io::Errno;

use super::{Fabric, State};
use crate::endpoint::{self, Attach, Endpoint, NAMED, way_out};
use crate::namespace::{self, Namespace};
use crate::network::{Bridge, Driver, check_link_name};
use crate::sysctl::Sysctls;
use crate::{Error, Mac, Result};

/// From Linux 6.8 the first look finds the link operational. Before, the kernel's worker needs a moment, and if it needs
/// more than this in all, the container starts anyway.
const LOOKS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_micros(250);

/// What an attach has been given and not yet made good use of: dropped, it goes back.
struct Claim<'a> {
    fabric: &'a Fabric,
    endpoint: Endpoint,
    /// Of the host's link.
    index: u32,
    mtu: u32,
    more: Vec<IpAddr>,
    sysctls: Vec<(String, String)>,
    /// The bridge's: what the container need not ask for.
    gateway_mac: Option<Mac>,
    /// It shall not reach other ports of its bridge.
    isolated: bool,
    kept: bool,
}

impl Fabric {
    /// An interface for each request, in their order, in a namespace that has those of `present` already.
    pub(super) fn join(
        &self,
        namespace: &mut Namespace,
        attaches: Vec<Attach>,
        present: &[Endpoint],
    ) -> Result<Vec<Endpoint>> {
        let mut names: BTreeSet<String> = present.iter().map(|endpoint| endpoint.ifname.clone()).collect();
        let mut claims = Vec::with_capacity(attaches.len());
        for attach in attaches {
            let (id, limits) = (attach.id.clone(), attach.limits);
            claims.push(self.claim(attach, &mut names)?);
            self.lock().note_limits(&id, limits)?;
        }
        let all: Vec<_> = present
            .iter()
            .chain(claims.iter().map(|claim| &claim.endpoint))
            .cloned()
            .collect();
        let out = [way_out(&all, false), way_out(&all, true)].map(|out| out.map(|out| out.endpoint_id.clone()));
        for claim in &mut claims {
            claim.make_link(namespace)?;
            let out = out
                .each_ref()
                .map(|out| out.as_ref() == Some(&claim.endpoint.endpoint_id));
            // With others there, a way out may have to be replaced: done below, with what is there.
            claim.configure(namespace, if present.is_empty() { out } else { [false; 2] })?;
        }
        for claim in &claims {
            claim.finish_port()?;
        }
        if !present.is_empty() {
            set_way_out(&mut namespace.route, &all)?;
        }
        Ok(claims.into_iter().map(Claim::keep).collect())
    }

    /// Takes addresses and a name, with the network made if it is not there yet.
    fn claim(&self, attach: Attach, names: &mut BTreeSet<String>) -> Result<Claim<'_>> {
        let mut state = self.lock();
        let index = self.ensure(&mut state, &attach.network)?;
        let net = state
            .networks
            .get_mut(&attach.network)
            .ok_or_else(|| Error::NoNetwork {
                id: attach.network.clone(),
            })?;
        net.check_limits(&attach.limits)?;
        let ifname = match attach.ifname {
            Some(name) => {
                check_link_name(&name)?;
                if names.contains(&name) || name == "lo" {
                    return Err(Error::Taken { name });
                }
                name
            }
            None => {
                let numbered = (0..=names.len()).map(|number| format!("{}{number}", net.network.prefix));
                numbered
                    .into_iter()
                    .find(|name| !names.contains(name))
                    .unwrap_or_default()
            }
        };
        let endpoint_id = loop {
            let id = endpoint::random_id().map_err(|source| Error::Namespace {
                operation: "name an endpoint of",
                source,
            })?;
            // Its host end has a name of its own.
            if !net.endpoints.keys().any(|other| other.get(..NAMED) == id.get(..NAMED)) {
                break id;
            }
        };
        let v4 = net.allocate(false, attach.ip.map(IpAddr::V4), &endpoint_id)?;
        let v6 = match net.allocate(true, attach.ip6.map(IpAddr::V6), &endpoint_id) {
            Ok(v6) => v6,
            Err(error) => {
                if let Some((address, _)) = v4 {
                    net.release(address, &endpoint_id);
                }
                return Err(error);
            }
        };
        names.insert(ifname.clone());
        let ip = v4.and_then(|(address, _)| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        let ip6 = v6.and_then(|(address, _)| match address {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        });
        let derived = || {
            ip.map(Mac::of)
                .or(ip6.map(Mac::of_v6))
                .unwrap_or(Mac([0x02, 0x46, 0, 0, 0, 2]))
        };
        let endpoint = Endpoint {
            network_id: attach.network,
            id: attach.id,
            hostname: attach.hostname,
            ip,
            prefix: v4.map_or(0, |(_, prefix)| prefix),
            gateway: match net.network.way_out(false) {
                Some(IpAddr::V4(gateway)) => Some(gateway),
                _ => None,
            },
            ip6,
            prefix6: v6.map_or(0, |(_, prefix)| prefix),
            gateway6: match net.network.way_out(true) {
                Some(IpAddr::V6(gateway)) => Some(gateway),
                _ => None,
            },
            mac: attach.mac.unwrap_or_else(derived),
            host_ifname: match net.has_bridge() {
                true => endpoint::host_name(&endpoint_id),
                false => String::new(),
            },
            ifname,
            priority: attach.priority,
            endpoint_id,
        };
        net.endpoints.insert(endpoint.endpoint_id.clone(), endpoint.clone());
        Ok(Claim {
            fabric: self,
            endpoint,
            index,
            mtu: net.network.mtu,
            more: attach.more,
            sysctls: attach.sysctls,
            gateway_mac: net.has_bridge().then(|| super::raise::mac(&net.network)),
            isolated: net.is_isolated(),
            kept: false,
        })
    }
}

impl Claim<'_> {
    fn keep(mut self) -> Endpoint {
        self.kept = true;
        self.endpoint.clone()
    }

    /// The pair, with its host end a port of the bridge and up: one send. A bridge that somebody deleted is made again.
    fn make_link(&mut self, namespace: &Namespace) -> Result<()> {
        let mut state = self.fabric.lock();
        let netns = namespace.fd.as_fd();
        let driver = state
            .networks
            .get(&self.endpoint.network_id)
            .map(|net| net.network.driver.clone());
        let driver = driver.ok_or_else(|| Error::NoNetwork {
            id: self.endpoint.network_id.clone(),
        })?;
        if !matches!(driver, Driver::Bridge(_)) {
            return super::wire::make(&mut state.route, &driver, self.index, &self.endpoint, self.mtu, netns);
        }
        let Err(error) = self.try_veth(&mut state, netns) else {
            return self.limit(state);
        };
        if error.errno() == Some(Errno::XFULL)
            && let Driver::Bridge(Bridge { link, .. }) = driver
        {
            let net = state.networks.get(&self.endpoint.network_id);
            let name = net.map_or_else(String::new, |net| net.network.name.clone());
            return Err(Error::Full { name, link });
        }
        if state.route.link(&LinkId::Index(self.index))?.is_some() {
            return Err(error.into());
        }
        self.fabric.set_up(&mut state, false)?;
        self.index = self.fabric.ensure(&mut state, &self.endpoint.network_id)?;
        self.try_veth(&mut state, netns)?;
        self.limit(state)
    }

    /// A link of a container with a limit comes up when it is limited.
    fn limit(&self, mut state: MutexGuard<'_, State>) -> Result<()> {
        if !state.limits.contains_key(&self.endpoint.id) {
            return Ok(());
        }
        let unused = self.fabric.hold(&mut state, &self.endpoint.id)?.unused;
        let change = Change {
            up: Some(true),
            ..Change::default()
        };
        let link = LinkId::Name(&self.endpoint.host_ifname);
        state.route.run(&[Request::ChangeLink { link, change }])?;
        drop(state);
        self.fabric.remove_queues(&unused)
    }

    fn try_veth(&self, state: &mut State, netns: BorrowedFd<'_>) -> ferry_netlink::Result<()> {
        let alias = self.endpoint.alias();
        let name = &self.endpoint.host_ifname;
        let peer = Peer {
            name: &self.endpoint.ifname,
            mac: Some(self.endpoint.mac.0),
            netns,
        };
        let veth = Veth {
            name,
            mtu: self.mtu,
            master: Some(self.index),
            peer,
        };
        let change = Change {
            up: (!state.limits.contains_key(&self.endpoint.id)).then_some(true),
            alias: Some(&alias),
            without_link_local: state.ipv6,
            ..Change::default()
        };
        let link = LinkId::Name(name);
        let route = &mut state.route;
        let mut requests = vec![Request::CreateVeth(veth)];
        if self.isolated {
            let port = Port {
                isolated: Some(true),
                ..Port::default()
            };
            let change = Change {
                port,
                ..Change::default()
            };
            requests.push(Request::ChangeLink { link, change });
        }
        requests.extend(self.endpoint.addresses().map(|(address, _)| Request::AddNeighbour {
            link: self.index,
            address,
            mac: self.endpoint.mac.0,
        }));
        requests.push(Request::ChangeLink { link, change });
        let mut results = route.submit(&requests)?;
        let changed = results.pop().unwrap_or(Ok(()));
        results.into_iter().collect::<ferry_netlink::Result<()>>()?;
        if changed.is_err() {
            // It may not have its alias yet, by which a clean-up would know it.
            let _ = route.run(&[Request::DeleteLink(link)]);
        }
        changed
    }

    /// Fixes the container's address to its port, and waits until that is seen to work.
    ///
    /// The host end was up before the container's, without a carrier; until the kernel has noticed that it has one now,
    /// the bridge forwards nothing to it, and a first packet would be lost and sent again a second later. The same holds for
    /// the bridge whose first port this is, and for what the host sends through it.
    fn finish_port(&self) -> Result<()> {
        if self.endpoint.host_ifname.is_empty() {
            return Ok(());
        }
        let mut fixed = false;
        for _ in 0..LOOKS {
            let mut state = self.fabric.lock();
            let Some(link) = state.route.link(&LinkId::Name(&self.endpoint.host_ifname))? else {
                break;
            };
            if !std::mem::replace(&mut fixed, true) {
                // Its address is behind this port, whatever another container sends.
                let (port, mac) = (link.index, self.endpoint.mac.0);
                state.route.run(&[Request::AddForward { port, mac }])?;
            }
            let bridge = match link.operational {
                true => state.route.link(&LinkId::Index(self.index))?,
                false => Some(link),
            };
            drop(state);
            if bridge.is_none_or(|bridge| bridge.operational) {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Addresses, link up, default routes, from inside.
    fn configure(&self, namespace: &mut Namespace, out: [bool; 2]) -> Result<()> {
        let endpoint = &self.endpoint;
        let name = &endpoint.ifname;
        if endpoint.ip6.is_some() || !self.sysctls.is_empty() {
            namespace::inside(namespace.fd.as_fd(), || {
                let sysctls = Sysctls::open()?;
                if endpoint.ip6.is_some() {
                    sysctls.write(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
                }
                for (key, value) in &self.sysctls {
                    sysctls.write(&key.replace("IFNAME", name), value)?;
                }
                Ok(())
            })?;
        }
        let missing = || Error::Namespace {
            operation: "find the new interface in",
            source: std::io::ErrorKind::NotFound.into(),
        };
        let route = &mut namespace.route;
        let link = route.link(&LinkId::Name(name))?.ok_or_else(missing)?.index;
        let change = Change {
            up: Some(true),
            ..Change::default()
        };
        let more = self
            .more
            .iter()
            .map(|address| (*address, if address.is_ipv4() { 16 } else { 64 }));
        let mut requests: Vec<_> = endpoint
            .addresses()
            .chain(more)
            // Ferry knows who has which address: nobody need be asked, and waited for.
            .map(|(address, prefix)| Request::ReplaceAddress {
                link,
                address,
                prefix,
                undetected: true,
            })
            .collect();
        requests.push(Request::ChangeLink {
            link: LinkId::Index(link),
            change,
        });
        for v6 in [false, true] {
            if let Some(gateway) = endpoint.gateway(v6).filter(|_| out[usize::from(v6)]) {
                requests.push(default_route(gateway, link));
            }
        }
        if let Some(Mac(mac)) = self.gateway_mac {
            let gateways = [false, true].into_iter().filter_map(|v6| endpoint.gateway(v6));
            requests.extend(gateways.map(|address| Request::AddNeighbour { link, address, mac }));
        }
        Ok(route.run(&requests)?)
    }
}

fn default_route<'a>(gateway: IpAddr, link: u32) -> Request<'a> {
    Request::AddRoute(Gateway {
        destination: None,
        gateway: Some(gateway),
        link: Some(link),
    })
}

/// Makes the default routes in a namespace lead where they should, with these endpoints there. Routes that are not over
/// a gateway of theirs are somebody else's.
pub(super) fn set_way_out(route: &mut Route, endpoints: &[Endpoint]) -> Result<()> {
    let routes = route.routes()?;
    for v6 in [false, true] {
        let wanted = match way_out(endpoints, v6) {
            Some(endpoint) => {
                let link = route.link(&LinkId::Name(&endpoint.ifname))?;
                endpoint.gateway(v6).zip(link.map(|link| link.index))
            }
            None => None,
        };
        let is = |found: &ferry_netlink::route::Destination| {
            found.gateway.filter(|gateway| gateway.is_ipv6() == v6).zip(found.link)
        };
        let found: Vec<_> = routes
            .iter()
            .filter(|route| route.destination.is_none())
            .filter_map(is)
            .collect();
        if wanted.is_some_and(|wanted| found == [wanted]) {
            continue;
        }
        for (gateway, link) in found {
            let old = Gateway {
                destination: None,
                gateway: Some(gateway),
                link: Some(link),
            };
            crate::apply::gone_is_fine(route.run(&[Request::DeleteRoute(old)]))?;
        }
        if let Some((gateway, link)) = wanted {
            route.run(&[default_route(gateway, link)])?;
        }
    }
    Ok(())
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // The reason of the failure is on its way to the caller; a second one would say no more.
            let _ = self.fabric.detach(&self.endpoint);
        }
    }
}
