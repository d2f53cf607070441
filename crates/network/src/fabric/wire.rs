//! Endpoints that are on the wire of a link of the host's: macvlan and ipvlan.

use std::os::fd::BorrowedFd;

use ferry_netlink::Route;
use ferry_netlink::route::{Child, IpvlanMode, Kind, MacvlanMode, Request};

use crate::endpoint::Endpoint;
use crate::network::{Driver, Ipvlan, Macvlan};
use crate::{Error, Result};

/// Makes the endpoint's interface in `netns`, on the link with that index.
pub(super) fn make(
    route: &mut Route,
    driver: &Driver,
    parent: u32,
    endpoint: &Endpoint,
    mtu: u32,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    let (kind, mac, missing) = match driver {
        Driver::Bridge(_) => return Ok(()),
        Driver::Macvlan { mode, .. } => {
            let mode = match mode {
                Macvlan::Bridge => MacvlanMode::Bridge,
                Macvlan::Private => MacvlanMode::Private,
                Macvlan::Vepa => MacvlanMode::Vepa,
                Macvlan::Passthru => MacvlanMode::Passthru,
            };
            (Kind::Macvlan { parent, mode }, Some(endpoint.mac.0), "macvlan")
        }
        Driver::Ipvlan { mode, .. } => {
            let mode = match mode {
                Ipvlan::L2 => IpvlanMode::L2,
                Ipvlan::L3 => IpvlanMode::L3,
                Ipvlan::L3s => IpvlanMode::L3s,
            };
            (Kind::Ipvlan { parent, mode }, None, "ipvlan")
        }
    };
    let child = Child {
        name: &endpoint.ifname,
        kind,
        mac,
        mtu: Some(mtu).filter(|mtu| *mtu != 0),
        netns: Some(netns),
    };
    match route.run(&[Request::CreateChild(child)]) {
        Err(error) if error.is_unknown_kind() => Err(Error::Missing {
            what: missing,
            instead: "use a bridge network, or load the module",
        }),
        done => Ok(done?),
    }
}
