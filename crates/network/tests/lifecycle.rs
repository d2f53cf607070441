//! Restarts, crashes and the end: what is left on the host. Needs root; each test has network namespaces of its own.
#![allow(clippy::unwrap_used)]

mod world;

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use ferry_network::namespace::Namespace;
use ferry_network::{Attach, Config, Error, Pool, Record};
use world::{World, connect, listen, output_in, sysctl};

fn bridge(pool: usize) -> world::Default {
    world::Default::new(
        Config {
            pool,
            ..Config::default()
        },
        Record::default(),
    )
}

/// What of the network configuration a user would see.
fn picture(world: &World) -> Vec<String> {
    let mut picture: Vec<String> = ["addr", "route"]
        .iter()
        .map(|what| world.output("ip", &["-j", what]))
        .collect();
    picture.push(world.output("nft", &["list", "ruleset"]));
    picture.push(sysctl("ipv4/ip_forward"));
    picture.push(forwarding());
    picture
}

/// Each link's and that of links to come.
fn forwarding() -> String {
    let links = std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap();
    let mut names: Vec<_> = links
        .map(|link| link.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let of = |name: &String| format!("{name} {}\n", sysctl(&format!("ipv4/conf/{name}/forwarding")));
    names.iter().map(of).collect()
}

#[test]
fn shutdown_leaves_the_host_as_it_was() {
    World::run(|world| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let before = picture(world);
        let bridge = bridge(2);
        let (_a, one) = bridge.attach(Attach::default()).unwrap();
        let (_b, _) = bridge.attach(Attach::default()).unwrap();
        assert_ne!(picture(world), before);
        assert_eq!(bridge.fabric.record().sysctls.len(), 1);
        bridge.detach(&one).unwrap();
        bridge.detach(&one).unwrap();
        bridge.shutdown().unwrap();
        assert_eq!(picture(world), before);
        assert!(bridge.fabric.record().sysctls.is_empty());
        bridge.shutdown().unwrap();
        let (_c, again) = bridge.attach(Attach::default()).unwrap();
        assert_eq!(again.gateway, one.gateway, "it starts again");
        bridge.shutdown().unwrap();
        assert_eq!(picture(world), before);
    });
}

#[test]
fn a_sysctl_somebody_else_changed_since_is_left() {
    World::run(|_| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let bridge = bridge(0);
        let _one = bridge.attach(Attach::default()).unwrap();
        assert!(bridge.fabric.record().sysctls.is_empty());
        bridge.shutdown().unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let _two = bridge.attach(Attach::default()).unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
        assert_eq!(sysctl("ipv4/conf/ferry0/forwarding"), "1");
        // A Docker comes, which goes on to forward.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        bridge.fabric.mend().unwrap();
        bridge.shutdown().unwrap();
        assert!(!forwarding().contains(" 0"), "{}", forwarding());
    });
}

#[test]
fn what_an_earlier_boot_changed_is_not_put_back() {
    World::run(|_| {
        let stale = Record {
            sysctls: vec![ferry_network::Sysctl::later_links()],
            boot: "earlier".into(),
        };
        let bridge = world::Default::new(Config::default(), stale);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let _one = bridge.attach(Attach::default()).unwrap();
        bridge.shutdown().unwrap();
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
    });
}

#[test]
fn a_new_daemon_finds_everything_again() {
    World::run(|world| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let before = picture(world);
        let old = bridge(2);
        let (a, one) = old.attach(Attach::default()).unwrap();
        let (b, two) = old.attach(Attach::default()).unwrap();
        drop(old);
        assert_eq!(world.links().len(), 4, "containers live on");

        // Killed before it kept its record; one container ended meanwhile, one was half attached.
        drop(b);
        let new = bridge(0);
        let plan = new.reconcile(std::slice::from_ref(&one)).unwrap();
        let gone = !world.links().contains(&two.host_ifname);
        assert!(gone, "{plan}");
        assert_eq!(new.fabric.record().sysctls.len(), 1, "known from the table");
        let neighbours = world.output("ip", &["neigh", "show", "nud", "permanent"]);
        assert_eq!(neighbours.lines().count(), 1, "{neighbours}");
        assert!(neighbours.starts_with(&one.ip.unwrap().to_string()), "{neighbours}");
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        assert!(connect(&world.host, one.ip.unwrap(), 80).is_ok());
        assert!(matches!(
            new.attach(Attach {
                ip: one.ip,
                ..Attach::default()
            }),
            Err(Error::AddressInUse { .. })
        ));
        assert_eq!(
            new.reconcile(std::slice::from_ref(&one)).unwrap().to_string(),
            "",
            "nothing is left to do"
        );
        new.shutdown().unwrap();
        assert_eq!(picture(world), before);
    });
}

#[test]
fn what_an_administrator_flushed_or_deleted_comes_back() {
    World::run(|world| {
        let bridge = bridge(0);
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        let rules = world.output("nft", &["list", "ruleset"]);
        let mut watch = bridge.fabric.watch().unwrap();
        world.output("nft", &["add", "table", "inet", "others"]);
        assert!(watch.changed().unwrap());
        assert_eq!(
            bridge.reconcile(&[]).unwrap().to_string(),
            "",
            "another's table is no reason"
        );
        world.output("nft", &["flush", "ruleset"]);
        assert!(watch.changed().unwrap());
        bridge.reconcile(std::slice::from_ref(&one)).unwrap();
        assert_eq!(world.output("nft", &["list", "ruleset"]), rules);
        world.output("ip", &["link", "del", "ferry0"]);
        assert!(connect(&world.host, one.ip.unwrap(), 80).is_err());
        bridge.reconcile(std::slice::from_ref(&one)).unwrap();
        assert_eq!(connect(&world.host, one.ip.unwrap(), 80).unwrap(), one.gateway.unwrap());
        // And without being asked to, when the next container needs it.
        world.output("ip", &["link", "del", "ferry0"]);
        let (b, _) = bridge.attach(Attach::default()).unwrap();
        assert!(connect(&b, one.ip.unwrap(), 80).is_ok());
    });
}

#[test]
fn what_is_taken_of_a_bridge_is_noticed_and_put_back() {
    World::run(|world| {
        let bridge = bridge(0);
        let mut losses = bridge.fabric.losses().unwrap();
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        let gateway = format!("{}/{}", one.gateway.unwrap(), one.prefix);
        // What is our own doing is none of it.
        let (_b, two) = bridge.attach(Attach::default()).unwrap();
        bridge.fabric.detach(&two).unwrap();
        let lost = losses.take().unwrap();
        assert_eq!(
            bridge
                .fabric
                .mend_links(lost.as_ref().map(|lost| &lost.links))
                .unwrap()
                .to_string(),
            ""
        );
        // Where the container is, which nothing that it or another one sends changes.
        let known = || {
            let neighbours = world.output("ip", &["neigh", "show", "dev", "ferry0", "nud", "permanent"]);
            let ports = world.output("bridge", &["fdb", "show", "dev", &one.host_ifname]);
            let sticky = ports.lines().filter(|line| line.contains("sticky")).map(str::to_owned);
            (neighbours, sticky.collect::<Vec<_>>())
        };
        let before = known();
        let (address, mac) = (one.ip.unwrap().to_string(), one.mac.to_string());
        assert!(before.0.contains(&address) && before.0.contains(&mac), "{before:?}");
        assert!(before.1.len() == 1 && before.1[0].contains(&mac), "{before:?}");
        for command in [
            vec!["link", "del", "ferry0"],
            vec!["link", "set", "ferry0", "down"],
            vec!["addr", "del", &gateway, "dev", "ferry0"],
        ] {
            world.output("ip", &command);
            assert!(connect(&world.host, one.ip.unwrap(), 80).is_err());
            let lost = losses.take().unwrap();
            assert_ne!(
                bridge
                    .fabric
                    .mend_links(lost.as_ref().map(|lost| &lost.links))
                    .unwrap()
                    .to_string(),
                "",
                "{command:?}"
            );
            assert_eq!(known(), before, "{command:?}");
            assert_eq!(connect(&world.host, one.ip.unwrap(), 80).unwrap(), one.gateway.unwrap());
            // What was done to put it back may be told of, and is no reason for more.
            let lost = losses.take().unwrap();
            assert_eq!(
                bridge
                    .fabric
                    .mend_links(lost.as_ref().map(|lost| &lost.links))
                    .unwrap()
                    .to_string(),
                ""
            );
        }
    });
}

#[test]
fn a_daemon_killed_half_way_leaves_nothing_that_reconcile_does_not_find() {
    World::run(|world| {
        let before = picture(world);
        let dead = bridge(3);
        let (netns, endpoint) = dead.attach(Attach::default()).unwrap();
        drop((netns, dead));
        // The namespace went with the last descriptor; the kernel takes its time with the veth.
        let deadline = Instant::now() + Duration::from_secs(5);
        while world.links().contains(&endpoint.host_ifname) {
            assert!(Instant::now() < deadline, "{:?}", world.links());
            std::thread::sleep(Duration::from_millis(10));
        }
        let new = bridge(0);
        new.reconcile(&[]).unwrap();
        new.shutdown().unwrap();
        assert_eq!(picture(world), before);
    });
}

#[test]
fn an_attach_before_the_reconcile_does_not_cut_off_who_lives() {
    World::run(|world| {
        let old = bridge(0);
        let (a, one) = old.attach(Attach::default()).unwrap();
        drop(old);
        let new = bridge(0);
        let wanted = Attach {
            ip: Some("172.17.0.9".parse().unwrap()),
            ..Attach::default()
        };
        let (_b, _) = new.attach(wanted).unwrap();
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        assert!(connect(&world.host, one.ip.unwrap(), 80).is_ok());
    });
}

#[test]
fn a_pool_fills_itself_again_and_never_makes_anyone_wait() {
    World::run(|world| {
        let filled = |pool: &Pool| {
            let deadline = Instant::now() + Duration::from_secs(5);
            while pool.ready() < 2 {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let pool = Pool::new(2).unwrap();
        filled(&pool);
        let taken: Vec<_> = (0..5).map(|_| pool.take().unwrap()).collect();
        let inode = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let mut inodes: std::collections::BTreeSet<_> = taken.iter().map(|namespace| inode(&namespace.fd)).collect();
        inodes.insert(inode(&world.host));
        assert_eq!(inodes.len(), 6);
        filled(&pool);
        assert_eq!(Pool::new(0).unwrap().ready(), 0);
    });
}

#[test]
fn a_table_left_without_its_bridge_goes_when_nothing_lives() {
    World::run(|world| {
        let before = picture(world);
        let dead = bridge(0);
        drop(dead.attach(Attach::default()).unwrap());
        world.output("ip", &["link", "del", "ferry0"]);
        bridge(0).reconcile(&[]).unwrap();
        assert!(!picture(world)[2].contains("ferry"));
        assert_eq!(picture(world)[3], before[3]);
    });
}

#[test]
fn a_foreign_link_of_that_name_is_refused_and_left() {
    World::run(|world| {
        world.output("ip", &["link", "add", "ferry0", "type", "bridge"]);
        let bridge = bridge(0);
        assert!(matches!(bridge.attach(Attach::default()), Err(Error::Taken { .. })));
        bridge.shutdown().unwrap();
        assert_eq!(world.links(), ["lo", "ferry0"]);
        assert!(!world.output("nft", &["list", "ruleset"]).contains("ferry"));
    });
}

#[test]
fn ipv6_is_off_in_a_container_unless_asked_for_and_loopback_keeps_its_address() {
    World::run(|_| {
        let bridge = bridge(0);
        let addresses = |netns| output_in(netns, "ip", &["-j", "-6", "addr"]);
        let (a, _) = bridge.attach(Attach::default()).unwrap();
        assert!(
            addresses(&a).contains("\"::1\"") && !addresses(&a).contains("eth0"),
            "{}",
            addresses(&a)
        );
        let second = bridge.fabric.create(ferry_network::Draft {
            v6: true,
            ..world::draft("fb-six")
        });
        let on_second = Attach {
            network: second.unwrap().id,
            ..Attach::default()
        };
        let (b, six) = bridge.fabric.attach(vec![on_second]).unwrap();
        assert!(addresses(&b).contains(&six[0].ip6.unwrap().to_string()));
        let deadline = Instant::now() + Duration::from_secs(2);
        while !addresses(&b).contains("eth0") {
            assert!(Instant::now() < deadline, "{}", addresses(&b));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(output_in(&b, "cat", &["/proc/sys/net/ipv6/conf/eth0/accept_ra"]), "0\n");
        assert_eq!(sysctl("ipv6/conf/ferry0/accept_ra"), "0");
        let links: serde_json::Value = serde_json::from_str(&output_in(&a, "ip", &["-j", "addr"])).unwrap();
        let state = |link: usize| {
            (
                links[link]["ifname"].as_str().unwrap(),
                links[link]["flags"].to_string().contains("\"UP\""),
            )
        };
        assert_eq!((state(0), state(1)), (("lo", true), ("eth0", true)));
    });
}

#[test]
fn a_private_namespace_has_a_loopback_that_works_and_nothing_else() {
    World::run(|world| {
        let netns = bridge(1).fabric.private().unwrap();
        let (_server, _) = listen(&netns, std::net::Ipv4Addr::LOCALHOST, 80);
        assert!(connect(&netns, std::net::Ipv4Addr::LOCALHOST, 80).is_ok());
        assert_eq!(output_in(&netns, "ip", &["-o", "link"]).lines().count(), 1);
        assert_eq!(world.links(), ["lo"]);
    });
}

#[test]
fn a_namespace_somebody_else_made_can_be_configured() {
    World::run(|world| {
        let bridge = bridge(0);
        let theirs = Namespace::create().unwrap().fd;
        let mac = "02:00:00:00:00:77".parse().unwrap();
        let wanted = Attach {
            mac: Some(mac),
            ip: Some("172.17.0.77".parse().unwrap()),
            ..Attach::default()
        };
        let endpoint = bridge.configure(theirs.as_fd(), wanted).unwrap();
        assert_eq!(
            (endpoint.ip.unwrap().to_string().as_str(), endpoint.mac),
            ("172.17.0.77", mac)
        );
        assert!(output_in(&theirs, "ip", &["link"]).contains("02:00:00:00:00:77"));
        let (_server, _) = listen(&theirs, endpoint.ip.unwrap(), 80);
        assert!(connect(&world.host, endpoint.ip.unwrap(), 80).is_ok());
    });
}

#[test]
fn an_endpoint_and_a_record_survive_json() {
    World::run(|_| {
        let bridge = bridge(0);
        let (_a, endpoint) = bridge
            .attach(Attach {
                id: "c1".into(),
                hostname: "web".into(),
                ..Attach::default()
            })
            .unwrap();
        let text = serde_json::to_string(&endpoint).unwrap();
        assert_eq!(
            serde_json::from_str::<ferry_network::Endpoint>(&text).unwrap(),
            endpoint
        );
        let text = serde_json::to_string(&bridge.fabric.record()).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), bridge.fabric.record());
        assert_eq!(endpoint.endpoint_id.len(), 64);
    });
}

#[test]
fn many_at_once_get_addresses_of_their_own() {
    World::run(|world| {
        let bridge = bridge(4);
        let start = Instant::now();
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..8)
                            .map(|_| bridge.attach(Attach::default()).unwrap())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        println!("64 attaches on 8 threads: {:?}", start.elapsed());
        let addresses: std::collections::BTreeSet<_> = all.iter().map(|(_, endpoint)| endpoint.ip.unwrap()).collect();
        assert_eq!(addresses.len(), 64);
        assert_eq!(world.links().len(), 66);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for half in all.chunks(8) {
                scope.spawn(|| half.iter().for_each(|(_, endpoint)| bridge.detach(endpoint).unwrap()));
            }
            let mut slowest = Duration::ZERO;
            for _ in 0..10 {
                let start = Instant::now();
                let _one = bridge.attach(Attach::default()).unwrap();
                slowest = slowest.max(start.elapsed());
            }
            println!("slowest of 10 attaches beside them: {slowest:?}");
        });
        println!("64 detaches on 8 threads: {:?}", start.elapsed());
    });
}
