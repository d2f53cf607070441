//! Batches in nft's language, a command a line. What is printed here `nft -f` would take.

use std::fmt::{self, Display, Formatter};

use super::expression::{
    AddressType, CtState, CtStatus, Field, NatKind, NatTarget, Operator, Reject, Statement, Value, Verdict,
};
use super::set::{Data, Element, ElementData, Key, Set, Type};
use super::{Base, Batch, Chain, ChainKind, Command, Family, Hook, Policy, Rule};

impl Display for Batch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.commands
            .iter()
            .try_for_each(|command| writeln!(f, "{}", self.describe(command)))
    }
}

impl Batch {
    pub(super) fn describe(&self, command: &Command) -> String {
        let table = format!("{} {}", self.family, self.table);
        match command {
            Command::AddTable { comment: None } => format!("add table {table}"),
            Command::AddTable { comment: Some(comment) } => format!("add table {table} {{ comment {comment:?}; }}"),
            Command::DeleteTable => format!("delete table {table}"),
            Command::AddChain(Chain { name, base: None }) => format!("add chain {table} {name}"),
            Command::AddChain(Chain { name, base: Some(base) }) => format!("add chain {table} {name} {{ {base} }}"),
            Command::DeleteChain(name) => format!("delete chain {table} {name}"),
            Command::FlushChain(name) => format!("flush chain {table} {name}"),
            Command::AddRule(rule) => format!("add rule {table} {}", rule.describe()),
            Command::InsertRule(rule) => format!("insert rule {table} {}", rule.describe()),
            Command::InsertRuleBefore { rule, handle } => {
                format!("insert rule {table} {} handle {handle} {}", rule.chain, rule.words())
            }
            Command::DeleteRule { chain, handle } => format!("delete rule {table} {chain} handle {handle}"),
            Command::AddSet(set) => {
                let kind = if set.data.is_some() { "map" } else { "set" };
                format!("add {kind} {table} {} {{ {set} }}", set.name)
            }
            Command::DeleteSet(name) => format!("delete set {table} {name}"),
            Command::AddElements { set, elements, .. } => {
                format!("add element {table} {set} {{ {} }}", joined(elements, ", "))
            }
            Command::DeleteElements { set, elements, .. } => {
                format!("delete element {table} {set} {{ {} }}", joined(elements, ", "))
            }
        }
    }
}

impl Rule {
    fn describe(&self) -> String {
        format!("{} {}", self.chain, self.words())
    }

    fn words(&self) -> String {
        let comment = self.comment.as_ref().map(|comment| format!(" comment {comment:?}"));
        let statements = joined(&self.statements, " ");
        format!("{statements}{}", comment.unwrap_or_default())
    }
}

fn joined<T: Display>(items: &[T], separator: &str) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(separator)
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Netdev => "netdev",
            Family::Bridge => "bridge",
            Family::Ip6 => "ip6",
        })
    }
}

impl Display for Base {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let policy = match self.policy {
            Policy::Drop => "drop",
            Policy::Accept => "accept",
        };
        write!(
            f,
            "type {kind} hook {hook} priority {}; policy {policy};",
            self.priority
        )
    }
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Match {
                field,
                operator: Operator::Equal,
                value,
            } => write!(f, "{field} {value}"),
            Statement::Match {
                field,
                operator: Operator::NotEqual,
                value,
            } => write!(f, "{field} != {value}"),
            Statement::Lookup {
                fields,
                negated: false,
                set,
            } => write!(f, "{} @{set}", joined(fields, " . ")),
            Statement::Lookup {
                fields,
                negated: true,
                set,
            } => write!(f, "{} != @{set}", joined(fields, " . ")),
            Statement::VerdictMap { fields, map } => write!(f, "{} vmap @{map}", joined(fields, " . ")),
            Statement::Verdict(verdict) => verdict.fmt(f),
            Statement::Counter => f.write_str("counter"),
            Statement::SetPort { which, port } => write!(f, "{} set {port}", which.field()),
            Statement::SetMark(mark) => write!(f, "meta mark set {mark:#x}"),
            Statement::Masquerade => f.write_str("masquerade"),
            Statement::Nat { kind, target } => {
                let kind = if *kind == NatKind::Snat { "snat" } else { "dnat" };
                match target {
                    NatTarget::Address { address, port } => {
                        let family = if address.is_ipv4() { "ip" } else { "ip6" };
                        match port {
                            None => write!(f, "{kind} {family} to {address}"),
                            Some(port) => {
                                write!(f, "{kind} {family} to {}", std::net::SocketAddr::new(*address, *port))
                            }
                        }
                    }
                    NatTarget::Map {
                        fields, map, family, ..
                    } => {
                        write!(f, "{kind} {family} to {} map @{map}", joined(fields, " . "))
                    }
                }
            }
            Statement::Redirect { port: None } => f.write_str("redirect"),
            Statement::Redirect { port: Some(port) } => write!(f, "redirect to :{port}"),
            Statement::NoTrack => f.write_str("notrack"),
            Statement::Reject(Reject::PortUnreachable) => f.write_str("reject with icmpx port-unreachable"),
            Statement::Reject(Reject::AdminProhibited) => f.write_str("reject with icmpx admin-prohibited"),
            Statement::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::IifName => "iifname",
            Field::OifName => "oifname",
            Field::Mark => "meta mark",
            Field::NfProto => "meta nfproto",
            Field::L4Proto => "meta l4proto",
            Field::IpSaddr => "ip saddr",
            Field::IpDaddr => "ip daddr",
            Field::Ip6Saddr => "ip6 saddr",
            Field::Ip6Daddr => "ip6 daddr",
            Field::TcpSport => "tcp sport",
            Field::TcpDport => "tcp dport",
            Field::UdpSport => "udp sport",
            Field::UdpDport => "udp dport",
            Field::ThSport => "th sport",
            Field::ThDport => "th dport",
            Field::CtState => "ct state",
            Field::CtStatus => "ct status",
            Field::CtMark => "ct mark",
            Field::FibDaddrType => "fib daddr type",
            Field::FibSaddrType => "fib saddr type",
            Field::FibSaddrIif => "fib saddr . iif oif",
        })
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Value::Interface(name) => write!(f, "{name:?}"),
            Value::InterfacePrefix(prefix) => write!(f, "\"{prefix}*\""),
            Value::Address(address) => address.fmt(f),
            Value::Prefix(address, prefix) => write!(f, "{address}/{prefix}"),
            Value::Port(port) => port.fmt(f),
            Value::Ports(low, high) => write!(f, "{low}-{high}"),
            Value::Protocol(6) => f.write_str("tcp"),
            Value::Protocol(17) => f.write_str("udp"),
            Value::Protocol(132) => f.write_str("sctp"),
            Value::Protocol(other) => other.fmt(f),
            Value::NfProto(Family::Ip6) => f.write_str("ipv6"),
            Value::NfProto(_) => f.write_str("ipv4"),
            Value::Mark(mark) => write!(f, "{mark:#x}"),
            Value::CtState(states) => f.write_str(&joined(states, ",")),
            Value::CtStatus(CtStatus::Snat) => f.write_str("snat"),
            Value::CtStatus(CtStatus::Dnat) => f.write_str("dnat"),
            Value::Present(true) => f.write_str("exists"),
            Value::Present(false) => f.write_str("missing"),
            Value::AddressType(AddressType::Unicast) => f.write_str("unicast"),
            Value::AddressType(AddressType::Local) => f.write_str("local"),
            Value::AddressType(AddressType::Broadcast) => f.write_str("broadcast"),
            Value::AddressType(AddressType::Multicast) => f.write_str("multicast"),
        }
    }
}

impl Display for CtState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CtState::Invalid => "invalid",
            CtState::Established => "established",
            CtState::Related => "related",
            CtState::New => "new",
            CtState::Untracked => "untracked",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Continue => f.write_str("continue"),
            Verdict::Return => f.write_str("return"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "type {}", joined(&self.key, " . "))?;
        match &self.data {
            None => {}
            Some(Data::Verdict) => f.write_str(" : verdict")?,
            Some(Data::Values(types)) => write!(f, " : {}", joined(types, " . "))?,
        }
        f.write_str(if self.interval { "; flags interval;" } else { ";" })
    }
}

impl Display for Type {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Ipv4 => "ipv4_addr",
            Type::Ipv6 => "ipv6_addr",
            Type::Protocol => "inet_proto",
            Type::Port => "inet_service",
            Type::Mark => "mark",
            Type::Interface => "ifname",
        })
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.key, " . "))?;
        match &self.data {
            None => Ok(()),
            Some(ElementData::Verdict(verdict)) => write!(f, " : {verdict}"),
            Some(ElementData::Values(values)) => write!(f, " : {}", joined(values, " . ")),
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Key::One(value) => value.fmt(f),
            Key::Range(low, high) => write!(f, "{low}-{high}"),
            Key::Prefix(address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}
