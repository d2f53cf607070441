//! The Docker Engine HTTP API over [`ferry_engine`]: what arrives as HTTP becomes engine calls, and nothing is decided here.
//!
//! ```text
//! listen ─▶ serve (one task a connection) ─▶ gate (version, headers) ─▶ routes ─▶ ferry_engine
//!                                                                        │
//!                                    hijack: 101, and the connection itself goes to the shim
//! ```
//!
//! Invariants:
//! * What an error means in HTTP is said once, in [`failure`].
//! * JSON bodies are bounded ([`body::JSON_MAX`]); archives are streamed, never held.
//! * Every connection and every hijacked stream is a task in a tracker; a client that vanishes drops the future that answers
//!   it, and with it what only that client wanted.

mod body;
mod cut;
mod failure;
mod gate;
mod grpc;
mod held;
mod hijack;
mod leftover;
mod listen;
mod metrics;
mod query;
mod routes;
mod serve;

pub use ferry_tls::{Acceptor, Error as TlsError, Files as TlsFiles};
pub use listen::{Error, GROUP, Listener, Place, Result, make_directory};
pub use metrics::router as metrics;
pub use routes::router;
pub use serve::{Activity, PROTOCOLS, serve};

use ferry_engine::Engine;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What this program says of itself in every answer.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// `0.1.0`
    pub version: String,
    /// Names the very build; a command line of another build replaces an engine that was started on demand.
    pub build: String,
    /// This engine was started on demand by a command line.
    pub on_demand: bool,
}

/// Header of `/_ping`: [`Identity::build`].
pub const BUILD_HEADER: &str = "ferry-build";
/// Header of `/_ping`, `true` or absent: [`Identity::on_demand`].
pub const IDLE_EXIT_HEADER: &str = "ferry-idle-exit";

/// What handlers work on.
#[derive(Debug, Clone)]
struct App {
    engine: Engine,
    /// Ends streams that would go on for ever.
    closing: CancellationToken,
    /// Hijacked connections.
    tasks: TaskTracker,
    grpc: grpc::Grpc,
    /// Builds that clients gave a name.
    jobs: routes::Jobs,
}
