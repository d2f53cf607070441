//! The bridge against the kernel, each test in network namespaces of its own. Needs root.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Instant;

use ferry_network::{Attach, Config, Error, Record};
use world::{World, connect, listen};

#[test]
fn two_containers_and_the_host_reach_each_other() {
    World::run(|world| {
        let bridge = world::Default::new(Config::default(), Record::default());
        assert_eq!(world.links(), ["lo"], "nothing before the first attach");
        let (a, one) = bridge
            .attach(Attach {
                id: "one".into(),
                ..Attach::default()
            })
            .unwrap();
        let (b, two) = bridge
            .attach(Attach {
                id: "two".into(),
                ..Attach::default()
            })
            .unwrap();
        assert_eq!(
            (one.ip.unwrap().to_string(), two.ip.unwrap().to_string()),
            ("172.17.0.2".into(), "172.17.0.3".into())
        );
        assert_eq!(one.mac.to_string(), "02:42:ac:11:00:02");
        let (server, _) = listen(&a, one.ip.unwrap(), 80);
        assert_eq!(connect(&b, one.ip.unwrap(), 80).unwrap(), two.ip.unwrap());
        assert_eq!(connect(&world.host, one.ip.unwrap(), 80).unwrap(), one.gateway.unwrap());
        drop(server);
        let (_server, _) = listen(&world.host, one.gateway.unwrap(), 81);
        assert_eq!(connect(&a, one.gateway.unwrap(), 81).unwrap(), one.ip.unwrap());
    });
}

#[test]
fn fifty_attaches_are_quick() {
    World::run(|_| {
        for pool in [0, 8] {
            let bridge = world::Default::new(
                Config {
                    pool,
                    ..Config::default()
                },
                Record::default(),
            );
            let first = Instant::now();
            let (_fd, _) = bridge.attach(Attach::default()).unwrap();
            println!("pool {pool}: first attach {:?}", first.elapsed());
            let mut times = Vec::new();
            let mut detaches = Vec::new();
            for _ in 0..50 {
                std::thread::sleep(std::time::Duration::from_millis(if pool > 0 { 10 } else { 0 }));
                let start = Instant::now();
                let (fd, endpoint) = bridge.attach(Attach::default()).unwrap();
                times.push(start.elapsed().as_micros());
                let start = Instant::now();
                bridge.detach(&endpoint).unwrap();
                detaches.push(start.elapsed().as_micros());
                drop(fd);
            }
            times.sort_unstable();
            detaches.sort_unstable();
            println!(
                "pool {pool}: attach µs min {} median {} p90 {} max {}",
                times[0], times[25], times[45], times[49]
            );
            println!(
                "pool {pool}: detach µs min {} median {} p90 {} max {}",
                detaches[0], detaches[25], detaches[45], detaches[49]
            );
            bridge.shutdown().unwrap();
        }
    });
}

#[test]
fn a_failure_half_way_leaves_nothing() {
    World::run(|world| {
        let bridge = world::Default::new(Config::default(), Record::default());
        let (netns, endpoint) = bridge.attach(Attach::default()).unwrap();
        let before = world.links();
        use std::os::fd::AsFd as _;
        bridge.configure(netns.as_fd(), Attach::default()).unwrap_err();
        assert_eq!(world.links(), before);
        assert!(matches!(
            bridge.attach(Attach {
                ip: endpoint.ip,
                ..Attach::default()
            }),
            Err(Error::AddressInUse { .. })
        ));
        assert_eq!(world.links(), before);
    });
}

/// Prints what each step of an attach costs (µs, median of 21), so that a slow one is seen.
#[test]
fn the_steps_of_an_attach() {
    use ferry_netlink::Route;
    use ferry_netlink::route::{self, Change, Gateway, LinkId, Peer, Request, Veth};
    use ferry_network::namespace::Namespace;
    use std::os::fd::AsFd as _;
    World::run(|_| {
        let mut host = Route::open().unwrap();
        let up = Change {
            up: Some(true),
            ..Change::default()
        };
        host.run(&[
            Request::CreateBridge(route::Bridge {
                name: "br0",
                mac: [2, 0x42, 172, 17, 0, 1],
                mtu: 1500,
            }),
            Request::ChangeLink {
                link: LinkId::Name("br0"),
                change: up,
            },
        ])
        .unwrap();
        let bridge = host.link(&LinkId::Name("br0")).unwrap().unwrap().index;
        host.run(&[Request::AddAddress {
            link: bridge,
            address: "172.17.0.1".parse().unwrap(),
            prefix: 16,
        }])
        .unwrap();
        let mut steps: Vec<(&str, Vec<u128>)> = Vec::new();
        for round in 0..21_u8 {
            let mut at = 0;
            let mut step = |name, start: Instant| {
                if steps.len() <= at {
                    steps.push((name, Vec::new()));
                }
                steps[at].1.push(start.elapsed().as_micros());
                at += 1;
            };
            let start = Instant::now();
            let mut namespace = Namespace::create().unwrap();
            step("namespace", start);
            let start = Instant::now();
            let peer = Peer {
                name: "eth0",
                mac: Some([2, 0x42, 172, 17, 0, round + 2]),
                netns: namespace.fd.as_fd(),
            };
            host.run(&[Request::CreateVeth(Veth {
                name: "fe-1",
                mtu: 1500,
                master: None,
                peer,
            })])
            .unwrap();
            step("create veth", start);
            let start = Instant::now();
            let change = Change {
                master: Some(bridge),
                ..Change::default()
            };
            host.run(&[Request::ChangeLink {
                link: LinkId::Name("fe-1"),
                change,
            }])
            .unwrap();
            step("bridge port", start);
            let start = Instant::now();
            let change = Change {
                alias: Some("ferry:0"),
                ..Change::default()
            };
            host.run(&[Request::ChangeLink {
                link: LinkId::Name("fe-1"),
                change,
            }])
            .unwrap();
            step("alias", start);
            let start = Instant::now();
            let change = Change {
                without_link_local: true,
                ..Change::default()
            };
            host.run(&[Request::ChangeLink {
                link: LinkId::Name("fe-1"),
                change,
            }])
            .unwrap();
            step("no link-local", start);
            let start = Instant::now();
            host.run(&[Request::ChangeLink {
                link: LinkId::Name("fe-1"),
                change: up,
            }])
            .unwrap();
            step("host end up", start);
            let start = Instant::now();
            let link = namespace.route.link(&LinkId::Name("eth0")).unwrap().unwrap().index;
            step("look up eth0", start);
            let start = Instant::now();
            let address = format!("172.17.0.{}", round + 2).parse().unwrap();
            namespace
                .route
                .run(&[Request::AddAddress {
                    link,
                    address,
                    prefix: 16,
                }])
                .unwrap();
            step("address", start);
            let start = Instant::now();
            namespace
                .route
                .run(&[Request::ChangeLink {
                    link: LinkId::Index(link),
                    change: up,
                }])
                .unwrap();
            step("container end up", start);
            let start = Instant::now();
            let gateway = Some("172.17.0.1".parse().unwrap());
            namespace
                .route
                .run(&[Request::AddRoute(Gateway {
                    destination: None,
                    gateway,
                    link: Some(link),
                })])
                .unwrap();
            step("route", start);
            let start = Instant::now();
            host.run(&[Request::DeleteLink(LinkId::Name("fe-1"))]).unwrap();
            step("delete veth", start);
        }
        for (name, mut times) in steps {
            times.sort_unstable();
            println!("{name:>18} {:>6} µs (p90 {})", times[10], times[19]);
        }
    });
}

#[test]
fn an_attach_is_as_quick_beside_many_others() {
    World::run(|_| {
        let bridge = world::Default::new(Config::default(), Record::default());
        let mut times = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..150 {
            let start = Instant::now();
            kept.push(bridge.attach(Attach::default()).unwrap());
            times.push(start.elapsed().as_micros());
        }
        let median = |part: &[u128]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part[part.len() / 2]
        };
        let (first, last) = (median(&times[1..51]), median(&times[100..]));
        println!("attach µs: containers 1 to 50 {first}, 101 to 150 {last}");
        let start = Instant::now();
        bridge.shutdown().unwrap();
        println!("shutdown with 150: {:?}", start.elapsed());
    });
}

/// Prints what the first attach pays for the bridge, the firewall and the sysctl.
#[test]
fn the_steps_of_a_set_up() {
    use ferry_netlink::nft::Nft;
    use ferry_network::Firewall;
    World::run(|_| {
        let mut nft = Nft::open().unwrap();
        let network = world::Default::new(Config::default(), Record::default()).fabric;
        let firewall = Firewall {
            table: "ferry".into(),
            networks: vec![network.network("id of ferry0").unwrap()],
            ports: Vec::new(),
            routed: Vec::new(),
            was_off: (true, false),
        };
        let time = |name: &str, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            println!("{name:>20} {:>6} µs", start.elapsed().as_micros());
        };
        time("new table", &mut || nft.commit(&firewall.batch(false)).unwrap());
        time("replaced table", &mut || nft.commit(&firewall.batch(true)).unwrap());
        time("deleted table", &mut || {
            nft.commit(&Firewall::removal("ferry")).unwrap();
        });
        let mut nft = Some(nft);
        time("closed socket", &mut || drop(nft.take()));
        time("ip_forward", &mut || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        });
        let bridge = world::Default::new(Config::default(), Record::default());
        time("set-up", &mut || bridge.fabric.raise("id of ferry0").unwrap());
        time("reconcile", &mut || drop(bridge.reconcile(&[]).unwrap()));
    });
}
