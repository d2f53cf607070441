//! The floor Ferry stands on: the system calls that no safe crate offers, and safe paths.
//!
//! This is the only crate with `unsafe`. One system call a function; every `unsafe` block says which precondition holds
//! and why. What `rustix` already offers safely is used from there, not wrapped again.
//!
//! [`Root`] is the other half: a directory whose content somebody else controls (an image, a container, a volume, a
//! build context). Whatever lies below it is reached through the `Root` and used by file descriptor, never by string.

pub mod bpf;
pub mod clone;
pub mod datagram;
pub mod exe;
pub mod exec;
pub mod handle;
pub mod mount;
pub mod ns;
pub mod overlay;
pub mod packet;
pub mod probe;
pub mod process;
pub mod root;
pub mod seccomp;
pub mod socket;
pub mod xtables;

pub use clone::{Child, Exit, SingleThreaded};
pub use mount::Mount;
pub use root::Root;
