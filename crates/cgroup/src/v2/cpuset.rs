//! CPUs and memory nodes. The kernel keeps what was asked for and applies what the parents allow of it.

use oci_spec::runtime::LinuxCpu;

use crate::error::{Error, Result};
use crate::limits::{Limits, cpu_list};
use crate::warning::Warning;

pub(super) fn apply(limits: &mut Limits<'_>, cpu: &LinuxCpu) -> Result<()> {
    let settings = [
        ("cpu.cpus", "cpuset.cpus", cpu.cpus()),
        ("cpu.mems", "cpuset.mems", cpu.mems()),
    ];
    for (limit, file, list) in settings {
        let Some(list) = list.as_ref().filter(|list| !list.is_empty()) else {
            continue;
        };
        let Some(wanted) = cpu_list(list) else {
            let meaning = "a list is like 0-2,5".to_owned();
            return Err(Error::Invalid {
                limit: limit.to_owned(),
                value: list.clone(),
                meaning,
            });
        };
        limits.put(
            limit,
            file,
            list,
            "not all of these are there, or allowed to the parent group",
        )?;
        let effective = limits.group.read(&format!("{file}.effective"));
        if let Ok(held) = effective.map(|held| held.trim().to_owned())
            && cpu_list(&held).as_ref() != Some(&wanted)
        {
            limits.warnings.push(Warning::Adjusted {
                limit: limit.to_owned(),
                asked: list.clone(),
                held,
            });
        }
    }
    Ok(())
}
