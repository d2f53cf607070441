//! Files that a step writes: which ones, what their contents are, and the writing.
//!
//! ```text
//! Source + Copy ── select ──▶ Selected ── digest ──▶ the step's key
//!                                │
//!                                └── write ──▶ the draft
//! ```

use ferry_dockerfile::Ignore;
use ferry_sys::Root;

/// Where files are copied from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub root: &'a Root,
    /// What of it is not there, for who copies.
    pub ignore: Option<&'a Ignore>,
    /// Everything is root's, whoever owns it: a context's files.
    pub plain_owner: bool,
}
