//! Says when rules change, and by whom.

use std::os::fd::{AsFd, BorrowedFd};

use super::Family;
use super::encode::NEW_GENERATION;
use super::query::{NETLINK_NETFILTER, attributes, is_of};
use crate::Result;
use crate::socket::Socket;
use crate::wire;

/// Tells when somebody changes a table, or any. Its descriptor is readable when there may be something new.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    /// `None`: all there are.
    table: Option<(Family, String)>,
}

/// Who changed what is watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// One of our sockets.
    pub own: bool,
    /// Somebody else, or it cannot be known: some of what was said was lost.
    pub foreign: bool,
    /// The name of the last of these processes, where the kernel says (`nft`, `iptables`).
    pub by: Option<String>,
}

impl Watch {
    /// Watches a table, which need not exist, in the calling thread's network namespace.
    pub fn open(family: Family, table: impl Into<String>) -> Result<Self> {
        Self::of(Some((family, table.into())))
    }

    /// Watches all tables of the calling thread's network namespace.
    pub fn all() -> Result<Self> {
        Self::of(None)
    }

    fn of(table: Option<(Family, String)>) -> Result<Self> {
        const NFNLGRP_NFTABLES: u32 = 7;
        let mut socket = Socket::open(NETLINK_NETFILTER)?;
        // A replaced table is a message a rule.
        socket.enlarge();
        socket.join(NFNLGRP_NFTABLES)?;
        Ok(Self { socket, table })
    }

    /// True when there was a change since the last call, by anybody, or when that cannot be known. Does not wait.
    pub fn changed(&mut self) -> Result<bool> {
        let changed = self.changed_by(&[])?;
        Ok(changed.own || changed.foreign)
    }

    /// What changed since the last call; `own` are the ports of our sockets ([`super::Nft::port`]). Does not wait.
    pub fn changed_by(&mut self, own: &[u32]) -> Result<Changed> {
        const PROCESS_NAME: u16 = 3;
        let (mut changed, mut last) = (Changed::default(), None);
        let table = self.table.as_ref();
        let complete = self.socket.heard(|message| {
            let ours = own.contains(&message.port);
            if message.kind == NEW_GENERATION {
                // The end of a batch. Only of what concerned us is the author told.
                if last.take() == Some(message.port) && !ours {
                    let name = attributes(message).and_then(|bytes| wire::attribute(bytes, PROCESS_NAME));
                    changed.by = name.map(wire::text);
                }
                return;
            }
            let concerned = table.is_none_or(|(family, table)| {
                message.payload.first() == Some(&(*family as u8))
                    && attributes(message).is_some_and(|bytes| is_of(bytes, table))
            });
            if concerned {
                changed.own |= ours;
                changed.foreign |= !ours;
                last = Some(message.port);
            }
        })?;
        changed.foreign |= !complete;
        Ok(changed)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
