//! fsutil: how BuildKit's clients and its daemon transfer a directory.
//!
//! ```text
//! sender    STAT(a) STAT(b) STAT(b/c) … STAT()              DATA(2,…) DATA(2)           FIN
//! receiver                    REQ(2) …            (what differs from what it has)   FIN
//! ```
//! Entries come in the order of a walk, a directory before what is in it; a file is asked for by its number among them. Empty data
//! ends a file.

mod mode;
mod path;
mod receive;
mod send;

use std::io;

pub use crate::wire::fsutil::types::packet::PacketType;
pub use crate::wire::fsutil::types::{Packet, Stat};
pub use receive::{Limits, Receiver};
pub use send::{Sender, stat};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a transfer ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side breaks the protocol, or asks for what it must not have.
    #[error("{0}")]
    Protocol(String),
    /// The other side gave up, and says why.
    #[error("{0}")]
    Remote(String),
    #[error("cannot {what} {path}")]
    Io {
        what: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn io<E: Into<io::Error>>(what: &'static str, path: impl AsRef<std::path::Path>) -> impl FnOnce(E) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::Io {
            what,
            path,
            source: source.into(),
        }
    }
}

impl Packet {
    fn of(kind: PacketType) -> Self {
        Self {
            r#type: kind.into(),
            ..Self::default()
        }
    }

    /// That we give up, and why.
    pub fn failure(why: &str) -> Self {
        Self {
            data: why.as_bytes().to_vec().into(),
            ..Self::of(PacketType::PacketErr)
        }
    }
}
