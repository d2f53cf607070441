//! Sets and maps, named, with intervals, concatenations and verdicts.

use std::net::IpAddr;

use super::expression::{Value, Verdict};

/// A set, or a map when it has `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    /// More than one: the key is their concatenation.
    pub key: Vec<Type>,
    pub data: Option<Data>,
    /// Elements may be ranges and prefixes, none of which overlaps another. With several fields in the key each change
    /// costs the kernel time for all there is: 20 ms at 10,000 elements, 1.5 s to add these. Single values belong into
    /// a set without intervals, which takes them in 15 ms.
    pub interval: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Verdict,
    Values(Vec<Type>),
}

/// What a key or value is. The numbers are nft's own and only tell it how to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Type {
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
    Mark = 19,
    Interface = 41,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// One for each type of the set's key.
    pub key: Vec<Key>,
    pub data: Option<ElementData>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    One(Value),
    /// Both ends included.
    Range(Value, Value),
    Prefix(IpAddr, u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementData {
    Verdict(Verdict),
    Values(Vec<Value>),
}

impl Type {
    /// Bytes in a key of this type alone.
    pub(super) fn length(self) -> u32 {
        match self {
            Type::Ipv4 | Type::Mark => 4,
            Type::Ipv6 | Type::Interface => 16,
            Type::Protocol => 1,
            Type::Port => 2,
        }
    }
}

impl Element {
    /// An element of a set of single values.
    pub fn one(value: Value) -> Self {
        Self {
            key: vec![Key::One(value)],
            data: None,
        }
    }

    /// An element of a set of concatenations.
    pub fn of(values: Vec<Value>) -> Self {
        Self {
            key: values.into_iter().map(Key::One).collect(),
            data: None,
        }
    }
}
