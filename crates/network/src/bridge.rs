//! The bridge network and its endpoints.
//!
//! ```text
//!              first attach / reconcile with endpoints
//!   [ absent ] ───────────────────────────────────────▶ [ ready ] ── attach, detach, reconcile ──▶ [ ready ]
//!       ▲                                                   │
//!       └───────────────────── shutdown ────────────────────┘
//! ```
//!
//! Only this module and those below it change the state, under one lock. Dropping a `Bridge` changes nothing on the host: containers live
//! on, and the next `Bridge` finds everything again by name and alias.

mod claim;
mod config;
mod setup;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferry_netlink::Route;
use ferry_netlink::nft::{Family, Watch};
use ferry_netlink::route::{LinkId, Request};

pub use self::config::Config;
use crate::apply::Left;
use crate::endpoint::{Attach, Endpoint};
use crate::ipam::Ipam;
use crate::namespace::{self, Namespace};
use crate::plan::{Plan, Record};
use crate::{Addressing, Error, Pool, Result, apply};

/// How many sockets for removals are kept open.
const IDLE_REMOVERS: usize = 4;

#[derive(Debug)]
pub struct Bridge {
    config: Config,
    /// The namespace the bridge lives in: that of the thread that called [`Bridge::new`].
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
    record: Record,
    /// The firewall after our last change to it.
    firewall: Option<Left>,
    /// Outlives `ready`: a bridge that could not be made again has endpoints all the same.
    ipam: Option<Ipam>,
    ready: Option<Ready>,
}

/// The bridge as it is on the host.
#[derive(Debug)]
struct Ready {
    index: u32,
    addressing: Addressing,
    ipv6: bool,
}

impl Bridge {
    /// A bridge network in the network namespace of the calling thread. Changes nothing there before the first attach.
    /// `record` is what [`Bridge::record`] said before a restart, or the default.
    pub fn new(config: Config, record: Record) -> Result<Self> {
        config.check()?;
        let record = of_this_boot(record)?;
        let state = State {
            route: Route::open()?,
            record,
            firewall: None,
            ipam: None,
            ready: None,
        };
        Ok(Self {
            host: namespace::current()?,
            pool: Pool::new(config.pool)?,
            state: Mutex::new(state),
            removers: Mutex::default(),
            config,
        })
    }

    /// What to keep across a restart: it changes with the first attach, with a reconcile, and with a shutdown.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// The subnet and its gateway, once the bridge exists.
    pub fn addressing(&self) -> Option<Addressing> {
        self.lock().ready.as_ref().map(|ready| ready.addressing)
    }

    /// Makes the bridge now instead of at the first attach.
    pub fn ensure(&self) -> Result<()> {
        let mut state = self.lock();
        if state.ready.is_none() {
            self.set_up(&mut state, None).map(drop)
        } else {
            Ok(())
        }
    }

    /// A namespace of its own with an interface on this network. A failure leaves nothing behind.
    pub fn attach(&self, attach: Attach) -> Result<(OwnedFd, Endpoint)> {
        let mut namespace = self.pool.take()?;
        let endpoint = self.connect(&mut namespace, attach)?;
        Ok((namespace.fd, endpoint))
    }

    /// A namespace with only `lo`, up.
    pub fn private(&self) -> Result<OwnedFd> {
        Ok(self.pool.take()?.fd)
    }

    /// Gives a namespace somebody else made an interface on this network. It must not have an `eth0`.
    pub fn configure(&self, netns: BorrowedFd<'_>, attach: Attach) -> Result<Endpoint> {
        let route = namespace::adopt(netns)?;
        let fd = netns.try_clone_to_owned().map_err(|source| Error::Namespace {
            operation: "keep",
            source,
        })?;
        self.connect(&mut Namespace { fd, route }, attach)
    }

    /// Removes the endpoint's veth and frees its address. Fine if either is gone already. Takes tens of milliseconds in
    /// the kernel: nobody who has an answer to give should wait for it.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<()> {
        let removed = self.remove_link(endpoint);
        let mut state = self.lock();
        if let Some(ipam) = &mut state.ipam {
            ipam.release(endpoint.ip, &endpoint.endpoint_id);
        }
        if let Some(ready) = &state.ready {
            let neighbour = Request::DeleteNeighbour {
                link: ready.index,
                address: endpoint.ip.into(),
            };
            let _ = state.route.submit(&[neighbour]);
        }
        removed
    }

    /// Makes the host what it should be: host ends of endpoints neither in `live` nor attached here go, a bridge or a
    /// firewall table that is gone or changed is made again, the addresses of `live` are taken. Without an endpoint what
    /// does not exist is not made, and what a crash left half removed goes. Returns what was done.
    ///
    /// Call it before the first attach of a process: until then the addresses of containers that live on are not known.
    pub fn reconcile(&self, live: &[Endpoint]) -> Result<Plan> {
        let mut state = self.lock();
        let exists = state.route.link(&LinkId::Name(&self.config.name))?.is_some();
        if live.is_empty() && state.ready.is_none() && !exists {
            return self.tear_down(&mut state);
        }
        self.set_up(&mut state, Some(live))
    }

    /// Removes the bridge with all its host ends and the firewall table, and puts back the sysctls.
    pub fn shutdown(&self) -> Result<()> {
        self.tear_down(&mut self.lock()).map(drop)
    }

    /// Tells when somebody changes the firewall table; then it is time to reconcile, which puts back what was flushed.
    pub fn watch(&self) -> Result<Watch> {
        let table = self.config.table.clone();
        namespace::inside(self.host.as_fd(), || Ok(Watch::open(Family::Inet, table)?))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_link(&self, endpoint: &Endpoint) -> Result<()> {
        let removers = || self.removers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = removers().pop();
        let mut route = match idle {
            Some(route) => route,
            None => namespace::inside(self.host.as_fd(), || Ok(Route::open()?))?,
        };
        let link = LinkId::Name(&endpoint.host_ifname);
        // Not when the name has been given to another endpoint since.
        let ours = route
            .link(&link)?
            .is_some_and(|link| link.alias.as_deref() == Some(&endpoint.alias()));
        let removed = if ours {
            apply::gone_is_fine(route.run(&[Request::DeleteLink(link)]))
        } else {
            Ok(())
        };
        let mut removers = removers();
        if removers.len() < IDLE_REMOVERS {
            removers.push(route);
        }
        removed
    }
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
