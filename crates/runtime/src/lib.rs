//! From a plan to a running first process: what the engine's shim and the OCI runtime's command line share.
//!
//! ```text
//! a container's record (engine), config.json (oci) ──▶ Plan (pure, prints as text)
//!                                          │ start::start: the shim opens what only the host may (layers, bind sources),
//!                                          ▼               clones once
//!                                        init::run in the child: mounts, pivot_root, identity, seccomp ──▶ execve
//! ```
//!
//! Everything here runs in a single-threaded process without tokio. [`Plan`] decides; [`init`] is one straight-line script
//! in which each system call carries its own error; nothing is decided there that could have been decided before.
//!
//! A failure in the child travels back as a [`Failure`] over a socket that `execve` closes, so `start` returns only when
//! the program runs or the reason why it does not is known.

mod birth;
pub mod caps;
mod copy;
pub mod errand;
pub mod exec;
mod failure;
pub mod gate;
pub mod hooks;
mod identity;
mod init;
mod keyring;
mod labels;
pub mod namespace;
pub mod pid1;
pub mod plan;
mod program;
mod rootfs;
mod source;
pub mod spec;
pub mod start;
mod terminal;
pub mod view;

pub use birth::user_namespace;
pub use failure::{During, Failure, Kind, reason as failure_text};
pub use plan::Plan;
pub use source::inherit;
