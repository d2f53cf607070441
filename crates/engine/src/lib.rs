//! The engine: what a container platform does, as plain calls. It knows neither HTTP nor a terminal.
//!
//! ```text
//!  server ──▶ Containers / Images / System (services) ──▶ mailbox ──▶ actor (one task owns one container)
//!                     │                                                 │
//!                     └── reads: the actor's published snapshot         ├─▶ ferry-storage   records, layers
//!                                                                       ├─▶ ferry-network   namespaces, veth
//!                                                                       └─▶ ferry-supervise the shim
//! ```
//!
//! Invariants:
//! * Only a container's actor changes its record. Everybody else reads the snapshot it publishes, so a container that
//!   is stuck delays nobody's `ps`.
//! * Kernel truth wins: at start every record is held against its shim and its exit record, and repaired.
//! * What an operation makes has an owner that removes it when the operation fails half-way.

mod apparmor;
pub mod builds;
pub mod config;
pub mod container;
mod error;
mod events;
mod hello;
pub mod images;
mod live;
pub mod logs;
mod metrics;
mod networks;
mod resolve;
mod runtimes;
mod seccomp;
mod secrets;
mod signal;
mod stats;
mod system;
pub mod volumes;
mod world;

pub use builds::Builds;
pub use config::Config;
pub use container::Containers;
pub use error::{Error, Kind, Result, StartFailure};
pub use events::{Bus, Events};
pub use images::Images;
pub use networks::Networks;
pub use stats::Watch;
pub use system::System;
pub use volumes::Volumes;
pub use world::Engine;
