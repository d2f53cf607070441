//! A link as the kernel describes it.

use super::request;
use crate::wire::{self, Message};

const IF_OPER_UP: u8 = 6;

/// What Ferry wants to know of a link (`struct ifinfomsg` and its attributes).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// The free text of `ip link set alias`, by which Ferry knows its own.
    pub alias: Option<String>,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Index of the bridge or bond it is a port of.
    pub master: Option<u32>,
    /// 0 unless somebody set it.
    pub group: u32,
    /// Set up by its administrator; says nothing of the carrier.
    pub up: bool,
    /// It has a carrier and its queues and bridge know of it (RFC 2863 `up`). Asking for a single link makes the kernel
    /// bring this up to date first (Linux 6.8); before, it lags behind by a work item.
    pub operational: bool,
    /// `bridge`, `veth`, ...; `None` for hardware and `lo`.
    pub kind: Option<String>,
}

pub fn parse(message: Message<'_>) -> Option<Link> {
    if message.kind != request::NEW_LINK {
        return None;
    }
    let mut link = Link {
        index: wire::u32_at(message.payload, 4)?,
        up: wire::u32_at(message.payload, 8)? & request::IFF_UP != 0,
        ..Link::default()
    };
    for (kind, value) in wire::attributes(message.payload.get(16..)?) {
        match kind {
            request::IFLA_IFNAME => link.name = wire::text(value),
            request::IFLA_IFALIAS => link.alias = Some(wire::text(value)).filter(|text| !text.is_empty()),
            request::IFLA_ADDRESS => link.mac = value.try_into().ok(),
            request::IFLA_MTU => link.mtu = wire::u32_at(value, 0)?,
            request::IFLA_GROUP => link.group = wire::u32_at(value, 0)?,
            request::IFLA_OPERSTATE => link.operational = value.first() == Some(&IF_OPER_UP),
            request::IFLA_MASTER => link.master = wire::u32_at(value, 0).filter(|index| *index != 0),
            request::IFLA_LINKINFO => link.kind = wire::attribute(value, request::IFLA_INFO_KIND).map(wire::text),
            _ => {}
        }
    }
    Some(link)
}
