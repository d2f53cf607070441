//! Opening the data root: lock, records, sweep.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use ferry_image::Digest;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::db::{Batch, Db, Durability};
use crate::error::Context as _;
use crate::images::{self, Image, Images, Index};
use crate::ingest::Ingests;
use crate::layers::{self, Layers};
use crate::layout::Layout;
use crate::origin::{Origin, Way};
use crate::reaper::Reaper;
use crate::settling::{Settling, Unsynced};
use crate::snapshots::{self, Snapshots};
use crate::steps::{self, Step, Steps};
use crate::{Error, Result, names};

/// The data root of one engine.
#[derive(Clone, Debug)]
pub struct Store {
    pub db: Db,
    pub images: Images,
    pub snapshots: Snapshots,
    pub steps: Steps,
    shared: Arc<Shared>,
}

/// Something on disk that cannot be used and was left alone.
#[derive(Clone, Debug)]
pub struct Problem {
    pub what: String,
    pub why: String,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub layout: Layout,
    pub db: Db,
    pub layers: Arc<Layers>,
    pub ingests: Arc<Ingests>,
    pub reaper: Reaper,
    /// Replaced as a whole: a reader keeps what it has.
    pub index: RwLock<Arc<Index>>,
    /// Containers and the layers they hold.
    pub held: Mutex<HashMap<String, snapshots::Record>>,
    pub steps: Mutex<steps::Known>,
    /// Held while the set of images changes: what is needed is decided and written as one.
    pub change: Mutex<()>,
    pub problems: Vec<Problem>,
    pub settling: Arc<Settling>,
    /// Locked as long as this lives; after the database, which is closed first.
    _lock: File,
}

impl Store {
    /// Opens or creates a data root and clears away what a crash left. Blocks for a moment.
    ///
    /// Fails with [`Error::InUse`] while another engine has it, with [`Error::Newer`] if a newer Ferry wrote it.
    pub fn open(root: &Path) -> Result<Self> {
        // A thread of its own, because a caller on an asynchronous worker could not wait for the database.
        let opened = std::thread::scope(|scope| scope.spawn(|| open(root)).join());
        let shared = Arc::new(opened.map_err(|_| Error::Closed)??);
        Ok(Self {
            db: shared.db.clone(),
            images: Images {
                shared: Arc::clone(&shared),
            },
            snapshots: Snapshots {
                shared: Arc::clone(&shared),
            },
            steps: Steps {
                shared: Arc::clone(&shared),
            },
            shared,
        })
    }

    pub fn root(&self) -> &Path {
        &self.shared.layout.root
    }

    /// Where the engine keeps a container's files; `upper` and `work` in there are [`Snapshots`]'. Fails for an id that is
    /// no plain name.
    pub fn container_dir(&self, id: &str) -> Result<PathBuf> {
        self.shared.layout.container(id)
    }

    pub fn volumes_dir(&self) -> PathBuf {
        self.shared.layout.volumes()
    }

    /// A directory without anything, for what has no layers.
    pub fn empty_dir(&self) -> PathBuf {
        self.shared.layout.empty()
    }

    /// The file of a blob, which need not exist.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.shared.layout.blob(digest)
    }

    /// Images that were recorded and cannot be used, and records that could not be read.
    pub fn problems(&self) -> Vec<Problem> {
        let bad = self.db.quarantined().into_iter();
        let bad = bad.map(|bad| Problem {
            what: format!("the record {} {}", bad.kind, bad.key),
            why: bad.why,
        });
        self.shared.problems.iter().cloned().chain(bad).collect()
    }
}

impl Shared {
    pub fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub fn publish(&self, index: Index) {
        *self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(index);
    }

    pub fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The layers that images, containers or remembered steps need, given an index.
    pub fn needed(&self, index: &Index) -> HashSet<Digest> {
        let mut needed = self.needed_without_steps(index);
        needed.extend(self.steps().layers().cloned());
        needed
    }

    pub fn needed_without_steps(&self, index: &Index) -> HashSet<Digest> {
        let held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let containers = held.values().flat_map(|record| record.held().cloned());
        let images = index
            .images
            .values()
            .flat_map(|image| image.layers.iter().map(|layer| layer.chain_id.clone()));
        containers
            .chain(images)
            .chain(index.kept_layers.iter().cloned())
            .collect()
    }

    /// Every blob that something in an index refers to.
    pub fn needed_blobs(&self, index: &Index) -> HashSet<Digest> {
        let images = index.images.values().flat_map(|image| {
            let layers = image
                .layers
                .iter()
                .filter_map(|layer| layer.blob.as_ref())
                .map(|blob| blob.digest.clone());
            layers.chain(image.documents().cloned())
        });
        images.chain(index.kept_blobs.iter().cloned()).collect()
    }
}

fn open(root: &Path) -> Result<Shared> {
    let layout = Layout { root: root.to_owned() };
    layout.create()?;
    let lock = lock(&layout)?;
    let db = Db::open(&layout.db())?;
    let reaper = Reaper::start(&layout)?;
    let layer_records = db.all_blocking::<layers::Record>()?;
    let image_records = db.all_blocking::<images::Record>()?;
    let names = db.all_blocking::<images::Name>()?;
    let held = db.all_blocking::<snapshots::Record>()?;
    let steps = db.all_blocking::<Step>()?;
    let unsynced = db.all_blocking::<Unsynced>()?;
    let (lost, unsynced): (Vec<_>, Vec<_>) = unsynced.into_iter().partition(Unsynced::is_of_another_boot);

    let known: HashMap<_, _> = layer_records
        .into_iter()
        .map(|r| (r.layer.chain_id.clone(), r.layer))
        .collect();
    let mut index = Index::default();
    let mut problems = Vec::new();
    let mut batch = Batch::default();
    for record in image_records {
        match Image::from_record(&layout, &record, &known) {
            Ok(image) => {
                index.images.insert(image.id.clone(), Arc::new(image));
            }
            Err(error) if lost.iter().any(|lost| lost.image == record.key) => {
                tracing::warn!(image = record.key, %error, "an image is gone that was pulled right before a power cut");
                batch.delete::<images::Record>(&record.key);
            }
            Err(error) => {
                problems.push(Problem {
                    what: format!("the image {}", record.key),
                    why: error.to_string(),
                });
                index.kept_layers.extend(record.layers);
                let origin = record.origin.iter().flat_map(Origin::blobs);
                let earlier = record.earlier.iter().flat_map(Way::blobs);
                let ways = origin.chain(earlier).cloned();
                index
                    .kept_blobs
                    .extend(ways.chain(record.manifest.clone()).chain([record.id.clone()]));
            }
        }
    }
    let has = |chain: &Digest| known.contains_key(chain) && layout.layer(chain).join("fs").is_dir();
    let (steps, untrue) = Shared::untrue(steps, has);
    untrue.iter().for_each(|key| batch.delete::<Step>(key));
    let mut references = BTreeMap::new();
    for name in names {
        match names::parse(&name.key) {
            Ok(reference) if index.images.contains_key(&name.image) => {
                index.came.extend(name.came.map(|came| (name.key.clone(), came)));
                references.insert(name.key, (reference, name.image));
            }
            _ if problems.is_empty() => batch.delete::<images::Name>(&name.key),
            _ => {}
        }
    }
    index.references = references;
    index.relabel();

    let settling = Arc::new(Settling::new(&layout.root, &db));
    let shared = Shared {
        layers: Arc::new(Layers::new(
            layout.clone(),
            reaper.clone(),
            known.into_values().collect(),
        )),
        ingests: Arc::new(Ingests::new(layout.clone())),
        layout,
        db,
        reaper,
        index: RwLock::new(Arc::new(index)),
        held: Mutex::new(
            held.into_iter()
                .map(|record| (record.container.clone(), record))
                .collect(),
        ),
        steps: Mutex::new(steps::Known::new(steps)),
        change: Mutex::default(),
        problems,
        settling,
        _lock: lock,
    };
    sweep(&shared, batch)?;
    if !lost.is_empty() {
        shared.read_through(&lost)?;
    }
    shared.settling.add(unsynced.into_iter().map(|unsynced| unsynced.key));
    Ok(shared)
}

fn lock(layout: &Layout) -> Result<File> {
    let path = layout.lock();
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .at("open", &path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Error::InUse {
            root: layout.root.clone(),
        }),
        locked => locked.at("lock", &path).map(|()| file),
    }
}

/// Removes what no record names. When a record could not be read nothing is removed but `tmp/`: it may have named it.
fn sweep(shared: &Shared, mut batch: Batch) -> Result<()> {
    let layout = &shared.layout;
    for path in entries(&layout.tmp())? {
        shared.reaper.delete(path);
    }
    // The tar of a layer that is there can be made of it, and a blob that is there is no part.
    let layers = shared.db.all_blocking::<layers::Record>()?;
    let whole: HashSet<&str> = layers.iter().map(|record| record.layer.diff_id.encoded()).collect();
    shared
        .ingests
        .collect(|name| name.to_str().is_some_and(|name| whole.contains(name)) || layout.blobs().join(name).exists())?;
    if !shared.db.quarantined().is_empty() {
        return Ok(());
    }
    let index = shared.index();
    let needed = shared.needed(&index);
    let mut known = HashSet::new();
    for record in layers {
        if needed.contains(&record.layer.chain_id) {
            known.insert(record.layer.chain_id.encoded().to_owned());
        } else {
            shared
                .layers
                .take(std::slice::from_ref(&record.layer.chain_id), &needed);
            shared.layers.gone(std::slice::from_ref(&record.layer));
            batch.delete::<layers::Record>(&record.key);
        }
    }
    let unnamed = |path: &PathBuf, known: &HashSet<String>| {
        !path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| known.contains(name))
    };
    for path in entries(&layout.layers())?
        .into_iter()
        .filter(|path| unnamed(path, &known))
    {
        shared.reaper.remove(&path)?;
    }
    let blobs = shared
        .needed_blobs(&index)
        .iter()
        .map(|digest| digest.encoded().to_owned())
        .collect();
    for path in entries(&layout.blobs())?
        .into_iter()
        .filter(|path| unnamed(path, &blobs))
    {
        shared.reaper.remove(&path)?;
    }
    let held: HashSet<_> = shared
        .held
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .keys()
        .cloned()
        .collect();
    for path in entries(&layout.containers())?
        .into_iter()
        .filter(|path| unnamed(path, &held))
    {
        shared.reaper.remove(&path)?;
    }
    if batch.is_empty() {
        Ok(())
    } else {
        shared.db.commit_blocking(batch, Durability::Process)
    }
}

pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).at("read", dir)?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).at("read", dir))
        .collect()
}
