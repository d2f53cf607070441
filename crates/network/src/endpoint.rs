//! What a container asks of the network, and what it got.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::Mac;

/// The name of the interface inside the container.
pub const INTERFACE: &str = "eth0";
/// What the names of host ends start with.
pub const PREFIX: &str = "fe-";
/// How many digits of the endpoint's id follow.
pub const NAMED: usize = 8;
/// What the alias of everything of ours starts with.
pub const ALIAS: &str = "ferry:";

/// A request to connect one container.
#[derive(Debug, Clone, Default)]
pub struct Attach {
    /// The container's id.
    pub id: String,
    pub hostname: String,
    /// Derived from the address when not given.
    pub mac: Option<Mac>,
    /// The next free one when not given.
    pub ip: Option<Ipv4Addr>,
    /// Turns IPv6 on for the interface. It is off otherwise: a container without an IPv6 network must not get one from
    /// whoever advertises routes on the wire.
    pub ipv6: bool,
}

/// A connected container, as it is kept in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hex digits, random.
    pub endpoint_id: String,
    pub network_id: String,
    /// The container's id.
    pub id: String,
    pub hostname: String,
    pub ip: Ipv4Addr,
    /// Bits of the subnet.
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub mac: Mac,
    /// The host's end of the pair.
    pub host_ifname: String,
}

impl Endpoint {
    /// What its host end says of itself.
    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS}{}", self.endpoint_id)
    }
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
