//! Groups below the container's, which an exec goes into: those that `exec --cgroup` names, or where the container's first
//! process has gone.

use std::collections::BTreeMap;
use std::path::Path;

use ferry_cgroup::{Birth, Cgroup, Hierarchy};

use crate::error::{Error, Result};

/// For `exec --cgroup`: `path` below the container's group, or on v1 `controller[,controller]:path`, more than
/// once.
pub(crate) fn below(hierarchy: &Hierarchy, path: &str, given: &[&str]) -> Result<Option<Birth>> {
    let mut named = BTreeMap::new();
    for argument in given {
        let Some((controllers, sub)) = argument.split_once(':') else {
            if given.len() > 1 {
                let text = format!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
                return Err(Error::Invalid(text));
            }
            let sub = joined(path, argument)?;
            let cgroup = hierarchy.open(&sub).map_err(cannot_join)?;
            if cgroup.is_inner()? {
                let text = format!("{} {sub}/cgroup.procs: device or resource busy", adding());
                return Err(Error::State(text));
            }
            let mut birth = cgroup.birth().map_err(cannot_join)?;
            if birth.into.is_none() {
                // v2 beside v1, where only the container has a group.
                birth.into = hierarchy.open(path)?.birth()?.into;
            }
            return Ok(Some(birth));
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                let text = format!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
                return Err(Error::Invalid(text));
            }
            if named.insert(controller.to_owned(), joined(path, sub)?).is_some() {
                let text = format!("invalid --cgroup argument(s): controller {controller} specified multiple times");
                return Err(Error::Invalid(text));
            }
        }
    }
    if named.is_empty() {
        return Ok(None);
    }
    let cgroup = hierarchy.open(path)?;
    Ok(Some(cgroup.birth_below(&named).map_err(cannot_join)?))
}

/// runc's words, which name the process that was to move.
fn cannot_join(error: ferry_cgroup::Error) -> Error {
    match error {
        ferry_cgroup::Error::NotFound(group) => Error::State(format!(
            "{} open {}/cgroup.procs: no such file or directory",
            adding(),
            group.display()
        )),
        other => other.into(),
    }
}

fn adding() -> String {
    format!("error adding pid {} to cgroups:", std::process::id())
}

/// The path of a group below `path`; the same path for `/`.
fn joined(path: &str, sub: &str) -> Result<String> {
    let mut parts = vec![path];
    for part in sub.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(Error::Invalid(format!("{sub} is not a sub cgroup path"))),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The group of a process, for an exec into a container whose own group takes none any more: its first process has made
/// groups below and gone into one of them (v2).
pub(crate) fn of_process(hierarchy: &Hierarchy, cgroup: &Cgroup, pid: i32) -> Result<Option<Birth>> {
    if !cgroup.is_inner()? {
        return Ok(None);
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    match path.filter(|path| Path::new(path).starts_with(cgroup.path())) {
        Some(path) => Ok(Some(hierarchy.open(path)?.birth()?)),
        None => Ok(None),
    }
}
