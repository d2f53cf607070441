//! Which devices a group may open and make: OCI's list boiled down, for v1's files and for v2's eBPF program.

mod program;
mod rules;

pub use program::program;
pub use rules::defaults;

pub(crate) use rules::{Access, Kind, Node, Rules};
