//! What can go wrong when a container gets its network.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ports::{Holder, Protocol};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a link, an address, a route or a firewall change.
    #[error("the kernel's network could not be changed")]
    Netlink(#[from] ferry_netlink::Error),

    /// A network namespace could not be made or entered.
    #[error("could not {operation} a network namespace")]
    Namespace {
        operation: &'static str,
        #[source]
        source: io::Error,
    },

    /// The sockets of a container's resolver.
    #[error("could not {operation} 127.0.0.11, the resolver's address in the container's network namespace")]
    Resolver {
        operation: &'static str,
        #[source]
        source: io::Error,
    },

    /// A sysctl below /proc/sys/net could not be read or written.
    #[error("could not {operation} {key}")]
    Sysctl {
        operation: &'static str,
        key: String,
        #[source]
        source: io::Error,
    },

    /// A link of the bridge's name exists and is not ours.
    #[error("a link named {name} exists and does not belong to this network")]
    Taken { name: String },

    /// Every candidate overlaps another network, a route or an address of the host. The first half is Docker's text.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: \
         all of {pools} overlap networks or routes of the host ({tried} tried)"
    )]
    NoSubnet { tried: u64, pools: String },

    /// What was asked for cannot be.
    #[error("{what} is not usable: {reason}")]
    Unusable { what: String, reason: String },

    /// What was asked for is in use by somebody else.
    #[error("{subnet} overlaps {other}")]
    Overlap { subnet: IpNet, other: String },

    #[error("network {name} has active endpoints")]
    InUse { name: String },

    #[error("there is no network {id}")]
    NoNetwork { id: String },

    #[error("no free address is left in {subnet}")]
    Exhausted { subnet: IpNet },

    /// All ranges of the family are used up. The first half is Docker's text.
    #[error(
        "no available {family} addresses on this network's address pools: {name} ({id}): no free address is left in {subnet}"
    )]
    NoAddress {
        family: &'static str,
        name: String,
        id: String,
        subnet: IpNet,
    },

    /// The kernel's bridges have 1,023 ports.
    #[error(
        "network {name} is full: its bridge {link} has as many ports as the kernel gives one (1023); \
         create another network for further containers"
    )]
    Full { name: String, link: String },

    #[error("address {address} is already in use")]
    AddressInUse { address: IpAddr },

    #[error("address {address} is not a host address of {subnet}")]
    AddressOutside { address: IpAddr, subnet: IpNet },

    /// The kernel cannot do what a network's driver needs.
    #[error("this kernel has no {what}: {instead}")]
    Missing { what: &'static str, instead: &'static str },

    /// Somebody has the port.
    #[error("port {port}/{protocol} of {address} is already allocated")]
    PortTaken {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
        holder: Holder,
    },

    /// A port was to be published at an address that nobody could listen at here.
    #[error("{address} is no address of this host")]
    NotLocal { address: IpAddr, port: u16 },

    #[error("all ports of {first}-{last}/{protocol} are already allocated")]
    NoPort { protocol: Protocol, first: u16, last: u16 },

    /// Text that is no address, name, protocol or range.
    #[error("{text:?} is not a valid {what}")]
    Invalid { what: &'static str, text: String },

    /// The first failure of a clean-up that went on past it, and how many followed.
    #[error("clean-up was not complete ({others} more failures)")]
    CleanUp {
        #[source]
        first: Box<Error>,
        others: usize,
    },
}
