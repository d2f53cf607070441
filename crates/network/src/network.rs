//! What a network is: its definition, as the caller keeps it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, ipam};

/// What bridges are called whose name nobody chose.
pub const LINK_PREFIX: &str = "fb-";
/// The longest link name: `IFNAMSIZ` without its NUL.
const NAME_LENGTH: usize = 15;

/// A network. Everything is decided: nothing of it changes while it exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hex digits.
    pub id: String,
    /// For people.
    pub name: String,
    pub driver: Driver,
    /// At least one; a bridge has at most one of each family.
    pub ranges: Vec<Range>,
    /// Nothing goes from here to elsewhere, or comes in.
    pub internal: bool,
    pub mtu: u32,
    /// What interfaces in containers are called, before their number.
    pub prefix: String,
}

/// How a network's endpoints are connected. One that reaches over several hosts (VXLAN) will be one more kind: it needs a
/// bridge as well, and a link more in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    Bridge(Bridge),
    /// A link of its own on the wire of `parent`, with a MAC address of its own.
    Macvlan {
        parent: String,
        mode: Macvlan,
    },
    /// The same, with the parent's MAC address.
    Ipvlan {
        parent: String,
        mode: Ipvlan,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The bridge's name on the host.
    pub link: String,
    /// Containers of this network reach each other.
    pub icc: bool,
    /// Hide the containers' addresses behind the host's towards the outside.
    pub masquerade: bool,
    /// Hide them behind this one.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// Where ports are published when nothing else is said.
    #[serde(default)]
    pub binding: Option<IpAddr>,
    pub gateway4: Gateway,
    pub gateway6: Gateway,
}

/// How packets come from outside (Docker's `gateway_mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gateway {
    /// To published ports of the host's, which are translated.
    #[default]
    Nat,
    /// The same, and to every port of a container by those who have a route to it.
    Open,
    /// To published ports of the container's own address. Nothing is translated.
    Routed,
    /// The host has no address on this network.
    Isolated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Macvlan {
    Bridge,
    Private,
    Vepa,
    Passthru,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipvlan {
    L2,
    L3,
    L3s,
}

/// A subnet, and what of it is given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub subnet: IpNet,
    /// The containers' default gateway. On a bridge it is the host's own address.
    pub gateway: Option<IpAddr>,
    /// Automatic addresses come from here.
    #[serde(default)]
    pub pool: Option<IpNet>,
    /// Never given.
    #[serde(default)]
    pub reserved: Vec<IpAddr>,
}

impl Network {
    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            _ => None,
        }
    }

    /// The link of the host that shows that the network is there.
    pub fn link(&self) -> &str {
        match &self.driver {
            Driver::Bridge(bridge) => &bridge.link,
            Driver::Macvlan { parent, .. } | Driver::Ipvlan { parent, .. } => parent,
        }
    }

    pub fn has(&self, v6: bool) -> bool {
        self.range(v6).is_some()
    }

    /// The first range of the family.
    pub fn range(&self, v6: bool) -> Option<&Range> {
        self.ranges.iter().find(|range| range.is_v6() == v6)
    }

    /// The mode of a bridge's gateway; `Nat` for others.
    pub fn gateway_mode(&self, v6: bool) -> Gateway {
        self.bridge().map_or(Gateway::Nat, |bridge| match v6 {
            true => bridge.gateway6,
            false => bridge.gateway4,
        })
    }

    /// The address a container sends to what is elsewhere; none on a network that leads nowhere.
    pub fn way_out(&self, v6: bool) -> Option<IpAddr> {
        self.range(v6)?.gateway.filter(|_| !self.internal)
    }

    /// That its parts fit together.
    pub fn check(&self) -> Result<()> {
        for range in &self.ranges {
            range.check()?;
        }
        let several = |v6| self.ranges.iter().filter(|range| range.is_v6() == v6).count() > 1;
        if self.bridge().is_some() && (several(false) || several(true)) {
            return Err(Error::Unusable {
                what: format!("network {}", self.name),
                reason: "a bridge has one subnet of a family".to_owned(),
            });
        }
        for (index, range) in self.ranges.iter().enumerate() {
            let others = self.ranges.iter().take(index);
            if let Some(other) = others.into_iter().find(|other| overlap(&other.subnet, &range.subnet)) {
                return Err(Error::Unusable {
                    what: format!("subnet {}", range.subnet),
                    reason: format!("it overlaps {} of the same network", other.subnet),
                });
            }
        }
        if let Some(bridge) = self.bridge() {
            check_link_name(&bridge.link)?;
        }
        check_link_name(&format!("{}0", self.prefix))
    }
}

impl Range {
    pub fn is_v6(&self) -> bool {
        matches!(self.subnet, IpNet::V6(_))
    }

    fn check(&self) -> Result<()> {
        let unusable = |reason: String| {
            Err(Error::Unusable {
                what: format!("subnet {}", self.subnet),
                reason,
            })
        };
        if self.subnet != self.subnet.trunc() {
            return unusable(format!(
                "it has bits behind its prefix: did you mean {}?",
                self.subnet.trunc()
            ));
        }
        let widest = if self.is_v6() { 8 } else { 4 };
        if self.subnet.prefix_len() < widest {
            return unusable(format!("its prefix is shorter than {widest} bits"));
        }
        match self.subnet.addr() {
            address if address.is_multicast() || address.is_loopback() || address.is_unspecified() => {
                return unusable("its addresses cannot be a host's".to_owned());
            }
            _ => {}
        }
        for address in self.gateway.iter().chain(&self.reserved) {
            if !self.subnet.contains(address) {
                return unusable(format!("{address} is not in it"));
            }
        }
        if let Some(gateway) = self.gateway.filter(|gateway| !ipam::is_host(&self.subnet, *gateway)) {
            return unusable(format!("its gateway {gateway} is no address of a host"));
        }
        match &self.pool {
            Some(pool) if !self.subnet.contains(pool) => unusable(format!("the range {pool} is not in it")),
            _ => Ok(()),
        }
    }
}

/// True when the two share an address.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// A name that a link can have: 1 to 15 bytes, no slash, no white space, no colon, not `.` or `..`.
pub fn check_link_name(name: &str) -> Result<()> {
    let forbidden =
        |byte: u8| matches!(byte, b'/' | b':' | b'%') || byte.is_ascii_whitespace() || !byte.is_ascii_graphic();
    if name.is_empty() || name.len() > NAME_LENGTH || name == "." || name == ".." || name.bytes().any(forbidden) {
        return Err(Error::Invalid {
            what: "interface name (1 to 15 characters, without '/', ':', '%' and spaces)",
            text: name.to_owned(),
        });
    }
    Ok(())
}
