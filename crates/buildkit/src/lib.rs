//! BuildKit's wire protocol: the messages and services of `proto/`, and fsutil, by which directories are transferred.
//!
//! ```text
//! docker build ──/grpc──▶ control::Control, frontend::LLBBridge     served by the daemon
//!              ◀─/session── FileSync, FileSend, Upload, Secrets, …   called by the daemon ([`session`] has their paths)
//! ```
//!
//! [`fsutil::Receiver`] and [`fsutil::Sender`] are the two ends of a transfer, without the connection between them: packets in,
//! packets out, and files below a [`ferry_sys::Root`]. They block on files and on nothing else.

pub mod fsutil;
pub mod session;

#[allow(clippy::all, clippy::pedantic, missing_debug_implementations)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}

pub use wire::containerd::services::content::v1 as content;
pub use wire::google::rpc::Status as RpcStatus;
pub use wire::grpc::health::v1 as health;
pub use wire::moby::buildkit::secrets::v1 as secrets;
pub use wire::moby::buildkit::v1 as control;
pub use wire::moby::buildkit::v1::apicaps;
pub use wire::moby::buildkit::v1::frontend;
pub use wire::moby::buildkit::v1::types;
pub use wire::moby::filesync::v1 as filesync;
pub use wire::moby::sshforward::v1 as sshforward;
pub use wire::opentelemetry::proto::collector::trace::v1 as trace;
pub use wire::pb;

pub use prost::Message;
pub use prost_types::{Any, Timestamp};
