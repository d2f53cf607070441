//! Published ports: which of the host's ports lead to which of a container's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub use ferry_netlink::diag::{Bound as Socket, Owner, Protocol as SocketProtocol, owner, owners};

use crate::{Error, Result};

/// Where Docker looks for a port when none is asked for: the kernel's usual ephemeral range.
const RANDOM: std::ops::RangeInclusive<u16> = 32768..=60999;
/// The most ports of a range that have a socket each.
const MOST_RELAYED: u16 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A request: ports of a container, and where the host shall have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub protocol: Protocol,
    /// First and last.
    pub container: (u16, u16),
    /// First and last; `None`: any free one for each. A range for a single port: any free one of it.
    pub host: Option<(u16, u16)>,
    /// `None`: every address of both families.
    pub address: Option<IpAddr>,
}

/// What came of it: `count` ports in a row of one address (family) that lead to as many of a container's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mapping {
    pub protocol: Protocol,
    /// The host's; unspecified: every one of the family.
    pub address: IpAddr,
    pub port: u16,
    /// The container's.
    pub to: IpAddr,
    pub to_port: u16,
    pub count: u16,
    /// Nothing is translated: somebody listens there, and passes on what comes. See [`Mapping::relays`].
    #[serde(default)]
    pub relayed: bool,
    /// Its bridge sends nothing back by another port, so for the container's neighbours somebody listens as well.
    #[serde(default)]
    pub near: bool,
}

/// How the ports of an endpoint can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ways {
    /// The addresses to translate to.
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
    /// Nothing is translated at all.
    pub relay: bool,
    /// The host can listen at IPv6 addresses.
    pub listens_v6: bool,
    /// What is translated does not reach another port of the bridge it came from, of IPv4 and of IPv6: see [`Mapping::near`].
    pub near: (bool, bool),
}

/// A socket of the host's that is bound to a port, whosever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// Of an unspecified IPv6 address: IPv4 is not included.
    pub only_v6: bool,
    pub inode: u64,
}

impl From<&ferry_netlink::diag::Bound> for Bound {
    fn from(socket: &ferry_netlink::diag::Bound) -> Self {
        use ferry_netlink::diag::Protocol as P;
        Self {
            protocol: match socket.protocol {
                P::Tcp => Protocol::Tcp,
                P::Udp => Protocol::Udp,
                P::Sctp => Protocol::Sctp,
            },
            address: socket.address,
            port: socket.port,
            only_v6: socket.v6only,
            inode: socket.inode,
        }
    }
}

/// Who has which port.
#[derive(Debug, Default)]
pub struct Ports {
    held: Vec<(String, Mapping)>,
    /// Where the search for a free one goes on.
    next: u16,
}

/// Who is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// Whoever published it, by the id it was published with.
    Published(String),
    /// A socket with this inode.
    Socket(u64),
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// The number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "tcp" | "" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(Error::Invalid {
                what: "protocol (tcp, udp or sctp)",
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Mapping {
    /// A port that is reached at the container's own address: it takes none of the host's.
    pub(crate) fn routed(request: &Publish, to: IpAddr) -> Self {
        let (first, last) = request.container;
        let unspecified = if to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        Self {
            protocol: request.protocol,
            address: unspecified,
            port: 0,
            to,
            to_port: first,
            count: last.saturating_sub(first).saturating_add(1),
            relayed: false,
            near: false,
        }
    }

    /// True when packets are translated.
    pub fn is_translated(&self) -> bool {
        !self.relayed && !self.is_routed()
    }

    /// Where somebody has to listen, and pass on to: everywhere, or at `[::1]`, which cannot be translated to anything else.
    pub fn relays(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let loopback = self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && self.is_translated()
            && can_listen(self.protocol, self.count);
        let address = match (self.relayed || self.near, loopback) {
            (true, _) => Some(self.address),
            (false, true) => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            (false, false) => None,
        };
        let (port, to, to_port) = (self.port, self.to, self.to_port);
        let count = if address.is_some() { self.count } else { 0 };
        (0..count).filter_map(move |step| {
            let listen = SocketAddr::new(address?, port.checked_add(step)?);
            Some((listen, SocketAddr::new(to, to_port.checked_add(step)?)))
        })
    }

    /// With the sockets that it takes.
    fn for_neighbours(self, ways: &Ways) -> Self {
        let needed = if self.to.is_ipv4() { ways.near.0 } else { ways.near.1 };
        let near = needed && !self.relayed && !self.address.is_loopback() && can_listen(self.protocol, self.count);
        Self { near, ..self }
    }

    pub fn is_routed(&self) -> bool {
        self.port == 0
    }

    pub fn last(&self) -> u16 {
        self.port.saturating_add(self.count.saturating_sub(1))
    }

    /// True when a packet could be for both.
    fn meets(&self, other: &Mapping) -> bool {
        self.protocol == other.protocol
            && !self.is_routed()
            && !other.is_routed()
            && self.port <= other.last()
            && other.port <= self.last()
            && same_address(self.address, other.address)
    }

    fn meets_socket(&self, bound: &Bound) -> bool {
        let both = bound.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !bound.only_v6 && self.address.is_ipv4();
        self.protocol == bound.protocol
            && (self.port..=self.last()).contains(&bound.port)
            && (both || same_address(self.address, bound.address))
    }
}

/// Whether there can be a socket for each of so many ports.
fn can_listen(protocol: Protocol, count: u16) -> bool {
    count <= MOST_RELAYED && protocol != Protocol::Sctp
}

fn same_address(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

impl Publish {
    /// The addresses to publish at, and what they lead to.
    fn addresses(&self, ways: &Ways) -> Result<Vec<(IpAddr, IpAddr)>> {
        let v4 = ways.v4.map(IpAddr::V4);
        let v6 = ways.v6.map(IpAddr::V6);
        // One that was not asked for by name is left out where it cannot be.
        let instead = v4.filter(|_| ways.listens_v6 && self.unfit().is_none());
        let all = match self.address {
            Some(address) if address.is_ipv4() => vec![(address, v4)],
            Some(address) => vec![(address, v6.or(v4))],
            None => vec![
                (IpAddr::V4(Ipv4Addr::UNSPECIFIED), v4),
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), v6.or(instead)),
            ],
        };
        let all: Vec<_> = all.into_iter().filter_map(|(host, to)| Some((host, to?))).collect();
        match self
            .unfit()
            .filter(|_| all.iter().any(|(host, to)| ways.relayed(*host, *to)))
        {
            None => Ok(all),
            Some(reason) => Err(Error::Unusable {
                what: format!("port {}-{}/{}", self.container.0, self.container.1, self.protocol),
                reason: reason.to_owned(),
            }),
        }
    }

    /// Why no sockets can pass these ports on.
    fn unfit(&self) -> Option<&'static str> {
        let (first, last) = self.container;
        if self.protocol == Protocol::Sctp {
            return Some("sctp can only be translated, to an address of the same family and through the forward rules");
        }
        (last.saturating_sub(first) >= MOST_RELAYED).then_some(
            "at most 1024 ports in a row can have a socket each: give the container an IPv6 address, or publish at an IPv4 \
             address",
        )
    }
}

impl Ways {
    /// Whether a socket has to be between the two.
    fn relayed(&self, host: IpAddr, to: IpAddr) -> bool {
        self.relay || host.is_ipv4() != to.is_ipv4() || host == IpAddr::V6(Ipv6Addr::LOCALHOST)
    }
}

impl Ports {
    /// Finds the ports for a request, and takes them for `holder`. Nothing is taken when one is not free.
    pub fn take(&mut self, holder: &str, requests: &[Publish], ways: &Ways, bound: &[Bound]) -> Result<Vec<Mapping>> {
        let before = self.held.len();
        let mut taken = Vec::new();
        for request in requests {
            match self.find(request, ways, bound) {
                Ok(found) => {
                    self.held
                        .extend(found.iter().map(|mapping| (holder.to_owned(), *mapping)));
                    taken.extend(found);
                }
                Err(error) => {
                    self.held.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// Notes what somebody has already.
    pub fn adopt(&mut self, holder: &str, mappings: &[Mapping]) {
        for mapping in mappings {
            let known = (holder.to_owned(), *mapping);
            if !self.held.contains(&known) {
                self.held.push(known);
            }
        }
    }

    pub fn release(&mut self, holder: &str, mappings: &[Mapping]) {
        self.held
            .retain(|(who, mapping)| who != holder || !mappings.contains(mapping));
    }

    /// Everything that `holder` has, or everybody.
    pub fn of<'a>(&'a self, holder: Option<&'a str>) -> impl Iterator<Item = (&'a str, &'a Mapping)> {
        self.held
            .iter()
            .filter(move |(who, _)| holder.is_none_or(|holder| who == holder))
            .map(|(who, mapping)| (who.as_str(), mapping))
    }

    fn find(&mut self, request: &Publish, ways: &Ways, bound: &[Bound]) -> Result<Vec<Mapping>> {
        let (first, last) = request.container;
        if last < first {
            return Err(Error::Invalid {
                what: "port range",
                text: format!("{first}-{last}"),
            });
        }
        let addresses = request.addresses(ways)?;
        let at = |port: u16, to_port: u16, count: u16| -> Vec<Mapping> {
            addresses
                .iter()
                .map(|(address, to)| Mapping {
                    protocol: request.protocol,
                    address: *address,
                    port,
                    to: *to,
                    to_port,
                    count,
                    relayed: ways.relayed(*address, *to),
                    near: false,
                })
                .map(|mapping| mapping.for_neighbours(ways))
                .collect()
        };
        // 65,536 ports in a row would not fit a u16; port 0 cannot be published.
        let count = (last - first).saturating_add(1);
        match request.host {
            Some((from, to)) if to.wrapping_sub(from) == last - first && to >= from => {
                let wanted = at(from, first, count);
                match wanted.iter().find_map(|mapping| self.in_the_way(mapping, bound)) {
                    None => Ok(wanted),
                    Some((port, holder)) => Err(self.taken(request, port, holder)),
                }
            }
            Some((from, to)) if count == 1 && to >= from => {
                let free = (from..=to).find_map(|port| {
                    let wanted = at(port, first, 1);
                    let free = wanted.iter().all(|mapping| self.in_the_way(mapping, bound).is_none());
                    free.then_some(wanted)
                });
                free.ok_or(Error::NoPort {
                    protocol: request.protocol,
                    first: from,
                    last: to,
                })
            }
            Some((from, to)) => Err(Error::Invalid {
                what: "pair of port ranges: they must be of one size",
                text: format!("{from}-{to}:{first}-{last}"),
            }),
            None => {
                let none = || Error::NoPort {
                    protocol: request.protocol,
                    first: *RANDOM.start(),
                    last: *RANDOM.end(),
                };
                if count > RANDOM.end() - RANDOM.start() + 1 {
                    return Err(none());
                }
                // In a row, if there is such a one: that is one mapping.
                if let Some(row) = self.any(|port| at(port, first, count), &[], bound) {
                    return Ok(row);
                }
                let mut found = Vec::new();
                for to_port in first..=last {
                    let mapped = self.any(|port| at(port, to_port, 1), &found, bound);
                    found.extend(mapped.ok_or_else(none)?);
                }
                Ok(found)
            }
        }
    }

    /// The next free ones after those that were found last.
    fn any(&mut self, at: impl Fn(u16) -> Vec<Mapping>, found: &[Mapping], bound: &[Bound]) -> Option<Vec<Mapping>> {
        let size = RANDOM.end() - RANDOM.start() + 1;
        let start = self.next.saturating_sub(*RANDOM.start());
        for step in 0..size {
            let port = RANDOM.start() + (start + step) % size;
            let wanted = at(port);
            let free = |mapping: &Mapping| {
                mapping.last() <= *RANDOM.end()
                    && self.in_the_way(mapping, bound).is_none()
                    && !found.iter().any(|other| other.meets(mapping))
            };
            if wanted.iter().all(free) {
                let last = wanted.iter().map(Mapping::last).max().unwrap_or(port);
                self.next = last.checked_add(1).unwrap_or(*RANDOM.start());
                return Some(wanted);
            }
        }
        None
    }

    fn in_the_way(&self, wanted: &Mapping, bound: &[Bound]) -> Option<(u16, Holder)> {
        let published = self.held.iter().find(|(_, mapping)| mapping.meets(wanted));
        if let Some((who, mapping)) = published {
            return Some((mapping.port.max(wanted.port), Holder::Published(who.clone())));
        }
        let socket = bound.iter().find(|bound| wanted.meets_socket(bound))?;
        Some((socket.port, Holder::Socket(socket.inode)))
    }

    fn taken(&self, request: &Publish, port: u16, holder: Holder) -> Error {
        Error::PortTaken {
            protocol: request.protocol,
            address: request.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port,
            holder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &Ways = &Ways {
        v4: Some(Ipv4Addr::new(172, 17, 0, 2)),
        v6: None,
        relay: false,
        listens_v6: false,
        near: (false, false),
    };

    fn publish(container: (u16, u16), host: Option<(u16, u16)>, address: Option<&str>) -> Publish {
        Publish {
            protocol: Protocol::Tcp,
            container,
            host,
            address: address.map(|text| text.parse().unwrap()),
        }
    }

    fn one(port: u16) -> Publish {
        publish((80, 80), Some((port, port)), None)
    }

    #[test]
    fn a_range_is_one_mapping_a_family() {
        let mut ports = Ports::default();
        let both = Ways {
            v6: Some("fd00::2".parse().unwrap()),
            ..*A
        };
        let found = ports
            .take(
                "a",
                &[publish((10_000, 20_000), Some((10_000, 20_000)), None)],
                &both,
                &[],
            )
            .unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].port, found[0].last(), found[0].count),
            (10_000, 20_000, 10_001)
        );
    }

    #[test]
    fn whoever_is_in_the_way_is_named() {
        let mut ports = Ports::default();
        let taken = ports.take("a", &[one(8080)], A, &[]).unwrap();
        let error = ports.take("b", &[one(9000), one(8080)], A, &[]).unwrap_err();
        assert!(
            matches!(&error, Error::PortTaken { port: 8080, holder: Holder::Published(who), .. } if who == "a"),
            "{error:?}"
        );
        assert!(ports.of(Some("b")).next().is_none(), "nothing is taken");
        let local = publish((80, 80), Some((8080, 8080)), Some("127.0.0.1"));
        assert!(ports.take("b", std::slice::from_ref(&local), A, &[]).is_err());
        ports.release("a", &taken);
        assert!(ports.take("b", &[local], A, &[]).is_ok());
        assert!(
            ports
                .take("c", &[publish((80, 80), Some((8080, 8080)), Some("10.0.0.1"))], A, &[])
                .is_ok()
        );
    }

    #[test]
    fn sockets_count_and_those_of_both_families_too() {
        let socket = |address: &str, only_v6| Bound {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            port: 8080,
            only_v6,
            inode: 7,
        };
        let taken = |bound: Bound| Ports::default().take("a", &[one(8080)], A, &[bound]).is_err();
        assert!(taken(socket("0.0.0.0", false)));
        assert!(taken(socket("127.0.0.1", false)));
        assert!(taken(socket("::", false)));
        assert!(!taken(socket("::", true)));
        let error = Ports::default()
            .take("a", &[one(8080)], A, &[socket("::", false)])
            .unwrap_err();
        assert!(matches!(
            error,
            Error::PortTaken {
                holder: Holder::Socket(7),
                ..
            }
        ));
    }

    #[test]
    fn a_port_of_a_range_or_any_port_is_found() {
        let mut ports = Ports::default();
        let range = publish((80, 80), Some((7000, 7001)), None);
        let mut given = |request: &Publish| {
            ports
                .take("a", std::slice::from_ref(request), A, &[])
                .map(|found| found[0].port)
        };
        assert_eq!(given(&range).unwrap(), 7000);
        assert_eq!(given(&range).unwrap(), 7001);
        assert!(matches!(
            given(&range),
            Err(Error::NoPort {
                first: 7000,
                last: 7001,
                ..
            })
        ));
        let any = publish((80, 81), None, None);
        assert_eq!(given(&any).unwrap(), 32768);
        assert_eq!(given(&any).unwrap(), 32770);
    }

    #[test]
    fn what_cannot_be_translated_is_relayed_or_refused() {
        let listening = Ways { listens_v6: true, ..*A };
        let both = Ways {
            v6: Some("fd00::2".parse().unwrap()),
            ..listening
        };
        let all = Ways { relay: true, ..both };
        let shown = |ways: &Ways, request: &Publish| -> String {
            match Ports::default().take("a", std::slice::from_ref(request), ways, &[]) {
                Ok(found) => {
                    let relays = found.iter().flat_map(Mapping::relays);
                    let relays: Vec<_> = relays.map(|(from, to)| format!("{from}→{to}")).collect();
                    format!("{}: {}", found.len(), relays.join(" "))
                }
                Err(error) => error.to_string(),
            }
        };
        let at = |address| publish((80, 80), Some((8080, 8080)), Some(address));
        assert_eq!(shown(A, &one(8080)), "1: ");
        assert_eq!(shown(&listening, &one(8080)), "2: [::]:8080→172.17.0.2:80");
        assert_eq!(shown(&both, &one(8080)), "2: [::1]:8080→[fd00::2]:80");
        assert_eq!(shown(&both, &at("::1")), "1: [::1]:8080→[fd00::2]:80");
        assert_eq!(shown(A, &at("::1")), "1: [::1]:8080→172.17.0.2:80");
        assert_eq!(shown(&both, &at("2001:db8::1")), "1: ");
        assert_eq!(shown(&both, &at("127.0.0.1")), "1: ");
        let everything = "2: 0.0.0.0:8080→172.17.0.2:80 [::]:8080→[fd00::2]:80";
        assert_eq!(shown(&all, &one(8080)), everything);
        let near = Ways {
            near: (true, true),
            ..both
        };
        assert_eq!(shown(&near, &one(8080)), everything);
        assert_eq!(shown(&near, &at("127.0.0.1")), "1: ");
        let half = Ways {
            near: (true, false),
            ..both
        };
        let loopback = "2: 0.0.0.0:8080→172.17.0.2:80 [::1]:8080→[fd00::2]:80";
        assert_eq!(shown(&half, &one(8080)), loopback);
        // A socket a port is too much of a good thing.
        let mut wide = publish((1, 2000), Some((10_001, 12_000)), None);
        assert_eq!(shown(&listening, &wide), "1: ");
        assert_eq!(shown(&both, &wide), "2: ");
        assert_eq!(shown(&near, &wide), "2: ");
        assert!(shown(&all, &wide).contains("at most 1024 ports"));
        wide.address = Some("::".parse().unwrap());
        assert!(shown(&listening, &wide).contains("at most 1024 ports"));
        let mut sctp = one(8080);
        sctp.protocol = Protocol::Sctp;
        assert_eq!(shown(&listening, &sctp), "1: ");
        assert!(shown(&all, &sctp).contains("sctp"));
    }

    #[test]
    fn ports_of_any_number_are_in_a_row_as_long_as_there_is_one() {
        let mut ports = Ports::default();
        let mut given = |first, last| ports.take("a", &[publish((first, last), None, None)], A, &[]);
        let row = given(10_000, 20_000).unwrap();
        assert_eq!(
            row.iter().map(|found| (found.port, found.count)).collect::<Vec<_>>(),
            [(32768, 10_001)]
        );
        assert_eq!(given(10_000, 20_000).unwrap()[0].port, 42769);
        let one = publish((80, 80), Some((55_000, 55_000)), None);
        ports.take("b", &[one], A, &[]).unwrap();
        // No 8,000 follow each other any more, but there are so many.
        let mut given = |first, last| ports.take("c", &[publish((first, last), None, None)], A, &[]);
        let each = given(1, 8_000).unwrap();
        assert_eq!(each.len(), 8_000);
        assert!(each.iter().all(|found| found.count == 1 && found.port != 55_000));
        assert!(matches!(given(1, 8_000), Err(Error::NoPort { .. })));
        assert!(matches!(given(1, 65_535), Err(Error::NoPort { .. })));
    }

    #[test]
    fn ranges_must_be_of_one_size() {
        for request in [
            publish((80, 82), Some((8000, 8001)), None),
            publish((82, 80), None, None),
        ] {
            let refused = Ports::default().take("a", &[request], A, &[]);
            assert!(matches!(refused, Err(Error::Invalid { .. })));
        }
    }
}
