//! All networks of one engine, and their endpoints and ports.
//!
//! ```text
//!            first attach, raise, reconcile with endpoints
//!   [ down ] ──────────────────────────────────────────────▶ [ up ] ── create, attach, publish, detach, … ──▶ [ up ]
//!       ▲                                                      │
//!       └────────────────────── shutdown ──────────────────────┘
//! ```
//!
//! Only this module and those below it change the state, under one lock. Dropping a `Fabric` changes nothing on the host:
//! containers live on, and the next `Fabric` finds everything again by name and alias.

mod join;
mod limit;
mod published;
mod raise;
mod wire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_netlink::Route;
use ferry_netlink::nft::Watch;
use ferry_netlink::route::{LinkId, Losses, Request};
use ipnet::IpNet;

use crate::apply::Wall;
use crate::endpoint::{ALIAS, Attach, Endpoint};
use crate::ipam::{self, Addresses, Pools};
use crate::limit::Limits;
use crate::namespace::{self, Namespace};
use crate::network::{Driver, Network, Range, overlap};
use crate::plan::{Plan, Record};
use crate::ports::{Mapping, Ports};
use crate::{Error, Pool, Result, apply, legacy};

/// So many answers fit in a socket's queue.
const NEIGHBOURS_A_SEND: usize = 50;
/// How many sockets for removals are kept open.
const IDLE_REMOVERS: usize = 4;

#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the firewall table.
    pub table: String,
    /// Turn forwarding on while there are bridges.
    pub forward: bool,
    /// How many namespaces to keep ready.
    pub pool: usize,
    /// Where subnets come from that nobody asked for by name.
    pub pools: Pools,
    /// Translate no ports: somebody listens at each of them, so that it passes the host's own input rules.
    pub relay: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            table: "ferry".to_owned(),
            forward: true,
            pool: 0,
            pools: Pools::usual(ipam::unique_local("")),
            relay: false,
        }
    }
}

/// A network to be: what is not said is chosen.
#[derive(Debug, Clone)]
pub struct Draft {
    pub id: String,
    pub name: String,
    pub driver: Driver,
    /// A subnet of each family that is asked for, and whether it has one at all.
    pub v4: bool,
    pub v6: bool,
    pub ranges: Vec<Range>,
    pub internal: bool,
    pub mtu: u32,
    pub prefix: String,
    /// Its subnet is chosen anew when the host has got another use for it while the network was not there.
    pub automatic: bool,
}

/// A container that lives, for [`Fabric::reconcile`].
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The id it published with.
    pub holder: String,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Mapping>,
    pub limits: Limits,
}

#[derive(Debug)]
pub struct Fabric {
    config: Config,
    /// The namespace the networks live in: that of the thread that called [`Fabric::new`].
    host: OwnedFd,
    pool: Pool,
    state: Mutex<State>,
    /// Sockets for removals. The kernel takes tens of milliseconds to remove a link, most of them without its own lock:
    /// many at once are as quick as one, and none delays an attach.
    removers: Mutex<Vec<Route>>,
}

#[derive(Debug)]
struct State {
    route: Route,
    wall: Wall,
    record: Record,
    /// The table stands, and all that was asked of it is in it.
    up: bool,
    /// The kernel knows IPv6.
    ipv6: bool,
    networks: BTreeMap<String, Net>,
    ports: Ports,
    /// By the container's id.
    limits: HashMap<String, limit::Limited>,
    /// Queues whose container has left all its networks.
    doomed: Vec<String>,
    /// What of others' firewalls is in containers' way.
    obstacles: Vec<String>,
}

/// A network, and who is on it.
#[derive(Debug)]
struct Net {
    network: Network,
    automatic: bool,
    /// It shall be on the host: somebody asked for it, or is on it.
    wanted: bool,
    /// The host's link, when it is there.
    index: Option<u32>,
    addresses: Vec<Addresses>,
    /// By their ids.
    endpoints: HashMap<String, Endpoint>,
}

impl Net {
    fn new(network: Network, automatic: bool) -> Self {
        Self {
            addresses: network.ranges.iter().cloned().map(Addresses::new).collect(),
            automatic,
            wanted: false,
            index: None,
            endpoints: HashMap::new(),
            network,
        }
    }

    fn is_unused(&self) -> bool {
        self.endpoints.is_empty() && self.addresses.iter().all(Addresses::is_unused)
    }

    /// Gives an address of the family: the wanted one, or the next.
    fn allocate(&mut self, v6: bool, wanted: Option<IpAddr>, holder: &str) -> Result<Option<(IpAddr, u8)>> {
        let mut outside = None;
        for addresses in self
            .addresses
            .iter_mut()
            .filter(|addresses| addresses.range().is_v6() == v6)
        {
            let subnet = addresses.range().subnet;
            if let Some(address) = wanted
                && !subnet.contains(&address)
            {
                outside = Some(Error::AddressOutside { address, subnet });
                continue;
            }
            match addresses.allocate(wanted, holder) {
                // The next range may have one.
                Err(Error::Exhausted { subnet }) => {
                    outside = Some(Error::NoAddress {
                        family: if v6 { "IPv6" } else { "IPv4" },
                        name: self.network.name.clone(),
                        id: self.network.id.clone(),
                        subnet,
                    });
                }
                given => return given.map(|address| Some((address, subnet.prefix_len()))),
            }
        }
        match (outside, wanted) {
            (Some(error), _) => Err(error),
            (None, Some(address)) => Err(Error::Unusable {
                what: format!("address {address}"),
                reason: format!("network {} has no subnet of that family", self.network.name),
            }),
            (None, None) => Ok(None),
        }
    }

    fn release(&mut self, address: IpAddr, holder: &str) {
        for addresses in &mut self.addresses {
            addresses.release(address, holder);
        }
    }

    fn adopt(&mut self, endpoint: &Endpoint) {
        if self.endpoints.contains_key(&endpoint.endpoint_id) {
            return;
        }
        self.endpoints.insert(endpoint.endpoint_id.clone(), endpoint.clone());
        for (address, _) in endpoint.addresses() {
            // Two records with one address: the first keeps it, the other keeps working as well as it did.
            let _ = self.allocate(address.is_ipv6(), Some(address), &endpoint.endpoint_id);
        }
        self.wanted = true;
    }
}

impl Fabric {
    /// The networks in the network namespace of the calling thread. Changes nothing there before the first use.
    /// `record` is what [`Fabric::record`] said before a restart, or the default.
    pub fn new(config: Config, record: Record) -> Result<Self> {
        let sysctls = crate::sysctl::Sysctls::open()?;
        let state = State {
            route: Route::open()?,
            wall: Wall::open(&config.table)?,
            record: of_this_boot(record)?,
            up: false,
            ipv6: apply::has_ipv6(&sysctls)?,
            networks: BTreeMap::new(),
            ports: Ports::default(),
            limits: HashMap::new(),
            doomed: Vec::new(),
            obstacles: Vec::new(),
        };
        Ok(Self {
            host: namespace::current()?,
            pool: Pool::new(config.pool)?,
            state: Mutex::new(state),
            removers: Mutex::default(),
            config,
        })
    }

    /// What to keep across a restart: it changes with the first use, with a reconcile, and with a shutdown.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// The definition of a network; an automatic one may have another subnet than when it was added.
    pub fn network(&self, id: &str) -> Option<Network> {
        self.lock().networks.get(id).map(|net| net.network.clone())
    }

    /// Adds a network that was created earlier. Nothing changes on the host.
    pub fn add(&self, network: Network, automatic: bool) -> Result<()> {
        network.check()?;
        let mut state = self.lock();
        state.networks.insert(network.id.clone(), Net::new(network, automatic));
        Ok(())
    }

    /// Decides what the draft leaves open, and adds the network. Nothing changes on the host before [`Fabric::raise`].
    ///
    /// # Errors
    ///
    /// [`Error::Overlap`] with another network, [`Error::NoSubnet`], [`Error::Unusable`], [`Error::Missing`].
    pub fn create(&self, draft: Draft) -> Result<Network> {
        let mut state = self.lock();
        let mut ranges = draft.ranges;
        for range in &ranges {
            let mut others = state.networks.values().map(|net| &net.network);
            let taken = others.find(|other| other.ranges.iter().any(|other| overlap(&other.subnet, &range.subnet)));
            // Several networks may share a wire, not a bridge.
            if let Some(other) = taken
                && (matches!(draft.driver, Driver::Bridge(_)) || other.link() != link_of(&draft.driver))
            {
                return Err(Error::Overlap {
                    subnet: range.subnet,
                    other: format!("network {}", other.name),
                });
            }
        }
        for (v6, wanted) in [(false, draft.v4), (true, draft.v6)] {
            if !wanted || ranges.iter().any(|range| range.is_v6() == v6) {
                continue;
            }
            let used = state.in_the_way(&[])?;
            let subnet = self.config.pools.choose(v6, &used)?;
            ranges.push(Range {
                subnet,
                gateway: None,
                pool: None,
                reserved: Vec::new(),
            });
        }
        if ranges.is_empty() {
            return Err(Error::Unusable {
                what: format!("network {}", draft.name),
                reason: "it has neither IPv4 nor IPv6".to_owned(),
            });
        }
        for range in ranges.iter_mut().filter(|range| range.gateway.is_none()) {
            // In its pool, if it has one that begins elsewhere.
            range.gateway = Some(ipam::first(range.pool.as_ref().unwrap_or(&range.subnet)));
        }
        let network = Network {
            id: draft.id,
            name: draft.name,
            driver: draft.driver,
            ranges,
            internal: draft.internal,
            mtu: draft.mtu,
            prefix: draft.prefix,
        };
        network.check()?;
        if network.has(true) && !state.ipv6 {
            return Err(Error::Missing {
                what: "IPv6",
                instead: "create the network without --ipv6",
            });
        }
        let mut others = state.networks.values().map(|net| &net.network);
        if let Driver::Bridge(bridge) = &network.driver
            && others.any(|other| other.bridge().is_some_and(|other| other.link == bridge.link))
        {
            return Err(Error::Taken {
                name: bridge.link.clone(),
            });
        }
        state
            .networks
            .insert(network.id.clone(), Net::new(network.clone(), draft.automatic));
        Ok(network)
    }

    /// Makes the network on the host now instead of at the first attach.
    pub fn raise(&self, id: &str) -> Result<()> {
        let mut state = self.lock();
        self.ensure(&mut state, id).map(drop)
    }

    /// Removes a network nobody is on from the host and from the list. Fine if it is gone already.
    pub fn remove(&self, id: &str) -> Result<()> {
        let mut state = self.lock();
        let Some(net) = state.networks.get(id) else {
            return Ok(());
        };
        if !net.endpoints.is_empty() {
            return Err(Error::InUse {
                name: net.network.name.clone(),
            });
        }
        let link = self.lower(&mut state, id)?;
        let net = state.networks.remove(id);
        // The kernel takes tens of milliseconds for it: nobody who attaches waits for them.
        drop(state);
        let removed = match link {
            Some(index) => self.with_remover(|route| {
                let link = LinkId::Index(index);
                apply::gone_is_fine(route.run(&[Request::DeleteLink(link)]))
            }),
            None => Ok(()),
        };
        if let (Err(_), Some(net)) = (&removed, net) {
            self.lock().networks.entry(id.to_owned()).or_insert(net);
        }
        removed
    }

    /// A namespace with only `lo`, up.
    pub fn private(&self) -> Result<OwnedFd> {
        Ok(self.pool.take()?.fd)
    }

    /// A namespace of its own with an interface on each of the networks. A failure leaves nothing behind.
    pub fn attach(&self, attaches: Vec<Attach>) -> Result<(OwnedFd, Vec<Endpoint>)> {
        let mut namespace = self.pool.take()?;
        let endpoints = self.join(&mut namespace, attaches, &[])?;
        Ok((namespace.fd, endpoints))
    }

    /// Prepares a namespace somebody else made, as [`Fabric::attach`] prepares its own.
    pub fn configure(&self, netns: BorrowedFd<'_>, attaches: Vec<Attach>) -> Result<Vec<Endpoint>> {
        let mut namespace = Namespace {
            route: namespace::adopt(netns)?,
            fd: duplicate(netns)?,
        };
        self.join(&mut namespace, attaches, &[])
    }

    /// One more interface for a container that has `endpoints`. The way out may change to it.
    pub fn connect(&self, netns: BorrowedFd<'_>, attach: Attach, endpoints: &[Endpoint]) -> Result<Endpoint> {
        let mut namespace = Namespace {
            route: namespace::inside(netns, || Ok(Route::open()?))?,
            fd: duplicate(netns)?,
        };
        let mut joined = self.join(&mut namespace, vec![attach], endpoints)?;
        joined.pop().ok_or(Error::NoNetwork { id: String::new() })
    }

    /// Takes an interface from a container that lives and goes on with `rest`.
    pub fn disconnect(&self, netns: BorrowedFd<'_>, endpoint: &Endpoint, rest: &[Endpoint]) -> Result<()> {
        let mut route = namespace::inside(netns, || Ok(Route::open()?))?;
        if endpoint.host_ifname.is_empty() {
            apply::gone_is_fine(route.run(&[Request::DeleteLink(LinkId::Name(&endpoint.ifname))]))?;
        }
        self.detach(endpoint)?;
        join::set_way_out(&mut route, rest)
    }

    /// Frees the endpoint's addresses and its place on the network, at once. Its link is for [`Fabric::detach`] to remove.
    pub fn release(&self, endpoint: &Endpoint) {
        let mut state = self.lock();
        let State { networks, route, .. } = &mut *state;
        let Some(net) = networks.get_mut(&endpoint.network_id) else {
            return;
        };
        let Some(held) = net.endpoints.remove(&endpoint.endpoint_id) else {
            return;
        };
        for (address, _) in endpoint.addresses() {
            net.release(address, &endpoint.endpoint_id);
            if let Some(link) = net.index.filter(|_| net.network.bridge().is_some()) {
                let _ = route.submit(&[Request::DeleteNeighbour { link, address }]);
            }
        }
        state.forget_limits(&held.id);
    }

    /// Removes the endpoint's veth, with its last one a container's limits, and frees its addresses if they are not free
    /// yet. Fine if either is gone already. Takes tens of milliseconds in the kernel: nobody who has an answer to give should
    /// wait for it.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<()> {
        let removed = self.remove_link(endpoint);
        if !endpoint.host_ifname.is_empty() {
            self.forget_questions(endpoint);
        }
        self.release(endpoint);
        let doomed = std::mem::take(&mut self.lock().doomed);
        removed.and(self.remove_queues(&doomed))
    }

    /// Makes the host what it should be: host ends of endpoints neither in `live` nor attached here go, bridges and a
    /// firewall table that are gone or changed are made again, the addresses and ports of `live` are taken, and its limits
    /// set where they are not as they should be. Without an endpoint what does not exist is not made, and what a crash left
    /// half removed goes. Returns what was done.
    ///
    /// Call it before the first attach of a process: until then the addresses of containers that live on are not known.
    pub fn reconcile(&self, live: &[Live]) -> Result<Plan> {
        let mut state = self.lock();
        for live in live {
            for endpoint in &live.endpoints {
                if let Some(net) = state.networks.get_mut(&endpoint.network_id) {
                    net.adopt(endpoint);
                }
            }
            state.ports.adopt(&live.holder, &live.ports);
        }
        let limits: Vec<_> = live
            .iter()
            .filter(|live| !live.endpoints.is_empty())
            .map(|live| (live.holder.clone(), live.limits))
            .collect();
        self.adopt_limits(&mut state, &limits)?;
        let names: Vec<_> = state
            .networks
            .values()
            .map(|net| net.network.link().to_owned())
            .collect();
        let links = state.route.links()?;
        let exists = links
            .iter()
            .any(|link| link.kind.as_deref() == Some("bridge") && names.contains(&link.name));
        let wanted = state.networks.values().any(|net| net.wanted);
        if !wanted && !state.up && !exists {
            return self.tear_down(&mut state);
        }
        let plan = self.set_up(&mut state, true)?;
        state.forget_neighbours()?;
        self.hold_all(&mut state)?;
        Ok(plan)
    }

    /// Removes the bridges with all their host ends and the firewall table, and puts back the sysctls.
    pub fn shutdown(&self) -> Result<()> {
        self.tear_down(&mut self.lock()).map(drop)
    }

    /// Tells when somebody changes the host's firewall; then it is time to [`Fabric::mend`].
    pub fn watch(&self) -> Result<Watch> {
        namespace::inside(self.host.as_fd(), || Ok(Watch::all()?))
    }

    /// What of others' firewalls is in containers' way and cannot be changed: a sentence each, with what to do.
    pub fn obstacles(&self) -> Vec<String> {
        let (mut obstacles, networks) = {
            let state = self.lock();
            let wanted = state.networks.values().filter(|net| net.wanted);
            let networks: Vec<_> = wanted.map(|net| net.network.clone()).collect();
            (state.obstacles.clone(), networks)
        };
        // The kernel does not tell of changes there.
        match namespace::inside(self.host.as_fd(), || Ok(legacy::obstacles(networks.iter()))) {
            Ok(of_legacy) => obstacles.extend(of_legacy),
            Err(error) => obstacles.push(format!("iptables-legacy cannot be looked at: {error}")),
        }
        obstacles
    }

    /// The chains of the host's that let in only what their rules name (`chain INPUT of table ip filter`). A published port is
    /// translated before, and never comes by them.
    pub fn input_guards(&self) -> Result<Vec<String>> {
        // On a socket of its own: nobody who needs the fabric waits for it.
        namespace::inside(self.host.as_fd(), apply::input_guards)
    }

    /// The number by which [`Watch::changed_by`] knows our own changes.
    pub fn port(&self) -> u32 {
        self.lock().wall.port()
    }

    /// Puts back what somebody flushed or removed. Cheap when nobody did.
    pub fn mend(&self) -> Result<Plan> {
        let mut state = self.lock();
        match state.up {
            true => self.set_up(&mut state, false),
            false => Ok(Plan::default()),
        }
    }

    /// Tells when links of the host lose something, for [`Fabric::mend_links`].
    pub fn losses(&self) -> Result<Losses> {
        namespace::inside(self.host.as_fd(), || Ok(Losses::open()?))
    }

    /// Puts back what somebody took of our bridges, if any of these links is one; `None`: any may be.
    pub fn mend_links(&self, lost: Option<&BTreeSet<u32>>) -> Result<Plan> {
        let mut state = self.lock();
        // One that we took down ourselves is not here any more.
        let of_ours = |net: &Net| {
            net.has_bridge()
                && net
                    .index
                    .is_some_and(|index| lost.is_none_or(|lost| lost.contains(&index)))
        };
        match state.up && state.networks.values().any(of_ours) {
            true => self.set_up(&mut state, false),
            false => Ok(Plan::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_link(&self, endpoint: &Endpoint) -> Result<()> {
        if endpoint.host_ifname.is_empty() {
            return Ok(());
        }
        let link = LinkId::Name(&endpoint.host_ifname);
        self.with_remover(|route| {
            // Not when the name has been given to another endpoint since.
            let found = route.link(&link)?;
            match found.is_some_and(|link| link.alias.as_deref() == Some(&endpoint.alias())) {
                true => apply::gone_is_fine(route.run(&[Request::DeleteLink(link)])),
                false => Ok(()),
            }
        })
    }

    fn with_remover(&self, work: impl FnOnce(&mut Route) -> Result<()>) -> Result<()> {
        let removers = || self.removers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = removers().pop();
        let mut route = match idle {
            Some(route) => route,
            None => namespace::inside(self.host.as_fd(), || Ok(Route::open()?))?,
        };
        let removed = work(&mut route);
        let mut removers = removers();
        if removers.len() < IDLE_REMOVERS {
            removers.push(route);
        }
        removed
    }
}

impl State {
    /// An attach or a release that was killed half-way may have left its neighbour entries.
    fn forget_neighbours(&mut self) -> Result<()> {
        let links = self.route.links()?;
        let mut stale = Vec::new();
        for (link, address) in self.route.permanent_neighbours()? {
            let alias = links.iter().find(|found| found.index == link);
            let id = alias.and_then(|found| found.alias.as_deref()?.strip_prefix(ALIAS));
            let net = id.and_then(|id| self.networks.get(id)).filter(|net| net.has_bridge());
            if net.is_some_and(|net| net.addresses.iter().any(|addresses| addresses.is_nobodys(address))) {
                stale.push(Request::DeleteNeighbour { link, address });
            }
        }
        for some in stale.chunks(NEIGHBOURS_A_SEND) {
            self.route.submit(some)?.into_iter().try_for_each(apply::gone_is_fine)?;
        }
        Ok(())
    }

    /// What a subnet must keep clear of: the host's routes and addresses, but those of the links `except`, and the
    /// subnets of all networks.
    fn in_the_way(&mut self, except: &[u32]) -> Result<Vec<IpNet>> {
        let mut used = ipam::in_the_way(apply::used_networks(&mut self.route, except)?);
        used.extend(
            self.networks
                .values()
                .flat_map(|net| net.network.ranges.iter().map(|range| range.subnet)),
        );
        Ok(used)
    }
}

fn link_of(driver: &Driver) -> &str {
    match driver {
        Driver::Bridge(bridge) => &bridge.link,
        Driver::Macvlan { parent, .. } | Driver::Ipvlan { parent, .. } => parent,
    }
}

fn duplicate(netns: BorrowedFd<'_>) -> Result<OwnedFd> {
    netns.try_clone_to_owned().map_err(|source| Error::Namespace {
        operation: "keep",
        source,
    })
}

/// The record without what another boot changed.
fn of_this_boot(mut record: Record) -> Result<Record> {
    let unreadable = |source| Error::Sysctl {
        operation: "read",
        key: "the boot's id".to_owned(),
        source,
    };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(unreadable)?;
    if record.boot != boot.trim_end() {
        record.boot = boot.trim_end().to_owned();
        record.sysctls.clear();
    }
    Ok(record)
}
