//! `ferry runtime`: the command line of runc, for engines that bring their own containers.
//!
//! ```text
//! create   config.json ──▶ Plan ──▶ ferry_runtime::start ──▶ first process waits at its gate; state.json; exit
//! start    opens the gate: startContainer hooks, seccomp, execve, then poststart hooks
//! exec     joins the namespaces of the first process          kill · pause · ps · update …  by pidfd and cgroup
//! delete   kills what is left, removes cgroup and state, poststop hooks
//! ```
//! Every command is one short-lived, single-threaded process without tokio, because callers start one for each step. What
//! a command makes, it takes back when it fails.
//!
//! Texts and exit statuses are runc's where callers parse them; `docs/oci.md` lists every field of the specification with
//! where it is done, or why it is refused. Nothing here reads argv or the environment: [`Invocation`] brings them.

mod cgroups;
mod command_line;
mod commands;
mod config;
mod console;
mod error;
mod flags;
mod log;
mod net_devices;
mod number_list;
mod plan;
mod resctrl;
mod rootfs;
mod state;

pub use command_line::{Invocation, run};
pub use error::Error;
