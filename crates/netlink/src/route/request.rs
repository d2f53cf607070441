//! The requests Ferry makes of rtnetlink, and how each is written.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::kind::Child;
use super::lanes::Part;
use super::path::Path;
use super::rate::{self, Tbf};
use super::redirect::{self, Direction};
use crate::wire::{self, Writer};
use crate::{Error, Result};

pub const NEW_LINK: u16 = 16;
pub const DEL_LINK: u16 = 17;
pub const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
const NEW_ADDRESS: u16 = 20;
pub const DEL_ADDRESS: u16 = 21;
pub const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
pub const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
pub const GET_NEIGHBOUR: u16 = 30;
const DEL_NEIGHBOUR: u16 = 29;

pub const INET: u8 = 2;
pub const INET6: u8 = 10;

pub const IFLA_ADDRESS: u16 = 1;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MTU: u16 = 4;
pub const IFLA_LINK: u16 = 5;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_STATS64: u16 = 23;
pub const IFLA_OPERSTATE: u16 = 16;
pub const IFLA_LINKINFO: u16 = 18;
pub const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
pub const IFLA_GROUP: u16 = 27;
pub const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NUM_TX_QUEUES: u16 = 31;
const IFLA_NUM_RX_QUEUES: u16 = 32;
pub const IFLA_INFO_KIND: u16 = 1;
pub const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
pub const IFF_UP: u32 = 1;

pub const IFA_ADDRESS: u16 = 1;
pub const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;

pub const RTA_DST: u16 = 1;
pub const RTA_OIF: u16 = 4;
pub const RTA_GATEWAY: u16 = 5;
pub const RTA_TABLE: u16 = 15;
pub const NDA_DST: u16 = 1;
/// NUD_PERMANENT.
pub const PERMANENT: u16 = 0x80;
const NDA_LLADDR: u16 = 2;

pub const MAIN: u8 = 254;
pub const BOOT: u8 = 3;
pub const UNICAST: u8 = 1;
pub const UNIVERSE: u8 = 0;
pub const LINK: u8 = 253;

/// `IFNAMSIZ` is 16 with the NUL, `IFALIASZ` 256.
const NAME_LENGTH: usize = 15;
const ALIAS_LENGTH: usize = 255;

/// Which link is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkId<'a> {
    Index(u32),
    Name(&'a str),
}

/// A bridge without spanning tree, whose ports forward at once.
#[derive(Debug, Clone, Copy)]
pub struct Bridge<'a> {
    pub name: &'a str,
    /// Fixed, so that it does not change with the ports that come and go.
    pub mac: [u8; 6],
    pub mtu: u32,
}

/// A veth pair, made in one request: this end here, the peer with its final name in another namespace.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub mtu: u32,
    /// Index of the bridge this end becomes a port of.
    pub master: Option<u32>,
    pub peer: Peer<'a>,
}

#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    pub name: &'a str,
    pub mac: Option<[u8; 6]>,
    pub netns: BorrowedFd<'a>,
}

/// What to change of a link; `None` leaves it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    pub up: Option<bool>,
    pub name: Option<&'a str>,
    pub alias: Option<&'a str>,
    pub mac: Option<[u8; 6]>,
    pub mtu: Option<u32>,
    /// A number by which several links can be removed at once; 0 at birth.
    pub group: Option<u32>,
    /// Index of the new master; `Some(0)` takes the link out of its bridge.
    pub master: Option<u32>,
    /// The network namespace it moves to, under the name given here. It goes down and loses its addresses.
    pub netns: Option<BorrowedFd<'a>>,
    /// True: the link gets no IPv6 link-local address of its own, and so asks no router. Fails with EAFNOSUPPORT on a
    /// kernel without IPv6.
    pub without_link_local: bool,
    /// Per-link IPv4 sysctls, which netlink can set without /proc.
    pub ipv4: &'a [(Ipv4Setting, u32)],
    /// What it does as a port of a bridge, which it must be already.
    pub port: Port,
}

/// How a bridge treats one of its ports; `None` leaves what it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Port {
    /// It exchanges frames with ports that are not isolated, and with the bridge itself, alone.
    pub isolated: Option<bool>,
    /// A frame may leave by the port it came in by.
    pub hairpin: Option<bool>,
    /// The bridge notes which addresses are behind it. Off, they have to be given, or frames to them go everywhere.
    pub learning: Option<bool>,
}

/// `IPV4_DEVCONF_*` of linux/ip.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ipv4Setting {
    Forwarding = 1,
    AcceptRedirects = 4,
    SendRedirects = 6,
    RpFilter = 8,
    ArpNotify = 22,
    RouteLocalnet = 26,
}

/// A route: to `destination` (`None`: the default route) over `gateway`, `link`, or both.
#[derive(Debug, Clone, Copy)]
pub struct Gateway {
    pub destination: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub enum Request<'a> {
    CreateBridge(Bridge<'a>),
    CreateVeth(Veth<'a>),
    ChangeLink {
        link: LinkId<'a>,
        change: Change<'a>,
    },
    DeleteLink(LinkId<'a>),
    /// Removes all links of the group, in the time that one takes.
    DeleteGroup(u32),
    AddAddress {
        link: u32,
        address: IpAddr,
        prefix: u8,
    },
    /// Adds the address or, where the link has it, gives it these properties. With `undetected` an IPv6 address is
    /// usable at once: nobody is asked whether it is taken (RFC 4862, duplicate address detection).
    ReplaceAddress {
        link: u32,
        address: IpAddr,
        prefix: u8,
        undetected: bool,
    },
    DeleteAddress {
        link: u32,
        address: IpAddr,
        prefix: u8,
    },
    /// Fails where a route to the same destination with the same metric exists.
    AddPath(Path),
    /// Takes the place of a route to the same destination with the same metric.
    ReplacePath(Path),
    DeletePath(Path),
    AddRoute(Gateway),
    DeleteRoute(Gateway),
    /// A link of its own kind, on another one or on none.
    CreateChild(Child<'a>),
    /// Limits what leaves by a link, instead of what limited it before. A limit that is there changes in place: nothing
    /// that waits in it is lost. With a smaller burst what waits may be larger than it, and then all waits for ever: delete
    /// it first.
    ReplaceRate {
        link: u32,
        rate: Tbf,
    },
    /// Removes the queueing discipline of a link.
    DeleteRate {
        link: u32,
    },
    /// A part of the lanes in the token bucket that [`Request::ReplaceRate`] made.
    Lanes {
        link: u32,
        part: Part,
    },
    /// Makes the place where a link's filters are; fails with EEXIST where there is one.
    AddFilters {
        link: u32,
    },
    /// Sends what the link sends or receives over another link first, which needs its place ([`Request::AddFilters`]).
    Redirect {
        link: u32,
        direction: Direction,
        to: u32,
    },
    DeleteRedirect {
        link: u32,
        direction: Direction,
    },
    /// Adds or replaces an entry that never expires and that no answer changes.
    AddNeighbour {
        link: u32,
        address: IpAddr,
        mac: [u8; 6],
    },
    DeleteNeighbour {
        link: u32,
        address: IpAddr,
    },
    /// The bridge that `port` belongs to sends frames for `mac` there, whoever else says that he has it.
    AddForward {
        port: u32,
        mac: [u8; 6],
    },
}

impl fmt::Display for LinkId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkId::Index(index) => write!(f, "#{index}"),
            LinkId::Name(name) => f.write_str(name),
        }
    }
}

impl Request<'_> {
    /// Verb and object, for errors.
    pub(super) fn describe(&self) -> (&'static str, String) {
        match self {
            Request::CreateBridge(bridge) => ("create bridge", bridge.name.to_owned()),
            Request::CreateVeth(veth) => ("create veth", veth.name.to_owned()),
            Request::ChangeLink { link, .. } => ("change link", link.to_string()),
            Request::DeleteLink(link) => ("delete link", link.to_string()),
            Request::DeleteGroup(group) => ("delete link group", group.to_string()),
            Request::AddAddress { address, prefix, .. } => ("add address", format!("{address}/{prefix}")),
            Request::DeleteAddress { address, prefix, .. } => ("delete address", format!("{address}/{prefix}")),
            Request::AddRoute(route) => ("add route to", route.to_string()),
            Request::DeleteRoute(route) => ("delete route to", route.to_string()),
            Request::CreateChild(child) => (child.kind.operation(), child.name.to_owned()),
            Request::ReplaceAddress { address, prefix, .. } => ("set address", format!("{address}/{prefix}")),
            Request::AddPath(path) => ("add route to", path.to_string()),
            Request::ReplacePath(path) => ("set route to", path.to_string()),
            Request::DeletePath(path) => ("delete route to", path.to_string()),
            Request::ReplaceRate { link, .. } => ("limit the rate of link", format!("#{link}")),
            Request::DeleteRate { link } => ("remove the limit of link", format!("#{link}")),
            Request::Lanes { link, part } => ("make lanes in the limit of link", format!("#{link} ({part:?})")),
            Request::AddFilters { link } => ("prepare for filters link", format!("#{link}")),
            Request::Redirect { link, to, .. } => ("redirect link", format!("#{link} to #{to}")),
            Request::DeleteRedirect { link, .. } => ("no longer redirect link", format!("#{link}")),
            Request::AddNeighbour { address, .. } => ("add neighbour", address.to_string()),
            Request::DeleteNeighbour { address, .. } => ("delete neighbour", address.to_string()),
            Request::AddForward { port, .. } => ("fix the address behind port", format!("#{port}")),
        }
    }

    pub(super) fn write(&self, w: &mut Writer, sequence: u32) -> Result<()> {
        let ask = wire::REQUEST | wire::ACK;
        let make = ask | wire::CREATE | wire::EXCL;
        let put = ask | wire::CREATE | wire::REPLACE;
        match self {
            Request::CreateBridge(bridge) => {
                check(bridge.name, NAME_LENGTH)?;
                w.message(NEW_LINK, make, sequence, |w| write_bridge(w, bridge));
            }
            Request::CreateVeth(veth) => {
                check(veth.name, NAME_LENGTH)?;
                check(veth.peer.name, NAME_LENGTH)?;
                w.message(NEW_LINK, make, sequence, |w| write_veth(w, veth));
            }
            Request::ChangeLink { link, change } => {
                check(change.name.unwrap_or("-"), NAME_LENGTH)?;
                check(change.alias.unwrap_or("-"), ALIAS_LENGTH)?;
                let head = Head::new(link, change.up)?;
                // Only NEWLINK reads what concerns a port; without CREATE it changes what is there, as SETLINK does.
                let kind = if change.port == Port::default() {
                    SET_LINK
                } else {
                    NEW_LINK
                };
                w.message(kind, ask, sequence, |w| {
                    head.write(w);
                    write_change(w, change);
                });
            }
            Request::DeleteLink(link) => {
                let head = Head::new(link, None)?;
                w.message(DEL_LINK, ask, sequence, |w| head.write(w));
            }
            Request::DeleteGroup(group) => w.message(DEL_LINK, ask, sequence, |w| {
                write_head(w, 0, None);
                w.u32(IFLA_GROUP, *group);
            }),
            Request::AddAddress { link, address, prefix } => {
                w.message(NEW_ADDRESS, make, sequence, |w| {
                    write_address(w, *link, *address, *prefix, 0);
                });
            }
            Request::ReplaceAddress {
                link,
                address,
                prefix,
                undetected,
            } => {
                const NODAD: u8 = 2;
                let flags = if *undetected && address.is_ipv6() { NODAD } else { 0 };
                w.message(NEW_ADDRESS, put, sequence, |w| {
                    write_address(w, *link, *address, *prefix, flags);
                });
            }
            Request::DeleteAddress { link, address, prefix } => {
                w.message(DEL_ADDRESS, ask, sequence, |w| {
                    write_address(w, *link, *address, *prefix, 0);
                });
            }
            Request::AddRoute(route) => w.message(NEW_ROUTE, make, sequence, |w| write_route(w, route)),
            Request::DeleteRoute(route) => w.message(DEL_ROUTE, ask, sequence, |w| write_route(w, route)),
            Request::AddPath(path) => w.message(NEW_ROUTE, make, sequence, |w| path.write(w)),
            Request::ReplacePath(path) => w.message(NEW_ROUTE, put, sequence, |w| path.write(w)),
            Request::DeletePath(path) => w.message(DEL_ROUTE, ask, sequence, |w| path.write(w)),
            Request::CreateChild(child) => {
                check(child.name, NAME_LENGTH)?;
                child.check()?;
                w.message(NEW_LINK, make, sequence, |w| child.write(w));
            }
            Request::ReplaceRate { link, rate } => {
                rate.check()?;
                w.message(rate::NEW_QDISC, put, sequence, |w| rate.write(w, *link));
            }
            Request::DeleteRate { link } => w.message(rate::DEL_QDISC, ask, sequence, |w| rate::head(w, *link)),
            Request::Lanes { link, part } => {
                let flags = if let Part::Limit(..) = part { put } else { make };
                w.message(part.kind(), flags, sequence, |w| part.write(w, *link));
            }
            Request::AddFilters { link } => {
                w.message(rate::NEW_QDISC, make, sequence, |w| redirect::write_place(w, *link));
            }
            Request::Redirect { link, direction, to } => {
                w.message(redirect::NEW_FILTER, make, sequence, |w| {
                    redirect::write(w, *link, *direction, *to);
                });
            }
            Request::DeleteRedirect { link, direction } => {
                w.message(redirect::DEL_FILTER, ask, sequence, |w| {
                    redirect::write_filter(w, *link, *direction);
                });
            }
            Request::AddNeighbour { link, address, mac } => w.message(NEW_NEIGHBOUR, put, sequence, |w| {
                w.put(&[family(*address), 0, 0, 0]);
                w.put(&link.to_ne_bytes());
                w.put(&PERMANENT.to_ne_bytes());
                w.put(&[0; 2]);
                put_ip(w, NDA_DST, *address);
                w.attribute(NDA_LLADDR, mac);
            }),
            Request::AddForward { port, mac } => w.message(NEW_NEIGHBOUR, put, sequence, |w| {
                const BRIDGE: u8 = 7;
                /// `NUD_NOARP`: an entry that does not age.
                const STATIC: u16 = 0x40;
                /// `NTF_MASTER | NTF_STICKY`: the master's, and it stays at its port.
                const FLAGS: u8 = 0x04 | 0x40;
                w.put(&[BRIDGE, 0, 0, 0]);
                w.put(&port.to_ne_bytes());
                w.put(&STATIC.to_ne_bytes());
                w.put(&[FLAGS, 0]);
                w.attribute(NDA_LLADDR, mac);
            }),
            Request::DeleteNeighbour { link, address } => w.message(DEL_NEIGHBOUR, ask, sequence, |w| {
                w.put(&[family(*address), 0, 0, 0]);
                w.put(&link.to_ne_bytes());
                w.put(&[0; 4]);
                put_ip(w, NDA_DST, *address);
            }),
        }
        Ok(())
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination {
            Some((address, prefix)) => write!(f, "{address}/{prefix}")?,
            None => f.write_str("default")?,
        }
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))
    }
}

pub fn get_link(w: &mut Writer, sequence: u32, link: &LinkId<'_>) -> Result<()> {
    let head = Head::new(link, None)?;
    w.message(GET_LINK, wire::REQUEST | wire::ACK, sequence, |w| head.write(w));
    Ok(())
}

/// `struct ifinfomsg`, and the name where there is no index.
struct Head<'a> {
    link: LinkId<'a>,
    up: Option<bool>,
}

impl<'a> Head<'a> {
    fn new(link: &LinkId<'a>, up: Option<bool>) -> Result<Self> {
        if let LinkId::Name(name) = link {
            check(name, NAME_LENGTH)?;
        }
        Ok(Self { link: *link, up })
    }

    fn write(&self, w: &mut Writer) {
        let index = if let LinkId::Index(index) = self.link { index } else { 0 };
        write_head(w, index, self.up);
        if let LinkId::Name(name) = self.link {
            w.text(IFLA_IFNAME, name);
        }
    }
}

pub fn write_head(w: &mut Writer, index: u32, up: Option<bool>) {
    w.put(&[0; 4]);
    w.put(&index.to_ne_bytes());
    w.put(&(if up == Some(true) { IFF_UP } else { 0 }).to_ne_bytes());
    w.put(&(if up.is_some() { IFF_UP } else { 0 }).to_ne_bytes());
}

fn write_bridge(w: &mut Writer, bridge: &Bridge<'_>) {
    write_head(w, 0, None);
    w.text(IFLA_IFNAME, bridge.name);
    w.attribute(IFLA_ADDRESS, &bridge.mac);
    w.u32(IFLA_MTU, bridge.mtu);
    w.nest(IFLA_LINKINFO, |w| {
        w.text(IFLA_INFO_KIND, "bridge");
        w.nest(IFLA_INFO_DATA, |w| {
            w.u32(IFLA_BR_FORWARD_DELAY, 0);
            w.u32(IFLA_BR_STP_STATE, 0);
        });
    });
}

fn write_veth(w: &mut Writer, veth: &Veth<'_>) {
    write_head(w, 0, None);
    w.text(IFLA_IFNAME, veth.name);
    w.u32(IFLA_MTU, veth.mtu);
    one_queue(w);
    if let Some(master) = veth.master {
        w.u32(IFLA_MASTER, master);
    }
    w.nest(IFLA_LINKINFO, |w| {
        w.text(IFLA_INFO_KIND, "veth");
        w.nest(IFLA_INFO_DATA, |w| {
            w.nest_raw(VETH_INFO_PEER, |w| {
                write_head(w, 0, None);
                w.text(IFLA_IFNAME, veth.peer.name);
                w.u32(IFLA_MTU, veth.mtu);
                one_queue(w);
                if let Some(mac) = veth.peer.mac {
                    w.attribute(IFLA_ADDRESS, &mac);
                }
                w.u32(IFLA_NET_NS_FD, veth.peer.netns.as_raw_fd().cast_unsigned());
            });
        });
    });
}

/// Without this a veth gets a queue for every possible CPU on each end and uses the first alone.
pub fn one_queue(w: &mut Writer) {
    w.u32(IFLA_NUM_TX_QUEUES, 1);
    w.u32(IFLA_NUM_RX_QUEUES, 1);
}

fn write_change(w: &mut Writer, change: &Change<'_>) {
    // With an index in the header this renames; with a name there the header has taken the attribute already.
    if let Some(name) = change.name {
        w.text(IFLA_IFNAME, name);
    }
    if let Some(alias) = change.alias {
        // Without a NUL: the kernel takes the whole value as the text.
        w.attribute(IFLA_IFALIAS, alias.as_bytes());
    }
    if let Some(mac) = change.mac {
        w.attribute(IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = change.mtu {
        w.u32(IFLA_MTU, mtu);
    }
    if let Some(group) = change.group {
        w.u32(IFLA_GROUP, group);
    }
    if let Some(master) = change.master {
        w.u32(IFLA_MASTER, master);
    }
    if let Some(netns) = change.netns {
        w.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
    }
    if change.port != Port::default() {
        write_port(w, change.port);
    }
    if change.without_link_local || !change.ipv4.is_empty() {
        w.nest(IFLA_AF_SPEC, |w| {
            if !change.ipv4.is_empty() {
                w.nest(u16::from(INET), |w| {
                    w.nest(IFLA_INET_CONF, |w| {
                        change
                            .ipv4
                            .iter()
                            .for_each(|(setting, value)| w.u32(*setting as u16, *value));
                    });
                });
            }
            if change.without_link_local {
                w.nest(u16::from(INET6), |w| {
                    w.attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]);
                });
            }
        });
    }
}

fn write_port(w: &mut Writer, port: Port) {
    let flags = [
        (IFLA_BRPORT_MODE, port.hairpin),
        (IFLA_BRPORT_LEARNING, port.learning),
        (IFLA_BRPORT_ISOLATED, port.isolated),
    ];
    w.nest(IFLA_LINKINFO, |w| {
        w.text(IFLA_INFO_SLAVE_KIND, "bridge");
        w.nest(IFLA_INFO_SLAVE_DATA, |w| {
            for (kind, flag) in flags {
                if let Some(flag) = flag {
                    w.attribute(kind, &[u8::from(flag)]);
                }
            }
        });
    });
}

fn write_address(w: &mut Writer, link: u32, address: IpAddr, prefix: u8, flags: u8) {
    w.put(&[family(address), prefix, flags, 0]);
    w.put(&link.to_ne_bytes());
    put_ip(w, IFA_LOCAL, address);
    put_ip(w, IFA_ADDRESS, address);
    if let IpAddr::V4(v4) = address
        && prefix < 31
    {
        let broadcast = v4.to_bits() | u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        w.attribute(IFA_BROADCAST, &broadcast.to_be_bytes());
    }
}

fn write_route(w: &mut Writer, route: &Gateway) {
    let inet = route
        .gateway
        .or(route.destination.map(|(address, _)| address))
        .map_or(INET, family);
    let scope = if route.gateway.is_some() || inet == INET6 {
        UNIVERSE
    } else {
        LINK
    };
    let prefix = route.destination.map_or(0, |(_, prefix)| prefix);
    w.put(&[inet, prefix, 0, 0, MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0]);
    if let Some((address, _)) = route.destination {
        put_ip(w, RTA_DST, address);
    }
    if let Some(gateway) = route.gateway {
        put_ip(w, RTA_GATEWAY, gateway);
    }
    if let Some(link) = route.link {
        w.u32(RTA_OIF, link);
    }
}

pub fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { INET } else { INET6 }
}

pub fn put_ip(w: &mut Writer, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => w.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => w.attribute(kind, &v6.octets()),
    }
}

fn check(text: &str, longest: usize) -> Result<()> {
    if text.is_empty() || text.len() > longest || text.bytes().any(|byte| byte == 0) {
        return Err(Error::TooLong(format!(
            "{text:?} as a link's name or alias (1 to {longest} bytes)"
        )));
    }
    Ok(())
}
