//! The resolver as its callers see it: packets and times in, actions out.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use ferry_dns::{Action, Endpoint, From, Options, Resolver, Server, TTL, Transport, View, Zone};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

/// Every number once, so that two questions never have the same by chance.
fn random() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

struct World {
    resolver: Resolver<u32>,
    now: Instant,
    actions: Vec<Action<u32>>,
}

#[derive(Debug, Clone)]
struct Asked {
    exchange: u64,
    server: IpAddr,
    transport: Transport,
    bytes: Vec<u8>,
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn zone(lines: &[(&str, &str, &str)]) -> Rc<Zone> {
    let endpoints: Vec<_> = lines
        .iter()
        .map(|(name, addresses, aliases)| Endpoint {
            name: (*name).to_owned(),
            addresses: addresses.split_whitespace().map(address).collect(),
            aliases: aliases.split_whitespace().map(str::to_owned).collect(),
        })
        .collect();
    Rc::new(Zone::parse(&Zone::write(&endpoints)).unwrap())
}

fn servers(count: u8) -> Vec<Server> {
    (1..=count)
        .map(|number| Server::new(IpAddr::from([192, 0, 2, number]), From::Host))
        .collect()
}

impl World {
    /// Two networks, and so many servers.
    fn new(count: u8) -> Self {
        Self::with(count, true, Options::default())
    }

    fn with(count: u8, forward: bool, options: Options) -> Self {
        let mut resolver = Resolver::new(random);
        resolver.set_zones(vec![
            View {
                network: "front".into(),
                zone: zone(&[
                    ("web", "172.18.0.2", "0123456789ab www all"),
                    ("db", "172.18.0.3 fd00::3", "all"),
                ]),
            },
            View {
                network: "back.end".into(),
                zone: zone(&[
                    ("web", "172.19.0.2 fd01::2", "0123456789ab"),
                    ("hidden", "172.19.0.9", ""),
                ]),
            },
            View {
                network: String::new(),
                zone: zone(&[("linked", "172.18.0.3", "")]),
            },
        ]);
        resolver.set_servers(&servers(count), forward, options, &mut Vec::new());
        Self {
            resolver,
            now: Instant::now(),
            actions: Vec::new(),
        }
    }

    fn send(&mut self, client: u32, transport: Transport, bytes: &[u8]) {
        self.resolver
            .query(self.now, transport, client, bytes, &mut self.actions);
    }

    fn ask(&mut self, client: u32, name: &str, kind: RecordType) {
        self.send(client, Transport::Udp, &query(7, name, kind).to_vec().unwrap());
    }

    /// The one answer that there is now.
    fn reply(&mut self) -> Message {
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1);
        replies.remove(0).1
    }

    fn replies(&mut self) -> Vec<(u32, Message)> {
        let mut replies = Vec::new();
        self.actions.retain(|action| match action {
            Action::Reply { client, bytes } => {
                replies.push((*client, Message::from_vec(bytes).unwrap()));
                false
            }
            _ => true,
        });
        replies
    }

    fn asked(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        self.actions.retain(|action| match action {
            Action::Ask {
                exchange,
                server,
                transport,
                bytes,
            } => {
                asked.push(Asked {
                    exchange: *exchange,
                    server: server.address,
                    transport: *transport,
                    bytes: bytes.clone(),
                });
                false
            }
            _ => true,
        });
        asked
    }

    fn closed(&mut self) -> Vec<u64> {
        let mut closed = Vec::new();
        self.actions.retain(|action| match action {
            Action::Close { exchange } => {
                closed.push(*exchange);
                false
            }
            _ => true,
        });
        closed
    }

    fn answer(&mut self, asked: &Asked, change: impl FnOnce(&mut Message)) {
        let bytes = answer(&asked.bytes, change);
        self.resolver
            .answer(self.now, asked.exchange, &bytes, &mut self.actions);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.resolver.expire(self.now, &mut self.actions);
    }
}

fn query(id: u16, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// What a server says to a query: 198.51.100.1 for 60 seconds, unless changed.
fn answer(query: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    message.metadata.recursion_available = true;
    let name = message.queries[0].name().clone();
    message.add_answer(Record::from_rdata(name, 60, RData::A(A::new(198, 51, 100, 1))));
    change(&mut message);
    message.to_vec().unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::PTR(name) => name.to_string(),
            data => data.ip_addr().unwrap().to_string(),
        })
        .collect()
}

#[test]
fn own_names_are_answered_at_once_and_never_asked_for_outside() {
    let mut world = World::new(2);
    let table: &[(&str, RecordType, &[&str])] = &[
        ("web.", RecordType::A, &["172.18.0.2"]),
        ("WeB.", RecordType::A, &["172.18.0.2"]),
        ("www.", RecordType::A, &["172.18.0.2"]),
        ("0123456789AB.", RecordType::A, &["172.18.0.2"]),
        ("web.front.", RecordType::A, &["172.18.0.2"]),
        ("web.back.end.", RecordType::A, &["172.19.0.2"]),
        ("web.Back.END.", RecordType::AAAA, &["fd01::2"]),
        // The first network that has such an address.
        ("web.", RecordType::AAAA, &["fd01::2"]),
        ("hidden.", RecordType::A, &["172.19.0.9"]),
        ("linked.", RecordType::A, &["172.18.0.3"]),
        // Known, and has none: an empty answer, so that the client does not look elsewhere.
        ("hidden.", RecordType::AAAA, &[]),
        ("www.front.", RecordType::AAAA, &[]),
        ("db.", RecordType::MX, &[]),
        ("db.", RecordType::TXT, &[]),
        ("db.", RecordType::HTTPS, &[]),
        ("db.", RecordType::ANY, &["172.18.0.3", "fd00::3"]),
        ("2.0.18.172.in-addr.arpa.", RecordType::PTR, &["web.front."]),
        ("9.0.19.172.in-addr.arpa.", RecordType::PTR, &["hidden.back.end."]),
        (
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa.",
            RecordType::PTR,
            &["web.back.end."],
        ),
    ];
    for (name, kind, expected) in table {
        world.ask(1, name, *kind);
        let reply = world.reply();
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name} {kind}");
        assert_eq!(reply.metadata.id, 7);
        assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
        assert_eq!(&reply.queries[0].name().to_ascii(), name);
        let mut found = addresses(&reply);
        found.sort();
        assert_eq!(found, *expected, "{name} {kind}");
        assert!(reply.answers.iter().all(|record| record.ttl == TTL));
        assert!(world.asked().is_empty(), "{name} {kind}");
    }
    for name in [
        "nobody.",
        "web.elsewhere.",
        "front.",
        "linked.front.",
        "hidden.front.",
        "web.end.",
        "x.web.",
    ] {
        world.ask(1, name, RecordType::A);
        assert_eq!(world.asked().len(), 1, "{name}");
    }
    for name in ["18.172.in-addr.arpa.", "8.8.8.8.in-addr.arpa."] {
        world.ask(1, name, RecordType::PTR);
        assert_eq!(world.asked().len(), 1, "{name}");
    }
}

#[test]
fn several_containers_of_a_name_come_first_equally_often() {
    let mut world = World::new(0);
    let mut first = std::collections::BTreeMap::new();
    for _ in 0..100 {
        // A dual-stack client's two questions.
        world.ask(1, "all.", RecordType::A);
        let found = addresses(&world.reply());
        assert_eq!(found.len(), 2);
        *first.entry(found[0].clone()).or_insert(0) += 1;
        world.ask(1, "all.", RecordType::AAAA);
        world.reply();
    }
    assert!(
        first.len() == 2 && first.values().all(|&count| count >= 30),
        "{first:?}"
    );
}

#[test]
fn answers_are_as_large_as_the_client_takes() {
    let mut world = World::new(0);
    let many: Vec<_> = (0..100)
        .map(|number| (format!("c{number}"), format!("10.0.0.{number} fd00::{number}")))
        .collect();
    let lines: Vec<_> = many
        .iter()
        .map(|(name, address)| (name.as_str(), address.as_str(), "all"))
        .collect();
    let network = "n".to_owned();
    world.resolver.set_zones(vec![View {
        network,
        zone: zone(&lines),
    }]);
    let sized = |kind, size: Option<u16>| {
        let mut message = query(1, "all.", kind);
        if let Some(size) = size {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    };
    // 12 of header, 9 of question, 11 of EDNS, 16 or 28 an address.
    let table = [
        (RecordType::A, None, Transport::Udp, 30),
        (RecordType::AAAA, None, Transport::Udp, 17),
        (RecordType::A, Some(100), Transport::Udp, 30),
        (RecordType::A, Some(1232), Transport::Udp, 75),
        (RecordType::AAAA, Some(1232), Transport::Udp, 42),
        (RecordType::A, Some(4096), Transport::Udp, 100),
        (RecordType::A, None, Transport::Tcp, 100),
        (RecordType::ANY, Some(512), Transport::Tcp, 200),
    ];
    for (kind, size, transport, expected) in table {
        world.send(1, transport, &sized(kind, size));
        let Some(Action::Reply { bytes, .. }) = world.actions.pop() else {
            panic!("no answer")
        };
        let limit = if transport == Transport::Udp {
            size.unwrap_or(0).max(512)
        } else {
            u16::MAX
        };
        assert!(bytes.len() <= usize::from(limit), "{} of {limit}", bytes.len());
        let reply = Message::from_vec(&bytes).unwrap();
        let whole = if kind == RecordType::ANY { 200 } else { 100 };
        assert_eq!(reply.metadata.truncation, expected < whole, "{kind} {size:?}");
        assert_eq!(reply.edns.is_some(), size.is_some());
        // A record or two less than could be is no harm: the client asks again by TCP.
        assert!(
            (expected - 14..=expected).contains(&reply.answers.len()),
            "{kind} {size:?}: {}",
            reply.answers.len()
        );
    }
}

#[test]
fn an_internal_network_asks_nobody() {
    let mut world = World::with(2, false, Options::default());
    for (name, kind) in [
        ("example.com.", RecordType::A),
        ("x.", RecordType::TXT),
        ("8.8.8.8.in-addr.arpa.", RecordType::PTR),
    ] {
        world.ask(1, name, kind);
        assert_eq!(world.reply().metadata.response_code, ResponseCode::ServFail);
        assert!(world.asked().is_empty());
    }
    assert_eq!(world.resolver.next_deadline(), None);
}

#[test]
fn with_ndots_names_without_a_dot_stay_inside() {
    let options = Options {
        ndots: Some(2),
        ..Options::default()
    };
    let mut world = World::with(1, true, options);
    world.ask(1, "nobody.", RecordType::A);
    let reply = world.reply();
    assert_eq!(
        (reply.metadata.response_code, reply.answers.len()),
        (ResponseCode::NoError, 0)
    );
    for (name, kind) in [("nobody.", RecordType::TXT), ("nobody.example.", RecordType::A)] {
        world.ask(1, name, kind);
        assert_eq!(world.asked().len(), 1);
    }
}

#[test]
fn an_answer_reaches_all_who_asked_the_same_with_their_own_numbers() {
    let mut world = World::new(1);
    for client in 0..3 {
        let bytes = query(100 + u16::try_from(client).unwrap(), "example.com.", RecordType::A)
            .to_vec()
            .unwrap();
        world.send(client, Transport::Udp, &bytes);
        // Its client's library asks again.
        world.send(client, Transport::Udp, &bytes);
    }
    let asked = world.asked();
    assert_eq!(asked.len(), 1);
    assert_ne!(asked[0].bytes[..2], [0, 100], "the client's number is not used outside");
    world.answer(&asked[0], |_| {});
    assert_eq!(world.closed(), [asked[0].exchange]);
    let replies = world.replies();
    let who: Vec<_> = replies
        .iter()
        .map(|(client, message)| (*client, message.metadata.id))
        .collect();
    assert_eq!(who, [(0, 100), (1, 101), (2, 102)]);
    assert!(
        replies
            .iter()
            .all(|(_, message)| addresses(message) == ["198.51.100.1"])
    );
}

#[test]
fn only_the_answer_to_what_was_asked_counts() {
    let mut world = World::new(1);
    world.ask(1, "example.com.", RecordType::A);
    let asked = world.asked().remove(0);
    let wrong: [&dyn Fn(&mut Message); 5] = [
        &|message| message.metadata.id ^= 1,
        &|message| message.metadata.message_type = MessageType::Query,
        &|message| message.queries[0] = Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A),
        &|message| message.queries[0] = Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::AAAA),
        &|message| message.queries.clear(),
    ];
    for change in wrong {
        world.answer(&asked, change);
        assert!(world.actions.is_empty());
    }
    world
        .resolver
        .answer(world.now, asked.exchange, &[], &mut world.actions);
    world
        .resolver
        .answer(world.now, 99999, &asked.bytes, &mut world.actions);
    assert!(world.actions.is_empty());
    world.answer(&asked, |_| {});
    assert_eq!(addresses(&world.reply()), ["198.51.100.1"]);
}

#[test]
fn answers_are_kept_for_as_long_as_they_say() {
    let mut world = World::new(1);
    let again = |world: &mut World, name: &str| {
        world.ask(1, name, RecordType::A);
        world.asked()
    };
    let asked = again(&mut world, "example.com.").remove(0);
    world.answer(&asked, |_| {});
    world.reply();
    world.wait(Duration::from_secs(59));
    assert!(again(&mut world, "example.com.").is_empty());
    let reply = world.reply();
    assert_eq!((reply.metadata.id, reply.answers[0].ttl), (7, 1));
    world.wait(Duration::from_secs(1));
    let asked = again(&mut world, "example.com.").remove(0);
    world.answer(&asked, |_| {});
    world.reply();
    // What is not there: as long as its authority says, and not at all if none does.
    let asked = again(&mut world, "none.example.").remove(0);
    world.answer(&asked, |message| {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.answers.clear();
        let name = Name::from_ascii("example.").unwrap();
        let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 20);
        message.add_authority(Record::from_rdata(name, 300, RData::SOA(soa)));
    });
    assert_eq!(world.reply().metadata.response_code, ResponseCode::NXDomain);
    world.wait(Duration::from_secs(19));
    assert!(again(&mut world, "none.example.").is_empty());
    assert_eq!(world.reply().metadata.response_code, ResponseCode::NXDomain);
    world.wait(Duration::from_secs(1));
    let asked = again(&mut world, "none.example.").remove(0);
    world.answer(&asked, |message| {
        message.metadata.response_code = ResponseCode::NXDomain;
        message.answers.clear();
    });
    world.reply();
    assert_eq!(again(&mut world, "none.example.").len(), 1);
    // Truncated: the client asks by TCP, and that is another question.
    let asked = again(&mut world, "long.example.").remove(0);
    world.answer(&asked, |message| message.metadata.truncation = true);
    assert!(world.reply().metadata.truncation);
    assert_eq!(again(&mut world, "long.example.").len(), 1);
    world.send(
        1,
        Transport::Tcp,
        &query(7, "long.example.", RecordType::A).to_vec().unwrap(),
    );
    assert_eq!(world.asked()[0].transport, Transport::Tcp);
}

#[test]
fn an_answer_larger_than_the_client_takes_is_cut_and_says_so() {
    let mut world = World::new(1);
    world.ask(1, "example.com.", RecordType::A);
    let asked = world.asked().remove(0);
    world.answer(&asked, |message| {
        let record = message.answers[0].clone();
        message.answers = vec![record; 100];
    });
    let reply = world.reply();
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(reply.queries[0].name().to_ascii(), "example.com.");
}

#[test]
fn a_server_that_is_silent_costs_one_question_time_and_the_next_ones_none() {
    let mut world = World::new(3);
    world.ask(1, "a.example.", RecordType::A);
    assert_eq!(world.asked()[0].server, address("192.0.2.1"));
    let mut waited = Duration::ZERO;
    let mut asked = Vec::new();
    while asked.is_empty()
        || asked
            .last()
            .is_some_and(|asked: &Asked| asked.server != address("192.0.2.3"))
    {
        let step = world.resolver.next_deadline().unwrap() - world.now;
        waited += step;
        world.wait(step);
        asked.extend(world.asked());
    }
    assert_eq!(asked.len(), 2);
    assert!(waited <= Duration::from_secs(3), "{waited:?}");
    world.answer(&asked[1], |_| {});
    world.reply();
    // Two are known to be dead now.
    for number in 0..100 {
        world.ask(1, &format!("b{number}.example."), RecordType::A);
        let asked = world.asked();
        let to: Vec<_> = asked.iter().map(|asked| asked.server).collect();
        assert_eq!(to, [address("192.0.2.3")]);
        world.answer(&asked[0], |_| {});
        world.reply();
    }
    // After a while one question is put to them beside, which waits for neither, and again after a longer while.
    let mut probes = 0;
    for number in 0..120 {
        world.wait(Duration::from_secs(1));
        world.ask(1, &format!("c{number}.example."), RecordType::A);
        let asked = world.asked();
        assert!(asked.iter().any(|asked| asked.server == address("192.0.2.3")));
        probes += asked.len() - 1;
        world.answer(
            asked.iter().find(|asked| asked.server == address("192.0.2.3")).unwrap(),
            |_| {},
        );
        world.reply();
    }
    assert!((4..=10).contains(&probes), "{probes}");
}

#[test]
fn a_server_that_answers_again_is_asked_first_again() {
    let mut world = World::new(2);
    world.ask(1, "a.example.", RecordType::A);
    let first = world.asked().remove(0);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.asked()[0].server, address("192.0.2.2"));
    // Late, but before the other.
    world.answer(&first, |_| {});
    world.reply();
    world.ask(1, "b.example.", RecordType::A);
    assert_eq!(world.asked()[0].server, address("192.0.2.1"));
}

#[test]
fn when_nobody_answers_the_client_hears_of_it_before_it_gives_up() {
    for count in [1, 3] {
        let mut world = World::new(count);
        for round in 0..2 {
            world.ask(1, &format!("n{round}.example."), RecordType::A);
            let start = world.now;
            let mut replies = Vec::new();
            let mut asks = world.asked().len();
            while replies.is_empty() {
                let step = world.resolver.next_deadline().unwrap() - world.now;
                world.wait(step);
                asks += world.asked().len();
                replies = world.replies();
            }
            assert_eq!(replies[0].1.metadata.response_code, ResponseCode::ServFail);
            assert!(world.now - start < Duration::from_secs(5));
            assert_eq!(asks, 2 * usize::from(count), "each is asked twice");
            assert_eq!(world.resolver.in_flight(), 0);
        }
        // All are thought dead: all are asked at once.
        world.ask(1, "last.example.", RecordType::A);
        assert_eq!(world.asked().len(), usize::from(count));
    }
}

#[test]
fn a_server_that_cannot_be_reached_or_does_not_want_to_is_passed_over_at_once() {
    let mut world = World::new(3);
    world.ask(1, "a.example.", RecordType::A);
    let first = world.asked().remove(0);
    world.resolver.failed(world.now, first.exchange, &mut world.actions);
    let second = world.asked().remove(0);
    world.answer(&second, |message| {
        message.answers.clear();
        message.metadata.response_code = ResponseCode::Refused;
    });
    let third = world.asked().remove(0);
    assert_eq!(third.server, address("192.0.2.3"));
    world.answer(&third, |_| {});
    assert_eq!(addresses(&world.reply()), ["198.51.100.1"]);
    // Nobody has better: the client hears what was said, without delay.
    let mut world = World::new(2);
    world.ask(1, "a.example.", RecordType::A);
    for _ in 0..2 {
        let asked = world.asked().remove(0);
        world.answer(&asked, |message| {
            message.answers.clear();
            message.metadata.response_code = ResponseCode::Refused;
        });
    }
    assert_eq!(world.reply().metadata.response_code, ResponseCode::Refused);
}

#[test]
fn what_a_container_can_make_grow_is_bounded() {
    let mut world = World::new(3);
    for number in 0..5000_u32 {
        world.ask(number, &format!("n{number}.example."), RecordType::A);
    }
    let asked = world.asked().len();
    assert!(asked <= 512 && world.resolver.in_flight() <= 256, "{asked}");
    assert_eq!(
        world.replies().len() + world.resolver.in_flight(),
        5000,
        "the others are told"
    );
    for number in 0..500 {
        world.ask(number, "n1.example.", RecordType::A);
    }
    for _ in 0..20 {
        world.wait(Duration::from_millis(500));
    }
    assert_eq!(world.resolver.in_flight(), 0);
    assert_eq!(world.resolver.next_deadline(), None);
}

#[test]
fn other_servers_end_what_waits_for_the_former_ones() {
    let mut world = World::new(2);
    world.ask(1, "a.example.", RecordType::A);
    let asked = world.asked().remove(0);
    world
        .resolver
        .set_servers(&servers(1), true, Options::default(), &mut world.actions);
    assert_eq!(world.closed(), [asked.exchange]);
    assert_eq!(world.reply().metadata.response_code, ResponseCode::ServFail);
    world.answer(&asked, |_| {});
    assert!(world.actions.is_empty());
}

#[test]
fn a_newer_edns_is_refused_as_the_standard_says() {
    let mut world = World::new(1);
    let mut message = query(1, "web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    world.send(1, Transport::Udp, &message.to_vec().unwrap());
    let reply = world.reply();
    assert_eq!(reply.edns.unwrap().rcode_high(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_answered_within_bounds_or_not_at_all(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        plausible in any::<bool>(),
        tcp in any::<bool>(),
    ) {
        if plausible && bytes.len() > 12 {
            let more = bytes[11] % 3;
            bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, more]);
        }
        let mut world = World::new(2);
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        world.send(1, transport, &bytes);
        prop_assert!(world.actions.len() <= 2);
        for action in &world.actions {
            if let Action::Reply { bytes: reply, .. } = action {
                prop_assert!(reply.len() >= 12 && reply.len() <= 512);
                prop_assert_eq!(&reply[..2], &bytes[..2]);
                prop_assert!(reply[2] & 0x80 != 0);
                prop_assert!(Message::from_vec(reply).is_ok());
            }
        }
    }

    #[test]
    fn a_query_with_a_changed_byte_does_no_harm(at in 0_usize..200, value in any::<u8>(), kept in 0_usize..200) {
        let mut message = query(5, "web.front.", RecordType::A);
        message.set_edns(Edns::new());
        let mut bytes = message.to_vec().unwrap();
        let length = bytes.len();
        bytes[at % length] = value;
        bytes.truncate(kept.max(length / 2));
        let mut world = World::new(1);
        world.send(1, Transport::Udp, &bytes);
        prop_assert!(world.actions.len() <= 1);
    }

    #[test]
    fn any_answer_of_a_server_is_passed_on_or_ignored(
        junk in prop::collection::vec(any::<u8>(), 0..300),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new(2);
        world.ask(1, "example.com.", RecordType::A);
        let asked = world.asked().remove(0);
        world.resolver.answer(world.now, asked.exchange, &junk, &mut world.actions);
        let mut bytes = answer(&asked.bytes, |message| {
            let record = message.answers[0].clone();
            message.add_authority(record);
        });
        // The number and the question stay, so that it is looked at.
        let fixed = asked.bytes.len();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            if at >= 2 {
                bytes[at] = value;
            }
        }
        bytes.truncate(fixed.max(cut.index(bytes.len()) + 1));
        world.resolver.answer(world.now, asked.exchange, &bytes, &mut world.actions);
        // Whatever it was: the client has an answer in the end, and the same question can be asked again.
        for _ in 0..12 {
            world.wait(Duration::from_millis(500));
        }
        let replies = world.actions.iter().filter(|action| matches!(action, Action::Reply { .. })).count();
        prop_assert_eq!(replies, 1);
        world.actions.clear();
        world.ask(2, "example.com.", RecordType::A);
        prop_assert!(!world.actions.is_empty());
    }
}
