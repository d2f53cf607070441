//! What a container asks of a network, and what it got.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Limits, Mac};

/// What the names of host ends start with.
pub const PREFIX: &str = "fe-";
/// How many digits of the endpoint's id follow.
pub const NAMED: usize = 8;
/// What the alias of everything of ours starts with.
pub const ALIAS: &str = "ferry:";

/// A request to connect one container to one network.
#[derive(Debug, Clone, Default)]
pub struct Attach {
    /// The network's id.
    pub network: String,
    /// The container's id.
    pub id: String,
    pub hostname: String,
    /// Derived from the address when not given.
    pub mac: Option<Mac>,
    /// The next free one when not given.
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    /// Link-local and other addresses besides, without a check.
    pub more: Vec<IpAddr>,
    /// The network's prefix and the first free number when not given.
    pub ifname: Option<String>,
    /// Sysctls of the interface, with their key below /proc/sys/net in which `IFNAME` stands for it.
    pub sysctls: Vec<(String, String)>,
    /// Of several networks, that of the highest is the way out.
    pub priority: i64,
    /// The container's, of all its networks together.
    pub limits: Limits,
}

/// A container's place on a network, as it is kept in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hex digits, random.
    pub endpoint_id: String,
    pub network_id: String,
    /// The container's id.
    pub id: String,
    pub hostname: String,
    pub ip: Option<Ipv4Addr>,
    /// Bits of the subnet.
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    #[serde(default)]
    pub prefix6: u8,
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    pub mac: Mac,
    /// The host's end of the pair; empty where there is none.
    pub host_ifname: String,
    /// In the container.
    #[serde(default = "first_interface")]
    pub ifname: String,
    #[serde(default)]
    pub priority: i64,
}

fn first_interface() -> String {
    "eth0".to_owned()
}

impl Endpoint {
    /// What its host end says of itself.
    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS}{}", self.endpoint_id)
    }

    /// Its addresses with the bits of their subnets.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v4 = self.ip.map(|ip| (IpAddr::V4(ip), self.prefix));
        let v6 = self.ip6.map(|ip| (IpAddr::V6(ip), self.prefix6));
        v4.into_iter().chain(v6)
    }

    /// Where it sends what is elsewhere.
    pub fn gateway(&self, v6: bool) -> Option<IpAddr> {
        match v6 {
            true => self.gateway6.map(IpAddr::V6),
            false => self.gateway.map(IpAddr::V4),
        }
    }
}

/// The endpoint that is the way out for the family: the one of the highest priority, then of the first interface.
pub fn way_out(endpoints: &[Endpoint], v6: bool) -> Option<&Endpoint> {
    let candidates = endpoints.iter().filter(|endpoint| endpoint.gateway(v6).is_some());
    // The last of equals wins with max_by_key: hence the reverse.
    candidates.rev().max_by_key(|endpoint| endpoint.priority)
}

/// A new endpoint id.
pub fn random_id() -> std::io::Result<String> {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let mut text = String::with_capacity(64);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// The name of an endpoint's host end. Shorter ids than ours (a damaged record) give shorter names, never a panic.
pub fn host_name(endpoint_id: &str) -> String {
    format!("{PREFIX}{}", endpoint_id.chars().take(NAMED).collect::<String>())
}
