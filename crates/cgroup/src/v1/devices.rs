//! Device access (cgroup-v1/devices.rst): a default and exceptions from it, one exception a write.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::OFlags;

use crate::devices::{Access, Node, Rules};
use crate::error::Result;
use crate::group::{self, Group};

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";

/// A fresh group has its parent's rules; the parent `ferry` has its own parent's.
pub(super) fn apply(group: &Group<'_>, list: &[LinuxDeviceCgroup], fresh: bool) -> Result<()> {
    let wanted = Rules::new(list)?;
    let (all, exceptions) = if wanted.allow { (ALLOW, DENY) } else { (DENY, ALLOW) };
    if wanted.allow && fresh && wanted.exceptions.is_empty() {
        return Ok(());
    }
    // A running container is moved from one list to the other without a moment in which it has less than both.
    let held = if fresh || wanted.allow { None } else { held(group)? };
    match held {
        None => {
            write_all(group, all, &mut ["a".to_owned()].into_iter())?;
            write_all(group, exceptions, &mut lines(&wanted.exceptions, &BTreeMap::new()))
        }
        Some(held) => {
            write_all(group, ALLOW, &mut lines(&wanted.exceptions, &held))?;
            write_all(group, DENY, &mut lines(&held, &wanted.exceptions))
        }
    }
}

/// What `have` has beyond `other`, as lines for the files.
fn lines(have: &BTreeMap<Node, Access>, other: &BTreeMap<Node, Access>) -> impl Iterator<Item = String> {
    have.iter().filter_map(|(node, access)| {
        let more = other.get(node).map_or(*access, |held| access.without(*held));
        (!more.is_empty()).then(|| format!("{node} {more}"))
    })
}

fn write_all(group: &Group<'_>, file: &str, lines: &mut dyn Iterator<Item = String>) -> Result<()> {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    let opened = group
        .open(file, OFlags::WRONLY)
        .map_err(|e| group.io_error("open", file, e))?;
    for line in lines {
        let meaning = "the parent group does not allow this, or has children that differ";
        group::write_once(opened.as_fd(), &line).map_err(|e| group.refused(file, &line, meaning, e))?;
    }
    Ok(())
}

/// The exceptions of a group that denies everything else; `None` when it allows everything.
fn held(group: &Group<'_>) -> Result<Option<BTreeMap<Node, Access>>> {
    let text = group.read_known("devices.list")?;
    let mut exceptions = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with('a') {
            return Ok(None);
        }
        let Some((node, access)) = parse(line) else {
            return Ok(None);
        };
        exceptions.insert(node, access);
    }
    Ok(Some(exceptions))
}

/// `c 1:3 rwm`
fn parse(line: &str) -> Option<(Node, Access)> {
    let mut parts = line.split([' ', ':']);
    let kind = match parts.next()? {
        "b" => crate::devices::Kind::Block,
        "c" => crate::devices::Kind::Char,
        _ => return None,
    };
    let mut number = || match parts.next()? {
        "*" => Some(None),
        number => number.parse().ok().map(Some),
    };
    let (major, minor) = (number()?, number()?);
    Some((Node { kind, major, minor }, Access::parse(parts.next()?)?))
}
