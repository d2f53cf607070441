//! What the firewall lets through, with a machine outside. Needs root; each test has network namespaces of its own.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::{IpAddr, Ipv4Addr};

use ferry_network::{Attach, Bridge, Config, Record};
use world::{World, connect, listen, output_in, outside, sysctl};

const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn bridge(config: Config) -> Bridge {
    Bridge::new(config, Record::default()).unwrap()
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
        assert_eq!(connect(&a, NEAR, 81).unwrap(), one.ip);
    });
}

#[test]
fn without_masquerading_the_outside_sees_the_container() {
    World::run(|_| {
        let far = outside();
        let bridge = bridge(Config {
            ip_masq: false,
            ..Config::default()
        });
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        output_in(&far, "ip", &["route", "add", "172.17.0.0/16", "via", &NEAR.to_string()]);
        let (_server, _) = listen(&far, FAR, 80);
        assert_eq!(connect(&a, FAR, 80).unwrap(), one.ip);
    });
}

#[test]
fn the_outside_cannot_reach_a_container_by_routing() {
    World::run(|world| {
        let far = outside();
        output_in(&far, "ip", &["route", "add", "172.17.0.0/16", "via", &NEAR.to_string()]);
        let bridge = bridge(Config::default());
        let (a, one) = bridge.attach(Attach::default()).unwrap();
        let (_server, _) = listen(&a, one.ip, 80);
        assert!(connect(&far, one.ip, 80).is_err());
        assert!(connect(&world.host, one.ip, 80).is_ok());
        // The way is open but for the firewall.
        world.output("nft", &["flush", "chain", "inet", "ferry", "forward"]);
        assert_eq!(connect(&far, one.ip, 80).unwrap(), FAR);
        bridge.reconcile(&[]).unwrap();
        assert!(connect(&far, one.ip, 80).is_err());
        assert!(connect(&world.host, one.ip, 80).is_ok());
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
        for (netns, gateway, link) in [(&far, NEAR, "wire0"), (&a, one.gateway, "eth0")] {
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
fn bridges_do_not_reach_each_other() {
    World::run(|_| {
        let one = bridge(Config::default());
        let two = bridge(Config {
            network_id: "two".into(),
            name: "ferry1".into(),
            table: "ferry-two".into(),
            ..Config::default()
        });
        let (a, _) = one.attach(Attach::default()).unwrap();
        let (b, there) = two.attach(Attach::default()).unwrap();
        assert_eq!(
            there.gateway,
            Ipv4Addr::new(172, 18, 0, 1),
            "the first bridge's subnet is avoided"
        );
        let (_server, _) = listen(&b, there.ip, 80);
        assert!(connect(&a, there.ip, 80).is_err());
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
            assert_eq!(sysctl("ipv4/ip_forward"), "1");
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
