//! One container's control group.
//!
//! A `Cgroup` is a name and shared directory descriptors, not a lease: dropping it leaves the group as it is, and
//! several processes may hold the same one. Its states are the kernel's: made by [`Hierarchy::create`], gone after
//! [`Cgroup::remove`], whoever did it; every call on a group that is gone fails with [`Error::NotFound`].
//!
//! [`Hierarchy::create`]: crate::Hierarchy::create
//! [`Error::NotFound`]: crate::Error::NotFound

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use oci_spec::runtime::LinuxResources;

use crate::error::{Error, Result};
use crate::former;
use crate::stats::{Cpu, Stats};
use crate::warning::Warning;
use crate::{v1, v2};

/// A control group of either version.
#[derive(Debug)]
pub struct Cgroup(pub(crate) Version);

#[derive(Debug)]
pub(crate) enum Version {
    V1(v1::Cgroup),
    V2(v2::Cgroup),
}

/// How a process is born in a group. All descriptors close on exec.
#[derive(Debug, Default)]
pub struct Birth {
    /// The group's directory in the hierarchy of v2, for `CLONE_INTO_CGROUP`.
    pub into: Option<OwnedFd>,
    /// Its `tasks` files of v1, to each of which the new process writes `0`.
    pub tasks: Vec<OwnedFd>,
}

macro_rules! either {
    ($self:ident, $cgroup:ident => $call:expr) => {
        match &$self.0 {
            Version::V1($cgroup) => $call,
            Version::V2($cgroup) => $call,
        }
    };
}

impl Cgroup {
    /// The path it was made under, without a leading slash.
    pub fn path(&self) -> &str {
        either!(self, c => c.path())
    }

    /// Moves the calling process, which must be single-threaded, into the group: on v1 by writing `0` to each `tasks`
    /// (a thread moving itself does not wait for a grace period, about 7 ms), on v2 to `cgroup.procs`.
    pub fn enter(&self) -> Result<()> {
        either!(self, c => c.enter())
    }

    /// What a process needs to be born in the group.
    pub fn birth(&self) -> Result<Birth> {
        either!(self, c => c.birth())
    }

    /// As [`Self::birth`], with other groups in the hierarchies of some controllers, by the controller's name; only v1 has
    /// more than one hierarchy.
    pub fn birth_below(&self, below: &BTreeMap<String, String>) -> Result<Birth> {
        match &self.0 {
            Version::V1(cgroup) => cgroup.birth_below(below),
            Version::V2(_) => Err(Error::Invalid {
                limit: "cgroup".to_owned(),
                value: below.keys().cloned().collect::<Vec<_>>().join(","),
                meaning: "cgroup v2 has one path for all controllers".to_owned(),
            }),
        }
    }

    /// Gives the group to a user, with the files that let it make groups below. On v1, where that is not safe, nothing.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        match &self.0 {
            Version::V1(_) => Ok(()),
            Version::V2(cgroup) => cgroup.delegate(uid),
        }
    }

    /// Whether the group takes no processes because it hands controllers down to its children (v2).
    pub fn is_inner(&self) -> Result<bool> {
        match &self.0 {
            Version::V1(_) => Ok(false),
            Version::V2(cgroup) => cgroup.is_inner(),
        }
    }

    /// `1` or `2`.
    pub fn version(&self) -> u8 {
        match &self.0 {
            Version::V1(_) => 1,
            Version::V2(_) => 2,
        }
    }

    /// On v2 the directory the hierarchy is mounted on (`O_PATH`).
    pub fn v2_root(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Version::V1(_) => None,
            Version::V2(cgroup) => Some(cgroup.root()),
        }
    }

    /// On v1 the group's directory in each hierarchy, by the name its mount point has below /sys/fs/cgroup; on v2 none.
    pub fn directories(&self) -> Result<Vec<(String, OwnedFd)>> {
        match &self.0 {
            Version::V1(cgroup) => cgroup.directories(),
            Version::V2(_) => Ok(Vec::new()),
        }
    }

    /// Sets the limits that `resources` names and leaves the others alone. When one is refused, those that were set before
    /// it are what they were.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<Warning>> {
        self.update_if(resources, Ok)
    }

    /// As [`Self::update`], unless `accept` refuses what became of the limits; then all are what they were, too. (Device
    /// rules, which come last, are not among them.)
    pub fn update_if<T, E: From<Error> + std::error::Error>(
        &self,
        resources: &LinuxResources,
        accept: impl FnOnce(Vec<Warning>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut warnings = Vec::new();
        let (outcome, changed) = either!(self, c => c.update(resources, &mut warnings));
        let error = match outcome.map_err(E::from).and_then(|()| accept(warnings)) {
            Ok(accepted) => return Ok(accepted),
            Err(error) => error,
        };
        former::put_back(changed, &error)?;
        Err(error)
    }

    /// Stops every process; returns when all are stopped. On failure the group is thawed again.
    pub fn freeze(&self) -> Result<()> {
        either!(self, c => c.freeze())
    }

    /// Whether it is stopped, itself or by a group above it. One that cannot be asked is not.
    pub fn is_frozen(&self) -> bool {
        either!(self, c => c.is_frozen())
    }

    /// Lets stopped processes go on.
    pub fn thaw(&self) -> Result<()> {
        either!(self, c => c.thaw())
    }

    /// Sends `signal` to every process, also to those in groups below. `SIGKILL` reaches processes that fork meanwhile
    /// too, thaws a frozen group, and returns when the group is empty, or with [`Error::Busy`](crate::Error::Busy)
    /// after ten seconds. A group that does not exist is no error.
    pub fn kill(&self, signal: i32) -> Result<()> {
        either!(self, c => c.kill(signal))
    }

    /// Every process of the group and of the groups below it, sorted, as pids of the caller's pid namespace.
    pub fn pids(&self) -> Result<Vec<i32>> {
        either!(self, c => c.pids())
    }

    /// What the group has used. A controller that is not mounted leaves its part empty.
    pub fn stats(&self) -> Result<Stats> {
        either!(self, c => c.stats())
    }

    /// As much of [`stats`](Self::stats) as Docker's statistics show, in fewer reads.
    pub fn usage(&self) -> Result<Stats> {
        either!(self, c => c.usage())
    }

    /// The times alone.
    pub fn cpu(&self) -> Result<Cpu> {
        either!(self, c => c.cpu())
    }

    /// How many processes of the group the kernel has killed for memory.
    pub fn oom_kills(&self) -> Result<u64> {
        either!(self, c => c.oom_kills())
    }

    /// A descriptor that becomes readable when the group runs out of memory, and once when the group is removed: ask
    /// [`Self::oom_kills`] what it meant. Non-blocking; read it (up to 4 KiB) to arm it again.
    pub fn oom_watch(&self) -> Result<OwnedFd> {
        either!(self, c => c.oom_watch())
    }

    /// Removes the group with all groups below it; waits up to two seconds for processes that are about to be gone.
    /// A group that does not exist is no error.
    pub fn remove(&self) -> Result<()> {
        either!(self, c => c.remove())
    }
}
