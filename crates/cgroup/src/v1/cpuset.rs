//! CPUs and memory nodes (cpuset(7)). A new v1 cpuset is empty, and nothing can run in an empty one: every directory on
//! the way down takes its parent's values first.

use oci_spec::runtime::LinuxCpu;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::group::{self, Group};
use crate::limits::{Limits, cpu_list};
use crate::warning::Warning;

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

pub(super) fn asked(cpu: Option<&LinuxCpu>) -> bool {
    cpu.is_some_and(|cpu| !named(cpu).is_empty())
}

pub(super) fn named(cpu: &LinuxCpu) -> Vec<(String, String)> {
    let settings = [("cpu.cpus", cpu.cpus()), ("cpu.mems", cpu.mems())];
    let given = settings
        .into_iter()
        .filter_map(|(name, list)| Some((name, list.as_ref()?)));
    given
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| (name.to_owned(), list.clone()))
        .collect()
}

pub(super) fn apply(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    for (limit, list) in named(cpu) {
        let file = if limit == "cpu.cpus" {
            "cpuset.cpus"
        } else {
            "cpuset.mems"
        };
        let Some(asked) = cpu_list(&list) else {
            return Err(Error::Invalid {
                limit,
                value: list,
                meaning: "a list is like 0-2,5".to_owned(),
            });
        };
        let meaning = "not all of these are there, or allowed to the parent group";
        match limits.write_and_read(file, &list) {
            Ok(held) if cpu_list(&held).as_ref() == Some(&asked) => {}
            Ok(held) => limits.warnings.push(Warning::Adjusted {
                limit,
                asked: list,
                held,
            }),
            Err(e) => return Err(limits.group.refused(file, &list, meaning, e)),
        }
    }
    Ok(())
}

/// Fills the empty files of `group` and of the directories above it, from the top down.
pub(super) fn inherit(group: &Group<'_>) -> Result<()> {
    let mut parent = "";
    for path in group::parents(group.path).chain([group.path]) {
        let child = group.with_path(path);
        for file in FILES {
            if child.read_known(file)?.trim().is_empty() {
                let inherited = group.with_path(parent).read_known(file)?;
                match child.write(file, inherited.trim()) {
                    // Somebody else may be making a container in the same parent.
                    Ok(()) | Err(Errno::BUSY) => {}
                    Err(e) => return Err(child.io_error("write", file, e)),
                }
            }
        }
        parent = path;
    }
    Ok(())
}
