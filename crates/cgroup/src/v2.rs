//! Version 2: one hierarchy, controllers switched on from the top down (Documentation/admin-guide/cgroup-v2.rst).
//!
//! ```text
//! mount      subtree_control: +cpuset +cpu +io +memory +pids …
//!  └ ferry   subtree_control: +cpuset +cpu +io +memory +pids …
//!     └ <id> limits, processes
//! ```
//! A group other than the root either holds processes or hands controllers down. A `ferry` that runs in a container of
//! its own finds processes in what it sees as the root; they are moved into a child first, as Docker-in-Docker does.

mod cpu;
mod cpuset;
mod delegation;
mod devices;
mod events;
mod freezer;
mod hugetlb;
mod io;
mod memory;
mod stats;
mod unified;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::cgroup::Birth;
use crate::error::{Error, Result};
use crate::former::Changed;
use crate::group::{self, Group};
use crate::limits::Limits;
use crate::signal;
use crate::stats::{Cpu, Stats};
use crate::warning::Warning;
use crate::{network, rdma};

/// Takes the processes of a root that is none.
const LEAF: &str = "init";

const CONTROLLERS: &str = "cgroup.controllers";
const SUBTREE: &str = "cgroup.subtree_control";
const PROCESSES: &str = "cgroup.procs";

/// The mounted unified hierarchy with its directory open.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    directory: OwnedFd,
}

impl Mount {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        Ok(Self {
            directory: group::open_mount(&path)?,
            path,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn remove_empty(&self, path: &str) {
        // In use or absent: both leave nothing to do.
        let _ = self.group(path).remove_directory();
    }

    fn group<'a>(&'a self, path: &'a str) -> Group<'a> {
        Group {
            root: self.directory.as_fd(),
            mount: &self.path,
            path,
        }
    }

    /// Switches all controllers on in every group above `path`, as other runtimes do: for statistics, and for those who
    /// set a limit later or by hand. What is still missing afterwards shows as a missing file, and as a warning where a
    /// limit needs it.
    fn enable(&self, path: &str) -> Result<()> {
        let parents: Vec<&str> = [""].into_iter().chain(group::parents(path)).collect();
        let available = self.group("").read_known(CONTROLLERS)?;
        let wanted: Vec<&str> = available.split_whitespace().collect();
        let nearest = self
            .group(parents.last().copied().unwrap_or_default())
            .read_known(SUBTREE)?;
        if has_all(&nearest, &wanted) {
            return Ok(());
        }
        for parent in parents {
            let parent = self.group(parent);
            if !has_all(&parent.read_known(SUBTREE)?, &wanted) {
                switch_on(&parent, &wanted)?;
            }
        }
        Ok(())
    }
}

fn has_all(controllers: &str, wanted: &[&str]) -> bool {
    wanted
        .iter()
        .all(|wanted| controllers.split_whitespace().any(|held| held == *wanted))
}

/// All in one write, which takes effect as a whole or not at all; then one by one.
fn switch_on(group: &Group<'_>, controllers: &[&str]) -> Result<()> {
    let line = controllers
        .iter()
        .map(|c| format!("+{c}"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut outcome = group.write(SUBTREE, &line);
    if outcome == Err(Errno::BUSY) {
        move_to_leaf(group)?;
        outcome = group.write(SUBTREE, &line);
    }
    if outcome.is_err() {
        for controller in controllers {
            let _ = group.write(SUBTREE, &format!("+{controller}"));
        }
    }
    Ok(())
}

/// A round that meets nobody is the last: a process forked meanwhile starts where its parent is.
fn move_to_leaf(group: &Group<'_>) -> Result<()> {
    let path = if group.path.is_empty() {
        LEAF.to_owned()
    } else {
        format!("{}/{LEAF}", group.path)
    };
    let leaf = group.with_path(&path);
    leaf.make_with_parents()?;
    for _ in 0..100 {
        let processes = group.read_known(PROCESSES)?;
        let mut moved = false;
        // 0 is a process of another pid namespace, out of reach.
        for pid in processes.lines().filter(|pid| *pid != "0") {
            moved |= leaf.write(PROCESSES, pid).is_ok();
        }
        if !moved {
            break;
        }
    }
    Ok(())
}

/// One container's directory.
#[derive(Debug)]
pub(crate) struct Cgroup {
    mount: Arc<Mount>,
    path: String,
    directory: OwnedFd,
}

impl Cgroup {
    pub fn create(mount: Arc<Mount>, path: String, resources: &LinuxResources) -> Result<(Self, Vec<Warning>)> {
        mount.group(&path).make_with_parents()?;
        let mut warnings = Vec::new();
        let made = mount.enable(&path).and_then(|()| {
            let directory = mount.group(&path).open_dir()?;
            let mut limits = Limits {
                group: mount.group(&path),
                warnings: &mut warnings,
                former: None,
            };
            apply(&mut limits, directory.as_fd(), resources, true)?;
            Ok(directory)
        });
        match made {
            Ok(directory) => Ok((Self { mount, path, directory }, warnings)),
            Err(error) => {
                // The first failure is what matters; what cannot be removed either is swept by the engine.
                mount.remove_empty(&path);
                group::parents(&path)
                    .rev()
                    .for_each(|parent| mount.remove_empty(parent));
                Err(error)
            }
        }
    }

    pub fn open(mount: Arc<Mount>, path: String) -> Result<Self> {
        let directory = mount.group(&path).open_dir()?;
        Ok(Self { mount, path, directory })
    }

    fn group(&self) -> Group<'_> {
        self.mount.group(&self.path)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.mount.directory.as_fd()
    }

    pub fn enter(&self) -> Result<()> {
        let group = self.group();
        let file = group.open_for_joining(PROCESSES)?;
        group::join(file.as_fd()).map_err(|e| group.refused(PROCESSES, "0", "a process cannot join the group", e))
    }

    pub fn birth(&self) -> Result<Birth> {
        let into = self.directory.try_clone();
        Ok(Birth {
            into: Some(into.map_err(|source| Error::Io {
                action: "open",
                path: self.group().file(""),
                source,
            })?),
            tasks: Vec::new(),
        })
    }

    pub fn delegate(&self, uid: u32) -> Result<()> {
        delegation::delegate(&self.group(), uid)
    }

    /// Whether processes can only be in groups below: one with controllers for its children, other than those of threads,
    /// takes none itself ("no internal processes").
    pub fn is_inner(&self) -> Result<bool> {
        const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];
        let handed_down = self.group().read_known(SUBTREE)?;
        Ok(handed_down.split_whitespace().any(|name| !THREADED.contains(&name)))
    }

    /// What was written is said also of an update that failed.
    pub fn update(&self, resources: &LinuxResources, warnings: &mut Vec<Warning>) -> (Result<()>, Changed<'_>) {
        let mut limits = Limits {
            group: self.group(),
            warnings,
            former: Some(Vec::new()),
        };
        let enabled = self.mount.enable(&self.path);
        let outcome = enabled.and_then(|()| apply(&mut limits, self.directory.as_fd(), resources, false));
        let changed = limits.former.map(|former| (self.group(), former));
        (outcome, changed.into_iter().collect())
    }

    pub fn freeze(&self) -> Result<()> {
        freezer::freeze(&self.group())
    }

    pub fn is_frozen(&self) -> bool {
        freezer::is_frozen(&self.group())
    }

    pub fn thaw(&self) -> Result<()> {
        freezer::thaw(&self.group())
    }

    pub fn kill(&self, signal: i32) -> Result<()> {
        let signal = signal::named(signal)?;
        let group = self.group();
        if signal != Signal::KILL {
            return signal::send(&group, signal).map(drop);
        }
        // The kernel kills the whole subtree, frozen or forking, at once (5.14).
        match group
            .write("cgroup.kill", "1")
            .map_err(|e| group.io_error("write", "cgroup.kill", e))
        {
            Err(Error::NotFound(_)) => return Ok(()),
            outcome => outcome?,
        }
        signal::until_empty(&group, || Ok(group.pids()?.len()))
    }

    pub fn pids(&self) -> Result<Vec<i32>> {
        self.group().pids()
    }

    pub fn stats(&self) -> Result<Stats> {
        stats::read(&self.group())
    }

    pub fn usage(&self) -> Result<Stats> {
        stats::usage(&self.group())
    }

    pub fn cpu(&self) -> Result<Cpu> {
        stats::times(&self.group())
    }

    pub fn oom_kills(&self) -> Result<u64> {
        events::oom_kills(&self.group())
    }

    pub fn oom_watch(&self) -> Result<OwnedFd> {
        events::oom_watch(&self.group())
    }

    pub fn remove(&self) -> Result<()> {
        self.group().remove()
    }
}

fn apply(limits: &mut Limits<'_>, directory: BorrowedFd<'_>, resources: &LinuxResources, fresh: bool) -> Result<()> {
    if let Some(memory) = resources.memory() {
        memory::apply(limits, memory, fresh)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::apply(limits, cpu)?;
        cpuset::apply(limits, cpu)?;
    }
    if let Some(pids) = resources.pids() {
        crate::v1::pids::apply(limits, *pids)?;
    }
    if let Some(block_io) = resources.block_io() {
        io::apply(limits, block_io)?;
    }
    hugetlb::apply(limits, resources.hugepage_limits().as_deref().unwrap_or_default())?;
    if let Some(network) = resources.network() {
        network::no_counterpart(limits, network);
    }
    if let Some(devices) = resources.rdma() {
        rdma::apply(limits, devices)?;
    }
    if let Some(unified) = resources.unified() {
        unified::apply(limits, unified)?;
    }
    if let Some(rules) = resources.devices() {
        devices::apply(limits, directory, rules)?;
    }
    Ok(())
}
