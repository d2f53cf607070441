//! Says which links have lost something.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use super::{NETLINK_ROUTE, rate, redirect, request};
use crate::Result;
use crate::socket::Socket;
use crate::wire;

/// Tells when a link goes, goes down, or loses an address, a queue or a filter. Its descriptor is readable when there may be something new.
#[derive(Debug)]
pub struct Losses {
    socket: Socket,
}

/// What links lost, or the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// The indexes of links that are down or gone, or have an address less.
    pub links: BTreeSet<u32>,
    /// Somebody turned `net.ipv4.ip_forward` on or off.
    pub forwarding: bool,
}

/// `RTM_NEWNETCONF`.
const NEW_NETCONF: u16 = 80;

impl Losses {
    /// Watches the links of the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        const RTNLGRP_LINK: u32 = 1;
        const RTNLGRP_TC: u32 = 4;
        const RTNLGRP_IPV4_IFADDR: u32 = 5;
        const RTNLGRP_IPV6_IFADDR: u32 = 9;
        const RTNLGRP_IPV4_NETCONF: u32 = 24;
        let mut socket = Socket::open(NETLINK_ROUTE)?;
        // Every container that starts is some messages.
        socket.enlarge();
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_TC,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV4_NETCONF,
        ] {
            socket.join(group)?;
        }
        Ok(Self { socket })
    }

    /// What was lost since the last call, by whomever; `None` when some of what was said was lost. Does not wait.
    pub fn take(&mut self) -> Result<Option<Lost>> {
        const INDEX: usize = 4;
        const FLAGS: usize = 8;
        const IFF_UP: u32 = 1;
        let mut lost = Lost::default();
        let complete = self.socket.heard(|message| {
            lost.forwarding |= message.kind == NEW_NETCONF && is_ip_forward(message.payload);
            // The index is at one place in `struct ifinfomsg`, `struct ifaddrmsg` and `struct tcmsg`.
            let lost_something = match message.kind {
                request::DEL_LINK | request::DEL_ADDRESS | rate::DEL_QDISC | redirect::DEL_FILTER => true,
                request::NEW_LINK => wire::u32_at(message.payload, FLAGS).is_some_and(|flags| flags & IFF_UP == 0),
                _ => false,
            };
            if let (true, Some(index)) = (lost_something, wire::u32_at(message.payload, INDEX)) {
                lost.links.insert(index);
            }
        })?;
        Ok(complete.then_some(lost))
    }
}

impl AsFd for Losses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether `struct netconfmsg` and what follows tell of net.ipv4.ip_forward itself.
fn is_ip_forward(message: &[u8]) -> bool {
    const INDEX: u16 = 1;
    const FORWARDING: u16 = 2;
    const ALL: u32 = u32::MAX;
    let Some(bytes) = message.get(4..) else { return false };
    let index = wire::attribute(bytes, INDEX).and_then(|value| wire::u32_at(value, 0));
    index == Some(ALL) && wire::attribute(bytes, FORWARDING).is_some()
}
