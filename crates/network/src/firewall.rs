//! The firewall around the bridges, as one table of the `inet` family: IPv4 and IPv6 alike.
//!
//! ```text
//!   guard        127.0.0.0/8 never comes in by a wire
//!   forward      neither from nor to a bridge of ours   accept, or drop when it was us who turned forwarding on
//!                answers                                accept
//!                within one bridge                      accept
//!                to a bridge                            drop   (from outside, from another bridge)
//!                from a bridge                          accept
//!   postrouting  from a bridge's subnet, leaving by another link: the host's address
//! ```
//!
//! An `accept` here is only ours: other tables still see the packet. What goes to the host itself is not filtered.

use std::net::{IpAddr, Ipv4Addr};

use ferry_netlink::nft::{
    Base, Batch, ChainKind, Command, CtState, Element, Family, Field, Hook, Policy, Set, Statement, Type, Value,
    priority,
};

use crate::Subnet;

/// The table's comment when net.ipv4.ip_forward was 0 before we came.
pub const FORWARD_WAS_OFF: &str = "ip_forward=0";

const BRIDGES: &str = "bridges";
const SAME: &str = "same";

/// What the table depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firewall {
    pub table: String,
    pub bridges: Vec<Guarded>,
    /// The host forwarded nothing before: it still shall not forward what is not ours.
    pub forward_was_off: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    pub name: String,
    pub subnet: Subnet,
    pub masquerade: bool,
}

impl Firewall {
    pub fn comment(&self) -> Option<&'static str> {
        self.forward_was_off.then_some(FORWARD_WAS_OFF)
    }

    /// The batch that makes this table; with `replace`, in the place of the one that has its name. Removing keeps the
    /// kernel busy for a grace period, tens of milliseconds, for which closing the socket waits.
    pub fn batch(&self, replace: bool) -> Batch {
        let comment = self.comment().map(str::to_owned);
        let mut batch = Batch::new(Family::Inet, self.table.clone());
        if replace {
            batch = Batch::replace(Family::Inet, self.table.clone(), comment);
        } else {
            batch.push(Command::AddTable { comment });
        }
        let interface = |name: &str| Value::Interface(name.to_owned());
        let set = |name: &str, key: &[Type]| Set {
            name: name.to_owned(),
            key: key.to_vec(),
            data: None,
            interval: false,
        };
        let names = self
            .bridges
            .iter()
            .map(|bridge| Element::one(interface(&bridge.name)))
            .collect();
        batch.set(set(BRIDGES, &[Type::Interface]), names);
        let pairs = self
            .bridges
            .iter()
            .map(|bridge| Element::of(vec![interface(&bridge.name), interface(&bridge.name)]));
        batch.set(set(SAME, &[Type::Interface, Type::Interface]), pairs.collect());
        self.guard(&mut batch);
        self.forward(&mut batch);
        self.postrouting(&mut batch);
        batch
    }

    /// The batch that removes the table, which must exist.
    pub fn removal(table: &str) -> Batch {
        let mut batch = Batch::new(Family::Inet, table);
        batch.push(Command::DeleteTable);
        batch
    }

    fn guard(&self, batch: &mut Batch) {
        let loopback = Value::Prefix(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
        batch.chain("guard", base(ChainKind::Filter, Hook::Prerouting, priority::RAW));
        for field in [Field::IpDaddr, Field::IpSaddr] {
            let from_outside = Statement::is_not(Field::IifName, Value::Interface("lo".to_owned()));
            batch.rule(
                "guard",
                vec![from_outside, Statement::is(field, loopback.clone()), Statement::drop()],
            );
        }
    }

    fn forward(&self, batch: &mut Batch) {
        let foreign = if self.forward_was_off {
            Statement::drop()
        } else {
            Statement::accept()
        };
        let answers = Value::CtState(vec![CtState::Established, CtState::Related]);
        batch.chain("forward", base(ChainKind::Filter, Hook::Forward, priority::FILTER));
        for statements in [
            vec![
                Statement::is_not_in(&[Field::IifName], BRIDGES),
                Statement::is_not_in(&[Field::OifName], BRIDGES),
                foreign,
            ],
            vec![Statement::is(Field::CtState, answers), Statement::accept()],
            vec![
                Statement::is_in(&[Field::IifName, Field::OifName], SAME),
                Statement::accept(),
            ],
            vec![Statement::is_in(&[Field::OifName], BRIDGES), Statement::drop()],
            vec![Statement::is_in(&[Field::IifName], BRIDGES), Statement::accept()],
        ] {
            batch.rule("forward", statements);
        }
    }

    fn postrouting(&self, batch: &mut Batch) {
        batch.chain("postrouting", base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT));
        for bridge in self.bridges.iter().filter(|bridge| bridge.masquerade) {
            let subnet = Value::Prefix(bridge.subnet.network().into(), bridge.subnet.prefix());
            batch.rule(
                "postrouting",
                vec![
                    Statement::is_not(Field::OifName, Value::Interface(bridge.name.clone())),
                    Statement::is(Field::IpSaddr, subnet),
                    Statement::Masquerade,
                ],
            );
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_prints_as_one_replacement() {
        let guarded = |name: &str, subnet: &str, masquerade| Guarded {
            name: name.to_owned(),
            subnet: subnet.parse().unwrap(),
            masquerade,
        };
        let bridges = vec![
            guarded("ferry0", "172.17.0.0/16", true),
            guarded("fb-a", "10.0.0.0/24", false),
        ];
        let firewall = Firewall {
            table: "ferry".to_owned(),
            bridges,
            forward_was_off: true,
        };
        let expected = r#"add table inet ferry
delete table inet ferry
add table inet ferry { comment "ip_forward=0"; }
add set inet ferry bridges { type ifname; }
add element inet ferry bridges { "ferry0", "fb-a" }
add set inet ferry same { type ifname . ifname; }
add element inet ferry same { "ferry0" . "ferry0", "fb-a" . "fb-a" }
add chain inet ferry guard { type filter hook prerouting priority -300; policy accept; }
add rule inet ferry guard iifname != "lo" ip daddr 127.0.0.0/8 drop
add rule inet ferry guard iifname != "lo" ip saddr 127.0.0.0/8 drop
add chain inet ferry forward { type filter hook forward priority 0; policy accept; }
add rule inet ferry forward iifname != @bridges oifname != @bridges drop
add rule inet ferry forward ct state established,related accept
add rule inet ferry forward iifname . oifname @same accept
add rule inet ferry forward oifname @bridges drop
add rule inet ferry forward iifname @bridges accept
add chain inet ferry postrouting { type nat hook postrouting priority 100; policy accept; }
add rule inet ferry postrouting oifname != "ferry0" ip saddr 172.17.0.0/16 masquerade
"#;
        assert_eq!(firewall.batch(true).to_string(), expected);
        let forwarding = Firewall {
            forward_was_off: false,
            ..firewall
        }
        .batch(false)
        .to_string();
        assert!(forwarding.starts_with("add table inet ferry\nadd set"));
        assert!(forwarding.contains("iifname != @bridges oifname != @bridges accept"));
    }
}
