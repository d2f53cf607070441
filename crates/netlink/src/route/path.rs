//! A route with all that Ferry says of one.

use std::fmt;
use std::net::IpAddr;

use super::request::{BOOT, INET, LINK, MAIN, RTA_DST, RTA_GATEWAY, RTA_OIF, UNICAST, UNIVERSE, family, put_ip};
use crate::wire::Writer;

const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
/// The gateway is reached by the link although no address of the link says so.
const RTNH_F_ONLINK: u32 = 4;

/// A route in the main table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path {
    /// `None` or a prefix of 0: the default route, of IPv4 when no address here tells.
    pub destination: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
    /// The gateway need not be in a network of the link, which must be given.
    pub onlink: bool,
    /// The address that what the host sends this way comes from, unless the sender chose one.
    pub source: Option<IpAddr>,
    /// Among routes to the same destination the lowest is taken. An IPv6 route has 1024 when not given, IPv4's 0.
    pub metric: Option<u32>,
}

impl Path {
    pub(super) fn write(&self, w: &mut Writer) {
        let destination = self.destination.map(|(address, _)| address);
        let inet = destination.or(self.gateway).or(self.source).map_or(INET, family);
        let scope = if self.gateway.is_some() || inet != INET {
            UNIVERSE
        } else {
            LINK
        };
        let prefix = self.destination.map_or(0, |(_, prefix)| prefix);
        let flags = if self.onlink { RTNH_F_ONLINK } else { 0 };
        w.put(&[inet, prefix, 0, 0, MAIN, BOOT, scope, UNICAST]);
        w.put(&flags.to_ne_bytes());
        if let Some(address) = destination.filter(|_| prefix != 0) {
            put_ip(w, RTA_DST, address);
        }
        if let Some(gateway) = self.gateway {
            put_ip(w, RTA_GATEWAY, gateway);
        }
        if let Some(source) = self.source {
            put_ip(w, RTA_PREFSRC, source);
        }
        if let Some(link) = self.link {
            w.u32(RTA_OIF, link);
        }
        if let Some(metric) = self.metric {
            w.u32(RTA_PRIORITY, metric);
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.destination.filter(|(_, prefix)| *prefix != 0) {
            Some((address, prefix)) => write!(f, "{address}/{prefix}")?,
            None => f.write_str("default")?,
        }
        self.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        self.source.map_or(Ok(()), |source| write!(f, " src {source}"))?;
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))
    }
}
