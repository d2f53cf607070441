//! What is kept of builds, and what of it goes.
//!
//! Three kinds of things: results of steps, cache mounts, and what clients sent of their contexts. Sizes add up: files that two
//! steps have are counted with one of them.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_build::filters::Filters;
use ferry_build::output::{Kept, Prune};
use ferry_build::{Error, Result};
use ferry_sys::Root;
use jiff::Timestamp;

use super::workshop::Shared;
use crate::world::World;

/// How many digits of a key or a name are an id.
const DIGITS: usize = 25;

/// A kept thing, and what it is.
struct Found {
    kept: Kept,
    what: What,
}

enum What {
    Step(String),
    Directory(PathBuf),
}

/// What directories have, by path, with the use after which that was seen: until the next use it stays.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<HashMap<PathBuf, (Option<Timestamp>, u64)>>);

impl Sizes {
    fn of(&self, path: &Path, used: Option<Timestamp>, is_used: bool, measure: impl FnOnce() -> u64) -> u64 {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, size)) = known().get(path)
            && *then == used
            && !is_used
        {
            return *size;
        }
        let size = measure();
        known().insert(path.to_owned(), (used.filter(|_| !is_used), size));
        size
    }

    fn forget(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
}

/// Everything that matches, the least recently used first.
pub(super) async fn usage(world: &Arc<World>, shared: &Arc<Shared>, filters: &[String]) -> Result<Vec<Kept>> {
    let filters = Filters::parse(filters)?;
    let found = find(world, shared).await?.into_iter().map(|found| found.kept);
    Ok(found.filter(|kept| filters.match_(kept)).collect())
}

/// Removes what is asked for, the least recently used first; what went.
pub(super) async fn prune(world: &Arc<World>, shared: &Arc<Shared>, prune: Prune) -> Result<Vec<Kept>> {
    let filters = Filters::parse(&prune.filters)?;
    let found = find(world, shared).await?;
    // What an image needs as well would not be free afterwards.
    let own = |kept: &Kept| if kept.shared { 0 } else { kept.size };
    let mut total: u64 = found.iter().map(|found| own(&found.kept)).sum();
    let limit = limit(world, &prune, total);
    let now = Timestamp::now();
    let (mut gone, mut steps) = (Vec::new(), Vec::new());
    for Found { kept, what } in found {
        let is_wanted = !kept.in_use
            && (prune.all || !(kept.shared || kept.kind == "internal" || kept.kind == "frontend"))
            && is_old(&kept, prune.keep_seconds, now)
            && filters.match_(&kept);
        if !is_wanted {
            continue;
        }
        if limit.is_some_and(|limit| total <= limit) {
            break;
        }
        total -= own(&kept);
        match what {
            What::Step(key) => steps.push(key),
            What::Directory(path) => {
                shared.sizes.forget(&path);
                remove(path).await?;
            }
        }
        gone.push(kept);
    }
    let is_everything = prune.all && prune.keep_seconds == 0 && limit.is_none() && filters.is_empty();
    if is_everything {
        forget_contents(world, Duration::ZERO)?;
    }
    if !steps.is_empty() {
        let forgotten = world.store.steps.forget(steps).await;
        forgotten.map_err(super::workshop::failed("forget what was built"))?;
    }
    Ok(gone)
}

/// Removes what is known of the contents of places that nobody has built from for that long.
pub(super) fn forget_contents(world: &World, unused: Duration) -> Result<()> {
    let failed = |error: std::io::Error| Error::internal("forget the contents of files", &error);
    for entry in std::fs::read_dir(super::dir(world, "index")?)
        .map_err(failed)?
        .flatten()
    {
        let Ok(metadata) = entry.metadata() else { continue };
        // The kernel notes a use once a day.
        let used = [metadata.accessed(), metadata.modified()].into_iter().flatten().max();
        let age = used.and_then(|used| used.elapsed().ok()).unwrap_or_default();
        if age >= unused {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Docker's filters of `POST /build/prune`, as BuildKit's. Others, labels say, mean nothing to a builder.
pub fn prune_of(filters: &ferry_api::Filters) -> crate::Result<Prune> {
    const FIELDS: [&str; 7] = ["id", "parent", "type", "description", "inuse", "shared", "private"];
    let mut conditions = Vec::new();
    for field in FIELDS.into_iter().filter(|field| filters.contains(field)) {
        let values: Vec<&str> = filters.values(field).collect();
        conditions.push(match values[..] {
            [] => field.to_owned(),
            [value] if field == "id" => format!("id~={value}"),
            [value] => format!("{field}=={value}"),
            _ => return Err(crate::Error::invalid("filters expect only one value")),
        });
    }
    let since = crate::images::until(filters)?.map(|at| Timestamp::now().as_second() - at.as_second());
    Ok(Prune {
        filters: vec![conditions.join(",")],
        keep_seconds: u64::try_from(since.unwrap_or(0)).unwrap_or(0),
        ..Prune::default()
    })
}

/// How many bytes may stay; `None` for none that is asked for.
fn limit(world: &World, prune: &Prune, total: u64) -> Option<u64> {
    if prune.reserved == 0 && prune.max_used == 0 && prune.min_free == 0 {
        return None;
    }
    let mut limit = match prune.max_used {
        0 => u64::MAX,
        most => most,
    };
    if prune.min_free > 0
        && let Ok(disk) = rustix::fs::statvfs(world.store.root())
    {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        limit = limit.min(total.saturating_sub(prune.min_free.saturating_sub(free)));
    }
    if prune.max_used == 0 && prune.min_free == 0 {
        limit = prune.reserved;
    }
    Some(limit.max(prune.reserved))
}

fn is_old(kept: &Kept, seconds: u64, now: Timestamp) -> bool {
    let Some(last) = kept.last_used.or(kept.created) else {
        return true;
    };
    let age = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    age >= Duration::from_secs(seconds)
}

async fn find(world: &Arc<World>, shared: &Arc<Shared>) -> Result<Vec<Found>> {
    let needed = world.store.steps.shared();
    let mut counted = HashSet::new();
    let mut found = Vec::new();
    for step in world.store.steps.all() {
        let own = step.layers.last();
        let is_first = own.is_some_and(|own| counted.insert(own.clone()));
        let kept = Kept {
            id: short(&step.key),
            parents: step.parents.iter().map(|key| short(key)).collect(),
            kind: step.kind.clone(),
            description: step.description.clone(),
            size: if is_first { step.size } else { 0 },
            in_use: false,
            shared: own.is_some_and(|own| needed.contains(own)),
            created: Some(step.created),
            last_used: Some(step.last_used).filter(|_| step.used > 0),
            used: step.used,
        };
        found.push(Found {
            kept,
            what: What::Step(step.key.clone()),
        });
    }
    let (world, shared) = (Arc::clone(world), Arc::clone(shared));
    let directories = tokio::task::spawn_blocking(move || directories(&world, &shared)).await;
    found.extend(directories.map_err(|error| Error::internal("look at what is kept of builds", &error))??);
    found.sort_by_key(|found| (found.kept.last_used.or(found.kept.created), found.kept.used));
    Ok(found)
}

fn short(key: &str) -> String {
    key.chars().take(DIGITS).collect()
}

fn directories(world: &World, shared: &Shared) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (name, kind) in [("cache", "exec.cachemount"), ("contexts", "source.local")] {
        let dir = super::dir(world, name)?;
        let entries =
            std::fs::read_dir(&dir).map_err(|error| Error::internal("look at what is kept of builds", &error))?;
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(root) = Root::open(&path) else { continue };
            let id = std::fs::read_to_string(path.join("id")).unwrap_or_default();
            let used = time(&path.join("id")).or_else(|| time(&path));
            let description = match kind {
                "exec.cachemount" => format!("cached mount {id}"),
                _ => format!("local source for {id}"),
            };
            let in_use = shared.caches.is_used(&name) || is_locked(&path);
            let measure = || ferry_archive::tree::size(root.as_fd()).unwrap_or(0);
            let kept = Kept {
                id: short(&name),
                kind: kind.to_owned(),
                description,
                size: shared.sizes.of(&path, used, in_use, measure),
                in_use,
                created: used,
                last_used: used,
                used: 1,
                ..Kept::default()
            };
            found.push(Found {
                kept,
                what: What::Directory(path),
            });
        }
    }
    Ok(found)
}

/// Whether a build works with what a client sent: it has locked what the directory is called by.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path.join("id")) else {
        return false;
    };
    let lock = rustix::fs::FlockOperation::NonBlockingLockShared;
    rustix::fs::flock(&file, lock).is_err_and(|error| error == rustix::io::Errno::WOULDBLOCK)
}

fn time(path: &Path) -> Option<Timestamp> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    Timestamp::try_from(modified).ok()
}

/// Out of sight first: a build that begins meanwhile makes a new one.
async fn remove(path: PathBuf) -> Result<()> {
    let removed = tokio::task::spawn_blocking(move || {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(());
        };
        Root::open(parent)?.remove_all(name)
    });
    let removed = removed
        .await
        .map_err(|error| Error::internal("remove what is kept of builds", &error))?;
    removed.map_err(|error| Error::internal("remove what is kept of builds", &error))
}
