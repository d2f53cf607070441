//! Images: a configuration on top of layers, under any number of names.
//!
//! The id of an image is the digest of its configuration, as in Docker. The index holds every image parsed; it is replaced
//! as a whole after each commit, so that listing and resolving never wait and never see half a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_image::{Algorithm, AnyReference, Digest, Reference};
use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::db::{Batch, Document, Durability};
use crate::error::Context as _;
use crate::layers::{self, Blob, Layer, Pin};
use crate::layout::{Layout, sync_dir};
use crate::origin::{Origin, Way};
use crate::settling::Unsynced;
use crate::store::Shared;
use crate::{Error, Result, names};

/// Largest configuration that is read, in bytes.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;

#[derive(Debug)]
pub struct Image {
    pub id: Digest,
    pub config: ImageConfiguration,
    /// The bytes whose digest is the id.
    pub raw_config: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The manifest it came with last, which is in the blobs.
    pub manifest: Option<Digest>,
    /// The index that named this manifest, and what came along.
    pub origin: Option<Origin>,
    /// Other ways in which it came, the latest first.
    pub earlier: Vec<Way>,
    /// The image this one was built or committed from, here.
    pub parent: Option<Digest>,
    /// In the order of their text.
    pub references: Vec<Reference>,
    pub created: Option<Timestamp>,
    pub last_tagged: Option<Timestamp>,
    /// Bytes of all layers.
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct Images {
    pub(crate) shared: Arc<Shared>,
}

/// One image of an archive that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub image: Arc<Image>,
    pub references: Vec<Named>,
}

/// A name that was given to an image.
#[derive(Clone, Debug)]
pub struct Named {
    pub reference: Reference,
    /// The other image that had this name until now.
    pub replaced: Option<Digest>,
}

/// The stored form of [`Image`]; the configuration is a blob.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub key: String,
    pub id: Digest,
    /// Chain ids, lowest first.
    pub layers: Vec<Digest>,
    pub manifest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Way>,
    pub parent: Option<Digest>,
    pub last_tagged: Option<Timestamp>,
}

impl Document for Record {
    const KIND: &'static str = "image";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

/// A name of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Name {
    pub key: String,
    pub image: Digest,
    /// [`Way::digest`] of the way in which the image got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came: Option<Digest>,
}

impl Document for Name {
    const KIND: &'static str = "reference";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub images: BTreeMap<Digest, Arc<Image>>,
    /// By [`names::key`].
    pub references: BTreeMap<String, (Reference, Digest)>,
    /// [`Name::came`], likewise.
    pub came: BTreeMap<String, Digest>,
    /// Of images that cannot be used but were not removed.
    pub kept_layers: BTreeSet<Digest>,
    pub kept_blobs: BTreeSet<Digest>,
}

/// An image that is ready to be recorded.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub raw_config: Vec<u8>,
    pub config: ImageConfiguration,
    /// Lowest first.
    pub pins: Vec<Pin>,
    pub manifest: Option<Digest>,
    /// Goes with the manifest.
    pub origin: Option<Origin>,
    pub parent: Option<Digest>,
    pub references: Vec<Reference>,
}

/// A file in `tmp/` that becomes a blob.
#[derive(Clone, Debug)]
pub(crate) struct NewBlob {
    pub digest: Digest,
    pub path: PathBuf,
}

impl Images {
    /// All images in the order of their ids. Does no I/O.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.shared.index().images.values().cloned().collect()
    }

    pub fn get(&self, id: &Digest) -> Option<Arc<Image>> {
        self.shared.index().images.get(id).cloned()
    }

    /// Finds an image by name, `name:tag`, `name@digest`, id or a unique prefix of the id, in Docker's order: names win
    /// over prefixes. Does no I/O.
    pub fn resolve(&self, text: &str) -> Result<Arc<Image>> {
        self.shared.index().resolve(text)
    }

    /// Gives an image a name, which another image may lose.
    pub async fn tag(&self, id: &Digest, reference: &Reference) -> Result<Named> {
        self.tag_like(id, reference, "").await
    }

    /// The same, for the way in which it came under another name, if `other` is one of its names.
    pub async fn tag_like(&self, id: &Digest, reference: &Reference, other: &str) -> Result<Named> {
        let (shared, id, reference) = (Arc::clone(&self.shared), id.clone(), reference.clone());
        let other = match other.parse::<AnyReference>() {
            Ok(AnyReference::Name(other)) => Some(other.tagged()),
            _ => None,
        };
        blocking(move || shared.tag(&id, &reference, other.as_ref())).await
    }

    /// Takes a name away and leaves the image, even if it was its last.
    pub async fn untag(&self, reference: &Reference) -> Result<()> {
        let (shared, reference) = (Arc::clone(&self.shared), reference.clone());
        blocking(move || {
            let _changing = shared.changing();
            let mut index = Index::clone(&shared.index());
            let key = names::key(&reference);
            let missing = || Error::NotFound {
                reference: names::familiar(&reference),
            };
            index.references.remove(&key).ok_or_else(missing)?;
            index.came.remove(&key);
            let mut batch = Batch::default();
            batch.delete::<Name>(&key);
            let shed = shared.shed(&mut index, &mut batch)?;
            shared.db.commit_blocking(batch, Durability::Power)?;
            index.relabel();
            shared.forget(&index, shed);
            shared.publish(index);
            Ok(())
        })
        .await
    }

    /// The bytes of a small blob: a configuration or a manifest. Blocks.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.shared.layout.blob(digest);
        read(&path, "blob", limit)
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    // Boxed, so that a task is compiled once for each type of result.
    let work: Box<dyn FnOnce() -> Result<T> + Send> = Box::new(work);
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Closed)?
}

impl Shared {
    fn tag(&self, id: &Digest, reference: &Reference, other: Option<&Reference>) -> Result<Named> {
        let _changing = self.changing();
        let mut index = Index::clone(&self.index());
        let image = index.images.get(id).ok_or_else(|| Error::NotFound {
            reference: id.to_string(),
        })?;
        let now = Timestamp::now();
        let mut batch = Batch::default();
        batch.put(&Record {
            last_tagged: Some(now),
            ..image.record()
        })?;
        let other = other.map(names::key).filter(|key| {
            let known = index.references.get(key);
            known.is_some_and(|(_, image)| image == id)
        });
        let came = other.and_then(|key| index.came.get(&key).cloned());
        batch.put(&Name {
            key: names::key(reference),
            image: id.clone(),
            came: came.clone(),
        })?;
        self.db.commit_blocking(batch, Durability::Power)?;
        let named = index.name(reference, id, came);
        index.touch(id, now);
        index.relabel();
        self.publish(index);
        Ok(named)
    }

    /// Drops what no name is of any more ([`Index::shed`]), also from the records. Returns the blobs, to be forgotten after the
    /// commit.
    pub(crate) fn shed(&self, index: &mut Index, batch: &mut Batch) -> Result<Vec<Digest>> {
        let mut blobs = Vec::new();
        for (id, shed) in index.shed() {
            if let Some(image) = index.images.get(&id) {
                batch.put(&image.record())?;
            }
            blobs.extend(shed);
        }
        Ok(blobs)
    }

    /// Records images with their layers, names and blobs, all in one commit. Blocks.
    ///
    /// With [`Durability::Process`] new layers are brought to disk afterwards: until then a power cut takes the images away
    /// again, whole.
    pub fn record(&self, images: &[NewImage], blobs: &[NewBlob], durability: Durability) -> Result<Vec<Loaded>> {
        let unwritten = images.iter().flat_map(|image| &image.pins).any(|pin| pin.new) || self.settling.is_busy();
        let later = unwritten && durability == Durability::Process;
        if unwritten && !later {
            // One sync for all of it: file by file would take minutes for a large image.
            let dir = std::fs::File::open(&self.layout.root).at("open", &self.layout.root)?;
            rustix::fs::syncfs(&dir).at("sync", &self.layout.root)?;
        }
        let _changing = self.changing();
        let mut placed = Placed::default();
        for blob in blobs {
            placed.place(&self.layout, blob, !later)?;
        }
        if !later {
            sync_dir(&self.layout.blobs())?;
            sync_dir(&self.layout.layers())?;
        }
        let mut index = Index::clone(&self.index());
        let mut batch = Batch::default();
        let now = Timestamp::now();
        let (mut all_named, mut replaced, mut unsynced) = (Vec::new(), Vec::new(), Vec::new());
        for new in images {
            let id = Digest::of(&new.raw_config);
            for pin in &new.pins {
                batch.put(&layers::Record::from(pin.layer.clone()))?;
            }
            let old = index.images.get(&id).cloned();
            let tagged = (!new.references.is_empty()).then_some(now);
            // A manifest goes with its index.
            let way = new.manifest.clone().map(|manifest| Way {
                manifest,
                origin: new.origin.clone(),
            });
            let came = way.as_ref().map(|way| way.digest().clone());
            let (last, earlier) = match (&old, way) {
                (Some(old), None) => (old.ways().next(), old.earlier.clone()),
                (Some(old), Some(way)) => {
                    let earlier = old.ways_before(&way);
                    (Some(way), earlier)
                }
                (None, way) => (way, Vec::new()),
            };
            let (manifest, origin) = last.map(|way| (way.manifest, way.origin)).unzip();
            replaced.extend(old.iter().flat_map(|old| old.documents().cloned()));
            let record = Record {
                key: id.to_string(),
                id: id.clone(),
                layers: new.pins.iter().map(|pin| pin.layer.chain_id.clone()).collect(),
                manifest,
                origin: origin.flatten(),
                earlier,
                parent: new.parent.clone().or(old.as_ref().and_then(|old| old.parent.clone())),
                last_tagged: tagged.or(old.and_then(|old| old.last_tagged)),
            };
            batch.put(&record)?;
            if later {
                let record = Unsynced::new(record.key.clone());
                batch.put(&record)?;
                unsynced.push(record.key);
            }
            let layers = new.pins.iter().map(|pin| pin.layer.clone()).collect();
            let image = Image::new(&record, new.raw_config.clone(), new.config.clone(), layers);
            index.images.insert(id.clone(), Arc::new(image));
            let mut named = Vec::new();
            for reference in &new.references {
                batch.put(&Name {
                    key: names::key(reference),
                    image: id.clone(),
                    came: came.clone(),
                })?;
                named.push(index.name(reference, &id, came.clone()));
            }
            all_named.push((id, named));
        }
        replaced.extend(self.shed(&mut index, &mut batch)?);
        let durability = if later { Durability::Process } else { Durability::Power };
        self.db.commit_blocking(batch, durability)?;
        placed.keep();
        self.settling.add(unsynced);
        self.layers
            .stored(images.iter().flat_map(|image| &image.pins).map(|pin| &pin.layer));
        index.relayer(images.iter().flat_map(|image| &image.pins).map(|pin| &pin.layer));
        index.relabel();
        let find = |(id, references): (Digest, _)| {
            index.images.get(&id).map(|image| Loaded {
                image: Arc::clone(image),
                references,
            })
        };
        let loaded = all_named.into_iter().filter_map(find).collect();
        self.forget(&index, replaced);
        self.publish(index);
        Ok(loaded)
    }
}

/// Blobs that were moved into place and go back to where they came from unless they are kept: what came over the network need
/// not come again because of a failure in the end.
#[derive(Default)]
struct Placed(Vec<(PathBuf, PathBuf)>);

impl Placed {
    fn place(&mut self, layout: &Layout, blob: &NewBlob, sync: bool) -> Result<()> {
        let path = layout.blob(&blob.digest);
        if path.exists() {
            return Ok(());
        }
        if sync {
            let file = std::fs::File::open(&blob.path).at("open", &blob.path)?;
            file.sync_all().at("sync", &blob.path)?;
        }
        std::fs::rename(&blob.path, &path).at("move the blob to", &path)?;
        self.0.push((path, blob.path.clone()));
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for (path, from) in &self.0 {
            if std::fs::rename(path, from).is_err() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Index {
    pub fn resolve(&self, text: &str) -> Result<Arc<Image>> {
        let not_found = |reference: &str| Error::NotFound {
            reference: reference.to_owned(),
        };
        let reference = match text.parse::<AnyReference>() {
            Ok(AnyReference::Id(id)) => return self.images.get(&id).cloned().ok_or_else(|| not_found(text)),
            Ok(AnyReference::Name(reference)) => Ok(reference.tagged()),
            Err(error) => Err(Error::Invalid(error.to_string())),
        };
        if let Ok(reference) = &reference
            && let Some((_, id)) = self.references.get(&names::key(reference))
            && let Some(image) = self.images.get(id)
        {
            return Ok(Arc::clone(image));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if !prefix.is_empty() && is_hex(prefix) {
            let mut found = self
                .images
                .values()
                .filter(|image| image.id.encoded().starts_with(prefix));
            if let Some(image) = found.next() {
                return match found.next() {
                    None => Ok(Arc::clone(image)),
                    Some(_) => Err(Error::Ambiguous {
                        prefix: text.to_owned(),
                    }),
                };
            }
        }
        Err(not_found(&names::familiar(&reference?)))
    }

    pub fn name(&mut self, reference: &Reference, id: &Digest, came: Option<Digest>) -> Named {
        let key = names::key(reference);
        match came {
            Some(came) => self.came.insert(key.clone(), came),
            None => self.came.remove(&key),
        };
        let old = self.references.insert(key, (reference.clone(), id.clone()));
        let replaced = old.map(|(_, image)| image).filter(|image| image != id);
        Named {
            reference: reference.clone(),
            replaced,
        }
    }

    pub fn touch(&mut self, id: &Digest, now: Timestamp) {
        if let Some(image) = self.images.get_mut(id) {
            let mut changed = image.copy();
            changed.last_tagged = Some(now);
            *image = Arc::new(changed);
        }
    }

    /// The names of an image in the order of their text.
    pub fn references_of(&self, id: &Digest) -> Vec<Reference> {
        self.references
            .values()
            .filter(|(_, image)| image == id)
            .map(|(reference, _)| reference.clone())
            .collect()
    }

    /// Brings the blob of a shared layer, which may have become known only now, to every image with that layer.
    pub(crate) fn relayer<'a>(&mut self, layers: impl Iterator<Item = &'a Layer>) {
        let layers: HashMap<_, _> = layers.map(|layer| (&layer.chain_id, layer)).collect();
        let stale = |layer: &Layer| layers.get(&layer.chain_id).is_some_and(|new| *new != layer);
        for image in self.images.values_mut() {
            if image.layers.iter().any(stale) {
                let mut changed = image.copy();
                for layer in changed.layers.iter_mut() {
                    if let Some(new) = layers.get(&layer.chain_id) {
                        *layer = Layer::clone(new);
                    }
                }
                *image = Arc::new(changed);
            }
        }
    }

    /// Makes the images' own lists of names agree with the names.
    pub fn relabel(&mut self) {
        let mut names: HashMap<&Digest, Vec<Reference>> = HashMap::new();
        for (reference, id) in self.references.values() {
            names.entry(id).or_default().push(reference.clone());
        }
        for (id, image) in &mut self.images {
            let references = names.remove(id).unwrap_or_default();
            if image.references != references {
                let mut changed = image.copy();
                changed.references = references;
                *image = Arc::new(changed);
            }
        }
    }
}

impl Image {
    fn new(record: &Record, raw_config: Vec<u8>, config: ImageConfiguration, layers: Vec<Layer>) -> Self {
        Self {
            id: record.id.clone(),
            created: config.created().as_ref().and_then(|created| created.parse().ok()),
            size: layers.iter().map(|layer| layer.size).sum(),
            config,
            raw_config,
            layers,
            manifest: record.manifest.clone(),
            origin: record.origin.clone(),
            earlier: record.earlier.clone(),
            parent: record.parent.clone(),
            references: Vec::new(),
            last_tagged: record.last_tagged,
        }
    }

    pub(crate) fn from_record(layout: &Layout, record: &Record, known: &HashMap<Digest, Layer>) -> Result<Self> {
        let raw_config = read(&layout.blob(&record.id), "configuration", CONFIG_LIMIT)?;
        if Digest::of(&raw_config) != record.id {
            return Err(Error::Invalid("its configuration was changed on disk".to_owned()));
        }
        let config = parse_config(&raw_config)?;
        let mut layers = Vec::new();
        for chain in &record.layers {
            let layer = known.get(chain).filter(|_| layout.layer(chain).join("fs").is_dir());
            layers.push(
                layer
                    .cloned()
                    .ok_or_else(|| Error::Invalid(format!("its layer {chain} is missing")))?,
            );
        }
        Ok(Self::new(record, raw_config, config, layers))
    }

    pub(crate) fn record(&self) -> Record {
        Record {
            key: self.id.to_string(),
            id: self.id.clone(),
            layers: self.layers.iter().map(|layer| layer.chain_id.clone()).collect(),
            manifest: self.manifest.clone(),
            origin: self.origin.clone(),
            earlier: self.earlier.clone(),
            parent: self.parent.clone(),
            last_tagged: self.last_tagged,
        }
    }

    pub(crate) fn copy(&self) -> Self {
        Self {
            id: self.id.clone(),
            config: self.config.clone(),
            raw_config: self.raw_config.clone(),
            layers: self.layers.clone(),
            manifest: self.manifest.clone(),
            origin: self.origin.clone(),
            earlier: self.earlier.clone(),
            parent: self.parent.clone(),
            references: self.references.clone(),
            created: self.created,
            last_tagged: self.last_tagged,
            size: self.size,
        }
    }
}

/// Reads a configuration as leniently as Docker: `null` is the same as absent, and neither platform nor history is needed.
pub(crate) fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration> {
    let invalid = |why: String| Error::Invalid(format!("invalid image configuration: {why}"));
    let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
    drop_nulls(&mut value);
    let object = value
        .as_object_mut()
        .ok_or_else(|| invalid("it is no object".to_owned()))?;
    if !object.contains_key("rootfs") {
        return Err(Error::Invalid("invalid image JSON, no RootFS key".to_owned()));
    }
    for (key, default) in [("os", "linux"), ("architecture", "")] {
        object.entry(key).or_insert_with(|| default.into());
    }
    if let Some(rootfs) = object.get_mut("rootfs").and_then(|rootfs| rootfs.as_object_mut()) {
        rootfs.entry("type").or_insert_with(|| "layers".into());
        rootfs
            .entry("diff_ids")
            .or_insert_with(|| serde_json::Value::Array(Vec::new()));
    }
    let config: ImageConfiguration = serde_json::from_value(value).map_err(|error| invalid(error.to_string()))?;
    let filled = |history: &oci_spec::image::History| history.empty_layer() != Some(true);
    let filled = config
        .history()
        .iter()
        .flatten()
        .filter(|history| filled(history))
        .count();
    if filled > config.rootfs().diff_ids().len() {
        return Err(Error::Invalid(
            "too many non-empty layers in History section".to_owned(),
        ));
    }
    Ok(config)
}

fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(array) => array.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The diff ids of a configuration, checked.
pub(crate) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| Error::Invalid(format!("invalid diff id {text:?}")))
    };
    let ids: Vec<Digest> = config.rootfs().diff_ids().iter().map(parse).collect::<Result<_>>()?;
    match ids.iter().find(|id| !is_sha256(id)) {
        Some(id) => Err(Error::Invalid(format!("unsupported digest algorithm in diff id {id}"))),
        None => Ok(ids),
    }
}

pub(crate) fn is_sha256(digest: &Digest) -> bool {
    digest.algorithm() == Algorithm::Sha256
}

pub(crate) fn read(path: &Path, what: &str, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).at("open", path)?;
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge {
            what: what.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A layer's [`Blob`] for bytes that came compressed.
pub(crate) fn layer_blob(digest: &Digest, size: u64, media_type: &str, compression: &str) -> Blob {
    Blob {
        digest: digest.clone(),
        size,
        media_type: media_type.to_owned(),
        compression: compression.to_owned(),
    }
}
