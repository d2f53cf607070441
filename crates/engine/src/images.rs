//! Images: what there is, where it comes from, and what may go.

mod inspect;
mod list;
mod prune;
mod pull;
mod push;
mod registries;
mod transfer;

use std::io::Read;
use std::sync::Arc;

use ferry_api::image::{Deleted, History, Inspect};
use ferry_image::{Digest, Platform, Reference};
use ferry_storage::{Image, ImportOptions, LoadOptions, Loaded, RemoveOptions, Removed, Save, User};
use futures_util::future::BoxFuture;

use crate::error::{Error, Result};
use crate::world::World;
pub use list::ListImages;
pub(crate) use list::until;

pub use ferry_distribution::config::{registry_auth, registry_config};
pub use ferry_distribution::{Credentials, Descriptor};
pub use pull::PullRequest;
pub(crate) use pull::{Blobs, CONFIG_MAX, LAYERS};
pub use push::PushRequest;
pub(crate) use push::Sending;
pub use transfer::{LayerState, Reporter, Step, Steps};

/// All images. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Images {
    world: Arc<World>,
}

impl Images {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// What is to be saved as one archive; nothing is read yet.
    pub fn save(&self, names: &[String], platform: Option<&Platform>) -> Result<Save> {
        let save = self.world.store.images.save(names, platform)?;
        for image in save.images() {
            let id = image.id.to_string();
            self.world.events.image(&id, "save", &id);
        }
        Ok(save)
    }

    pub fn inspect(&self, name: &str) -> Result<Inspect> {
        let image = self.find(name)?;
        let layers: Vec<_> = image
            .layers
            .iter()
            .rev()
            .map(|layer| self.world.layer_dir(&layer.chain_id))
            .collect();
        inspect::inspect(&image, &layers)
    }

    pub fn history(&self, name: &str) -> Result<Vec<History>> {
        let image = self.find(name)?;
        let mut sizes = image.layers.iter();
        let mut items: Vec<History> = Vec::new();
        let history = image.config.history().clone().unwrap_or_default();
        for entry in &history {
            let size = match entry.empty_layer() {
                Some(true) => 0,
                _ => sizes
                    .next()
                    .map_or(0, |layer| i64::try_from(layer.size).unwrap_or(i64::MAX)),
            };
            items.push(History {
                id: "<missing>".to_owned(),
                created: entry
                    .created()
                    .as_deref()
                    .and_then(|text| text.parse::<jiff::Timestamp>().ok())
                    .map_or(0, jiff::Timestamp::as_second),
                created_by: entry.created_by().clone().unwrap_or_default(),
                tags: None,
                size,
                comment: entry.comment().clone().unwrap_or_default(),
            });
        }
        items.reverse();
        // Each step is an image of its own as far as the parents are known.
        let mut current = Some(image);
        for item in &mut items {
            let Some(image) = current else { break };
            item.id = image.id.to_string();
            let tags = tags(&image);
            item.tags = (!tags.is_empty()).then_some(tags);
            let parent = image.parent.as_ref().map(ToString::to_string);
            current = parent.and_then(|id| self.world.store.images.resolve(&id).ok());
        }
        Ok(items)
    }

    pub fn tag<'a>(&'a self, source: &'a str, repository: &'a str, tag: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let image = self.find(source)?;
            let name = if tag.is_empty() {
                repository.to_owned()
            } else {
                format!("{repository}:{tag}")
            };
            let reference = parse_reference(&name)?;
            if reference.digest().is_some() {
                return Err(Error::invalid("refusing to create a tag with a digest reference"));
            }
            self.world.store.images.tag_like(&image.id, &reference, source).await?;
            self.world
                .events
                .image(&image.id.to_string(), "tag", &reference.familiar());
            Ok(())
        })
    }

    pub fn remove<'a>(&'a self, name: &'a str, force: bool, no_prune: bool) -> BoxFuture<'a, Result<Vec<Deleted>>> {
        Box::pin(async move {
            let id = self.find(name)?.id.to_string();
            let users = self.users();
            let options = RemoveOptions {
                force,
                prune: !no_prune,
            };
            let removed = self.world.store.images.remove(name, options, users).await?;
            let mut answers = Vec::new();
            for item in removed {
                match item {
                    Removed::Untagged(name) => {
                        self.world.events.image(&id, "untag", &id);
                        answers.push(Deleted {
                            untagged: name,
                            ..Deleted::default()
                        });
                    }
                    Removed::Deleted(digest) => {
                        if digest == id {
                            self.world.events.image(&id, "delete", &id);
                        }
                        answers.push(Deleted {
                            deleted: digest,
                            ..Deleted::default()
                        });
                    }
                }
            }
            Ok(answers)
        })
    }

    /// Loads an archive of images. Blocking: call it where that is allowed.
    pub fn load_blocking(
        &self,
        stream: impl Read + Send,
        platform: Option<Platform>,
        mut progress: impl FnMut(ferry_storage::Progress) + Send,
    ) -> Result<Vec<Loaded>> {
        let options = LoadOptions {
            platform,
            ..LoadOptions::default()
        };
        let loaded = self.world.store.images.load(stream, &options, &mut progress)?;
        for image in &loaded {
            let id = image.image.id.to_string();
            self.world.events.image(&id, "load", &id);
        }
        Ok(loaded)
    }

    /// Makes an image of a root file system's archive. Blocking: call it where that is allowed.
    pub fn import_blocking(&self, stream: impl Read + Send, options: &ImportOptions) -> Result<Arc<Image>> {
        let image = self.world.store.images.import(stream, options)?;
        let id = image.id.to_string();
        self.world.events.image(&id, "import", &id);
        Ok(image)
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Image>> {
        find(&self.world, name)
    }

    fn users(&self) -> Vec<User> {
        let users = self.world.containers.all().into_iter().flat_map(|handle| {
            let snapshot = handle.snapshot();
            let record = &snapshot.record;
            // What it only mounts yields to force even while it runs, as in Docker: it holds those layers itself.
            let mounted = record.mounts.iter().map(|point| (&point.image, false));
            let own = std::iter::once((&record.image, record.run.status.is_live()));
            let user = |(image, running): (&String, bool)| {
                Some(User {
                    container: record.id.clone(),
                    image: image.parse::<Digest>().ok()?,
                    running,
                })
            };
            own.chain(mounted).filter_map(user).collect::<Vec<_>>()
        });
        users.collect()
    }
}

/// Finds an image by name or id.
pub(crate) fn find(world: &World, name: &str) -> Result<Arc<Image>> {
    Ok(world.store.images.resolve(name)?)
}

/// Finds an image to run; `ferry/hello` is made if it is not there.
pub(crate) async fn find_to_run(world: &World, name: &str) -> Result<Arc<Image>> {
    match find(world, name) {
        Err(error) if error.kind == crate::error::Kind::NotFound && crate::hello::is(name) => {
            crate::hello::make(world).await
        }
        done => done,
    }
}

pub(crate) fn parse_reference(text: &str) -> Result<Reference> {
    text.parse::<Reference>()
        .map_err(|error| Error::invalid(crate::error::chain(&error)))
}

pub(crate) fn platform(image: &Image) -> Platform {
    let variant = image.config.variant().as_deref().unwrap_or_default();
    Platform::new(
        &image.config.os().to_string(),
        &image.config.architecture().to_string(),
        variant,
    )
}

pub(crate) fn tags(image: &Image) -> Vec<String> {
    image
        .references
        .iter()
        .filter(|reference| reference.digest().is_none())
        .map(Reference::familiar)
        .collect()
}

pub(crate) fn repo_digests(image: &Image) -> Vec<String> {
    image
        .references
        .iter()
        .filter(|reference| reference.digest().is_some())
        .map(Reference::familiar)
        .collect()
}

pub(crate) fn size(image: &Image) -> i64 {
    i64::try_from(image.layers.iter().map(|layer| layer.size).sum::<u64>()).unwrap_or(i64::MAX)
}

pub(crate) fn labels(image: &Image) -> std::collections::BTreeMap<String, String> {
    let labels = image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.labels().clone());
    labels.unwrap_or_default().into_iter().collect()
}

pub(crate) fn created_at(image: &Image) -> i64 {
    created(image).map_or(0, jiff::Timestamp::as_second)
}

fn created(image: &Image) -> Option<jiff::Timestamp> {
    let text = image.config.created().as_deref()?;
    text.parse().ok()
}
