//! Batches as the kernel reads them. Attribute numbers are those of linux/netfilter/nf_tables.h.

mod rule;
mod set;
mod value;

use self::rule::Body;
use self::set::{add_set, element};
use super::set::Element;
use super::{Batch, Chain, ChainKind, Command, Rule};
use crate::wire::{self, Writer};
use crate::{Error, Result};

pub const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

pub const NEW_TABLE: u16 = SUBSYSTEM << 8;
pub const GET_TABLE: u16 = NEW_TABLE | 1;
const DEL_TABLE: u16 = NEW_TABLE | 2;
pub const NEW_CHAIN: u16 = NEW_TABLE | 3;
pub const GET_CHAIN: u16 = NEW_TABLE | 4;
const DEL_CHAIN: u16 = NEW_TABLE | 5;
pub const NEW_RULE: u16 = NEW_TABLE | 6;
pub const GET_RULE: u16 = NEW_TABLE | 7;
const DEL_RULE: u16 = NEW_TABLE | 8;
pub const NEW_SET: u16 = NEW_TABLE | 9;
pub const GET_SET: u16 = NEW_TABLE | 10;
const DEL_SET: u16 = NEW_TABLE | 11;
pub const NEW_ELEMENTS: u16 = NEW_TABLE | 12;
pub const GET_ELEMENTS: u16 = NEW_TABLE | 13;
const DEL_ELEMENTS: u16 = NEW_TABLE | 14;
pub const NEW_GENERATION: u16 = NEW_TABLE | 15;
pub const GET_GENERATION: u16 = NEW_TABLE | 16;

/// Elements a message: a list attribute ends at 65,535 bytes, and an element with both its ends is under 500.
const ELEMENTS_A_MESSAGE: usize = 100;
const NAME_LENGTH: usize = 255;
/// `NFT_USERDATA_MAXLEN` is 256, with two bytes of header and a NUL.
const COMMENT_LENGTH: usize = 253;

/// A batch as one buffer.
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// Which command each sequence number belongs to.
    pub sequences: Vec<(u32, usize)>,
}

/// `next` gives sequence numbers. The last command asks for an acknowledgement (kernels before 6.10 give none for
/// BATCH_END).
pub fn encode(batch: &Batch, mut next: impl FnMut() -> u32) -> Result<Encoded> {
    check(&batch.table)?;
    let mut w = Writer::default();
    let mut sequences = Vec::new();
    w.message(BATCH_BEGIN, wire::REQUEST, next(), |w| header(w, 0, SUBSYSTEM));
    let last = batch.commands.iter().rposition(|command| !command.is_empty());
    for (index, command) in batch.commands.iter().enumerate() {
        let mut encoder = Encoder {
            batch,
            w: &mut w,
            last: Some(index) == last,
        };
        let mut numbered = || {
            let sequence = next();
            sequences.push((sequence, index));
            sequence
        };
        encoder.command(command, &mut numbered)?;
    }
    w.message(BATCH_END, wire::REQUEST, next(), |w| header(w, 0, SUBSYSTEM));
    Ok(Encoded {
        bytes: w.finish()?,
        sequences,
    })
}

/// `struct nfgenmsg`.
pub fn header(w: &mut Writer, family: u8, resource: u16) {
    w.put(&[family, 0]);
    w.put(&resource.to_be_bytes());
}

struct Encoder<'a> {
    batch: &'a Batch,
    w: &'a mut Writer,
    last: bool,
}

impl Encoder<'_> {
    fn command(&mut self, command: &Command, next: &mut dyn FnMut() -> u32) -> Result<()> {
        let table = self.batch.table.clone();
        match command {
            Command::AddTable { comment } => {
                let comment = comment.as_deref().map(userdata).transpose()?;
                self.message(NEW_TABLE, wire::CREATE, next(), |w| {
                    w.text(1, &table);
                    w.be32(2, 0);
                    if let Some(comment) = &comment {
                        w.attribute(6, comment);
                    }
                });
            }
            Command::DeleteTable => self.message(DEL_TABLE, 0, next(), |w| w.text(1, &table)),
            Command::AddChain(chain) => {
                check(&chain.name)?;
                self.message(NEW_CHAIN, wire::CREATE, next(), |w| add_chain(w, &table, chain));
            }
            Command::DeleteChain(name) => {
                check(name)?;
                self.message(DEL_CHAIN, 0, next(), |w| {
                    w.text(1, &table);
                    w.text(3, name);
                });
            }
            Command::FlushChain(name) => {
                check(name)?;
                self.message(DEL_RULE, 0, next(), |w| {
                    w.text(1, &table);
                    w.text(2, name);
                });
            }
            Command::AddRule(rule) => self.rule(rule, None, wire::CREATE | wire::APPEND, next())?,
            Command::InsertRule(rule) => self.rule(rule, None, wire::CREATE, next())?,
            Command::InsertRuleBefore { rule, handle } => self.rule(rule, Some(*handle), wire::CREATE, next())?,
            Command::DeleteRule { chain, handle } => {
                check(chain)?;
                self.message(DEL_RULE, 0, next(), |w| {
                    w.text(1, &table);
                    w.text(2, chain);
                    w.attribute(3, &handle.to_be_bytes());
                });
            }
            Command::AddSet(set) => {
                check(&set.name)?;
                self.message(NEW_SET, wire::CREATE, next(), |w| add_set(w, &table, set));
            }
            Command::DeleteSet(name) => {
                check(name)?;
                self.message(DEL_SET, 0, next(), |w| {
                    w.text(1, &table);
                    w.text(2, name);
                });
            }
            Command::AddElements {
                set,
                interval,
                elements,
            } => {
                self.elements(NEW_ELEMENTS, wire::CREATE, set, *interval, elements, next)?;
            }
            Command::DeleteElements {
                set,
                interval,
                elements,
            } => {
                self.elements(DEL_ELEMENTS, 0, set, *interval, elements, next)?;
            }
        }
        Ok(())
    }

    fn message(&mut self, kind: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Writer)) {
        let ack = if self.last { wire::ACK } else { 0 };
        let family = self.batch.family as u8;
        self.w.message(kind, wire::REQUEST | flags | ack, sequence, |w| {
            header(w, family, 0);
            body(w);
        });
    }

    fn rule(&mut self, rule: &Rule, before: Option<u64>, flags: u16, sequence: u32) -> Result<()> {
        check(&rule.chain)?;
        let comment = rule.comment.as_deref().map(userdata).transpose()?;
        let (table, family) = (self.batch.table.clone(), self.batch.family);
        let mut failed = None;
        self.message(NEW_RULE, flags, sequence, |w| {
            w.text(1, &table);
            w.text(2, &rule.chain);
            w.nest(4, |w| {
                let mut body = Body {
                    w,
                    family,
                    nfproto: false,
                    l4proto: false,
                };
                failed = rule
                    .statements
                    .iter()
                    .find_map(|statement| body.statement(statement).err());
            });
            if let Some(handle) = before {
                w.attribute(6, &handle.to_be_bytes());
            }
            if let Some(comment) = &comment {
                w.attribute(7, comment);
            }
        });
        failed.map_or(Ok(()), Err)
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        interval: bool,
        elements: &[Element],
        next: &mut dyn FnMut() -> u32,
    ) -> Result<()> {
        check(set)?;
        let table = self.batch.table.clone();
        for chunk in elements.chunks(ELEMENTS_A_MESSAGE) {
            let mut failed = None;
            self.message(kind, flags, next(), |w| {
                w.text(1, &table);
                w.text(2, set);
                w.nest(3, |w| {
                    failed = chunk.iter().find_map(|one| element(w, one, interval).err());
                });
            });
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    }
}

fn add_chain(w: &mut Writer, table: &str, chain: &Chain) {
    w.text(1, table);
    w.text(3, &chain.name);
    if let Some(base) = &chain.base {
        w.nest(4, |w| {
            w.be32(1, base.hook as u32);
            w.be32(2, base.priority.cast_unsigned());
        });
        w.be32(5, base.policy as u32);
        let kind = match base.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        w.text(7, kind);
    }
}

/// A comment as nft keeps it: type 0, length, text with NUL.
fn userdata(comment: &str) -> Result<Vec<u8>> {
    match u8::try_from(comment.len() + 1) {
        Ok(length) if comment.len() <= COMMENT_LENGTH && !comment.contains('\0') => {
            let mut bytes = vec![0, length];
            bytes.extend_from_slice(comment.as_bytes());
            bytes.push(0);
            Ok(bytes)
        }
        _ => Err(Error::TooLong(format!("a comment of {} bytes", comment.len()))),
    }
}

pub fn check(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_LENGTH || name.contains('\0') {
        return Err(Error::TooLong(format!("{name:?} as a name")));
    }
    Ok(())
}
