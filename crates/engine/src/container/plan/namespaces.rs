//! Which namespaces a container has of its own, and which it shares.

use std::path::PathBuf;

use ferry_api::network::mode;
use ferry_runtime::namespace::{CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS};
use ferry_runtime::plan::Namespaces;

use crate::container::record::Record;
use crate::error::{Error, Result};
use crate::networks::kind_of;
use crate::world::World;

/// The namespaces, and what the rest of the plan wants to know of them.
pub(super) struct Planned {
    pub namespaces: Namespaces,
    /// Not the host's.
    pub own_network: bool,
    pub own_uts: bool,
}

/// Docker's default: the host's cgroup namespace on v1, one of its own on v2, also for a privileged container.
pub(crate) fn default_cgroup(world: &World) -> &'static str {
    if world.hierarchy.version() == 2 {
        "private"
    } else {
        "host"
    }
}

pub(super) fn plan(record: &Record, world: &World) -> Result<Planned> {
    let host = &record.host_config;
    let mut spaces = Namespaces {
        create: CLONE_NEWNS,
        ..Namespaces::default()
    };
    if let Some(range) = record.ids {
        spaces.create |= CLONE_NEWUSER;
        spaces.uids = vec![(0, range.start, range.count)];
        spaces.gids = vec![(0, range.start, range.count)];
    }
    let mut share = |kind: &str, flag: u64, file: &str, setting: &str| -> Result<bool> {
        if let Some(other) = setting.strip_prefix("container:") {
            let other = world.containers.find(other).map_err(|error| match kind {
                "network" => Error::new(error.kind, format!("joining network namespace of container: {error}")),
                _ => error,
            })?;
            let snapshot = other.snapshot();
            let run = &snapshot.record.run;
            if !run.status.is_live() {
                return Err(Error::conflict(format!(
                    "cannot join {kind} namespace of a non running container: {}",
                    other.id()
                )));
            }
            spaces
                .join
                .push((flag, PathBuf::from(format!("/proc/{}/ns/{file}", run.pid))));
            return Ok(true);
        }
        if setting != "host" {
            spaces.create |= flag;
        }
        Ok(setting != "host")
    };
    share("PID", CLONE_NEWPID, "pid", &host.pid_mode)?;
    share("IPC", CLONE_NEWIPC, "ipc", &host.ipc_mode)?;
    let own_uts = share("UTS", CLONE_NEWUTS, "uts", &host.uts_mode)?;
    let own_network = match kind_of(record) {
        mode::HOST => false,
        other if other.starts_with("container:") => share("network", CLONE_NEWNET, "net", other)?,
        // Made ahead and handed to the shim, unless it must belong to the container's user namespace.
        _ => {
            if record.ids.is_some() {
                spaces.create |= CLONE_NEWNET;
            }
            true
        }
    };
    spaces.cgroup = match host.cgroupns_mode.as_str() {
        "" => default_cgroup(world),
        mode => mode,
    } == "private";
    Ok(Planned {
        namespaces: spaces,
        own_network,
        own_uts,
    })
}
