//! Batches against the kernel, read back with `nft`, each test in a network namespace of its own. Needs root, and `nft`.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::process::Command as Program;

use ferry_netlink::nft::{
    AddressType, Base, Batch, ChainKind, Command, CtState, CtStatus, Data, Element, ElementData, Family, Field, Hook,
    Key, NatKind, NatTarget, Nft, Policy, Reject, Set, Statement, Type, Value, Verdict, Watch, priority,
};

fn in_namespace(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        ferry_sys::ns::unshare_network().unwrap();
        work();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn nft(arguments: &[&str]) -> String {
    let output = Program::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    })
}

/// One of everything.
fn everything() -> Batch {
    let mut batch = Batch::replace(Family::Inet, "own", Some("a comment".to_owned()));
    batch.chain("forward", base(ChainKind::Filter, Hook::Forward, priority::FILTER));
    batch.chain("prerouting", base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT));
    batch.chain("postrouting", base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT));
    batch.chain("side", None);
    let set = |name: &str, key: &[Type], data: Option<Data>, interval| Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data,
        interval,
    };
    batch.set(
        set("links", &[Type::Interface], None, false),
        vec![Element::one(Value::Interface("b.c-d".into()))],
    );
    batch.set(
        set("pairs", &[Type::Interface, Type::Interface], None, false),
        vec![Element::of(vec![
            Value::Interface("a".into()),
            Value::Interface("b".into()),
        ])],
    );
    batch.set(
        set("nets", &[Type::Ipv4], None, true),
        vec![
            Element {
                key: vec![Key::Prefix(ip("10.0.0.0"), 8)],
                data: None,
            },
            Element {
                key: vec![Key::Range(
                    Value::Address(ip("192.168.0.5")),
                    Value::Address(ip("192.168.0.9")),
                )],
                data: None,
            },
            Element {
                key: vec![Key::Prefix(ip("240.0.0.0"), 4)],
                data: None,
            },
        ],
    );
    batch.set(
        set("verdicts", &[Type::Protocol, Type::Port], Some(Data::Verdict), true),
        vec![Element {
            key: vec![
                Key::One(Value::Protocol(6)),
                Key::Range(Value::Port(1000), Value::Port(2000)),
            ],
            data: Some(ElementData::Verdict(Verdict::Jump("side".into()))),
        }],
    );
    batch.set(
        set(
            "ports",
            &[Type::Ipv4, Type::Port],
            Some(Data::Values(vec![Type::Ipv4, Type::Port])),
            false,
        ),
        vec![Element {
            key: vec![Key::One(Value::Address(ip("1.2.3.4"))), Key::One(Value::Port(80))],
            data: Some(ElementData::Values(vec![
                Value::Address(ip("172.17.0.2")),
                Value::Port(8080),
            ])),
        }],
    );
    batch.set(
        set("ranges", &[Type::Port], Some(Data::Values(vec![Type::Ipv4])), true),
        vec![
            Element {
                key: vec![Key::Range(Value::Port(10000), Value::Port(20000))],
                data: Some(ElementData::Values(vec![Value::Address(ip("172.17.0.3"))])),
            },
            Element {
                key: vec![Key::Range(Value::Port(20001), Value::Port(65535))],
                data: Some(ElementData::Values(vec![Value::Address(ip("172.17.0.4"))])),
            },
        ],
    );
    let verdict = |verdict| Statement::Verdict(verdict);
    let states = Value::CtState(vec![CtState::Established, CtState::Related]);
    for statements in [
        vec![
            Statement::is(Field::CtState, states),
            Statement::Counter,
            Statement::accept(),
        ],
        vec![
            Statement::is(Field::CtStatus, Value::CtStatus(CtStatus::Dnat)),
            Statement::accept(),
        ],
        vec![
            Statement::is(Field::IifName, Value::Interface("ferry0".into())),
            Statement::accept(),
        ],
        vec![
            Statement::is_not_in(&[Field::OifName], "links"),
            verdict(Verdict::Return),
        ],
        vec![
            Statement::is_in(&[Field::IifName, Field::OifName], "pairs"),
            verdict(Verdict::Goto("side".into())),
        ],
        vec![
            Statement::is_not(Field::IpSaddr, Value::Prefix(ip("172.17.0.0"), 16)),
            Statement::drop(),
        ],
        vec![
            Statement::is(Field::IpSaddr, Value::Prefix(ip("172.17.4.0"), 22)),
            Statement::drop(),
        ],
        vec![
            Statement::is_in(&[Field::IpDaddr], "nets"),
            Statement::Reject(Reject::PortUnreachable),
        ],
        vec![
            Statement::is(Field::Ip6Daddr, Value::Address(ip("fd00::1"))),
            Statement::Reject(Reject::AdminProhibited),
        ],
        vec![
            Statement::is(Field::TcpDport, Value::Ports(80, 90)),
            Statement::Reject(Reject::TcpReset),
        ],
        vec![
            Statement::is(Field::UdpDport, Value::Port(53)),
            Statement::SetMark(0x10),
            verdict(Verdict::Continue),
        ],
        vec![Statement::VerdictMap {
            fields: vec![Field::L4Proto, Field::ThDport],
            map: "verdicts".into(),
        }],
        vec![
            Statement::is(Field::FibDaddrType, Value::AddressType(AddressType::Local)),
            Statement::drop(),
        ],
    ] {
        batch.rule("forward", statements);
    }
    let to = |address, port| Statement::Nat {
        kind: NatKind::Dnat,
        target: NatTarget::Address {
            address: ip(address),
            port,
        },
    };
    let map = |fields: &[Field], map: &str, port| {
        let target = NatTarget::Map {
            fields: fields.to_vec(),
            map: map.into(),
            family: Family::Ip,
            port,
        };
        Statement::Nat {
            kind: NatKind::Dnat,
            target,
        }
    };
    batch.rule(
        "prerouting",
        vec![
            Statement::is(Field::TcpDport, Value::Port(8080)),
            to("172.17.0.2", Some(80)),
        ],
    );
    batch.rule(
        "prerouting",
        vec![Statement::is(Field::UdpDport, Value::Port(8080)), to("fd00::2", None)],
    );
    batch.rule(
        "prerouting",
        vec![
            Statement::is(Field::L4Proto, Value::Protocol(6)),
            map(&[Field::IpDaddr, Field::ThDport], "ports", true),
        ],
    );
    batch.rule("prerouting", vec![map(&[Field::UdpDport], "ranges", false)]);
    batch.rule(
        "postrouting",
        vec![
            Statement::is(Field::OifName, Value::Interface("eth0".into())),
            Statement::Masquerade,
        ],
    );
    batch
}

#[test]
fn a_batch_prints_in_nfts_language_and_nft_reads_the_same_back() {
    in_namespace(|| {
        let batch = everything();
        Nft::open().unwrap().commit(&batch).unwrap();
        let listed = nft(&["list", "ruleset"]);
        println!("{listed}");
        for expected in [
            "table inet own {",
            "comment \"a comment\"",
            "type filter hook forward priority filter; policy accept;",
            "type nat hook prerouting priority dstnat; policy accept;",
            "elements = { \"b.c-d\" }",
            "elements = { \"a\" . \"b\" }",
            "elements = { 10.0.0.0/8, 192.168.0.5-192.168.0.9,",
            "240.0.0.0/4 }",
            "elements = { tcp . 1000-2000 : jump side }",
            "elements = { 1.2.3.4 . 80 : 172.17.0.2 . 8080 }",
            "elements = { 10000-20000 : 172.17.0.3, 20001-65535 : 172.17.0.4 }",
            "ct state established,related counter packets 0 bytes 0 accept",
            "ct status dnat accept",
            "iifname \"ferry0\" accept",
            "oifname != @links return",
            "iifname . oifname @pairs goto side",
            "ip saddr != 172.17.0.0/16 drop",
            "ip saddr 172.17.4.0/22 drop",
            "ip daddr @nets reject",
            "ip6 daddr fd00::1 reject with icmpx admin-prohibited",
            "tcp dport 80-90 reject with tcp reset",
            "udp dport 53 meta mark set 0x00000010 continue",
            "meta l4proto . th dport vmap @verdicts",
            "fib daddr type local drop",
            "tcp dport 8080 dnat ip to 172.17.0.2:80",
            "udp dport 8080 dnat ip6 to fd00::2",
            "dnat ip to ip daddr . tcp dport map @ports",
            "dnat ip to udp dport map @ranges",
            "oifname \"eth0\" masquerade",
        ] {
            assert!(listed.contains(expected), "{expected}");
        }
    });
}

#[test]
fn what_a_batch_prints_nft_takes() {
    in_namespace(|| {
        let text = everything().to_string();
        let mut child = Program::new("nft")
            .args(["-f", "-"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
        let theirs = nft(&["list", "ruleset"]);
        nft(&["flush", "ruleset"]);
        Nft::open().unwrap().commit(&everything()).unwrap();
        assert_eq!(theirs, nft(&["list", "ruleset"]));
    });
}

#[test]
fn a_batch_the_kernel_refuses_changes_nothing_and_names_the_command() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let generation = nft.generation().unwrap();
        let mut batch = Batch::replace(Family::Inet, "t", None);
        batch.chain("c", None);
        batch.rule("nothere", vec![Statement::accept()]);
        batch.chain("d", None);
        let error = nft.commit(&batch).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not change the firewall: add rule inet t nothere accept"
        );
        assert!(error.is_gone());
        assert_eq!(nft.table(Family::Inet, "t").unwrap(), None);
        assert_eq!(nft.generation().unwrap(), generation);
        batch.commands.remove(4);
        nft.commit(&batch).unwrap();
        assert_eq!(nft.generation().unwrap(), generation + 1);
    });
}

#[test]
fn a_table_and_its_chains_and_rules_can_be_asked_for() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        nft.commit(&everything()).unwrap();
        let mut other = Batch::replace(Family::Inet, "other", None);
        other.chain("c", None).rule("c", vec![Statement::drop()]);
        nft.commit(&other).unwrap();
        let table = nft.table(Family::Inet, "own").unwrap().unwrap();
        assert_eq!(table.comment.as_deref(), Some("a comment"));
        assert_eq!(nft.table(Family::Ip, "own").unwrap(), None);
        let names: Vec<_> = nft
            .chains(Family::Inet, "own")
            .unwrap()
            .into_iter()
            .map(|chain| chain.name)
            .collect();
        assert_eq!(names, ["forward", "prerouting", "postrouting", "side"]);
        let rules = nft.rules(Family::Inet, "own").unwrap();
        assert_eq!(rules.len(), 18);
        assert_eq!(nft.rules(Family::Inet, "other").unwrap().len(), 1);
        let mut change = Batch::new(Family::Inet, "own");
        change.push(Command::DeleteRule {
            chain: rules[0].chain.clone(),
            handle: rules[0].handle,
        });
        change.push(Command::FlushChain("postrouting".into()));
        nft.commit(&change).unwrap();
        assert_eq!(nft.rules(Family::Inet, "own").unwrap().len(), 16);
        assert!(nft.chains(Family::Inet, "nothere").unwrap().is_empty());
    });
}

#[test]
fn elements_come_and_go_by_the_thousand() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let set = Set {
            name: "s".into(),
            key: vec![Type::Ipv4, Type::Port],
            data: None,
            interval: false,
        };
        let all: Vec<_> = (0..10_000_u32)
            .map(|n| {
                Element::of(vec![
                    Value::Address(IpAddr::from((0x0a00_0000 + n).to_be_bytes())),
                    Value::Port(80),
                ])
            })
            .collect();
        let mut batch = Batch::replace(Family::Ip, "t", None);
        batch.set(set, all.clone());
        let start = std::time::Instant::now();
        nft.commit(&batch).unwrap();
        println!("10,000 elements: {:?}", start.elapsed());
        let mut batch = Batch::new(Family::Ip, "t");
        batch.push(Command::DeleteElements {
            set: "s".into(),
            interval: false,
            elements: all[1..].to_vec(),
        });
        nft.commit(&batch).unwrap();
        assert!(self::nft(&["list", "set", "ip", "t", "s"]).contains("elements = { 10.0.0.0 . 80 }"));
    });
}

#[test]
fn a_command_without_elements_is_no_command() {
    in_namespace(|| {
        let nothing = Command::AddElements {
            set: "s".into(),
            interval: false,
            elements: Vec::new(),
        };
        let mut nft = Nft::open().unwrap();
        let mut batch = Batch::new(Family::Ip, "t");
        nft.commit(batch.push(nothing.clone())).unwrap();
        assert_eq!(nft.table(Family::Ip, "t").unwrap(), None);
        nft.commit(Batch::replace(Family::Ip, "t", None).push(nothing)).unwrap();
        assert!(nft.table(Family::Ip, "t").unwrap().is_some());
    });
}

#[test]
fn names_and_comments_that_do_not_fit_are_refused() {
    in_namespace(|| {
        let mut nft = Nft::open().unwrap();
        let long = "x".repeat(300);
        let mut bad = vec![
            Batch::replace(Family::Ip, "", None),
            Batch::replace(Family::Ip, "t", Some(long.clone())),
        ];
        let mut batch = Batch::replace(Family::Ip, "t", None);
        batch.chain(&long, None);
        bad.push(batch);
        let mut batch = Batch::replace(Family::Ip, "t", None);
        batch.chain("c", None).rule(
            "c",
            vec![Statement::is(
                Field::IifName,
                Value::Interface("sixteen-letters-".into()),
            )],
        );
        bad.push(batch);
        let mut batch = Batch::replace(Family::Ip, "t", None);
        batch
            .chain("c", None)
            .rule("c", vec![Statement::is_in(&[Field::IifName; 5], "s")]);
        bad.push(batch);
        for batch in bad {
            assert!(matches!(nft.commit(&batch), Err(ferry_netlink::Error::TooLong(_))));
        }
    });
}

#[test]
fn a_watch_and_the_shape_tell_a_changed_table_from_others() {
    in_namespace(|| {
        let mut own = Nft::open().unwrap();
        let mut watch = Watch::open(Family::Inet, "own").unwrap();
        assert!(!watch.changed().unwrap());
        own.commit(&everything()).unwrap();
        assert!(watch.changed().unwrap());
        assert!(!watch.changed().unwrap());
        let shape = own.shape(Family::Inet, "own").unwrap().unwrap();
        nft(&["add", "table", "inet", "other"]);
        nft(&["add", "table", "ip", "own"]);
        assert!(!watch.changed().unwrap());
        assert_eq!(own.shape(Family::Inet, "own").unwrap().unwrap(), shape);
        for change in [
            ["add", "element", "inet", "own", "links", "{ x }"].as_slice(),
            &["flush", "set", "inet", "own", "links"],
            &["add", "rule", "inet", "own", "side", "drop"],
            &["flush", "chain", "inet", "own", "forward"],
            &["delete", "chain", "inet", "own", "postrouting"],
        ] {
            let before = own.shape(Family::Inet, "own").unwrap();
            nft(change);
            assert!(watch.changed().unwrap(), "{change:?}");
            assert_ne!(own.shape(Family::Inet, "own").unwrap(), before, "{change:?}");
        }
        nft(&["flush", "ruleset"]);
        assert!(watch.changed().unwrap());
        assert_eq!(own.shape(Family::Inet, "own").unwrap(), None);
    });
}
