//! `container prune` (moby daemon/prune.go), and `diff`.

use std::path::Path;

use ferry_api::Filters;
use ferry_api::container::{Change, ChangeKind, Prune};
use ferry_api::events::kind;
use futures_util::future::BoxFuture;

use super::state::Status;
use super::{Containers, commit};
use crate::error::{Error, Result};
use crate::world::blocking;

const FILTERS: [&str; 3] = ["label", "label!", "until"];

impl Containers {
    /// Removes what does not run, with the bytes of its own that it had.
    pub fn prune<'a>(&'a self, filters: &'a Filters) -> BoxFuture<'a, Result<Prune>> {
        Box::pin(async move {
            filters
                .validate(&FILTERS)
                .map_err(|error| Error::invalid(error.to_string()))?;
            let until = crate::images::until(filters)?;
            let mut pruned = Prune::default();
            let mut deleted = Vec::new();
            for handle in self.world.containers.all() {
                let snapshot = handle.snapshot();
                let record = &snapshot.record;
                let idle = matches!(record.run.status, Status::Created | Status::Exited | Status::Dead);
                let young = until.is_some_and(|until| record.created > until);
                let labels = record.config.labels.clone().unwrap_or_default();
                let chosen = filters.labels("label", &labels)
                    && !(filters.contains("label!") && filters.labels("label!", &labels));
                if !idle || young || !chosen {
                    continue;
                }
                let size = self.world.store.snapshots.usage(&record.id).await;
                // Started, or gone by now: that is why it stays.
                if self.remove(&record.id, false, false).await.is_ok() {
                    pruned.space_reclaimed += size.map_or(0, |size| size.rw);
                    deleted.push(record.id.clone());
                }
            }
            pruned.containers_deleted = (!deleted.is_empty()).then_some(deleted);
            let reclaimed = ("reclaimed".to_owned(), pruned.space_reclaimed.to_string());
            self.world
                .events
                .publish(kind::CONTAINER, "prune", "", [reclaimed].into());
            Ok(pruned)
        })
    }

    /// What a container changed of its image's files; `None` for nothing.
    pub fn changes<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<Change>>>> {
        Box::pin(async move { self.timed("changes", self.find_changes(name)).await })
    }

    async fn find_changes(&self, name: &str) -> Result<Option<Vec<Change>>> {
        let snapshot = self.find(name)?.snapshot();
        let (id, source) = (snapshot.record.id.clone(), commit::source(&snapshot.record));
        let images = self.world.store.images.clone();
        let changed = blocking("compare the container's files", move || images.changes(&id, &source)).await??;
        let change = |changed: &ferry_storage::Changed| Change {
            path: Path::new("/").join(&changed.path).to_string_lossy().into_owned(),
            kind: match changed.change {
                ferry_storage::Change::Modified => ChangeKind::Modified,
                ferry_storage::Change::Added => ChangeKind::Added,
                ferry_storage::Change::Deleted => ChangeKind::Deleted,
            },
        };
        Ok((!changed.is_empty()).then(|| changed.iter().map(change).collect()))
    }
}
