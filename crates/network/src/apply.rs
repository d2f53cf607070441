//! Reads the host's network for a plan, and carries a plan out. Both run in the host's namespace.

use std::net::IpAddr;

use ferry_netlink::Route;
use ferry_netlink::nft::{Batch, Family, Nft, Shape};
use ferry_netlink::route::{self, Change, LinkId, Request};

use crate::plan::{IP_FORWARD, Observed, Plan, Record, Step, TableState};
use crate::sysctl::Sysctls;
use crate::{Error, Result};

/// Where the search for a link group that nobody uses begins.
const FIRST_GROUP: u32 = 0x6665_7272;
/// So many answers fit in a socket's queue of the default size.
const MARKS_A_SEND: usize = 50;

/// The firewall as we left it.
#[derive(Debug, Clone)]
pub struct Left {
    /// The number of the host's ruleset: while it is the same, nobody changed anything.
    generation: u32,
    /// Our own table: while it is the same, it was others' tables that changed.
    shape: Shape,
}

/// `left` is what [`apply`] noted last; it is brought up to date when only others' tables changed.
pub fn observe(route: &mut Route, table: &str, left: &mut Option<Left>) -> Result<Observed> {
    let mut nft = Nft::open()?;
    let generation = nft.generation()?;
    let found = nft.table(Family::Inet, table)?;
    let intact = match left {
        Some(left) if left.generation == generation => true,
        Some(left) => {
            let same = nft.shape(Family::Inet, table)?.as_ref() == Some(&left.shape);
            left.generation = if same { generation } else { left.generation };
            same
        }
        None => false,
    };
    Ok(Observed {
        links: route.links()?,
        addresses: route.addresses()?,
        ip_forward: Sysctls::open()?.read(IP_FORWARD)?,
        table: found.map(|found| TableState {
            comment: found.comment,
            intact,
        }),
    })
}

/// All networks the host has or reaches by a route of its own, but those of the link `except`.
pub fn used_networks(route: &mut Route, except: Option<u32>) -> Result<Vec<(IpAddr, u8)>> {
    let routes = route
        .routes()?
        .into_iter()
        .filter(|route| route.link.is_none() || route.link != except);
    let mut used: Vec<_> = routes.filter_map(|route| route.destination).collect();
    let addresses = route
        .addresses()?
        .into_iter()
        .filter(|address| Some(address.link) != except);
    used.extend(addresses.map(|address| (address.address, address.prefix)));
    Ok(used)
}

/// Carries the plan out and notes in `record` what must be put back. Steps that remove something go on past a failure.
/// `left` is renewed when the plan changes the firewall.
pub fn apply(plan: &Plan, route: &mut Route, record: &mut Record, left: &mut Option<Left>) -> Result<()> {
    let sysctls = Sysctls::open()?;
    let mut failures = Vec::new();
    let mut steps = plan.steps.as_slice();
    while let Some((step, rest)) = steps.split_first() {
        let doomed: Vec<_> = steps.iter().map_while(Step::deleted).collect();
        steps = steps.get(doomed.len()..).filter(|_| !doomed.is_empty()).unwrap_or(rest);
        let done = match step {
            Step::DeleteLink { .. } => delete_links(route, &doomed),
            Step::Firewall(batch) => commit(batch).map(|committed| *left = committed),
            step => apply_step(step, route, &sysctls, record),
        };
        match done {
            Ok(()) => {}
            Err(error) if step.removes() => failures.push(error),
            Err(error) => return Err(error),
        }
    }
    clean_up(failures)
}

/// Removes links that may be gone already. The kernel waits tens of milliseconds for each that is removed alone, and as
/// long for a group of any size.
fn delete_links(route: &mut Route, names: &[&str]) -> Result<()> {
    let delete = |route: &mut Route, name| gone_is_fine(route.run(&[Request::DeleteLink(LinkId::Name(name))]));
    if let [name] = names {
        return delete(route, name);
    }
    let links = route.links()?;
    let Some(group) = (FIRST_GROUP..=u32::MAX).find(|group| !links.iter().any(|link| link.group == *group)) else {
        return names.iter().try_for_each(|name| delete(route, name));
    };
    let change = Change {
        group: Some(group),
        ..Change::default()
    };
    for names in names.chunks(MARKS_A_SEND) {
        let links = names.iter().map(|name| LinkId::Name(name));
        let marks: Vec<_> = links.map(|link| Request::ChangeLink { link, change }).collect();
        route.submit(&marks)?.into_iter().try_for_each(gone_is_fine)?;
    }
    gone_is_fine(route.run(&[Request::DeleteGroup(group)]))
}

/// The first failure of several, with the number of the rest.
pub fn clean_up(failures: Vec<Error>) -> Result<()> {
    let others = failures.len().saturating_sub(1);
    match failures.into_iter().next() {
        None => Ok(()),
        Some(error) if others == 0 => Err(error),
        Some(first) => Err(Error::CleanUp {
            first: Box::new(first),
            others,
        }),
    }
}

fn commit(batch: &Batch) -> Result<Option<Left>> {
    let mut nft = Nft::open()?;
    let before = nft.generation()?;
    nft.commit(batch)?;
    let shape = nft.shape(batch.family, &batch.table)?;
    let generation = nft.generation()?;
    // Somebody else was at it at the same time: what was read may be his.
    let alone = generation == before.wrapping_add(1);
    Ok(shape.filter(|_| alone).map(|shape| Left { generation, shape }))
}

fn apply_step(step: &Step, route: &mut Route, sysctls: &Sysctls, record: &mut Record) -> Result<()> {
    match step {
        Step::Firewall(batch) => commit(batch).map(drop),
        Step::CreateBridge { name, alias, mac, mtu } => create_bridge(route, sysctls, name, alias, mac.0, *mtu),
        Step::AddAddress { link, address, prefix } => {
            let link = index(route, link)?;
            Ok(route.run(&[Request::AddAddress {
                link,
                address: (*address).into(),
                prefix: *prefix,
            }])?)
        }
        Step::DeleteAddress { link, address, prefix } => {
            let link = index(route, link)?;
            gone_is_fine(route.run(&[Request::DeleteAddress {
                link,
                address: *address,
                prefix: *prefix,
            }]))
        }
        Step::Enslave { link, bridge } => {
            let change = Change {
                master: Some(index(route, bridge)?),
                ..Change::default()
            };
            // The container may have ended a moment ago, and its veth with it.
            gone_is_fine(route.run(&[Request::ChangeLink {
                link: LinkId::Name(link),
                change,
            }]))
        }
        Step::Up { link } => {
            let change = Change {
                up: Some(true),
                ..Change::default()
            };
            Ok(route.run(&[Request::ChangeLink {
                link: LinkId::Name(link),
                change,
            }])?)
        }
        Step::LinkSysctl { key, value } => sysctls.write(key, value).map(drop),
        Step::SetSysctl(sysctl) => {
            sysctls.write(&sysctl.key, &sysctl.set)?;
            record.sysctls.retain(|known| known.key != sysctl.key);
            record.sysctls.push(sysctl.clone());
            Ok(())
        }
        Step::RestoreSysctl(sysctl) => {
            if sysctls.read(&sysctl.key)?.as_ref() == Some(&sysctl.set) {
                sysctls.write(&sysctl.key, &sysctl.before)?;
            }
            record.sysctls.retain(|known| known != sysctl);
            Ok(())
        }
        Step::DeleteLink { name } => delete_links(route, &[name]),
    }
}

fn create_bridge(route: &mut Route, sysctls: &Sysctls, name: &str, alias: &str, mac: [u8; 6], mtu: u32) -> Result<()> {
    let change = Change {
        alias: Some(alias),
        without_link_local: has_ipv6(sysctls)?,
        ..Change::default()
    };
    let create = Request::CreateBridge(route::Bridge { name, mac, mtu });
    // One send: killed between two, we would leave a bridge that nobody recognises.
    Ok(route.run(&[
        create,
        Request::ChangeLink {
            link: LinkId::Name(name),
            change,
        },
    ])?)
}

/// False on a kernel without IPv6, or with `ipv6.disable=1`.
pub fn has_ipv6(sysctls: &Sysctls) -> Result<bool> {
    Ok(sysctls.read("ipv6/conf/default/disable_ipv6")?.is_some())
}

fn index(route: &mut Route, name: &str) -> Result<u32> {
    match route.link(&LinkId::Name(name))? {
        Some(link) => Ok(link.index),
        None => Err(Error::Netlink(ferry_netlink::Error::Kernel {
            operation: "find link",
            object: name.to_owned(),
            errno: rustix::io::Errno::NODEV,
            message: None,
        })),
    }
}

pub fn gone_is_fine(result: ferry_netlink::Result<()>) -> Result<()> {
    match result {
        Err(error) if !error.is_gone() => Err(error.into()),
        _ => Ok(()),
    }
}
