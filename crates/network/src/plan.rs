//! What to change so that the host has the networks it should have, as a value: decided without a system call, printed in
//! tests, applied by [`crate::apply`].
//!
//! The order of steps matters: the firewall stands before forwarding is turned on and falls after it is turned off.
//!
//! IPv4 forwarding is turned on link by link, and for links to come; `net.ipv4.ip_forward` stays what it is. That is for who
//! wants the whole host to forward, a Docker that starts later or an administrator: from then on the host forwards what is
//! not ours as well, and what has been turned on is not ours to turn off. IPv6 has only one switch for all.
//!
//! That forwarding was off before is noted in two places: the [`Record`], which the caller keeps, and the table's comment,
//! for the case that the caller ends before it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ferry_netlink::nft::Batch;
use ferry_netlink::route::{Address, Link, Port};
use serde::{Deserialize, Serialize};

use crate::endpoint::{ALIAS, PREFIX};
use crate::firewall::{Firewall, IPV4_WAS_OFF, IPV6_WAS_OFF};
use crate::limit;
use crate::{Error, Mac, Result};

pub const IP_FORWARD: &str = "ipv4/ip_forward";
/// What links made later begin with. It is on beside an `ip_forward` that is off only when it was us.
pub const LATER_LINKS: &str = "ipv4/conf/default/forwarding";
pub const IP6_FORWARD: &str = "ipv6/conf/all/forwarding";

/// What is there now.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    /// The value of net.ipv4.ip_forward, and of net.ipv6.conf.all.forwarding.
    pub ip_forward: Option<String>,
    /// While the former is 0: whether links made later forward IPv4, and each link by name, but `lo` and host ends.
    pub later_forward: bool,
    pub links_forward: BTreeMap<String, bool>,
    pub ip6_forward: Option<String>,
    /// Links that take router advertisements as long as the host does not forward: their names.
    pub advertised: Vec<String>,
    /// Our firewall table, if there is one.
    pub table: Option<TableState>,
}

#[derive(Debug, Clone, Default)]
pub struct TableState {
    pub comment: Option<String>,
    /// Nobody changed any rule of the host since we last did. False when that is not known.
    pub intact: bool,
}

/// What should be there.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The bridges that shall be there.
    pub bridges: Vec<BridgeLink>,
    /// The ids of all our networks: a bridge of one of these that is not in `bridges` goes when nothing shall be there.
    pub networks: BTreeSet<String>,
    /// `None`: nothing of ours shall be there. Whether forwarding was off is filled in here.
    pub firewall: Option<Firewall>,
    /// The name of the firewall's table.
    pub table: String,
    /// Turn on forwarding, of IPv4 and of IPv6.
    pub forward: (bool, bool),
    /// The ids of all endpoints in use, and where each belongs.
    pub endpoints: BTreeMap<String, Place>,
    /// The names of the queues of limited containers.
    pub queues: BTreeSet<String>,
    /// `endpoints` and `queues` are complete: host ends and queues of others go.
    pub prune: bool,
    /// What earlier plans changed.
    pub record: Record,
}

impl Desired {
    /// Without the bridge of that name, and the rules of its network.
    pub fn leave_out(&mut self, name: &str) {
        self.bridges.retain(|bridge| bridge.name != name);
        if let Some(firewall) = &mut self.firewall {
            firewall.networks.retain(|network| network.link() != name);
        }
    }
}

/// Where the host end of an endpoint belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    pub bridge: String,
    pub port: Port,
}

/// A bridge as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeLink {
    pub name: String,
    pub network_id: String,
    pub mac: Mac,
    pub mtu: u32,
    /// The host's own addresses in it. A family without one is left alone.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// What Ferry changed on the host that is not recognisable as its own, to be put back. Keep it across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub sysctls: Vec<Sysctl>,
    /// The boot in which the sysctls were changed: the next one starts with values of its own.
    pub boot: String,
}

/// One changed sysctl; `key` is a path below /proc/sys/net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    pub key: String,
    pub before: String,
    pub set: String,
}

impl Sysctl {
    /// IPv4 forwarding turned on for links to come, which says that it was us who turned it on for those that are there.
    pub fn later_links() -> Self {
        Self::on(LATER_LINKS)
    }

    /// A link that forwarded before we came, and shall after.
    fn kept(link: &str) -> Self {
        Self {
            before: "1".to_owned(),
            ..Self::on(&link_forwards(link))
        }
    }

    fn on(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            before: "0".to_owned(),
            set: "1".to_owned(),
        }
    }

    /// A host that forwards takes router advertisements only on links that say 2.
    fn advertised(link: &str) -> Self {
        Self {
            key: format!("ipv6/conf/{link}/accept_ra"),
            before: "1".to_owned(),
            set: "2".to_owned(),
        }
    }
}

fn link_forwards(link: &str) -> String {
    format!("ipv4/conf/{link}/forwarding")
}

impl Record {
    fn has(&self, key: &str) -> bool {
        self.sysctls.iter().any(|sysctl| sysctl.key == key)
    }
}

impl Observed {
    /// `record` with what is known from the table's comment alone, and without what somebody else has decided since.
    pub fn recall(&self, mut record: Record) -> Record {
        let host_forwards = self.ip_forward.as_deref() == Some("1");
        if host_forwards {
            record.sysctls.retain(|sysctl| !sysctl.key.starts_with("ipv4/conf/"));
        }
        let comment = self
            .table
            .as_ref()
            .and_then(|table| table.comment.as_deref())
            .unwrap_or_default();
        for (word, key, over) in [
            (IPV4_WAS_OFF, LATER_LINKS, host_forwards),
            (IPV6_WAS_OFF, IP6_FORWARD, false),
        ] {
            if !over && comment.split(' ').any(|found| found == word) && !record.has(key) {
                record.sysctls.push(Sysctl::on(key));
            }
        }
        record
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Firewall(Batch),
    CreateBridge {
        name: String,
        alias: String,
        mac: Mac,
        mtu: u32,
    },
    AddAddress {
        link: String,
        address: IpAddr,
        prefix: u8,
    },
    DeleteAddress {
        link: String,
        address: IpAddr,
        prefix: u8,
    },
    /// Makes the link a port of the bridge.
    Enslave {
        link: String,
        place: Place,
    },
    Up {
        link: String,
    },
    /// A sysctl that goes away with its link.
    LinkSysctl {
        key: String,
        value: String,
    },
    /// A sysctl of the host's, which is recorded.
    SetSysctl(Sysctl),
    /// Puts a sysctl back to what it was, unless somebody else changed it since.
    RestoreSysctl(Sysctl),
    DeleteLink {
        name: String,
    },
}

/// Steps in their order. Prints one a line; empty when all is as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// The steps from `observed` to `desired`.
///
/// # Errors
///
/// [`Error::Taken`] when a link of a bridge's name exists and is not that network's bridge. A bridge another Ferry left
/// without a port counts as nobody's and is replaced.
pub fn plan(observed: &Observed, desired: &Desired) -> Result<Plan> {
    let mut steps = Vec::new();
    let mut found = Vec::with_capacity(desired.bridges.len());
    for wanted in &desired.bridges {
        found.push(find_bridge(&mut steps, observed, wanted)?);
    }
    let turned_on = turned_on(observed, desired);
    match &desired.firewall {
        Some(firewall) => {
            plan_firewall(&mut steps, observed, desired, firewall, &turned_on);
            // Bridges are born with it.
            plan_links_forward(&mut steps, observed, desired);
            for (wanted, bridge) in desired.bridges.iter().zip(&found) {
                plan_bridge(&mut steps, observed, wanted, *bridge);
            }
            steps.extend(turned_on.into_iter().map(Step::SetSysctl));
            plan_ports(&mut steps, observed, desired, &found);
        }
        None => plan_removal(&mut steps, observed, desired),
    }
    Ok(Plan { steps })
}

/// The steps for one more bridge beside those that stand.
pub fn raise(observed: &Observed, wanted: &BridgeLink) -> Result<Plan> {
    let mut steps = Vec::new();
    let found = find_bridge(&mut steps, observed, wanted)?;
    plan_bridge(&mut steps, observed, wanted, found);
    Ok(Plan { steps })
}

fn find_bridge<'a>(steps: &mut Vec<Step>, observed: &'a Observed, wanted: &BridgeLink) -> Result<Option<&'a Link>> {
    let Some(link) = observed.links.iter().find(|link| link.name == wanted.name) else {
        return Ok(None);
    };
    if is_ours(link, &format!("{ALIAS}{}", wanted.network_id)) {
        return Ok(Some(link));
    }
    let used = observed.links.iter().any(|port| port.master == Some(link.index));
    if used || !is_some_ferrys(link) {
        return Err(Error::Taken {
            name: wanted.name.clone(),
        });
    }
    steps.push(Step::DeleteLink {
        name: wanted.name.clone(),
    });
    Ok(None)
}

/// The sysctls to change: advertisements before forwarding, which would drop what they brought.
fn turned_on(observed: &Observed, desired: &Desired) -> Vec<Sysctl> {
    let mut changes = Vec::new();
    if desired.forward.1 && observed.ip6_forward.as_deref() == Some("0") {
        changes.extend(observed.advertised.iter().map(|link| Sysctl::advertised(link)));
        changes.push(Sysctl::on(IP6_FORWARD));
    }
    changes
}

fn turns_links_on(observed: &Observed, desired: &Desired) -> bool {
    let done = observed.later_forward && desired.record.has(LATER_LINKS);
    desired.forward.0 && observed.ip_forward.as_deref() == Some("0") && !done
}

fn plan_links_forward(steps: &mut Vec<Step>, observed: &Observed, desired: &Desired) {
    if !turns_links_on(observed, desired) {
        return;
    }
    let first = !desired.record.has(LATER_LINKS);
    for (link, forwards) in &observed.links_forward {
        match forwards {
            true if first => steps.push(Step::SetSysctl(Sysctl::kept(link))),
            true => {}
            false => steps.push(Step::LinkSysctl {
                key: link_forwards(link),
                value: "1".to_owned(),
            }),
        }
    }
    let mut later = Sysctl::later_links();
    if observed.later_forward {
        later.before = "1".to_owned();
    }
    steps.push(Step::SetSysctl(later));
}

/// The table is replaced unless it is known to be as we left it.
fn plan_firewall(
    steps: &mut Vec<Step>,
    observed: &Observed,
    desired: &Desired,
    firewall: &Firewall,
    turned_on: &[Sysctl],
) {
    let off = |key: &str| desired.record.has(key) || turned_on.iter().any(|sysctl| sysctl.key == key);
    let firewall = Firewall {
        was_off: (off(LATER_LINKS) || turns_links_on(observed, desired), off(IP6_FORWARD)),
        ..firewall.clone()
    };
    let comment = observed.table.as_ref().and_then(|table| table.comment.clone());
    let fits = observed.table.as_ref().is_some_and(|table| table.intact) && comment == firewall.comment();
    if !fits {
        steps.push(Step::Firewall(firewall.batch(observed.table.is_some())));
    }
}

fn plan_bridge(steps: &mut Vec<Step>, observed: &Observed, wanted: &BridgeLink, bridge: Option<&Link>) {
    let name = &wanted.name;
    if bridge.is_none() {
        steps.push(Step::CreateBridge {
            name: name.clone(),
            alias: format!("{ALIAS}{}", wanted.network_id),
            mac: wanted.mac,
            mtu: wanted.mtu,
        });
        steps.push(Step::LinkSysctl {
            key: format!("ipv6/conf/{name}/accept_ra"),
            value: "0".to_owned(),
        });
        if wanted.addresses.iter().any(|(address, _)| address.is_ipv6()) {
            steps.push(Step::LinkSysctl {
                key: format!("ipv6/conf/{name}/disable_ipv6"),
                value: "0".to_owned(),
            });
        }
    }
    let has: Vec<_> = observed
        .addresses
        .iter()
        .filter(|a| bridge.is_some_and(|bridge| a.link == bridge.index) && !is_link_local(a.address))
        .map(|a| (a.address, a.prefix))
        .collect();
    let managed = |address: IpAddr| {
        wanted
            .addresses
            .iter()
            .any(|(wanted, _)| wanted.is_ipv4() == address.is_ipv4())
    };
    for (address, prefix) in has
        .iter()
        .filter(|has| managed(has.0) && !wanted.addresses.contains(has))
    {
        steps.push(Step::DeleteAddress {
            link: name.clone(),
            address: *address,
            prefix: *prefix,
        });
    }
    for (address, prefix) in wanted.addresses.iter().filter(|wanted| !has.contains(wanted)) {
        steps.push(Step::AddAddress {
            link: name.clone(),
            address: *address,
            prefix: *prefix,
        });
    }
    if !bridge.is_some_and(|bridge| bridge.up) {
        steps.push(Step::Up { link: name.clone() });
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Host ends of endpoints that are gone go; those of endpoints in use belong to their bridge, also to a new one.
fn plan_ports(steps: &mut Vec<Step>, observed: &Observed, desired: &Desired, found: &[Option<&Link>]) {
    let index = |name: &str| {
        let bridges = desired.bridges.iter().zip(found);
        bridges
            .filter(|(bridge, _)| bridge.name == name)
            .find_map(|(_, link)| link.map(|link| link.index))
    };
    let ours: BTreeSet<u32> = found.iter().flatten().map(|link| link.index).collect();
    for (link, endpoint) in host_ends(observed) {
        if let Some(place) = desired.endpoints.get(endpoint) {
            let shall_be = desired.bridges.iter().any(|wanted| wanted.name == place.bridge);
            if shall_be && (link.master.is_none() || link.master != index(&place.bridge)) {
                steps.push(Step::Enslave {
                    link: link.name.clone(),
                    place: place.clone(),
                });
            }
        } else if desired.prune && link.master.is_none_or(|master| ours.contains(&master)) {
            steps.push(Step::DeleteLink {
                name: link.name.clone(),
            });
        }
    }
    if desired.prune {
        steps.extend(unused_queues(observed, desired));
    }
}

fn plan_removal(steps: &mut Vec<Step>, observed: &Observed, desired: &Desired) {
    steps.extend(desired.record.sysctls.iter().rev().cloned().map(Step::RestoreSysctl));
    let is_ours = |link: &&Link| {
        let id = link.alias.as_deref().and_then(|alias| alias.strip_prefix(ALIAS));
        link.kind.as_deref() == Some("bridge") && id.is_some_and(|id| desired.networks.contains(id))
    };
    let bridges: Vec<_> = observed.links.iter().filter(is_ours).collect();
    if desired.record.has(LATER_LINKS) {
        for (link, _) in observed.links_forward.iter().filter(|(_, forwards)| **forwards) {
            let key = link_forwards(link);
            if !desired.record.has(&key) && !bridges.iter().any(|bridge| bridge.name == *link) {
                steps.push(Step::RestoreSysctl(Sysctl::on(&key)));
            }
        }
    }
    for (link, endpoint) in host_ends(observed) {
        let port = bridges.iter().any(|bridge| link.master == Some(bridge.index));
        if port || desired.endpoints.contains_key(endpoint) {
            steps.push(Step::DeleteLink {
                name: link.name.clone(),
            });
        }
    }
    steps.extend(unused_queues(observed, desired));
    steps.extend(bridges.iter().map(|bridge| Step::DeleteLink {
        name: bridge.name.clone(),
    }));
    if observed.table.is_some() {
        steps.push(Step::Firewall(Firewall::removal(&desired.table)));
    }
}

/// The host ends of this or another Ferry, with the endpoint each says it belongs to.
fn host_ends(observed: &Observed) -> impl Iterator<Item = (&Link, &str)> {
    let is_end = |link: &&Link| link.name.starts_with(PREFIX) && link.kind.as_deref() == Some("veth");
    let ends = observed.links.iter().filter(is_end);
    ends.filter_map(|link| Some((link, link.alias.as_deref()?.strip_prefix(ALIAS)?)))
}

/// Queues of this engine's that no container needs: no packet waits in them, since the links that led there are gone.
fn unused_queues(observed: &Observed, desired: &Desired) -> impl Iterator<Item = Step> {
    let alias = limit::alias(&desired.table);
    let is_ours = move |link: &&Link| {
        let ours = link.alias.as_deref().is_some_and(|found| found.starts_with(&alias));
        ours && link.kind.as_deref() == Some("ifb") && !desired.queues.contains(&link.name)
    };
    let unused = observed.links.iter().filter(is_ours);
    unused.map(|link| Step::DeleteLink {
        name: link.name.clone(),
    })
}

fn is_ours(link: &Link, alias: &str) -> bool {
    link.kind.as_deref() == Some("bridge") && link.alias.as_deref() == Some(alias)
}

fn is_some_ferrys(link: &Link) -> bool {
    link.kind.as_deref() == Some("bridge") && link.alias.as_deref().is_some_and(|alias| alias.starts_with(ALIAS))
}

impl Step {
    /// True for a step after whose failure the rest is done all the same.
    pub(crate) fn removes(&self) -> bool {
        matches!(
            self,
            Step::DeleteLink { .. } | Step::RestoreSysctl(_) | Step::DeleteAddress { .. }
        )
    }

    /// The bridge that is new, or has a new port, or was down or without an address and so forgot its neighbours, after it.
    pub(crate) fn changed_bridge(&self) -> Option<&str> {
        match self {
            Step::CreateBridge { name, .. } | Step::Up { link: name } | Step::AddAddress { link: name, .. } => {
                Some(name)
            }
            Step::Enslave { place, .. } => Some(&place.bridge),
            _ => None,
        }
    }

    /// The link that it deletes.
    pub(crate) fn deleted(&self) -> Option<&str> {
        match self {
            Step::DeleteLink { name } => Some(name),
            _ => None,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Firewall(batch) => f.write_str(batch.to_string().trim_end()),
            Step::CreateBridge { name, alias, mac, mtu } => {
                write!(f, "create bridge {name} mac {mac} mtu {mtu} alias {alias}")
            }
            Step::AddAddress { link, address, prefix } => write!(f, "add address {address}/{prefix} to {link}"),
            Step::DeleteAddress { link, address, prefix } => write!(f, "delete address {address}/{prefix} of {link}"),
            Step::Enslave { link, place } => {
                write!(f, "make {link} a port of {}", place.bridge)?;
                let Port { isolated, hairpin, .. } = place.port;
                for (word, on) in [(" isolated", isolated), (" hairpin", hairpin)] {
                    f.write_str(if on == Some(true) { word } else { "" })?;
                }
                Ok(())
            }
            Step::Up { link } => write!(f, "set {link} up"),
            Step::LinkSysctl { key, value } => write!(f, "write {value} to net/{key}"),
            Step::SetSysctl(sysctl) => write!(f, "change net/{} from {} to {}", sysctl.key, sysctl.before, sysctl.set),
            Step::RestoreSysctl(sysctl) => {
                write!(
                    f,
                    "put net/{} back to {} if it still is {}",
                    sysctl.key, sysctl.before, sysctl.set
                )
            }
            Step::DeleteLink { name } => write!(f, "delete link {name}"),
        }
    }
}

#[cfg(test)]
mod tests;
