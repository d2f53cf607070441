//! The kernel's old packet filter (`iptables-legacy`), which nf_tables does not show. Ferry reads it, and changes nothing there:
//! a table of it is replaced whole, by whoever comes last.

use std::io;

use ferry_sys::xtables::{self, Table};

use crate::foreign::Links;
use crate::network::Network;

const FILTER: &str = "filter";
const FORWARD: usize = 2;
/// More rules than that are not looked at.
const MOST_RULES: usize = 1 << 20;
/// Verdicts as a standard target has them.
const DROP: i32 = -1;
const ACCEPT: i32 = -2;

/// Where things are in `struct ipt_entry` or `struct ip6t_entry`.
struct Layout {
    /// `struct ipt_ip`: what a packet must have.
    condition: usize,
    /// The name of the link that it comes by; that of the other follows.
    link: usize,
    /// Two numbers: of bytes to the target and to the next entry.
    offsets: usize,
    /// All before the first match.
    head: usize,
}

const IPV4: Layout = Layout {
    condition: 84,
    link: 16,
    offsets: 88,
    head: 112,
};
const IPV6: Layout = Layout {
    condition: 136,
    link: 64,
    offsets: 140,
    head: 168,
};
const LINK_NAME: usize = 16;
/// `struct xt_entry_target`, and its name in it.
const TARGET: usize = 32;
const TARGET_NAME: std::ops::Range<usize> = 2..31;

/// What a rule of the chain does, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// All from or to a link pass.
    Accepts {
        from: String,
        to: String,
    },
    /// Nothing gets past it.
    Ends,
    Other,
}

/// What of it drops what these networks forward, in words for the user, of the calling thread's namespace.
#[allow(clippy::needless_pass_by_value, reason = "an iterator is taken by value everywhere")]
pub fn obstacles<'a>(networks: impl Iterator<Item = &'a Network> + Clone) -> Vec<String> {
    let families = [
        (false, "/proc/thread-self/net/ip_tables_names", "iptables-legacy"),
        (true, "/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy"),
    ];
    let of = |(v6, names, command): (bool, &str, &str)| {
        let links = crate::foreign::links(networks.clone().filter(|network| network.has(v6)));
        // To ask for a table that is not there makes it.
        let there = std::fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == FILTER));
        if links.is_empty() || !there {
            return None;
        }
        match read(v6) {
            Ok(table) => obstacle(&table, if v6 { &IPV6 } else { &IPV4 }, command, &links),
            Err(error) => Some(format!("{command}'s chain FORWARD cannot be looked at: {error}")),
        }
    };
    families.into_iter().filter_map(of).collect()
}

fn read(v6: bool) -> io::Result<Table> {
    const TRIES: usize = 3;
    let mut read = xtables::table(v6, FILTER);
    for _ in 1..TRIES {
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => read = xtables::table(v6, FILTER),
            read => return read,
        }
    }
    read
}

fn obstacle(table: &Table, layout: &Layout, command: &str, links: &[Links]) -> Option<String> {
    let rules = chain(table, layout);
    let end = rules.iter().position(|rule| *rule == Rule::Ends)?;
    let before = rules.get(..end)?;
    let name = |links: &Links| match links {
        Links::Prefix(prefix) => format!("{prefix}+"),
        Links::One(name) => name.clone(),
    };
    let accepts = |from: &str, to: &str| {
        let wanted = Rule::Accepts {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        before.contains(&wanted)
    };
    // Before a rule; where it is the policy that drops, behind what an administrator has.
    let how = if end + 1 < rules.len() { "-I" } else { "-A" };
    let mut missing = Vec::new();
    for name in links.iter().map(name) {
        for (option, open) in [("-i", accepts(&name, "")), ("-o", accepts("", &name))] {
            if !open {
                missing.push(format!("'{command} {how} FORWARD {option} {name} -j ACCEPT'"));
            }
        }
    }
    (!missing.is_empty()).then(|| {
        format!(
            "chain FORWARD of {command} drops what containers send and receive, and Ferry does not change it: allow it with {}",
            missing.join(" and ")
        )
    })
}

/// The rules of the chain at the forward hook; the last one is its policy.
fn chain(table: &Table, layout: &Layout) -> Vec<Rule> {
    let (Some(begin), Some(policy)) = (table.begin.get(FORWARD), table.policy.get(FORWARD)) else {
        return Vec::new();
    };
    let (mut at, policy) = (*begin as usize, *policy as usize);
    let mut rules = Vec::new();
    while at <= policy && rules.len() < MOST_RULES {
        let Some(entry) = table.entries.get(at..) else { break };
        let Some(next) = number(entry, layout.offsets + 2).filter(|next| *next > 0) else {
            break;
        };
        rules.push(rule(entry, layout).unwrap_or(Rule::Other));
        at += next;
    }
    rules
}

fn rule(entry: &[u8], layout: &Layout) -> Option<Rule> {
    let target = number(entry, layout.offsets)?;
    if target != layout.head {
        // It has matches.
        return Some(Rule::Other);
    }
    let condition = entry.get(..layout.condition)?;
    let target = entry.get(target..)?;
    let verdict = match text(target.get(TARGET_NAME)?).as_str() {
        "REJECT" => DROP,
        "" => i32::from_ne_bytes(target.get(TARGET..TARGET + 4)?.try_into().ok()?),
        _ => return Some(Rule::Other),
    };
    if condition.iter().all(|byte| *byte == 0) {
        return Some(if verdict == DROP { Rule::Ends } else { Rule::Other });
    }
    // Names and their masks, and nothing else.
    let names = layout.link..layout.link + 4 * LINK_NAME;
    let rest = condition.iter().enumerate().filter(|(place, _)| !names.contains(place));
    if verdict != ACCEPT || rest.into_iter().any(|(_, byte)| *byte != 0) {
        return Some(Rule::Other);
    }
    let name = |at: usize| Some(text(condition.get(at..at + LINK_NAME)?));
    Some(Rule::Accepts {
        from: name(layout.link)?,
        to: name(layout.link + LINK_NAME)?,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes).into())
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry without matches, with a standard verdict.
    fn entry(from: &str, verdict: i32) -> Vec<u8> {
        let mut entry = vec![0; IPV4.head + TARGET + 8];
        entry[IPV4.link..IPV4.link + from.len()].copy_from_slice(from.as_bytes());
        entry[IPV4.offsets..][..2].copy_from_slice(&112_u16.to_ne_bytes());
        entry[IPV4.offsets + 2..][..2].copy_from_slice(&152_u16.to_ne_bytes());
        entry[IPV4.head + TARGET..][..4].copy_from_slice(&verdict.to_ne_bytes());
        entry
    }

    fn table(entries: &[Vec<u8>]) -> Table {
        let policy = u32::try_from((entries.len() - 1) * 152).unwrap();
        Table {
            begin: [0; 5],
            policy: [policy; 5],
            entries: entries.concat(),
        }
    }

    #[test]
    fn a_policy_of_drop_is_told_of_and_each_way_that_is_not_accepted() {
        let links = [Links::One("ferry0".to_owned()), Links::Prefix("fb-".to_owned())];
        let told = |entries: &[Vec<u8>]| obstacle(&table(entries), &IPV4, "iptables-legacy", &links);
        assert_eq!(told(&[entry("eth0", DROP), entry("", ACCEPT)]), None);
        let text = told(&[entry("ferry0", ACCEPT), entry("", DROP)]).unwrap();
        assert!(
            text.contains("-A FORWARD -o ferry0 -j") && text.contains("-A FORWARD -i fb-+ -j"),
            "{text}"
        );
        assert!(!text.contains("-i ferry0"), "{text}");
        // Behind the rule that ends the chain it says nothing.
        let text = told(&[entry("", DROP), entry("ferry0", ACCEPT), entry("", ACCEPT)]).unwrap();
        assert!(text.contains("-I FORWARD -i ferry0 -j"), "{text}");
    }

    #[test]
    fn entries_that_are_cut_or_lead_nowhere_end_the_search() {
        let mut cut = table(&[entry("", ACCEPT), entry("", DROP)]);
        cut.entries.truncate(160);
        assert_eq!(chain(&cut, &IPV4).len(), 1);
        let mut circle = table(&[entry("", DROP)]);
        circle.entries[IPV4.offsets + 2..][..2].fill(0);
        assert!(chain(&circle, &IPV4).is_empty());
        cut.entries.clear();
        assert!(chain(&cut, &IPV6).is_empty());
    }
}
