//! `docker image prune` (moby daemon/images/image_prune.go, 28.5).

use std::collections::HashMap;
use std::sync::Arc;

use ferry_api::Filters;
use ferry_api::image::{Deleted, Prune};
use ferry_storage::Image;
use futures_util::future::BoxFuture;

use super::list::until;
use super::{Images, created, labels};
use crate::error::{Error, Result};
use crate::world::blocking;

const FILTERS: [&str; 4] = ["dangling", "label", "label!", "until"];

impl Images {
    /// Removes what has no name and no container; with `dangling=false`, names that no container uses as well. Without a
    /// choice by label or age, the parts of pulls that broke off go too.
    pub fn prune<'a>(&'a self, filters: &'a Filters) -> BoxFuture<'a, Result<Prune>> {
        Box::pin(async move {
            let invalid = |error: ferry_api::Error| Error::invalid(error.to_string());
            filters.validate(&FILTERS).map_err(invalid)?;
            let dangling = filters.flag("dangling", true).map_err(invalid)?;
            let until = until(filters)?;
            let all = self.world.store.images.list();
            let sizes: HashMap<String, u64> = all
                .iter()
                .flat_map(|image| &image.layers)
                .map(|layer| (layer.chain_id.to_string(), layer.size))
                .collect();
            let has_child = |image: &Image| all.iter().any(|other| other.parent.as_ref() == Some(&image.id));
            let mut deleted: Vec<Deleted> = Vec::new();
            for image in &all {
                if has_child(image) && (dangling || image.references.is_empty()) {
                    continue;
                }
                let young = until.is_some_and(|until| created(image).is_none_or(|created| created > until));
                if young || !matches_labels(filters, image) {
                    continue;
                }
                for name in doomed(image, dangling) {
                    // In use, or gone by now: that is why it stays.
                    if let Ok(gone) = self.remove(&name, false, false).await {
                        deleted.extend(gone);
                    }
                }
            }
            let mut freed: u64 = deleted.iter().filter_map(|gone| sizes.get(&gone.deleted)).sum();
            if !["label", "label!", "until"].iter().any(|key| filters.contains(key)) {
                let images = self.world.store.images.clone();
                freed += blocking("remove parts of pulls", move || images.collect_parts()).await??;
            }
            self.world.events.publish(
                ferry_api::events::kind::IMAGE,
                "prune",
                "",
                [("reclaimed".to_owned(), freed.to_string())].into(),
            );
            Ok(Prune {
                images_deleted: (!deleted.is_empty()).then_some(deleted),
                space_reclaimed: freed,
            })
        })
    }
}

/// What is to be removed of an image, by name or by id.
fn doomed(image: &Arc<Image>, dangling: bool) -> Vec<String> {
    if image.references.is_empty() {
        return vec![image.id.to_string()];
    }
    let tagged = image.references.iter().any(|name| name.digest().is_none());
    if dangling && tagged {
        return Vec::new();
    }
    image.references.iter().map(ferry_image::Reference::familiar).collect()
}

fn matches_labels(filters: &Filters, image: &Image) -> bool {
    let labels = labels(image);
    filters.labels("label", &labels) && !(filters.contains("label!") && filters.labels("label!", &labels))
}
