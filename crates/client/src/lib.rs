//! A client of the Docker Engine API.
//!
//! ```text
//! Client::connect(Host)  ──▶ request ──▶ idle connection, or a new one ──▶ Response ──▶ json / lines / bytes
//!                        └─▶ upgrade ──▶ a connection of its own       ──▶ Upgraded (raw bytes, half-close)
//! ```
//!
//! * Connecting costs nothing until the first request; one idle connection is kept and used again when its last answer has
//!   been read to the end. A request made while another is under way opens a connection of its own.
//! * The API version is negotiated only when it has to be: requests start at the newest version this client knows, and a
//!   daemon that finds it too new is asked (`HEAD /_ping`) for its own, once.
//! * Nothing here reads the environment: the caller says which host, which version and whose certificates.

mod body;
mod client;
mod error;
mod host;
mod query;
mod resolve;
mod stream;
#[cfg(test)]
mod tests;

pub use body::{Body, Lines, Response};
pub use client::{Client, Ping};
pub use error::{Error, Result};
pub use ferry_tls::{Connector, Material};
pub use host::Host;
pub use http::Method;
pub use query::Query;
pub use stream::{Stream, Upgraded};

/// The newest API version this client speaks.
pub const API_VERSION: &str = "1.51";
