//! rtnetlink(7): links, addresses, routes, neighbours of one network namespace.
//!
//! [`Route::run`] sends any number of [`Request`]s in one datagram. The kernel handles them in order and goes on after
//! one that fails, so a request must not do harm when the one before it was refused.

mod kind;
mod lanes;
mod link;
mod path;
mod rate;
mod redirect;
mod request;
mod watch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use kind::{Child, IpvlanMode, Kind, MacvlanMode};
pub use lanes::{Lane, Part};
pub use link::{Link, Statistics, Traffic};
pub use path::Path;
pub use rate::{Queue, Tbf};
pub use redirect::Direction;
pub use request::{Bridge, Change, Gateway, Ipv4Setting, LinkId, Peer, Port, Request, Veth};
pub use watch::{Losses, Lost};

use crate::socket::Socket;
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

const NETLINK_ROUTE: isize = 0;
/// In an answer: the table changed while it was dumped.
const DUMP_INTERRUPTED: u16 = 0x10;
/// How often an interrupted dump is tried again before what it said is taken as it is.
const DUMP_ATTEMPTS: usize = 4;

/// A socket to the rtnetlink of the namespace it was opened in.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
}

/// An address of a link. `prefix` in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub link: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// A route as the kernel lists it. `destination` is `None` for the default route, `link` for one that has no single
/// link (multipath, blackhole).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    pub destination: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
    pub table: u32,
}

impl Route {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open(NETLINK_ROUTE)?,
        })
    }

    /// Sends all requests at once and returns each one's own result, in order.
    pub fn submit(&mut self, requests: &[Request<'_>]) -> Result<Vec<Result<()>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let mut writer = Writer::default();
        let mut sequences = Vec::with_capacity(requests.len());
        for request in requests {
            let sequence = self.socket.next();
            sequences.push(sequence);
            request.write(&mut writer, sequence)?;
        }
        let mut answers = self.socket.exchange(&writer.finish()?, |_| {})?;
        let outcomes = requests.iter().zip(sequences).map(|(request, sequence)| {
            let (operation, object) = request.describe();
            match answers.iter().position(|answer| answer.sequence == sequence) {
                None => Err(Error::NoAnswer { operation, object }),
                Some(at) => match answers.swap_remove(at).refused {
                    None => Ok(()),
                    Some((errno, message)) => Err(Error::Kernel {
                        operation,
                        object,
                        errno,
                        message,
                    }),
                },
            }
        });
        Ok(outcomes.collect())
    }

    /// Sends all requests at once; the error is that of the first one refused. The others were tried all the same.
    pub fn run(&mut self, requests: &[Request<'_>]) -> Result<()> {
        self.submit(requests)?.into_iter().collect()
    }

    /// The link of that name or index, or `None`.
    pub fn link(&mut self, id: &LinkId<'_>) -> Result<Option<Link>> {
        self.of_link(id, link::parse)
    }

    /// What went through a link, or `None` when there is none of that name or index.
    pub fn statistics(&mut self, id: &LinkId<'_>) -> Result<Option<Statistics>> {
        self.of_link(id, link::statistics)
    }

    /// What limits a link, and what it did so far; `None` when nothing does or the link does not exist.
    pub fn rate(&mut self, link: u32) -> Result<Option<Queue>> {
        let mut writer = Writer::default();
        let sequence = self.socket.next();
        // The answer is a notification, which the one who asked hears for the echo's sake.
        let flags = wire::REQUEST | wire::ACK | wire::ECHO;
        writer.message(rate::GET_QDISC, flags, sequence, |w| rate::head(w, link));
        self.one(writer, "look up the limit of link", &format!("#{link}"), rate::parse)
    }

    /// True when what a link's token bucket holds is in lanes ([`Part`]).
    pub fn has_lanes(&mut self, link: u32) -> Result<bool> {
        let mut writer = Writer::default();
        let sequence = self.socket.next();
        let flags = wire::REQUEST | wire::ACK | wire::ECHO;
        writer.message(rate::GET_QDISC, flags, sequence, |w| lanes::question(w, link));
        let found = self.one(writer, "look up the lanes of link", &format!("#{link}"), lanes::parse)?;
        Ok(found.is_some())
    }

    /// The index of the link that this link's packets go over first, 0 when it is gone; `None` when they go straight.
    pub fn redirect(&mut self, link: u32, direction: Direction) -> Result<Option<u32>> {
        let question = redirect::question(link, direction);
        let parse = |message: Message<'_>| redirect::parse(message, direction);
        let found = self.dump("filters", redirect::GET_FILTER, &question, parse)?;
        Ok(found.into_iter().next())
    }

    fn of_link<T>(&mut self, id: &LinkId<'_>, parse: impl Fn(Message<'_>) -> Option<T>) -> Result<Option<T>> {
        let sequence = self.socket.next();
        let mut writer = Writer::default();
        request::get_link(&mut writer, sequence, id)?;
        self.one(writer, "look up link", &id.to_string(), parse)
    }

    /// The first answer that parses; `None` when what was asked for does not exist.
    fn one<T>(
        &mut self,
        question: Writer,
        operation: &'static str,
        object: &str,
        parse: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        let mut found = None;
        let answers = self.socket.exchange(&question.finish()?, |message| {
            found = found.take().or_else(|| parse(message));
        })?;
        match answers.into_iter().find_map(|answer| answer.refused) {
            None => Ok(found),
            Some((errno, message)) => {
                let error = Error::Kernel {
                    operation,
                    object: object.to_owned(),
                    errno,
                    message,
                };
                if error.is_gone() { Ok(None) } else { Err(error) }
            }
        }
    }

    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.dump("links", request::GET_LINK, &[0; 16], link::parse)
    }

    /// All addresses, of both families.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump("addresses", request::GET_ADDRESS, &[0; 8], parse_address)
    }

    /// The addresses somebody gave a link for the whole network: neither link-local ones nor such with a lifetime.
    pub fn lasting_addresses(&mut self) -> Result<Vec<Address>> {
        const PERMANENT: u8 = 0x80;
        const UNIVERSE: u8 = 0;
        self.dump("addresses", request::GET_ADDRESS, &[0; 8], |message| {
            let (flags, scope) = (*message.payload.get(2)?, *message.payload.get(3)?);
            (flags & PERMANENT != 0 && scope == UNIVERSE).then_some(())?;
            parse_address(message)
        })
    }

    /// All routes of both families and all tables, without the kernel's own local and broadcast ones.
    pub fn routes(&mut self) -> Result<Vec<Destination>> {
        self.dump("routes", request::GET_ROUTE, &[0; 12], parse_route)
    }

    /// The neighbours that somebody has entered for good: the link of each, and its address.
    pub fn permanent_neighbours(&mut self) -> Result<Vec<(u32, IpAddr)>> {
        self.dump("neighbours", request::GET_NEIGHBOUR, &[0; 12], parse_neighbour)
    }

    fn dump<T>(
        &mut self,
        object: &'static str,
        kind: u16,
        body: &[u8],
        mut parse: impl FnMut(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let mut interrupted = false;
            let sequence = self.socket.next();
            let mut writer = Writer::default();
            writer.message(kind, wire::REQUEST | wire::DUMP, sequence, |w| w.put(body));
            let answers = self.socket.exchange(&writer.finish()?, |message| {
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                found.extend(parse(message));
            })?;
            match answers.into_iter().next() {
                None => {
                    return Err(Error::NoAnswer {
                        operation: "list",
                        object: object.to_owned(),
                    });
                }
                Some(answer) => {
                    if let Some((errno, message)) = answer.refused {
                        return Err(Error::Kernel {
                            operation: "list",
                            object: object.to_owned(),
                            errno,
                            message,
                        });
                    }
                }
            }
            if !interrupted {
                break;
            }
        }
        Ok(found)
    }
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        request::INET => <[u8; 4]>::try_from(value)
            .ok()
            .map(|octets| Ipv4Addr::from(octets).into()),
        request::INET6 => <[u8; 16]>::try_from(value)
            .ok()
            .map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// `struct ifaddrmsg` and IFA_LOCAL (the own address, also where IFA_ADDRESS is the peer's), else IFA_ADDRESS.
fn parse_address(message: Message<'_>) -> Option<Address> {
    let (family, prefix) = (*message.payload.first()?, *message.payload.get(1)?);
    let attributes = message.payload.get(8..)?;
    let value =
        wire::attribute(attributes, request::IFA_LOCAL).or(wire::attribute(attributes, request::IFA_ADDRESS))?;
    Some(Address {
        link: wire::u32_at(message.payload, 4)?,
        address: ip(family, value)?,
        prefix,
    })
}

/// `struct ndmsg`.
fn parse_neighbour(message: Message<'_>) -> Option<(u32, IpAddr)> {
    let family = *message.payload.first()?;
    let state = wire::u16_at(message.payload, 8)?;
    let address = wire::attribute(message.payload.get(12..)?, request::NDA_DST)?;
    let found = (wire::u32_at(message.payload, 4)?, ip(family, address)?);
    (state & request::PERMANENT != 0).then_some(found)
}

/// `struct rtmsg`. Types other than unicast (1) to prohibit (8) that are the kernel's bookkeeping are left out.
fn parse_route(message: Message<'_>) -> Option<Destination> {
    const LOCAL: u8 = 2;
    const BROADCAST: u8 = 3;
    const MULTICAST: u8 = 5;
    let (family, prefix) = (*message.payload.first()?, *message.payload.get(1)?);
    let kind = *message.payload.get(7)?;
    if matches!(kind, LOCAL | BROADCAST | MULTICAST) {
        return None;
    }
    let attributes = message.payload.get(12..)?;
    let address = |kind| wire::attribute(attributes, kind).and_then(|value| ip(family, value));
    let number = |kind| wire::attribute(attributes, kind).and_then(|value| wire::u32_at(value, 0));
    Some(Destination {
        destination: if prefix == 0 {
            None
        } else {
            Some((address(request::RTA_DST)?, prefix))
        },
        gateway: address(request::RTA_GATEWAY),
        link: number(request::RTA_OIF),
        table: number(request::RTA_TABLE).unwrap_or_else(|| u32::from(message.payload[4])),
    })
}
