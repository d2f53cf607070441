//! The firewall around the networks, as one table of the `inet` family: IPv4 and IPv6 alike.
//!
//! The rules are always the same; networks and ports are elements of sets and maps, so that one more costs an element.
//!
//! ```text
//!   guard        127.0.0.0/8 never comes in by a wire
//!                from a bridge, with a source that is not behind it   drop
//!   prerouting   from a neighbour that its bridge would not send back to the container: to who listens
//!                to a published port of an address of the host's: to the container
//!   output       the same for the host's own programs
//!   forward      neither from nor to a bridge of ours   accept, or drop when it was us alone who turned forwarding on
//!                answers                                accept
//!                within one bridge                      accept
//!                from or to an internal network         drop
//!                to a published port                    accept
//!                within a bridge of containers apart    drop
//!                to a bridge                            drop   (from outside, from another bridge)
//!                from a bridge                          accept
//!   postrouting  back to where it came from, or from 127.0.0.1: the host's address, or the answer would not come back
//!                from a subnet, leaving by a link that is no bridge of ours: the host's address
//! ```
//!
//! An `accept` here is only ours: other tables still see the packet. What goes to the host itself is not filtered.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ferry_netlink::nft::{
    Base, Batch, ChainKind, Command, CtState, CtStatus, Data, Element, ElementData, Family, Field, Hook, Key, NatKind,
    NatTarget, Policy, Set, Statement, Type, Value, priority,
};
use ipnet::IpNet;

use crate::network::{Gateway, Network};
use crate::ports::Mapping;

/// Words of the table's comment: what was 0 before we came.
pub const IPV4_WAS_OFF: &str = "ip_forward=0";
pub const IPV6_WAS_OFF: &str = "ipv6_forwarding=0";

const IPV4: &[Type] = &[Type::Ipv4];
const IPV6: &[Type] = &[Type::Ipv6];
const LINK: &[Type] = &[Type::Interface];
const LINKS: &[Type] = &[Type::Interface, Type::Interface];
const LINK_IPV4: &[Type] = &[Type::Interface, Type::Ipv4];
const LINK_IPV6: &[Type] = &[Type::Interface, Type::Ipv6];
const PORT: &[Type] = &[Type::Protocol, Type::Port];
const PORT_OF_IPV4: &[Type] = &[Type::Protocol, Type::Ipv4, Type::Port];
const PORT_OF_IPV6: &[Type] = &[Type::Protocol, Type::Ipv6, Type::Port];
const PORT_FROM_IPV4: &[Type] = &[Type::Interface, Type::Protocol, Type::Ipv4, Type::Port];
const PORT_FROM_IPV6: &[Type] = &[Type::Interface, Type::Protocol, Type::Ipv6, Type::Port];
const TO_IPV4: &[Type] = &[Type::Ipv4, Type::Port];
const TO_IPV6: &[Type] = &[Type::Ipv6, Type::Port];

/// Name, key, value, intervals.
type Shape = (&'static str, &'static [Type], Option<&'static [Type]>, bool);

/// Every bridge.
const BRIDGES: Shape = ("bridges", LINK, None, false);
/// Each bridge beside itself.
const SAME: Shape = ("same", LINKS, None, false);
/// Each bridge whose containers must not reach each other, beside itself: they could by way of the host.
const APART: Shape = ("apart", LINKS, None, false);
/// Those that lead nowhere.
const INTERNAL: Shape = ("internal", LINK, None, false);
/// Those whose containers can be reached at every port by who has a route.
const OPEN4: Shape = ("open4", LINK, None, false);
const OPEN6: Shape = ("open6", LINK, None, false);
/// Bridges and their subnets.
const HOME4: Shape = ("home4", LINK_IPV4, None, true);
const HOME6: Shape = ("home6", LINK_IPV6, None, true);
/// Subnets to hide, and the address behind which, if it is not that of the link.
const HIDDEN4: Shape = ("hidden4", IPV4, None, true);
const HIDDEN6: Shape = ("hidden6", IPV6, None, true);
const SOURCE4: Shape = ("source4", IPV4, Some(IPV4), true);
const SOURCE6: Shape = ("source6", IPV6, Some(IPV6), true);
/// Single ports of every address and of one, and ranges that lead to the same ports. Hashes take thousands in no time;
/// what has intervals does not.
const ANY4: Shape = ("any4", PORT, Some(TO_IPV4), false);
const ANY6: Shape = ("any6", PORT, Some(TO_IPV6), false);
const PORT4: Shape = ("port4", PORT_OF_IPV4, Some(TO_IPV4), false);
const PORT6: Shape = ("port6", PORT_OF_IPV6, Some(TO_IPV6), false);
const RANGE4: Shape = ("range4", PORT_OF_IPV4, Some(IPV4), true);
const RANGE6: Shape = ("range6", PORT_OF_IPV6, Some(IPV6), true);
/// Published ports at which somebody listens for the containers of the same bridge.
const NEAR4: Shape = ("near4", PORT_FROM_IPV4, None, true);
const NEAR6: Shape = ("near6", PORT_FROM_IPV6, None, true);
/// Published ports of containers that are reached by routing.
const ROUTED4: Shape = ("routed4", PORT_OF_IPV4, None, true);
const ROUTED6: Shape = ("routed6", PORT_OF_IPV6, None, true);

const SETS: [Shape; 22] = [
    BRIDGES, SAME, APART, INTERNAL, OPEN4, OPEN6, HOME4, HOME6, HIDDEN4, HIDDEN6, SOURCE4, SOURCE6, ANY4, ANY6, PORT4,
    PORT6, RANGE4, RANGE6, NEAR4, NEAR6, ROUTED4, ROUTED6,
];

/// Elements by the name of their set, and whether that has intervals.
type Elements = BTreeMap<&'static str, (bool, Vec<Element>)>;

/// What the table depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    pub table: String,
    pub networks: Vec<Network>,
    /// Those of containers on a network whose mode is [`Gateway::Routed`] apart: nothing is translated for them.
    pub ports: Vec<Mapping>,
    pub routed: Vec<Mapping>,
    /// The host forwarded nothing before, of IPv4 and of IPv6: it still shall not forward what is not ours.
    pub was_off: (bool, bool),
}

impl Firewall {
    pub fn comment(&self) -> Option<String> {
        let words = [(self.was_off.0, IPV4_WAS_OFF), (self.was_off.1, IPV6_WAS_OFF)];
        let words: Vec<_> = words
            .into_iter()
            .filter_map(|(off, word)| off.then_some(word))
            .collect();
        (!words.is_empty()).then(|| words.join(" "))
    }

    /// The batch that makes this table; with `replace`, in the place of the one that has its name. Removing keeps the
    /// kernel busy for a grace period, tens of milliseconds, for which closing the socket waits.
    pub fn batch(&self, replace: bool) -> Batch {
        let comment = self.comment();
        let mut batch = Batch::new(Family::Inet, self.table.clone());
        if replace {
            batch = Batch::replace(Family::Inet, self.table.clone(), comment);
        } else {
            batch.push(Command::AddTable { comment });
        }
        let mut elements = Elements::new();
        let networks: Vec<_> = self.networks.iter().collect();
        let parts = Parts {
            networks: &networks,
            ports: &self.ports,
            routed: &self.routed,
            near: &near(&networks, &self.ports),
        };
        parts.put(&mut elements);
        for (name, key, data, interval) in SETS {
            let set = Set {
                name: name.to_owned(),
                key: key.to_vec(),
                data: data.map(|types| Data::Values(types.to_vec())),
                interval,
            };
            let elements = elements.remove(name).map_or(Vec::new(), |(_, elements)| elements);
            batch.set(set, elements);
        }
        guard(&mut batch);
        translate(&mut batch, "prerouting", Hook::Prerouting);
        translate(&mut batch, "output", Hook::Output);
        self.forward(&mut batch);
        postrouting(&mut batch);
        batch
    }

    /// The batch that removes the table, which must exist.
    pub fn removal(table: &str) -> Batch {
        let mut batch = Batch::new(Family::Inet, table);
        batch.push(Command::DeleteTable);
        batch
    }

    fn forward(&self, batch: &mut Batch) {
        let foreign = |family: Option<Family>| {
            let ours = [Field::IifName, Field::OifName].map(|field| Statement::is_not_in(&[field], BRIDGES.0));
            let family = family.map(|family| Statement::is(Field::NfProto, Value::NfProto(family)));
            let verdict = if family.is_some() {
                Statement::drop()
            } else {
                Statement::accept()
            };
            family.into_iter().chain(ours).chain([verdict]).collect::<Vec<_>>()
        };
        let answers = Value::CtState(vec![CtState::Established, CtState::Related]);
        let published = |address| [Field::L4Proto, address, Field::ThDport];
        let v4 = || Statement::is(Field::NfProto, Value::NfProto(Family::Ip));
        let v6 = || Statement::is(Field::NfProto, Value::NfProto(Family::Ip6));
        batch.chain("forward", base(ChainKind::Filter, Hook::Forward, priority::FILTER));
        for (off, family) in [(self.was_off.0, Family::Ip), (self.was_off.1, Family::Ip6)] {
            if off {
                batch.rule("forward", foreign(Some(family)));
            }
        }
        for statements in [
            foreign(None),
            vec![Statement::is(Field::CtState, answers), Statement::accept()],
            vec![
                Statement::is_in(&[Field::IifName, Field::OifName], SAME.0),
                Statement::accept(),
            ],
            vec![Statement::is_in(&[Field::OifName], INTERNAL.0), Statement::drop()],
            vec![Statement::is_in(&[Field::IifName], INTERNAL.0), Statement::drop()],
            vec![
                Statement::is(Field::CtStatus, Value::CtStatus(CtStatus::Dnat)),
                Statement::accept(),
            ],
            vec![
                Statement::is_in(&[Field::IifName, Field::OifName], APART.0),
                Statement::drop(),
            ],
            vec![v4(), Statement::is_in(&[Field::OifName], OPEN4.0), Statement::accept()],
            vec![v6(), Statement::is_in(&[Field::OifName], OPEN6.0), Statement::accept()],
            vec![
                Statement::is_in(&published(Field::IpDaddr), ROUTED4.0),
                Statement::accept(),
            ],
            vec![
                Statement::is_in(&published(Field::Ip6Daddr), ROUTED6.0),
                Statement::accept(),
            ],
            vec![Statement::is_in(&[Field::OifName], BRIDGES.0), Statement::drop()],
            vec![Statement::is_in(&[Field::IifName], BRIDGES.0), Statement::accept()],
        ] {
            batch.rule("forward", statements);
        }
    }
}

/// A port at which somebody listens for who comes by this bridge.
pub type Near = (String, Mapping);

/// Those of the ports that are for neighbours as well, with the bridges of their containers.
pub fn near(networks: &[&Network], ports: &[Mapping]) -> Vec<Near> {
    let link = |mapping: &Mapping| {
        let has = |network: &&&Network| network.ranges.iter().any(|range| range.subnet.contains(&mapping.to));
        networks.iter().find(has).map(|network| network.link().to_owned())
    };
    let near = ports.iter().filter(|mapping| mapping.near);
    near.filter_map(|mapping| Some((link(mapping)?, *mapping))).collect()
}

/// What comes or goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts<'a> {
    pub networks: &'a [&'a Network],
    pub ports: &'a [Mapping],
    pub routed: &'a [Mapping],
    pub near: &'a [Near],
}

impl Parts<'_> {
    fn put(&self, elements: &mut Elements) {
        self.networks.iter().for_each(|network| of_network(network, elements));
        self.ports.iter().for_each(|mapping| of_port(mapping, elements));
        self.routed.iter().for_each(|mapping| of_routed(mapping, elements));
        self.near.iter().for_each(|near| of_near(near, elements));
    }
}

/// The elements of networks and ports that come.
pub fn addition(table: &str, parts: &Parts<'_>) -> Batch {
    change(table, parts, true)
}

/// The elements of networks and ports that go.
pub fn subtraction(table: &str, parts: &Parts<'_>) -> Batch {
    change(table, parts, false)
}

fn change(table: &str, parts: &Parts<'_>, add: bool) -> Batch {
    let mut elements = Elements::new();
    parts.put(&mut elements);
    let mut batch = Batch::new(Family::Inet, table);
    for (name, (interval, elements)) in elements {
        let set = name.to_owned();
        batch.push(match add {
            true => Command::AddElements {
                set,
                interval,
                elements,
            },
            false => Command::DeleteElements {
                set,
                interval,
                elements,
            },
        });
    }
    batch
}

fn put(elements: &mut Elements, set: Shape, key: Vec<Key>, data: Option<Vec<Value>>) {
    let (_, list) = elements.entry(set.0).or_insert_with(|| (set.3, Vec::new()));
    list.push(Element {
        key,
        data: data.map(ElementData::Values),
    });
}

fn prefix(net: IpNet) -> Key {
    Key::Prefix(net.network(), net.prefix_len())
}

fn of_network(network: &Network, elements: &mut Elements) {
    let Some(bridge) = network.bridge() else { return };
    let link = || Key::One(Value::Interface(bridge.link.clone()));
    put(elements, BRIDGES, vec![link()], None);
    let within = if bridge.icc { SAME } else { APART };
    put(elements, within, vec![link(), link()], None);
    if network.internal {
        put(elements, INTERNAL, vec![link()], None);
    }
    for range in &network.ranges {
        let subnet = range.subnet;
        let v6 = range.is_v6();
        let pick = |v4_set: Shape, v6_set: Shape| if v6 { v6_set } else { v4_set };
        put(elements, pick(HOME4, HOME6), vec![link(), prefix(subnet)], None);
        let mode = network.gateway_mode(v6);
        if mode == Gateway::Open {
            put(elements, pick(OPEN4, OPEN6), vec![link()], None);
        }
        if !bridge.masquerade || network.internal || !matches!(mode, Gateway::Nat | Gateway::Open) {
            continue;
        }
        match bridge.source.filter(|source| source.is_ipv6() == v6) {
            Some(source) => {
                let data = Some(vec![Value::Address(source)]);
                put(elements, pick(SOURCE4, SOURCE6), vec![prefix(subnet)], data);
            }
            None => put(elements, pick(HIDDEN4, HIDDEN6), vec![prefix(subnet)], None),
        }
    }
}

fn ports_key(mapping: &Mapping, address: Key, port: u16) -> Vec<Key> {
    let last = port.saturating_add(mapping.count.saturating_sub(1));
    let ports = match mapping.count {
        0 | 1 => Key::One(Value::Port(port)),
        _ => Key::Range(Value::Port(port), Value::Port(last)),
    };
    vec![Key::One(Value::Protocol(mapping.protocol.number())), address, ports]
}

/// What the address of a mapping stands for in a key.
fn address_key(address: IpAddr) -> Key {
    match address {
        address if address.is_unspecified() => Key::Prefix(address, 0),
        address => Key::One(Value::Address(address)),
    }
}

fn of_port(mapping: &Mapping, elements: &mut Elements) {
    let v6 = mapping.address.is_ipv6();
    if mapping.port == mapping.to_port && mapping.count > 1 {
        let set = if v6 { RANGE6 } else { RANGE4 };
        let data = Some(vec![Value::Address(mapping.to)]);
        let key = ports_key(mapping, address_key(mapping.address), mapping.port);
        put(elements, set, key, data);
        return;
    }
    let set = match (mapping.address.is_unspecified(), v6) {
        (true, false) => ANY4,
        (true, true) => ANY6,
        (false, false) => PORT4,
        (false, true) => PORT6,
    };
    for step in 0..mapping.count.max(1) {
        let mut key = vec![Key::One(Value::Protocol(mapping.protocol.number()))];
        if !mapping.address.is_unspecified() {
            key.push(Key::One(Value::Address(mapping.address)));
        }
        key.push(Key::One(Value::Port(mapping.port.saturating_add(step))));
        let data = Some(vec![
            Value::Address(mapping.to),
            Value::Port(mapping.to_port.saturating_add(step)),
        ]);
        put(elements, set, key, data);
    }
}

fn of_near((link, mapping): &Near, elements: &mut Elements) {
    let set = if mapping.address.is_ipv6() { NEAR6 } else { NEAR4 };
    let mut key = vec![Key::One(Value::Interface(link.clone()))];
    key.extend(ports_key(mapping, address_key(mapping.address), mapping.port));
    put(elements, set, key, None);
}

fn of_routed(mapping: &Mapping, elements: &mut Elements) {
    let set = if mapping.to.is_ipv6() { ROUTED6 } else { ROUTED4 };
    let key = ports_key(mapping, Key::One(Value::Address(mapping.to)), mapping.to_port);
    put(elements, set, key, None);
}

fn guard(batch: &mut Batch) {
    let loopback = Value::Prefix(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
    batch.chain("guard", base(ChainKind::Filter, Hook::Prerouting, priority::RAW));
    for field in [Field::IpDaddr, Field::IpSaddr] {
        let from_outside = Statement::is_not(Field::IifName, Value::Interface("lo".to_owned()));
        batch.rule(
            "guard",
            vec![from_outside, Statement::is(field, loopback.clone()), Statement::drop()],
        );
    }
    // A container may send with any source address. Another's would be an answer to that one's connections, or get an answer
    // from who trusts it. A link-local address has no route, and DAD comes from none.
    let link_local = Value::Prefix(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);
    let from_bridge = || Statement::is_in(&[Field::IifName], BRIDGES.0);
    let forged = || Statement::is(Field::FibSaddrIif, Value::Present(false));
    let v4 = Statement::is(Field::NfProto, Value::NfProto(Family::Ip));
    batch.rule("guard", vec![v4, from_bridge(), forged(), Statement::drop()]);
    batch.rule(
        "guard",
        vec![
            from_bridge(),
            Statement::is_not(Field::Ip6Saddr, link_local),
            Statement::is_not(Field::Ip6Saddr, Value::Address(Ipv6Addr::UNSPECIFIED.into())),
            forged(),
            Statement::drop(),
        ],
    );
}

/// Only what is for the host itself: a published port captures nothing that passes through (CVE-2025-67499).
fn translate(batch: &mut Batch, chain: &str, hook: Hook) {
    use ferry_netlink::nft::AddressType;
    batch.chain(chain, base(ChainKind::Nat, hook, priority::DSTNAT));
    if hook == Hook::Prerouting {
        for (address, near) in [(Field::IpDaddr, NEAR4), (Field::Ip6Daddr, NEAR6)] {
            let port = [Field::IifName, Field::L4Proto, address, Field::ThDport];
            batch.rule(chain, vec![Statement::is_in(&port, near.0), Statement::accept()]);
        }
    }
    let families = [
        (Family::Ip, Field::IpDaddr, ANY4, PORT4, RANGE4),
        (Family::Ip6, Field::Ip6Daddr, ANY6, PORT6, RANGE6),
    ];
    for (family, address, any, port, range) in families {
        let one = || vec![Field::L4Proto, address, Field::ThDport];
        let maps = [
            (any, vec![Field::L4Proto, Field::ThDport], true),
            (port, one(), true),
            (range, one(), false),
        ];
        for (map, fields, with_port) in maps {
            let mut statements = vec![Statement::is(
                Field::FibDaddrType,
                Value::AddressType(AddressType::Local),
            )];
            if family == Family::Ip6 {
                // Cannot be routed elsewhere.
                let own = Value::Address(Ipv6Addr::LOCALHOST.into());
                statements.push(Statement::is_not(Field::Ip6Daddr, own));
            }
            statements.push(Statement::Nat {
                kind: NatKind::Dnat,
                target: NatTarget::Map {
                    fields,
                    map: map.0.to_owned(),
                    family,
                    port: with_port,
                },
            });
            batch.rule(chain, statements);
        }
    }
}

fn postrouting(batch: &mut Batch) {
    batch.chain("postrouting", base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT));
    let translated = || Statement::is(Field::CtStatus, Value::CtStatus(CtStatus::Dnat));
    let loopback = Value::Prefix(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
    batch.rule(
        "postrouting",
        vec![
            Statement::is_in(&[Field::OifName], BRIDGES.0),
            Statement::is(Field::IpSaddr, loopback),
            Statement::Masquerade,
        ],
    );
    for (saddr, home) in [(Field::IpSaddr, HOME4), (Field::Ip6Saddr, HOME6)] {
        batch.rule(
            "postrouting",
            vec![
                translated(),
                Statement::is_in(&[Field::OifName, saddr], home.0),
                Statement::Masquerade,
            ],
        );
    }
    for (family, saddr, source, hidden) in [
        (Family::Ip, Field::IpSaddr, SOURCE4, HIDDEN4),
        (Family::Ip6, Field::Ip6Saddr, SOURCE6, HIDDEN6),
    ] {
        let leaves = || Statement::is_not_in(&[Field::OifName], BRIDGES.0);
        batch.rule(
            "postrouting",
            vec![
                leaves(),
                Statement::Nat {
                    kind: NatKind::Snat,
                    target: NatTarget::Map {
                        fields: vec![saddr],
                        map: source.0.to_owned(),
                        family,
                        port: false,
                    },
                },
            ],
        );
        batch.rule(
            "postrouting",
            vec![leaves(), Statement::is_in(&[saddr], hidden.0), Statement::Masquerade],
        );
    }
}

fn base(kind: ChainKind, hook: Hook, priority: i32) -> Option<Base> {
    Some(Base {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    })
}
