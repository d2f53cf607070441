//! Commits batches, and asks what is there.

use std::os::fd::{AsFd, BorrowedFd};

use super::encode::{self, Encoded, header};
use super::{Batch, Command, Family};
use crate::socket::{Answer, Socket};
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

const NETLINK_NETFILTER: isize = 12;

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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
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

/// Tells when somebody changes a table. Its descriptor is readable when there may be something new.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    family: Family,
    table: String,
}

impl Watch {
    /// Watches a table, which need not exist, in the calling thread's network namespace.
    pub fn open(family: Family, table: impl Into<String>) -> Result<Self> {
        const NFNLGRP_NFTABLES: u32 = 7;
        let mut socket = Socket::open(NETLINK_NETFILTER)?;
        socket.join(NFNLGRP_NFTABLES)?;
        Ok(Self {
            socket,
            family,
            table: table.into(),
        })
    }

    /// True when the table was changed since the last call, by anybody, or when that cannot be known. Does not wait.
    pub fn changed(&mut self) -> Result<bool> {
        let mut changed = false;
        let (family, table) = (self.family as u8, self.table.as_str());
        let complete = self.socket.heard(|message| {
            let concerned = message.payload.first() == Some(&family);
            changed |= concerned && attributes(message).is_some_and(|bytes| is_of(bytes, table));
        })?;
        Ok(changed || !complete)
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(NETLINK_NETFILTER)?;
        socket.enlarge();
        Ok(Self { socket })
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

    /// The rules of a table, in order; none when there is no such table.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<RuleInfo>> {
        let mut found = Vec::new();
        self.ask(
            encode::GET_RULE,
            wire::DUMP,
            family as u8,
            table,
            &[(1, table)],
            |message| {
                let rule = attributes(message)
                    .filter(|bytes| is_of(bytes, table))
                    .and_then(|bytes| {
                        Some(RuleInfo {
                            chain: wire::text(wire::attribute(bytes, 2)?),
                            handle: wire::be64_at(wire::attribute(bytes, 3)?, 0)?,
                            comment: comment(bytes, 7),
                        })
                    });
                found.extend(rule.filter(|_| message.kind == encode::NEW_RULE));
            },
        )?;
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
fn attributes(message: Message<'_>) -> Option<&[u8]> {
    message.payload.get(4..)
}

/// Kernels differ in whether a dump is limited to the table that was asked for.
fn is_of(bytes: &[u8], table: &str) -> bool {
    wire::attribute(bytes, 1).is_some_and(|name| wire::text(name) == table)
}

fn comment(bytes: &[u8], kind: u16) -> Option<String> {
    let data = wire::attribute(bytes, kind)?;
    match data {
        [0, length, text @ ..] => text.get(..usize::from(*length)).map(wire::text),
        _ => None,
    }
}
