//! Control groups: v1, hybrid and v2 behind one [`Cgroup`].
//!
//! ```text
//! engine start   Hierarchy::detect()  mount table read once; serialised to every shim
//! container      Hierarchy::create("ferry/<id>", resources) -> Cgroup + Warnings
//! child          writes "0" to each of Cgroup::enter_fds()      (v2: is cloned into Cgroup::v2_dir())
//! life           update, freeze, thaw, stats, oom_watch
//! end            kill, remove; Hierarchy::remove_empty("ferry") by the last one
//! ```
//!
//! * What the kernel made of a value is read back: a limit that holds otherwise is a [`Warning`], one that the kernel
//!   refuses an [`Error`] that says what the value means.
//! * An update is all or nothing: what was written before a part of it was refused is put back.
//! * v1: a container has a directory in each hierarchy of memory, cpu, cpuacct, pids, devices, freezer, blkio, perf_event
//!   and misc, and in those of cpuset, hugetlb, net_cls, net_prio and rdma only with a limit of theirs. A controller that is
//!   not mounted matters only when a limit needs it.
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

pub use cgroup::Cgroup;
pub use error::Error;
pub use hierarchy::{Hierarchy, Layout, V1Mount};
pub use stats::{BlockIo, BlockIoEntry, Charge, Cpu, Cpuset, HugePages, Memory, Pids, Pressure, Rdma, Stall, Stats};
pub use v1::CONTROLLERS as V1_CONTROLLERS;
pub use warning::Warning;
