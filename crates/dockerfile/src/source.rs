//! From bytes to instructions that are not understood yet.
//!
//! ```text
//! bytes ── lines ──▶ logical lines ── node ──▶ Node: name, flags, arguments by their shape, here-documents, range
//! ```

pub(crate) mod directive;
pub(crate) mod heredoc;
mod lines;
mod node;

pub(crate) use lines::read;
pub(crate) use node::{Arguments, Node, trigger};
