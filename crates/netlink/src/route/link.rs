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

/// What went through a link since it was made (`struct rtnl_link_stats64`), seen from this end: what a container
/// receives is what the host's end of its veth pair transmits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    pub received: Traffic,
    pub transmitted: Traffic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

pub fn statistics(message: Message<'_>) -> Option<Statistics> {
    if message.kind != request::NEW_LINK {
        return None;
    }
    let counters = wire::attribute(message.payload.get(16..)?, request::IFLA_STATS64)?;
    let counter = |number: usize| wire::u64_at(counters, number * 8);
    let traffic = |first: usize| {
        Some(Traffic {
            packets: counter(first)?,
            bytes: counter(first + 2)?,
            errors: counter(first + 4)?,
            dropped: counter(first + 6)?,
        })
    };
    Some(Statistics {
        received: traffic(0)?,
        transmitted: traffic(1)?,
    })
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
