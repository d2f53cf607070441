//! What can go wrong when a container gets its network.

use std::io;
use std::net::Ipv4Addr;

use crate::Subnet;

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

    /// Every candidate overlaps a route or an address of the host.
    #[error("no subnet is free: all of {tried} candidates ({first} to {last}) overlap the host's routes")]
    NoSubnet { tried: usize, first: Subnet, last: Subnet },

    /// The subnet and gateway of the configuration do not fit together.
    #[error("subnet {subnet} is not usable: {reason}")]
    BadSubnet { subnet: Subnet, reason: &'static str },

    #[error("no free address is left in {subnet}")]
    Exhausted { subnet: Subnet },

    #[error("address {address} is already in use")]
    AddressInUse { address: Ipv4Addr },

    #[error("address {address} is not a host address of {subnet}")]
    AddressOutside { address: Ipv4Addr, subnet: Subnet },

    /// Text that is no subnet or MAC address.
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
