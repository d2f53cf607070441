//! The filter a container runs under, compiled once for every profile and set of capabilities.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_runtime::caps;
use ferry_seccomp::Arch;
use oci_spec::runtime::LinuxSeccomp;

use crate::container::Record;
use crate::error::{Error, Result};
use crate::world::World;

/// Compiled filters: by the profile's text (empty: the default one) and the capabilities it is resolved for.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    filters: Mutex<HashMap<Key, Arc<[u8]>>>,
}

type Key = (String, u64);

/// More profiles than this at a time are somebody's experiment; the cache starts anew.
const MOST: usize = 64;

/// The compiled filter of a container, empty for none.
pub(crate) fn filter(record: &Record, world: &World) -> Result<Arc<[u8]>> {
    let Some(profile) = profile(record, world) else {
        return Ok(Arc::new([]));
    };
    let mask = crate::container::capabilities(record)?;
    let key = (profile, mask);
    let cache = &world.seccomp.filters;
    if let Some(filter) = cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(Arc::clone(filter));
    }
    let filter: Arc<[u8]> = match resolve(&key.0, mask, world)? {
        Some(resolved) => ferry_seccomp::compile(&resolved, &[Arch::NATIVE])
            .map_err(|error| wrong(&error))?
            .bytes()
            .into(),
        None => Arc::new([]),
    };
    let mut filters = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if filters.len() >= MOST {
        filters.clear();
    }
    filters.insert(key, Arc::clone(&filter));
    Ok(filter)
}

/// What the filter is compiled from, for a runtime that compiles its own.
pub(crate) fn resolved(record: &Record, world: &World) -> Result<Option<LinuxSeccomp>> {
    match profile(record, world) {
        Some(profile) => resolve(&profile, crate::container::capabilities(record)?, world),
        None => Ok(None),
    }
}

/// The profile's text, empty for the default one; `None`: none at all.
fn profile(record: &Record, world: &World) -> Option<String> {
    let host = &record.host_config;
    let mut profile = "";
    for option in host.security_opt.iter().flatten() {
        if let Some(value) = option
            .strip_prefix("seccomp=")
            .or_else(|| option.strip_prefix("seccomp:"))
        {
            profile = value;
        }
    }
    let live = world.live.get();
    if profile.is_empty() && !host.privileged {
        profile = live.containers.seccomp.as_deref().unwrap_or_default();
    }
    match profile {
        "unconfined" => None,
        "" if host.privileged => None,
        "builtin" => Some(String::new()),
        profile => Some(profile.to_owned()),
    }
}

/// The rules of a profile for a container with these capabilities; `None` for one that has none.
fn resolve(profile: &str, mask: u64, world: &World) -> Result<Option<LinuxSeccomp>> {
    let names: BTreeSet<String> = (0..caps::NAMES.len())
        .filter(|number| mask & (1 << number) != 0)
        .map(|number| caps::NAMES[number].to_owned())
        .collect();
    let kernel = world.host.kernel;
    match profile {
        "" => ferry_seccomp::default_profile(&names, kernel, Arch::NATIVE).map(Some),
        json => ferry_seccomp::parse_docker_profile(json.as_bytes())
            .and_then(|profile| profile.resolve(&names, kernel, Arch::NATIVE)),
    }
    .map_err(|error| wrong(&error))
}

fn wrong(error: &ferry_seccomp::Error) -> Error {
    Error::invalid(format!(
        "opening seccomp profile failed: {}",
        crate::error::chain(error)
    ))
}
