//! Pushing: what the registry lacks of an image is sent, its manifest last.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ferry_distribution::{Credentials, Descriptor, Pushed, Repository, Source};
use ferry_image::media::{self, Kind as MediaKind};
use ferry_image::{Digest, Platform, Reference};
use ferry_storage::{Image, Layer, Outgoing, Packing, Travelling, Way};
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};

mod index;

use super::Images;
use super::transfer::{LayerState, Reporter, Step};
use crate::error::{Error, Result};
use crate::world::{World, blocking};

/// Other repositories that a registry is asked to take a layer from.
const MOUNTS: usize = 3;

/// What is to be pushed.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Without a tag: every tag.
    pub reference: Reference,
    /// What the image must be for.
    pub platform: Option<Platform>,
    pub credentials: Credentials,
}

impl Images {
    /// Sends an image, or all of a name, to the registry in its name. Dropping the future stops it; what is there stays there.
    pub fn push<'a>(&'a self, request: PushRequest, reporter: &'a Reporter) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let name = &request.reference;
            reporter.tell(Step::Pushing {
                repository: name.name(),
            });
            let images = self.tagged(name)?;
            let repository = self.world.live.get().client.repository(name, &request.credentials)?;
            for (reference, image) in images {
                check_platform(&reference, &image, request.platform.as_ref())?;
                // A platform that is asked for goes alone.
                let alone = request.platform.is_some();
                self.push_one(&repository, &reference, &image, alone, reporter).await?;
            }
            Ok(())
        })
    }

    /// What a name stands for: one tag, or all there are.
    fn tagged(&self, name: &Reference) -> Result<Vec<(Reference, Arc<Image>)>> {
        let bare = name.clone().without_tag_and_digest();
        if name.tag().is_some() {
            let image = super::find(&self.world, &name.familiar()).map_err(|_| absent(&bare))?;
            return Ok(vec![(name.clone(), image)]);
        }
        let mut found = Vec::new();
        for image in self.world.store.images.list() {
            let own = image.references.iter();
            let own = own.filter(|reference| reference.tag().is_some() && reference.digest().is_none());
            for reference in own.filter(|reference| (*reference).clone().without_tag_and_digest() == bare) {
                found.push((reference.clone(), Arc::clone(&image)));
            }
        }
        found.sort_by(|(one, _), (other, _)| one.tag().cmp(&other.tag()));
        match found.is_empty() {
            true => Err(absent(&bare)),
            false => Ok(found),
        }
    }

    async fn push_one(
        &self,
        repository: &Repository,
        reference: &Reference,
        image: &Arc<Image>,
        alone: bool,
        reporter: &Reporter,
    ) -> Result<()> {
        for layer in image.layers.iter().rev() {
            reporter.layer(&layer.diff_id, LayerState::Preparing);
        }
        let known = {
            let (images, image) = (self.world.store.images.clone(), Arc::clone(image));
            let look = move || images.travelling(&image.layers, Packing::default());
            blocking("look for the layers", look).await??
        };
        let sent: Arc<Mutex<Vec<Option<Travelling>>>> = Arc::new(Mutex::new(vec![None; image.layers.len()]));
        let mut tasks = JoinSet::new();
        let mut outcome = Ok(());
        for (at, (layer, known)) in image.layers.iter().zip(known).enumerate().rev() {
            let permit = Arc::clone(&self.world.live.get().uploads).acquire_owned().await;
            let permit = permit.map_err(|error| Error::internal("wait for other uploads", &error))?;
            while let Some(done) = tasks.try_join_next() {
                outcome = outcome.and(ended(done));
            }
            if outcome.is_err() {
                break;
            }
            let sending = Sending {
                world: Arc::clone(&self.world),
                repository: repository.clone(),
                layer: layer.clone(),
                known,
                packing: Packing::default(),
                others: self.others(reference, &layer.chain_id),
                reporter: reporter.clone(),
            };
            let sent = Arc::clone(&sent);
            tasks.spawn(async move {
                let blob = sending.send(permit).await?;
                sent.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(blob);
                Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            outcome = outcome.and(ended(done));
            if outcome.is_err() {
                tasks.abort_all();
            }
        }
        outcome?;
        let sent = std::mem::take(&mut *sent.lock().unwrap_or_else(PoisonError::into_inner));
        let layers: Vec<Travelling> = sent.into_iter().flatten().collect();
        let way = self.world.store.images.way(image, reference);
        let manifest = self.manifest(image, way.as_ref(), &layers).await?;
        let config = Descriptor::of(&manifest.config_type, &image.raw_config);
        let bytes = Bytes::copy_from_slice(&image.raw_config);
        repository.push_blob(&config, Arc::new(bytes), &[], |_| {}).await?;
        let found = match alone {
            true => index::Found::None,
            false => index::find(&self.world, repository, way.as_ref(), &Digest::of(&manifest.bytes)).await?,
        };
        let (digest, size) = match found {
            index::Found::Whole(whole) => {
                let size = whole.bytes.len();
                (whole.send(&self.world, repository, reference, &manifest).await?, size)
            }
            found => {
                if let index::Found::Partial { index, selected } = found {
                    reporter.tell(Step::OnlyPlatform { index, selected });
                }
                let published = repository
                    .push_manifest(reference, &manifest.media_type, &manifest.bytes)
                    .await?;
                (published.digest, manifest.bytes.len())
            }
        };
        let by_digest = reference.clone().without_tag_and_digest();
        let by_digest = by_digest.with_digest(digest.clone());
        self.world.store.images.tag(&image.id, &by_digest).await?;
        self.world
            .events
            .image(&reference.familiar(), "push", &reference.familiar_name());
        reporter.tell(Step::Pushed {
            tag: reference.tag().unwrap_or_default().to_owned(),
            digest,
            size: size as u64,
        });
        Ok(())
    }

    /// Paths of other repositories at the same registry that images with this layer came from or went to.
    pub(crate) fn others(&self, reference: &Reference, chain: &Digest) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for image in self.world.store.images.list() {
            if !image.layers.iter().any(|layer| layer.chain_id == *chain) {
                continue;
            }
            for other in image.references.iter().filter(|other| other.digest().is_some()) {
                let path = other.path();
                if other.domain() == reference.domain()
                    && path != reference.path()
                    && !found.iter().any(|known| known == path)
                {
                    found.push(path.to_owned());
                }
            }
        }
        found.truncate(MOUNTS);
        found
    }

    /// The manifest that the image came with, where its layers travel as it says; else one like Docker's.
    async fn manifest(&self, image: &Image, way: Option<&Way>, layers: &[Travelling]) -> Result<Document> {
        if let Some(digest) = way.map(|way| &way.manifest) {
            let kept = tokio::fs::read(self.world.store.blob_path(digest)).await.ok();
            if let Some(document) = kept.and_then(|bytes| Document::kept(bytes, digest, image, layers)) {
                return Ok(document);
            }
        }
        Document::new(image, layers)
    }
}

fn absent(bare: &Reference) -> Error {
    Error::not_found(format!(
        "An image does not exist locally with the tag: {}",
        bare.familiar_name()
    ))
}

fn check_platform(reference: &Reference, image: &Image, wanted: Option<&Platform>) -> Result<()> {
    let found = super::platform(image);
    match wanted {
        Some(wanted) if !wanted.matches(&found) => Err(Error::not_found(format!(
            "image with reference {} was found but its platform ({found}) does not match the specified platform ({wanted})",
            reference.familiar()
        ))),
        _ => Ok(()),
    }
}

fn ended(done: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    done.unwrap_or_else(|error| Err(Error::internal("send a layer", &error)))
}

/// A layer on its way.
pub(crate) struct Sending {
    pub world: Arc<World>,
    pub repository: Repository,
    pub layer: Layer,
    pub known: Option<Travelling>,
    pub packing: Packing,
    pub others: Vec<String>,
    pub reporter: Reporter,
}

impl Sending {
    /// Gives what the registry has of the layer in the end.
    pub async fn send(self, _permit: OwnedSemaphorePermit) -> Result<Travelling> {
        if let Some(known) = &self.known {
            let blob = descriptor(known);
            if self.repository.has_blob(&blob).await? {
                self.reporter.layer(&self.layer.diff_id, LayerState::Kept);
                return Ok(known.clone());
            }
            for from in &self.others {
                if self.repository.mount_blob(&blob, from).await.unwrap_or(false) {
                    let from = from.clone();
                    self.reporter.layer(&self.layer.diff_id, LayerState::Mounted { from });
                    return Ok(known.clone());
                }
            }
        }
        let (images, layer, packing) = (self.world.store.images.clone(), self.layer.clone(), self.packing);
        let outgoing = blocking("pack a layer", move || images.outgoing(&layer, packing)).await??;
        let blob = outgoing.blob.clone();
        let counter = Mutex::new(self.reporter.counter(&self.layer.diff_id, blob.size));
        let progress = move |current| {
            let mut counter = counter.lock().unwrap_or_else(PoisonError::into_inner);
            counter.count(current, |current, total| LayerState::Sending { current, total });
        };
        let pushed = self
            .repository
            .push_blob(&descriptor(&blob), Arc::new(Parcel(outgoing)), &[], progress)
            .await?;
        let state = match pushed {
            Pushed::Existed => LayerState::Kept,
            _ => LayerState::Sent,
        };
        self.reporter.layer(&self.layer.diff_id, state);
        Ok(blob)
    }
}

struct Parcel(Outgoing);

impl Source for Parcel {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.0.open(offset)))
    }
}

fn descriptor(blob: &Travelling) -> Descriptor {
    Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size)
}

/// A manifest to be sent.
#[derive(Debug)]
struct Document {
    media_type: String,
    config_type: String,
    bytes: Bytes,
}

/// Of a manifest that is kept, what has to fit.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(default)]
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Document {
    fn kept(bytes: Vec<u8>, digest: &Digest, image: &Image, layers: &[Travelling]) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        let same = kept
            .layers
            .iter()
            .map(|layer| &layer.digest)
            .eq(layers.iter().map(|layer| &layer.digest));
        if !same || kept.config.digest != image.id || Digest::of(&bytes) != *digest {
            return None;
        }
        Some(Self {
            media_type: match kept.media_type.as_str() {
                "" => media::OCI_MANIFEST.to_owned(),
                media_type => media_type.to_owned(),
            },
            config_type: kept.config.media_type,
            bytes: bytes.into(),
        })
    }

    /// As dockerd writes it (schema 2, three spaces); an OCI manifest where a layer has a type that Docker's has not.
    fn new(image: &Image, layers: &[Travelling]) -> Result<Self> {
        let oci = layers
            .iter()
            .any(|layer| compression(&layer.media_type) == media::Compression::Zstd);
        let (media_type, config_type) = match oci {
            true => (media::OCI_MANIFEST, media::OCI_CONFIG),
            false => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
        };
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| {
                let media_type = match (compression(&layer.media_type), oci) {
                    (media::Compression::Zstd, _) => media::OCI_LAYER_ZSTD,
                    (media::Compression::Gzip, true) => media::OCI_LAYER_GZIP,
                    (media::Compression::Gzip, false) => media::DOCKER_LAYER_GZIP,
                    (media::Compression::None, true) => media::OCI_LAYER,
                    (media::Compression::None, false) => media::DOCKER_LAYER,
                };
                json!({ "mediaType": media_type, "size": layer.size, "digest": layer.digest })
            })
            .collect();
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": { "mediaType": config_type, "size": image.raw_config.len(), "digest": image.id },
            "layers": layers,
        });
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        serde::Serialize::serialize(&document, &mut serializer)
            .map_err(|error| Error::internal("write the manifest", &error))?;
        Ok(Self {
            media_type: media_type.to_owned(),
            config_type: config_type.to_owned(),
            bytes: bytes.into(),
        })
    }
}

fn compression(media_type: &str) -> media::Compression {
    match MediaKind::of(media_type) {
        MediaKind::Layer { compression, .. } => compression,
        _ => media::Compression::Gzip,
    }
}
