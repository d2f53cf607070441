//! What the firewall lets through, with a machine outside. Needs root; each test has network namespaces of its own.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::{IpAddr, Ipv4Addr};

use ferry_network::{Attach, Config, Draft, Record};
use world::{FAR, NEAR, World, connect, listen, output_in, outside, sysctl};

fn bridge(config: Config) -> world::Default {
    world::Default::new(config, Record::default())
}

#[test]
fn the_outside_sees_the_hosts_address() {
    World::run(|world| {
        let far = outside();
        let bridge = bridge(Config::default());
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        let (_server, _) = listen(&far, FAR, 80);
        assert_eq!(connect(&a, FAR, 80).unwrap(), NEAR);
        // Not so towards the host itself.
        let (_server, _) = listen(&world.host, NEAR, 81);
        assert_eq!(connect(&a, NEAR, 81).unwrap(), one.ip.unwrap());
    });
}

#[test]
fn rules_that_an_administrator_saves_can_be_loaded_again() {
    World::run(|world| {
        let bridge = bridge(Config::default());
        let (_a, one) = bridge.attach(Attach::default()).unwrap();
        let publish = |first, last| ferry_network::ports::Publish {
            protocol: ferry_network::ports::Protocol::Udp,
            container: (first, last),
            host: Some((first, last)),
            address: None,
        };
        bridge
            .fabric
            .publish("c", &one, &[publish(53, 53), publish(1000, 2000)])
            .unwrap();
        let saved = world.output("nft", &["list", "ruleset"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &saved).unwrap();
        world.output("nft", &["flush", "ruleset"]);
        world.output("nft", &["-f", file.path().to_str().unwrap()]);
        assert_eq!(world.output("nft", &["list", "ruleset"]), saved);
    });
}

#[test]
fn without_masquerading_the_outside_sees_the_container() {
    World::run(|_| {
        let far = outside();
        let mut draft = world::draft("ferry0");
        let ferry_network::network::Driver::Bridge(options) = &mut draft.driver else {
            panic!()
        };
        options.masquerade = false;
        let bridge = world::Default::of(Config::default(), Record::default(), draft);
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        output_in(&far, "ip", &["route", "add", "172.17.0.0/16", "via", &NEAR.to_string()]);
        let (_server, _) = listen(&far, FAR, 80);
        assert_eq!(connect(&a, FAR, 80).unwrap(), one.ip.unwrap());
    });
}

#[test]
fn the_outside_cannot_reach_a_container_by_routing() {
    World::run(|world| {
        let far = outside();
        output_in(&far, "ip", &["route", "add", "172.17.0.0/16", "via", &NEAR.to_string()]);
        let bridge = bridge(Config::default());
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        let (_server, _) = listen(&a, one.ip.unwrap(), 80);
        assert!(connect(&far, one.ip.unwrap(), 80).is_err());
        assert!(connect(&world.host, one.ip.unwrap(), 80).is_ok());
        // The way is open but for the firewall.
        world.output("nft", &["flush", "chain", "inet", "ferry", "forward"]);
        assert_eq!(connect(&far, one.ip.unwrap(), 80).unwrap(), FAR);
        bridge.reconcile(&[]).unwrap();
        assert!(connect(&far, one.ip.unwrap(), 80).is_err());
        assert!(connect(&world.host, one.ip.unwrap(), 80).is_ok());
    });
}

#[test]
fn a_packet_with_a_loopback_address_from_a_wire_is_dropped() {
    World::run(|world| {
        let far = outside();
        let bridge = bridge(Config::default());
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        for link in ["outside0", "ferry0"] {
            world.output("sysctl", &["-qw", &format!("net.ipv4.conf.{link}.route_localnet=1")]);
        }
        let (_server, _) = listen(&world.host, Ipv4Addr::LOCALHOST, 80);
        for (netns, gateway, link) in [(&far, NEAR, "wire0"), (&a, one.gateway.unwrap(), "eth0")] {
            output_in(
                netns,
                "sysctl",
                &["-qw", &format!("net.ipv4.conf.{link}.route_localnet=1")],
            );
            output_in(netns, "ip", &["addr", "del", "127.0.0.1/8", "dev", "lo"]);
            output_in(
                netns,
                "ip",
                &["route", "add", "127.0.0.1/32", "via", &gateway.to_string()],
            );
            assert!(connect(netns, Ipv4Addr::LOCALHOST, 80).is_err());
        }
        assert!(connect(&world.host, Ipv4Addr::LOCALHOST, 80).is_ok());
        world.output("nft", &["flush", "chain", "inet", "ferry", "guard"]);
        assert!(
            connect(&far, Ipv4Addr::LOCALHOST, 80).is_ok(),
            "the test's own way is open"
        );
    });
}

#[test]
fn a_chain_of_others_that_ends_in_a_reject_is_not_in_the_way() {
    World::run(|world| {
        let far = outside();
        for line in [
            "add table inet mine",
            "add chain inet mine forward { type filter hook forward priority 10; policy accept; }",
            "add rule inet mine forward ct state established,related accept",
            "add rule inet mine forward tcp dport 99 drop",
            "add rule inet mine forward counter reject with icmpx admin-prohibited",
            "add chain inet mine input { type filter hook input priority 0; policy drop; }",
        ] {
            world.output("nft", &[line]);
        }
        let before = world.output("nft", &["list", "table", "inet", "mine"]);
        let bridge = bridge(Config::default());
        let (a, _) = bridge.attach(Attach::default()).unwrap();
        let (_server, _) = listen(&far, FAR, 80);
        let (_other, _) = listen(&far, FAR, 99);
        assert!(connect(&a, FAR, 80).is_ok());
        assert!(
            connect(&a, FAR, 99).is_err(),
            "what a rule with a condition drops stays dropped"
        );
        assert_eq!(
            bridge.fabric.input_guards().unwrap(),
            ["chain input of table inet mine"]
        );
        bridge.fabric.mend().unwrap();
        let rules = world.output("nft", &["list", "chain", "inet", "mine", "forward"]);
        assert_eq!(rules.matches("ferry: ").count(), 2, "{rules}");
        bridge.shutdown().unwrap();
        let strip = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        assert_eq!(
            strip(&world.output("nft", &["list", "table", "inet", "mine"])),
            strip(&before)
        );
    });
}

#[test]
fn bridges_do_not_reach_each_other() {
    World::run(|_| {
        let one = bridge(Config::default());
        let (a, _) = one.attach(Attach::default()).unwrap();
        let second = one.fabric.create(world::draft("fb-two")).unwrap();
        let on_second = Attach {
            network: second.id,
            ..Attach::default()
        };
        let (b, there) = one.fabric.attach(vec![on_second]).unwrap();
        assert_eq!(
            there[0].gateway.unwrap(),
            Ipv4Addr::new(172, 18, 0, 1),
            "the first bridge's subnet is avoided"
        );
        let (_server, _) = listen(&b, there[0].ip.unwrap(), 80);
        assert!(connect(&a, there[0].ip.unwrap(), 80).is_err());
    });
}

/// The first network with IPv6 changes settings of the host; the first after that was gone found them changed.
#[test]
fn the_rules_know_every_network_also_when_others_came_and_went() {
    World::run(|world| {
        let fabric = world::fabric();
        let v4 = world::network(&fabric, world::draft("fb-v4"));
        let (stays, _) = world::join(&fabric, &v4);
        for name in ["fb-one", "fb-two", "fb-three"] {
            let draft = Draft {
                v6: true,
                ..world::draft(name)
            };
            let id = world::network(&fabric, draft);
            let (netns, endpoint) = world::join(&fabric, &id);
            let known = world.output("nft", &["list", "set", "inet", "ferry", "bridges"]);
            assert!(known.contains(name) && known.contains("fb-v4"), "{name}: {known}");
            let (_server, _) = listen(&netns, endpoint.ip.unwrap(), 80);
            let (other, second) = world::join(&fabric, &id);
            connect(&other, endpoint.ip.unwrap(), 80).unwrap();
            assert!(connect(&stays, endpoint.ip.unwrap(), 80).is_err(), "{name}");
            fabric.detach(&endpoint).unwrap();
            fabric.detach(&second).unwrap();
            fabric.remove(&id).unwrap();
        }
    });
}

#[test]
fn a_host_that_did_not_forward_still_does_not() {
    for before in ["0", "1"] {
        World::run(move |_| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", before).unwrap();
            let far = outside();
            let other = ferry_network::namespace::Namespace::create().unwrap();
            let bridge = bridge(Config::default());
            let (_a, _) = bridge.attach(Attach::default()).unwrap();
            assert_eq!(sysctl("ipv4/ip_forward"), before);
            // A second network of the host's that has nothing to do with us.
            second_wire(&other);
            output_in(
                &far,
                "ip",
                &["route", "add", "203.0.113.0/24", "via", &NEAR.to_string()],
            );
            let address: IpAddr = "203.0.113.2".parse().unwrap();
            let (_server, _) = listen(&other.fd, address, 80);
            assert_eq!(connect(&far, address, 80).is_ok(), before == "1");
            bridge.shutdown().unwrap();
            assert_eq!(sysctl("ipv4/ip_forward"), before);
        });
    }
}

fn second_wire(other: &ferry_network::namespace::Namespace) {
    use ferry_netlink::Route;
    use ferry_netlink::route::{Change, LinkId, Peer, Request, Veth};
    use std::os::fd::AsFd as _;
    let mut here = Route::open().unwrap();
    let peer = Peer {
        name: "wire1",
        mac: None,
        netns: other.fd.as_fd(),
    };
    let change = Change {
        up: Some(true),
        ..Change::default()
    };
    here.run(&[
        Request::CreateVeth(Veth {
            name: "outside1",
            mtu: 1500,
            master: None,
            peer,
        }),
        Request::ChangeLink {
            link: LinkId::Name("outside1"),
            change,
        },
    ])
    .unwrap();
    let index = here.link(&LinkId::Name("outside1")).unwrap().unwrap().index;
    here.run(&[Request::AddAddress {
        link: index,
        address: "203.0.113.1".parse().unwrap(),
        prefix: 24,
    }])
    .unwrap();
    for arguments in [
        ["addr", "add", "203.0.113.2/24", "dev", "wire1"].as_slice(),
        &["link", "set", "wire1", "up"],
        &["route", "add", "default", "via", "203.0.113.1"],
    ] {
        output_in(&other.fd, "ip", arguments);
    }
}
