//! Supervision: a shim a container, and the daemon's handle on it.
//!
//! ```text
//! daemon ── spawn, SOCK_SEQPACKET on stdin ──▶ shim ── clone3 ──▶ container
//!   Task  ◀── wire::{Call, Message} ──▶  shim::run (poll loop, no tokio, one thread)
//!                                          │ owns: pty or pipes, log, execs, cgroup, the exit record
//! ```
//!
//! A shim does not need the daemon to live. A new daemon connects to `shim.sock` in the container's run directory and is
//! told where things stand; what happened meanwhile is in the exit record, which is written before anybody is told.
//!
//! A client's connection is handed to the shim after the HTTP upgrade: the shim writes Docker's stream frames itself, so a
//! session outlives the daemon too, and the last byte, the exit and the end of the stream keep their order because one
//! process makes all three. The shim ends a stream only after the daemon has acknowledged the exit (or is not there).

mod error;
mod exit;
mod files;
mod health;
mod launch;
pub mod log;
mod logging;
pub mod shim;
mod supervisor;
mod task;
pub mod wire;

pub use error::Error;
pub use exit::Exit;
pub use files::{FileStat, Files, FilesError, FilesRequest, FilesView, Operation};
pub use health::{Health, HealthCheck, HealthStatus, Probe, ProbeResult};
pub use launch::{IdMap, Launch, Network, Relay, RelayProtocol, Resolver, Rootfs, Runtime, Stdin};
pub use logging::{LogFile, Logging, Syslog, SyslogAddress, SyslogLayout, SyslogTls};
pub use supervisor::{Shim, Supervisor};
pub use task::{Attach, Event, Exec, Task};
pub use wire::State;
