//! Into the group: a process that is born there moves itself, one that runs already is moved.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Cgroup, Mounted};
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
        let is_known = |controller: &String| self.mounts.0.iter().any(|mounted| mounted.has(controller));
        if let Some(controller) = below.keys().find(|controller| !is_known(controller)) {
            return Err(invalid(controller, "unknown controller (it is not mounted)"));
        }
        let mut files = Vec::with_capacity(self.mounts.0.len());
        for mounted in self.mounts.0.iter().filter(|mounted| !mounted.mount.is_unified()) {
            let mut named = below.iter().filter(|(controller, _)| mounted.has(controller));
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

    /// Nothing where the container could not have a group.
    fn tasks_of<'a>(&self, mounted: &'a Mounted, path: &'a str) -> Result<Option<(Group<'a>, OwnedFd)>> {
        let group = mounted.group(path);
        match group.open("tasks", OFlags::WRONLY) {
            Ok(file) => Ok(Some((group, file))),
            Err(Errno::NOENT) if mounted.mount.has_no_controller() => Ok(None),
            Err(e) => Err(group.io_error("open", "tasks", e)),
        }
    }
}
