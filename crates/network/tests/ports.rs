//! Published ports and several networks, with a machine outside. Needs root; each test has network namespaces of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod world;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, OwnedFd};

use ferry_network::network::{Driver, Ipvlan, Macvlan, Range};
use ferry_network::ports::{Holder, Mapping, Protocol, Publish};
use ferry_network::{Attach, Draft, Endpoint, Error, Fabric};
use world::{FAR, NEAR, World, connect, draft, fabric, join, listen, network, on, options, output_in, outside};

fn publish(host: u16, container: u16, address: Option<IpAddr>) -> Publish {
    Publish {
        protocol: Protocol::Tcp,
        container: (container, container),
        host: Some((host, host)),
        address,
    }
}

fn published(fabric: &Fabric, endpoint: &Endpoint, request: Publish) -> Vec<Mapping> {
    fabric.publish("c", endpoint, &[request]).unwrap()
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    World::run(|world| {
        let far = outside();
        let fabric = fabric();
        let one = network(&fabric, draft("fb-one"));
        let two = network(&fabric, draft("fb-two"));
        let (web, endpoint) = join(&fabric, &one);
        let (neighbour, beside) = join(&fabric, &one);
        let (other, elsewhere) = join(&fabric, &two);
        let ip = endpoint.ip.unwrap();
        let (_server, _) = listen(&web, ip, 80);
        assert!(connect(&far, NEAR, 8080).is_err());
        let mappings = published(&fabric, &endpoint, publish(8080, 80, None));
        assert_eq!(connect(&far, NEAR, 8080).unwrap(), FAR, "the client's address stays");
        assert!(connect(&world.host, NEAR, 8080).is_ok());
        assert_eq!(
            connect(&world.host, Ipv4Addr::LOCALHOST, 8080).unwrap(),
            endpoint.gateway.unwrap()
        );
        // Hairpin: a neighbour, a container of another network.
        assert!(connect(&neighbour, NEAR, 8080).is_ok());
        assert!(connect(&neighbour, beside.gateway.unwrap(), 8080).is_ok());
        assert_eq!(connect(&other, NEAR, 8080).unwrap(), elsewhere.ip.unwrap());
        // And itself.
        assert_eq!(connect(&web, NEAR, 8080).unwrap(), endpoint.gateway.unwrap());
        // And not otherwise.
        assert!(connect(&other, ip, 80).is_err());
        output_in(&far, "ip", &["route", "add", "172.16.0.0/12", "via", &NEAR.to_string()]);
        assert!(connect(&far, ip, 80).is_err());
        fabric.unpublish("c", &mappings).unwrap();
        assert!(connect(&far, NEAR, 8080).is_err());
        fabric.shutdown().unwrap();
        assert!(!world.output("nft", &["list", "ruleset"]).contains("ferry"));
    });
}

#[test]
fn a_port_of_the_loopback_is_the_hosts_alone() {
    World::run(|world| {
        let far = outside();
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let (neighbour, _) = join(&fabric, &id);
        let (_server, _) = listen(&web, endpoint.ip.unwrap(), 80);
        published(&fabric, &endpoint, publish(8080, 80, Some(Ipv4Addr::LOCALHOST.into())));
        assert!(connect(&world.host, Ipv4Addr::LOCALHOST, 8080).is_ok());
        assert!(connect(&far, NEAR, 8080).is_err());
        assert!(connect(&neighbour, NEAR, 8080).is_err());
        // A neighbour of the host's that sends packets for 127.0.0.1 over the wire.
        output_in(&far, "sysctl", &["-qw", "net.ipv4.conf.wire0.route_localnet=1"]);
        output_in(&far, "ip", &["addr", "del", "127.0.0.1/8", "dev", "lo"]);
        output_in(&far, "ip", &["route", "add", "127.0.0.1/32", "via", &NEAR.to_string()]);
        assert!(connect(&far, Ipv4Addr::LOCALHOST, 8080).is_err());
    });
}

#[test]
fn what_passes_through_the_host_is_not_captured() {
    World::run(|_| {
        let far = outside();
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let (_server, _) = listen(&web, endpoint.ip.unwrap(), 80);
        let (client, _) = join(&fabric, &id);
        published(&fabric, &endpoint, publish(8080, 80, None));
        // 8080 of the machine outside, from a container: its own server answers, not the published one.
        let (_far_server, _) = listen(&far, FAR, 8080);
        assert_eq!(connect(&client, FAR, 8080).unwrap(), NEAR);
        drop(_far_server);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(connect(&client, FAR, 8080).is_err());
    });
}

#[test]
fn ten_thousand_ports_are_an_element_and_shifted_ones_work_too() {
    World::run(|world| {
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let range = Publish {
            protocol: Protocol::Tcp,
            container: (10_000, 20_000),
            host: Some((10_000, 20_000)),
            address: None,
        };
        let shifted = Publish {
            protocol: Protocol::Tcp,
            container: (300, 303),
            host: Some((9_300, 9_303)),
            address: None,
        };
        let rules = world.output("nft", &["list", "ruleset"]).lines().count();
        let start = std::time::Instant::now();
        let mappings = fabric.publish("c", &endpoint, &[range, shifted]).unwrap();
        println!("10,001 and 4 ports published in {:?}", start.elapsed());
        assert_eq!(mappings.iter().filter(|mapping| mapping.is_translated()).count(), 2);
        let text = world.output("nft", &["list", "ruleset"]);
        assert!(text.lines().count() <= rules + 10, "{text}");
        let (_a, _) = listen(&web, endpoint.ip.unwrap(), 15_000);
        let (_b, _) = listen(&web, endpoint.ip.unwrap(), 302);
        assert!(connect(&world.host, endpoint.gateway.unwrap(), 15_000).is_ok());
        assert!(connect(&world.host, endpoint.gateway.unwrap(), 9_302).is_ok());
        let error = fabric.publish("d", &endpoint, &[publish(12_345, 1, None)]).unwrap_err();
        assert!(matches!(error, Error::PortTaken { port: 12_345, holder: Holder::Published(who), .. } if who == "c"));
        // A table that was flushed comes back with them.
        world.output("nft", &["flush", "ruleset"]);
        fabric.mend().unwrap();
        assert!(connect(&world.host, endpoint.gateway.unwrap(), 9_302).is_ok());
        fabric.unpublish("c", &mappings).unwrap();
        assert!(connect(&world.host, endpoint.gateway.unwrap(), 9_302).is_err());
    });
}

#[test]
fn both_families() {
    World::run(|world| {
        let far = outside();
        world.output("ip", &["addr", "add", "2001:db8::1/64", "dev", "outside0", "nodad"]);
        output_in(&far, "sysctl", &["-qw", "net.ipv6.conf.wire0.disable_ipv6=0"]);
        output_in(&far, "ip", &["addr", "add", "2001:db8::2/64", "dev", "wire0", "nodad"]);
        let fabric = fabric();
        let six = network(
            &fabric,
            Draft {
                v6: true,
                ..draft("fb-six")
            },
        );
        let (web, endpoint) = join(&fabric, &six);
        let (neighbour, _) = join(&fabric, &six);
        let (near, far_ip): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let reaches = |netns: &OwnedFd, address: IpAddr, port: u16| {
            ferry_network::namespace::inside(netns.as_fd(), || {
                let to = std::net::SocketAddr::new(address, port);
                Ok(std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_secs(1)).is_ok())
            })
            .unwrap()
        };
        let (_server, _) = listen(&web, endpoint.ip6.unwrap(), 80);
        assert!(reaches(&neighbour, endpoint.ip6.unwrap().into(), 80));
        let mappings = published(&fabric, &endpoint, publish(8080, 80, None));
        assert_eq!(mappings.len(), 2);
        assert!(reaches(&far, near, 8080));
        assert!(reaches(&world.host, near, 8080));
        assert!(reaches(&neighbour, near, 8080));
        // Outwards, hidden behind the host's address: the machine outside has no way to a unique local one.
        let (_far_server, _) = listen(&far, far_ip, 81);
        assert!(reaches(&web, far_ip, 81));
        // Nobody from outside comes in at another port.
        let range = fabric.network(&six).unwrap().range(true).unwrap().subnet.to_string();
        output_in(&far, "ip", &["route", "add", &range, "via", "2001:db8::1"]);
        assert!(!reaches(&far, endpoint.ip6.unwrap().into(), 80));
        fabric.shutdown().unwrap();
        assert_eq!(world::sysctl("ipv6/conf/all/forwarding"), "0");
    });
}

#[test]
fn an_internal_network_leads_nowhere() {
    World::run(|world| {
        let far = outside();
        let fabric = fabric();
        let inner = network(
            &fabric,
            Draft {
                internal: true,
                ..draft("fb-inner")
            },
        );
        let (a, one) = join(&fabric, &inner);
        let (b, _) = join(&fabric, &inner);
        let (_far_server, _) = listen(&far, FAR, 80);
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        assert!(connect(&b, one.ip.unwrap(), 80).is_ok());
        assert!(connect(&world.host, one.ip.unwrap(), 80).is_ok());
        assert!(connect(&a, FAR, 80).is_err());
        // Not even with a route of its own making.
        let gateway = fabric.network(&inner).unwrap().ranges[0].gateway.unwrap().to_string();
        output_in(&a, "ip", &["route", "add", "default", "via", &gateway]);
        assert!(connect(&a, FAR, 80).is_err());
        assert!(published(&fabric, &one, publish(8080, 80, None)).is_empty());
    });
}

#[test]
fn a_container_on_two_networks_reaches_both_and_goes_out_by_one() {
    World::run(|_| {
        let far = outside();
        let fabric = fabric();
        let front = network(&fabric, draft("fb-front"));
        let back = network(&fabric, draft("fb-back"));
        let (database, db) = join(&fabric, &back);
        let (web, w) = join(&fabric, &front);
        let wanted = vec![
            on(&front),
            Attach {
                priority: 1,
                ..on(&back)
            },
        ];
        let (app, endpoints) = fabric.attach(wanted).unwrap();
        assert_eq!(
            endpoints.iter().map(|one| one.ifname.as_str()).collect::<Vec<_>>(),
            ["eth0", "eth1"]
        );
        let default = |netns: &OwnedFd| output_in(netns, "ip", &["route", "show", "default"]);
        assert!(default(&app).contains("eth1"), "{}", default(&app));
        let (_d, _) = listen(&database, db.ip.unwrap(), 5432);
        let (_w, _) = listen(&web, w.ip.unwrap(), 80);
        let (_far_server, _) = listen(&far, FAR, 80);
        assert!(connect(&app, db.ip.unwrap(), 5432).is_ok());
        assert!(connect(&app, w.ip.unwrap(), 80).is_ok());
        assert!(connect(&app, FAR, 80).is_ok());
        assert!(
            connect(&web, db.ip.unwrap(), 5432).is_err(),
            "the front does not reach the database"
        );
        // Off the network that leads out, and on again.
        fabric.disconnect(app.as_fd(), &endpoints[1], &endpoints[..1]).unwrap();
        assert!(default(&app).contains("eth0"));
        assert!(connect(&app, FAR, 80).is_ok());
        assert!(connect(&app, db.ip.unwrap(), 5432).is_err());
        let again = Attach {
            priority: 1,
            ..on(&back)
        };
        let joined = fabric.connect(app.as_fd(), again, &endpoints[..1]).unwrap();
        assert_eq!(joined.ifname, "eth1");
        assert!(default(&app).contains("eth1"));
        assert!(connect(&app, db.ip.unwrap(), 5432).is_ok());
    });
}

#[test]
fn a_network_somebody_is_on_stays_and_a_free_one_goes() {
    World::run(|world| {
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (_netns, endpoint) = join(&fabric, &id);
        assert!(matches!(fabric.remove(&id), Err(Error::InUse { .. })));
        fabric.detach(&endpoint).unwrap();
        fabric.remove(&id).unwrap();
        fabric.remove(&id).unwrap();
        assert_eq!(world.links(), ["lo"]);
        assert!(!world.output("nft", &["list", "ruleset"]).contains("fb-one"));
    });
}

#[test]
fn a_port_of_a_bridge_that_was_made_again_is_what_it_was() {
    use ferry_network::network::{Bridge, Driver};
    World::run(|world| {
        let fabric = fabric();
        let driver = Driver::Bridge(Bridge {
            icc: false,
            ..options("fb-apart")
        });
        let apart = network(
            &fabric,
            Draft {
                driver,
                ..draft("fb-apart")
            },
        );
        let together = network(&fabric, draft("fb-one"));
        let (a, one) = join(&fabric, &apart);
        let (b, _) = join(&fabric, &apart);
        let (web, endpoint) = join(&fabric, &together);
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        let (_web, _) = listen(&web, endpoint.ip.unwrap(), 80);
        published(&fabric, &endpoint, publish(8080, 80, None));
        let check = |when: &str| {
            assert!(connect(&world.host, one.ip.unwrap(), 80).is_ok(), "{when}");
            assert!(connect(&b, one.ip.unwrap(), 80).is_err(), "{when}");
            assert!(connect(&web, endpoint.gateway.unwrap(), 8080).is_ok(), "{when}");
        };
        check("at first");
        for bridge in ["fb-apart", "fb-one"] {
            world.output("ip", &["link", "del", bridge]);
        }
        let (_c, _) = join(&fabric, &apart);
        check("made again");
    });
}

#[test]
fn a_bridge_s_name_that_somebody_takes_stops_that_network_alone() {
    World::run(|world| {
        let fabric = fabric();
        let taken = network(&fabric, draft("fb-taken"));
        let other = network(&fabric, draft("fb-other"));
        let (_a, _) = join(&fabric, &taken);
        let (web, endpoint) = join(&fabric, &other);
        let (_server, _) = listen(&web, endpoint.ip.unwrap(), 80);
        published(&fabric, &endpoint, publish(8080, 80, None));
        world.output("ip", &["link", "del", "fb-taken"]);
        world.output("ip", &["link", "add", "fb-taken", "type", "bridge"]);
        fabric.mend_links(None).unwrap();
        let refused = fabric.attach(vec![on(&taken)]).unwrap_err();
        assert!(matches!(refused, Error::Taken { name } if name == "fb-taken"));
        let (b, _) = join(&fabric, &other);
        assert!(connect(&b, endpoint.ip.unwrap(), 80).is_ok());
        world.output("nft", &["flush", "ruleset"]);
        fabric.mend().unwrap();
        assert!(connect(&world.host, Ipv4Addr::LOCALHOST, 8080).is_ok());
        // And comes when the name is free again.
        world.output("ip", &["link", "del", "fb-taken"]);
        let (c, one) = join(&fabric, &taken);
        // A bridge that is new takes packets once the kernel has seen its port's carrier: on a busy machine the first one is lost.
        let reaches = || connect(&c, one.gateway.unwrap(), 8080).is_ok();
        assert!((0..5).any(|_| reaches()));
    });
}

#[test]
fn gateway_modes() {
    use ferry_network::network::{Bridge, Driver, Gateway};
    World::run(|world| {
        let far = outside();
        output_in(&far, "ip", &["route", "add", "172.16.0.0/12", "via", &NEAR.to_string()]);
        let fabric = fabric();
        let of = |name: &str, gateway4| {
            let driver = Driver::Bridge(Bridge {
                gateway4,
                ..options(name)
            });
            Draft { driver, ..draft(name) }
        };
        let open = network(&fabric, of("fb-open", Gateway::Open));
        let routed = network(&fabric, of("fb-routed", Gateway::Routed));
        let isolated = network(
            &fabric,
            Draft {
                internal: true,
                ..of("fb-alone", Gateway::Isolated)
            },
        );
        let (a, one) = join(&fabric, &open);
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        assert!(connect(&far, one.ip.unwrap(), 80).is_ok());
        let (b, two) = join(&fabric, &routed);
        let (_server, _) = listen(&b, two.ip.unwrap(), 80);
        let (_server2, _) = listen(&b, two.ip.unwrap(), 81);
        assert!(connect(&far, two.ip.unwrap(), 80).is_err());
        let mappings = published(&fabric, &two, publish(0, 80, None));
        assert!(mappings[0].is_routed());
        assert_eq!(connect(&far, two.ip.unwrap(), 80).unwrap(), FAR);
        assert!(connect(&far, two.ip.unwrap(), 81).is_err());
        let (_far_server, _) = listen(&far, FAR, 90);
        assert_eq!(connect(&b, FAR, 90).unwrap(), two.ip.unwrap(), "not hidden");
        let _three = join(&fabric, &isolated);
        assert!(
            !world
                .output("ip", &["-4", "addr", "show", "dev", "fb-alone"])
                .contains("inet")
        );
    });
}

#[test]
fn another_firewalls_drop_policy_is_not_in_the_way() {
    World::run(|world| {
        let far = outside();
        // As ufw, iptables and a Docker beside us leave it; and one that an administrator has a rule in.
        for line in [
            "add table ip filter",
            "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
            "add table inet mine",
            "add chain inet mine forward { type filter hook forward priority 10; policy drop; }",
            "add rule inet mine forward ip daddr 198.51.100.2 tcp dport 99 drop",
        ] {
            world.output("nft", &[line]);
        }
        let before = world.output("nft", &["list", "ruleset"]);
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let (_server, _) = listen(&web, endpoint.ip.unwrap(), 80);
        published(&fabric, &endpoint, publish(8080, 80, None));
        let (_far_server, _) = listen(&far, FAR, 81);
        let (_far_server_99, _) = listen(&far, FAR, 99);
        assert!(connect(&web, FAR, 81).is_ok());
        assert!(connect(&far, NEAR, 8080).is_ok());
        assert!(connect(&web, FAR, 99).is_err(), "what a rule drops stays dropped");
        assert!(fabric.obstacles().is_empty());
        // Somebody loads his rules again.
        world.output("nft", &["flush", "chain", "ip", "filter", "FORWARD"]);
        assert!(connect(&web, FAR, 81).is_err());
        fabric.mend().unwrap();
        assert!(connect(&web, FAR, 81).is_ok());
        assert_eq!(
            world
                .output("nft", &["list", "chain", "ip", "filter", "FORWARD"])
                .matches("accept")
                .count(),
            2
        );
        fabric.shutdown().unwrap();
        assert_eq!(world.output("nft", &["list", "ruleset"]), before);
    });
}

#[test]
fn a_macvlan_is_on_the_wire_of_its_parent() {
    is_on_the_wire(|parent| Driver::Macvlan {
        parent,
        mode: Macvlan::Bridge,
    });
}

#[test]
fn an_ipvlan_is_on_the_wire_of_its_parent() {
    is_on_the_wire(|parent| Driver::Ipvlan {
        parent,
        mode: Ipvlan::L2,
    });
}

fn is_on_the_wire(driver: fn(String) -> Driver) {
    World::run(move |world| {
        let far = outside();
        let fabric = fabric();
        let of = |parent: &str| Draft {
            driver: driver(parent.to_owned()),
            ranges: vec![Range {
                subnet: "198.51.100.0/24".parse().unwrap(),
                gateway: Some(NEAR.into()),
                pool: Some("198.51.100.64/26".parse().unwrap()),
                reserved: Vec::new(),
            }],
            ..draft("wire")
        };
        let id = network(&fabric, of("outside0"));
        let (netns, endpoint) = match fabric.attach(vec![on(&id)]) {
            Ok((netns, mut endpoints)) => (netns, endpoints.remove(0)),
            Err(error @ Error::Missing { .. }) => return println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        };
        let (_server, _) = listen(&far, FAR, 80);
        assert_eq!(
            connect(&netns, FAR, 80).unwrap(),
            endpoint.ip.unwrap(),
            "its own address, on the wire"
        );
        let second = fabric
            .connect(netns.as_fd(), on(&id), std::slice::from_ref(&endpoint))
            .unwrap();
        fabric
            .disconnect(netns.as_fd(), &second, std::slice::from_ref(&endpoint))
            .unwrap();
        let links = output_in(&netns, "ip", &["-o", "link"]);
        assert!(links.contains("eth0") && !links.contains("eth1"), "{links}");
        fabric.remove(&id).unwrap_err();
        fabric.detach(&endpoint).unwrap();
        fabric.remove(&id).unwrap();
        assert!(
            world.links().contains(&"outside0".to_owned()),
            "the parent is the host's"
        );
        let nowhere = fabric.create(of("nowhere0")).unwrap().id;
        let error = fabric.raise(&nowhere).unwrap_err().to_string();
        assert!(error.contains("nowhere0 does not exist"), "{error}");
    });
}

/// The rules are those of a firewalld 2.5.2 that has just been started, and after what Ferry says to do, but for its tables of
/// translations, which have none.
#[test]
fn with_firewalld_published_ports_answer_and_containers_get_out_in_the_zone_that_ferry_says() {
    World::run(|world| {
        let far = outside();
        let fabric = fabric();
        let one = network(&fabric, draft("ferry0"));
        let two = network(&fabric, draft("fb-two"));
        let (web, endpoint) = join(&fabric, &one);
        let (other, _) = join(&fabric, &two);
        let (_web, _) = listen(&web, endpoint.ip.unwrap(), 80);
        let (_far, _) = listen(&far, FAR, 99);
        published(&fabric, &endpoint, publish(8080, 80, None));
        for (zone, out) in [("public", false), ("trusted", true)] {
            let rules = format!("{}/tests/firewalld/{zone}.nft", env!("CARGO_MANIFEST_DIR"));
            world.output("nft", &["-f", &rules]);
            fabric.mend().unwrap();
            assert!(connect(&far, NEAR, 8080).is_ok(), "{zone}");
            assert!(connect(&other, NEAR, 8080).is_ok(), "{zone}");
            assert_eq!(connect(&web, FAR, 99).is_ok(), out, "{zone}");
            assert_eq!(connect(&other, FAR, 99).is_ok(), out, "{zone}");
            let told = fabric.obstacles().concat();
            let advice = "--zone=trusted --add-interface=fb-+ --add-interface=ferry0";
            assert_eq!((told.is_empty(), told.contains(advice)), (out, !out), "{told}");
            assert!(connect(&far, endpoint.ip.unwrap(), 80).is_err());
            let listed = world.output("nft", &["list", "table", "inet", "firewalld"]);
            assert!(!listed.contains("ferry: "), "nothing of ours is in it");
            world.output("nft", &["delete", "table", "inet", "firewalld"]);
        }
        fabric.shutdown().unwrap();
    });
}

/// Prints what others wait while somebody asks for the input chains of a host with many rules.
#[test]
fn who_asks_for_the_hosts_input_rules_holds_nobody_up() {
    use std::fmt::Write as _;
    use std::time::{Duration, Instant};
    World::run(|world| {
        let fabric = fabric();
        let id = network(&fabric, draft("ferry0"));
        let (_web, endpoint) = join(&fabric, &id);
        let mut rules =
            "table inet mine {\nchain input {\ntype filter hook input priority 0; policy accept;\n".to_owned();
        for port in 1..=5000 {
            writeln!(rules, "tcp dport {port} accept").unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), rules + "drop\n}\n}\n").unwrap();
        world.output("nft", &["-f", file.path().to_str().unwrap()]);
        let start = Instant::now();
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let guards = fabric.input_guards().unwrap();
                assert_eq!(guards, ["chain input of table inet mine"]);
                start.elapsed()
            });
            let mut longest = Duration::ZERO;
            while !asking.is_finished() {
                let before = Instant::now();
                fabric.publish("c", &endpoint, &[publish(8080, 80, None)]).unwrap();
                fabric
                    .unpublish("c", &fabric.published().iter().map(|of| of.1).collect::<Vec<_>>())
                    .unwrap();
                longest = longest.max(before.elapsed());
            }
            println!("the longest of a publish and its end meanwhile: {longest:?}");
            asking.join().unwrap()
        });
        println!("5,000 rules of the input chain looked at in {asked:?}");
        fabric.shutdown().unwrap();
    });
}
