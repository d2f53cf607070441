//! What tests stand on: an isolated daemon, image fixtures, a terminal, and the real Docker Engine to compare with.
//!
//! ```text
//! Engine ─┬─ TestDaemon   ferry in a network namespace, data root, run directory and control group of its own
//!         └─ peer::Docker the shared real engine (`FERRY_TEST_ENGINE=docker`, or side by side)
//!    └─ both are a `Client`: a socket, and the command lines that talk to it
//! Neighbour   another host, on a wire to the daemon's
//! Machine     private /run, /var/lib and /etc, for engines at the usual places
//! Engines     dockerd, podman and containerd on a machine of the test's own, with Ferry as their runtime
//! ```
//!
//! Everything a daemon could leave behind carries its mark, `ferry-test-…`. Dropping a [`TestDaemon`] ends it and fails
//! the test when anything with the mark is still there, so every test is also a test of cleaning up.
//!
//! Panics are how this crate reports: it is never part of the binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "test support: a panic is the report"
)]

pub mod bundle;
mod client;
pub mod command;
mod daemon;
mod engine;
mod engines;
pub mod http;
pub mod images;
mod leftovers;
mod machine;
mod namespace;
mod neighbour;
pub mod peer;
mod pty;
mod registry;
pub mod siege;
pub mod tools;
mod truth;

pub use bundle::Bundle;
pub use client::{Client, Program};
pub use command::{Output, Run, Running};
pub use daemon::{Builder, TestDaemon};
pub use engine::{Engine, Kind};
pub use engines::Engines;
pub use machine::Machine;
pub use neighbour::Neighbour;
pub use pty::Pty;
pub use registry::{Registry, Wire};

use std::time::{Duration, Instant};

/// The parent of a process, 0 if there is none: of a container's first one, its shim.
pub fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:\t"));
    line.map_or(0, |line| line.parse().unwrap())
}

/// Calls `check` until it is true, or panics with `what` after ten seconds.
#[track_caller]
pub fn wait_until(what: &str, check: impl FnMut() -> bool) {
    wait_within(Duration::from_secs(10), what, check);
}

/// As [`wait_until`], with a time of one's own.
#[track_caller]
pub fn wait_within(time: Duration, what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + time;
    while !check() {
        assert!(Instant::now() < end, "waited {time:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Calls `left` until it finds nothing, or panics after ten seconds with `what` and what it found last.
#[track_caller]
pub fn wait_for_none(what: &str, left: impl FnMut() -> Vec<String>) {
    wait_for_none_within(Duration::from_secs(10), what, left);
}

/// As [`wait_for_none`], with a time of one's own.
#[track_caller]
pub fn wait_for_none_within(time: Duration, what: &str, mut left: impl FnMut() -> Vec<String>) {
    let end = Instant::now() + time;
    loop {
        let found = left();
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what}, after {time:?}: {found:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says that a test is skipped for lack of something that the virtual machine of `cargo xtask vm` has: there it fails.
#[track_caller]
pub fn skip_outside_guest(why: &str) {
    let is_guest = std::path::Path::new("/vm/tests").exists();
    assert!(!is_guest, "not to be skipped here: {why}");
    eprintln!("skipped: {why} (`cargo xtask vm`)");
}

/// Signals by name, so that tests need no crate for them.
pub mod signal {
    pub use rustix::process::Signal;

    pub const INT: Signal = Signal::INT;
    pub const TERM: Signal = Signal::TERM;
    pub const KILL: Signal = Signal::KILL;
    pub const STOP: Signal = Signal::STOP;
    pub const CONT: Signal = Signal::CONT;
}
