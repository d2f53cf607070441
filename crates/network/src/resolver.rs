//! A container's resolver, as its network namespace has it: two sockets at 127.0.0.11, and a table that leads port 53 to them.
//!
//! ```text
//!   client ─▶ 127.0.0.11:53 ─ requests ─▶ 127.0.0.11:A (udp), :B (tcp) ─▶ whoever holds the sockets
//!   client ◀─ 127.0.0.11:53 ─ answers ── 127.0.0.11:A, :B ◀───────────────┘
//! ```
//!
//! The sockets have ports of the kernel's choice, so that a server in the container can have port 53 of every address. The ports
//! are written into the packets one by one, without connection tracking: that would be switched on for the whole namespace,
//! make its end longer, and a table of connections can be full. Where the container tracks connections itself, its rules
//! see port 53 both ways, since requests change after them and answers before.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use ferry_netlink::nft::{Base, Batch, ChainKind, Command, Family, Field, Hook, Nft, Policy, PortOf, Statement, Value};
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType};

use crate::{Error, Result, namespace};

/// Where a container's resolv.conf points to.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The table's name in the container's namespace.
pub const TABLE: &str = "ferry-dns";
const PORT: u16 = 53;
/// Before and after everything that the container may have at this hook.
const FIRST: i32 = -450;
const LAST: i32 = 450;
/// Connections by TCP that nobody has accepted yet.
const BACKLOG: i32 = 32;

/// What comes in at 127.0.0.11; they do not block.
#[derive(Debug)]
pub struct Sockets {
    pub udp: OwnedFd,
    /// Listening.
    pub tcp: OwnedFd,
}

/// Opens the sockets in the calling thread's namespace, whose `lo` must be up, and leads port 53 to them, in the place of
/// those that were there before.
pub fn open_in_current() -> Result<Sockets> {
    let (udp, udp_port) = open(SocketType::DGRAM)?;
    let (tcp, tcp_port) = open(SocketType::STREAM)?;
    rustix::net::listen(&tcp, BACKLOG).map_err(failed("listen at"))?;
    Nft::open()?.commit(&table(udp_port, tcp_port))?;
    Ok(Sockets { udp, tcp })
}

/// The same in a namespace that lives, for a container that runs.
pub fn restore(netns: BorrowedFd<'_>) -> Result<Sockets> {
    namespace::inside(netns, open_in_current)
}

/// The batch that leads port 53 to these ports.
pub fn table(udp: u16, tcp: u16) -> Batch {
    let mut batch = Batch::new(Family::Ip, TABLE);
    batch.push(Command::AddTable { comment: None });
    for (name, priority) in [("answers", FIRST), ("requests", LAST)] {
        batch.chain(name, Some(output(priority)));
        batch.push(Command::FlushChain(name.to_owned()));
    }
    let lead = |address: Field, port: Field, from: u16, which: PortOf, to: u16| {
        vec![
            Statement::is(address, Value::Address(ADDRESS.into())),
            Statement::is(port, Value::Port(from)),
            Statement::SetPort { which, port: to },
        ]
    };
    let (to, from) = (Field::IpDaddr, Field::IpSaddr);
    batch.rule("requests", lead(to, Field::UdpDport, PORT, PortOf::UdpDestination, udp));
    batch.rule("requests", lead(to, Field::TcpDport, PORT, PortOf::TcpDestination, tcp));
    batch.rule("answers", lead(from, Field::UdpSport, udp, PortOf::UdpSource, PORT));
    batch.rule("answers", lead(from, Field::TcpSport, tcp, PortOf::TcpSource, PORT));
    batch
}

fn output(priority: i32) -> Base {
    Base {
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority,
        policy: Policy::Accept,
    }
}

fn open(kind: SocketType) -> Result<(OwnedFd, u16)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::INET, kind, flags, None).map_err(failed("open a socket for"))?;
    rustix::net::bind(socket.as_fd(), &SocketAddrV4::new(ADDRESS, 0)).map_err(failed("bind"))?;
    let address: SocketAddrAny = rustix::net::getsockname(socket.as_fd()).map_err(failed("ask for the port of"))?;
    let address = SocketAddrV4::try_from(address).map_err(failed("ask for the port of"))?;
    Ok((socket, address.port()))
}

fn failed(operation: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |errno| Error::Resolver {
        operation,
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_leads_port_53_there_and_back() {
        let text = super::table(4000, 5000).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "add table ip ferry-dns",
                "add chain ip ferry-dns answers { type filter hook output priority -450; policy accept; }",
                "flush chain ip ferry-dns answers",
                "add chain ip ferry-dns requests { type filter hook output priority 450; policy accept; }",
                "flush chain ip ferry-dns requests",
                "add rule ip ferry-dns requests ip daddr 127.0.0.11 udp dport 53 udp dport set 4000",
                "add rule ip ferry-dns requests ip daddr 127.0.0.11 tcp dport 53 tcp dport set 5000",
                "add rule ip ferry-dns answers ip saddr 127.0.0.11 udp sport 4000 udp sport set 53",
                "add rule ip ferry-dns answers ip saddr 127.0.0.11 tcp sport 5000 tcp sport set 53",
            ]
        );
    }
}
