//! The settings of a bridge network.

use std::net::Ipv4Addr;

use crate::{Addressing, Error, Result, Subnet};

#[derive(Debug, Clone)]
pub struct Config {
    pub network_id: String,
    /// The bridge's name, at most 15 bytes.
    pub name: String,
    /// One that the host does not use is chosen when not given.
    pub subnet: Option<Subnet>,
    /// The first address of the subnet when not given.
    pub gateway: Option<Ipv4Addr>,
    pub mtu: u32,
    /// Hide the containers' addresses behind the host's towards the outside.
    pub ip_masq: bool,
    /// Turn net.ipv4.ip_forward on while the bridge exists.
    pub forward: bool,
    /// The name of the firewall table.
    pub table: String,
    /// How many namespaces to keep ready.
    pub pool: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network_id: "bridge".to_owned(),
            name: "ferry0".to_owned(),
            subnet: None,
            gateway: None,
            mtu: 1500,
            ip_masq: true,
            forward: true,
            table: "ferry".to_owned(),
            pool: 0,
        }
    }
}

impl Config {
    /// What the configuration says of the subnet, if anything.
    pub fn addressing(&self) -> Option<Addressing> {
        let subnet = self.subnet?;
        let gateway = self.gateway.unwrap_or(subnet.first());
        Some(Addressing { subnet, gateway })
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.addressing() {
            Some(Addressing { subnet, gateway }) if !subnet.is_host(gateway) => Err(Error::BadSubnet {
                subnet,
                reason: "the gateway is not a host address in it",
            }),
            _ => Ok(()),
        }
    }
}
