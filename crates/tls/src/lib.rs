//! TLS 1.2 and 1.3 by rustls with ring, for whoever in Ferry speaks it: files as PEM, a server's end, a client's end, and what
//! is wrong in the words of Go, which scripts look for.
//!
//! ```text
//! Files ─▶ Acceptor   the API over tcp, the registry; with client certificates or without
//! Material ─▶ Connector   the command line
//! ClientFiles ─▶ Connector ─▶ Session   logs for a syslog server, without tokio
//! Verifier              whom a client believes; the registry client makes a configuration of its own with them
//! ```
//! No file is believed for its size, and nothing here reads the environment.

mod acceptor;
mod connector;
mod files;
mod plain;
mod session;
mod verifier;
mod words;

pub use acceptor::{Acceptor, Files};
pub use connector::{ClientFiles, Connector, Material};
pub use files::{Error, certificates, certificates_in, key, key_in, system_roots};
pub use plain::refuse_plain;
pub use session::Session;
pub use tokio_rustls::{client::TlsStream as ClientStream, server::TlsStream as ServerStream};
pub use verifier::Verifier;
pub use words::{alert, explain, of_io};
