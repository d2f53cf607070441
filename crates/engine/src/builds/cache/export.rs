//! What a build leaves for others.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ferry_build::cache::{self, CacheDestination, Place};
use ferry_build::progress::Events;
use ferry_build::session::ContentStore;
use ferry_build::{Error, Result, Session};
use ferry_distribution::{Descriptor, Repository};
use ferry_image::Reference;
use ferry_storage::{Layer, Packing, Travelling};
use serde_json::value::RawValue;
use tokio::io::AsyncRead;
use tokio::task::JoinSet;
use tokio_util::io::SyncIoBridge;

use super::document::{self, Record};
use super::written::{Gathered, Kept, Written};
use crate::builds::Inner;
use crate::builds::export::part;
use crate::builds::workshop::{Workshop, credentials, failed};
use crate::images::{Images, Reporter, Sending};
use crate::world::blocking;

/// Bytes of a layer that wait for the client.
const WAITING: usize = 256 << 10;

/// Writes a build's steps to a place; what clients are told.
pub(in crate::builds) async fn export(
    shop: &Workshop,
    solved: &Inner,
    destination: &CacheDestination,
    session: &Arc<dyn Session>,
    events: &Events,
) -> Result<BTreeMap<String, String>> {
    let name = match &destination.place {
        Place::Inline => return Ok(BTreeMap::new()),
        Place::Registry(_) => "exporting cache to registry",
        Place::Local(_) => "exporting cache to client directory",
    };
    let running = events.start(name.to_owned(), Vec::new());
    let vertex = running.id().to_owned();
    let exporting = Exporting {
        shop,
        solved,
        destination,
        session,
        events,
        vertex: &vertex,
    };
    match running.end(exporting.export().await) {
        Err(error) if destination.ignore_error => {
            tracing::info!(%error, "a build's cache was not written");
            Ok(BTreeMap::new())
        }
        outcome => outcome,
    }
}

/// An image's configuration with the records of its steps.
pub(in crate::builds) async fn inline(
    shop: &Workshop,
    solved: &Inner,
    config: Vec<u8>,
    events: &Events,
) -> Result<Vec<u8>> {
    let running = events.start("preparing layers for inline cache".to_owned(), Vec::new());
    let adding = async {
        let gathered = Gathered::of_result(shop, solved).await?;
        let places = |step: &Kept| (0..step.layers.len()).filter_map(|place| u32::try_from(place).ok());
        let records = gathered.steps.iter();
        let records = records.map(|step| Record::new(&step.step, places(step).collect()));
        let records = document::inline(records.collect());
        let wrong = |error: serde_json::Error| Error::internal("write the image's configuration", &error);
        let mut map: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(&config).map_err(wrong)?;
        map.insert(
            document::INLINE.to_owned(),
            serde_json::value::to_raw_value(&records).map_err(wrong)?,
        );
        serde_json::to_vec(&map).map_err(wrong)
    };
    running.end(adding.await)
}

struct Exporting<'a> {
    shop: &'a Workshop,
    solved: &'a Inner,
    destination: &'a CacheDestination,
    session: &'a Arc<dyn Session>,
    events: &'a Events,
    vertex: &'a str,
}

impl Exporting<'_> {
    async fn export(&self) -> Result<BTreeMap<String, String>> {
        let target = self.target().await?;
        let preparing = part(self.events, self.vertex, "preparing build cache for export");
        let gathered = match self.destination.is_max {
            true => {
                self.obtain_all().await;
                Gathered::of_build(self.shop, self.solved).await?
            }
            false => Gathered::of_result(self.shop, self.solved).await?,
        };
        let layers = gathered.layers();
        preparing.end();
        let blobs = self
            .send(&target, layers.iter().map(|(layer, _)| layer.clone()).collect())
            .await?;
        let written = Written::new(&gathered, &layers, &blobs, self.destination)?;
        let config = &written.config;
        let writing = part(self.events, self.vertex, &format!("writing config {}", config.digest));
        target.put(config, written.config_bytes.clone()).await?;
        writing.end();
        let what = match self.destination.is_manifest {
            true => "cache image manifest",
            false => "cache manifest",
        };
        let manifest = Descriptor::of(written.media_type, &written.bytes);
        let writing = part(self.events, self.vertex, &format!("writing {what} {}", manifest.digest));
        target.publish(&manifest, written.bytes.clone()).await?;
        writing.end();
        let told = serde_json::to_string(&manifest).unwrap_or_default();
        Ok(BTreeMap::from([("cache.manifest".to_owned(), told)]))
    }

    /// Steps that this build has taken from a cache by their keys alone, since nobody wanted their files.
    async fn obtain_all(&self) {
        let imported = self.solved.imported.get();
        for key in &self.solved.keys {
            if self.shop.world.store.steps.find(key).is_none()
                && let Some(imported) = imported
            {
                super::obtain(self.shop, imported, key, self.vertex, self.events).await;
            }
        }
    }

    async fn target(&self) -> Result<Target> {
        match &self.destination.place {
            Place::Registry(name) => {
                let reference = Reference::parse_named(name);
                let reference = reference.map_err(|error| Error::invalid(format!("--cache-to {name}: {error}")))?;
                let credentials = credentials(self.session, reference.domain()).await?;
                let client = self.shop.world.live.get().client.clone();
                Ok(Target::Registry {
                    repository: client
                        .repository(&reference, &credentials)
                        .map_err(|error| wrong(&error))?,
                    reference: reference.tagged(),
                })
            }
            Place::Local(layout) => {
                let name = layout.store();
                let store = self.session.store(&name).await?;
                let missing = || Error::invalid(format!("the client takes nothing for the directory {name}"));
                Ok(Target::Client {
                    store: store.ok_or_else(missing)?,
                    tag: layout.tag.clone(),
                })
            }
            Place::Inline => Err(Error::Internal(
                "a cache in an image has no place of its own".to_owned(),
            )),
        }
    }

    /// Sends layers that the target does not have; how each of them travels.
    async fn send(&self, target: &Target, layers: Vec<Layer>) -> Result<Vec<Travelling>> {
        let packing = packing(self.destination.packing);
        let (images, asked) = (self.shop.world.store.images.clone(), layers.clone());
        let known = blocking("look for the layers", move || images.travelling(&asked, packing)).await;
        let known = known.map_err(|error| Error::Internal(error.message))?;
        let known = known.map_err(failed("look for the layers"))?;
        match target {
            Target::Registry { repository, reference } => {
                self.upload(repository, reference, layers, known, packing).await
            }
            Target::Client { store, .. } => {
                let handing = Handing {
                    shop: self.shop,
                    events: self.events,
                    vertex: self.vertex,
                    store,
                    packing,
                };
                let mut sent = Vec::new();
                for (layer, known) in layers.into_iter().zip(known) {
                    sent.push(handing.layer(layer, known).await?);
                }
                Ok(sent)
            }
        }
    }

    async fn upload(
        &self,
        repository: &Repository,
        reference: &Reference,
        layers: Vec<Layer>,
        known: Vec<Option<Travelling>>,
        packing: Packing,
    ) -> Result<Vec<Travelling>> {
        let world = &self.shop.world;
        let images = Images::new(Arc::clone(world));
        let (reporter, steps) = Reporter::new();
        // Nobody reads how each layer goes.
        drop(steps);
        let mut tasks = JoinSet::new();
        for (at, (layer, known)) in layers.into_iter().zip(known).enumerate() {
            let permit = Arc::clone(&world.live.get().uploads).acquire_owned().await;
            let permit = permit.map_err(|error| Error::internal("wait for other uploads", &error))?;
            let sending = Sending {
                world: Arc::clone(world),
                repository: repository.clone(),
                others: images.others(reference, &layer.chain_id),
                layer,
                known,
                packing,
                reporter: reporter.clone(),
            };
            let (events, vertex) = (self.events.clone(), self.vertex.to_owned());
            tasks.spawn(async move {
                let id = sending
                    .known
                    .as_ref()
                    .map_or(&sending.layer.diff_id, |known| &known.digest);
                let writing = part(&events, &vertex, &format!("writing layer {id}"));
                let sent = sending.send(permit).await?;
                writing.end();
                Ok::<_, crate::Error>((at, sent))
            });
        }
        let mut sent = BTreeMap::new();
        while let Some(done) = tasks.join_next().await {
            let done = done.map_err(|error| Error::internal("send a layer", &error))?;
            let (at, blob) = done.map_err(|error| Error::invalid(error.message))?;
            sent.insert(at, blob);
        }
        Ok(sent.into_values().collect())
    }
}

/// Layers go to a directory of the client's.
pub(in crate::builds) struct Handing<'a> {
    pub shop: &'a Workshop,
    pub events: &'a Events,
    pub vertex: &'a str,
    pub store: &'a Arc<dyn ContentStore>,
    pub packing: Packing,
}

impl Handing<'_> {
    /// To the client, which may have it.
    pub async fn layer(&self, layer: Layer, known: Option<Travelling>) -> Result<Travelling> {
        let (store, packing) = (self.store, self.packing);
        if let Some(known) = known
            && store.size(&known.digest).await? == Some(known.size)
        {
            part(self.events, self.vertex, &format!("writing layer {}", known.digest)).end();
            return Ok(known);
        }
        let images = self.shop.world.store.images.clone();
        let outgoing = blocking("pack a layer", move || images.outgoing(&layer, packing)).await;
        let outgoing = outgoing.map_err(|error| Error::Internal(error.message))?;
        let outgoing = outgoing.map_err(failed("pack a layer"))?;
        let blob = outgoing.blob.clone();
        let writing = part(self.events, self.vertex, &format!("writing layer {}", blob.digest));
        if store.size(&blob.digest).await? != Some(blob.size) {
            let (ours, theirs) = tokio::io::duplex(WAITING);
            let copying = tokio::task::spawn_blocking(move || {
                let mut out = SyncIoBridge::new(ours);
                io::copy(&mut outgoing.open(0), &mut out).and_then(|_| out.shutdown())
            });
            store.write(&blob.digest, blob.size, Box::new(theirs)).await?;
            let copied = copying.await.map_err(|error| Error::internal("read a layer", &error))?;
            copied.map_err(|error| Error::internal("read a layer", &error))?;
        }
        writing.end();
        Ok(blob)
    }
}

fn wrong(error: &ferry_distribution::Error) -> Error {
    Error::invalid(ferry_kit::error::chain(error))
}

fn packing(asked: cache::Packing) -> Packing {
    Packing {
        compression: Some(asked.compression),
        level: asked.level,
        force: asked.force,
    }
}

/// Where a cache is written to.
enum Target {
    Registry {
        repository: Repository,
        reference: Reference,
    },
    Client {
        store: Arc<dyn ContentStore>,
        tag: String,
    },
}

impl Target {
    async fn put(&self, blob: &Descriptor, bytes: Bytes) -> Result<()> {
        match self {
            Self::Registry { repository, .. } => {
                let pushed = repository.push_blob(blob, Arc::new(bytes), &[], |_| {}).await;
                pushed.map(drop).map_err(|error| wrong(&error))
            }
            Self::Client { store, .. } => {
                let content: Box<dyn AsyncRead + Send + Unpin> = Box::new(io::Cursor::new(bytes));
                store.write(&blob.digest, blob.size, content).await
            }
        }
    }

    async fn publish(&self, manifest: &Descriptor, bytes: Bytes) -> Result<()> {
        match self {
            Self::Registry { repository, reference } => {
                let pushed = repository.push_manifest(reference, &manifest.media_type, &bytes).await;
                pushed.map(drop).map_err(|error| wrong(&error))
            }
            Self::Client { store, tag } => {
                self.put(manifest, bytes).await?;
                let described = serde_json::to_string(manifest).unwrap_or_default();
                store.publish(tag, &described).await
            }
        }
    }
}
