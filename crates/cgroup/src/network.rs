//! Classes and priorities of what processes send (cgroup-v1/net_cls.rst, cgroup-v1/net_prio.rst). v2 has neither:
//! firewalls and eBPF programs look at the group itself there.

use oci_spec::runtime::LinuxNetwork;

use crate::error::{Error, Result};
use crate::limits::Limits;

/// The class, where one is given.
pub(crate) fn class(network: &LinuxNetwork) -> Option<u32> {
    network.class_id().filter(|class| *class != 0)
}

pub(crate) fn class_asked(network: &LinuxNetwork) -> Vec<(String, String)> {
    let class = class(network).map(|class| ("network.classID".to_owned(), class.to_string()));
    class.into_iter().collect()
}

/// A line of the interface and its priority each.
pub(crate) fn priorities_asked(network: &LinuxNetwork) -> Vec<(String, String)> {
    let lines = network.priorities().iter().flatten();
    lines
        .map(|of| {
            (
                "network.priorities".to_owned(),
                format!("{} {}", of.name(), of.priority()),
            )
        })
        .collect()
}

pub(crate) fn apply_class(limits: &mut Limits<'_>, network: &LinuxNetwork) -> Result<()> {
    match class(network) {
        Some(class) => limits.set(
            "network.classID",
            "net_cls.classid",
            &class.to_string(),
            "a class is a number of 32 bits",
        ),
        None => Ok(()),
    }
}

pub(crate) fn apply_priorities(limits: &mut Limits<'_>, network: &LinuxNetwork) -> Result<()> {
    for (limit, line) in priorities_asked(network) {
        let plain = line.split(' ').count() == 2 && !line.starts_with(' ') && !line.contains('\n');
        if !plain {
            return Err(Error::Invalid {
                limit,
                value: line.chars().take(80).collect(),
                meaning: "an interface's name has no white space".to_owned(),
            });
        }
        limits.put(
            &limit,
            "net_prio.ifpriomap",
            &line,
            "the interface has to be there, in the runtime's network namespace",
        )?;
    }
    Ok(())
}

pub(crate) fn no_counterpart(limits: &mut Limits<'_>, network: &LinuxNetwork) {
    for (limit, asked) in class_asked(network).into_iter().chain(priorities_asked(network)) {
        limits.of_v1(&limit, &asked);
    }
}
