//! Network namespaces: made and entered on threads of their own, never on one that goes on to do something else.
//!
//! What a namespace needs from inside (lo, sysctls) is done once, when it is made; from then on its [`Route`] socket,
//! opened inside, reaches it from any thread.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use ferry_netlink::Route;
use ferry_netlink::route::{Change, LinkId, Request};
use rustix::thread::LinkNameSpaceType;

use crate::sysctl::Sysctls;
use crate::{Error, Result};

/// A namespace with `lo` up and nothing else, whose future links have IPv6 off and take no router advertisements
/// (CVE-2024-32473, CVE-2020-13401). `lo` keeps ::1, as with Docker.
#[derive(Debug)]
pub struct Namespace {
    pub fd: OwnedFd,
    pub route: Route,
}

impl Namespace {
    /// Makes one, on a thread of its own. Takes about half a millisecond, nearly all of it `unshare(2)`.
    pub fn create() -> Result<Self> {
        on_thread(Self::become_new)
    }

    /// Moves the calling thread into a new namespace and prepares it.
    pub(crate) fn become_new() -> Result<Self> {
        ferry_sys::ns::unshare_network().map_err(|source| Error::Namespace {
            operation: "create",
            source,
        })?;
        Ok(Self {
            fd: current()?,
            route: prepare()?,
        })
    }
}

/// Prepares a namespace somebody else made as [`Namespace::create`] does its own, and returns the socket inside it.
pub fn adopt(netns: BorrowedFd<'_>) -> Result<Route> {
    inside(netns, prepare)
}

/// Runs `work` inside `netns` on a thread of its own.
pub fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    on_thread(|| {
        enter(netns)?;
        work()
    })
}

/// The namespace of the calling thread.
pub fn current() -> Result<OwnedFd> {
    let file = File::open("/proc/thread-self/ns/net").map_err(|source| Error::Namespace {
        operation: "open",
        source,
    })?;
    Ok(file.into())
}

/// Moves the calling thread into `netns`.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> Result<()> {
    rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(|errno| {
        Error::Namespace {
            operation: "enter",
            source: errno.into(),
        }
    })
}

fn prepare() -> Result<Route> {
    let sysctls = Sysctls::open()?;
    // Before any link but lo exists: a new link takes the defaults at birth.
    sysctls.write("ipv6/conf/default/disable_ipv6", "1")?;
    sysctls.write("ipv6/conf/default/accept_ra", "0")?;
    // As under Docker, which turns it on for the host, whose settings a namespace begins with: images of VPNs look at it.
    sysctls.write("ipv4/ip_forward", "1")?;
    let mut route = Route::open()?;
    let change = Change {
        up: Some(true),
        ..Change::default()
    };
    route.run(&[Request::ChangeLink {
        link: LinkId::Name("lo"),
        change,
    }])?;
    Ok(route)
}

fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failed = |source| Error::Namespace {
        operation: "start a thread for",
        source,
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("ferry-netns".to_owned())
            .stack_size(128 * 1024)
            .spawn_scoped(scope, work)
            .map_err(failed)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(failed(io::Error::other("the thread panicked"))))
    })
}
