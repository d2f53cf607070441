//! Control groups: v1, hybrid and v2 behind one [`Cgroup`].
//!
//! ```text
//! engine start   Hierarchy::detect()  mount table read once; serialised to every shim
//! container      Hierarchy::create("ferry/<id>", resources) -> Cgroup + Warnings
//! child          is born in Cgroup::birth(): cloned into a directory (v2), writes "0" to tasks files (v1)
//! life           update, freeze, thaw, stats, oom_watch
//! end            kill, remove; Hierarchy::remove_empty("ferry") by the last one
//! ```
//!
//! * What the kernel made of a value is read back: a limit that holds otherwise is a [`Warning`], one that the kernel
//!   refuses an [`Error`] that says what the value means.
//! * An update is all or nothing: what was written before a part of it was refused is put back.
//! * v1: a container has a directory in every hierarchy. A controller that is not mounted matters only when a limit needs it.
//!   The hierarchies without controllers (`name=systemd`, and v2 on a hybrid machine) tell systemd whose a process is: in the
//!   group of its caller a container would end with the caller's service. Where they are not the caller's, it stays there.
//! * v2: every controller there is is switched on from the mount down to the parent.

pub mod devices;

mod cgroup;
mod error;
mod former;
mod group;
mod hierarchy;
mod limits;
mod mountinfo;
mod network;
mod rdma;
mod signal;
mod stats;
mod v1;
mod v2;
mod warning;

pub use cgroup::{Birth, Cgroup};
pub use error::Error;
pub use hierarchy::{Hierarchy, Layout, V1Mount};
pub use stats::{BlockIo, BlockIoEntry, Charge, Cpu, Cpuset, HugePages, Memory, Pids, Pressure, Rdma, Stall, Stats};
pub use v1::CONTROLLERS as V1_CONTROLLERS;
pub use warning::Warning;
