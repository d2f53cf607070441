//! Others' firewalls: a chain of another table that drops what is forwarded (ufw, firewalld, a Docker beside Ferry) cannot be
//! overruled from Ferry's own table. Such a chain gets an accept rule each way for Ferry's bridges, marked with a comment,
//! behind all rules that are there, but before one that lets nothing pass: what an administrator drops by a rule with a condition
//! stays dropped, what only the policy or that last rule would drop passes. What must not pass is dropped by Ferry's own
//! table all the same.
//!
//! firewalld decides by zones, and says so before its last rule is met: its bridges have to be in one that accepts, which is
//! for the administrator to say.

use ferry_netlink::nft::{BaseChain, Batch, Command, Family, Field, Policy, Rule, RuleInfo, Statement, Value};

use crate::network::{LINK_PREFIX, Network};

/// Links that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Links {
    /// All whose names begin so.
    Prefix(String),
    One(String),
}

impl Links {
    fn value(&self) -> Value {
        match self {
            Links::Prefix(prefix) => Value::InterfacePrefix(prefix.clone()),
            Links::One(name) => Value::Interface(name.clone()),
        }
    }

    fn text(&self) -> String {
        match self {
            Links::Prefix(prefix) => format!("{prefix}*"),
            Links::One(name) => name.clone(),
        }
    }
}

/// What stands for the bridges of these networks: those with names of our choice are one.
pub fn links<'a>(networks: impl IntoIterator<Item = &'a Network>) -> Vec<Links> {
    let of = |network: &Network| match network.bridge()?.link.as_str() {
        link if link.starts_with(LINK_PREFIX) => Some(Links::Prefix(LINK_PREFIX.to_owned())),
        link => Some(Links::One(link.to_owned())),
    };
    let mut links: Vec<_> = networks.into_iter().filter_map(of).collect();
    links.sort();
    links.dedup();
    links
}

/// The comment of our rules in others' chains. They say which Ferry's they are and which links they are about.
fn tag(table: &str, links: &Links, field: Field) -> String {
    let way = if field == Field::IifName { "from" } else { "to" };
    format!("{table}: {way} {}", links.text())
}

/// What to change in a chain that has these rules, so that it has ours: one each way for each of the links where it drops
/// what no rule accepts, and none elsewhere.
pub fn change(chain: &BaseChain, rules: &[RuleInfo], table: &str, links: &[Links]) -> Batch {
    let mut batch = Batch::new(chain.family, chain.table.clone());
    let of_ip = matches!(chain.family, Family::Inet | Family::Ip | Family::Ip6);
    let end = rules.iter().position(|rule| rule.ends);
    let concerned = of_ip && !is_firewalld(chain) && (chain.policy == Policy::Drop || end.is_some());
    let wanted: Vec<_> = match concerned {
        true => links
            .iter()
            .flat_map(|links| [Field::IifName, Field::OifName].map(|field| (links, field)))
            .collect(),
        false => Vec::new(),
    };
    let ours = format!("{table}: ");
    let (mut kept, wanted_tags) = (
        Vec::new(),
        wanted.iter().map(|(links, field)| tag(table, links, *field)),
    );
    let wanted_tags: Vec<_> = wanted_tags.collect();
    for (place, rule) in rules.iter().enumerate() {
        let Some(comment) = rule.comment.as_ref().filter(|comment| comment.starts_with(&ours)) else {
            continue;
        };
        // Behind the end no packet comes to it.
        if wanted_tags.contains(comment) && end.is_none_or(|end| place < end) {
            kept.push(comment);
            continue;
        }
        batch.push(Command::DeleteRule {
            chain: chain.name.clone(),
            handle: rule.handle,
        });
    }
    for ((links, field), comment) in wanted.into_iter().zip(&wanted_tags) {
        if kept.contains(&comment) {
            continue;
        }
        let rule = Rule {
            chain: chain.name.clone(),
            statements: vec![
                Statement::is(field, links.value()),
                Statement::Counter,
                Statement::accept(),
            ],
            comment: Some(comment.clone()),
        };
        batch.push(match end.and_then(|end| rules.get(end)) {
            Some(end) => Command::InsertRuleBefore {
                rule,
                handle: end.handle,
            },
            None => Command::AddRule(rule),
        });
    }
    batch
}

pub fn is_firewalld(chain: &BaseChain) -> bool {
    chain.table == "firewalld"
}

/// What to tell of firewalld, whose table has these rules: nothing where one of its zones has all our links.
pub fn firewalld(rules: &[RuleInfo], links: &[Links]) -> Option<String> {
    let text = |links: &Links| match links {
        Links::Prefix(prefix) => prefix.clone(),
        Links::One(name) => name.clone(),
    };
    let known = |links: &&Links| rules.iter().any(|rule| rule.names.contains(&text(links)));
    let missing: Vec<_> = links.iter().filter(|links| !known(links)).collect();
    if missing.is_empty() {
        return None;
    }
    let option = |links: &&Links| match links {
        Links::Prefix(prefix) => format!(" --add-interface={prefix}+"),
        Links::One(name) => format!(" --add-interface={name}"),
    };
    let options: String = missing.iter().map(option).collect();
    Some(format!(
        "firewalld (chain filter_FORWARD of table inet firewalld) rejects what containers send: have it accept with \
         'firewall-cmd --permanent --zone=trusted{options}' and 'firewall-cmd --reload'"
    ))
}

/// Whether a chain at the input hook lets in only what its rules name: what it is called.
pub fn guards_input(chain: &BaseChain, rules: &[RuleInfo]) -> Option<String> {
    let of_ip = matches!(chain.family, Family::Inet | Family::Ip | Family::Ip6);
    let guards = of_ip && (chain.policy == Policy::Drop || rules.iter().any(|rule| rule.ends));
    guards.then(|| format!("chain {} of table {} {}", chain.name, family(chain), chain.table))
}

fn family(chain: &BaseChain) -> &'static str {
    match chain.family {
        Family::Ip => "ip",
        Family::Ip6 => "ip6",
        _ => "inet",
    }
}

/// What to tell of a chain that could not be changed.
pub fn obstacle(chain: &BaseChain, links: &[Links], error: &ferry_netlink::Error) -> String {
    let family = family(chain);
    let link = links.first().map(Links::text).unwrap_or_default();
    format!(
        "chain {0} of table {family} {1} drops what containers send and receive, and cannot be changed ({error}): allow it with \
         'nft add rule {family} {1} {0} iifname \"{link}\" accept' and the same with oifname",
        chain.name, chain.table
    )
}

#[cfg(test)]
mod tests {
    use ferry_netlink::nft::Hook;

    use super::*;

    fn chain(policy: Policy) -> BaseChain {
        BaseChain {
            family: Family::Ip,
            table: "filter".to_owned(),
            name: "FORWARD".to_owned(),
            handle: 3,
            hook: Hook::Forward,
            priority: 0,
            policy,
        }
    }

    fn ours(handle: u64, comment: &str) -> RuleInfo {
        RuleInfo {
            chain: "FORWARD".to_owned(),
            handle,
            comment: Some(comment.to_owned()),
            ..RuleInfo::default()
        }
    }

    #[test]
    fn a_chain_that_drops_gets_a_rule_each_way_once() {
        let links = [Links::One("ferry0".to_owned()), Links::Prefix("fb-".to_owned())];
        let text = change(&chain(Policy::Drop), &[], "ferry0", &links).to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("iifname \"fb-*\" counter"), "{text}");
        let there =
            ["from ferry0", "to ferry0", "from fb-*", "to fb-*"].map(|what| ours(9, &format!("ferry0: {what}")));
        assert_eq!(change(&chain(Policy::Drop), &there, "ferry0", &links).commands.len(), 0);
        assert_eq!(change(&chain(Policy::Accept), &[], "ferry0", &links).commands.len(), 0);
    }

    #[test]
    fn rules_of_links_that_are_gone_go_and_others_stay() {
        let rules = [
            ours(7, "ferry0: to br9"),
            ours(8, "somebody: to br9"),
            ours(9, "ferry1: to br9"),
        ];
        let batch = change(&chain(Policy::Drop), &rules, "ferry0", &[]);
        assert_eq!(batch.to_string(), "delete rule ip filter FORWARD handle 7\n");
    }

    #[test]
    fn a_chain_that_ends_in_a_reject_gets_them_before_it_and_only_once() {
        let links = [Links::One("ferry0".to_owned())];
        let end = RuleInfo {
            handle: 20,
            ends: true,
            ..RuleInfo::default()
        };
        let text = change(&chain(Policy::Accept), std::slice::from_ref(&end), "ferry0", &links).to_string();
        assert_eq!(text.matches("FORWARD handle 20 ").count(), 2, "{text}");
        let both = ["ferry0: from ferry0", "ferry0: to ferry0"];
        let before = [ours(1, both[0]), ours(2, both[1]), end.clone()];
        assert!(
            change(&chain(Policy::Accept), &before, "ferry0", &links)
                .commands
                .is_empty()
        );
        // Somebody has put a reject in front.
        let behind = [end, ours(1, both[0]), ours(2, both[1])];
        assert_eq!(
            change(&chain(Policy::Accept), &behind, "ferry0", &links).commands.len(),
            4
        );
    }

    #[test]
    fn firewalld_is_left_alone_and_told_of_until_a_zone_has_the_links() {
        let links = [Links::One("ferry0".to_owned()), Links::Prefix("fb-".to_owned())];
        let of_firewalld = BaseChain {
            table: "firewalld".to_owned(),
            name: "filter_FORWARD".to_owned(),
            ..chain(Policy::Accept)
        };
        let end = RuleInfo {
            ends: true,
            ..RuleInfo::default()
        };
        assert!(change(&of_firewalld, &[end], "ferry0", &links).commands.is_empty());
        let zone = |name: &str| RuleInfo {
            names: vec![name.to_owned()],
            ..RuleInfo::default()
        };
        let told = firewalld(&[zone("ferry0")], &links).unwrap();
        assert!(
            told.contains("--add-interface=fb-+") && !told.contains("=ferry0"),
            "{told}"
        );
        assert_eq!(firewalld(&[zone("ferry0"), zone("fb-")], &links), None);
    }
}
