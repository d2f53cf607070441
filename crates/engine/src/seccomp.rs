//! The filter a container runs under, compiled once for every profile and set of capabilities.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_runtime::caps;
use ferry_seccomp::Arch;

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
    if profile == "unconfined" || (host.privileged && profile.is_empty()) {
        return Ok(Arc::new([]));
    }
    let profile = if profile == "builtin" { "" } else { profile };
    let mask = crate::container::capabilities(record)?;
    let key = (profile.to_owned(), mask);
    let cache = &world.seccomp.filters;
    if let Some(filter) = cache.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(Arc::clone(filter));
    }
    let filter = compile(profile, mask, world)?;
    let mut filters = cache.lock().unwrap_or_else(PoisonError::into_inner);
    if filters.len() >= MOST {
        filters.clear();
    }
    filters.insert(key, Arc::clone(&filter));
    Ok(filter)
}

fn compile(profile: &str, mask: u64, world: &World) -> Result<Arc<[u8]>> {
    let names: BTreeSet<String> = (0..caps::NAMES.len())
        .filter(|number| mask & (1 << number) != 0)
        .map(|number| caps::NAMES[number].to_owned())
        .collect();
    let arch = Arch::NATIVE;
    let wrong = |error: ferry_seccomp::Error| {
        Error::invalid(format!(
            "opening seccomp profile failed: {}",
            crate::error::chain(&error)
        ))
    };
    let kernel = world.host.kernel;
    let resolved = match profile {
        "" => Some(ferry_seccomp::default_profile(&names, kernel, arch).map_err(wrong)?),
        json => {
            let profile = ferry_seccomp::parse_docker_profile(json.as_bytes()).map_err(wrong)?;
            profile.resolve(&names, kernel, arch).map_err(wrong)?
        }
    };
    let Some(resolved) = resolved else {
        return Ok(Arc::new([]));
    };
    let program = ferry_seccomp::compile(&resolved, &[arch]).map_err(wrong)?;
    Ok(program.bytes().into())
}
