//! The shim's resolver in real namespaces, asked by real libraries, with real servers behind it. Needs root.
#![allow(clippy::unwrap_used)]

mod world;

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferry_dns::From;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use world::{World, addresses, ask, ask_by_tcp, load, server, silent, upstream};

fn zones(world: &World) {
    world.zone(
        "front",
        &[
            ("web", &["172.18.0.2", "fd00::2"], &["www", "all", "0123456789ab"]),
            ("db", &["172.18.0.3"], &["all"]),
        ],
    );
    world.zone("back", &[("cache", &["172.19.0.2"], &[])]);
}

#[test]
fn root_names_of_ours_and_of_others_by_both_transports() {
    World::run(|world| {
        zones(world);
        let asked = upstream("127.0.0.53", [203, 0, 113, 1]);
        world.settings(&[server("127.0.0.53", From::Host)], true);
        world.serve();
        world.inside(|| {
            assert_eq!(addresses(&ask("WWW.", RecordType::A)), ["172.18.0.2"]);
            assert_eq!(addresses(&ask("all.", RecordType::A)), ["172.18.0.2", "172.18.0.3"]);
            assert_eq!(addresses(&ask("cache.back.", RecordType::A)), ["172.19.0.2"]);
            assert_eq!(
                asked.load(Ordering::Relaxed),
                0,
                "names of ours are nobody else's business"
            );
            assert_eq!(addresses(&ask("example.com.", RecordType::A)), ["203.0.113.1"]);
            assert_eq!(addresses(&ask("example.com.", RecordType::A)), ["203.0.113.1"]);
            assert_eq!(asked.load(Ordering::Relaxed), 1, "kept");
            assert_eq!(
                ask("none.example.", RecordType::A).metadata.response_code,
                ResponseCode::NXDomain
            );
            assert!(ask("large.example.", RecordType::TXT).metadata.truncation);
            let answers = ask_by_tcp(&[
                ("large.example.", RecordType::TXT),
                ("web.", RecordType::AAAA),
                ("other.example.", RecordType::A),
            ]);
            assert_eq!(answers[0].answers.len(), 24);
            assert_eq!(addresses(&answers[1]), ["fd00::2"]);
            assert_eq!(addresses(&answers[2]), ["203.0.113.1"]);
        });
        upstream("::1", [203, 0, 113, 6]);
        world.settings(&[server("::1", From::Host)], true);
        world.inside(|| {
            assert_eq!(addresses(&ask("example.com.", RecordType::A)), ["203.0.113.6"]);
            assert_eq!(
                addresses(&ask_by_tcp(&[("example.com.", RecordType::A)])[0]),
                ["203.0.113.6"]
            );
        });
    });
}

#[test]
fn root_busybox_and_glibc_resolve() {
    World::run(|world| {
        zones(world);
        upstream("127.0.0.53", [203, 0, 113, 1]);
        world.settings(&[server("127.0.0.53", From::Host)], true);
        world.serve();
        let output = |command: &str| {
            let output = world.shell(command);
            assert!(output.status.success(), "{command}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        // glibc asks for addresses of a family only where there is one that is not the loopback's.
        output("busybox ip addr add 172.18.0.9/32 dev lo && busybox ip -6 addr add fd00::9/128 dev lo");
        assert!(output("getent ahostsv4 db").contains("172.18.0.3"));
        assert!(output("getent ahostsv6 www").contains("fd00::2"));
        let both = output("getent ahosts web");
        assert!(both.contains("172.18.0.2") && both.contains("fd00::2"), "{both}");
        assert!(output("getent ahostsv4 web.front").contains("172.18.0.2"));
        assert!(output("getent ahostsv4 example.com").contains("203.0.113.1"));
        assert_eq!(
            output("getent hosts 172.18.0.2").split_whitespace().last(),
            Some("web.front")
        );
        let start = Instant::now();
        assert!(!world.shell("getent ahosts none.example").status.success());
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "a name that is not there is known not to be at once"
        );
        let both = output("busybox nslookup web 127.0.0.11");
        assert!(both.contains("172.18.0.2") && both.contains("fd00::2"), "{both}");
        assert!(output("busybox nslookup 172.18.0.3").contains("name = db.front"));
        assert!(output("busybox nslookup -type=a example.com").contains("203.0.113.1"));
    });
}

#[test]
fn root_a_server_of_the_containers_own_on_every_address_and_asked_from_inside() {
    World::run(|world| {
        zones(world);
        let outside = upstream("127.0.0.1", [203, 0, 113, 1]);
        world.settings(&[server("127.0.0.1", From::Container)], true);
        world.serve();
        // As CoreDNS and dnsmasq do, in the container, after its resolver is there.
        let inside = world.inside(|| upstream("0.0.0.0", [203, 0, 113, 2]));
        world.inside(|| {
            assert_eq!(addresses(&ask("example.com.", RecordType::A)), ["203.0.113.2"]);
            assert_eq!(
                addresses(&ask_by_tcp(&[("example.org.", RecordType::A)])[0]),
                ["203.0.113.2"]
            );
            assert_eq!(addresses(&ask("web.", RecordType::A)), ["172.18.0.2"]);
        });
        assert_eq!(
            (inside.load(Ordering::Relaxed), outside.load(Ordering::Relaxed)),
            (2, 0)
        );
        // The other way round, the same address is the host's.
        world.settings(&[server("127.0.0.1", From::Host)], true);
        world.inside(|| assert_eq!(addresses(&ask("example.com.", RecordType::A)), ["203.0.113.1"]));
    });
}

#[test]
fn root_files_that_change_count_from_the_next_question_on() {
    World::run(|world| {
        world.serve();
        world.inside(|| {
            assert_eq!(
                ask("web.", RecordType::A).metadata.response_code,
                ResponseCode::ServFail,
                "no files yet"
            );
        });
        let asked = upstream("127.0.0.53", [203, 0, 113, 1]);
        world.settings(&[server("127.0.0.53", From::Host)], true);
        for number in 0..200 {
            let address = format!("172.18.1.{number}");
            world.zone("front", &[("web", &[&address], &[])]);
            world.inside(|| assert_eq!(addresses(&ask("web.", RecordType::A)), [address]));
        }
        world.zone("front", &[]);
        world.inside(|| assert_eq!(addresses(&ask("web.", RecordType::A)), ["203.0.113.1"]));
        zones(world);
        world.inside(|| assert_eq!(addresses(&ask("web.", RecordType::A)), ["172.18.0.2"]));
        // What is no zone leaves the former one.
        std::fs::write(world.directory.path().join("front"), "nonsense").unwrap();
        world.inside(|| assert_eq!(addresses(&ask("web.", RecordType::A)), ["172.18.0.2"]));
        // Internal from now on: not even what was kept is told.
        let before = asked.load(Ordering::Relaxed);
        world.settings(&[server("127.0.0.53", From::Host)], false);
        world.inside(|| {
            for (name, kind) in [
                ("web.", RecordType::TXT),
                ("example.com.", RecordType::A),
                ("8.8.8.8.in-addr.arpa.", RecordType::PTR),
            ] {
                let code = ask(name, kind).metadata.response_code;
                let own = name == "web.";
                assert_eq!(
                    code,
                    if own {
                        ResponseCode::NoError
                    } else {
                        ResponseCode::ServFail
                    },
                    "{name}"
                );
            }
            let answers = ask_by_tcp(&[("example.com.", RecordType::A)]);
            assert_eq!(answers[0].metadata.response_code, ResponseCode::ServFail);
        });
        assert_eq!(asked.load(Ordering::Relaxed), before);
    });
}

#[test]
fn root_junk_floods_and_idle_connections_leave_it_answering() {
    World::run(|world| {
        zones(world);
        let _dead = silent("127.0.0.61");
        world.settings(&[server("127.0.0.61", From::Host)], true);
        world.serve();
        world.inside(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            let mut seed = 1_u32;
            let mut random = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8
            };
            for number in 0..20_000_usize {
                let mut bytes: Vec<u8> = (0..number % 80).map(|_| random()).collect();
                if number % 2 == 0 {
                    // A question that nobody will answer.
                    bytes = world::query(1, &format!("n{number}.example."), RecordType::A);
                }
                let _ = socket.send(&bytes);
            }
            let mut idle = Vec::new();
            for number in 0..100_usize {
                use std::io::Write as _;
                let mut stream = TcpStream::connect("127.0.0.11:53").unwrap();
                let bytes: Vec<u8> = (0..number).map(|_| random()).collect();
                let _ = stream.write_all(&bytes);
                idle.push(stream);
            }
            // The flood's answers fill its own socket only.
            let start = Instant::now();
            assert_eq!(addresses(&ask("web.", RecordType::A)), ["172.18.0.2"]);
            assert_eq!(addresses(&ask_by_tcp(&[("db.", RecordType::A)])[0]), ["172.18.0.3"]);
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        });
    });
}

#[test]
fn root_a_forwarder_that_asks_back_ends_in_an_error_and_own_names_do_not_notice() {
    World::run(|world| {
        zones(world);
        world.settings(&[server("127.0.0.1", From::Container)], true);
        world.serve();
        world.inside(|| {
            let forwarder = UdpSocket::bind("127.0.0.1:53").unwrap();
            let asked = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&asked);
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                let mut others = Vec::new();
                while let Ok(length) = forwarder.recv(&mut buffer) {
                    // A question that is another to the eye each time, and the same to the world.
                    let number = counter.fetch_add(1, Ordering::Relaxed);
                    for (bit, byte) in buffer[13..21].iter_mut().enumerate() {
                        *byte = if number >> bit & 1 == 0 {
                            byte.to_ascii_lowercase()
                        } else {
                            byte.to_ascii_uppercase()
                        };
                    }
                    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
                    other.send_to(&buffer[..length], "127.0.0.11:53").unwrap();
                    others.push(other);
                }
            });
            let start = Instant::now();
            let asking = std::thread::spawn(move || {
                let code = ask("abcdefgh.example.", RecordType::A).metadata.response_code;
                (code, start.elapsed())
            });
            while !asking.is_finished() {
                assert_eq!(addresses(&ask("web.", RecordType::A)), ["172.18.0.2"]);
                std::thread::sleep(Duration::from_millis(20));
            }
            let (code, time) = asking.join().unwrap();
            assert_eq!(code, ResponseCode::ServFail);
            assert!(time < Duration::from_secs(6), "{time:?}");
            let asked = asked.load(Ordering::Relaxed);
            assert!((100..2000).contains(&asked), "{asked}");
        });
    });
}

#[test]
fn root_its_port_is_its_own_and_the_rest_of_53_is_the_containers() {
    World::run(|world| {
        zones(world);
        world.settings(&[], true);
        world.inside(|| {
            // Before the resolver, too.
            let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _tcp = TcpListener::bind("0.0.0.0:53").unwrap();
        });
        world.serve();
        world.inside(|| {
            let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _tcp = TcpListener::bind("0.0.0.0:53").unwrap();
            assert_eq!(addresses(&ask("web.", RecordType::A)), ["172.18.0.2"]);
        });
    });
}

#[test]
fn root_five_thousand_a_second_with_two_of_three_servers_dead() {
    World::run(|world| {
        let report = load::run(world, Duration::from_secs(3));
        println!("{report:#?}");
        assert_eq!((report.failed, report.own.lost, report.outside.lost), (0, 0, 0));
        let limit = Duration::from_millis(2).max(report.echo.p99 * 3);
        assert!(
            report.own.p99 < limit,
            "{:?}, an echo {:?}",
            report.own.p99,
            report.echo.p99
        );
        // The dead ones cost the first question outside their time, and no other.
        assert!(report.outside.worst < Duration::from_secs(3), "{:?}", report.outside);
        assert!(
            report.outside.median < Duration::from_millis(20),
            "{:?}",
            report.outside
        );
    });
}
