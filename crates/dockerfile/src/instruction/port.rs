//! Ports of `EXPOSE`: `[[ip:]host:]port[-port][/protocol]`. What stands before the port is checked and means nothing.

use std::net::IpAddr;

use crate::error::Problem;

/// A range of ports, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub first: u16,
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// How a port is written, apart from which it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    pub protocol_has_capitals: bool,
    pub has_host: bool,
}

impl Port {
    pub fn parse(text: &str) -> Result<Self, Problem> {
        Self::parse_with(text).1
    }

    /// How it is written is known before it is known to be right.
    pub(crate) fn parse_with(text: &str) -> (Manner, Result<Self, Problem>) {
        let mut manner = Manner::default();
        let result = Self::read(text, &mut manner);
        (manner, result)
    }

    fn read(text: &str, manner: &mut Manner) -> Result<Self, Problem> {
        let mut parts = text.rsplitn(3, ':');
        let container = parts.next().unwrap_or_default();
        let host = parts.next().unwrap_or_default();
        let ip = parts.next().unwrap_or_default();
        let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
        let wrong = |what: &str| Problem::invalid(format!("invalid port: {}: {what}", ferry_kit::gofmt::quote(text)));
        if container.is_empty() {
            return Err(wrong("no port specified"));
        }
        let lower = match protocol.to_lowercase() {
            lower if lower.is_empty() => "tcp".to_owned(),
            lower if ["tcp", "udp", "sctp"].contains(&lower.as_str()) => lower,
            _ => return Err(wrong(&format!("invalid proto: {protocol}"))),
        };
        manner.protocol_has_capitals = !protocol.is_empty() && protocol != lower;
        manner.has_host = !ip.is_empty() || !host.is_empty();
        let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
        if !ip.is_empty() && bare.parse::<IpAddr>().is_err() {
            return Err(Problem::invalid(format!("invalid IP address: {bare}")));
        }
        let Some((first, last)) = range(container) else {
            return Err(Problem::invalid(format!("invalid containerPort: {container}")));
        };
        if !host.is_empty() {
            let Some((low, high)) = range(host) else {
                return Err(Problem::invalid(format!("invalid hostPort: {host}")));
            };
            if last - first != high - low && first != last {
                return Err(Problem::invalid(format!(
                    "invalid ranges specified for container and host Ports: {container} and {host}"
                )));
            }
        }
        Ok(Self {
            first,
            last,
            protocol: lower,
        })
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}
