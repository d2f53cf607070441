//! OCI's ordered allow/deny list as the state it ends in.
//!
//! The list starts from "everything is denied" (OCI runtime spec, config-linux.md "Allowed Device list") and is played
//! by the rules of the v1 devices controller, as runc does: a rule of type `a` resets everything, another one adds to or
//! takes from the exceptions. Taking a single device out of a wildcard exception is refused: v1 ignores it silently.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Block,
    Char,
}

/// A device, or all of a major or minor number (`None`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

/// A set of read, write and mknod; the bits are eBPF's `BPF_DEVCG_ACC_*` (linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access(pub u8);

impl Access {
    pub const MKNOD: u8 = 1;
    pub const READ: u8 = 2;
    pub const WRITE: u8 = 4;
    pub const ALL: Self = Self(Self::MKNOD | Self::READ | Self::WRITE);

    pub fn parse(text: &str) -> Option<Self> {
        text.bytes().try_fold(Self(0), |Self(bits), letter| match letter {
            b'r' => Some(Self(bits | Self::READ)),
            b'w' => Some(Self(bits | Self::WRITE)),
            b'm' => Some(Self(bits | Self::MKNOD)),
            _ => None,
        })
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, "r"), (Self::WRITE, "w"), (Self::MKNOD, "m")] {
            if self.0 & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// As the v1 files spell it: `c 1:3`, `b *:*`.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What holds for every device, and the exceptions from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub allow: bool,
    pub exceptions: BTreeMap<Node, Access>,
}

impl Rules {
    pub fn new(list: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut rules = Self::default();
        for rule in list {
            rules.play(rule)?;
        }
        Ok(rules)
    }

    fn play(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let invalid = |meaning: &str| Error::Invalid {
            limit: "device rule".to_owned(),
            value: rule.to_string(),
            meaning: meaning.to_owned(),
        };
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => {
                *self = Self {
                    allow: rule.allow(),
                    exceptions: BTreeMap::new(),
                };
                return Ok(());
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
            LinuxDeviceType::P => return Err(invalid("a fifo is no device")),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(n) => u32::try_from(n)
                .map(Some)
                .map_err(|_| invalid("device numbers are 32 bits without a sign")),
        };
        let access = match rule.access().as_deref() {
            None | Some("") => Access::ALL,
            // runc takes "rwa" for "rw".
            Some(text) => Access::parse(text.strip_suffix('a').filter(|rest| !rest.is_empty()).unwrap_or(text))
                .ok_or_else(|| invalid("access is made of r, w and m"))?,
        };
        let node = Node {
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
        };
        if rule.allow() == self.allow {
            let wider = [(node.major, None), (None, node.minor), (None, None)];
            for (major, minor) in wider {
                let wide = Node { kind, major, minor };
                let overlap = wide != node && self.exceptions.get(&wide).is_some_and(|a| a.0 & access.0 != 0);
                if overlap {
                    return Err(invalid("it would punch a hole into a wildcard rule before it"));
                }
            }
            let left = self
                .exceptions
                .get(&node)
                .map_or(Access(0), |held| held.without(access));
            if left.is_empty() {
                self.exceptions.remove(&node);
            } else {
                self.exceptions.insert(node, left);
            }
        } else {
            let held = self.exceptions.entry(node).or_insert(Access(0));
            held.0 |= access.0;
        }
        Ok(())
    }
}

/// The devices every container may use, whatever its specification says (runc's `AllowedDevices`): making nodes, and
/// null, zero, full, random, urandom, tty, ptmx and pts. The runtime puts them behind the container's own list.
pub fn defaults() -> Vec<LinuxDeviceCgroup> {
    let any = [
        (LinuxDeviceType::C, None, None, "m"),
        (LinuxDeviceType::B, None, None, "m"),
    ];
    let known = [(1, 3), (1, 8), (1, 7), (5, 0), (1, 5), (1, 9), (5, 2)]
        .map(|(major, minor)| (LinuxDeviceType::C, Some(major), Some(minor), "rwm"));
    let pts = [(LinuxDeviceType::C, Some(136), None, "rwm")];
    any.into_iter()
        .chain(known)
        .chain(pts)
        .filter_map(|(typ, major, minor, access)| {
            let mut rule = LinuxDeviceCgroupBuilder::default()
                .allow(true)
                .typ(typ)
                .access(access)
                .build()
                .ok()?;
            rule.set_major(major);
            rule.set_minor(minor);
            Some(rule)
        })
        .collect()
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(crate) fn rule(allow: bool, text: &str) -> LinuxDeviceCgroup {
        let mut parts = text.split([' ', ':']);
        let typ = match parts.next().unwrap() {
            "b" => LinuxDeviceType::B,
            "c" => LinuxDeviceType::C,
            _ => LinuxDeviceType::A,
        };
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(typ)
            .build()
            .unwrap();
        rule.set_major(parts.next().and_then(|n| n.parse().ok()));
        rule.set_minor(parts.next().and_then(|n| n.parse().ok()));
        rule.set_access(parts.next().map(str::to_owned));
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::testing::rule;
    use super::*;

    #[test]
    fn the_usual_list_ends_as_exceptions_from_deny() {
        let rules = Rules::new(&[
            rule(true, "c 9:9 rwm"),
            rule(false, "a"),
            rule(true, "c 1:3 r"),
            rule(true, "c 1:3 w"),
            rule(true, "b *:* m"),
            rule(false, "c 10:229 rwm"),
        ])
        .unwrap();
        assert!(!rules.allow);
        let shown: Vec<String> = rules.exceptions.iter().map(|(n, a)| format!("{n} {a}")).collect();
        assert_eq!(shown, ["b *:* m", "c 1:3 rw"]);
    }

    #[test]
    fn privileged_is_allow_with_nothing_else() {
        let rules = Rules::new(&[rule(false, "a"), rule(true, "c 1:3 rwm"), rule(true, "a")]).unwrap();
        assert_eq!(
            rules,
            Rules {
                allow: true,
                exceptions: BTreeMap::new()
            }
        );
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        assert!(Rules::new(&[rule(true, "c 1:* rw"), rule(false, "c 1:3 w")]).is_err());
        assert!(Rules::new(&[rule(true, "c 1:* r"), rule(false, "c 1:3 w")]).is_ok());
    }

    #[test]
    fn bad_numbers_and_letters_are_errors() {
        assert!(Rules::new(&[rule(true, "c -2:3 r")]).is_err());
        assert!(Rules::new(&[rule(true, "c 4294967296:3 r")]).is_err());
        assert!(Rules::new(&[rule(true, "c 1:3 x")]).is_err());
    }

    #[test]
    fn the_defaults_are_ten_rules() {
        assert_eq!(Rules::new(&defaults()).unwrap().exceptions.len(), 10);
    }
}
