//! Links, addresses and routes against the kernel, each test in a network namespace of its own. Needs root.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};

use ferry_netlink::Route;
use ferry_netlink::route::{Bridge, Change, Gateway, Ipv4Setting, LinkId, Peer, Request, Veth};

fn in_namespace<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn namespace() -> (OwnedFd, Route) {
    in_namespace(|| {
        (
            std::fs::File::open("/proc/thread-self/ns/net").unwrap().into(),
            Route::open().unwrap(),
        )
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_veth_is_made_in_its_final_place_with_one_send() {
    in_namespace(|| {
        let mut here = Route::open().unwrap();
        let (netns, mut there) = namespace();
        let bridge = Bridge {
            name: "br0",
            mac: [2, 0x42, 10, 0, 0, 1],
            mtu: 1400,
        };
        here.run(&[
            Request::CreateBridge(bridge),
            Request::ChangeLink {
                link: LinkId::Name("br0"),
                change: Change {
                    up: Some(true),
                    ..Change::default()
                },
            },
        ])
        .unwrap();
        let master = here.link(&LinkId::Name("br0")).unwrap().unwrap();
        assert_eq!(
            (master.kind.as_deref(), master.mtu, master.mac, master.up),
            (Some("bridge"), 1400, Some(bridge.mac), true)
        );

        let mac = [2, 0x42, 10, 0, 0, 2];
        let peer = Peer {
            name: "eth0",
            mac: Some(mac),
            netns: netns.as_fd(),
        };
        let change = Change {
            up: Some(true),
            alias: Some("ferry:test"),
            without_link_local: true,
            ipv4: &[(Ipv4Setting::RouteLocalnet, 1)],
            ..Change::default()
        };
        here.run(&[
            Request::CreateVeth(Veth {
                name: "fe-0",
                mtu: 1400,
                master: Some(master.index),
                peer,
            }),
            Request::ChangeLink {
                link: LinkId::Name("fe-0"),
                change,
            },
            Request::AddAddress {
                link: master.index,
                address: ip("10.0.0.1"),
                prefix: 24,
            },
        ])
        .unwrap();
        let host = here.link(&LinkId::Name("fe-0")).unwrap().unwrap();
        assert_eq!(host.alias.as_deref(), Some("ferry:test"));
        assert_eq!(
            (host.master, host.up, host.kind.as_deref()),
            (Some(master.index), true, Some("veth"))
        );
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/conf/fe-0/route_localnet").unwrap(),
            "1\n"
        );

        let inside = there.link(&LinkId::Name("eth0")).unwrap().unwrap();
        assert_eq!((inside.mac, inside.mtu, inside.up), (Some(mac), 1400, false));
        let route = Gateway {
            destination: None,
            gateway: Some(ip("10.0.0.1")),
            link: Some(inside.index),
        };
        there
            .run(&[
                Request::AddAddress {
                    link: inside.index,
                    address: ip("10.0.0.2"),
                    prefix: 24,
                },
                Request::AddAddress {
                    link: inside.index,
                    address: ip("fd00::2"),
                    prefix: 64,
                },
                Request::ChangeLink {
                    link: LinkId::Index(inside.index),
                    change: Change {
                        up: Some(true),
                        ..Change::default()
                    },
                },
                Request::AddRoute(route),
            ])
            .unwrap();
        let routes = there.routes().unwrap();
        assert!(
            routes
                .iter()
                .any(|r| r.destination.is_none() && r.gateway == route.gateway && r.table == 254),
            "{routes:?}"
        );
        assert!(
            routes
                .iter()
                .any(|r| r.destination == Some((Ipv4Addr::new(10, 0, 0, 0).into(), 24))),
            "{routes:?}"
        );
        let addresses = there.addresses().unwrap();
        assert!(addresses.iter().any(|a| a.address == ip("fd00::2") && a.prefix == 64));
        assert!(
            addresses
                .iter()
                .any(|a| a.address == ip("10.0.0.2") && a.link == inside.index)
        );

        here.run(&[Request::DeleteLink(LinkId::Name("fe-0"))]).unwrap();
        assert_eq!(there.link(&LinkId::Name("eth0")).unwrap(), None);
        assert!(!here.links().unwrap().iter().any(|link| link.name == "fe-0"));
    });
}

#[test]
fn every_request_of_a_send_has_its_own_result() {
    in_namespace(|| {
        let mut route = Route::open().unwrap();
        let up = Change {
            up: Some(true),
            ..Change::default()
        };
        let results = route
            .submit(&[
                Request::DeleteLink(LinkId::Name("nothere")),
                Request::ChangeLink {
                    link: LinkId::Name("lo"),
                    change: up,
                },
                Request::AddAddress {
                    link: 1,
                    address: ip("10.1.2.3"),
                    prefix: 99,
                },
            ])
            .unwrap();
        assert!(results[0].as_ref().unwrap_err().is_gone());
        assert!(results[1].is_ok());
        let refused = results[2].as_ref().unwrap_err();
        assert!(
            refused.to_string().starts_with("could not add address 10.1.2.3/99"),
            "{refused}"
        );
        assert!(route.link(&LinkId::Index(1)).unwrap().unwrap().up);
    });
}

#[test]
fn hundreds_of_links_are_all_listed() {
    in_namespace(|| {
        let mut route = Route::open().unwrap();
        let names: Vec<String> = (0..300).map(|n| format!("br{n}")).collect();
        for names in names.chunks(50) {
            let requests: Vec<_> = names
                .iter()
                .map(|name| {
                    Request::CreateBridge(Bridge {
                        name,
                        mac: [2, 0, 0, 0, 0, 1],
                        mtu: 1500,
                    })
                })
                .collect();
            route.run(&requests).unwrap();
        }
        let links = route.links().unwrap();
        assert_eq!(
            links
                .iter()
                .filter(|link| link.kind.as_deref() == Some("bridge"))
                .count(),
            300
        );
    });
}

#[test]
fn a_name_too_long_for_the_kernel_is_refused_before_it_gets_there() {
    in_namespace(|| {
        let mut route = Route::open().unwrap();
        for name in ["", "sixteen-letters-", "a\0b"] {
            assert!(route.run(&[Request::DeleteLink(LinkId::Name(name))]).is_err());
        }
    });
}
