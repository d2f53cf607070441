//! Which control group hierarchies this machine has, and where.
//!
//! Found once from the mount table and then handed on by value (it serialises as [`Layout`]), so that a shim does not
//! read a mount table that grows with the number of containers. Cgroup paths are relative to the mount, as with Docker's
//! cgroupfs driver: a caller that sits in a nested group itself makes `ferry/<id>` at the top all the same.

use std::path::PathBuf;
use std::sync::Arc;

use oci_spec::runtime::LinuxResources;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Version};
use crate::error::{Error, Result};
use crate::mountinfo::{self, Kind};
use crate::warning::Warning;
use crate::{v1, v2};

/// Control group hierarchies with their directories open; cloning shares the descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Layout", into = "Layout")]
pub enum Hierarchy {
    /// One hierarchy a controller (or a few). Hybrid machines, where v2 is mounted beside without the controllers, too.
    V1(Arc<v1::Mounts>),
    /// The unified hierarchy.
    V2(Arc<v2::Mount>),
}

/// The plain form of a [`Hierarchy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Mount point and controllers of every v1 hierarchy, and of v2 beside them.
    V1(Vec<V1Mount>),
    /// Mount point of the unified hierarchy.
    V2(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1Mount {
    pub path: PathBuf,
    /// As `/proc/PID/cgroup` has them: `name=…` for a hierarchy with none, empty for v2 beside v1.
    pub controllers: Vec<String>,
}

impl V1Mount {
    /// Whether it is the hierarchy of v2, mounted beside for systemd.
    pub(crate) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    pub(crate) fn has_no_controller(&self) -> bool {
        self.controllers.iter().all(|name| name.starts_with(v1::NAMED))
    }
}

impl Layout {
    /// Reads the mount table of the calling process.
    pub fn detect() -> Result<Self> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::Mounts)?;
        Self::from_mountinfo(&table)
    }

    /// v1 when any of its controllers is mounted (a controller is in one place only), else v2.
    pub fn from_mountinfo(table: &str) -> Result<Self> {
        let mut mounts = mountinfo::parse(table);
        // A hierarchy can be mounted more than once, for instance below a container's root: the usual place first.
        mounts.sort_by_key(|mount| !mount.path.starts_with("/sys/fs/cgroup"));
        let mut v1: Vec<V1Mount> = Vec::new();
        let mut v2 = None;
        for mount in mounts {
            match mount.kind {
                Kind::V2 => v2 = v2.or(Some(mount.path)),
                Kind::V1(options) => {
                    let controllers: Vec<String> = options
                        .into_iter()
                        .filter(|o| v1::CONTROLLERS.contains(&o.as_str()) || o.starts_with(v1::NAMED))
                        .collect();
                    let known = v1.iter().any(|m| m.controllers.iter().any(|c| controllers.contains(c)));
                    if !controllers.is_empty() && !known {
                        v1.push(V1Mount {
                            path: mount.path,
                            controllers,
                        });
                    }
                }
            }
        }
        if v1.iter().any(|mount| !mount.has_no_controller()) {
            v1.extend(v2.map(|path| V1Mount {
                path,
                controllers: Vec::new(),
            }));
            return Ok(Self::V1(v1));
        }
        v2.map(Self::V2).ok_or(Error::NotMounted)
    }
}

impl TryFrom<Layout> for Hierarchy {
    type Error = Error;

    fn try_from(layout: Layout) -> Result<Self> {
        Ok(match layout {
            Layout::V1(mounts) => Self::V1(Arc::new(v1::Mounts::open(mounts)?)),
            Layout::V2(path) => Self::V2(Arc::new(v2::Mount::open(path)?)),
        })
    }
}

impl From<Hierarchy> for Layout {
    fn from(hierarchy: Hierarchy) -> Self {
        match hierarchy {
            Hierarchy::V1(mounts) => Self::V1(mounts.layout()),
            Hierarchy::V2(mount) => Self::V2(mount.path().to_owned()),
        }
    }
}

impl Hierarchy {
    /// Finds and opens the hierarchies of this machine.
    pub fn detect() -> Result<Self> {
        Layout::detect()?.try_into()
    }

    /// Makes the group `path` (`ferry/<id>`; missing parents are made too) and sets its limits. A group left behind
    /// under that name is taken over. What was made is removed again when a limit is refused.
    pub fn create(&self, path: &str, resources: &LinuxResources) -> Result<(Cgroup, Vec<Warning>)> {
        let path = checked(path)?;
        let (version, warnings) = match self {
            Self::V1(mounts) => {
                let (cgroup, warnings) = v1::Cgroup::create(Arc::clone(mounts), path, resources)?;
                (Version::V1(cgroup), warnings)
            }
            Self::V2(mount) => {
                let (cgroup, warnings) = v2::Cgroup::create(Arc::clone(mount), path, resources)?;
                (Version::V2(cgroup), warnings)
            }
        };
        Ok((Cgroup(version), warnings))
    }

    /// An existing group; [`Error::NotFound`] when there is none.
    pub fn open(&self, path: &str) -> Result<Cgroup> {
        let path = checked(path)?;
        Ok(Cgroup(match self {
            Self::V1(mounts) => Version::V1(v1::Cgroup::open(Arc::clone(mounts), path)?),
            Self::V2(mount) => Version::V2(v2::Cgroup::open(Arc::clone(mount), path)?),
        }))
    }

    /// Ends whatever is in a group and removes it, or the parts that are there of one whose maker died half-way (each v1 hierarchy
    /// has its own directory of it).
    pub fn clear(&self, path: &str) -> Result<()> {
        match self.open(path) {
            Ok(cgroup) => {
                cgroup.kill(Signal::KILL.as_raw())?;
                cgroup.remove()
            }
            Err(Error::NotFound(_)) => match self {
                Self::V1(mounts) => v1::Cgroup::partial(Arc::clone(mounts), checked(path)?).remove(),
                Self::V2(_) => Ok(()),
            },
            Err(error) => Err(error),
        }
    }

    /// Removes a parent such as `ferry` wherever it has neither children nor processes; the rest stays, silently.
    pub fn remove_empty(&self, path: &str) -> Result<()> {
        let path = checked(path)?;
        match self {
            Self::V1(mounts) => mounts.remove_empty(&path),
            Self::V2(mount) => mount.remove_empty(&path),
        }
        Ok(())
    }

    /// `1` or `2`, as Docker's `info` reports it.
    pub fn version(&self) -> u8 {
        match self {
            Self::V1(_) => 1,
            Self::V2(_) => 2,
        }
    }
}

/// A cgroup path with neither an empty component nor one that leaves its parent; one leading slash is dropped.
fn checked(path: &str) -> Result<String> {
    let invalid = || Error::InvalidPath(path.chars().take(200).collect());
    let relative = path.strip_prefix('/').unwrap_or(path);
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.bytes().any(|b| b == 0 || b == b'\n');
    if relative.len() > 4000 || !relative.split('/').all(plain) {
        return Err(invalid());
    }
    Ok(relative.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /var/x/rootfs/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        36 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn hybrid_is_v1_and_the_usual_mount_point_wins() {
        let Layout::V1(mounts) = Layout::from_mountinfo(HYBRID).unwrap() else {
            panic!("not v1")
        };
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(mounts[1].path, PathBuf::from("/sys/fs/cgroup/memory"));
        assert_eq!(mounts[2].controllers, ["name=systemd"]);
        assert!(mounts[2].has_no_controller() && !mounts[2].is_unified());
        assert!(mounts[3].is_unified());
    }

    #[test]
    fn only_the_unified_hierarchy_is_v2() {
        let table = "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            Layout::from_mountinfo(table).unwrap(),
            Layout::V2("/sys/fs/cgroup".into())
        );
        assert!(matches!(Layout::from_mountinfo(""), Err(Error::NotMounted)));
    }

    #[test]
    fn paths_cannot_leave_the_hierarchy() {
        assert_eq!(checked("/ferry/a").unwrap(), "ferry/a");
        for bad in ["", "/", "..", "ferry/../..", "a//b", "a/./b", "//a", "a\0", "a/"] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hierarchy_travels_as_plain_data() {
        let here = Hierarchy::detect().unwrap();
        let json = serde_json::to_string(&here).unwrap();
        let there: Hierarchy = serde_json::from_str(&json).unwrap();
        assert_eq!(Layout::from(here), Layout::from(there));
    }
}
