//! Which subnets networks get, and which addresses endpoints.
//!
//! Addresses go round: the next one is looked for after the last one given, so an address comes back as late as
//! possible and whoever still talks to the old container finds nobody instead of somebody else. Each address knows its
//! holder; only the holder can give it back, so releasing twice does not take it from the next one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::network::{Range, overlap};
use crate::{Error, Result};

/// Routes wider than this are a default route in disguise (VPNs set 0.0.0.0/1), not a network to keep clear of.
const WIDEST_ROUTE: u8 = 8;

/// Subnets of `size` bits are cut from `base`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub base: IpNet,
    pub size: u8,
}

impl Pool {
    /// That its parts fit together.
    pub fn check(&self) -> Result<()> {
        let widest = if matches!(self.base, IpNet::V6(_)) { 128 } else { 30 };
        if self.size < self.base.prefix_len() || self.size > widest || self.base != self.base.trunc() {
            return Err(Error::Unusable {
                what: format!("address pool {} of size {}", self.base, self.size),
                reason: "the size is that of a subnet inside the base, which has no bits behind its prefix".to_owned(),
            });
        }
        Ok(())
    }
}

/// Where the subnets of networks come from that ask for none.
#[derive(Debug, Clone)]
pub struct Pools(Vec<Pool>);

impl Pools {
    /// Docker's first fifteen, 172.17.0.0/16 to 172.31.0.0/16, then 4,096 of 10.0.0.0/8; and /64s of `unique_local`, the
    /// machine's own /48 (RFC 4193).
    pub fn usual(unique_local: Ipv6Net) -> Self {
        let v4 = |a, b, prefix, size| Pool {
            base: Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix).into(),
            size,
        };
        let class_b = (17..=31).map(|b| v4(172, b, 16, 16));
        let rest = [
            v4(10, 0, 8, 20),
            Pool {
                base: unique_local.into(),
                size: 64,
            },
        ];
        Self(class_b.chain(rest).collect())
    }

    /// Those of the configuration; a family that it does not mention keeps the usual ones.
    pub fn configured(pools: &[Pool], unique_local: Ipv6Net) -> Result<Self> {
        let v6 = |pool: &Pool| matches!(pool.base, IpNet::V6(_));
        pools.iter().try_for_each(Pool::check)?;
        let usual = Self::usual(unique_local).0;
        let missing = |family: bool| !pools.iter().any(|pool| v6(pool) == family);
        let (no_v4, no_v6) = (missing(false), missing(true));
        let kept = usual.into_iter().filter(|pool| if v6(pool) { no_v6 } else { no_v4 });
        Ok(Self(pools.iter().copied().chain(kept).collect()))
    }

    /// The first subnet that shares no address with `used`.
    pub fn choose(&self, v6: bool, used: &[IpNet]) -> Result<IpNet> {
        let pools = || self.0.iter().filter(|pool| matches!(pool.base, IpNet::V6(_)) == v6);
        let mut tried = 0_u64;
        for pool in pools() {
            // By where they begin, the wider first: two of them are apart, or one is in the other.
            let mut blocking: Vec<_> = used.iter().filter(|used| overlap(used, &pool.base)).collect();
            blocking.sort_by_key(|used| (used.network(), used.prefix_len()));
            let mut blocking = blocking.into_iter().peekable();
            let mut candidate = Some(IpNet::new_assert(pool.base.network(), pool.size));
            while let Some(subnet) = candidate.filter(|subnet| pool.base.contains(subnet)) {
                tried += 1;
                while blocking.next_if(|used| used.broadcast() < subnet.network()).is_some() {}
                let Some(block) = blocking.peek().filter(|used| overlap(used, &subnet)) else {
                    return Ok(subnet);
                };
                // Behind what is in the way, however wide that is.
                candidate = behind(if block.prefix_len() < pool.size { block } else { &subnet }, pool.size);
            }
        }
        let list: Vec<_> = pools().map(|pool| format!("{} in /{}", pool.base, pool.size)).collect();
        let list = match list.as_slice() {
            [first, .., last] if list.len() > 4 => format!("{first} … {last}"),
            _ => list.join(", "),
        };
        Err(Error::NoSubnet { tried, pools: list })
    }
}

/// The subnet of that size right behind `block`.
fn behind(block: &IpNet, size: u8) -> Option<IpNet> {
    let after = match block.broadcast() {
        IpAddr::V4(last) => IpAddr::V4(Ipv4Addr::from_bits(last.to_bits().checked_add(1)?)),
        IpAddr::V6(last) => IpAddr::V6(Ipv6Addr::from_bits(last.to_bits().checked_add(1)?)),
    };
    IpNet::new(after, size).ok()
}

/// The host's routes and addresses that a new network must keep clear of.
pub fn in_the_way(used: impl IntoIterator<Item = (IpAddr, u8)>) -> Vec<IpNet> {
    let nets = used.into_iter().filter(|(_, prefix)| *prefix >= WIDEST_ROUTE);
    nets.filter_map(|(address, prefix)| IpNet::new(address, prefix).ok())
        .map(|net| net.trunc())
        .collect()
}

/// The machine's own /48 of fd00::/8, the same for the same seed.
pub fn unique_local(seed: &str) -> Ipv6Net {
    // FNV-1a: it need not be secret, only different from the neighbours'.
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let bits = (0xfd_u128 << 120) | (u128::from(hash >> 24) << 80);
    Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), 48).trunc()
}

/// The first host address of a subnet, by custom the gateway's.
pub fn first(subnet: &IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) if net.prefix_len() >= 31 => net.network().into(),
        IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits() + 1).into(),
        IpNet::V6(net) if net.prefix_len() >= 127 => net.network().into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits() + 1).into(),
    }
}

/// The addresses of one range.
#[derive(Debug)]
pub struct Addresses {
    range: Range,
    /// Address to holder.
    taken: HashMap<IpAddr, String>,
    last: u128,
}

impl Addresses {
    pub fn new(range: Range) -> Self {
        let (start, _) = bounds(range.pool.as_ref().unwrap_or(&range.subnet));
        Self {
            last: start.saturating_sub(1),
            taken: HashMap::new(),
            range,
        }
    }

    pub fn range(&self) -> &Range {
        &self.range
    }

    /// Gives `holder` the address it asks for, or the next free one.
    pub fn allocate(&mut self, wanted: Option<IpAddr>, holder: &str) -> Result<IpAddr> {
        let subnet = self.range.subnet;
        let address = match wanted {
            Some(address) if !is_host(&subnet, address) => return Err(Error::AddressOutside { address, subnet }),
            Some(address) if !self.is_free(address) => return Err(Error::AddressInUse { address }),
            Some(address) => address,
            None => {
                let next = self.next().ok_or(Error::Exhausted {
                    subnet: self.range.pool.unwrap_or(subnet),
                })?;
                self.last = bits(next);
                next
            }
        };
        self.taken.insert(address, holder.to_owned());
        Ok(address)
    }

    /// Frees the address if `holder` has it.
    pub fn release(&mut self, address: IpAddr, holder: &str) {
        if self.taken.get(&address).is_some_and(|found| found == holder) {
            self.taken.remove(&address);
        }
    }

    /// Who has the address.
    pub fn holder(&self, address: IpAddr) -> Option<&str> {
        self.taken.get(&address).map(String::as_str)
    }

    pub fn is_unused(&self) -> bool {
        self.taken.is_empty()
    }

    /// True for an address in the range that nobody has.
    pub fn is_nobodys(&self, address: IpAddr) -> bool {
        self.range.subnet.contains(&address) && !self.taken.contains_key(&address)
    }

    fn next(&self) -> Option<IpAddr> {
        let (first, last) = bounds(self.range.pool.as_ref().unwrap_or(&self.range.subnet));
        let count = (last - first).saturating_add(1);
        // More than that cannot be in the way one after another.
        let most = u128::try_from(self.taken.len() + self.range.reserved.len() + 4).unwrap_or(count);
        let start = match self.last.checked_sub(first) {
            Some(offset) => offset.wrapping_add(1) % count,
            None => 0,
        };
        (0..count.min(most))
            .map(|step| self.address(first + (start + step) % count))
            .find(|address| is_host(&self.range.subnet, *address) && self.is_free(*address))
    }

    fn is_free(&self, address: IpAddr) -> bool {
        Some(address) != self.range.gateway
            && !self.range.reserved.contains(&address)
            && !self.taken.contains_key(&address)
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.range.subnet {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

/// True for an address that a host in this subnet can have: neither the network's own nor, in IPv4, the broadcast.
pub fn is_host(subnet: &IpNet, address: IpAddr) -> bool {
    let small = subnet.max_prefix_len() - subnet.prefix_len() < 2;
    let edge = address == subnet.network() || (address.is_ipv4() && address == subnet.broadcast());
    subnet.contains(&address) && (small || !edge)
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// First and last address.
fn bounds(net: &IpNet) -> (u128, u128) {
    (bits(net.network()), bits(net.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(subnet: &str) -> Addresses {
        let subnet: IpNet = subnet.parse().unwrap();
        Addresses::new(Range {
            subnet,
            gateway: Some(first(&subnet)),
            pool: None,
            reserved: Vec::new(),
        })
    }

    fn used(text: &[&str]) -> Vec<IpNet> {
        in_the_way(text.iter().map(|text| {
            let net: IpNet = text.parse().unwrap();
            (net.addr(), net.prefix_len())
        }))
    }

    fn usual() -> Pools {
        Pools::usual(unique_local("x"))
    }

    fn chosen(busy: &[&str]) -> String {
        usual().choose(false, &used(busy)).unwrap().to_string()
    }

    #[test]
    fn the_first_subnet_is_dockers() {
        assert_eq!(chosen(&[]), "172.17.0.0/16");
    }

    #[test]
    fn a_subnet_the_host_uses_is_avoided() {
        let busy = [
            "172.17.0.1/32",
            "172.18.4.0/24",
            "172.19.0.0/16",
            "0.0.0.0/1",
            "fd00::/8",
        ];
        assert_eq!(chosen(&busy), "172.20.0.0/16");
        assert_eq!(chosen(&["172.16.0.0/12", "10.0.0.0/10"]), "10.64.0.0/20");
        let error = usual()
            .choose(false, &used(&["172.16.0.0/12", "10.0.0.0/8"]))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: \
             all of 172.17.0.0/16 in /16 … 10.0.0.0/8 in /20 overlap networks or routes of the host (16 tried)"
        );
    }

    #[test]
    fn two_thousand_networks_fit() {
        let mut taken = Vec::new();
        for _ in 0..2_000 {
            let subnet = usual().choose(false, &taken).unwrap();
            assert!(taken.iter().all(|other| !overlap(other, &subnet)), "{subnet}");
            taken.push(subnet);
        }
    }

    #[test]
    fn unique_local_subnets_are_the_machines_own() {
        let one = unique_local("one");
        assert_eq!(one, unique_local("one"));
        assert_ne!(one, unique_local("two"));
        assert!(one.to_string().starts_with("fd") && one.prefix_len() == 48, "{one}");
        let pools = Pools::usual(one);
        let subnet = pools.choose(true, &[]).unwrap();
        assert!(one.contains(&match subnet {
            IpNet::V6(net) => net,
            IpNet::V4(_) => panic!("{subnet}"),
        }));
        assert_ne!(pools.choose(true, &[subnet]).unwrap(), subnet);
    }

    #[test]
    fn pools_are_those_of_the_configuration() {
        let pool = |base: &str, size| Pool {
            base: base.parse().unwrap(),
            size,
        };
        let pools = Pools::configured(&[pool("192.168.0.0/16", 24)], unique_local("x")).unwrap();
        assert_eq!(pools.choose(false, &[]).unwrap().to_string(), "192.168.0.0/24");
        assert!(pools.choose(true, &[]).is_ok());
        for wrong in [
            pool("192.168.0.0/16", 8),
            pool("192.168.0.0/16", 31),
            pool("192.168.1.0/16", 24),
        ] {
            assert!(Pools::configured(&[wrong], unique_local("x")).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_freed_address_comes_back_last() {
        let mut addresses = addresses("10.0.0.0/29");
        let last = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => 0,
        };
        let given: Vec<_> = (0..5)
            .map(|n| last(addresses.allocate(None, &n.to_string()).unwrap()))
            .collect();
        assert_eq!(given, [2, 3, 4, 5, 6]);
        assert!(matches!(addresses.allocate(None, "x"), Err(Error::Exhausted { .. })));
        addresses.release("10.0.0.3".parse().unwrap(), "1");
        addresses.release("10.0.0.2".parse().unwrap(), "0");
        assert_eq!(last(addresses.allocate(None, "a").unwrap()), 2);
        addresses.release("10.0.0.2".parse().unwrap(), "a");
        assert_eq!(last(addresses.allocate(None, "b").unwrap()), 3);
    }

    #[test]
    fn only_the_holder_gives_an_address_back() {
        let mut addresses = addresses("10.0.0.0/29");
        let address = addresses.allocate(None, "a").unwrap();
        addresses.release(address, "a");
        assert_eq!(addresses.allocate(Some(address), "b").unwrap(), address);
        addresses.release(address, "a");
        assert!(matches!(
            addresses.allocate(Some(address), "c"),
            Err(Error::AddressInUse { .. })
        ));
    }

    #[test]
    fn an_address_must_be_a_host_of_the_subnet() {
        let mut addresses = addresses("10.0.0.0/24");
        for outside in ["10.0.0.0", "10.0.0.255", "10.0.1.1", "fd00::1"] {
            let wanted = outside.parse().unwrap();
            assert!(
                matches!(addresses.allocate(Some(wanted), "a"), Err(Error::AddressOutside { .. })),
                "{outside}"
            );
        }
        let gateway = "10.0.0.1".parse().unwrap();
        assert!(matches!(
            addresses.allocate(Some(gateway), "a"),
            Err(Error::AddressInUse { .. })
        ));
    }

    #[test]
    fn automatic_addresses_come_from_the_pool_and_pass_over_what_is_reserved() {
        let mut addresses = Addresses::new(Range {
            subnet: "10.1.0.0/16".parse().unwrap(),
            gateway: Some("10.1.5.1".parse().unwrap()),
            pool: Some("10.1.5.0/29".parse().unwrap()),
            reserved: vec!["10.1.5.2".parse().unwrap(), "10.1.5.4".parse().unwrap()],
        });
        let mut given = Vec::new();
        while let Ok(address) = addresses.allocate(None, "x") {
            given.push(address.to_string());
        }
        assert_eq!(given, ["10.1.5.0", "10.1.5.3", "10.1.5.5", "10.1.5.6", "10.1.5.7"]);
        assert!(addresses.allocate(Some("10.1.9.9".parse().unwrap()), "y").is_ok());
    }

    #[test]
    fn an_ipv6_subnet_is_not_counted_through() {
        let mut addresses = addresses("fd00:1::/64");
        assert_eq!(addresses.allocate(None, "a").unwrap().to_string(), "fd00:1::2");
        assert_eq!(addresses.allocate(None, "b").unwrap().to_string(), "fd00:1::3");
    }
}
