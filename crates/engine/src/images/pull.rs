//! Pulling: a reference becomes a manifest, the manifest an image, while its layers arrive side by side.

use std::fmt::Debug;
use std::io::{self, Read};
use std::sync::Arc;

use ferry_distribution::{Content, Credentials, Descriptor, Manifest, Repository};
use ferry_image::media::Kind as MediaKind;
use ferry_image::{Digest, Platform, Reference};
use ferry_storage::{Image, LoadOptions, NewPull, Pull, Remote};
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

mod along;

use super::Images;
use super::transfer::{LayerState, Reporter, Step};
use crate::error::{Error, Kind, Result};
use crate::world::blocking;

/// The most bytes of an image's configuration.
pub(crate) const CONFIG_MAX: u64 = 8 << 20;
/// How deep indexes may lie in each other.
const INDEXES: usize = 4;
/// The most layers of an image: what one mount takes.
pub(crate) const LAYERS: usize = 500;

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// With neither tag nor digest: every tag.
    pub reference: Reference,
    pub platform: Option<Platform>,
    pub credentials: Credentials,
}

impl Images {
    /// Brings an image in. Dropping the future stops it; the parts of layers that have come are kept for the next time.
    pub fn pull<'a>(&'a self, request: PullRequest, reporter: &'a Reporter) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let name = &request.reference;
            let source = Source {
                repository: self.world.live.get().client.repository(name, &request.credentials)?,
                platform: request.platform.clone(),
                reporter,
            };
            let mut pulled = Pulled::default();
            if name.tag().is_some() || name.digest().is_some() {
                pulled = self.pull_one(&source, name).await?;
            } else {
                for tag in source.repository.tags().await? {
                    let tagged = name.clone().with_tag(&tag);
                    let tagged = tagged.map_err(|error| Error::invalid(crate::error::chain(&error)))?;
                    let one = self.pull_one(&source, &tagged).await?;
                    pulled.newer |= one.newer;
                    pulled.other_platform = pulled.other_platform.or(one.other_platform);
                }
            }
            let reference = name.familiar();
            self.world.events.image(&reference, "pull", &name.familiar_name());
            reporter.tell(Step::Pulled {
                reference: reference.clone(),
                newer: pulled.newer,
            });
            if let (Some(found), Some(wanted)) = (pulled.other_platform, request.platform) {
                reporter.tell(Step::OtherPlatform {
                    reference,
                    found,
                    wanted,
                });
            }
            Ok(())
        })
    }

    async fn pull_one(&self, source: &Source<'_>, reference: &Reference) -> Result<Pulled> {
        let images = &self.world.store.images;
        let top = source.repository.resolve(reference).await?;
        source.reporter.tell(Step::Pulling {
            repository: reference.path().to_owned(),
            tag: match (reference.digest(), reference.tag()) {
                (Some(_), _) => reference.familiar(),
                (None, tag) => tag.unwrap_or_default().to_owned(),
            },
        });
        let digest = top.descriptor.digest.clone();
        let by_digest = reference.clone().without_tag_and_digest().with_digest(digest.clone());
        let references = match reference.digest() {
            Some(_) => vec![by_digest],
            None => vec![reference.clone(), by_digest],
        };
        let (indexes, manifest, config, layers) = source.choose(reference, top).await?;
        let newer = !references.iter().all(|reference| {
            let image = images.resolve(&reference.familiar());
            image.is_ok_and(|image| image.id == config.digest)
        });
        let new = NewPull {
            manifest: manifest.bytes.to_vec(),
            config: self.config(source, reference, &config).await?,
            layers: layers.iter().map(remote).collect(),
            references,
            options: LoadOptions::default(),
        };
        let store = images.clone();
        let pull = blocking("begin the pull", move || store.pull(new)).await??;
        // Of an image that is there Docker names no layers.
        if images.resolve(&config.digest.to_string()).is_err() {
            tell_layers(source.reporter, &pull, &layers);
        }
        let along = along::begin(images, source, &pull, indexes, &manifest).await?;
        let blobs: Arc<dyn Blobs> = Arc::new(source.repository.clone());
        let layer = |at: usize| layers.get(at).cloned();
        let pull = self.layers(&blobs, source.reporter, pull, layer).await?;
        along.end(&pull).await;
        source.reporter.tell(Step::Digest(digest));
        let loaded = blocking("record the image", move || pull.finish()).await??;
        Ok(Pulled {
            newer,
            other_platform: source.other_platform(&loaded.image),
        })
    }

    /// The configuration, from the store where it is there.
    async fn config(&self, source: &Source<'_>, reference: &Reference, config: &Descriptor) -> Result<Vec<u8>> {
        if MediaKind::of(&config.media_type) != MediaKind::Config {
            return Err(Error::invalid(format!(
                "{} is no image: its configuration has the media type {:?}",
                reference.familiar(),
                config.media_type
            )));
        }
        let kept = tokio::fs::read(self.world.store.blob_path(&config.digest)).await.ok();
        if let Some(kept) = kept.filter(|bytes| Digest::of(bytes) == config.digest) {
            return Ok(kept);
        }
        Ok(source.repository.small_blob(config, CONFIG_MAX).await?.to_vec())
    }

    /// Brings the layers in that are not there; `layers` has their descriptors.
    pub(crate) async fn layers(
        &self,
        blobs: &Arc<dyn Blobs>,
        reporter: &Reporter,
        pull: Pull,
        layers: impl Fn(usize) -> Option<Descriptor>,
    ) -> Result<Pull> {
        let pull = Arc::new(pull);
        let missing = pull.missing();
        let stopped = CancellationToken::new();
        let _stop = stopped.clone().drop_guard();
        let mut tasks = JoinSet::new();
        let mut outcome = Ok(());
        for at in missing {
            let Some(descriptor) = layers(at) else {
                continue;
            };
            // In the layers' order: what a layer stands on has begun before it, so none waits for one that waits for it.
            let permit = Arc::clone(&self.world.live.get().downloads).acquire_owned().await;
            let permit = permit.map_err(|error| Error::internal("wait for other downloads", &error))?;
            while let Some(done) = tasks.try_join_next() {
                outcome = outcome.and(ended(done));
            }
            if outcome.is_err() {
                break;
            }
            let layer = Layer {
                pull: Arc::clone(&pull),
                at,
                descriptor,
                blobs: Arc::clone(blobs),
                reporter: reporter.clone(),
                stopped: stopped.clone(),
            };
            tasks.spawn(layer.bring(permit));
        }
        loop {
            if outcome.is_err() {
                stopped.cancel();
            }
            let Some(done) = tasks.join_next().await else { break };
            outcome = outcome.and(ended(done));
        }
        outcome?;
        Arc::into_inner(pull).ok_or_else(|| Error::new(Kind::Internal, "a layer's transfer did not end"))
    }
}

/// Where layers come from.
pub(crate) trait Blobs: Debug + Send + Sync {
    /// A blob's bytes from an offset on, which come on the runtime. Does not block; reading does.
    fn reader(&self, blob: &Descriptor, offset: u64, runtime: &Handle) -> Box<dyn Read + Send>;
}

impl Blobs for Repository {
    fn reader(&self, blob: &Descriptor, offset: u64, runtime: &Handle) -> Box<dyn Read + Send> {
        Box::new(Self::reader(self, blob, offset, runtime))
    }
}

/// What a pull has done.
#[derive(Debug, Default)]
struct Pulled {
    newer: bool,
    /// The image's, where another one was asked for.
    other_platform: Option<Platform>,
}

/// Where images come from, and who wants them.
#[derive(Debug)]
struct Source<'a> {
    repository: Repository,
    platform: Option<Platform>,
    reporter: &'a Reporter,
}

impl Source<'_> {
    /// The manifest, configuration and layers for the platform: of the document itself, or of one that an index names. The
    /// indexes come first, outermost first.
    async fn choose(
        &self,
        reference: &Reference,
        mut document: Manifest,
    ) -> Result<(Vec<Manifest>, Manifest, Descriptor, Vec<Descriptor>)> {
        let mut indexes = Vec::new();
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..=INDEXES {
            let chosen = match &document.content {
                Content::Image { layers, .. } if layers.len() > LAYERS => {
                    return Err(Error::invalid(format!(
                        "{} has {} layers, and {LAYERS} are the most there may be",
                        reference.familiar(),
                        layers.len()
                    )));
                }
                Content::Image { config, layers } => {
                    let (config, layers) = (config.clone(), layers.clone());
                    return Ok((indexes, document, *config, layers));
                }
                Content::Index { manifests } => {
                    // What names no platform runs on any.
                    let platforms: Vec<Platform> = manifests
                        .iter()
                        .map(|manifest| manifest.platform.as_ref().map_or_else(|| platform.clone(), Into::into))
                        .collect();
                    let at = platform.choose(&platforms).ok_or_else(|| {
                        Error::not_found(format!(
                            "no matching manifest for {platform} in the manifest list entries of {}",
                            reference.familiar()
                        ))
                    })?;
                    manifests[at].clone()
                }
            };
            let inner = self.repository.manifest(&chosen).await?;
            indexes.push(std::mem::replace(&mut document, inner));
        }
        Err(Error::invalid(format!(
            "{}: more than {INDEXES} indexes in each other",
            reference.familiar()
        )))
    }

    fn other_platform(&self, image: &Image) -> Option<Platform> {
        let found = super::platform(image);
        let wanted = self.platform.as_ref()?;
        (!wanted.runs().contains(&found)).then_some(found)
    }
}

fn tell_layers(reporter: &Reporter, pull: &Pull, layers: &[Descriptor]) {
    let missing = pull.missing();
    for (at, layer) in layers.iter().enumerate() {
        let state = match missing.contains(&at) {
            true => LayerState::Wanted,
            false => LayerState::Exists,
        };
        reporter.layer(&layer.digest, state);
    }
}

fn ended(done: std::result::Result<Result<()>, JoinError>) -> Result<()> {
    done.unwrap_or_else(|error| Err(Error::internal("bring a layer in", &error)))
}

fn remote(layer: &Descriptor) -> Remote {
    Remote {
        digest: layer.digest.clone(),
        size: layer.size,
        media_type: layer.media_type.clone(),
    }
}

/// A layer on its way.
struct Layer {
    pull: Arc<Pull>,
    at: usize,
    descriptor: Descriptor,
    blobs: Arc<dyn Blobs>,
    reporter: Reporter,
    stopped: CancellationToken,
}

impl Layer {
    async fn bring(self, permit: OwnedSemaphorePermit) -> Result<()> {
        let runtime = Handle::current();
        blocking("bring a layer in", move || {
            let _permit = permit;
            let Descriptor { digest, size, .. } = &self.descriptor;
            let mut counter = self.reporter.counter(digest, *size);
            let mut whole = false;
            let open = |offset| {
                if self.stopped.is_cancelled() {
                    return Err(given_up());
                }
                Ok(Fetched {
                    reader: self.blobs.reader(&self.descriptor, offset, &runtime),
                    stopped: &self.stopped,
                })
            };
            let progress = |current| {
                if current < *size {
                    counter.count(current, |current, total| LayerState::Fetching { current, total });
                } else if !whole {
                    whole = true;
                    self.reporter.layer(digest, LayerState::Fetched);
                }
            };
            self.pull.layer(self.at, open, progress).map_err(of_layer)?;
            self.reporter.layer(digest, LayerState::Unpacked);
            Ok(())
        })
        .await?
    }
}

/// A blob's bytes, until the pull is given up.
struct Fetched<'a> {
    reader: Box<dyn Read + Send>,
    stopped: &'a CancellationToken,
}

impl Read for Fetched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stopped.is_cancelled() {
            true => Err(given_up()),
            false => self.reader.read(buffer),
        }
    }
}

/// What the registry said, or did, where that is the cause.
fn of_layer(error: ferry_storage::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        let inner = found.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(registry) = inner.and_then(|inner| inner.downcast_ref::<ferry_distribution::Error>()) {
            return registry.into();
        }
        cause = found.source();
    }
    error.into()
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the pull was given up")
}
