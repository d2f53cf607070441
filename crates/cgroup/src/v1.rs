//! Version 1: a directory in each of several hierarchies, one or a few controllers each
//! (Documentation/admin-guide/cgroup-v1).
//!
//! Attaching is the point: a thread that writes `0` to a `tasks` file moves itself in microseconds, whereas a pid, or
//! anything in `cgroup.procs`, waits for a grace period of about 7 ms on an idle machine.

mod blkio;
mod cpu;
mod cpuset;
mod devices;
mod events;
mod freezer;
pub(crate) mod hugetlb;
mod joining;
mod memory;
pub(crate) mod pids;
mod stats;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::former::Changed;
use crate::group::{self, Group};
use crate::hierarchy::V1Mount;
use crate::limits::Limits;
use crate::signal;
use crate::stats::{Cpu, Stats};
use crate::warning::Warning;
use crate::{network, rdma};

/// All controllers of v1 that this crate knows.
pub const CONTROLLERS: [&str; 14] = [
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "devices",
    "freezer",
    "blkio",
    "perf_event",
    "misc",
    "cpuset",
    "hugetlb",
    "net_cls",
    "net_prio",
    "rdma",
];

/// How the option of a hierarchy without controllers begins.
pub(crate) const NAMED: &str = "name=";

/// The mounted hierarchies, each with its directory open.
#[derive(Debug)]
pub struct Mounts(Vec<Mounted>);

#[derive(Debug)]
struct Mounted {
    mount: V1Mount,
    directory: OwnedFd,
}

impl Mounted {
    fn group<'a>(&'a self, path: &'a str) -> Group<'a> {
        Group {
            root: self.directory.as_fd(),
            mount: &self.mount.path,
            path,
        }
    }

    /// Parents that nobody uses any more, up to one of systemd's: engines (podman, of a pod) remove those they know of, with
    /// a controller, and nobody would these.
    fn remove_parents(&self, path: &str) {
        let is_systemd_s = |path: &str| [".slice", ".scope", ".service"].iter().any(|kind| path.ends_with(kind));
        for parent in group::parents(path).rev() {
            if is_systemd_s(parent) || self.group(parent).remove_directory().is_err() {
                return;
            }
        }
    }

    fn has(&self, controller: &str) -> bool {
        self.mount.controllers.iter().any(|held| held == controller)
    }
}

impl Mounts {
    pub(crate) fn open(mounts: Vec<V1Mount>) -> Result<Self> {
        let open = |mount: V1Mount| {
            Ok(Mounted {
                directory: group::open_mount(&mount.path)?,
                mount,
            })
        };
        mounts.into_iter().map(open).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn layout(&self) -> Vec<V1Mount> {
        self.0.iter().map(|m| m.mount.clone()).collect()
    }

    pub(crate) fn remove_empty(&self, path: &str) {
        for mounted in &self.0 {
            // In use or absent: both leave nothing to do.
            let _ = mounted.group(path).remove_directory();
        }
    }

    fn find<'a>(&'a self, controller: &str, path: &'a str) -> Option<Group<'a>> {
        self.0.iter().find(|m| m.has(controller)).map(|m| m.group(path))
    }
}

/// Where limits go, and what came of them.
struct To<'a, 'w> {
    fresh: bool,
    warnings: &'w mut Vec<Warning>,
    changed: Changed<'a>,
}

/// One container's directories.
#[derive(Debug)]
pub(crate) struct Cgroup {
    mounts: Arc<Mounts>,
    path: String,
}

impl Cgroup {
    pub fn create(mounts: Arc<Mounts>, path: String, resources: &LinuxResources) -> Result<(Self, Vec<Warning>)> {
        let cgroup = Self { mounts, path };
        let mut warnings = Vec::new();
        let made = cgroup.make().and_then(|()| {
            cgroup.apply(
                resources,
                &mut To {
                    fresh: true,
                    warnings: &mut warnings,
                    changed: Vec::new(),
                },
            )
        });
        match made {
            Ok(()) => Ok((cgroup, warnings)),
            Err(error) => {
                // The first failure is what matters; what cannot be removed either is swept by the engine.
                cgroup.mounts.remove_empty(&cgroup.path);
                group::parents(&cgroup.path)
                    .rev()
                    .for_each(|parent| cgroup.mounts.remove_empty(parent));
                Err(error)
            }
        }
    }

    /// One of which not every directory may be there.
    pub fn partial(mounts: Arc<Mounts>, path: String) -> Self {
        Self { mounts, path }
    }

    pub fn open(mounts: Arc<Mounts>, path: String) -> Result<Self> {
        let cgroup = Self::partial(mounts, path);
        let main = cgroup.main()?;
        if main.exists("") {
            Ok(cgroup)
        } else {
            Err(Error::NotFound(main.file("")))
        }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its directory in every hierarchy it is in, by the hierarchy's usual name (`cpu,cpuacct`).
    pub fn directories(&self) -> Result<Vec<(String, OwnedFd)>> {
        let mut directories = Vec::new();
        for mounted in self.mounts.0.iter().filter(|mounted| !mounted.mount.is_unified()) {
            let group = mounted.group(&self.path);
            let name = mounted.mount.controllers.join(",");
            match group.open_dir() {
                Ok(directory) => directories.push((name.trim_start_matches(NAMED).to_owned(), directory)),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(directories)
    }

    fn make(&self) -> Result<()> {
        for mounted in &self.mounts.0 {
            let group = mounted.group(&self.path);
            if mounted.mount.has_no_controller() {
                // Often not the caller's to write to, and nothing that was asked for depends on it.
                let _ = group.make_with_parents();
                continue;
            }
            group.make_with_parents()?;
            if mounted.has("cpuset") {
                cpuset::inherit(&group)?;
            }
        }
        Ok(())
    }

    /// Controllers whose limits were not asked for are not looked at.
    fn apply<'a>(&'a self, resources: &LinuxResources, to: &mut To<'a, '_>) -> Result<()> {
        if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
            return Err(Error::Invalid {
                limit: "unified".to_owned(),
                value: String::new(),
                meaning: "these are control files of cgroup v2, and this machine has v1".to_owned(),
            });
        }
        if let Some(memory) = resources.memory() {
            self.with(
                "memory",
                to,
                |limits| memory::apply(limits, memory),
                || memory::asked(memory),
            )?;
        }
        if let Some(cpu) = resources.cpu() {
            self.with("cpu", to, |limits| cpu::apply(limits, cpu), || cpu::asked(cpu))?;
            if cpuset::asked(Some(cpu)) {
                self.with("cpuset", to, |limits| cpuset::apply(limits, cpu), || cpuset::named(cpu))?;
            }
        }
        if let Some(pids) = resources.pids() {
            self.with("pids", to, |limits| pids::apply(limits, *pids), || pids::asked(*pids))?;
        }
        if let Some(block_io) = resources.block_io() {
            self.with(
                "blkio",
                to,
                |limits| blkio::apply(limits, block_io),
                || blkio::asked(block_io),
            )?;
        }
        if let Some(pages) = resources.hugepage_limits().as_ref().filter(|pages| !pages.is_empty()) {
            self.with(
                "hugetlb",
                to,
                |limits| hugetlb::apply(limits, pages),
                || hugetlb::asked(pages),
            )?;
        }
        if let Some(network) = resources.network() {
            self.with(
                "net_cls",
                to,
                |limits| network::apply_class(limits, network),
                || network::class_asked(network),
            )?;
            self.with(
                "net_prio",
                to,
                |limits| network::apply_priorities(limits, network),
                || network::priorities_asked(network),
            )?;
        }
        if let Some(devices) = resources.rdma() {
            self.with(
                "rdma",
                to,
                |limits| rdma::apply(limits, devices),
                || rdma::asked(devices),
            )?;
        }
        if let Some(rules) = resources.devices() {
            let fresh = to.fresh;
            let asked = || vec![("devices".to_owned(), format!("{} rules", rules.len()))];
            self.with(
                "devices",
                to,
                |limits| devices::apply(&limits.group, rules, fresh),
                asked,
            )?;
        }
        Ok(())
    }

    /// Runs `apply` in the controller's group, or warns about everything `asked` when it is not mounted.
    fn with<'a>(
        &'a self,
        controller: &str,
        to: &mut To<'a, '_>,
        apply: impl FnOnce(&mut Limits<'_>) -> Result<()>,
        asked: impl FnOnce() -> Vec<(String, String)>,
    ) -> Result<()> {
        if let Some(group) = self.mounts.find(controller, &self.path) {
            let mut limits = Limits {
                group,
                warnings: to.warnings,
                former: (!to.fresh).then(Vec::new),
            };
            let outcome = apply(&mut limits);
            to.changed.extend(limits.former.map(|former| (group, former)));
            return outcome;
        }
        let missing = format!("{controller} controller");
        let unsupported = |(limit, asked)| Warning::Unsupported {
            limit,
            asked,
            missing: missing.clone(),
        };
        to.warnings.extend(asked().into_iter().map(unsupported));
        Ok(())
    }

    /// The hierarchy that is asked who is in the container.
    fn main(&self) -> Result<Group<'_>> {
        let preferred = ["freezer", "pids", "memory"]
            .iter()
            .find_map(|c| self.mounts.find(c, &self.path));
        let any = || {
            self.mounts
                .0
                .iter()
                .find(|m| !m.mount.has_no_controller())
                .map(|m| m.group(&self.path))
        };
        preferred.or_else(any).ok_or(Error::NotMounted)
    }

    /// What was written is said also of an update that failed.
    pub fn update(&self, resources: &LinuxResources, warnings: &mut Vec<Warning>) -> (Result<()>, Changed<'_>) {
        let mut to = To {
            fresh: false,
            warnings,
            changed: Vec::new(),
        };
        (self.apply(resources, &mut to), to.changed)
    }

    pub fn freeze(&self) -> Result<()> {
        freezer::freeze(&self.freezer()?)
    }

    pub fn is_frozen(&self) -> bool {
        self.freezer().is_ok_and(|freezer| freezer::is_frozen(&freezer))
    }

    pub fn thaw(&self) -> Result<()> {
        freezer::thaw(&self.freezer()?)
    }

    fn freezer(&self) -> Result<Group<'_>> {
        self.mounts.find("freezer", &self.path).ok_or(Error::NotMounted)
    }

    pub fn kill(&self, signal: i32) -> Result<()> {
        let signal = signal::named(signal)?;
        let group = self.main()?;
        if signal != Signal::KILL {
            return signal::send(&group, signal).map(drop);
        }
        let freezer = self.mounts.find("freezer", &self.path);
        signal::until_empty(&group, || {
            if group.pids()?.is_empty() {
                return Ok(0);
            }
            // Frozen, nobody can fork away from the signal. Without it the next round catches who did.
            if let Some(freezer) = &freezer {
                let _ = freezer::freeze(freezer);
            }
            let sent = signal::send(&group, signal);
            if let Some(freezer) = &freezer {
                freezer::thaw_all(freezer)?;
            }
            sent
        })
    }

    pub fn pids(&self) -> Result<Vec<i32>> {
        self.main()?.pids()
    }

    pub fn stats(&self) -> Result<Stats> {
        let group = |controller: &str| self.mounts.find(controller, &self.path);
        let mut stats = self.usage()?;
        if let Some(cpuacct) = group("cpuacct") {
            stats::modes(&cpuacct, &mut stats.cpu);
        }
        if let Some(memory) = group("memory") {
            stats::charges(&memory, &mut stats.memory);
        }
        if let Some(cpuset) = group("cpuset") {
            stats.cpuset = Some(stats::cpuset(&cpuset)?);
        }
        if let Some(hugetlb) = group("hugetlb") {
            stats.huge_pages = hugetlb::stats(&hugetlb)?;
        }
        if let Some(rdma) = group("rdma") {
            stats.rdma = rdma::stats(&rdma)?;
        }
        Ok(stats)
    }

    pub fn usage(&self) -> Result<Stats> {
        let group = |controller: &str| self.mounts.find(controller, &self.path);
        let mut stats = Stats {
            cpu: self.cpu()?,
            ..Stats::default()
        };
        if let Some(memory) = group("memory") {
            stats.memory = stats::memory(&memory)?;
        }
        if let Some(pids) = group("pids") {
            stats.pids = stats::pids(&pids)?;
        }
        if let Some(blkio) = group("blkio") {
            stats.block_io = stats::block_io(&blkio)?;
        }
        Ok(stats)
    }

    pub fn cpu(&self) -> Result<Cpu> {
        let group = |controller: &str| self.mounts.find(controller, &self.path);
        let mut times = Cpu::default();
        if let Some(cpuacct) = group("cpuacct") {
            stats::times(&cpuacct, &mut times)?;
        }
        if let Some(cpu) = group("cpu") {
            stats::throttling(&cpu, &mut times)?;
        }
        Ok(times)
    }

    pub fn oom_kills(&self) -> Result<u64> {
        self.mounts
            .find("memory", &self.path)
            .map_or(Ok(0), |memory| events::oom_kills(&memory))
    }

    pub fn oom_watch(&self) -> Result<OwnedFd> {
        events::oom_watch(&self.mounts.find("memory", &self.path).ok_or(Error::NotMounted)?)
    }

    /// Goes on past a failure and reports the first.
    pub fn remove(&self) -> Result<()> {
        let mut first = Ok(());
        for mounted in &self.mounts.0 {
            first = first.and(mounted.group(&self.path).remove());
            if mounted.mount.has_no_controller() {
                mounted.remove_parents(&self.path);
            }
        }
        first
    }
}
