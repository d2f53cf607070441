//! Images: what there is, where it comes from, and what may go.

mod inspect;
mod prune;

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use ferry_api::Filters;
use ferry_api::image::{Deleted, History, Inspect, Summary};
use ferry_image::{Digest, Platform, Reference};
use ferry_storage::{Image, ImportOptions, LoadOptions, Loaded, RemoveOptions, Removed, Save, User};

use crate::error::{Error, Result};
use crate::world::World;

/// All images. Clones are handles on the same ones.
#[derive(Debug, Clone)]
pub struct Images {
    world: Arc<World>,
}

impl Images {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    /// Newest first. `shared` counts what is shared with other images, and the containers of each.
    pub fn list(&self, shared: bool, filters: &Filters) -> Result<Vec<Summary>> {
        const FILTERS: [&str; 6] = ["before", "dangling", "label", "reference", "since", "until"];
        let invalid = |error: ferry_api::Error| Error::invalid(error.to_string());
        filters.validate(&FILTERS).map_err(invalid)?;
        let dangling = match filters.contains("dangling") {
            true => Some(filters.flag("dangling", false).map_err(invalid)?),
            false => None,
        };
        let created = |key: &str| -> Result<Option<i64>> {
            let name = filters.values(key).next();
            name.map(|name| Ok(created_at(&*self.world.store.images.resolve(name)?)))
                .transpose()
        };
        let (mut before, since) = (created("before")?, created("since")?);
        if let Some(until) = until(filters)? {
            before = Some(before.map_or(until, |before| before.min(until)));
        }
        let all = self.world.store.images.list();
        let usage = shared.then(|| Usage::of(&self.world, &all));
        let mut summaries = Vec::new();
        for image in &all {
            let at = created_at(image);
            let (mut tags, mut digests) = (tags(image), repo_digests(image));
            if filters.contains("reference") {
                let wanted = |name: &String| {
                    filters
                        .values("reference")
                        .any(|pattern| matches_reference(pattern, name))
                };
                tags.retain(wanted);
                digests.retain(wanted);
                if tags.is_empty() && digests.is_empty() {
                    continue;
                }
            }
            if dangling.is_some_and(|dangling| dangling != tags.is_empty())
                || !filters.labels("label", &labels(image))
                || before.is_some_and(|before| at >= before)
                || since.is_some_and(|since| at <= since)
            {
                continue;
            }
            summaries.push(Summary {
                containers: usage.as_ref().map_or(-1, |usage| usage.containers(image)),
                created: at,
                id: image.id.to_string(),
                labels: own_labels(image),
                parent_id: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
                repo_digests: Some(digests),
                repo_tags: Some(tags),
                shared_size: usage.as_ref().map_or(-1, |usage| usage.shared(image)),
                size: size(image),
                ..Summary::default()
            });
        }
        summaries.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(summaries)
    }

    /// What is to be saved as one archive; nothing is read yet.
    pub fn save(&self, names: &[String], platform: Option<&Platform>) -> Result<Save> {
        if names.is_empty() {
            return Err(Error::invalid("no images to save"));
        }
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
        if let Some(newest) = items.first_mut() {
            newest.id = image.id.to_string();
            let tags = tags(&image);
            newest.tags = (!tags.is_empty()).then_some(tags);
        }
        Ok(items)
    }

    pub async fn tag(&self, source: &str, repository: &str, tag: &str) -> Result<()> {
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
        self.world.store.images.tag(&image.id, &reference).await?;
        self.world
            .events
            .image(&image.id.to_string(), "tag", &reference.familiar());
        Ok(())
    }

    pub async fn remove(&self, name: &str, force: bool, no_prune: bool) -> Result<Vec<Deleted>> {
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
        let users = self.world.containers.all().into_iter().filter_map(|handle| {
            let snapshot = handle.snapshot();
            let record = &snapshot.record;
            Some(User {
                container: record.id.clone(),
                image: record.image.parse::<Digest>().ok()?,
                running: record.run.status.is_live(),
            })
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

/// `null` where the configuration has none, as Docker says it.
fn own_labels(image: &Image) -> Option<std::collections::BTreeMap<String, String>> {
    let config = image.config.config().as_ref()?;
    config.labels().as_ref()?;
    Some(labels(image))
}

/// Seconds since 1970 of the filter `until`: an age, a time, or seconds.
fn until(filters: &Filters) -> Result<Option<i64>> {
    let mut values = filters.values("until");
    let Some(text) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid("more than one until filter specified"));
    }
    let seconds = ferry_kit::moment::parse(text);
    let seconds = seconds.and_then(|text| text.split('.').next().and_then(|seconds| seconds.parse().ok()));
    match seconds {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Error::invalid(format!(
            "invalid filter 'until={text}': want an age like 24h, or a time"
        ))),
    }
}

/// Who uses what, counted once for all images.
pub(crate) struct Usage {
    layers: HashMap<Digest, usize>,
    containers: HashMap<String, i64>,
}

impl Usage {
    pub fn of(world: &World, images: &[Arc<Image>]) -> Self {
        let (mut layers, mut containers) = (HashMap::new(), HashMap::new());
        for layer in images.iter().flat_map(|image| &image.layers) {
            *layers.entry(layer.chain_id.clone()).or_insert(0) += 1;
        }
        for handle in world.containers.all() {
            *containers.entry(handle.snapshot().record.image.clone()).or_insert(0) += 1;
        }
        Self { layers, containers }
    }

    pub fn containers(&self, image: &Image) -> i64 {
        self.containers.get(&image.id.to_string()).copied().unwrap_or(0)
    }

    /// Bytes of the layers that other images have, too.
    pub fn shared(&self, image: &Image) -> i64 {
        let shared = image
            .layers
            .iter()
            .filter(|layer| self.layers.get(&layer.chain_id).is_some_and(|&count| count > 1));
        i64::try_from(shared.map(|layer| layer.size).sum::<u64>()).unwrap_or(i64::MAX)
    }
}

pub(crate) fn created_at(image: &Image) -> i64 {
    let created = image
        .config
        .created()
        .as_deref()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    created.map_or(0, jiff::Timestamp::as_second)
}

/// A pattern matches a name with its tag or digest, or without, `*` and `?` staying within a path component.
fn matches_reference(pattern: &str, tag: &str) -> bool {
    let bare = match tag.split_once('@') {
        Some((bare, _)) => bare,
        None => tag.rsplit_once(':').map_or(tag, |(bare, _)| bare),
    };
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let end = text.iter().position(|&byte| byte == b'/').unwrap_or(text.len());
            (0..=end).any(|taken| glob(rest, &text[taken..]))
        }
        (Some((b'?', rest)), Some((byte, text))) if *byte != b'/' => glob(rest, text),
        (Some((wanted, rest)), Some((byte, text))) if wanted == byte => glob(rest, text),
        _ => false,
    }
}
