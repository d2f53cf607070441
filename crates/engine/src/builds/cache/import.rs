//! Caches that a build may take steps from.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ferry_build::cache::{CacheSource, Layout};
use ferry_build::progress::{Event, Events, Warning};
use ferry_build::session::{BoxFuture, ContentStore};
use ferry_build::workspace::{Known, Recalled, Tree};
use ferry_build::{Error, Result, Session};
use ferry_distribution::{Content, Descriptor};
use ferry_image::{Digest, Platform, Reference};
use ferry_storage::{Held, Remote};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;

use super::document::{self, Cache, Found, Record};
use crate::builds::workshop::{Layer, Workshop, credentials, failed, reporting};
use crate::error::Kind;
use crate::images::{Blobs, CONFIG_MAX, Images};
use crate::world::blocking;

/// The most bytes of a manifest in a directory.
const MANIFEST_MAX: u64 = 4 << 20;
/// The most caches of a build.
pub(in crate::builds) const MOST: usize = 32;

/// What a build may take from caches.
#[derive(Debug, Default)]
pub(in crate::builds) struct Imported {
    caches: Vec<Opened>,
    /// A cache and a record of it, by key and by alias. What is named first counts.
    known: HashMap<String, (usize, usize)>,
}

/// A cache whose records are known.
#[derive(Debug)]
struct Opened {
    name: String,
    cache: Cache,
    blobs: Arc<dyn Blobs>,
    /// It could not be read from: this build asks it no more.
    lost: AtomicBool,
}

impl Imported {
    fn new(caches: Vec<Opened>) -> Self {
        let mut known = HashMap::new();
        for (place, opened) in caches.iter().enumerate() {
            let records = || opened.cache.records.iter().enumerate();
            for (at, record) in records() {
                known.entry(record.key.clone()).or_insert((place, at));
            }
            for (at, record) in records() {
                for alias in &record.aliases {
                    known.entry(alias.clone()).or_insert((place, at));
                }
            }
        }
        Self { caches, known }
    }

    fn find(&self, key: &str) -> Option<(&Opened, &Record)> {
        let (place, at) = *self.known.get(key)?;
        let opened = self.caches.get(place)?;
        Some((opened, opened.cache.records.get(at)?))
    }

    pub fn recall(&self, key: &str) -> Option<Recalled<Layer>> {
        let (_, record) = self.find(key)?;
        Some(Recalled {
            files: match record.layers.is_empty() {
                true => Known::No,
                false => Known::Elsewhere,
            },
            identity: match record.identity.as_str() {
                "" => record.key.clone(),
                identity => identity.to_owned(),
            },
        })
    }
}

/// Looks at all of them. One that cannot be had is told, and nothing else.
pub(in crate::builds) async fn import(
    shop: &Workshop,
    sources: &[CacheSource],
    platform: &Platform,
    session: &Arc<dyn Session>,
    events: &Events,
) -> Imported {
    let opening = sources.iter().map(|source| async move {
        let name = match source {
            CacheSource::Registry(reference) => reference.clone(),
            CacheSource::Local(layout) => layout.store(),
        };
        let running = events.start(format!("importing cache manifest from {name}"), Vec::new());
        let opened = match source {
            CacheSource::Registry(reference) => match from_here(shop, reference, platform) {
                Some(found) => found,
                None => from_registry(shop, reference, platform, session).await,
            },
            CacheSource::Local(layout) => from_client(layout, session).await,
        };
        if let Ok((Found::Foreign(whose), _)) = &opened {
            let line =
                format!("the cache is {whose}'s and has nothing for this builder: only caches that Ferry wrote have\n");
            events.log(running.id(), 1, line);
        }
        match running.end(opened).ok()? {
            (Found::Ours(cache), blobs) => Some(Opened {
                name,
                cache,
                blobs,
                lost: AtomicBool::new(false),
            }),
            (Found::Foreign(_), _) => None,
        }
    });
    let opened = futures_util::future::join_all(opening).await;
    Imported::new(opened.into_iter().flatten().collect())
}

type Place = (Found, Arc<dyn Blobs>);

/// An image of the engine's own, which no registry is asked for, as by dockerd.
fn from_here(shop: &Workshop, name: &str, platform: &Platform) -> Option<Result<Place>> {
    let reference = Reference::parse_named(name).ok()?.tagged();
    let found = crate::images::find(&shop.world, &reference.to_string()).ok()?;
    if !platform.matches(&crate::images::platform(&found)) {
        return None;
    }
    let read = document::of_image(&found.raw_config, None);
    let read = read.map_err(|why| Error::invalid(format!("the cache cannot be used: {why}")));
    Some(read.map(|found| (found, Arc::new(Here) as Arc<dyn Blobs>)))
}

async fn from_registry(shop: &Workshop, name: &str, platform: &Platform, session: &Arc<dyn Session>) -> Result<Place> {
    let reference = Reference::parse_named(name).map_err(|error| Error::invalid(format!("{name}: {error}")))?;
    let credentials = credentials(session, reference.domain()).await?;
    let wrong = |error: ferry_distribution::Error| Error::NotFound(ferry_kit::error::chain(&error));
    let client = shop.world.live.get().client.clone();
    let repository = client.repository(&reference, &credentials).map_err(wrong)?;
    let manifest = repository.resolve(&reference.tagged()).await.map_err(wrong)?;
    let (config, layers) = match choose(manifest.content, platform).map_err(Error::Invalid)? {
        Chosen::Cache(config, layers) => (config, layers),
        Chosen::Image(image) => match repository.manifest(&image).await.map_err(wrong)?.content {
            Content::Image { config, layers } => (*config, layers),
            Content::Index { .. } => return Err(Error::invalid("it is an index of indexes")),
        },
    };
    let bytes = repository.small_blob(&config, CONFIG_MAX).await.map_err(wrong)?;
    Ok((found(&config, &bytes, &layers)?, Arc::new(repository)))
}

async fn from_client(layout: &Layout, session: &Arc<dyn Session>) -> Result<Place> {
    let name = layout.store();
    let store = session.store(&name).await?;
    let store = store.ok_or_else(|| Error::NotFound(format!("the client has no directory {name}")))?;
    let digest = layout.digest.as_ref();
    let digest =
        digest.ok_or_else(|| Error::invalid("the client did not say which manifest it is: give its digest"))?;
    let manifest = small(&*store, digest, MANIFEST_MAX).await?;
    let content = Content::of(&manifest).ok_or_else(|| Error::invalid(format!("{digest} is no manifest")))?;
    let (config, layers) = match content {
        Content::Image { config, layers } => (*config, layers),
        Content::Index { manifests } => split(manifests).ok_or_else(|| Error::invalid("it is an index of images"))?,
    };
    let bytes = small(&*store, &config.digest, CONFIG_MAX).await?;
    Ok((found(&config, &bytes, &layers)?, Arc::new(Kept(store))))
}

fn found(config: &Descriptor, bytes: &[u8], layers: &[Descriptor]) -> Result<Found> {
    let read = match config.media_type.as_str() {
        document::CONFIG => document::of_config(bytes, layers),
        _ => document::of_image(bytes, Some(layers)),
    };
    read.map_err(|why| Error::invalid(format!("the cache cannot be used: {why}")))
}

enum Chosen {
    /// A configuration, and layers.
    Cache(Descriptor, Vec<Descriptor>),
    Image(Descriptor),
}

fn choose(content: Content, platform: &Platform) -> Result<Chosen, String> {
    let manifests = match content {
        Content::Image { config, layers } => return Ok(Chosen::Cache(*config, layers)),
        Content::Index { manifests } => manifests,
    };
    if let Some((config, layers)) = split(manifests.clone()) {
        return Ok(Chosen::Cache(config, layers));
    }
    let platforms: Vec<Platform> = manifests
        .iter()
        .map(|manifest| manifest.platform.as_ref().map_or_else(|| platform.clone(), Into::into))
        .collect();
    let at = platform.choose(&platforms);
    let at = at.ok_or_else(|| format!("it has no image for {platform}"))?;
    Ok(Chosen::Image(manifests[at].clone()))
}

/// A cache as an index: its configuration stands among its layers.
fn split(mut manifests: Vec<Descriptor>) -> Option<(Descriptor, Vec<Descriptor>)> {
    let at = manifests
        .iter()
        .position(|entry| entry.media_type == document::CONFIG)?;
    let config = manifests.remove(at);
    Some((config, manifests))
}

/// A content that is no larger than that, verified.
pub(in crate::builds) async fn small(store: &dyn ContentStore, digest: &Digest, most: u64) -> Result<Vec<u8>> {
    let size = store.size(digest).await?;
    let size = size.ok_or_else(|| Error::NotFound(format!("{digest}: not found")))?;
    if size > most {
        return Err(Error::invalid(format!(
            "{digest} has {size} bytes, and {most} are the most there may be"
        )));
    }
    let mut bytes = Vec::new();
    let stream = store.read(digest, 0).await?;
    let read = stream.take(most + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| Error::invalid(format!("read {digest}: {error}")))?;
    let mut hasher = ferry_image::Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    match hasher.finish() == *digest {
        true => Ok(bytes),
        false => Err(Error::invalid(format!("{digest} is not what its digest says"))),
    }
}

/// Blobs of a directory of the client's.
#[derive(Debug)]
pub(in crate::builds) struct Kept(Arc<dyn ContentStore>);

impl Kept {
    pub fn new(store: Arc<dyn ContentStore>) -> Self {
        Self(store)
    }
}

impl Blobs for Kept {
    fn reader(&self, blob: &Descriptor, offset: u64, runtime: &Handle) -> Box<dyn Read + Send> {
        Box::new(Reading {
            store: Arc::clone(&self.0),
            digest: blob.digest.clone(),
            offset,
            runtime: runtime.clone(),
            stream: None,
        })
    }
}

/// Of an image that is here all layers are.
#[derive(Debug)]
struct Here;

impl Blobs for Here {
    fn reader(&self, _: &Descriptor, _: u64, _: &Handle) -> Box<dyn Read + Send> {
        Box::new(io::empty())
    }
}

/// A content that is asked for when it is first read.
struct Reading {
    store: Arc<dyn ContentStore>,
    digest: Digest,
    offset: u64,
    runtime: Handle,
    stream: Option<SyncIoBridge<Box<dyn AsyncRead + Send + Unpin>>>,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stream.is_none() {
            let opened = self.runtime.block_on(self.store.read(&self.digest, self.offset));
            let opened = opened.map_err(io::Error::other)?;
            self.stream = Some(SyncIoBridge::new_with_handle(opened, self.runtime.clone()));
        }
        self.stream.as_mut().map_or(Ok(0), |stream| stream.read(buffer))
    }
}

/// Brings a step's layers in, and remembers the step. `None`, saying so, if they cannot be had.
pub(in crate::builds) async fn obtain(
    shop: &Workshop,
    imported: &Imported,
    key: &str,
    vertex: &str,
    events: &Events,
) -> Option<Tree<Layer>> {
    let (opened, record) = imported.find(key).filter(|(_, record)| !record.layers.is_empty())?;
    if opened.lost.load(Ordering::Relaxed) {
        return None;
    }
    let error = match bring_step(shop, opened, record, (events, vertex)).await {
        Ok(tree) => return Some(tree),
        Err(error) => error,
    };
    let (what, name) = (&record.description, &opened.name);
    let short = match &error {
        Error::NotFound(_) => format!("{what} is made again: the cache {name} does not have it: {error}"),
        // Others that asked at the same time need not say so too.
        _ if opened.lost.swap(true, Ordering::Relaxed) => return None,
        _ => format!("{what} is made again: the cache {name} cannot be read, and is asked no more: {error}"),
    };
    events.send(Event::Warning(Warning {
        vertex: vertex.to_owned(),
        short,
        ..Warning::default()
    }));
    None
}

/// Remembers steps that a build has known by their records alone, as far as their layers are here: those that what was brought in
/// stands on.
pub(in crate::builds) fn keep<'a>(shop: &'a Workshop, imported: &'a Imported, keys: &'a [String]) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        for key in keys {
            let Some((opened, record)) = imported.find(key) else {
                continue;
            };
            if record.layers.is_empty() || shop.world.store.steps.find(key).is_some() {
                continue;
            }
            let layers = opened.layers(record).into_iter().map(|(diff_id, _)| (diff_id, None));
            let (steps, layers) = (shop.world.store.steps.clone(), layers.collect());
            // One whose layers are elsewhere is none the worse.
            let held = blocking("look for layers", move || steps.bring(layers)?.held()).await;
            if let Ok(Ok(held)) = held
                && let Err(error) = shop.world.store.steps.remember(record.step(), &held).await
            {
                tracing::warn!(%error, "cannot write down what a cache says of a step");
            }
        }
    })
}

impl Opened {
    /// A step's layers, lowest first: their diff ids, and their blobs if the cache has them.
    fn layers(&self, record: &Record) -> Vec<(Digest, Option<Descriptor>)> {
        let cache = &self.cache;
        let places = record.layers.iter().filter_map(|place| usize::try_from(*place).ok());
        let diff_ids = places.filter_map(|place| cache.diff_ids.get(place));
        diff_ids
            .map(|diff_id| (diff_id.clone(), cache.blobs.get(diff_id).cloned()))
            .collect()
    }
}

async fn bring_step(shop: &Workshop, opened: &Opened, record: &Record, about: (&Events, &str)) -> Result<Tree<Layer>> {
    let held = bring(shop, &opened.blobs, opened.layers(record), about).await?;
    let remembered = shop.world.store.steps.remember(record.step(), &held).await;
    remembered.map_err(failed("write down what a step made"))?;
    let times = record.times.iter().copied().chain(std::iter::repeat(None));
    let layers = held.into_iter().zip(times);
    Ok(Tree {
        layers: layers.map(|(held, created)| Layer { held, created }).collect(),
    })
}

/// Brings layers in, lowest first, by their diff ids; one without a blob has to be there.
pub(in crate::builds) async fn bring(
    shop: &Workshop,
    blobs: &Arc<dyn Blobs>,
    layers: Vec<(Digest, Option<Descriptor>)>,
    (events, vertex): (&Events, &str),
) -> Result<Vec<Held>> {
    let remote = |blob: &Descriptor| Remote {
        digest: blob.digest.clone(),
        size: blob.size,
        media_type: blob.media_type.clone(),
    };
    let asked = layers.iter();
    let asked = asked
        .map(|(diff_id, blob)| (diff_id.clone(), blob.as_ref().map(remote)))
        .collect();
    let steps = shop.world.store.steps.clone();
    let wrong = |error: crate::Error| Error::Internal(error.message);
    let begun = blocking("begin to bring layers in", move || steps.bring(asked)).await;
    let pull = begun.map_err(wrong)?.map_err(failed("bring the layers in"))?;
    let (reporter, telling) = reporting(events, vertex);
    let layer = |at: usize| layers.get(at).and_then(|(_, blob)| blob.clone());
    let images = Images::new(Arc::clone(&shop.world));
    let brought = images.layers(blobs, &reporter, pull, layer).await;
    drop(reporter);
    let _ = telling.await;
    // What came was wrong, or did not come.
    let pull = brought.map_err(|error| match error.kind {
        Kind::NotFound => Error::NotFound(error.message),
        _ => Error::Invalid(error.message),
    })?;
    blocking("note the layers", move || pull.held())
        .await
        .map_err(wrong)?
        .map_err(failed("note the layers"))
}
