//! An OCI registry: the whole of distribution-spec 1.1 as a router that can be served alone or mounted elsewhere.
//!
//! ```text
//! serve (TCP, TLS) ─▶ router ─▶ auth: who, and what may they ─▶ Backend ─▶ FileSystem
//!                                                                 ▲            └─ collector, beside writers
//!                                              control.sock ──────┘
//! ```
//!
//! * [`Backend`] is what is needed of storage, [`FileSystem`] the one there is. Its module says what is on the disk.
//! * [`Registry`] with [`Options`] and [`Auth`] makes a [`router`]. [`serve()`] has the limits of connections.
//! * Nothing from outside has a length that is not bounded, and names are checked before anything is done with them ([`Name`]).
//! * What a client is told is there is whole and durable; what it was told while it pushes stays for the grace time.
//!
//! Failure modes: a full disk is 507 and leaves nothing half-written; content that is damaged on the disk is 500 for manifests
//! and small blobs, which are verified when they are read, and mended by pushing it again; a client that stops sending or reading
//! is cut after a minute, and an upload goes on where it was.

mod auth;
mod backend;
mod cache;
pub mod control;
mod failure;
mod fs;
mod http;
mod manifest;
mod metrics;
mod name;
mod serve;
mod through;
mod upstream;

pub use auth::{Access, Auth, Config as AuthConfig, Error as AuthError, Rule, secret};
pub use backend::{
    Append, Backend, Collected, Collection, Content, Error, Hold, Incoming, Intent, Referrers, Result, Stored, Trimmed,
};
pub use ferry_tls::{Acceptor, Error as TlsError, Files as TlsFiles};
pub use fs::{FileSystem, Options as FileSystemOptions};
pub use http::{Options, Patience, Peer, Registry, router};
pub use manifest::{Descriptor, Error as ManifestError, Manifest};
pub use metrics::Metrics;
pub use name::{Invalid, Name, Reference, Tag, UploadId};
pub use serve::{Limits, Listener, PROTOCOLS, metrics_router, serve};
pub use through::{Caching, Places};
pub use upstream::{Asked, Fetched, Trouble, Upstream, Why};
