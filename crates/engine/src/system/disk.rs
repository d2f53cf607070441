//! How much disk everything takes: `docker system df`.

use std::collections::HashMap;
use std::path::Path;

use ferry_api::Filters;
use ferry_api::system::{DiskUsage, RegistryUsage};
use futures_util::future::BoxFuture;

use super::System;
use crate::container::ListOptions;
use crate::error::{Error, Result};
use crate::images::ListImages;
use crate::world::blocking;
use crate::{Containers, Images, Volumes};

/// What is asked for; all of it when nothing is.
const TYPES: [&str; 4] = ["container", "image", "volume", "build-cache"];

impl System {
    /// `types` is what is to be counted. What is not asked for stays `None`, as with Docker.
    pub fn disk_usage<'a>(&'a self, types: &'a [String]) -> BoxFuture<'a, Result<DiskUsage>> {
        Box::pin(async move {
            if let Some(unknown) = types.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
                return Err(Error::invalid(format!("unknown object type: {unknown}")));
            }
            let wanted = |kind: &str| types.is_empty() || types.iter().any(|wanted| wanted == kind);
            let mut usage = DiskUsage::default();
            if wanted("image") {
                let counted = ListImages {
                    shared: true,
                    containers: true,
                    ..ListImages::default()
                };
                let mut images = Images::new(self.world.clone()).list(counted, &Filters::default())?;
                for image in &mut images {
                    // Docker's answer has null here where the list of images has nothing in it.
                    image.repo_tags = image.repo_tags.take().filter(|tags| !tags.is_empty());
                    image.repo_digests = image.repo_digests.take().filter(|digests| !digests.is_empty());
                }
                usage.images = Some(images);
                let layers: HashMap<_, _> = self
                    .world
                    .store
                    .images
                    .list()
                    .iter()
                    .flat_map(|image| image.layers.iter().map(|layer| (layer.chain_id.clone(), layer.size)))
                    .collect();
                usage.layers_size = i64::try_from(layers.values().sum::<u64>()).unwrap_or(i64::MAX);
            }
            if wanted("container") {
                let options = ListOptions {
                    all: true,
                    size: true,
                    ..ListOptions::default()
                };
                let containers = usage.containers.insert(Vec::new());
                let all = Containers::new(self.world.clone());
                all.list(&options, |summary| containers.push(summary)).await?;
            }
            if wanted("volume") {
                usage.volumes = Some(Volumes::usage(&self.world).await);
            }
            if wanted("build-cache") {
                usage.build_cache = Some(Vec::new());
            }
            // Docker has no type for it.
            if let Some(root) = self.world.config.registry.clone().filter(|_| types.is_empty()) {
                usage.registry = Some(blocking("measure the registry", move || registry(&root)).await?);
            }
            Ok(usage)
        })
    }
}

/// What is removed meanwhile, and what cannot be read, does not count.
fn registry(root: &Path) -> RegistryUsage {
    let mut usage = RegistryUsage {
        root: root.display().to_string(),
        ..RegistryUsage::default()
    };
    let blobs = root.join("blobs");
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        let is_of_blobs = dir.starts_with(&blobs);
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() {
                waiting.push(entry.path());
            } else if data.is_file() {
                usage.blobs += i64::from(is_of_blobs);
                usage.size += i64::try_from(data.len()).unwrap_or(0);
            }
        }
    }
    usage
}
