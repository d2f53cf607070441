//! Names of containers: what a container's resolver at 127.0.0.11 answers, without any I/O.
//!
//! ```text
//! engine ── Zone::write, Settings::to_bytes ──▶ files ──▶ shim ── Zone::parse, Settings::parse ──▶ Resolver
//! ```

mod cache;
mod error;
mod packet;
mod resolver;
mod settings;
mod zone;

pub use error::Error;
pub use resolver::{Action, Resolver, TTL, Transport, View};
pub use settings::{From, Link, MAX_LINKS, MAX_SERVERS, MAX_SETTINGS, MAX_ZONES, Options, Server, Settings, ZoneFile};
pub use zone::{Endpoint, MAX_ZONE, Zone, is_name};

/// Where a container finds its resolver.
pub const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);
