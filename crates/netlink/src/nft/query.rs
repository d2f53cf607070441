//! Commits batches, and asks what is there.

use super::encode::{self, Encoded, header};
use super::{Batch, Command, Family, Hook, Policy};
use crate::socket::{Answer, Socket};
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

pub(super) const NETLINK_NETFILTER: isize = 12;

/// A socket to the nf_tables of the namespace it was opened in.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    pub handle: u64,
    /// Chains, sets and other objects in it.
    pub used: u32,
    pub comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    pub name: String,
    pub handle: u64,
    /// Rules in it and jumps to it.
    pub used: u32,
}

/// A chain that packets enter at a hook, anybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    pub family: Family,
    pub table: String,
    pub name: String,
    pub handle: u64,
    pub hook: Hook,
    pub priority: i32,
    pub policy: Policy,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub handle: u64,
    /// nft's or iptables'.
    pub comment: Option<String>,
    /// Every packet that comes to it is dropped or rejected.
    pub ends: bool,
    /// The texts that it compares something with: names of links, whole or as far as they go.
    pub names: Vec<String>,
}

/// A table's handle, chains, rules and numbers of elements. Handles are never given twice, so a rule that was removed,
/// replaced or added shows; only an element exchanged for another does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    handle: u64,
    chains: Vec<ChainInfo>,
    rules: Vec<RuleInfo>,
    elements: Vec<(usize, String)>,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(NETLINK_NETFILTER)?;
        socket.enlarge();
        Ok(Self { socket })
    }

    /// This socket's number in its namespace, by which a [`super::Watch`] tells our changes from others'.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Applies the whole batch or nothing of it. The error names the first command the kernel refused.
    pub fn commit(&mut self, batch: &Batch) -> Result<()> {
        if batch.commands.iter().all(Command::is_empty) {
            return Ok(());
        }
        let Encoded { bytes, sequences } = encode::encode(batch, || self.socket.next())?;
        let answers = self.socket.exchange(&bytes, |_| {})?;
        let command = |answer: &Answer| sequences.iter().find(|(sequence, _)| *sequence == answer.sequence);
        let mut refused: Vec<_> = answers.iter().filter(|answer| answer.refused.is_some()).collect();
        refused.sort_by_key(|answer| command(answer).map_or(usize::MAX, |(_, index)| *index));
        if let Some(Answer {
            refused: Some((errno, message)),
            ..
        }) = refused.first()
        {
            let object = refused
                .first()
                .and_then(|answer| command(answer))
                .and_then(|(_, index)| batch.commands.get(*index));
            return Err(Error::Kernel {
                operation: "change the firewall:",
                object: object.map_or_else(|| batch.table.clone(), |command| batch.describe(command)),
                errno: *errno,
                message: message.clone(),
            });
        }
        let last = sequences.last().map(|(sequence, _)| *sequence);
        if answers.iter().any(|answer| Some(answer.sequence) == last) {
            return Ok(());
        }
        Err(Error::NoAnswer {
            operation: "change the firewall table",
            object: batch.table.clone(),
        })
    }

    /// The number of the ruleset, one higher after each commit of anybody's in this namespace.
    pub fn generation(&mut self) -> Result<u32> {
        let mut found = None;
        self.ask(encode::GET_GENERATION, wire::ACK, 0, "ruleset", &[], |message| {
            if message.kind == encode::NEW_GENERATION {
                found = attributes(message).and_then(|bytes| wire::be32_at(wire::attribute(bytes, 1)?, 0));
            }
        })?;
        found.ok_or(Error::Malformed("a generation without a number"))
    }

    /// The table, or `None` when there is none of that name.
    pub fn table(&mut self, family: Family, name: &str) -> Result<Option<TableInfo>> {
        let mut found = None;
        let asked = self.ask(
            encode::GET_TABLE,
            wire::ACK,
            family as u8,
            name,
            &[(1, name)],
            |message| {
                if message.kind == encode::NEW_TABLE {
                    found = attributes(message).and_then(|bytes| {
                        Some(TableInfo {
                            handle: wire::be64_at(wire::attribute(bytes, 4)?, 0)?,
                            used: wire::be32_at(wire::attribute(bytes, 3)?, 0)?,
                            comment: comment(bytes, 6),
                        })
                    });
                }
            },
        );
        match asked {
            Err(error) if error.is_gone() => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// The chains of a table; none when there is no such table.
    pub fn chains(&mut self, family: Family, table: &str) -> Result<Vec<ChainInfo>> {
        let mut found = Vec::new();
        self.ask(
            encode::GET_CHAIN,
            wire::DUMP,
            family as u8,
            table,
            &[(1, table)],
            |message| {
                let chain = attributes(message)
                    .filter(|bytes| is_of(bytes, table))
                    .and_then(|bytes| {
                        Some(ChainInfo {
                            name: wire::text(wire::attribute(bytes, 3)?),
                            handle: wire::be64_at(wire::attribute(bytes, 2)?, 0)?,
                            used: wire::be32_at(wire::attribute(bytes, 6)?, 0)?,
                        })
                    });
                found.extend(chain.filter(|_| message.kind == encode::NEW_CHAIN));
            },
        )?;
        Ok(found)
    }

    /// The base chains at a hook, of all tables of the families that see packets of IP, in the order packets meet them
    /// where priorities differ. Those of a dormant table are among them.
    pub fn base_chains(&mut self, hook: Hook) -> Result<Vec<BaseChain>> {
        let mut found = Vec::new();
        self.ask(encode::GET_CHAIN, wire::DUMP, 0, "base chains", &[], |message| {
            let chain = (message.kind == encode::NEW_CHAIN)
                .then(|| base_chain(message))
                .flatten();
            found.extend(chain.filter(|chain| chain.hook == hook));
        })?;
        found.sort_by_key(|chain| chain.priority);
        Ok(found)
    }

    /// The rules of a table, in order; none when there is no such table.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<RuleInfo>> {
        self.rules_of(family, table, &[(1, table)])
    }

    /// The rules of a chain, in order; none when there is no such chain.
    pub fn chain_rules(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<RuleInfo>> {
        let mut rules = match self.rules_of(family, table, &[(1, table), (2, chain)]) {
            Err(error) if error.is_gone() => return Ok(Vec::new()),
            rules => rules?,
        };
        rules.retain(|rule| rule.chain == chain);
        Ok(rules)
    }

    fn rules_of(&mut self, family: Family, table: &str, names: &[(u16, &str)]) -> Result<Vec<RuleInfo>> {
        let mut found = Vec::new();
        self.ask(encode::GET_RULE, wire::DUMP, family as u8, table, names, |message| {
            let rule = attributes(message)
                .filter(|bytes| is_of(bytes, table))
                .and_then(|bytes| {
                    Some(RuleInfo {
                        chain: wire::text(wire::attribute(bytes, 2)?),
                        handle: wire::be64_at(wire::attribute(bytes, 3)?, 0)?,
                        comment: comment(bytes, 7).or_else(|| match_comment(bytes)),
                        ends: ends(bytes),
                        names: compared(bytes),
                    })
                });
            found.extend(rule.filter(|_| message.kind == encode::NEW_RULE));
        })?;
        Ok(found)
    }

    /// What tells one state of a table from another: see [`Shape`].
    pub fn shape(&mut self, family: Family, table: &str) -> Result<Option<Shape>> {
        let Some(found) = self.table(family, table)? else {
            return Ok(None);
        };
        let mut names = Vec::new();
        self.ask(
            encode::GET_SET,
            wire::DUMP,
            family as u8,
            table,
            &[(1, table)],
            |message| {
                let set = attributes(message).filter(|bytes| is_of(bytes, table));
                let name = set.and_then(|bytes| wire::attribute(bytes, 2)).map(wire::text);
                names.extend(name.filter(|_| message.kind == encode::NEW_SET));
            },
        )?;
        let mut elements = Vec::with_capacity(names.len());
        for name in names {
            elements.push((self.count(family, table, &name)?, name));
        }
        Ok(Some(Shape {
            handle: found.handle,
            rules: self.rules(family, table)?,
            chains: self.chains(family, table)?,
            elements,
        }))
    }

    fn count(&mut self, family: Family, table: &str, set: &str) -> Result<usize> {
        let mut count = 0;
        let names = [(1, table), (2, set)];
        self.ask(encode::GET_ELEMENTS, wire::DUMP, family as u8, set, &names, |message| {
            let list = attributes(message).and_then(|bytes| wire::attribute(bytes, 3));
            if message.kind == encode::NEW_ELEMENTS {
                count += list.map_or(0, |list| wire::attributes(list).count());
            }
        })?;
        Ok(count)
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        object: &str,
        names: &[(u16, &str)],
        take: impl FnMut(Message<'_>),
    ) -> Result<()> {
        let operation = "look up in the firewall";
        names.iter().try_for_each(|(_, name)| encode::check(name))?;
        let mut w = Writer::default();
        let sequence = self.socket.next();
        w.message(kind, wire::REQUEST | flags, sequence, |w| {
            header(w, family, 0);
            names.iter().for_each(|(kind, name)| w.text(*kind, name));
        });
        let mut answers = self.socket.exchange(&w.finish()?, take)?;
        answers.retain(|answer| answer.sequence == sequence);
        match answers.pop() {
            None => Err(Error::NoAnswer {
                operation,
                object: object.to_owned(),
            }),
            Some(Answer {
                refused: Some((errno, message)),
                ..
            }) => Err(Error::Kernel {
                operation,
                object: object.to_owned(),
                errno,
                message,
            }),
            Some(_) => Ok(()),
        }
    }
}

/// What follows `struct nfgenmsg`.
pub(super) fn attributes(message: Message<'_>) -> Option<&[u8]> {
    message.payload.get(4..)
}

fn base_chain(message: Message<'_>) -> Option<BaseChain> {
    let family = match message.payload.first()? {
        1 => Family::Inet,
        2 => Family::Ip,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => return None,
    };
    let bytes = attributes(message)?;
    let at = wire::attribute(bytes, 4)?;
    Some(BaseChain {
        family,
        table: wire::text(wire::attribute(bytes, 1)?),
        name: wire::text(wire::attribute(bytes, 3)?),
        handle: wire::be64_at(wire::attribute(bytes, 2)?, 0)?,
        hook: match wire::be32_at(wire::attribute(at, 1)?, 0)? {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            _ => return None,
        },
        priority: wire::be32_at(wire::attribute(at, 2)?, 0)?.cast_signed(),
        policy: match wire::attribute(bytes, 5).and_then(|value| wire::be32_at(value, 0)) {
            Some(0) => Policy::Drop,
            _ => Policy::Accept,
        },
    })
}

/// Kernels differ in whether a dump is limited to the table that was asked for.
pub(super) fn is_of(bytes: &[u8], table: &str) -> bool {
    wire::attribute(bytes, 1).is_some_and(|name| wire::text(name) == table)
}

/// The expressions of a rule: name and data.
fn expressions(rule: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    const EXPRESSIONS: u16 = 4;
    let list = wire::attribute(rule, EXPRESSIONS).unwrap_or_default();
    wire::attributes(list).filter_map(|(_, expression)| {
        let name = wire::text(wire::attribute(expression, 1)?);
        Some((name, wire::attribute(expression, 2).unwrap_or_default()))
    })
}

/// The comment of a rule that iptables made: an expression (`struct xt_comment_info`), as it writes our own after
/// `iptables-restore`.
fn match_comment(rule: &[u8]) -> Option<String> {
    expressions(rule)
        .filter(|(name, data)| name == "match" && is_called(data, "comment"))
        .find_map(|(_, data)| wire::attribute(data, 3).map(wire::text))
}

/// What iptables calls a match or a target.
fn is_called(data: &[u8], name: &str) -> bool {
    wire::attribute(data, 1).is_some_and(|found| wire::text(found) == name)
}

/// True without a condition, for a rule that lets nothing pass.
fn ends(rule: &[u8]) -> bool {
    const DROP: u32 = 0;
    let drops = |data: &[u8]| {
        let verdict = || wire::be32_at(wire::attribute(wire::attribute(wire::attribute(data, 2)?, 2)?, 1)?, 0);
        verdict() == Some(DROP)
    };
    let mut ends = false;
    for (name, data) in expressions(rule) {
        match name.as_str() {
            "counter" | "log" => {}
            "match" if is_called(data, "comment") => {}
            "target" if is_called(data, "LOG") => {}
            "target" if is_called(data, "REJECT") => ends = true,
            "reject" => ends = true,
            "immediate" if drops(data) => ends = true,
            _ => return false,
        }
    }
    ends
}

fn compared(rule: &[u8]) -> Vec<String> {
    let comparisons = expressions(rule).filter(|(name, _)| name == "cmp");
    let text = |(_, data): (String, &[u8])| {
        let text = wire::text(wire::attribute(wire::attribute(data, 3)?, 1)?);
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        (text.len() > 1 && printable).then_some(text)
    };
    comparisons.filter_map(text).collect()
}

fn comment(bytes: &[u8], kind: u16) -> Option<String> {
    let data = wire::attribute(bytes, kind)?;
    match data {
        [0, length, text @ ..] => text.get(..usize::from(*length)).map(wire::text),
        _ => None,
    }
}
