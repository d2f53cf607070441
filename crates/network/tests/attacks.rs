//! Attacks on the networks, from a container and from a machine on the same wire: family F7 of the known ones, and others. Each
//! has shown that its way is open without what closes it, or shows it here. Needs root; each test has network namespaces
//! of its own.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use ferry_network::ports::{Protocol, Publish};
use ferry_network::{Attach, Draft, Endpoint, namespace};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use world::{FAR, NEAR, World, connect, draft, fabric, join, listen, network, on, output_in, outside, sysctl};

const SHORT: Duration = Duration::from_millis(300);

fn publish(host: u16, container: u16, protocol: Protocol, address: Option<IpAddr>) -> Publish {
    Publish {
        protocol,
        container: (container, container),
        host: Some((host, host)),
        address,
    }
}

fn udp(netns: &OwnedFd, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.into(), port);
    let socket = namespace::inside(netns.as_fd(), || Ok(UdpSocket::bind(address).unwrap())).unwrap();
    socket.set_read_timeout(Some(SHORT)).unwrap();
    socket
}

/// What comes within a short time.
fn heard(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn ip(netns: &OwnedFd, line: &str) -> String {
    output_in(netns, "ip", &line.split(' ').collect::<Vec<_>>())
}

/// A container's way to an address by the host, whatever its routes say. Who has CAP_NET_RAW needs no route for that.
fn by_the_host(netns: &OwnedFd, address: Ipv4Addr, endpoint: &Endpoint) {
    output_in(netns, "sysctl", &["-qw", "net.ipv4.conf.eth0.accept_redirects=0"]);
    ip(
        netns,
        &format!("route add {address}/32 via {}", endpoint.gateway.unwrap()),
    );
}

#[test]
fn containers_that_must_not_reach_each_other_cannot_by_way_of_the_host() {
    World::run(|world| {
        let fabric = fabric();
        let apart = |name: &str, apart: bool| {
            let mut draft = draft(name);
            let ferry_network::network::Driver::Bridge(bridge) = &mut draft.driver else {
                panic!()
            };
            bridge.icc = !apart;
            network(&fabric, draft)
        };
        // Where bridges call the firewall (br_netfilter), a translated frame never leaves the bridge, and so is held back as well.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        for (name, closed) in [("fb-apart", true), ("fb-beside", false)] {
            let id = apart(name, closed);
            let (web, endpoint) = join(&fabric, &id);
            let (attacker, own) = join(&fabric, &id);
            let target = endpoint.ip.unwrap();
            let (_server, _) = listen(&web, target, 80);
            assert_eq!(connect(&attacker, target, 80).is_err(), closed, "{name}");
            by_the_host(&attacker, target, &own);
            assert_eq!(connect(&attacker, target, 80).is_err(), closed, "{name}, by the host");
            // What it publishes is everybody's.
            let request = publish(8080, 80, Protocol::Tcp, None);
            let mappings = fabric.publish("c", &endpoint, &[request]).unwrap();
            assert!(connect(&attacker, own.gateway.unwrap(), 8080).is_ok());
            fabric.unpublish("c", &mappings).unwrap();
            assert!(connect(&world.host, target, 80).is_ok());
        }
    });
}

/// A source address of another's: what it sends would be taken for an answer to a connection of a container on another network,
/// or for a packet of a machine that a server of the host's trusts.
#[test]
fn a_container_sends_with_no_source_but_its_own() {
    World::run(|world| {
        let far = outside();
        let fabric = fabric();
        let (victim, _) = join(&fabric, &network(&fabric, draft("fb-one")));
        let (attacker, own) = join(&fabric, &network(&fabric, draft("fb-two")));
        // The victim has asked a name server outside.
        let server = udp(&far, FAR, 53);
        let question = udp(&victim, Ipv4Addr::UNSPECIFIED, 4000);
        question.send_to(b"question", (FAR, 53)).unwrap();
        let mut buffer = [0; 16];
        let (_, asker) = server.recv_from(&mut buffer).unwrap();
        // The attacker says that he is that server.
        ip(&attacker, "addr add 198.51.100.2/32 dev lo");
        let forged = udp(&attacker, FAR, 53);
        forged.send_to(b"forged", asker).unwrap();
        assert_eq!(heard(&question), None);
        server.send_to(b"answer", asker).unwrap();
        assert_eq!(heard(&question).as_deref(), Some("answer"));
        // And to the host itself.
        let service = udp(&world.host, own.gateway.unwrap(), 5000);
        forged.send_to(b"forged", (own.gateway.unwrap(), 5000)).unwrap();
        assert_eq!(heard(&service), None);
        let honest = udp(&attacker, own.ip.unwrap(), 53);
        honest.send_to(b"honest", (own.gateway.unwrap(), 5000)).unwrap();
        assert_eq!(heard(&service).as_deref(), Some("honest"));
        // A container that leads on to a network of its own, as the administrator has set it up.
        ip(&attacker, "addr add 192.0.2.7/32 dev lo");
        let routed = udp(&attacker, Ipv4Addr::new(192, 0, 2, 7), 53);
        world.output(
            "ip",
            &["route", "add", "192.0.2.0/24", "via", &own.ip.unwrap().to_string()],
        );
        routed.send_to(b"routed", (own.gateway.unwrap(), 5000)).unwrap();
        assert_eq!(heard(&service).as_deref(), Some("routed"));
    });
}

#[test]
fn nor_with_another_s_of_ipv6() {
    World::run(|world| {
        let fabric = fabric();
        let id = network(
            &fabric,
            Draft {
                v6: true,
                ..draft("fb-six")
            },
        );
        let (attacker, own) = join(&fabric, &id);
        let gateway = own.gateway6.unwrap();
        ip(&attacker, "addr add 2001:db8::7/128 dev lo nodad");
        let service = udp(&world.host, gateway, 5000);
        for (source, expected) in [
            ("2001:db8::7".parse::<Ipv6Addr>().unwrap(), None),
            (own.ip6.unwrap(), Some("hello")),
        ] {
            udp(&attacker, source, 53).send_to(b"hello", (gateway, 5000)).unwrap();
            assert_eq!(heard(&service).as_deref(), expected, "{source}");
        }
    });
}

/// A frame with another container's MAC address makes a bridge that learns send that one's frames to the attacker.
#[test]
fn a_container_cannot_take_another_s_link_address() {
    World::run(|world| {
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (victim, endpoint) = join(&fabric, &id);
        let (attacker, own) = join(&fabric, &id);
        let target = endpoint.ip.unwrap();
        let socket = udp(&victim, target, 7000);
        let sender = udp(&world.host, own.gateway.unwrap(), 7001);
        sender.send_to(b"before", (target, 7000)).unwrap();
        assert_eq!(heard(&socket).as_deref(), Some("before"));
        ip(&attacker, &format!("link set eth0 address {}", endpoint.mac));
        ip(&attacker, &format!("addr add {target}/16 dev eth0"));
        // Frames with the stolen address.
        let noise = udp(&attacker, target, 7000);
        for _ in 0..5 {
            noise.send_to(b"noise", (own.gateway.unwrap(), 9)).unwrap();
        }
        let _ = heard(&noise);
        sender.send_to(b"secret", (target, 7000)).unwrap();
        assert_eq!(heard(&noise), None, "the attacker has the victim's packets");
        assert_eq!(heard(&socket).as_deref(), Some("secret"));
    });
}

/// Answers that nobody asked for: neither the host's entry of a container nor a container's of the host changes.
#[test]
fn neighbour_entries_of_the_host_and_of_the_way_out_cannot_be_claimed() {
    World::run(|world| {
        let fabric = fabric();
        let id = network(
            &fabric,
            Draft {
                v6: true,
                ..draft("fb-one")
            },
        );
        let (victim, endpoint) = join(&fabric, &id);
        let (attacker, _) = join(&fabric, &id);
        let entries = || {
            let of_host = world.output("ip", &["neigh", "show", "dev", "fb-one"]);
            let of_victim = ip(&victim, "neigh show dev eth0");
            let mut lines: Vec<_> = of_host.lines().chain(of_victim.lines()).map(str::to_owned).collect();
            lines.retain(|line| line.contains("PERMANENT"));
            lines.sort();
            lines
        };
        let before = entries();
        for address in [
            endpoint.ip.unwrap().to_string(),
            endpoint.ip6.unwrap().to_string(),
            endpoint.gateway.unwrap().to_string(),
            endpoint.gateway6.unwrap().to_string(),
        ] {
            assert!(
                before.iter().any(|line| line.starts_with(&format!("{address} "))),
                "{before:?}"
            );
        }
        // The kernel announces what it is given.
        for key in ["ipv4.conf.eth0.arp_notify", "ipv6.conf.eth0.ndisc_notify"] {
            output_in(&attacker, "sysctl", &["-qw", &format!("net.{key}=1")]);
        }
        ip(&attacker, &format!("addr add {}/16 dev eth0", endpoint.ip.unwrap()));
        ip(
            &attacker,
            &format!("addr add {}/16 dev eth0", endpoint.gateway.unwrap()),
        );
        ip(
            &attacker,
            &format!("addr add {}/64 dev eth0 nodad", endpoint.ip6.unwrap()),
        );
        ip(
            &attacker,
            &format!("addr add {}/64 dev eth0 nodad", endpoint.gateway6.unwrap()),
        );
        ip(&attacker, "link set eth0 down");
        ip(&attacker, "link set eth0 up");
        std::thread::sleep(SHORT);
        assert_eq!(entries(), before);
    });
}

/// A router advertisement (RFC 4861, 4.2) with a prefix and a life of half an hour, to all nodes.
fn advertise(netns: &OwnedFd, link: &str) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0]);
    message.extend([0, 0, 0x07, 0x08, 0, 0, 0x07, 0x08, 0, 0, 0, 0]);
    message.extend("2001:db8:bad::".parse::<Ipv6Addr>().unwrap().octets());
    namespace::inside(netns.as_fd(), || {
        let socket = rustix::net::socket_with(
            AddressFamily::INET6,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(rustix::net::ipproto::ICMPV6),
        )
        .unwrap();
        rustix::net::sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
        let scope = rustix::net::netdevice::name_to_index(&socket, link).unwrap();
        let all = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, scope);
        for _ in 0..3 {
            rustix::net::sendto(&socket, &message, rustix::net::SendFlags::empty(), &all).unwrap();
        }
        Ok(())
    })
    .unwrap();
    std::thread::sleep(SHORT);
}

#[test]
fn cve_2020_13401_router_advertisements_of_a_container_are_taken_by_nobody() {
    World::run(|world| {
        let fabric = fabric();
        for v6 in [false, true] {
            let id = network(
                &fabric,
                Draft {
                    v6,
                    ..draft(if v6 { "fb-six" } else { "fb-four" })
                },
            );
            let (victim, _) = join(&fabric, &id);
            let (attacker, _) = join(&fabric, &id);
            output_in(&attacker, "sysctl", &["-qw", "net.ipv6.conf.eth0.disable_ipv6=0"]);
            ip(&attacker, "link set eth0 addrgenmode eui64");
            ip(&attacker, "addr add fe80::bad/64 dev eth0 nodad");
            let seen = |take: bool| {
                // One who takes advertisements: the test's own way is open.
                let (witness, _) = join(&fabric, &id);
                if take {
                    for (key, value) in [("disable_ipv6", "0"), ("accept_ra", "1")] {
                        output_in(
                            &witness,
                            "sysctl",
                            &["-qw", &format!("net.ipv6.conf.eth0.{key}={value}")],
                        );
                    }
                    ip(&witness, "addr add fe80::7/64 dev eth0 nodad");
                }
                advertise(&attacker, "eth0");
                ip(&witness, "-6 route show default").contains("fe80::bad")
            };
            assert!(seen(true), "nobody was reached");
            assert!(!seen(false));
            for routes in [
                ip(&victim, "-6 route show default"),
                world.output("ip", &["-6", "route", "show", "default"]),
            ] {
                assert!(!routes.contains("fe80::bad"), "{routes}");
            }
            for addresses in [ip(&victim, "-6 addr"), world.output("ip", &["-6", "addr"])] {
                assert!(!addresses.contains("2001:db8:bad"), "{addresses}");
            }
        }
    });
}

#[test]
fn cve_2024_32473_a_network_without_ipv6_has_none() {
    World::run(|_| {
        let fabric = fabric();
        let four = network(&fabric, draft("fb-four"));
        let six = network(
            &fabric,
            Draft {
                v6: true,
                ..draft("fb-six")
            },
        );
        let (netns, endpoint) = join(&fabric, &four);
        let second = fabric
            .connect(netns.as_fd(), on(&six), std::slice::from_ref(&endpoint))
            .unwrap();
        let shown = ip(&netns, "-6 -o addr");
        assert!(
            !shown.contains(&endpoint.ifname) && shown.contains(&second.ifname),
            "{shown}"
        );
        let (other, first) = join(&fabric, &six);
        let third = fabric
            .connect(other.as_fd(), on(&four), std::slice::from_ref(&first))
            .unwrap();
        let shown = ip(&other, "-6 -o addr");
        assert!(!shown.contains(&third.ifname), "{shown}");
    });
}

#[test]
fn cve_2021_20199_a_client_from_outside_keeps_its_address() {
    World::run(|_| {
        let far = outside();
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let (_server, _) = listen(&web, endpoint.ip.unwrap(), 80);
        fabric
            .publish("c", &endpoint, &[publish(8080, 80, Protocol::Tcp, None)])
            .unwrap();
        assert_eq!(connect(&far, NEAR, 8080).unwrap(), FAR);
    });
}

/// Packets for 127.0.0.0/8 and from it, over the wire, with conntrack's and the martian filter's help switched off.
#[test]
fn a_port_of_the_loopback_is_not_reached_with_loopback_sources_either() {
    World::run(|world| {
        let far = outside();
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let (neighbour, own) = join(&fabric, &id);
        let socket = udp(&web, endpoint.ip.unwrap(), 80);
        let request = publish(8080, 80, Protocol::Udp, Some(Ipv4Addr::LOCALHOST.into()));
        fabric.publish("c", &endpoint, &[request]).unwrap();
        for link in ["outside0", "fb-one"] {
            for key in ["route_localnet=1", "accept_local=1", "rp_filter=0"] {
                world.output("sysctl", &["-qw", &format!("net.ipv4.conf.{link}.{key}")]);
            }
        }
        for (netns, link, gateway) in [(&far, "wire0", NEAR), (&neighbour, "eth0", own.gateway.unwrap())] {
            output_in(
                netns,
                "sysctl",
                &["-qw", &format!("net.ipv4.conf.{link}.route_localnet=1")],
            );
            ip(netns, "addr del 127.0.0.1/8 dev lo");
            ip(netns, &format!("route add 127.0.0.1/32 via {gateway}"));
            for address in ["127.0.0.2", "192.0.2.99"] {
                ip(netns, &format!("addr add {address}/32 dev lo"));
                let sender = udp(netns, address.parse::<Ipv4Addr>().unwrap(), 9999);
                for target in [Ipv4Addr::LOCALHOST, gateway] {
                    let _ = sender.send_to(b"hello", (target, 8080));
                }
            }
        }
        assert_eq!(heard(&socket), None);
        let host = udp(&world.host, Ipv4Addr::LOCALHOST, 9999);
        host.send_to(b"host", (Ipv4Addr::LOCALHOST, 8080)).unwrap();
        assert_eq!(heard(&socket).as_deref(), Some("host"));
    });
}

/// As [`outside`], with IPv6 as well: 2001:db8:1::2 there.
fn outside_with_ipv6(world: &World) -> OwnedFd {
    let far = outside();
    world.output("ip", &["addr", "add", "2001:db8:1::1/64", "dev", "outside0", "nodad"]);
    output_in(&far, "sysctl", &["-qw", "net.ipv6.conf.wire0.disable_ipv6=0"]);
    ip(&far, "addr add 2001:db8:1::2/64 dev wire0 nodad");
    far
}

#[test]
fn a_neighbour_reaches_no_container_by_its_address_in_either_family() {
    World::run(|world| {
        let far = outside_with_ipv6(world);
        let fabric = fabric();
        let id = network(
            &fabric,
            Draft {
                v6: true,
                ..draft("fb-one")
            },
        );
        let (web, endpoint) = join(&fabric, &id);
        let (four, six) = (endpoint.ip.unwrap(), endpoint.ip6.unwrap());
        // Also of published ports only the host's are open, and those of the loopback are nobody's.
        let requests = [
            publish(8080, 80, Protocol::Tcp, None),
            publish(8081, 81, Protocol::Tcp, Some(Ipv4Addr::LOCALHOST.into())),
        ];
        fabric.publish("c", &endpoint, &requests).unwrap();
        ip(&far, &format!("route add {four}/32 via {NEAR}"));
        ip(&far, &format!("-6 route add {six}/128 via 2001:db8:1::1"));
        let sockets: Vec<_> = [IpAddr::from(four), six.into()]
            .into_iter()
            .flat_map(|address| [80, 81, 82].map(|port| (udp(&web, address, port), address, port)))
            .collect();
        let sender4 = udp(&far, FAR, 5555);
        let sender6 = udp(&far, "2001:db8:1::2".parse::<Ipv6Addr>().unwrap(), 5555);
        for (socket, address, port) in &sockets {
            let sender = if address.is_ipv4() { &sender4 } else { &sender6 };
            sender.send_to(b"hello", (*address, *port)).unwrap();
            assert_eq!(heard(socket), None, "{address}:{port}");
        }
        world.output("nft", &["flush", "chain", "inet", "ferry", "forward"]);
        for (socket, address, port) in sockets.iter().filter(|(_, _, port)| *port == 82) {
            let sender = if address.is_ipv4() { &sender4 } else { &sender6 };
            sender.send_to(b"open", (*address, *port)).unwrap();
            assert_eq!(
                heard(socket).as_deref(),
                Some("open"),
                "{address}: the test's own way is shut"
            );
        }
    });
}

/// A client that had a connection to a published port, and uses its port again when the address has another holder.
#[test]
fn a_connection_of_yesterday_is_no_way_to_who_has_the_address_today() {
    World::run(|_| {
        let far = outside();
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let address = endpoint.ip.unwrap();
        let mappings = fabric
            .publish("c", &endpoint, &[publish(8080, 80, Protocol::Tcp, None)])
            .unwrap();
        let client = || {
            namespace::inside(far.as_fd(), || {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
                rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
                // It ends with a reset, and nothing is waited for: the flow stays as it was on the host's side.
                rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
                rustix::net::bind(&socket, &std::net::SocketAddrV4::new(FAR, 6000)).unwrap();
                let _ = rustix::net::connect(&socket, &std::net::SocketAddrV4::new(NEAR, 8080));
                let mut poll = [rustix::event::PollFd::new(&socket, rustix::event::PollFlags::OUT)];
                rustix::event::poll(
                    &mut poll,
                    Some(&rustix::time::Timespec {
                        tv_sec: 0,
                        tv_nsec: 500_000_000,
                    }),
                )
                .unwrap();
                Ok((rustix::net::getpeername(&socket).is_ok(), socket))
            })
            .unwrap()
        };
        let (_server, _) = listen(&web, address, 80);
        let (connected, socket) = client();
        assert!(connected);
        // The client's machine keeps quiet when it goes.
        output_in(&far, "nft", &["add table ip quiet"]);
        output_in(
            &far,
            "nft",
            &["add chain ip quiet out { type filter hook output priority 0; }"],
        );
        output_in(
            &far,
            "nft",
            &["add rule ip quiet out tcp flags & (fin | rst) != 0 drop"],
        );
        fabric.close("c", &mappings).unwrap();
        fabric.detach(&endpoint).unwrap();
        drop((web, socket));
        let attach = Attach {
            ip: Some(address),
            ..on(&id)
        };
        let (next, _) = fabric.attach(vec![attach]).unwrap();
        let (_server, _) = listen(&next, address, 80);
        let (connected, _socket) = client();
        assert!(!connected, "the client has reached a container that publishes nothing");
    });
}

/// While the table is made anew, again and again, nobody from outside gets through.
#[test]
fn cve_2025_54388_there_is_no_moment_without_rules_while_they_are_made_anew() {
    World::run(|_| {
        let far = outside();
        let fabric = fabric();
        let id = network(&fabric, draft("fb-one"));
        let (web, endpoint) = join(&fabric, &id);
        let target = endpoint.ip.unwrap();
        ip(&far, &format!("route add {target}/32 via {NEAR}"));
        let socket = udp(&web, target, 80);
        let sender = udp(&far, FAR, 5555);
        let end = Instant::now() + Duration::from_secs(1);
        let mut rounds = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < end {
                    sender.send_to(b"hello", (target, 80)).unwrap();
                }
            });
            while Instant::now() < end {
                // Somebody has changed a rule, so that all are replaced.
                output_in_host(&["flush", "chain", "inet", "ferry", "postrouting"]);
                fabric.mend().unwrap();
                rounds += 1;
            }
        });
        assert!(rounds > 3);
        assert_eq!(heard(&socket), None);
    });
}

fn output_in_host(arguments: &[&str]) {
    let done = std::process::Command::new("nft").args(arguments).status().unwrap();
    assert!(done.success());
}

/// The host forwards for containers; it is no router for others, in neither family.
#[test]
fn the_host_has_not_become_a_router_for_ipv6() {
    World::run(|world| {
        let far = outside_with_ipv6(world);
        let other = namespace::Namespace::create().unwrap();
        let fabric = fabric();
        let id = network(
            &fabric,
            Draft {
                v6: true,
                ..draft("fb-one")
            },
        );
        let (web, endpoint) = join(&fabric, &id);
        assert_eq!(sysctl("ipv6/conf/all/forwarding"), "1");
        world.output(
            "ip",
            &["link", "add", "second0", "type", "veth", "peer", "name", "wire1"],
        );
        world.output("ip", &["link", "set", "second0", "up"]);
        world.output("ip", &["addr", "add", "2001:db8:2::1/64", "dev", "second0", "nodad"]);
        let pid_free = other.fd.try_clone().unwrap();
        move_link(world, "wire1", &pid_free);
        output_in(&other.fd, "sysctl", &["-qw", "net.ipv6.conf.wire1.disable_ipv6=0"]);
        ip(&other.fd, "link set wire1 up");
        ip(&other.fd, "addr add 2001:db8:2::2/64 dev wire1 nodad");
        ip(&other.fd, "-6 route add default via 2001:db8:2::1");
        ip(&far, "-6 route add 2001:db8:2::/64 via 2001:db8:1::1");
        std::thread::sleep(SHORT);
        let there = "2001:db8:2::2".parse::<Ipv6Addr>().unwrap();
        let socket = udp(&other.fd, there, 80);
        udp(&far, "2001:db8:1::2".parse::<Ipv6Addr>().unwrap(), 5555)
            .send_to(b"hello", (there, 80))
            .unwrap();
        assert_eq!(heard(&socket), None);
        // A container gets there.
        udp(&web, endpoint.ip6.unwrap(), 5555)
            .send_to(b"hello", (there, 80))
            .unwrap();
        assert_eq!(heard(&socket).as_deref(), Some("hello"));
    });
}

fn move_link(_world: &World, name: &str, netns: &OwnedFd) {
    use ferry_netlink::route::{Change, LinkId, Request};
    let change = Change {
        netns: Some(netns.as_fd()),
        name: Some(name),
        ..Change::default()
    };
    let mut route = ferry_netlink::Route::open().unwrap();
    route
        .run(&[Request::ChangeLink {
            link: LinkId::Name(name),
            change,
        }])
        .unwrap();
}
