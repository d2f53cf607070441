//! Quotes, escapes and variables, as BuildKit's shell lexer reads them.
//!
//! ```text
//! $v ${v}              the value            ${v:-w} ${v-w}   w if unset (or empty, with the colon)
//! ${v:+w} ${v+w}       w if set             ${v:?e} ${v?e}   an error if unset
//! ${v#p} ${v##p}       without the shortest, longest prefix that matches the pattern; % and %% for suffixes
//! ${v/p/r} ${v//p/r}   the first match, every match replaced
//! ```
//!
//! Words nest in each other to any depth without recursion. What a word becomes is limited ([`MAX_WORD`]), and so is the
//! work patterns may be: variables that double each other would otherwise fill the memory from a few lines.

mod lexer;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};

pub use lexer::Lexer;

/// Variables by name.
pub type Variables = BTreeMap<String, String>;

/// The most bytes one word may expand to, beyond its own length.
pub const MAX_WORD: usize = 4 << 20;

/// What a word became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// With quotes gone and values in place; spaces are kept.
    pub text: String,
    /// The same, split where spaces were outside quotes, those inside values included.
    pub words: Vec<String>,
    /// Steps that patterns took.
    pub(crate) steps: usize,
}

/// The names a word asked for. Filled also when the word fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub matched: BTreeSet<String>,
    pub unmatched: BTreeSet<String>,
}

/// Why a word has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    pub word: String,
    pub what: String,
}

#[cfg(test)]
mod tests;
