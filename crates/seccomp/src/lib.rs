//! Seccomp profiles, compiled.
//!
//! ```text
//! docker's JSON ──Profile::resolve(caps, kernel, arch)──▶ LinuxSeccomp ──compile──▶ Program ──▶ seccomp(2), in sys
//! ```
//! A filter runs at every system call and costs about 2.5 us an instruction to load, so it is short both ways: by
//! architecture one binary search over ranges of numbers with the same verdict, conditions on arguments only in the
//! leaves. What a program *means* is libseccomp's and runc's reading of the profile (`rules`), with runc's answer
//! `ENOSYS` for calls newer than the profile (`numbers`).
//!
//! Everything here is pure: nothing is loaded, and nothing is cached.

mod action;
mod arch;
mod assembler;
mod compile;
mod error;
mod numbers;
mod profile;
mod program;
mod rules;
mod table;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use arch::Arch;
pub use compile::compile;
pub use error::Error;
pub use profile::{Profile, default_profile, parse_docker_profile};
pub use program::{Program, SockFilter};
