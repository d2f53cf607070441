//! Docker's command line: what was typed becomes requests, what comes back becomes docker's output, byte for byte.
//!
//! ```text
//! argv ─▶ commands::resolve ─▶ flags::Matches ─▶ commands::X::run ─▶ ferry_client ─▶ daemon
//!                                                    │
//!                                   format (tables, templates) · session (attach, exec, terminals)
//! ```
//!
//! Nothing here reads the process's arguments or environment or ends it: [`Environment`] is filled by the caller, [`Ui`] is
//! where output goes, and [`run`] gives back the exit code.

mod commands;
mod completion;
mod config;
mod contexts;
mod environment;
mod failure;
mod flags;
mod format;
mod hints;
mod options;
mod plugins;
mod progress;
mod reference;
mod session;
mod tls;
mod ui;

use std::ffi::OsString;

use futures_util::future::LocalBoxFuture;

pub use commands::Ending;
pub use environment::{Build, Environment};
pub use options::ulimit;
pub use ui::Ui;

/// Runs one command line, without the program's own name.
pub fn run(args: Vec<OsString>, env: Environment, ui: &mut Ui) -> LocalBoxFuture<'_, Ending> {
    Box::pin(async move {
        match commands::dispatch(&args, &env, ui).await {
            Ok(ending) => ending,
            Err(failure) => {
                if !failure.message.is_empty() {
                    ui.error_line(&failure.message);
                }
                Ending::Code(failure.code)
            }
        }
    })
}
