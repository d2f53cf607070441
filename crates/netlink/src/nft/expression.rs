//! What rules are made of: header fields, comparisons, look-ups, verdicts, address translation.

use std::net::IpAddr;

/// One part of a rule; the next one is looked at only when this one matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// The field compares so to the value.
    Match {
        field: Field,
        operator: Operator,
        value: Value,
    },
    /// The fields, side by side, are in the set (or, `negated`, are not).
    Lookup {
        fields: Vec<Field>,
        negated: bool,
        set: String,
    },
    /// The verdict that the map has for the fields; no match where it has none.
    VerdictMap {
        fields: Vec<Field>,
        map: String,
    },
    Verdict(Verdict),
    /// Counts packets and bytes.
    Counter,
    SetMark(u32),
    /// Writes a port of TCP or UDP into the packet, checksum included: translation without connection tracking, in a chain
    /// that sees the packets of both directions.
    SetPort {
        which: PortOf,
        port: u16,
    },
    /// Source address translation to the address of the link the packet leaves by.
    Masquerade,
    Nat {
        kind: NatKind,
        target: NatTarget,
    },
    /// Destination translation to this host: the address of the link the packet came by, and the port if given.
    Redirect {
        port: Option<u16>,
    },
    /// Connection tracking does not see the packet; only before it does ([`super::priority::RAW`]).
    NoTrack,
    Reject(Reject),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    IifName,
    OifName,
    Mark,
    NfProto,
    L4Proto,
    IpSaddr,
    IpDaddr,
    Ip6Saddr,
    Ip6Daddr,
    TcpSport,
    TcpDport,
    UdpSport,
    UdpDport,
    /// The ports of whatever transport it is; pair it with [`Field::L4Proto`].
    ThSport,
    ThDport,
    CtState,
    CtStatus,
    CtMark,
    /// What kind of address the destination is, by the routing table.
    FibDaddrType,
    FibSaddrType,
    /// Whether answers to the source would leave by the link that the packet came by; in chains that come before routing, at
    /// input and at forward. Compare it with [`Value::Present`].
    FibSaddrIif,
}

/// A port that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOf {
    TcpSource,
    TcpDestination,
    UdpSource,
    UdpDestination,
}

impl PortOf {
    pub(super) fn field(self) -> Field {
        match self {
            PortOf::TcpSource => Field::TcpSport,
            PortOf::TcpDestination => Field::TcpDport,
            PortOf::UdpSource => Field::UdpSport,
            PortOf::UdpDestination => Field::UdpDport,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
}

/// A constant. Its width and byte order follow from what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A link's name, at most 15 bytes.
    Interface(String),
    /// Every link whose name starts so: 1 to 15 bytes. In a set only where it has intervals.
    InterfacePrefix(String),
    Address(IpAddr),
    /// Only to compare with, not in sets (there: [`super::Key::Prefix`]).
    Prefix(IpAddr, u8),
    Port(u16),
    /// Both ends included.
    Ports(u16, u16),
    /// An IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    Protocol(u8),
    NfProto(super::Family),
    Mark(u32),
    /// Any of these.
    CtState(Vec<CtState>),
    CtStatus(CtStatus),
    AddressType(AddressType),
    Present(bool),
}

/// `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CtState {
    Invalid = 1,
    Established = 2,
    Related = 4,
    New = 8,
    Untracked = 64,
}

/// `IPS_*` of the same header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CtStatus {
    Snat = 1 << 4,
    Dnat = 1 << 5,
}

/// `RTN_*` of linux/rtnetlink.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AddressType {
    Unicast = 1,
    Local = 2,
    Broadcast = 3,
    Multicast = 5,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum NatKind {
    Snat = 0,
    Dnat = 1,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatTarget {
    /// The port stays when not given.
    Address { address: IpAddr, port: Option<u16> },
    /// What the map has for the fields: an address of the family and, with `port`, a port beside it.
    Map {
        fields: Vec<Field>,
        map: String,
        family: super::Family,
        port: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    PortUnreachable,
    AdminProhibited,
    TcpReset,
}

impl Statement {
    pub fn is(field: Field, value: Value) -> Self {
        Statement::Match {
            field,
            operator: Operator::Equal,
            value,
        }
    }

    pub fn is_not(field: Field, value: Value) -> Self {
        Statement::Match {
            field,
            operator: Operator::NotEqual,
            value,
        }
    }

    pub fn is_in(fields: &[Field], set: &str) -> Self {
        Statement::Lookup {
            fields: fields.to_vec(),
            negated: false,
            set: set.to_owned(),
        }
    }

    pub fn is_not_in(fields: &[Field], set: &str) -> Self {
        Statement::Lookup {
            fields: fields.to_vec(),
            negated: true,
            set: set.to_owned(),
        }
    }

    pub fn accept() -> Self {
        Statement::Verdict(Verdict::Accept)
    }

    pub fn drop() -> Self {
        Statement::Verdict(Verdict::Drop)
    }
}
