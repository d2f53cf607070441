//! Maps as published ports need them: what the kernel finds in them, by traffic. Each test in a network namespace of its
//! own. Needs root, and `nft`.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use ferry_netlink::nft::{
    Base, Batch, ChainKind, Command, Data, Element, ElementData, Family, Field, Hook, Key, NatKind, NatTarget, Nft,
    Policy, Set, Statement, Type, Value, Verdict, priority,
};

fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        let status = Program::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(status.success());
        work();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn nft(command: &str) -> String {
    let output = Program::new("nft").arg(command).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// protocol . addresses . ports : address (. port)
fn element(addresses: (&str, u8), ports: (u16, u16), to: &str, port: Option<u16>) -> Element {
    let mut values = vec![Value::Address(ip(to))];
    values.extend(port.map(Value::Port));
    Element {
        key: vec![
            Key::One(Value::Protocol(17)),
            Key::Prefix(ip(addresses.0), addresses.1),
            Key::Range(Value::Port(ports.0), Value::Port(ports.1)),
        ],
        data: Some(ElementData::Values(values)),
    }
}

const FIELDS: [Field; 3] = [Field::L4Proto, Field::IpDaddr, Field::ThDport];

fn map(name: &str, family: Family, port: bool) -> Set {
    let address = if family == Family::Ip { Type::Ipv4 } else { Type::Ipv6 };
    let mut values = vec![address];
    values.extend(port.then_some(Type::Port));
    Set {
        name: name.to_owned(),
        key: vec![Type::Protocol, address, Type::Port],
        data: Some(Data::Values(values)),
        interval: true,
    }
}

fn output(kind: ChainKind) -> Option<Base> {
    Some(Base {
        kind,
        hook: Hook::Output,
        priority: priority::DSTNAT,
        policy: Policy::Accept,
    })
}

/// A table with `ranges` (address alone) and `ports` (address and port), which what is sent here goes through.
fn table(ranges: Vec<Element>, ports: Vec<Element>) -> Batch {
    let mut batch = Batch::replace(Family::Inet, "t", None);
    batch.set(map("ranges", Family::Ip, false), ranges);
    batch.set(map("ports", Family::Ip, true), ports);
    batch.chain("c", output(ChainKind::Nat));
    for (map, port) in [("ports", true), ("ranges", false)] {
        let target = NatTarget::Map {
            fields: FIELDS.to_vec(),
            map: map.into(),
            family: Family::Ip,
            port,
        };
        let kind = NatKind::Dnat;
        batch.rule("c", vec![Statement::Nat { kind, target }]);
    }
    batch
}

fn add(set: &str, elements: Vec<Element>) -> Command {
    Command::AddElements {
        set: set.into(),
        interval: true,
        elements,
    }
}

fn delete(set: &str, elements: Vec<Element>) -> Command {
    Command::DeleteElements {
        set: set.into(),
        interval: true,
        elements,
    }
}

struct Servers(Vec<UdpSocket>);

impl Servers {
    fn at(addresses: &[&str]) -> Self {
        let bind = |address: &&str| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self(addresses.iter().map(bind).collect())
    }

    /// Who gets a packet sent to the address, by a client of its own; on loopback it is there when sending returns.
    fn reached(&self, to: &str) -> Option<SocketAddr> {
        let to: SocketAddr = to.parse().unwrap();
        let client = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        client.send_to(b"x", to).unwrap();
        for _ in 0..20 {
            if let Some(got) = self.0.iter().find(|socket| socket.recv(&mut [0]).is_ok()) {
                return Some(got.local_addr().unwrap());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }
}

#[test]
fn the_kernel_finds_ranges_prefixes_and_any_address() {
    in_namespace(|| {
        let servers = Servers::at(&[
            "127.0.0.5:8080",
            "127.0.0.6:10000",
            "127.0.0.6:15000",
            "127.0.0.6:20000",
            "127.0.0.7:53",
        ]);
        let mut own = Nft::open().unwrap();
        let ranges = vec![element(("0.0.0.0", 0), (10_000, 20_000), "127.0.0.6", None)];
        let ports = vec![
            element(("0.0.0.0", 0), (80, 80), "127.0.0.5", Some(8080)),
            element(("127.0.1.0", 24), (81, 90), "127.0.0.5", Some(8080)),
            element(("127.0.0.9", 32), (1, 79), "127.0.0.7", Some(53)),
            element(("127.0.0.9", 32), (65_535, 65_535), "127.0.0.7", Some(53)),
        ];
        own.commit(&table(ranges.clone(), ports)).unwrap();
        println!("{}", nft("list table inet t"));
        for (to, expected) in [
            ("127.0.0.9:80", Some("127.0.0.5:8080")),
            ("127.255.255.254:80", Some("127.0.0.5:8080")),
            ("127.0.1.255:81", Some("127.0.0.5:8080")),
            ("127.0.1.0:90", Some("127.0.0.5:8080")),
            ("127.0.1.5:91", None),
            ("127.0.2.0:85", None),
            ("127.0.0.9:1", Some("127.0.0.7:53")),
            ("127.0.0.9:79", Some("127.0.0.7:53")),
            ("127.0.0.9:65535", Some("127.0.0.7:53")),
            ("127.0.0.8:79", None),
            ("127.0.0.9:10000", Some("127.0.0.6:10000")),
            ("127.0.0.9:15000", Some("127.0.0.6:15000")),
            ("127.0.0.9:20000", Some("127.0.0.6:20000")),
            ("127.0.0.9:9999", None),
            ("127.0.0.9:20001", None),
        ] {
            assert_eq!(servers.reached(to), expected.map(|it| it.parse().unwrap()), "{to}");
        }
        // What is inside of another one, the same map cannot have; nor what overlaps.
        for overlap in [
            element(("127.0.0.0", 8), (10_000, 10_000), "127.0.0.7", None),
            element(("0.0.0.0", 0), (19_000, 21_000), "127.0.0.7", None),
        ] {
            let mut batch = Batch::new(Family::Inet, "t");
            batch.push(add("ranges", vec![overlap]));
            let error = own.commit(&batch).unwrap_err();
            println!("{error}: {:?}", error.errno());
        }
        // The same again is no error, for another place it is.
        let mut batch = Batch::new(Family::Inet, "t");
        own.commit(batch.push(add("ranges", ranges))).unwrap();
    });
}

#[test]
fn elements_are_added_replaced_and_removed_one_by_one() {
    in_namespace(|| {
        let servers = Servers::at(&["127.0.0.5:80", "127.0.0.6:80", "127.0.0.6:81"]);
        let mut own = Nft::open().unwrap();
        own.commit(&table(Vec::new(), Vec::new())).unwrap();
        let mut change = |commands: Vec<Command>| {
            let mut batch = Batch::new(Family::Inet, "t");
            batch.commands = commands;
            own.commit(&batch)
        };
        let any = ("0.0.0.0", 0);
        let first = || element(any, (8080, 8080), "127.0.0.5", Some(80));
        let second = || element(any, (8081, 8081), "127.0.0.6", Some(81));
        change(vec![add("ports", vec![first(), second()])]).unwrap();
        assert_eq!(servers.reached("127.0.0.9:8080").unwrap().to_string(), "127.0.0.5:80");
        assert_eq!(servers.reached("127.0.0.9:8081").unwrap().to_string(), "127.0.0.6:81");
        // Removed and added in one batch: packets see the one or the other.
        let moved = || element(any, (8080, 8080), "127.0.0.6", Some(80));
        change(vec![delete("ports", vec![first()]), add("ports", vec![moved()])]).unwrap();
        assert_eq!(servers.reached("127.0.0.9:8080").unwrap().to_string(), "127.0.0.6:80");
        // A key alone is enough to remove an element.
        let key = Element { data: None, ..moved() };
        change(vec![delete("ports", vec![key])]).unwrap();
        assert_eq!(servers.reached("127.0.0.9:8080"), None);
        assert_eq!(servers.reached("127.0.0.9:8081").unwrap().to_string(), "127.0.0.6:81");
        let gone = change(vec![delete("ports", vec![moved()])]).unwrap_err();
        assert!(gone.is_gone(), "{gone}");
        // A range is removed as a whole.
        let range = element(any, (1000, 2000), "127.0.0.6", None);
        change(vec![add("ranges", vec![range.clone()])]).unwrap();
        let part = element(any, (1001, 1500), "127.0.0.6", None);
        let outside = element(any, (2001, 2001), "127.0.0.6", None);
        assert!(change(vec![delete("ranges", vec![outside])]).is_err());
        match change(vec![delete("ranges", vec![part])]) {
            Ok(()) => println!("this kernel removes the element around what is named"),
            Err(_) => change(vec![delete("ranges", vec![range])]).unwrap(),
        }
        assert!(nft("list map inet t ranges").contains("flags interval\n\t}"));
        // A batch that fails changes nothing.
        let failing = vec![add("ports", vec![first()]), delete("ranges", vec![first()])];
        assert!(change(failing).is_err());
        assert_eq!(servers.reached("127.0.0.9:8080"), None);
    });
}

#[test]
fn ten_thousand_published_ports_are_one_batch() {
    in_namespace(|| {
        let servers = Servers::at(&["127.0.0.5:80"]);
        let mut own = Nft::open().unwrap();
        let one = |port: u16| element(("0.0.0.0", 0), (port, port), "127.0.0.5", Some(80));
        let all: Vec<_> = (10_000..20_000).map(one).collect();
        let start = Instant::now();
        own.commit(&table(Vec::new(), all.clone())).unwrap();
        println!("10,000 elements with ranges: {:?}", start.elapsed());
        for to in ["127.0.0.9:10000", "127.0.0.9:14711", "127.0.0.9:19999"] {
            assert!(servers.reached(to).is_some(), "{to}");
        }
        assert_eq!(servers.reached("127.0.0.9:20000"), None);
        let start = Instant::now();
        let mut batch = Batch::new(Family::Inet, "t");
        own.commit(batch.push(delete("ports", vec![one(14_711)]))).unwrap();
        println!("one removed of 10,000: {:?}", start.elapsed());
        assert_eq!(servers.reached("127.0.0.9:14711"), None);
        let rest = all.into_iter().filter(|it| *it != one(14_711)).collect();
        let start = Instant::now();
        let mut batch = Batch::new(Family::Inet, "t");
        own.commit(batch.push(delete("ports", rest))).unwrap();
        println!("9,999 removed: {:?}", start.elapsed());
        assert!(!nft("list map inet t ports").contains("elements"));
    });
}

/// A hash map, without ranges, of IPv6: the longest elements, in a batch larger than any socket's queue is at first.
#[test]
fn a_batch_larger_than_the_queue_is_sent_and_one_without_bounds_is_not() {
    in_namespace(|| {
        let mut own = Nft::open().unwrap();
        let set = Set {
            interval: false,
            ..map("m", Family::Ip6, true)
        };
        let one = |port: u16| Element {
            key: vec![
                Key::One(Value::Protocol(6)),
                Key::One(Value::Address(ip("fd00::1"))),
                Key::One(Value::Port(port)),
            ],
            data: Some(ElementData::Values(vec![
                Value::Address(ip("fd00::2")),
                Value::Port(port),
            ])),
        };
        let all: Vec<_> = (0..65_535).map(one).collect();
        let mut batch = Batch::replace(Family::Inet, "t", None);
        batch.set(set, all.clone());
        let start = Instant::now();
        own.commit(&batch).unwrap();
        println!("65,535 elements: {:?}", start.elapsed());
        for _ in 0..9 {
            batch.push(Command::AddElements {
                set: "m".into(),
                interval: false,
                elements: all.clone(),
            });
        }
        let error = own.commit(&batch).unwrap_err();
        assert!(matches!(error, ferry_netlink::Error::TooLong(_)), "{error}");
    });
}

#[test]
fn links_are_found_by_the_start_of_their_names_in_sets_and_rules() {
    in_namespace(|| {
        let servers = Servers::at(&["127.0.0.1:1000"]);
        let mut own = Nft::open().unwrap();
        let prefix = |text: &str| Element::one(Value::InterfacePrefix(text.into()));
        let name = |text: &str| Element::one(Value::Interface(text.into()));
        for (elements, drops) in [
            (vec![prefix("l"), name("eth0")], true),
            (vec![prefix("lo")], true),
            (vec![prefix("fb-"), name("lo")], true),
            (vec![prefix("fb-"), prefix("lon"), name("l"), name("lo0")], false),
            (vec![prefix("k"), prefix("m")], false),
        ] {
            for pairs in [false, true] {
                let interface = Type::Interface;
                let (key, fields) = if pairs {
                    (vec![interface, interface], vec![Field::IifName, Field::IifName])
                } else {
                    (vec![interface], vec![Field::IifName])
                };
                let set = Set {
                    name: "links".into(),
                    key,
                    data: None,
                    interval: true,
                };
                let elements = elements.iter().map(|element| Element {
                    key: fields.iter().map(|_| element.key[0].clone()).collect(),
                    data: None,
                });
                let mut batch = Batch::replace(Family::Inet, "t", None);
                batch.set(set, elements.collect());
                let base = Base {
                    kind: ChainKind::Filter,
                    hook: Hook::Input,
                    priority: 0,
                    policy: Policy::Accept,
                };
                batch.chain("c", Some(base));
                batch.rule(
                    "c",
                    vec![Statement::is_in(&fields, "links"), Statement::Verdict(Verdict::Drop)],
                );
                own.commit(&batch).unwrap();
                let listed = nft("list table inet t");
                assert_eq!(servers.reached("127.0.0.1:1000").is_none(), drops, "{listed}");
            }
        }
        for (text, drops) in [("l", true), ("lo", true), ("lo0", false), ("fb-", false)] {
            let mut batch = Batch::replace(Family::Inet, "t", None);
            let base = Base {
                kind: ChainKind::Filter,
                hook: Hook::Input,
                priority: 0,
                policy: Policy::Accept,
            };
            batch.chain("c", Some(base));
            let link = Value::InterfacePrefix(text.into());
            batch.rule("c", vec![Statement::is(Field::IifName, link), Statement::drop()]);
            own.commit(&batch).unwrap();
            assert_eq!(servers.reached("127.0.0.1:1000").is_none(), drops, "{text}");
        }
    });
}
