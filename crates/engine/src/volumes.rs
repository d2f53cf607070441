//! Volumes: directories that outlive containers.
//!
//! ```text
//!   Volumes (the API's verbs) ─▶ Shelf: what there is, in memory ─▶ volumes/NAME/_data, and a record
//!                                  ├─ local: what the options mount there, while a container uses it
//!                                  └─ copy_up: what an image has there, into a new one
//! ```
//!
//! Invariants:
//! * Who uses a volume is read off the containers' records; nothing counts. A create holds a [`Claims`] until its record is
//!   there.
//! * The directory comes before the record and goes after it is certain that nobody uses it. A directory without a record is
//!   taken up again if it holds anything: data of users is not garbage.
//! * What is mounted for a volume with a device lives in the host's mount namespace, so that the engine's death unmounts
//!   nothing. The next engine unmounts what no container that runs uses.

mod copy_up;
mod disk;
mod local;
mod reconcile;
mod shelf;
mod stored;
mod transfer;
mod use_of;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ferry_api::Filters;
use ferry_api::events::kind;
use ferry_api::volume::{Create, List, Prune, Usage, Volume as Shown, mount_type};
use futures_util::future::BoxFuture;

pub(crate) use self::copy_up::{When, copy_up};
pub(crate) use self::shelf::Shelf;
use self::shelf::Volume;
use self::stored::Stored;
pub(crate) use self::stored::{ANONYMOUS, DRIVER};
pub use self::transfer::Transfer;
use crate::container::Record;
use crate::error::{Error, Result};
use crate::world::World;

/// The volumes. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Volumes {
    world: Arc<World>,
}

fn invalid(error: &ferry_api::Error) -> Error {
    Error::invalid(error.to_string())
}

impl Volumes {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// By name. Does no I/O.
    pub fn list(&self, filters: &Filters) -> Result<List> {
        filters
            .validate(&["dangling", "name", "driver", "label"])
            .map_err(|error| invalid(&error))?;
        let dangling = match filters.contains("dangling") {
            true => Some(filters.flag("dangling", false).map_err(|error| invalid(&error))?),
            false => None,
        };
        let users = users(&self.world);
        let wanted = |volume: &Arc<Volume>| {
            let stored = &volume.stored;
            filters.pattern("name", &stored.name)
                && filters.exact("driver", &stored.driver)
                && filters.labels("label", stored.labels())
                && dangling.is_none_or(|dangling| dangling != users.contains_key(&stored.name))
        };
        let all = self.world.volumes.all();
        let shown = all.iter().filter(|volume| wanted(volume)).map(|volume| volume.shown());
        Ok(List {
            volumes: Some(shown.collect()),
            warnings: None,
        })
    }

    pub fn inspect(&self, name: &str) -> Result<Shown> {
        Ok(self.world.volumes.find("get", name)?.shown())
    }

    /// The volume of that name, made if it is not there.
    pub fn create(&self, mut request: Create) -> BoxFuture<'_, Result<Shown>> {
        Box::pin(async move {
            if request.name.is_empty() {
                request.name = ferry_kit::Id::random().to_string();
                request.labels.insert(ANONYMOUS.to_owned(), String::new());
            }
            let world = &self.world;
            let _changes = world.volumes.change().await;
            Ok(world.volumes.create(world, request).await?.0.shown())
        })
    }

    /// `force`: fine if there is none. One that a container has is never removed.
    pub fn remove<'a>(&'a self, name: &'a str, force: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let world = &self.world;
            let _changes = world.volumes.change().await;
            match world.volumes.find("get", name) {
                Ok(volume) => world.volumes.remove(world, &volume).await,
                Err(_) if force => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    /// Removes what no container has: volumes without a name of the user's, or all of them with the filter `all`.
    pub fn prune<'a>(&'a self, filters: &'a Filters) -> BoxFuture<'a, Result<Prune>> {
        Box::pin(async move {
            filters
                .validate(&["label", "label!", "all"])
                .map_err(|error| invalid(&error))?;
            let all = filters.contains("all") && filters.flag("all", false).map_err(|error| invalid(&error))?;
            let world = &self.world;
            let mut pruned = Prune {
                volumes_deleted: Some(Vec::new()),
                ..Prune::default()
            };
            let users = users(world);
            for volume in world.volumes.all() {
                let stored = &volume.stored;
                let unlabelled = !filters.contains("label!") || !filters.labels("label!", stored.labels());
                let wanted = (all || stored.labels().contains_key(ANONYMOUS))
                // As Docker: what the options name is not seen to be unused from here.
                && stored.options.as_ref().is_none_or(BTreeMap::is_empty)
                && filters.labels("label", stored.labels())
                && unlabelled
                && !users.contains_key(&stored.name);
                if !wanted {
                    continue;
                }
                let size = disk::size(&volume).await.unwrap_or(0);
                let _changes = world.volumes.change().await;
                // One that a container has got meanwhile stays.
                if world.volumes.remove(world, &volume).await.is_ok() {
                    pruned.space_reclaimed = pruned.space_reclaimed.saturating_add(size);
                    pruned.volumes_deleted.get_or_insert_default().push(stored.name.clone());
                }
            }
            world.events.publish(
                kind::VOLUME,
                "prune",
                "",
                BTreeMap::from([("reclaimed".to_owned(), pruned.space_reclaimed.to_string())]),
            );
            Ok(pruned)
        })
    }

    /// Every volume with its size and how many containers have it. What is elsewhere is not counted, as with Docker.
    pub(crate) async fn usage(world: &World) -> Vec<Shown> {
        let users = users(world);
        let mut all = Vec::new();
        for volume in world.volumes.all() {
            if volume
                .stored
                .options
                .as_ref()
                .is_some_and(|options| !options.is_empty())
            {
                continue;
            }
            let size = disk::size(&volume).await;
            let count = users.get(&volume.stored.name).map_or(0, Vec::len);
            let mut shown = volume.shown();
            shown.usage_data = Some(Usage {
                ref_count: i64::try_from(count).unwrap_or(i64::MAX),
                size: size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)),
            });
            all.push(shown);
        }
        all
    }
}

/// The volumes of a container, by name.
pub(crate) fn names(record: &Record) -> impl Iterator<Item = &str> {
    let points = record.mounts.iter();
    points
        .filter(|point| point.r#type == mount_type::VOLUME)
        .map(|point| point.name.as_str())
}

/// The anonymous volumes that were made for a container and go with it.
pub(crate) fn own(record: &Record) -> Vec<String> {
    let points = record.mounts.iter();
    points
        .filter(|point| point.anonymous)
        .map(|point| point.name.clone())
        .collect()
}

/// Which containers have which volume.
fn users(world: &World) -> HashMap<String, Vec<String>> {
    let mut users: HashMap<String, Vec<String>> = HashMap::new();
    for handle in world.containers.all() {
        let snapshot = handle.snapshot();
        for name in names(&snapshot.record) {
            let of = users.entry(name.to_owned()).or_default();
            if of.last() != Some(&snapshot.record.id) {
                of.push(snapshot.record.id.clone());
            }
        }
    }
    users
}

/// Tells of a volume.
fn event(world: &World, stored: &Stored, action: &str, more: &[(&str, String)]) {
    let mut attributes = BTreeMap::from([("driver".to_owned(), stored.driver.clone())]);
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    world.events.publish(kind::VOLUME, action, &stored.name, attributes);
}
