//! `linux.netDevices` (runtime-spec 1.3): network devices of the caller's namespace that become the container's.
//!
//! A device keeps its addresses, hardware address and MTU. The kernel gives a physical device back when the namespace
//! ends; nobody else does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use ferry_netlink::Route;
use ferry_netlink::route::{Change, LinkId, Request};
use ferry_runtime::namespace::CLONE_NEWNET;
use ferry_runtime::plan::Namespaces;
use ferry_runtime::{Failure, Kind};
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::config::NetDevice;
use crate::error::{Error, Result};

/// A device and what it is called in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    from: String,
    to: String,
}

/// Checks `linux.netDevices`.
pub(crate) fn check(devices: Option<&BTreeMap<String, NetDevice>>, namespaces: &Namespaces) -> Result<Vec<Move>> {
    let mut moves: Vec<Move> = Vec::new();
    for (from, device) in devices.into_iter().flatten() {
        let field = || format!("linux.netDevices.{from}");
        let to = match device.name.as_deref() {
            None | Some("") => from.clone(),
            Some(name) => name.to_owned(),
        };
        for name in [from, &to] {
            if !is_name(name) {
                return Err(Error::config(field(), format!("invalid network device name {name:?}")));
            }
        }
        if moves.iter().any(|other| other.to == to) {
            return Err(Error::config(field(), format!("two devices would be called {to:?}")));
        }
        moves.push(Move { from: from.clone(), to });
    }
    let joined = namespaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWNET);
    if !moves.is_empty() && namespaces.create & CLONE_NEWNET == 0 && !joined {
        let text = "unable to move network devices without a private NET namespace";
        return Err(Error::Invalid(text.to_owned()));
    }
    Ok(moves)
}

/// The kernel's rule (`dev_valid_name`).
fn is_name(name: &str) -> bool {
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0;
    !matches!(name, "" | "." | "..") && name.len() < 16 && !name.bytes().any(bad)
}

/// Moves them into the network namespace of the first process, `pid`, or the one that it is to join.
pub(crate) fn hand_over(moves: &[Move], namespaces: &Namespaces, pid: i32) -> std::result::Result<(), Failure> {
    if moves.is_empty() {
        return Ok(());
    }
    let joined = namespaces.join.iter().find(|(flag, _)| *flag == CLONE_NEWNET);
    let path = joined.map_or_else(
        || PathBuf::from(format!("/proc/{pid}/ns/net")),
        |(_, path)| path.clone(),
    );
    let open = |path: PathBuf| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed(&path.display().to_string(), &error))
    };
    let (here, there) = (open("/proc/self/ns/net".into())?, open(path)?);
    let mut ours = route()?;
    // The socket stays where it was opened.
    enter(&there)?;
    let theirs = route();
    enter(&here)?;
    let mut theirs = theirs?;
    let addresses = ours
        .lasting_addresses()
        .map_err(|error| failed("list addresses", &error))?;
    for device in moves {
        let Move { from, to } = device;
        let what = format!("move network device {from:?} to {to:?}");
        let wrong = |error: &dyn std::fmt::Display| failed(&what, error);
        let link = ours.link(&LinkId::Name(from)).map_err(|error| wrong(&error))?;
        let link = link.ok_or_else(|| wrong(&"there is no such device"))?;
        let change = Change {
            name: Some(to),
            netns: Some(there.as_fd()),
            ..Change::default()
        };
        let request = Request::ChangeLink {
            link: LinkId::Index(link.index),
            change,
        };
        ours.run(&[request]).map_err(|error| wrong(&error))?;
        let moved = theirs.link(&LinkId::Name(to)).map_err(|error| wrong(&error))?;
        let moved = moved.ok_or_else(|| wrong(&"it did not arrive"))?;
        let mut requests = vec![Request::ChangeLink {
            link: LinkId::Index(moved.index),
            change: Change {
                up: Some(true),
                ..Change::default()
            },
        }];
        requests.extend(
            addresses
                .iter()
                .filter(|address| address.link == link.index)
                .map(|address| Request::AddAddress {
                    link: moved.index,
                    address: address.address,
                    prefix: address.prefix,
                }),
        );
        theirs.run(&requests).map_err(|error| wrong(&error))?;
    }
    Ok(())
}

fn route() -> std::result::Result<Route, Failure> {
    Route::open().map_err(|error| failed("reach rtnetlink", &error))
}

fn enter(namespace: &OwnedFd) -> std::result::Result<(), Failure> {
    let kind = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
        .map_err(|error| failed("join the network namespace", &error))
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Setup, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_anything_is_moved() {
        let own = Namespaces {
            create: CLONE_NEWNET,
            ..Namespaces::default()
        };
        let device = |name: &str| NetDevice {
            name: Some(name.to_owned()),
        };
        let given = |list: &[(&str, &str)]| {
            let map = list.iter().map(|(from, to)| ((*from).to_owned(), device(to)));
            map.collect::<BTreeMap<_, _>>()
        };
        let moves = check(Some(&given(&[("a", ""), ("b", "eth0")])), &own).unwrap();
        assert_eq!((moves[0].to.as_str(), moves[1].to.as_str()), ("a", "eth0"));
        for bad in [
            given(&[("a", "x/y")]),
            given(&[("a", "sixteen-letters-")]),
            given(&[("..", "")]),
            given(&[("a", "eth0"), ("b", "eth0")]),
        ] {
            let error = check(Some(&bad), &own).unwrap_err().to_string();
            assert!(error.contains("linux.netDevices."), "{error}");
        }
        assert!(check(Some(&given(&[("a", "")])), &Namespaces::default()).is_err());
        assert!(check(None, &Namespaces::default()).unwrap().is_empty());
    }
}
