//! Macvlan, VLAN and the like, ports of bridges, neighbours and routes with all their attributes. Needs root, and `ip`.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command as Program;

use ferry_netlink::Route;
use ferry_netlink::route::{
    Bridge, Change, Child, IpvlanMode, Kind, LinkId, MacvlanMode, Path, Peer, Port, Request, Veth,
};

fn in_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn namespace() -> (OwnedFd, Route) {
    in_namespace(|| {
        let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        (namespace.into(), Route::open().unwrap())
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ip_says(arguments: &str) -> String {
    let output = Program::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn child(name: &str, kind: Kind) -> Child<'_> {
    Child {
        name,
        kind,
        mac: None,
        mtu: None,
        netns: None,
    }
}

/// A bridge `br0` and a veth pair `v0`, whose peer `eth0` is in the namespace.
fn bridge(route: &mut Route, netns: &OwnedFd) -> (u32, u32) {
    let bridge = Bridge {
        name: "br0",
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
    };
    route.run(&[Request::CreateBridge(bridge)]).unwrap();
    let master = route.link(&LinkId::Name("br0")).unwrap().unwrap().index;
    let peer = Peer {
        name: "eth0",
        mac: None,
        netns: netns.as_fd(),
    };
    let veth = Veth {
        name: "v0",
        mtu: 1500,
        master: Some(master),
        peer,
    };
    let up = |link| Request::ChangeLink {
        link,
        change: Change {
            up: Some(true),
            ..Change::default()
        },
    };
    let create = Request::CreateVeth(veth);
    route
        .run(&[create, up(LinkId::Name("br0")), up(LinkId::Name("v0"))])
        .unwrap();
    (master, route.link(&LinkId::Name("v0")).unwrap().unwrap().index)
}

#[test]
fn a_macvlan_comes_up_in_its_namespace_under_its_name() {
    in_namespace(|| {
        let (netns, mut there) = namespace();
        let mut here = Route::open().unwrap();
        let (parent, _) = bridge(&mut here, &netns);
        let mac = [2, 0x42, 10, 0, 0, 9];
        for (mode, name) in [
            (MacvlanMode::Bridge, "bridge"),
            (MacvlanMode::Private, "private"),
            (MacvlanMode::Vepa, "vepa"),
            (MacvlanMode::Passthru, "passthru"),
        ] {
            let macvlan = Child {
                mac: (mode != MacvlanMode::Passthru).then_some(mac),
                mtu: Some(1400),
                netns: Some(netns.as_fd()),
                ..child("eth1", Kind::Macvlan { parent, mode })
            };
            here.run(&[Request::CreateChild(macvlan)]).unwrap();
            let link = there.link(&LinkId::Name("eth1")).unwrap().unwrap();
            assert_eq!((link.kind.as_deref(), link.mtu), (Some("macvlan"), 1400));
            assert_eq!(link.mac == Some(mac), mode != MacvlanMode::Passthru);
            assert_eq!(here.link(&LinkId::Name("eth1")).unwrap(), None);
            let exists = here.run(&[Request::CreateChild(macvlan)]).unwrap_err();
            assert!(exists.errno().is_some(), "{exists}");
            there.run(&[Request::DeleteLink(LinkId::Name("eth1"))]).unwrap();
            let local = Child { netns: None, ..macvlan };
            here.run(&[Request::CreateChild(local)]).unwrap();
            assert!(ip_says("-d link show eth1").contains(&format!("macvlan mode {name}")));
            here.run(&[Request::DeleteLink(LinkId::Name("eth1"))]).unwrap();
        }
        let orphan = child(
            "eth1",
            Kind::Macvlan {
                parent: 4711,
                mode: MacvlanMode::Bridge,
            },
        );
        let error = here.run(&[Request::CreateChild(orphan)]).unwrap_err();
        assert!(error.is_gone() && !error.is_unknown_kind(), "{error}");
    });
}

#[test]
fn a_vlan_is_a_link_on_another_one() {
    in_namespace(|| {
        let (netns, _there) = namespace();
        let mut here = Route::open().unwrap();
        let (parent, _) = bridge(&mut here, &netns);
        let vlan = |name, id| Request::CreateChild(child(name, Kind::Vlan { parent, id }));
        match here.run(&[vlan("br0.10", 10)]) {
            Err(error) if error.is_unknown_kind() => return println!("skipped: this kernel has no vlan"),
            other => other.unwrap(),
        }
        assert!(ip_says("-d link show br0.10").contains("vlan protocol 802.1Q id 10"));
        assert_eq!(
            here.link(&LinkId::Name("br0.10")).unwrap().unwrap().kind.as_deref(),
            Some("vlan")
        );
        assert!(here.run(&[vlan("again", 10)]).unwrap_err().exists());
        assert!(here.run(&[vlan("large", 4095)]).is_err());
        assert_eq!(here.link(&LinkId::Name("large")).unwrap(), None);
    });
}

#[test]
fn a_kind_the_kernel_lacks_is_told_from_other_errors() {
    in_namespace(|| {
        let (netns, _there) = namespace();
        let mut here = Route::open().unwrap();
        let (parent, _) = bridge(&mut here, &netns);
        for (kind, name) in [
            (
                Kind::Ipvlan {
                    parent,
                    mode: IpvlanMode::L3,
                },
                "ipvlan",
            ),
            (Kind::Dummy, "dummy"),
        ] {
            match here.run(&[Request::CreateChild(child("x0", kind))]) {
                Err(error) => {
                    assert!(error.is_unknown_kind(), "{error}: {error:?}");
                    assert!(
                        error.to_string().starts_with(&format!("could not create {name} x0")),
                        "{error}"
                    );
                }
                Ok(()) => {
                    let link = here.link(&LinkId::Name("x0")).unwrap().unwrap();
                    assert_eq!(link.kind.as_deref(), Some(name));
                    here.run(&[Request::DeleteLink(LinkId::Name("x0"))]).unwrap();
                }
            }
        }
    });
}

#[test]
fn a_port_is_isolated_and_learns_nothing_as_told() {
    in_namespace(|| {
        let (netns, _there) = namespace();
        let mut here = Route::open().unwrap();
        let (_, port) = bridge(&mut here, &netns);
        let change = |port_change, alias| Request::ChangeLink {
            link: LinkId::Index(port),
            change: Change {
                port: port_change,
                alias,
                ..Change::default()
            },
        };
        let on = Port {
            isolated: Some(true),
            hairpin: Some(true),
            learning: Some(false),
        };
        here.run(&[change(on, Some("both at once"))]).unwrap();
        let text = ip_says("-d link show v0");
        for expected in ["isolated on", "hairpin on", "learning off", "alias both at once"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let off = Port {
            isolated: Some(false),
            ..Port::default()
        };
        here.run(&[change(off, None)]).unwrap();
        let text = ip_says("-d link show v0");
        for expected in ["isolated off", "hairpin on", "learning off"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        // Neither makes a link of the name, nor takes one that is no port.
        let nothere = Request::ChangeLink {
            link: LinkId::Name("nothere"),
            change: Change {
                port: on,
                ..Change::default()
            },
        };
        assert!(here.run(&[nothere]).unwrap_err().is_gone());
        let loopback = Request::ChangeLink {
            link: LinkId::Name("lo"),
            change: Change {
                port: on,
                ..Change::default()
            },
        };
        assert!(here.run(&[loopback]).is_err());
    });
}

#[test]
fn neighbours_are_permanent_and_replaced() {
    in_namespace(|| {
        let (netns, _there) = namespace();
        let mut here = Route::open().unwrap();
        let (link, _) = bridge(&mut here, &netns);
        for (address, mac) in [
            ("10.0.0.2", [2, 0, 0, 0, 0, 2]),
            ("fd00::2", [2, 0, 0, 0, 0, 2]),
            ("10.0.0.2", [2, 0, 0, 0, 0, 3]),
        ] {
            let address = ip(address);
            here.run(&[Request::AddNeighbour { link, address, mac }]).unwrap();
        }
        let text = ip_says("neigh show dev br0");
        assert!(text.contains("10.0.0.2 lladdr 02:00:00:00:00:03 PERMANENT"), "{text}");
        assert!(text.contains("fd00::2 lladdr 02:00:00:00:00:02 PERMANENT"), "{text}");
        // Those of the kernel's own making are none of these.
        let mut found = here.permanent_neighbours().unwrap();
        found.sort_unstable();
        assert_eq!(found, [(link, ip("10.0.0.2")), (link, ip("fd00::2"))]);
        let address = ip("fd00::2");
        here.run(&[Request::DeleteNeighbour { link, address }]).unwrap();
        assert!(!ip_says("neigh show dev br0").contains("fd00"));
    });
}

#[test]
fn addresses_are_replaced_and_usable_at_once() {
    in_namespace(|| {
        let (netns, _there) = namespace();
        let mut here = Route::open().unwrap();
        let (link, _) = bridge(&mut here, &netns);
        let put = |address, prefix, undetected| Request::ReplaceAddress {
            link,
            address: ip(address),
            prefix,
            undetected,
        };
        for _ in 0..2 {
            here.run(&[put("fd00::1", 64, true), put("10.0.0.1", 24, true)])
                .unwrap();
        }
        std::net::TcpListener::bind("[fd00::1]:9").unwrap();
        let text = ip_says("-6 addr show dev br0");
        assert!(text.contains("inet6 fd00::1/64 scope global nodad"), "{text}");
        here.run(&[put("fd00::3", 64, false)]).unwrap();
        assert!(ip_says("-6 addr show dev br0").contains("inet6 fd00::3/64 scope global tentative"));
        assert_eq!(
            here.addresses()
                .unwrap()
                .iter()
                .filter(|a| a.address == ip("10.0.0.1"))
                .count(),
            1
        );
    });
}

#[test]
fn routes_have_sources_metrics_and_gateways_elsewhere() {
    in_namespace(|| {
        let (netns, _there) = namespace();
        let mut here = Route::open().unwrap();
        let (link, _) = bridge(&mut here, &netns);
        for (address, prefix) in [("10.0.0.1", 24), ("fd00::1", 64)] {
            here.run(&[Request::ReplaceAddress {
                link,
                address: ip(address),
                prefix,
                undetected: true,
            }])
            .unwrap();
        }
        let link = Some(link);
        let scoped = Path {
            destination: Some((ip("10.7.0.0"), 16)),
            link,
            source: Some(ip("10.0.0.1")),
            metric: Some(7),
            ..Path::default()
        };
        let default4 = Path {
            gateway: Some(ip("192.168.9.9")),
            link,
            onlink: true,
            ..Path::default()
        };
        let default6 = Path {
            gateway: Some(ip("fd00::9")),
            link,
            ..Path::default()
        };
        let onlink6 = Path {
            destination: Some((ip("fd77::"), 32)),
            gateway: Some(ip("fd99::9")),
            link,
            onlink: true,
            metric: Some(3),
            ..Path::default()
        };
        for path in [scoped, default4, default6, onlink6] {
            here.run(&[Request::AddPath(path)]).unwrap();
            assert!(here.run(&[Request::AddPath(path)]).unwrap_err().exists(), "{path}");
            here.run(&[Request::ReplacePath(path)]).unwrap();
        }
        let text = ip_says("route show");
        assert!(
            text.contains("10.7.0.0/16 dev br0 scope link src 10.0.0.1 metric 7"),
            "{text}"
        );
        assert!(text.contains("default via 192.168.9.9 dev br0 onlink"), "{text}");
        let text = ip_says("-6 route show");
        assert!(text.contains("default via fd00::9 dev br0 metric 1024"), "{text}");
        assert!(text.contains("fd77::/32 via fd99::9 dev br0 metric 3 onlink"), "{text}");
        let other = Path {
            gateway: Some(ip("10.0.0.9")),
            onlink: false,
            ..default4
        };
        here.run(&[Request::ReplacePath(other)]).unwrap();
        assert!(ip_says("route show default").starts_with("default via 10.0.0.9 dev br0"));
        let far = Path {
            gateway: Some(ip("192.168.9.9")),
            onlink: false,
            metric: Some(9),
            ..default4
        };
        let error = here.run(&[Request::AddPath(far)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("could not add route to default via 192.168.9.9 metric 9"),
            "{error}"
        );
        // Without a gateway the family is that of the prefix of no bits.
        let through = Path {
            destination: Some((ip("::"), 0)),
            link,
            metric: Some(5),
            ..Path::default()
        };
        here.run(&[Request::AddPath(through)]).unwrap();
        assert!(ip_says("-6 route show default").contains("default dev br0 metric 5"));
        for path in [scoped, other, default6, onlink6, through] {
            here.run(&[Request::DeletePath(path)]).unwrap();
        }
        let left = here.routes().unwrap();
        assert!(
            left.iter()
                .all(|route| route.gateway.is_none() && route.destination.is_some()),
            "{left:?}"
        );
    });
}
