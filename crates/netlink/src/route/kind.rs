//! Links that are a view of another one, or of nothing: macvlan, ipvlan, 802.1Q, dummy, ifb.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::request::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINKINFO, IFLA_MTU, IFLA_NET_NS_FD,
    write_head,
};
use crate::wire::Writer;
use crate::{Error, Result};

/// A link made in one request with its final name in its final namespace. Where the kernel lacks the kind, the request
/// fails with an error that says so ([`Error::is_unknown_kind`]).
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    pub name: &'a str,
    pub kind: Kind,
    /// Chosen by the kernel when not given. An ipvlan has its parent's, always.
    pub mac: Option<[u8; 6]>,
    /// The parent's when not given.
    pub mtu: Option<u32>,
    /// The namespace it comes up in; this one when not given. The parent stays here.
    pub netns: Option<BorrowedFd<'a>>,
}

/// `parent` is an index in the socket's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Macvlan {
        parent: u32,
        mode: MacvlanMode,
    },
    Ipvlan {
        parent: u32,
        mode: IpvlanMode,
    },
    /// What the parent sends and receives with this 802.1Q tag, 0 to 4094.
    Vlan {
        parent: u32,
        id: u16,
    },
    Dummy,
    /// A queue for what is sent over it by [`Request::Redirect`](super::Request::Redirect).
    Ifb,
}

/// `MACVLAN_MODE_*` of linux/if_link.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MacvlanMode {
    Private = 1,
    Vepa = 2,
    Bridge = 4,
    /// The parent's only one, which has the parent's address.
    Passthru = 8,
}

/// `IPVLAN_MODE_*` of linux/if_link.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum IpvlanMode {
    L2 = 0,
    L3 = 1,
    /// L3 whose packets the host's firewall sees.
    L3s = 2,
}

impl Kind {
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Kind::Macvlan { .. } => "create macvlan",
            Kind::Ipvlan { .. } => "create ipvlan",
            Kind::Vlan { .. } => "create vlan",
            Kind::Dummy => "create dummy",
            Kind::Ifb => "create ifb",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Macvlan { .. } => "macvlan",
            Kind::Ipvlan { .. } => "ipvlan",
            Kind::Vlan { .. } => "vlan",
            Kind::Dummy => "dummy",
            Kind::Ifb => "ifb",
        }
    }

    fn parent(self) -> Option<u32> {
        match self {
            Kind::Macvlan { parent, .. } | Kind::Ipvlan { parent, .. } | Kind::Vlan { parent, .. } => Some(parent),
            Kind::Dummy | Kind::Ifb => None,
        }
    }
}

impl Child<'_> {
    /// The kernel would take the lower twelve bits of a number for it.
    pub(super) fn check(&self) -> Result<()> {
        match self.kind {
            Kind::Vlan { id, .. } if id > 4094 => Err(Error::TooLong(format!("{id} as a VLAN's number (0 to 4094)"))),
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        write_head(w, 0, None);
        w.text(IFLA_IFNAME, self.name);
        if let Some(mac) = self.mac {
            w.attribute(IFLA_ADDRESS, &mac);
        }
        if let Some(mtu) = self.mtu {
            w.u32(IFLA_MTU, mtu);
        }
        if let Some(parent) = self.kind.parent() {
            w.u32(IFLA_LINK, parent);
        }
        if let Some(netns) = self.netns {
            w.u32(IFLA_NET_NS_FD, netns.as_raw_fd().cast_unsigned());
        }
        w.nest(IFLA_LINKINFO, |w| {
            w.text(IFLA_INFO_KIND, self.kind.name());
            // IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE and IFLA_VLAN_ID are 1 alike.
            match self.kind {
                Kind::Macvlan { mode, .. } => w.nest(IFLA_INFO_DATA, |w| w.u32(1, mode as u32)),
                Kind::Ipvlan { mode, .. } => {
                    w.nest(IFLA_INFO_DATA, |w| w.attribute(1, &(mode as u16).to_ne_bytes()));
                }
                Kind::Vlan { id, .. } => w.nest(IFLA_INFO_DATA, |w| w.attribute(1, &id.to_ne_bytes())),
                Kind::Dummy | Kind::Ifb => {}
            }
        });
    }
}
