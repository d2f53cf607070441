//! The language of Dockerfiles, as BuildKit's frontend 1.26 reads it, without any I/O.
//!
//! ```text
//! bytes ── source ──▶ nodes ── instruction ──▶ Dockerfile { arguments, stages of instructions }
//!                                                  │
//!                     solver: Command::expand(Expander(variables)) ── Mount, Chmod, Port, Script
//!                                                  │
//! bytes ── checks::run(Options, bases) ──▶ Report { warnings, error }      .dockerignore ──▶ Ignore
//! ```
//!
//! Nothing is trusted: no input makes it panic, recurse as deep as the input is nested, or take more than linear time and
//! memory; what variables and patterns could multiply is bounded ([`words::MAX_WORD`]).

pub mod checks;
mod error;
mod excerpt;
mod file;
pub mod ignore;
pub mod instruction;
pub mod path;
mod range;
mod source;
mod split;
pub mod suggest;
pub mod words;

pub use error::{Error, Problem, Result};
pub use file::{Dockerfile, GlobalArgument, Stage, trigger};
pub use ignore::Ignore;
pub use range::{Lines, Position, Range};
pub use source::directive::{Directive, Syntax, syntax};
pub use source::heredoc::Heredoc;
pub use suggest::nearest;
