//! Reads the host's network for a plan, and carries a plan out. Both run in the host's namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferry_netlink::Route;
use ferry_netlink::nft::{Batch, Family, Hook, Nft, Policy, Shape};
use ferry_netlink::route::{self, Change, Ipv4Setting, LinkId, Request};

use crate::endpoint::PREFIX;
use crate::plan::{IP_FORWARD, IP6_FORWARD, LATER_LINKS, Observed, Plan, Record, Step, TableState};
use crate::sysctl::Sysctls;
use crate::{Error, Result, foreign};

/// Where the search for a link group that nobody uses begins.
const FIRST_GROUP: u32 = 0x6665_7272;
/// So many answers fit in a socket's queue of the default size.
const MARKS_A_SEND: usize = 50;

/// The host's firewall, and our table in it as we left it.
#[derive(Debug)]
pub struct Wall {
    /// Kept open: closing it after something was removed waits for a grace period.
    nft: Nft,
    table: String,
    left: Option<Left>,
}

#[derive(Debug, Clone)]
struct Left {
    /// The number of the host's ruleset: while it is the same, nobody changed anything.
    generation: u32,
    /// Our own table: while it is the same, it was others' tables that changed. `None`: not looked at since elements of
    /// it were changed.
    shape: Option<Shape>,
}

impl Wall {
    /// Of the calling thread's namespace.
    pub fn open(table: &str) -> Result<Self> {
        Ok(Self {
            nft: Nft::open()?,
            table: table.to_owned(),
            left: None,
        })
    }

    pub fn port(&self) -> u32 {
        self.nft.port()
    }

    /// Somebody else changed our table.
    pub fn suspect(&mut self) {
        self.left = None;
    }

    fn state(&mut self) -> Result<Option<TableState>> {
        let generation = self.nft.generation()?;
        let found = self.nft.table(Family::Inet, &self.table)?;
        let intact = match &self.left {
            Some(left) if left.generation == generation => true,
            Some(Left { shape: Some(shape), .. }) => {
                let same = self.nft.shape(Family::Inet, &self.table)?.as_ref() == Some(shape);
                if same && let Some(left) = &mut self.left {
                    left.generation = generation;
                }
                same
            }
            _ => false,
        };
        Ok(found.map(|found| TableState {
            comment: found.comment,
            intact,
        }))
    }

    /// Makes or replaces the table, or removes it.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        self.left = None;
        let before = self.nft.generation()?;
        self.nft.commit(batch)?;
        let shape = self.nft.shape(batch.family, &batch.table)?;
        let generation = self.nft.generation()?;
        // Somebody else was at it at the same time: what was read may be his.
        let alone = generation == before.wrapping_add(1);
        self.left = shape.filter(|_| alone).map(|shape| Left {
            generation,
            shape: Some(shape),
        });
        Ok(())
    }

    /// Changes elements of the table. Fails when the table is not what it should be.
    pub fn amend(&mut self, batch: &Batch) -> Result<()> {
        let before = self.nft.generation()?;
        self.nft.commit(batch)?;
        let after = before.wrapping_add(1);
        let known = self.left.as_ref().is_some_and(|left| left.generation == before);
        self.left = known.then_some(Left {
            generation: after,
            shape: None,
        });
        Ok(())
    }

    /// Lets what goes to and comes from these links pass where others' chains would drop it, and takes back what was let
    /// pass before for other links. Returns what could not be done, in words for the user.
    pub fn admit(&mut self, links: &[foreign::Links]) -> Result<Vec<String>> {
        let mut obstacles = Vec::new();
        let chains: Vec<_> = self
            .nft
            .base_chains(Hook::Forward)?
            .into_iter()
            .filter(|chain| !(chain.family == Family::Inet && chain.table == self.table))
            .collect();
        for chain in chains {
            if foreign::is_firewalld(&chain) {
                let rules = self.nft.rules(chain.family, &chain.table)?;
                obstacles.extend(foreign::firewalld(&rules, links));
                continue;
            }
            let rules = self.nft.chain_rules(chain.family, &chain.table, &chain.name)?;
            let batch = foreign::change(&chain, &rules, &self.table, links);
            if batch.commands.is_empty() {
                continue;
            }
            let before = self.nft.generation()?;
            match self.nft.commit(&batch) {
                Ok(()) => {
                    if let Some(left) = self.left.as_mut().filter(|left| left.generation == before) {
                        left.generation = before.wrapping_add(1);
                    }
                }
                // Somebody took the chain or the rule away meanwhile: then it is in nobody's way.
                Err(error) if error.is_gone() => {}
                Err(error) => obstacles.push(foreign::obstacle(&chain, links, &error)),
            }
        }
        Ok(obstacles)
    }
}

/// The chains of the calling thread's namespace that let into the host only what their rules name.
pub fn input_guards() -> Result<Vec<String>> {
    let mut nft = Nft::open()?;
    let mut found = Vec::new();
    for chain in nft.base_chains(Hook::Input)? {
        let rules = match chain.policy {
            // Says all.
            Policy::Drop => Vec::new(),
            Policy::Accept => nft.chain_rules(chain.family, &chain.table, &chain.name)?,
        };
        found.extend(foreign::guards_input(&chain, &rules));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

pub fn observe(route: &mut Route, wall: &mut Wall) -> Result<Observed> {
    let sysctls = Sysctls::open()?;
    let links = route.links()?;
    let ip6_forward = sysctls.read(IP6_FORWARD)?;
    let mut advertised = Vec::new();
    if ip6_forward.as_deref() == Some("0") {
        for link in links.iter().filter(|link| link.master.is_none() && link.name != "lo") {
            if sysctls.read(&format!("ipv6/conf/{}/accept_ra", link.name))?.as_deref() == Some("1") {
                advertised.push(link.name.clone());
            }
        }
    }
    let ip_forward = sysctls.read(IP_FORWARD)?;
    let (mut later_forward, mut links_forward) = (false, BTreeMap::new());
    if ip_forward.as_deref() == Some("0") {
        later_forward = sysctls.read(LATER_LINKS)?.as_deref() == Some("1");
        // A host end is a port of a bridge, which is what forwards.
        let others = links
            .iter()
            .filter(|link| link.name != "lo" && !link.name.starts_with(PREFIX));
        for name in others.map(|link| &link.name) {
            if let Some(value) = sysctls.read(&format!("ipv4/conf/{name}/forwarding"))? {
                links_forward.insert(name.clone(), value == "1");
            }
        }
    }
    Ok(Observed {
        addresses: route.addresses()?,
        ip_forward,
        later_forward,
        links_forward,
        ip6_forward,
        advertised,
        links,
        table: wall.state()?,
    })
}

/// All networks the host has or reaches by a route of its own, but those of the links `except`.
pub fn used_networks(route: &mut Route, except: &[u32]) -> Result<Vec<(IpAddr, u8)>> {
    let routes = route
        .routes()?
        .into_iter()
        .filter(|route| route.link.is_none_or(|link| !except.contains(&link)));
    let mut used: Vec<_> = routes.filter_map(|route| route.destination).collect();
    let addresses = route
        .addresses()?
        .into_iter()
        .filter(|address| !except.contains(&address.link));
    used.extend(addresses.map(|address| (address.address, address.prefix)));
    Ok(used)
}

/// Carries the plan out and notes in `record` what must be put back. Steps that remove something go on past a failure.
pub fn apply(plan: &Plan, route: &mut Route, record: &mut Record, wall: &mut Wall) -> Result<()> {
    let sysctls = Sysctls::open()?;
    let mut failures = Vec::new();
    let mut steps = plan.steps.as_slice();
    while let Some((step, rest)) = steps.split_first() {
        let doomed: Vec<_> = steps.iter().map_while(Step::deleted).collect();
        steps = steps.get(doomed.len()..).filter(|_| !doomed.is_empty()).unwrap_or(rest);
        let done = match step {
            Step::DeleteLink { .. } => delete_links(route, &doomed),
            Step::Firewall(batch) => wall.commit(batch),
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

fn apply_step(step: &Step, route: &mut Route, sysctls: &Sysctls, record: &mut Record) -> Result<()> {
    match step {
        Step::Firewall(_) => Ok(()),
        Step::CreateBridge { name, alias, mac, mtu } => create_bridge(route, sysctls, name, alias, mac.0, *mtu),
        Step::AddAddress { link, address, prefix } => {
            let link = index(route, link)?;
            Ok(route.run(&[Request::ReplaceAddress {
                link,
                address: *address,
                prefix: *prefix,
                undetected: true,
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
        Step::Enslave { link, place } => {
            let link = LinkId::Name(link);
            let master = Change {
                master: Some(index(route, &place.bridge)?),
                ..Change::default()
            };
            let port = Change {
                port: place.port,
                ..Change::default()
            };
            // The container may have ended a moment ago, and its veth with it.
            let changes = [master, port].map(|change| Request::ChangeLink { link, change });
            gone_is_fine(route.run(&changes))
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
        // For ports published on 127.0.0.1; the firewall's guard keeps everybody else's packets of that kind out.
        ipv4: &[(Ipv4Setting::RouteLocalnet, 1)],
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
