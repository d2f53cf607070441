//! Caches of builds that are kept elsewhere: in an image's configuration, in a registry, in a directory of the client's.
//!
//! ```text
//! import   manifest ─▶ configuration ─▶ records, in memory, of this build alone
//!                                         │ a key that the store does not know, and whose files are needed
//!                                         ▼
//! obtain   its layers, as of a pull ─▶ remembered like a step that was made
//!
//! export   the store's records ─▶ their layers, as of a push ─▶ configuration ─▶ manifest
//! ```
//!
//! A cache is trusted as far as its owner is: it may say that a step becomes this or that. Its layers are what their digests say.

mod document;
mod export;
mod import;
mod written;

pub(super) use export::{Handing, export, inline};
pub(super) use import::{Imported, Kept, MOST, bring, import, keep, obtain, small};
pub(super) use written::media_type;
