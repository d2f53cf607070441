//! What to change so that the host has the bridge it should have, as a value: decided without a system call, printed in
//! tests, applied by [`crate::apply`].
//!
//! The order of steps matters: the firewall stands before forwarding is turned on and falls after it is turned off.
//!
//! That forwarding was off before is noted in two places: the [`Record`], which the caller keeps, and the table's comment,
//! for the case that the caller ends before it does.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ferry_netlink::nft::Batch;
use ferry_netlink::route::{Address, Link};
use serde::{Deserialize, Serialize};

use crate::endpoint::{ALIAS, PREFIX};
use crate::firewall::{Firewall, Guarded};
use crate::{Error, Mac, Result, Subnet};

pub const IP_FORWARD: &str = "ipv4/ip_forward";

/// What is there now.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub links: Vec<Link>,
    pub addresses: Vec<Address>,
    /// The value of net.ipv4.ip_forward.
    pub ip_forward: Option<String>,
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
    /// The bridge's own address and subnet; `None`: nothing of ours shall be there.
    pub addressing: Option<Addressing>,
    pub name: String,
    pub network_id: String,
    pub mtu: u32,
    /// Turn on net.ipv4.ip_forward.
    pub forward: bool,
    /// Hide the containers' addresses behind the host's towards the outside.
    pub masquerade: bool,
    /// The name of the firewall table.
    pub table: String,
    /// The ids of all endpoints in use.
    pub endpoints: BTreeSet<String>,
    /// `endpoints` is complete: host ends of others go.
    pub prune: bool,
    /// What earlier plans changed.
    pub record: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressing {
    pub subnet: Subnet,
    pub gateway: Ipv4Addr,
}

/// What Ferry changed on the host that is not recognisable as its own, to be put back. Keep it across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The subnet that was used last; it is used again as long as the host has no other use for it.
    pub addressing: Option<Addressing>,
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
    /// Forwarding turned on.
    pub fn ip_forward() -> Self {
        Self {
            key: IP_FORWARD.to_owned(),
            before: "0".to_owned(),
            set: "1".to_owned(),
        }
    }
}

impl Observed {
    /// `record` with what is known from the table's comment alone.
    pub fn recall(&self, mut record: Record) -> Record {
        let noted =
            self.table.as_ref().and_then(|table| table.comment.as_deref()) == Some(crate::firewall::FORWARD_WAS_OFF);
        if noted && !record.sysctls.iter().any(|sysctl| sysctl.key == IP_FORWARD) {
            record.sysctls.push(Sysctl::ip_forward());
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
        address: Ipv4Addr,
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
        bridge: String,
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
/// [`Error::Taken`] when a link of the bridge's name exists and is not this network's bridge. A bridge another Ferry
/// left without a port counts as nobody's and is replaced.
pub fn plan(observed: &Observed, desired: &Desired) -> Result<Plan> {
    let mut steps = Vec::new();
    let alias = format!("{ALIAS}{}", desired.network_id);
    let found = observed.links.iter().find(|link| link.name == desired.name);
    let bridge = match found {
        Some(link) if is_ours(link, &alias) => Some(link),
        Some(link) if desired.addressing.is_some() => {
            let used = observed.links.iter().any(|port| port.master == Some(link.index));
            if used || !is_some_ferrys(link) {
                return Err(Error::Taken {
                    name: desired.name.clone(),
                });
            }
            steps.push(Step::DeleteLink {
                name: desired.name.clone(),
            });
            None
        }
        _ => None,
    };
    if let Some(addressing) = desired.addressing {
        plan_firewall(&mut steps, observed, desired, addressing.subnet);
        plan_bridge(&mut steps, observed, desired, bridge, addressing);
        plan_ports(&mut steps, observed, desired, bridge);
    } else {
        plan_removal(&mut steps, observed, desired, bridge);
    }
    Ok(Plan { steps })
}

/// The table is replaced unless it is known to be as we left it.
fn plan_firewall(steps: &mut Vec<Step>, observed: &Observed, desired: &Desired, subnet: Subnet) {
    let forward_was_off =
        desired.record.sysctls.iter().any(|sysctl| sysctl.key == IP_FORWARD) || turns_forward_on(observed, desired);
    let name = desired.name.clone();
    let firewall = Firewall {
        table: desired.table.clone(),
        bridges: vec![Guarded {
            name,
            subnet,
            masquerade: desired.masquerade,
        }],
        forward_was_off,
    };
    let comment = observed.table.as_ref().and_then(|table| table.comment.as_deref());
    let fits = observed.table.as_ref().is_some_and(|table| table.intact) && comment == firewall.comment();
    if !fits {
        steps.push(Step::Firewall(firewall.batch(observed.table.is_some())));
    }
}

fn turns_forward_on(observed: &Observed, desired: &Desired) -> bool {
    desired.forward && observed.ip_forward.as_deref() == Some("0")
}

fn plan_bridge(
    steps: &mut Vec<Step>,
    observed: &Observed,
    desired: &Desired,
    bridge: Option<&Link>,
    addressing: Addressing,
) {
    let Addressing { subnet, gateway } = addressing;
    let name = &desired.name;
    if bridge.is_none() {
        let alias = format!("{ALIAS}{}", desired.network_id);
        let mac = Mac::of(gateway);
        steps.push(Step::CreateBridge {
            name: name.clone(),
            alias,
            mac,
            mtu: desired.mtu,
        });
        steps.push(Step::LinkSysctl {
            key: format!("ipv6/conf/{name}/accept_ra"),
            value: "0".to_owned(),
        });
    }
    let wanted = (IpAddr::V4(gateway), subnet.prefix());
    let has: Vec<_> = observed
        .addresses
        .iter()
        .filter(|a| bridge.is_some_and(|bridge| a.link == bridge.index))
        .collect();
    for wrong in has
        .iter()
        .filter(|a| a.address.is_ipv4() && (a.address, a.prefix) != wanted)
    {
        steps.push(Step::DeleteAddress {
            link: name.clone(),
            address: wrong.address,
            prefix: wrong.prefix,
        });
    }
    if !has.iter().any(|a| (a.address, a.prefix) == wanted) {
        steps.push(Step::AddAddress {
            link: name.clone(),
            address: gateway,
            prefix: subnet.prefix(),
        });
    }
    if !bridge.is_some_and(|bridge| bridge.up) {
        steps.push(Step::Up { link: name.clone() });
    }
    if turns_forward_on(observed, desired) {
        steps.push(Step::SetSysctl(Sysctl::ip_forward()));
    }
}

/// Host ends of endpoints that are gone go; those of endpoints in use belong to the bridge, also to a new one.
fn plan_ports(steps: &mut Vec<Step>, observed: &Observed, desired: &Desired, bridge: Option<&Link>) {
    for (link, endpoint) in host_ends(observed) {
        let ours = bridge.is_some_and(|bridge| link.master == Some(bridge.index));
        if desired.endpoints.contains(endpoint) {
            if !ours {
                steps.push(Step::Enslave {
                    link: link.name.clone(),
                    bridge: desired.name.clone(),
                });
            }
        } else if desired.prune && (ours || link.master.is_none()) {
            steps.push(Step::DeleteLink {
                name: link.name.clone(),
            });
        }
    }
}

fn plan_removal(steps: &mut Vec<Step>, observed: &Observed, desired: &Desired, bridge: Option<&Link>) {
    steps.extend(desired.record.sysctls.iter().cloned().map(Step::RestoreSysctl));
    for (link, endpoint) in host_ends(observed) {
        if bridge.is_some_and(|bridge| link.master == Some(bridge.index)) || desired.endpoints.contains(endpoint) {
            steps.push(Step::DeleteLink {
                name: link.name.clone(),
            });
        }
    }
    if bridge.is_some() {
        steps.push(Step::DeleteLink {
            name: desired.name.clone(),
        });
    }
    if observed.table.is_some() {
        steps.push(Step::Firewall(Firewall::removal(&desired.table)));
    }
}

/// The host ends of this or another Ferry, with the endpoint each says it belongs to.
fn host_ends(observed: &Observed) -> impl Iterator<Item = (&Link, &str)> {
    observed
        .links
        .iter()
        .filter(|link| link.name.starts_with(PREFIX) && link.kind.as_deref() == Some("veth"))
        .filter_map(|link| {
            let endpoint = link.alias.as_deref()?.strip_prefix(ALIAS)?;
            Some((link, endpoint))
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
            Step::Enslave { link, bridge } => write!(f, "make {link} a port of {bridge}"),
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
mod tests {
    use super::*;

    fn desired() -> Desired {
        let subnet: Subnet = "172.17.0.0/16".parse().unwrap();
        Desired {
            addressing: Some(Addressing {
                subnet,
                gateway: subnet.first(),
            }),
            name: "ferry0".to_owned(),
            network_id: "n1".to_owned(),
            mtu: 1500,
            forward: true,
            masquerade: true,
            table: "ferry".to_owned(),
            endpoints: BTreeSet::new(),
            prune: true,
            record: Record::default(),
        }
    }

    fn link(index: u32, name: &str, kind: &str, alias: &str, master: Option<u32>) -> Link {
        let (name, kind, alias) = (name.to_owned(), Some(kind.to_owned()), Some(alias.to_owned()));
        Link {
            index,
            name,
            kind,
            alias,
            master,
            up: true,
            ..Link::default()
        }
    }

    /// A host on which all is as it should be, with two containers.
    fn settled() -> (Observed, Desired) {
        let mut desired = desired();
        desired.record.sysctls = vec![Sysctl::ip_forward()];
        desired.endpoints = ["aaaa".to_owned(), "bbbb".to_owned()].into();
        let observed = Observed {
            links: vec![
                link(5, "ferry0", "bridge", "ferry:n1", None),
                link(6, "fe-aaaa", "veth", "ferry:aaaa", Some(5)),
                link(7, "fe-bbbb", "veth", "ferry:bbbb", Some(5)),
                link(8, "veth9", "veth", "", Some(5)),
            ],
            addresses: vec![Address {
                link: 5,
                address: desired.addressing.unwrap().gateway.into(),
                prefix: 16,
            }],
            ip_forward: Some("1".to_owned()),
            table: Some(TableState {
                comment: Some("ip_forward=0".to_owned()),
                intact: true,
            }),
        };
        (observed, desired)
    }

    fn text(observed: &Observed, desired: &Desired) -> String {
        let text = plan(observed, desired).unwrap().to_string();
        let firewall = text.lines().filter(|line| line.contains("inet ferry")).count();
        let rest: Vec<_> = text.lines().filter(|line| !line.contains("inet ferry")).collect();
        format!("{}{}", if firewall > 1 { "firewall\n" } else { "" }, rest.join("\n"))
    }

    #[test]
    fn an_empty_host_gets_everything_and_the_firewall_first() {
        let observed = Observed {
            ip_forward: Some("0".to_owned()),
            ..Observed::default()
        };
        let expected = "firewall\n\
            create bridge ferry0 mac 02:42:ac:11:00:01 mtu 1500 alias ferry:n1\n\
            write 0 to net/ipv6/conf/ferry0/accept_ra\n\
            add address 172.17.0.1/16 to ferry0\n\
            set ferry0 up\n\
            change net/ipv4/ip_forward from 0 to 1";
        assert_eq!(text(&observed, &desired()), expected);
        assert!(
            plan(&observed, &desired())
                .unwrap()
                .to_string()
                .contains("oifname != @bridges drop")
        );
    }

    #[test]
    fn forwarding_that_was_on_stays_unfiltered_and_is_not_ours_to_turn_off() {
        let observed = Observed {
            ip_forward: Some("1".to_owned()),
            ..Observed::default()
        };
        let plan = plan(&observed, &desired()).unwrap().to_string();
        assert!(
            plan.contains("oifname != @bridges accept") && !plan.contains("ip_forward"),
            "{plan}"
        );
    }

    #[test]
    fn a_settled_host_needs_nothing() {
        let (observed, desired) = settled();
        assert_eq!(plan(&observed, &desired).unwrap(), Plan::default());
    }

    #[test]
    fn a_changed_or_missing_table_is_replaced() {
        let (mut observed, desired) = settled();
        observed.table.as_mut().unwrap().intact = false;
        assert_eq!(text(&observed, &desired), "firewall\n");
        observed.table = None;
        assert_eq!(text(&observed, &desired), "firewall\n");
    }

    #[test]
    fn host_ends_without_a_container_go_and_others_are_left_alone() {
        let (mut observed, mut desired) = settled();
        desired.endpoints.remove("bbbb");
        observed.links.push(link(9, "fe-cccc", "veth", "ferry:cccc", None));
        observed.links.push(link(10, "fe-dddd", "veth", "ferry:dddd", Some(77)));
        observed.links.push(link(11, "fe-eeee", "veth", "somebody", None));
        assert_eq!(text(&observed, &desired), "delete link fe-bbbb\ndelete link fe-cccc");
        desired.prune = false;
        assert_eq!(text(&observed, &desired), "");
    }

    #[test]
    fn a_bridge_that_is_gone_is_made_again_with_its_ports() {
        let (mut observed, desired) = settled();
        observed.links.remove(0);
        observed.links.iter_mut().for_each(|link| link.master = None);
        observed.addresses.clear();
        let expected = "create bridge ferry0 mac 02:42:ac:11:00:01 mtu 1500 alias ferry:n1\n\
            write 0 to net/ipv6/conf/ferry0/accept_ra\n\
            add address 172.17.0.1/16 to ferry0\n\
            set ferry0 up\n\
            make fe-aaaa a port of ferry0\n\
            make fe-bbbb a port of ferry0";
        assert_eq!(text(&observed, &desired), expected);
    }

    #[test]
    fn a_wrong_address_of_the_bridge_is_replaced() {
        let (mut observed, desired) = settled();
        observed.addresses[0].prefix = 24;
        observed.links[0].up = false;
        let expected = "delete address 172.17.0.1/24 of ferry0\nadd address 172.17.0.1/16 to ferry0\nset ferry0 up";
        assert_eq!(text(&observed, &desired), expected);
    }

    #[test]
    fn a_link_of_that_name_that_is_not_ours_is_not_touched() {
        for stranger in [
            link(5, "ferry0", "bridge", "", None),
            link(5, "ferry0", "veth", "ferry:n1", None),
        ] {
            let observed = Observed {
                links: vec![stranger],
                ..Observed::default()
            };
            assert!(matches!(plan(&observed, &desired()), Err(Error::Taken { .. })));
            assert_eq!(
                plan(
                    &observed,
                    &Desired {
                        addressing: None,
                        ..desired()
                    }
                )
                .unwrap(),
                Plan::default()
            );
        }
        let left = link(5, "ferry0", "bridge", "ferry:of another data root", None);
        let observed = Observed {
            links: vec![left, link(6, "fe-1", "veth", "ferry:1", Some(5))],
            ..Observed::default()
        };
        assert!(matches!(plan(&observed, &desired()), Err(Error::Taken { .. })));
        let alone = Observed {
            links: vec![observed.links[0].clone()],
            ..Observed::default()
        };
        assert!(
            plan(&alone, &desired())
                .unwrap()
                .to_string()
                .contains("delete link ferry0\n")
        );
    }

    #[test]
    fn shutdown_takes_everything_down_and_the_firewall_last() {
        let (observed, mut desired) = settled();
        desired.addressing = None;
        desired.endpoints.clear();
        let plan = plan(&observed, &desired).unwrap().to_string();
        let expected = "put net/ipv4/ip_forward back to 0 if it still is 1\n\
            delete link fe-aaaa\ndelete link fe-bbbb\ndelete link ferry0\ndelete table inet ferry\n";
        assert_eq!(plan, expected);
    }

    #[test]
    fn that_forwarding_was_off_is_remembered_by_the_table_alone() {
        let (observed, _) = settled();
        assert_eq!(observed.recall(Record::default()).sysctls, [Sysctl::ip_forward()]);
        assert_eq!(Observed::default().recall(Record::default()), Record::default());
    }
}
