//! Into the group: a process that is born there moves itself, one that runs already is moved.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{ALWAYS, Cgroup, Mounted, cpuset};
use crate::cgroup::Birth;
use crate::error::{Error, Result};
use crate::group::{self, Group};

impl Cgroup {
    pub fn enter(&self) -> Result<()> {
        for (group, file) in self.tasks()? {
            group::join(file.as_fd()).map_err(|e| group.refused("tasks", "0", "a process cannot join the group", e))?;
        }
        Ok(())
    }

    pub fn birth(&self) -> Result<Birth> {
        Ok(Birth {
            into: self.unified()?,
            tasks: self.tasks()?.into_iter().map(|(_, file)| file).collect(),
        })
    }

    /// As [`Self::birth`], with other paths in the hierarchies of some controllers.
    pub fn birth_below(&self, below: &BTreeMap<String, String>) -> Result<Birth> {
        let invalid = |controller: &str, meaning: &str| Error::Invalid {
            limit: "cgroup".to_owned(),
            value: controller.chars().take(80).collect(),
            meaning: meaning.to_owned(),
        };
        let is_known = |controller: &String| self.mounts.0.iter().any(|mounted| mounted.has(&[controller]));
        if let Some(controller) = below.keys().find(|controller| !is_known(controller)) {
            return Err(invalid(controller, "unknown controller (it is not mounted)"));
        }
        let mut files = Vec::with_capacity(self.mounts.0.len());
        for mounted in self.mounts.0.iter().filter(|mounted| !mounted.mount.is_unified()) {
            let mut named = below.iter().filter(|(controller, _)| mounted.has(&[controller]));
            match (named.next(), named.next()) {
                (None, _) => files.extend(self.tasks_of(mounted, &self.path)?.map(|(_, file)| file)),
                (Some((_, path)), other) if other.is_none_or(|(_, other)| other == path) => {
                    files.push(mounted.group(path).open_for_joining("tasks")?);
                }
                (Some((controller, _)), _) => {
                    let meaning = "it is mounted together with a controller that has another path";
                    return Err(invalid(controller, meaning));
                }
            }
        }
        Ok(Birth {
            into: self.unified()?,
            tasks: files,
        })
    }

    /// The directory in the hierarchy of v2 beside, if the container has one there.
    fn unified(&self) -> Result<Option<OwnedFd>> {
        let Some(beside) = self.mounts.0.iter().find(|mounted| mounted.mount.is_unified()) else {
            return Ok(None);
        };
        match beside.group(&self.path).open_dir() {
            Ok(directory) => Ok(Some(directory)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tasks(&self) -> Result<Vec<(Group<'_>, OwnedFd)>> {
        let mut files = Vec::with_capacity(self.mounts.0.len());
        for mounted in self.mounts.0.iter().filter(|mounted| !mounted.mount.is_unified()) {
            files.extend(self.tasks_of(mounted, &self.path)?);
        }
        Ok(files)
    }

    /// Nothing where the container has no group, because it has no limit that needs one, or could not have one.
    fn tasks_of<'a>(&self, mounted: &'a Mounted, path: &'a str) -> Result<Option<(Group<'a>, OwnedFd)>> {
        let group = mounted.group(path);
        match group.open("tasks", OFlags::WRONLY) {
            Ok(file) => Ok(Some((group, file))),
            Err(Errno::NOENT) if !mounted.has(&ALWAYS) => Ok(None),
            Err(e) => Err(group.io_error("open", "tasks", e)),
        }
    }

    /// Makes the directory that a container had no need of until now, and moves its processes there.
    pub(super) fn join(&self, controller: &str) -> Result<()> {
        let Some(group) = self
            .mounts
            .find(controller, &self.path)
            .filter(|group| !group.exists(""))
        else {
            return Ok(());
        };
        group.make_with_parents()?;
        if controller == "cpuset" {
            cpuset::inherit(&group)?;
        }
        // A process forked meanwhile starts where its parent is, so a round that moves nobody is the last.
        for _ in 0..100 {
            let inside = group.pids()?;
            let outside: Vec<i32> = self
                .main()?
                .pids()?
                .into_iter()
                .filter(|pid| inside.binary_search(pid).is_err())
                .collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match group.write("cgroup.procs", &pid.to_string()) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(e) => return Err(group.io_error("move a process into", "cgroup.procs", e)),
                }
            }
        }
        Ok(())
    }
}
