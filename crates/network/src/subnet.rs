//! IPv4 subnets in CIDR notation.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// An IPv4 network: host bits are zero, `prefix` is 8 to 30 bits. As text and in serde `172.17.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of that size around `address`; `None` for a prefix below 8 or above 30.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let network = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
        (8..=30).contains(&prefix).then_some(Self { network, prefix })
    }

    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix))
    }

    /// The first host address, by custom the gateway's.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// How many host addresses there are, without network and broadcast.
    pub fn hosts(&self) -> u32 {
        !mask(self.prefix) - 1
    }

    /// True for an address that a host in this subnet can have.
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        self.overlaps(address, 32) && address != self.network && address != self.broadcast()
    }

    /// True when the two share an address. `prefix` above 32 counts as 32.
    pub fn overlaps(&self, other: Ipv4Addr, prefix: u8) -> bool {
        let mask = mask(self.prefix.min(prefix));
        self.network.to_bits() & mask == other.to_bits() & mask
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address = address.parse().ok()?;
            Self::containing(address, prefix.parse().ok()?).filter(|subnet| subnet.network == address)
        };
        parse().ok_or_else(|| Error::Invalid {
            what: "IPv4 subnet",
            text: text.to_owned(),
        })
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_knows_its_ends() {
        let subnet: Subnet = "172.17.0.0/16".parse().unwrap();
        assert_eq!(subnet.to_string(), "172.17.0.0/16");
        assert_eq!(
            (subnet.first().to_string(), subnet.broadcast().to_string()),
            ("172.17.0.1".into(), "172.17.255.255".into())
        );
        assert_eq!(subnet.hosts(), 65534);
        assert!(subnet.is_host("172.17.3.4".parse().unwrap()));
        assert!(!subnet.is_host("172.17.255.255".parse().unwrap()));
        assert!(!subnet.is_host("172.18.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_subnet_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.1/8",
            "10.0.0.0/7",
            "10.0.0.0/31",
            "10.0.0.0/999",
            "::/64",
            "10.0.0.0/8 ",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_larger_and_a_smaller_network_overlap_it() {
        let subnet: Subnet = "10.4.0.0/16".parse().unwrap();
        assert!(subnet.overlaps("10.0.0.0".parse().unwrap(), 8));
        assert!(subnet.overlaps("10.4.7.0".parse().unwrap(), 24));
        assert!(subnet.overlaps("0.0.0.0".parse().unwrap(), 0));
        assert!(!subnet.overlaps("10.5.0.0".parse().unwrap(), 16));
    }
}
