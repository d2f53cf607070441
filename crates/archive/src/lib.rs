//! Tar streams: layers, `cp`, import, export, build contexts.
//!
//! ```text
//! bytes ── decompress ──▶ Reader (headers, PAX, GNU, sparse; all bounded) ──▶ Entry ── apply ──▶ ferry_sys::Root
//! ```
//!
//! Every archive is hostile: names, numbers and sizes are checked before they are used ([`Limits`]), and whatever is written
//! goes through a [`ferry_sys::Root`], so that no entry can reach outside the directory it is unpacked to.
//!
//! The headers are parsed here and not by the `tar` crate, which has no bounds on extended headers and no PAX sparse
//! files, and whose idea of which header a PAX record belongs to was the subject of two advisories. Where readers
//! disagree about an archive, Go's `archive/tar` (what Docker reads with) is followed, or the archive is refused.

mod ahead;
pub mod apply;
pub mod changed;
pub mod create;
pub mod decompress;
pub mod diff;
mod error;
mod header;
mod limits;
pub mod merged;
mod pax;
pub mod reader;
pub mod recipe;
mod sparse;
pub mod tree;
pub mod writer;

pub use apply::{Applied, ApplyOptions, Below, Owner, Warning, Whiteouts, apply};
pub use changed::{Change, Changed, changed};
pub use create::{CreateOptions, create};
pub use decompress::{Compression, Decoder, decompress};
pub use diff::{DiffOptions, Shift, Written, diff};
pub use error::{Error, Result};
pub use limits::Limits;
pub use merged::merged;
pub use reader::{Entry, Kind, Reader, Time};
pub use recipe::{Recorder, rebuild};
pub use writer::Writer;
