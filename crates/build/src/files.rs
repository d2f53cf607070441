//! Files that a step writes: which ones, what their contents are, and the writing.
//!
//! ```text
//! Source + Copy ── select ──▶ Groups of entries ── digest ──▶ the step's key
//!                                   │
//!                                   └── write ──▶ the draft, by way of what lies below it
//! ```
//!
//! A source may be hostile and may change meanwhile: every name is opened below a directory that is open, and no link leads out of
//! the source's root.

mod archive;
mod digest;
mod index;
mod owner;
mod place;
mod select;
mod write;

use ferry_dockerfile::Ignore;
use ferry_sys::Root;

pub use archive::archive;
pub use digest::digest;
pub use index::Index;
pub use write::{Options, write};

/// Where files are copied from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub root: &'a Root,
    /// What of it is not there, for who copies.
    pub ignore: Option<&'a Ignore>,
    /// Everything is root's, whoever owns it: a context's files.
    pub plain_owner: bool,
    /// What is known of its files' contents.
    pub index: Option<&'a Index>,
}
