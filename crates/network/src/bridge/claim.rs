//! One attach: an address, a veth, its configuration inside. What is dropped before it is complete goes back.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use ferry_netlink::Route;
use ferry_netlink::route::{Change, Gateway, LinkId, Peer, Request, Veth};

use super::{Bridge, State};
use crate::endpoint::{self, Attach, Endpoint, INTERFACE, NAMED};
use crate::ipam::Ipam;
use crate::namespace::{self, Namespace};
use crate::sysctl::Sysctls;
use crate::{Error, Mac, Result};

/// From Linux 6.8 the first look finds the link operational. Before, the kernel's worker needs a moment, and if it needs
/// more than this in all, the container starts anyway.
const LOOKS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_micros(250);

/// What an attach has been given and not yet made good use of: dropped, it goes back.
struct Claim<'a> {
    bridge: &'a Bridge,
    endpoint: Endpoint,
    index: u32,
    ipv6: bool,
    kept: bool,
}

impl Bridge {
    pub(super) fn connect(&self, namespace: &mut Namespace, attach: Attach) -> Result<Endpoint> {
        let ipv6 = attach.ipv6;
        let mut claim = self.claim(attach)?;
        claim.make_link(namespace.fd.as_fd())?;
        claim.configure(&mut namespace.route)?;
        claim.wait_until_operational()?;
        if ipv6 {
            namespace::inside(namespace.fd.as_fd(), || {
                Sysctls::open()?
                    .write(&format!("ipv6/conf/{INTERFACE}/disable_ipv6"), "0")
                    .map(drop)
            })?;
        }
        claim.kept = true;
        Ok(claim.endpoint.clone())
    }

    /// Takes an address, with the bridge made if it is not there yet.
    fn claim(&self, attach: Attach) -> Result<Claim<'_>> {
        let mut state = self.lock();
        if state.ready.is_none() {
            self.set_up(&mut state, None)?;
        }
        let State {
            ready: Some(ready),
            ipam: Some(ipam),
            ..
        } = &mut *state
        else {
            return Err(Error::Taken {
                name: self.config.name.clone(),
            });
        };
        let endpoint_id = new_id(ipam)?;
        let ip = ipam.allocate(attach.ip, &endpoint_id)?;
        let endpoint = Endpoint {
            network_id: self.config.network_id.clone(),
            id: attach.id,
            hostname: attach.hostname,
            ip,
            prefix: ready.addressing.subnet.prefix(),
            gateway: ready.addressing.gateway,
            mac: attach.mac.unwrap_or(Mac::of(ip)),
            host_ifname: endpoint::host_name(&endpoint_id),
            endpoint_id,
        };
        Ok(Claim {
            bridge: self,
            endpoint,
            index: ready.index,
            ipv6: ready.ipv6,
            kept: false,
        })
    }
}

impl Claim<'_> {
    /// The pair, with its host end a port of the bridge and up: one send. A bridge that somebody deleted is made again.
    fn make_link(&mut self, netns: BorrowedFd<'_>) -> Result<()> {
        let mut state = self.bridge.lock();
        let Err(error) = self.try_link(&mut state.route, netns) else {
            return Ok(());
        };
        if state.route.link(&LinkId::Index(self.index))?.is_some() {
            return Err(error.into());
        }
        self.bridge.set_up(&mut state, None)?;
        self.index = state.ready.as_ref().ok_or(error)?.index;
        Ok(self.try_link(&mut state.route, netns)?)
    }

    fn try_link(&self, route: &mut Route, netns: BorrowedFd<'_>) -> ferry_netlink::Result<()> {
        let alias = self.endpoint.alias();
        let name = &self.endpoint.host_ifname;
        let peer = Peer {
            name: INTERFACE,
            mac: Some(self.endpoint.mac.0),
            netns,
        };
        let veth = Veth {
            name,
            mtu: self.bridge.config.mtu,
            master: Some(self.index),
            peer,
        };
        let change = Change {
            up: Some(true),
            alias: Some(&alias),
            without_link_local: self.ipv6,
            ..Change::default()
        };
        let link = LinkId::Name(name);
        let mut results = route.submit(&[Request::CreateVeth(veth), Request::ChangeLink { link, change }])?;
        let changed = results.pop().unwrap_or(Ok(()));
        results.into_iter().collect::<ferry_netlink::Result<()>>()?;
        if changed.is_err() {
            // It may not have its alias yet, by which a clean-up would know it.
            let _ = route.run(&[Request::DeleteLink(link)]);
        }
        changed
    }

    /// The host end was up before the container's, without a carrier; until the kernel has noticed that it has one now,
    /// the bridge forwards nothing to it, and a first packet would be lost and sent again a second later.
    fn wait_until_operational(&self) -> Result<()> {
        for _ in 0..LOOKS {
            let link = self
                .bridge
                .lock()
                .route
                .link(&LinkId::Name(&self.endpoint.host_ifname))?;
            if link.is_none_or(|link| link.operational) {
                break;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Address, link up, default route, from inside.
    fn configure(&self, route: &mut Route) -> Result<()> {
        let missing = || Error::Namespace {
            operation: "find eth0 in",
            source: std::io::ErrorKind::NotFound.into(),
        };
        let link = route.link(&LinkId::Name(INTERFACE))?.ok_or_else(missing)?.index;
        let gateway = Some(self.endpoint.gateway.into());
        let change = Change {
            up: Some(true),
            ..Change::default()
        };
        Ok(route.run(&[
            Request::AddAddress {
                link,
                address: self.endpoint.ip.into(),
                prefix: self.endpoint.prefix,
            },
            Request::ChangeLink {
                link: LinkId::Index(link),
                change,
            },
            Request::AddRoute(Gateway {
                destination: None,
                gateway,
                link: Some(link),
            }),
        ])?)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // The reason of the failure is on its way to the caller; a second one would say no more.
            let _ = self.bridge.detach(&self.endpoint);
        }
    }
}

/// An id whose host end has a name of its own.
fn new_id(ipam: &Ipam) -> Result<String> {
    let failed = |source| Error::Namespace {
        operation: "name an endpoint of",
        source,
    };
    loop {
        let id = endpoint::random_id().map_err(failed)?;
        if !ipam.holders().any(|holder| holder.get(..NAMED) == id.get(..NAMED)) {
            return Ok(id);
        }
    }
}
