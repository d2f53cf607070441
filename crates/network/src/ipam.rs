//! Which subnet the bridge gets, and which address each endpoint.
//!
//! Addresses go round: the next one is looked for after the last one given, so an address comes back as late as
//! possible and whoever still talks to the old container finds nobody instead of somebody else. Each address knows its
//! holder; only the holder can give it back, so releasing twice does not take it from the next one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Addressing, Error, Result, Subnet};

/// Routes wider than this are a default route in disguise (VPNs set 0.0.0.0/1), not a network to keep clear of.
const WIDEST_ROUTE: u8 = 8;

/// The first candidate that shares no address with `used` (the host's addresses and routes): 172.17.0.0/16 to
/// 172.31.0.0/16, then 10.0.0.0/16 to 10.255.0.0/16.
pub fn choose(used: &[(IpAddr, u8)]) -> Result<Subnet> {
    let candidates = || {
        let class_b = (17..=31).map(|b| Ipv4Addr::new(172, b, 0, 0));
        let class_a = (0..=255).map(|b| Ipv4Addr::new(10, b, 0, 0));
        class_b
            .chain(class_a)
            .filter_map(|network| Subnet::containing(network, 16))
    };
    let ends = || candidates().next().zip(candidates().next_back());
    match (candidates().find(|subnet| is_free(*subnet, used)), ends()) {
        (Some(subnet), _) => Ok(subnet),
        (None, Some((first, last))) => Err(Error::NoSubnet {
            tried: candidates().count(),
            first,
            last,
        }),
        (None, None) => Err(Error::Invalid {
            what: "list of subnets",
            text: String::new(),
        }),
    }
}

/// True when `subnet` shares no address with `used`.
pub fn is_free(subnet: Subnet, used: &[(IpAddr, u8)]) -> bool {
    !used.iter().any(|(address, prefix)| match address {
        IpAddr::V4(v4) => *prefix >= WIDEST_ROUTE && subnet.overlaps(*v4, *prefix),
        IpAddr::V6(_) => false,
    })
}

/// The addresses of one subnet.
#[derive(Debug)]
pub struct Ipam {
    subnet: Subnet,
    gateway: Ipv4Addr,
    /// Address to holder.
    taken: HashMap<Ipv4Addr, String>,
    last: Ipv4Addr,
}

impl Ipam {
    pub fn new(addressing: Addressing) -> Self {
        let Addressing { subnet, gateway } = addressing;
        Self {
            subnet,
            gateway,
            taken: HashMap::new(),
            last: gateway,
        }
    }

    /// Gives `holder` the address it asks for, or the next free one.
    pub fn allocate(&mut self, wanted: Option<Ipv4Addr>, holder: &str) -> Result<Ipv4Addr> {
        let address = match wanted {
            Some(address) if !self.subnet.is_host(address) => {
                return Err(Error::AddressOutside {
                    address,
                    subnet: self.subnet,
                });
            }
            Some(address) if !self.is_free(address) => return Err(Error::AddressInUse { address }),
            Some(address) => address,
            None => {
                let next = self.next().ok_or(Error::Exhausted { subnet: self.subnet })?;
                self.last = next;
                next
            }
        };
        self.taken.insert(address, holder.to_owned());
        Ok(address)
    }

    /// Frees the address if `holder` has it.
    pub fn release(&mut self, address: Ipv4Addr, holder: &str) {
        if self.taken.get(&address).is_some_and(|found| found == holder) {
            self.taken.remove(&address);
        }
    }

    pub fn addressing(&self) -> Addressing {
        Addressing {
            subnet: self.subnet,
            gateway: self.gateway,
        }
    }

    pub fn is_unused(&self) -> bool {
        self.taken.is_empty()
    }

    /// Everyone who has an address.
    pub fn holders(&self) -> impl Iterator<Item = &str> {
        self.taken.values().map(String::as_str)
    }

    /// True when any address is `holder`'s.
    pub fn holds(&self, holder: &str) -> bool {
        self.taken.values().any(|found| found == holder)
    }

    fn next(&self) -> Option<Ipv4Addr> {
        if self.taken.len() >= usize::try_from(self.subnet.hosts()).unwrap_or(usize::MAX) {
            return None;
        }
        let (first, hosts) = (self.subnet.first().to_bits(), self.subnet.hosts());
        let start = self.last.to_bits().wrapping_sub(first);
        (1..=hosts)
            .map(|step| Ipv4Addr::from_bits(first + (start + step) % hosts))
            .find(|address| self.is_free(*address))
    }

    fn is_free(&self, address: Ipv4Addr) -> bool {
        address != self.gateway && !self.taken.contains_key(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(subnet: &str) -> Ipam {
        let subnet: Subnet = subnet.parse().unwrap();
        Ipam::new(Addressing {
            subnet,
            gateway: subnet.first(),
        })
    }

    fn used(text: &[(&str, u8)]) -> Vec<(IpAddr, u8)> {
        text.iter()
            .map(|(address, prefix)| (address.parse().unwrap(), *prefix))
            .collect()
    }

    #[test]
    fn the_first_subnet_is_dockers() {
        assert_eq!(choose(&[]).unwrap().to_string(), "172.17.0.0/16");
    }

    #[test]
    fn a_subnet_the_host_uses_is_avoided() {
        let busy = used(&[
            ("172.17.0.1", 32),
            ("172.18.4.0", 24),
            ("172.19.0.0", 16),
            ("0.0.0.0", 1),
            ("fd00::", 8),
        ]);
        assert_eq!(choose(&busy).unwrap().to_string(), "172.20.0.0/16");
        let vpn = used(&[("172.16.0.0", 12), ("10.0.0.0", 10)]);
        assert_eq!(choose(&vpn).unwrap().to_string(), "10.64.0.0/16");
        let full = used(&[("172.16.0.0", 12), ("10.0.0.0", 8)]);
        let error = choose(&full).unwrap_err().to_string();
        assert_eq!(
            error,
            "no subnet is free: all of 271 candidates (172.17.0.0/16 to 10.255.0.0/16) overlap the host's routes"
        );
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut ipam = ipam("10.0.0.0/29");
        let given: Vec<_> = (0..5)
            .map(|n| ipam.allocate(None, &n.to_string()).unwrap().octets()[3])
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(matches!(ipam.allocate(None, "x"), Err(Error::Exhausted { .. })));
        ipam.release(Ipv4Addr::new(10, 0, 0, 3), "1");
        ipam.release(Ipv4Addr::new(10, 0, 0, 2), "0");
        assert_eq!(ipam.allocate(None, "a").unwrap().octets()[3], 2);
        ipam.release(Ipv4Addr::new(10, 0, 0, 2), "a");
        assert_eq!(ipam.allocate(None, "b").unwrap().octets()[3], 3);
    }

    #[test]
    fn only_the_holder_gives_an_address_back() {
        let mut ipam = ipam("10.0.0.0/29");
        let address = ipam.allocate(None, "a").unwrap();
        ipam.release(address, "a");
        assert_eq!(ipam.allocate(Some(address), "b").unwrap(), address);
        ipam.release(address, "a");
        assert!(ipam.holds("b"));
        assert!(matches!(
            ipam.allocate(Some(address), "c"),
            Err(Error::AddressInUse { .. })
        ));
    }

    #[test]
    fn an_address_must_be_a_host_of_the_subnet() {
        let mut ipam = ipam("10.0.0.0/24");
        for wrong in ["10.0.0.0", "10.0.0.255", "10.0.1.2", "192.168.0.1"] {
            assert!(matches!(
                ipam.allocate(Some(wrong.parse().unwrap()), "a"),
                Err(Error::AddressOutside { .. })
            ));
        }
        assert!(matches!(
            ipam.allocate(Some("10.0.0.1".parse().unwrap()), "a"),
            Err(Error::AddressInUse { .. })
        ));
    }
}
