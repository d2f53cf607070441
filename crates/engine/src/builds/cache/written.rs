//! Which steps are written to a cache, and the documents that say so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use ferry_build::cache::CacheDestination;
use ferry_build::{Error, Result};
use ferry_distribution::Descriptor;
use ferry_image::Digest;
use ferry_image::media::{self, Compression, Kind};
use ferry_storage::{Held, Layer, Step, Travelling};
use jiff::Timestamp;
use serde_json::json;

use super::document::{self, Annotations, Entry, Record};
use crate::builds::Inner;
use crate::builds::workshop::{Workshop, failed};

/// A step that is written, and its layers, lowest first.
pub struct Kept {
    pub step: Arc<Step>,
    pub layers: Vec<Layer>,
    _held: Vec<Held>,
}

impl Kept {
    /// Those that a step made; others are a base image's.
    fn made(&self) -> impl Iterator<Item = (&Layer, Option<Timestamp>)> {
        let times = self.step.times.iter().copied().chain(std::iter::repeat(None));
        self.layers.iter().zip(times).filter(|(_, time)| time.is_some())
    }
}

/// Steps that are written, those below first.
pub struct Gathered {
    pub steps: Vec<Kept>,
}

impl Gathered {
    /// Those whose layers the result has.
    pub async fn of_result(shop: &Workshop, solved: &Inner) -> Result<Self> {
        let mut chains = HashSet::new();
        for layer in &solved.tree.layers {
            let settled = layer.held.settled().await.map_err(failed("make a layer"))?;
            chains.insert(settled.chain_id);
        }
        let mut all = Self::of_build(shop, solved).await?;
        let top = |kept: &Kept| kept.layers.last().is_some_and(|layer| chains.contains(&layer.chain_id));
        for kept in &mut all.steps {
            if !top(kept) {
                kept.layers.clear();
            }
        }
        // Steps that were made again by order are known by another identity than their keys say.
        all.steps
            .retain(|kept| !(kept.layers.is_empty() && kept.step.identity.is_empty()));
        Ok(all)
    }

    /// All that are remembered.
    pub async fn of_build(shop: &Workshop, solved: &Inner) -> Result<Self> {
        let (mut steps, mut seen) = (Vec::new(), HashSet::new());
        for key in &solved.keys {
            let Some((step, held)) = shop.world.store.steps.find(key) else {
                continue;
            };
            if held.is_empty() || !seen.insert(step.key.clone()) {
                continue;
            }
            let mut layers = Vec::new();
            for held in &held {
                layers.push(held.settled().await.map_err(failed("make a layer"))?);
            }
            steps.push(Kept {
                step,
                layers,
                _held: held,
            });
        }
        Ok(Self { steps })
    }

    /// The layers that were made, each once.
    pub fn layers(&self) -> Vec<(Layer, Option<Timestamp>)> {
        let mut seen = HashSet::new();
        let made = self.steps.iter().flat_map(Kept::made);
        let made = made.filter(|(layer, _)| seen.insert(layer.diff_id.clone()));
        made.map(|(layer, time)| (layer.clone(), time)).collect()
    }
}

/// A cache's configuration and its manifest.
pub struct Written {
    pub config: Descriptor,
    pub config_bytes: Bytes,
    pub media_type: &'static str,
    pub bytes: Bytes,
}

impl Written {
    pub fn new(
        gathered: &Gathered,
        layers: &[(Layer, Option<Timestamp>)],
        blobs: &[Travelling],
        destination: &CacheDestination,
    ) -> Result<Self> {
        let wrong = |error: serde_json::Error| Error::internal("write the cache's configuration", &error);
        let places: HashMap<&Digest, i64> = (0..)
            .zip(layers)
            .map(|(at, (layer, _))| (&layer.chain_id, at))
            .collect();
        let (mut entries, mut listed) = (Vec::new(), Vec::new());
        for ((layer, time), blob) in layers.iter().zip(blobs) {
            let media_type = media_type(&blob.media_type, destination.is_oci);
            let mut descriptor = Descriptor::new(media_type, blob.digest.clone(), blob.size);
            let about = &mut descriptor.annotations;
            about.insert("containerd.io/uncompressed".to_owned(), layer.diff_id.to_string());
            if let Some(time) = time {
                about.insert("buildkit/createdat".to_owned(), time.to_string());
            }
            listed.push(descriptor);
            entries.push(Entry {
                blob: blob.digest.clone(),
                parent: layer
                    .parent
                    .as_ref()
                    .and_then(|parent| places.get(parent))
                    .copied()
                    .unwrap_or(-1),
                annotations: Some(Annotations {
                    media_type: media_type.to_owned(),
                    diff_id: layer.diff_id.clone(),
                    size: blob.size,
                    created_at: *time,
                }),
            });
        }
        let (diff_ids, records) = records(gathered);
        let config_bytes: Bytes = document::config(diff_ids, &entries, records).map_err(wrong)?.into();
        let config = Descriptor::of(document::CONFIG, &config_bytes);
        let (media_type, manifest) = match (destination.is_manifest, destination.is_oci) {
            (true, _) => {
                let manifest = json!({
                    "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": listed,
                });
                (media::OCI_MANIFEST, manifest)
            }
            (false, is_oci) => {
                let media_type = if is_oci { media::OCI_INDEX } else { media::DOCKER_INDEX };
                listed.push(config.clone());
                (
                    media_type,
                    json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": listed }),
                )
            }
        };
        Ok(Self {
            config,
            config_bytes,
            media_type,
            bytes: serde_json::to_vec(&manifest).map_err(wrong)?.into(),
        })
    }
}

/// Records whose layers are places among the diff ids.
fn records(gathered: &Gathered) -> (Vec<Digest>, Vec<Record>) {
    let (mut diff_ids, mut places) = (Vec::new(), HashMap::new());
    let mut place = |layer: &Layer| {
        *places.entry(layer.diff_id.clone()).or_insert_with(|| {
            diff_ids.push(layer.diff_id.clone());
            u32::try_from(diff_ids.len() - 1).unwrap_or(u32::MAX)
        })
    };
    let records = gathered.steps.iter();
    let records = records.map(|kept| Record::new(&kept.step, kept.layers.iter().map(&mut place).collect()));
    let records = records.collect();
    (diff_ids, records)
}

pub fn media_type(found: &str, is_oci: bool) -> &'static str {
    let compression = match Kind::of(found) {
        Kind::Layer { compression, .. } => compression,
        _ => Compression::Gzip,
    };
    match (compression, is_oci) {
        (Compression::Gzip, false) => media::DOCKER_LAYER_GZIP,
        (Compression::Zstd, false) => media::DOCKER_LAYER_ZSTD,
        (Compression::None, false) => media::DOCKER_LAYER,
        (compression, true) => compression.oci_layer(),
    }
}
