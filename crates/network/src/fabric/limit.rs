//! Limits of containers' traffic, held on the host's side of their links.
//!
//! ```text
//!   container ─ eth0 ══ fe-… ── ingress filter ─▶ fo-…  token bucket ─▶ back to fe-…, and into its bridge
//!   container ─ eth1 ══ fe-… ── ingress filter ─▶   ″
//!                       fe-… ◀─ egress filter  ── fi-…  token bucket ◀─ a bridge, the other networks' too
//! ```
//!
//! A container with a limit has an `ifb` a direction, which all its networks share. None of it is in the container's
//! namespace, so no capability there takes it away. Where a packet is let go after its wait, it goes on as if it had just
//! come: bridges and firewall see nothing of it.
//!
//! Acknowledgements go first in a bucket, where the kernel has `htb`: they are of the other direction's traffic, which would
//! have a delay that its own limit does not know of.
//!
//! The kernel's state is what counts: [`Fabric::hold`] reads it and changes what differs.

use std::collections::BTreeSet;

use ferry_netlink::Route;
use ferry_netlink::route::{Change, Child, Direction, Kind, LinkId, Part, Queue, Request, Tbf};
use rustix::io::Errno;

use super::{Fabric, State};
use crate::endpoint::{host_name, random_id};
use crate::limit::{Limits, NAMES, TAG, alias, tag_of};
use crate::{Error, Result, apply};

/// The limit of one container.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    limits: Limits,
    /// What its links' names end with. Random: a container that starts again gets others than those that are still on
    /// their way out.
    tag: String,
    /// What holds it, by their indexes: its host ends, and the queues.
    links: BTreeSet<u32>,
}

/// What [`Fabric::hold`] did.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Queues that nothing goes through any more, for [`Fabric::remove_queues`].
    pub unused: Vec<String>,
    /// Something was not as it should be.
    pub changed: bool,
}

impl Fabric {
    /// Changes what a container may receive and send, while it does. On failure all is as it was. Of one that is on no
    /// network there is nothing to change.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`] for a limit that cannot be kept, or not on one of its networks; [`Error::Missing`] where the
    /// kernel has not what it takes.
    pub fn limit(&self, id: &str, limits: Limits) -> Result<()> {
        let mut state = self.lock();
        state.check_limits(id, &limits)?;
        if state.host_ends(id).0.is_empty() {
            // The next attach brings them.
            return Ok(());
        }
        let before = state.limits.get(id).map_or_else(Limits::default, |known| known.limits);
        let held = self.set(&mut state, id, limits);
        let unused = match &held {
            Ok(held) => held.unused.clone(),
            // The reason of the failure is on its way to the caller.
            Err(_) => self.set(&mut state, id, before).unwrap_or_default().unused,
        };
        drop(state);
        held.map(drop).and(self.remove_queues(&unused))
    }

    /// What went through the queues of a container's limits, as it receives and as it sends; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Those of netlink.
    pub fn limited(&self, id: &str) -> Result<[Option<Queue>; 2]> {
        let mut state = self.lock();
        let Some(tag) = state.limits.get(id).map(|limited| limited.tag.clone()) else {
            return Ok([None; 2]);
        };
        let mut queues = [None; 2];
        for (queue, (_, prefix)) in queues.iter_mut().zip(NAMES) {
            if let Some(link) = state.route.link(&LinkId::Name(&format!("{prefix}{tag}")))? {
                *queue = state.route.rate(link.index)?;
            }
        }
        Ok(queues)
    }

    fn set(&self, state: &mut State, id: &str, limits: Limits) -> Result<Held> {
        state.note_limits(id, limits)?;
        self.hold(state, id)
    }

    /// Makes the container's limit hold at all its host ends that are there.
    pub(super) fn hold(&self, state: &mut State, id: &str) -> Result<Held> {
        let mut held = Held::default();
        let Some(Limited { limits, tag, .. }) = state.limits.get(id).cloned() else {
            return Ok(held);
        };
        let (ends, mtu) = state.host_ends(id);
        let (route, ipv6) = (&mut state.route, state.ipv6);
        let mut links = Vec::with_capacity(ends.len());
        for end in &ends {
            // One that somebody deleted has nothing to limit.
            links.extend(route.link(&LinkId::Name(end))?.map(|link| link.index));
        }
        let mut holding: BTreeSet<u32> = links.iter().copied().collect();
        for (direction, prefix) in NAMES {
            let name = format!("{prefix}{tag}");
            let queue = match limits.bucket(direction, mtu) {
                Some(bucket) => {
                    let alias = format!("{}{id}", alias(&self.config.table));
                    let (index, changed) = queue(route, &name, &alias, bucket, ipv6).map_err(missing)?;
                    held.changed |= changed;
                    holding.insert(index);
                    Some(index)
                }
                None => None,
            };
            for link in &links {
                held.changed |= redirect(route, *link, direction, queue).map_err(missing)?;
            }
            if queue.is_none() && route.link(&LinkId::Name(&name))?.is_some() {
                held.unused.push(name);
            }
        }
        if limits.is_none() {
            state.limits.remove(id);
        } else if let Some(limited) = state.limits.get_mut(id) {
            limited.links = holding;
        }
        Ok(held)
    }

    /// Puts back what somebody took of containers' limits, if any of these links holds one; `None`: any may. Says whether
    /// there was something to put back.
    pub fn mend_limits(&self, lost: Option<&BTreeSet<u32>>) -> Result<bool> {
        let mut state = self.lock();
        let concerned = |limited: &Limited| lost.is_none_or(|lost| !lost.is_disjoint(&limited.links));
        let limited = state.limits.iter().filter(|(_, limited)| concerned(limited));
        let ids = limited.map(|(id, _)| id.clone()).collect();
        self.hold_each(&mut state, ids)
    }

    /// All limits, after nobody looked after them.
    pub(super) fn hold_all(&self, state: &mut State) -> Result<()> {
        let ids = state.limits.keys().cloned().collect();
        self.hold_each(state, ids).map(drop)
    }

    fn hold_each(&self, state: &mut State, ids: Vec<String>) -> Result<bool> {
        let mut changed = false;
        let mut failures = Vec::new();
        for id in ids {
            match self.hold(state, &id) {
                Ok(held) => {
                    changed |= held.changed;
                    failures.extend(delete(&mut state.route, &held.unused).err());
                }
                Err(error) => failures.push(error),
            }
        }
        apply::clean_up(failures).map(|()| changed)
    }

    /// Takes over the queues that containers have from an earlier engine. Those of one that has no limit now are taken over
    /// as well, to be taken away in order: a filter that leads nowhere lets nothing pass.
    pub(super) fn adopt_limits(&self, state: &mut State, limits: &[(String, Limits)]) -> Result<()> {
        let prefix = alias(&self.config.table);
        let found = state.route.links()?;
        for (id, limits) in limits {
            let tag = found.iter().find_map(|link| {
                let theirs = link.alias.as_deref()?.strip_prefix(&prefix)? == id;
                tag_of(link).filter(|_| theirs)
            });
            match tag {
                Some(tag) => {
                    let limited = Limited {
                        limits: *limits,
                        tag: tag.to_owned(),
                        links: BTreeSet::new(),
                    };
                    state.limits.insert(id.clone(), limited);
                }
                None => state.note_limits(id, *limits)?,
            }
        }
        Ok(())
    }

    /// Takes the tens of milliseconds that the kernel takes for each, without holding up anybody.
    pub(super) fn remove_queues(&self, names: &[String]) -> Result<()> {
        match names {
            [] => Ok(()),
            names => self.with_remover(|route| delete(route, names)),
        }
    }
}

impl State {
    /// The names of all queues that are in use.
    pub(super) fn queues(&self) -> BTreeSet<String> {
        let names = |limited: &Limited| NAMES.map(|(_, prefix)| format!("{prefix}{}", limited.tag));
        self.limits.values().flat_map(names).collect()
    }

    /// Keeps a limit for [`Fabric::hold`].
    pub(super) fn note_limits(&mut self, id: &str, limits: Limits) -> Result<()> {
        if let Some(known) = self.limits.get_mut(id) {
            known.limits = limits;
            return Ok(());
        }
        if limits.is_none() {
            return Ok(());
        }
        let tag = loop {
            let random = random_id().map_err(|source| Error::Namespace {
                operation: "name the queues of",
                source,
            })?;
            let tag: String = random.chars().take(TAG).collect();
            if self.limits.values().all(|other| other.tag != tag) {
                break tag;
            }
        };
        let limited = Limited {
            limits,
            tag,
            links: BTreeSet::new(),
        };
        self.limits.insert(id.to_owned(), limited);
        Ok(())
    }

    /// Without its last endpoint a container has no limit: its queues, to be removed.
    pub(super) fn forget_limits(&mut self, id: &str) {
        let on_one = |net: &super::Net| net.endpoints.values().any(|endpoint| endpoint.id == id);
        if self.limits.contains_key(id)
            && !self.networks.values().any(on_one)
            && let Some(limited) = self.limits.remove(id)
        {
            self.doomed
                .extend(NAMES.map(|(_, prefix)| format!("{prefix}{}", limited.tag)));
        }
    }

    /// That limits can be kept on all networks that the container is on.
    fn check_limits(&self, id: &str, limits: &Limits) -> Result<()> {
        for net in self.networks.values() {
            if net.endpoints.values().any(|endpoint| endpoint.id == id) {
                net.check_limits(limits)?;
            }
        }
        Ok(())
    }

    /// The names of a container's host ends, and the largest MTU of its networks.
    fn host_ends(&self, id: &str) -> (Vec<String>, u32) {
        let mut mtu = 0;
        let mut ends = Vec::new();
        for net in self.networks.values() {
            let theirs = net.endpoints.values().filter(|endpoint| endpoint.id == id);
            let before = ends.len();
            ends.extend(theirs.map(|endpoint| host_name(&endpoint.endpoint_id)));
            if ends.len() > before {
                mtu = mtu.max(net.network.mtu);
            }
        }
        (ends, mtu)
    }
}

impl super::Net {
    pub(super) fn check_limits(&self, limits: &Limits) -> Result<()> {
        if limits.is_none() {
            return Ok(());
        }
        if !self.has_bridge() {
            return Err(Error::Unusable {
                what: format!("a limit of traffic on network {}", self.network.name),
                reason: "its endpoints have no end on the host where it could be held: use a bridge network".to_owned(),
            });
        }
        limits.check(self.network.mtu)
    }
}

/// The index of the queue of that name, which lets pass what the bucket does; true when it was not so before.
fn queue(route: &mut Route, name: &str, alias: &str, bucket: Tbf, ipv6: bool) -> ferry_netlink::Result<(u32, bool)> {
    let id = LinkId::Name(name);
    let link = match route.link(&id)? {
        Some(link) => link,
        None => {
            let child = Child {
                name,
                kind: Kind::Ifb,
                mac: None,
                mtu: None,
                netns: None,
            };
            let change = Change {
                alias: Some(alias),
                without_link_local: ipv6,
                ..Change::default()
            };
            // One send: killed between two, we would leave a link that nobody recognises.
            route.run(&[Request::CreateChild(child), Request::ChangeLink { link: id, change }])?;
            route.link(&id)?.unwrap_or_default()
        }
    };
    let mut changed = fill(route, link.index, bucket)?;
    if !link.up {
        changed = true;
        let change = Change {
            up: Some(true),
            ..Change::default()
        };
        route.run(&[Request::ChangeLink {
            link: LinkId::Index(link.index),
            change,
        }])?;
    }
    Ok((link.index, changed))
}

/// Gives the link that bucket, with lanes where the kernel can; true when it had not.
fn fill(route: &mut Route, link: u32, bucket: Tbf) -> ferry_netlink::Result<bool> {
    let held = route.rate(link)?.map(|held| held.tbf);
    let differs = held.is_none_or(|held| !bucket.is_told_as(&held));
    let replace = Request::ReplaceRate { link, rate: bucket };
    let mut requests = Vec::with_capacity(9);
    // A packet that waits and is larger than the new burst would wait for ever, and all behind it: the kernel splits packets
    // when they come, for the burst of then.
    let afresh = held.is_some_and(|held| bucket.burst < held.burst);
    if afresh {
        requests.push(Request::DeleteRate { link });
    }
    if differs {
        requests.push(replace);
    }
    let (needed, in_lanes) = (requests.len(), held.is_some() && !afresh && route.has_lanes(link)?);
    match in_lanes {
        true if differs => requests.extend(Part::limits(link, bucket.limit)),
        true => {}
        false => requests.extend(Part::all(link, bucket.limit)),
    }
    let mut done = route.submit(&requests)?.into_iter();
    done.by_ref().take(needed).collect::<ferry_netlink::Result<()>>()?;
    let lanes: Vec<_> = done.collect();
    let made = !in_lanes && lanes.first().is_some_and(Result::is_ok);
    // Half of them could let nothing pass; without the first there are none, and the bucket does without.
    if (in_lanes || made) && lanes.iter().any(Result::is_err) {
        route.run(&[Request::DeleteRate { link }, replace])?;
    }
    Ok(differs || made)
}

/// Sends what passes the link over the queue, or no longer over any; true when it did not so before.
fn redirect(route: &mut Route, link: u32, direction: Direction, queue: Option<u32>) -> ferry_netlink::Result<bool> {
    let found = route.redirect(link, direction)?;
    if found == queue {
        return Ok(false);
    }
    if found.is_some() {
        match route.run(&[Request::DeleteRedirect { link, direction }]) {
            Err(error) if !error.is_gone() => return Err(error),
            _ => {}
        }
    }
    let Some(to) = queue else { return Ok(true) };
    let mut done = route.submit(&[Request::AddFilters { link }, Request::Redirect { link, direction, to }])?;
    let redirected = done.pop().unwrap_or(Ok(()));
    match done.pop().unwrap_or(Ok(())) {
        Err(error) if !error.exists() => Err(error),
        _ => redirected.map(|()| true),
    }
}

fn delete(route: &mut Route, names: &[String]) -> Result<()> {
    let requests: Vec<_> = names
        .iter()
        .map(|name| Request::DeleteLink(LinkId::Name(name)))
        .collect();
    route.submit(&requests)?.into_iter().try_for_each(apply::gone_is_fine)
}

/// The kernel says of a queue, a filter or an action that it has not: there is no such thing.
fn missing(error: ferry_netlink::Error) -> Error {
    if error.is_unknown_kind() || error.errno() == Some(Errno::NOENT) {
        return Error::Missing {
            what: "ifb links, or not tc's tbf, clsact, u32 and mirred, by which traffic is limited",
            instead: "do without --net-rate, or load the modules ifb, sch_tbf, sch_ingress, cls_u32 and act_mirred",
        };
    }
    error.into()
}
