//! Which OCI runtime makes a container's processes: Ferry's own, or a program that the daemon's settings name.

use std::collections::BTreeMap;

use ferry_api::container::HostConfig;
use ferry_api::system::Runtime as Shown;
use ferry_supervise as supervise;

use crate::config::{Runtime, Runtimes};
use crate::container::{Point, Record};
use crate::error::{Error, Result};
use crate::world::World;

/// Ferry's own.
pub const OWN: &str = "ferry";
/// What clients of Docker call the usual runtime: Ferry's own too, unless the settings have one of that name.
const USUAL: [&str; 2] = ["runc", "io.containerd.runc.v2"];

impl Runtimes {
    /// Whether there is one of that name.
    pub fn has(&self, name: &str) -> bool {
        name == OWN || USUAL.contains(&name) || self.known.contains_key(name)
    }

    /// As `info` lists them.
    pub(crate) fn shown(&self) -> BTreeMap<String, Shown> {
        let known = self.known.iter().map(|(name, runtime)| {
            let shown = Shown {
                path: runtime.path.to_string_lossy().into_owned(),
                runtime_args: runtime.args.clone(),
                ..Shown::default()
            };
            (name.clone(), shown)
        });
        std::iter::once((OWN.to_owned(), Shown::default()))
            .chain(known)
            .collect()
    }
}

/// Whether a container with these settings, whose runtime has been filled in, can be made: what another runtime cannot have is
/// refused by name.
pub(crate) fn check(host: &HostConfig, points: &[Point], world: &World) -> Result<()> {
    known(host, points, &world.live.get().runtimes).map(drop)
}

/// The runtime for this container's start; `None` for Ferry's own.
pub(crate) fn of(record: &Record, world: &World) -> Result<Option<Box<supervise::Runtime>>> {
    let live = world.live.get();
    // Its name may mean another one than when the container was made.
    let Some(runtime) = known(&record.host_config, &record.mounts, &live.runtimes)? else {
        return Ok(None);
    };
    Ok(Some(Box::new(supervise::Runtime {
        name: record.host_config.runtime.clone(),
        path: runtime.path.clone(),
        args: runtime.args.clone(),
        seccomp: crate::seccomp::resolved(record, world)?,
        annotations: record.host_config.annotations.clone(),
    })))
}

fn known<'a>(host: &HostConfig, points: &[Point], runtimes: &'a Runtimes) -> Result<Option<&'a Runtime>> {
    let name = &host.runtime;
    let Some(runtime) = runtimes.known.get(name) else {
        // Of a container made before there was a choice: empty.
        return match name.is_empty() || runtimes.has(name) {
            true => Ok(None),
            false => Err(Error::invalid(format!("unknown or invalid runtime name: {name}"))),
        };
    };
    let refused = |what: &str, instead: &str| {
        Err(Error::unsupported(format!(
            "{what} is not there with --runtime {name}: {instead}"
        )))
    };
    if host.userns_mode == "auto" {
        return refused(
            "a user namespace of the container's own",
            "give --userns=host, or leave the runtime out",
        );
    }
    if points
        .iter()
        .any(|point| matches!(point.propagation.as_str(), "shared" | "rshared"))
    {
        return refused(
            "a bind mount with the propagation shared or rshared",
            "give rslave, by which the host's mounts reach the container, or leave the runtime out",
        );
    }
    Ok(Some(runtime))
}
