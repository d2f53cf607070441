//! The builder: a Dockerfile becomes a graph of steps, and the graph becomes layers and an image's configuration.
//!
//! ```text
//! Request ── frontend ──▶ Graph { Source, Exec, Files, Merge } ── solve ──▶ Solved { Tree, configuration }
//!               │                                                  │
//!               ▼ Session: directories, secrets, agents            ▼ Workspace: layers, processes, the cache
//!             whoever asked for the build                        the engine
//! ```
//!
//! Two traits are all it knows of the rest: a [`Session`] is whoever asked for the build and has the files and the secrets; a
//! [`Workspace`] makes layers, runs processes and remembers results. What happens is told as [`progress::Event`]s.
//!
//! Nothing of a build is trusted: contexts and images are read through [`ferry_sys::Root`], and what a client says is bounded.

mod aside;
pub mod cache;
mod call;
mod error;
pub mod files;
pub mod filters;
pub mod frontend;
mod git;
pub mod graph;
pub mod output;
pub mod progress;
pub mod request;
pub mod session;
mod solve;
pub mod wire;
pub mod workspace;

pub use aside::{aside, blocking};
pub use call::answer;
pub use error::{Error, Failed, Result};
pub use frontend::{Job, Plan, plan};
pub use graph::Graph;
pub use request::Request;
pub use session::Session;
pub use solve::{Solution, copy_tree, solve};
pub use workspace::{Tree, Workspace};
