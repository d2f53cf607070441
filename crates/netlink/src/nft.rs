//! nf_tables (nft(8), linux/netfilter/nf_tables.h): changes to one table as a value, committed all or nothing.
//!
//! ```text
//!   Batch = [ add table · add chain · add set · add elements · add rule · ... ]
//!     ├─ Display: nft's own language, for tests and logs
//!     └─ Nft::commit: BATCH_BEGIN, a message a command, BATCH_END in one send; the kernel applies all of it or none
//! ```
//!
//! A rule is a list of [`Statement`]s. Like `nft`, the encoder puts the checks in front that a header field needs in an
//! `inet` table (`meta nfproto` before an address, `meta l4proto` before a port).
//!
//! A batch may also concern somebody else's table, such as iptables': what is inserted there in front, with a comment,
//! [`Nft::chain_rules`] finds again. `iptables` understands interfaces, counters, verdicts and comments as written here.
//!
//! A whole table is replaced by [`Batch::replace`]: packets see the old rules or the new ones, never none.

mod encode;
mod expression;
mod print;
mod query;
mod set;
mod watch;

pub use expression::{
    AddressType, CtState, CtStatus, Field, NatKind, NatTarget, Operator, PortOf, Reject, Statement, Value, Verdict,
};
pub use query::{BaseChain, ChainInfo, Nft, RuleInfo, Shape, TableInfo};
pub use set::{Data, Element, ElementData, Key, Set, Type};
pub use watch::{Changed, Watch};

/// What a table's chains see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6 in one.
    Inet = 1,
    Ip = 2,
    Netdev = 5,
    Bridge = 7,
    Ip6 = 10,
}

/// Commands on one table, in order. Nothing of it happens unless all of it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub family: Family,
    pub table: String,
    pub commands: Vec<Command>,
}

/// Adding what exists already and is the same is not an error; deleting what does not exist is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The comment is kept with the table (Linux 5.10) and given back by [`Nft::table`].
    AddTable {
        comment: Option<String>,
    },
    DeleteTable,
    AddChain(Chain),
    DeleteChain(String),
    /// Removes the rules of a chain.
    FlushChain(String),
    /// Appends.
    AddRule(Rule),
    /// Puts a rule in front of all that are in the chain.
    InsertRule(Rule),
    /// Puts a rule in front of the one that has the handle.
    InsertRuleBefore {
        rule: Rule,
        handle: u64,
    },
    DeleteRule {
        chain: String,
        handle: u64,
    },
    AddSet(Set),
    DeleteSet(String),
    AddElements {
        set: String,
        interval: bool,
        elements: Vec<Element>,
    },
    /// Of intervals of several fields the kernel removes the one that has the lower ends in it, whatever the upper ones
    /// are (up to 6.18 at least): name what was added, and nothing less.
    DeleteElements {
        set: String,
        interval: bool,
        elements: Vec<Element>,
    },
}

impl Command {
    /// True when there is nothing to tell the kernel.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Command::AddElements { elements, .. } | Command::DeleteElements { elements, .. } => elements.is_empty(),
            _ => false,
        }
    }
}

/// A chain; without `base` it is only reached by jumps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
}

/// Where packets enter a base chain. Lower priorities come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
    pub policy: Policy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
    Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    Drop = 0,
    Accept = 1,
}

/// nft's names for the usual priorities.
pub mod priority {
    pub const RAW: i32 = -300;
    pub const MANGLE: i32 = -150;
    pub const DSTNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SECURITY: i32 = 50;
    pub const SRCNAT: i32 = 100;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub chain: String,
    pub statements: Vec<Statement>,
    pub comment: Option<String>,
}

impl Batch {
    /// An empty batch for a table, which must exist or be added first.
    pub fn new(family: Family, table: impl Into<String>) -> Self {
        Self {
            family,
            table: table.into(),
            commands: Vec::new(),
        }
    }

    /// A batch that starts by removing all there is in the table, which need not exist.
    pub fn replace(family: Family, table: impl Into<String>, comment: Option<String>) -> Self {
        let mut batch = Self::new(family, table);
        batch.commands = vec![
            Command::AddTable { comment: None },
            Command::DeleteTable,
            Command::AddTable { comment },
        ];
        batch
    }

    pub fn push(&mut self, command: Command) -> &mut Self {
        self.commands.push(command);
        self
    }

    pub fn chain(&mut self, name: &str, base: Option<Base>) -> &mut Self {
        self.push(Command::AddChain(Chain {
            name: name.to_owned(),
            base,
        }))
    }

    pub fn rule(&mut self, chain: &str, statements: Vec<Statement>) -> &mut Self {
        self.push(Command::AddRule(Rule {
            chain: chain.to_owned(),
            statements,
            comment: None,
        }))
    }

    /// Adds a set and its first elements.
    pub fn set(&mut self, set: Set, elements: Vec<Element>) -> &mut Self {
        let (name, interval) = (set.name.clone(), set.interval);
        self.push(Command::AddSet(set));
        if !elements.is_empty() {
            self.push(Command::AddElements {
                set: name,
                interval,
                elements,
            });
        }
        self
    }
}
