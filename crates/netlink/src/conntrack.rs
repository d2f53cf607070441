//! Flows that the kernel follows (ctnetlink), to end those that a changed port mapping would leave going the old way.
//!
//! A flow of UDP keeps the translation that its first packet got for as long as packets come. After a port was published
//! or unpublished the flows to it must be forgotten, or their next packets go on to the old place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::socket::Socket;
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

const NETLINK_NETFILTER: isize = 12;
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION: u16 = 3;

/// Deletions a send: their answers wait in the socket's queue.
const AT_ONCE: usize = 256;

/// A socket to the connection tracking of the namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

/// Which flows. What is `None` says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    /// An IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: Option<u8>,
    /// Who sent the first packet, before any translation.
    pub asked_by: Option<IpAddr>,
    /// Where the first packet was sent to, before any translation.
    pub destination: Option<IpAddr>,
    pub ports: Option<RangeInclusive<u16>>,
    /// Who answers: where the first packet was delivered to, after translation.
    pub answered_by: Option<IpAddr>,
}

/// What the kernel can look at itself.
struct Filter {
    protocol: Option<u8>,
    asked_by: Option<IpAddr>,
    destination: Option<IpAddr>,
    answered_by: Option<IpAddr>,
}

/// A flow as far as it takes to tell it from all others.
struct Flow {
    family: u8,
    original: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(NETLINK_NETFILTER)?;
        socket.enlarge();
        Ok(Self { socket })
    }

    /// Makes the kernel forget all of these flows, and says how many. One that ends meanwhile is none.
    pub fn forget(&mut self, flows: &[Flows]) -> Result<usize> {
        const INET: u8 = 2;
        const INET6: u8 = 10;
        let mut found = Vec::new();
        for family in [INET, INET6] {
            let of_family = |address: Option<IpAddr>| address.is_none_or(|it| it.is_ipv4() == (family == INET));
            let mut wanted = flows.to_vec();
            wanted.retain(|flows| {
                of_family(flows.asked_by) && of_family(flows.destination) && of_family(flows.answered_by)
            });
            // The kernel is asked once, however many there are.
            if !wanted.is_empty() {
                self.list(family, &wanted, &mut found)?;
            }
        }
        let mut forgotten = 0;
        for some in found.chunks(AT_ONCE) {
            forgotten += self.delete(some)?;
        }
        Ok(forgotten)
    }

    /// The kernel leaves out most (CTA_FILTER, Linux 5.8), not all: it cannot tell ports in a range, nor those of SCTP,
    /// and of IPv6 addresses it leaves out the very ones that match (seen up to 6.18). So [`parse`] looks again.
    fn list(&mut self, family: u8, flows: &[Flows], found: &mut Vec<Flow>) -> Result<()> {
        const SOURCE_ADDRESS: u32 = 1;
        const DESTINATION_ADDRESS: u32 = 2;
        const PROTOCOL: u32 = 8;
        let filter = Filter {
            protocol: of_all(flows, |flows| flows.protocol),
            asked_by: of_all(flows, |flows| flows.asked_by),
            destination: of_all(flows, |flows| flows.destination),
            answered_by: of_all(flows, |flows| flows.answered_by),
        };
        let v4 = |address: Option<IpAddr>| match address {
            Some(IpAddr::V4(v4)) => Some(v4.octets()),
            _ => None,
        };
        let mut w = Writer::default();
        let sequence = self.socket.next();
        w.message(GET, wire::REQUEST | wire::DUMP, sequence, |w| {
            w.put(&[family, 0, 0, 0]);
            let (mut original, mut reply) = (0, 0);
            w.nest(ORIGINAL, |w| {
                let (from, to) = (v4(filter.asked_by), v4(filter.destination));
                if from.is_some() || to.is_some() {
                    w.nest(TUPLE_IP, |w| {
                        if let Some(from) = from {
                            original |= SOURCE_ADDRESS;
                            w.attribute(1, &from);
                        }
                        if let Some(to) = to {
                            original |= DESTINATION_ADDRESS;
                            w.attribute(2, &to);
                        }
                    });
                }
                if let Some(protocol) = filter.protocol {
                    original |= PROTOCOL;
                    w.nest(TUPLE_PROTO, |w| w.attribute(PROTO_NUMBER, &[protocol]));
                }
            });
            w.nest(REPLY, |w| {
                if let Some(from) = v4(filter.answered_by) {
                    reply |= SOURCE_ADDRESS;
                    w.nest(TUPLE_IP, |w| w.attribute(1, &from));
                }
            });
            if original | reply != 0 {
                w.nest(FILTER, |w| {
                    w.u32(1, original);
                    w.u32(2, reply);
                });
            }
        });
        let answers = self.socket.exchange(&w.finish()?, |message| {
            found.extend(parse(message, flows));
        })?;
        match answers.into_iter().next() {
            None => Err(Error::NoAnswer {
                operation: "list",
                object: "flows".to_owned(),
            }),
            Some(answer) => match answer.refused {
                None => Ok(()),
                Some((errno, message)) => Err(Error::Kernel {
                    operation: "list",
                    object: "flows".to_owned(),
                    errno,
                    message,
                }),
            },
        }
    }

    fn delete(&mut self, flows: &[Flow]) -> Result<usize> {
        let mut w = Writer::default();
        for flow in flows {
            let sequence = self.socket.next();
            w.message(DELETE, wire::REQUEST | wire::ACK, sequence, |w| {
                w.put(&[flow.family, 0, 0, 0]);
                w.nest(ORIGINAL, |w| w.put(&flow.original));
                // A flow that took its place meanwhile has another number.
                if let Some(id) = &flow.id {
                    w.attribute(ID, id);
                }
                if let Some(zone) = &flow.zone {
                    w.attribute(ZONE, zone);
                }
            });
        }
        let answers = self.socket.exchange(&w.finish()?, |_| {})?;
        let mut deleted = 0;
        for answer in answers {
            let Some((errno, message)) = answer.refused else {
                deleted += 1;
                continue;
            };
            let error = Error::Kernel {
                operation: "forget",
                object: "a flow".to_owned(),
                errno,
                message,
            };
            if !error.is_gone() {
                return Err(error);
            }
        }
        Ok(deleted)
    }
}

/// What all of them say alike.
fn of_all<T: PartialEq>(flows: &[Flows], of: impl Fn(&Flows) -> Option<T>) -> Option<T> {
    let first = of(flows.first()?)?;
    flows
        .iter()
        .all(|flows| of(flows).as_ref() == Some(&first))
        .then_some(first)
}

/// The flow, when it is one of those meant.
fn parse(message: Message<'_>, flows: &[Flows]) -> Option<Flow> {
    let family = *message.payload.first().filter(|_| message.kind == NEW)?;
    let attributes = message.payload.get(4..)?;
    let original = wire::attribute(attributes, ORIGINAL)?;
    let transport = wire::attribute(original, TUPLE_PROTO)?;
    let protocol = wire::attribute(transport, PROTO_NUMBER)?.first().copied();
    let port = wire::attribute(transport, PROTO_DESTINATION).and_then(|value| wire::be16_at(value, 0));
    let (asked_by, destination) = (address(original, 1), address(original, 2));
    let answered_by = wire::attribute(attributes, REPLY).and_then(|reply| address(reply, 1));
    let meant = |flows: &Flows| {
        (flows.protocol.is_none() || flows.protocol == protocol)
            && (flows.asked_by.is_none() || flows.asked_by == asked_by)
            && (flows.destination.is_none() || flows.destination == destination)
            && (flows.answered_by.is_none() || flows.answered_by == answered_by)
            && flows
                .ports
                .as_ref()
                .is_none_or(|ports| port.is_some_and(|port| ports.contains(&port)))
    };
    flows.iter().any(meant).then(|| Flow {
        family,
        original: original.to_vec(),
        id: wire::attribute(attributes, ID).map(<[u8]>::to_vec),
        zone: wire::attribute(attributes, ZONE).map(<[u8]>::to_vec),
    })
}

/// The address of a tuple: `first` is 1 for the source, 2 for the destination, and 2 more for IPv6.
fn address(tuple: &[u8], first: u16) -> Option<IpAddr> {
    let addresses = wire::attribute(tuple, TUPLE_IP)?;
    let v4 = || {
        <[u8; 4]>::try_from(wire::attribute(addresses, first)?)
            .ok()
            .map(Ipv4Addr::from)
    };
    let v6 = || {
        <[u8; 16]>::try_from(wire::attribute(addresses, first + 2)?)
            .ok()
            .map(Ipv6Addr::from)
    };
    v4().map(IpAddr::V4).or_else(|| v6().map(IpAddr::V6))
}
