//! Which sockets hold which ports: sock_diag(7), for one network namespace.

mod owner;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use owner::{Owner, owner, owners};

use crate::socket::Socket;
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

const NETLINK_SOCK_DIAG: isize = 4;
const BY_FAMILY: u16 = 20;
const INET: u8 = 2;
const INET6: u8 = 10;
const ESTABLISHED: u32 = 1 << 1;
const CLOSED: u32 = 1 << 7;
const LISTENING: u32 = 1 << 10;

/// A socket to the sock_diag of the namespace it was opened in.
#[derive(Debug)]
pub struct Sockets {
    socket: Socket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

/// A socket that has a local port for itself: a listener, or for UDP any socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub protocol: Protocol,
    /// The unspecified address of its family for all; never an IPv4 address in IPv6's clothes.
    pub address: IpAddr,
    pub port: u16,
    /// False for an IPv6 socket on `::` that takes IPv4 as well; otherwise true for IPv6.
    pub v6only: bool,
    /// A UDP socket with a peer: it has the port, but gets nothing from anybody else.
    pub connected: bool,
    /// Index of the link it is bound to (SO_BINDTODEVICE).
    pub link: Option<u32>,
    /// By which [`owners`] finds its process; 0 for one of the kernel's own.
    pub inode: u64,
    pub uid: u32,
}

impl Bound {
    /// True when it gets what is sent to the address, one of this host's, or to any where `address` is unspecified.
    pub fn takes(&self, address: IpAddr) -> bool {
        let all = |family: IpAddr| self.address.is_unspecified() && self.address.is_ipv4() == family.is_ipv4();
        self.address == address
            || all(address)
            || (self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !self.v6only)
            || (address.is_unspecified() && address.is_ipv4() == self.address.is_ipv4())
    }
}

impl Sockets {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: Socket::open(NETLINK_SOCK_DIAG)?,
        })
    }

    /// All TCP and SCTP listeners and UDP sockets, both families. What the kernel does not have has no sockets.
    pub fn bound(&mut self) -> Result<Vec<Bound>> {
        let mut found = Vec::new();
        for (protocol, states) in [
            (Protocol::Tcp, LISTENING),
            (Protocol::Udp, ESTABLISHED | CLOSED),
            (Protocol::Sctp, LISTENING),
        ] {
            for family in [INET, INET6] {
                self.dump(family, protocol, states, &mut found)?;
            }
        }
        Ok(found)
    }

    fn dump(&mut self, family: u8, protocol: Protocol, states: u32, found: &mut Vec<Bound>) -> Result<()> {
        let mut w = Writer::default();
        let sequence = self.socket.next();
        w.message(BY_FAMILY, wire::REQUEST | wire::DUMP, sequence, |w| {
            // struct inet_diag_req_v2
            w.put(&[family, protocol as u8, 0, 0]);
            w.put(&states.to_ne_bytes());
            w.put(&[0; 48]);
        });
        let answers = self.socket.exchange(&w.finish()?, |message| {
            found.extend(parse(message, protocol));
        })?;
        let (operation, object) = ("list the sockets of", format!("{protocol:?}").to_lowercase());
        match answers.into_iter().next() {
            None => Err(Error::NoAnswer { operation, object }),
            Some(answer) => match answer.refused {
                None => Ok(()),
                Some((errno, message)) => {
                    let error = Error::Kernel {
                        operation,
                        object,
                        errno,
                        message,
                    };
                    // ENOENT: no such protocol, or a kernel without IPv6.
                    if error.is_gone() { Ok(()) } else { Err(error) }
                }
            },
        }
    }
}

/// `struct inet_diag_msg`: family, state, timer, retrans; source port, destination port (big-endian), source and
/// destination address (16 bytes each), link, cookie; expires, two queues, uid, inode; then attributes.
fn parse(message: Message<'_>, protocol: Protocol) -> Option<Bound> {
    const HEAD: usize = 72;
    const V6ONLY: u16 = 11;
    const STATE_ESTABLISHED: u8 = 1;
    let bytes = message.payload.get(..HEAD).filter(|_| message.kind == BY_FAMILY)?;
    let address = match *bytes.first()? {
        INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(8..12)?).ok()?)),
        INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?)),
        _ => return None,
    };
    let v6only = wire::attribute(message.payload.get(HEAD..)?, V6ONLY).and_then(|value| value.first().copied());
    let plain = address.to_canonical();
    Some(Bound {
        protocol,
        address: plain,
        port: wire::be16_at(bytes, 4)?,
        v6only: plain.is_ipv6() && (!plain.is_unspecified() || v6only == Some(1)),
        connected: bytes[1] == STATE_ESTABLISHED,
        link: wire::u32_at(bytes, 40).filter(|link| *link != 0),
        uid: wire::u32_at(bytes, 64)?,
        inode: wire::u32_at(bytes, 68)?.into(),
    })
    .filter(|bound| bound.port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_takes_what_is_sent_to_its_address() {
        let bound = |address: &str, v6only| Bound {
            protocol: Protocol::Tcp,
            address: address.parse().unwrap(),
            port: 80,
            v6only,
            connected: false,
            link: None,
            inode: 1,
            uid: 0,
        };
        for (held, v6only, asked, expected) in [
            ("0.0.0.0", false, "10.0.0.1", true),
            ("0.0.0.0", false, "fd00::1", false),
            ("0.0.0.0", false, "::", false),
            ("::", true, "10.0.0.1", false),
            ("::", true, "fd00::1", true),
            ("::", false, "10.0.0.1", true),
            ("::", false, "0.0.0.0", true),
            ("127.0.0.1", false, "10.0.0.1", false),
            ("127.0.0.1", false, "127.0.0.1", true),
            ("127.0.0.1", false, "0.0.0.0", true),
            ("127.0.0.1", false, "::", false),
            ("fd00::1", true, "::", true),
        ] {
            let takes = bound(held, v6only).takes(asked.parse().unwrap());
            assert_eq!(takes, expected, "{held} {v6only} {asked}");
        }
    }
}
