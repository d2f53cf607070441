//! Layers that are made step by step, and what is remembered of steps.
//!
//! ```text
//! draft ── written to ──▶ seal ──▶ Held: used at once, as the lower layer of the next
//!                                   │ behind: its tar is hashed, and it moves to layers/<hex of chain id>
//!                                   ▼
//!                         remember: a record by the step's key, which keeps the layers
//! ```
//!
//! A record names its layers like an image does, and its files come before it: whenever the engine is killed, what is recorded is
//! whole. Records are a cache: one that a power cut may have made untrue is dropped.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_archive::reader::Time;
use ferry_archive::{DiffOptions, Recorder, diff, tree};
use ferry_image::{Digest, Reference, chain_id};
use ferry_sys::Root;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, watch};

use crate::db::{Batch, Document, Durability};
use crate::error::Context as _;
use crate::hashing::Aside;
use crate::images::{Image, NewBlob, NewImage, blocking, parse_config};
use crate::layers::{self, Layer, Pin};
use crate::layout::Staging;
use crate::settling;
use crate::store::Shared;
use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Steps {
    pub(crate) shared: Arc<Shared>,
}

/// A directory that becomes a layer. Dropped, it goes with everything in it.
#[derive(Debug)]
pub struct Draft {
    staging: Staging,
}

impl Draft {
    pub fn upper(&self) -> PathBuf {
        self.staging.path.join("fs")
    }

    /// What overlayfs needs beside it.
    pub fn work(&self) -> PathBuf {
        self.staging.path.join("work")
    }
}

/// A layer that is held: as long as a clone is there, its files are.
#[derive(Clone, Debug)]
pub struct Held {
    inner: Arc<Inner>,
}

#[derive(Debug)]
enum Inner {
    Pinned(Pin),
    Sealed(Sealed),
}

#[derive(Debug)]
struct Sealed {
    /// Where its files are now. Read as long as somebody opens them by that path.
    path: Arc<RwLock<PathBuf>>,
    outcome: watch::Receiver<Option<Outcome>>,
    /// Not empty if the same layer was there already: its files are in use all the same.
    rest: Arc<Mutex<Option<Staging>>>,
    is_empty: bool,
}

type Outcome = std::result::Result<Arc<Pin>, Arc<Error>>;

/// The path of a layer, which stays true as long as this is held.
#[derive(Debug)]
pub struct Lent {
    pub path: PathBuf,
    _guard: Option<tokio::sync::OwnedRwLockReadGuard<PathBuf>>,
}

/// An image that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// As JSON; its layers are those it is recorded on.
    pub config: Vec<u8>,
    pub references: Vec<Reference>,
}

/// What is remembered of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does to what, as hex.
    pub key: String,
    /// Chain ids, lowest first.
    pub layers: Vec<Digest>,
    /// What steps on top of it know it by, if that is not its key: of one that was done again by order.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// When each layer was made, where that is known.
    #[serde(default)]
    pub times: Vec<Option<Timestamp>>,
    /// Keys of the steps it is on top of.
    pub parents: Vec<String>,
    /// Of what it is made, by name, as hex: for who asks why it was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made_of: Vec<(String, String)>,
    /// Other keys under which it is found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// `regular`, `source.http`, …
    pub kind: String,
    pub description: String,
    /// Bytes of its own layer.
    pub size: u64,
    pub created: Timestamp,
    pub last_used: Timestamp,
    pub used: u64,
    /// The boot in which it was written, until the disk has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

impl Document for Step {
    const KIND: &'static str = "build step";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

/// Steps by key, and by the other keys they have.
#[derive(Debug, Default)]
pub(crate) struct Known {
    steps: HashMap<String, Arc<Step>>,
    aliases: HashMap<String, String>,
    /// Were used since they were written.
    touched: HashMap<String, (Timestamp, u64)>,
}

impl Known {
    pub fn new(steps: Vec<Step>) -> Self {
        let mut known = Self::default();
        steps.into_iter().for_each(|step| known.insert(step));
        known
    }

    pub fn layers(&self) -> impl Iterator<Item = &Digest> {
        self.steps.values().flat_map(|step| &step.layers)
    }

    fn insert(&mut self, step: Step) {
        for alias in &step.aliases {
            self.aliases.insert(alias.clone(), step.key.clone());
        }
        self.steps.insert(step.key.clone(), Arc::new(step));
    }

    fn remove(&mut self, key: &str) -> Option<Arc<Step>> {
        let step = self.steps.remove(key)?;
        for alias in &step.aliases {
            self.aliases.remove(alias);
        }
        self.touched.remove(key);
        Some(step)
    }

    fn find(&self, key: &str) -> Option<&Arc<Step>> {
        let found = self.steps.get(key);
        found.or_else(|| self.steps.get(self.aliases.get(key)?))
    }
}

impl Steps {
    /// An empty directory to write to. Blocks for a moment.
    pub fn draft(&self) -> Result<Draft> {
        let staging = Staging::new(&self.shared.layout)?;
        let draft = Draft { staging };
        for (path, mode) in [(draft.upper(), 0o755), (draft.work(), 0o700)] {
            crate::snapshots::make_dir(&path, mode, None)?;
        }
        Ok(draft)
    }

    /// The layers of an image, lowest first.
    pub fn image(&self, image: &Image) -> Result<Vec<Held>> {
        let held = image.layers.iter().map(|layer| self.hold(&layer.chain_id));
        held.collect::<Option<_>>().ok_or_else(|| Error::NotFound {
            reference: image.id.to_string(),
        })
    }

    /// A layer by its chain id.
    pub fn hold(&self, chain: &Digest) -> Option<Held> {
        self.shared.layers.get(chain).map(Held::from)
    }

    /// Ends the writing of a layer on top of others, lowest first. `made` is what was made in it only to mount something on,
    /// relative to its root: that is taken away first. Nothing in it is younger than `latest`.
    ///
    /// The layer can be used from now on; its tar is hashed by another thread.
    pub async fn seal(
        &self,
        draft: Draft,
        below: &[Held],
        made: Vec<PathBuf>,
        latest: Option<Timestamp>,
    ) -> Result<Held> {
        let (sender, outcome) = watch::channel(None);
        let path = Arc::new(RwLock::new(draft.upper()));
        let rest = Arc::new(Mutex::new(None));
        let lent = lend_all(below).await;
        let (draft, is_empty) = blocking(move || {
            let upper = draft.upper();
            let root = Root::open(&upper).at("open", &upper)?;
            let lower = || open_all(lent.iter().rev().map(|lent| &lent.path)).map_err(Tidying::Other);
            ferry_archive::diff::tidy(&root, &made, lower).map_err(|error| error.of(&upper))?;
            if let Some(latest) = latest {
                let latest = Time {
                    secs: latest.as_second(),
                    nanos: 0,
                };
                tree::clamp_times(root.as_fd(), latest).at("set the times in", &upper)?;
            }
            let is_empty = std::fs::read_dir(&upper).at("read", &upper)?.next().is_none();
            drop(lent);
            Ok((draft, is_empty))
        })
        .await?;
        let sealing = Sealing {
            shared: Arc::clone(&self.shared),
            below: below.to_vec(),
            path: Arc::clone(&path),
            rest: Arc::clone(&rest),
        };
        tokio::spawn(async move {
            let done = sealing.finish(draft).await;
            let _ = sender.send(Some(done.map(Arc::new).map_err(Arc::new)));
        });
        let sealed = Sealed {
            path,
            outcome,
            rest,
            is_empty,
        };
        Ok(Held {
            inner: Arc::new(Inner::Sealed(sealed)),
        })
    }

    /// The same layer on top of others, lowest first.
    pub async fn rebase(&self, held: &Held, below: &[Held]) -> Result<Held> {
        let old = held.settled().await?;
        let mut diff_ids = Vec::new();
        let mut parent = None;
        for held in below {
            let layer = held.settled().await?;
            diff_ids.push(layer.diff_id);
            parent = Some(layer.chain_id);
        }
        diff_ids.push(old.diff_id.clone());
        let chain = chain_id(&diff_ids).unwrap_or_else(|| old.diff_id.clone());
        let layer = Layer {
            chain_id: chain.clone(),
            parent,
            ..old.clone()
        };
        let (shared, kept) = (Arc::clone(&self.shared), held.clone());
        blocking(move || {
            let pin = shared.layers.obtain(&chain, || {
                let staging = Staging::new(&shared.layout)?;
                let (from, to) = (shared.layout.layer(&old.chain_id), &staging.path);
                for name in ["fs", "attic"] {
                    let (from, to) = (from.join(name), to.join(name));
                    if !from.exists() {
                        continue;
                    }
                    std::fs::create_dir(&to).at("make the directory", &to)?;
                    let open = |path: &PathBuf| std::fs::File::open(path).at("open", path);
                    crate::relink::relink(open(&from)?.as_fd(), open(&to)?.as_fd()).at("copy the layer to", &to)?;
                }
                let recipe = to.join("recipe");
                std::fs::hard_link(from.join("recipe"), &recipe).at("make", &recipe)?;
                Ok((staging, layer))
            });
            drop(kept);
            Ok(Held {
                inner: Arc::new(Inner::Pinned(pin?)),
            })
        })
        .await
    }

    /// An image as one archive ([`crate::Save`]) that is not recorded.
    pub async fn archive(&self, built: Built, layers: &[Held]) -> Result<crate::Save> {
        let mut settled = Vec::new();
        for held in layers {
            settled.push(held.settled().await?);
        }
        let config = parse_config(&built.config)?;
        let image = Image {
            id: Digest::of(&built.config),
            created: config.created().as_ref().and_then(|created| created.parse().ok()),
            size: settled.iter().map(|layer| layer.size).sum(),
            config,
            raw_config: built.config,
            layers: settled,
            manifest: None,
            origin: None,
            earlier: Vec::new(),
            parent: None,
            references: Vec::new(),
            last_tagged: None,
        };
        crate::Save::of(&self.shared, image, built.references)
    }

    /// Records an image on top of layers, lowest first. It is used from now on; the disk has it some seconds later, as of a pull.
    pub async fn record(&self, built: Built, layers: &[Held]) -> Result<crate::Loaded> {
        let mut pins = Vec::new();
        for held in layers {
            let layer = held.settled().await?;
            let pin = self.shared.layers.get(&layer.chain_id);
            pins.push(pin.ok_or_else(|| Error::Invalid(format!("the layer {} is gone", layer.chain_id)))?);
        }
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let new = NewImage {
                config: parse_config(&built.config)?,
                raw_config: built.config,
                pins,
                manifest: None,
                origin: None,
                parent: None,
                references: built.references,
            };
            let id = Digest::of(&new.raw_config);
            let staging = Staging::new(&shared.layout)?;
            let path = staging.path.join("config");
            std::fs::write(&path, &new.raw_config).at("write", &path)?;
            let blob = NewBlob { digest: id, path };
            let loaded = shared.record(&[new], &[blob], Durability::Process)?;
            loaded.into_iter().next().ok_or(Error::Closed)
        })
        .await
    }

    /// What is remembered under a key, with its layers. Does no I/O.
    pub fn recall(&self, key: &str) -> Option<(Arc<Step>, Vec<Held>)> {
        let (step, held) = self.find(key)?;
        let mut known = self.shared.steps();
        let touched = known.touched.entry(step.key.clone()).or_insert((step.last_used, 0));
        *touched = (Timestamp::now(), touched.1 + 1);
        Some((step, held))
    }

    /// The same, which does not count as a use.
    pub fn find(&self, key: &str) -> Option<(Arc<Step>, Vec<Held>)> {
        let step = Arc::clone(self.shared.steps().find(key)?);
        let held = step
            .layers
            .iter()
            .map(|chain| self.hold(chain))
            .collect::<Option<_>>()?;
        Some((step, held))
    }

    /// Remembers a step, once its layers have their digests. `step` says all but its layers, size and times.
    pub async fn remember(&self, mut step: Step, layers: &[Held]) -> Result<()> {
        let mut settled = Vec::new();
        for held in layers {
            settled.push(held.settled().await?);
        }
        step.layers = settled.iter().map(|layer| layer.chain_id.clone()).collect();
        step.size = settled.last().map_or(0, |layer| layer.size);
        step.created = Timestamp::now();
        step.last_used = step.created;
        step.boot = settling::boot();
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let _changing = shared.changing();
            let mut batch = Batch::default();
            for layer in &settled {
                batch.put(&layers::Record::from(layer.clone()))?;
            }
            batch.put(&step)?;
            shared.db.commit_blocking(batch, Durability::Process)?;
            shared.layers.stored(settled.iter());
            shared.steps().insert(step);
            Ok(())
        })
        .await
    }

    /// Lets a step be found under another key, too.
    pub async fn alias(&self, key: &str, alias: &str) -> Result<()> {
        /// Each new state of a context that comes to the same files is one.
        const MOST: usize = 32;
        let step = {
            let known = self.shared.steps();
            let Some(step) = known
                .find(key)
                .filter(|step| !step.aliases.iter().any(|known| known == alias))
            else {
                return Ok(());
            };
            let mut step = Step::clone(step);
            let surplus = (step.aliases.len() + 1).saturating_sub(MOST);
            step.aliases.drain(..surplus);
            step.aliases.push(alias.to_owned());
            step
        };
        self.shared.db.put(&step, Durability::Process).await?;
        let mut known = self.shared.steps();
        known.remove(&step.key);
        known.insert(step);
        Ok(())
    }

    /// Which layers something other than a step needs: an image or a container.
    pub fn shared(&self) -> std::collections::HashSet<Digest> {
        self.shared.needed_without_steps(&self.shared.index())
    }

    /// Everything that is remembered, with its last use.
    pub fn all(&self) -> Vec<Step> {
        let known = self.shared.steps();
        let now = |step: &Arc<Step>| {
            let mut step = Step::clone(step);
            if let Some((at, times)) = known.touched.get(&step.key) {
                step.last_used = *at;
                step.used += times;
            }
            step
        };
        known.steps.values().map(now).collect()
    }

    /// Forgets steps, and removes the layers that nobody needs any more.
    pub async fn forget(&self, keys: Vec<String>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.forget_steps(&keys)).await
    }

    /// Writes down which steps were used, and has the disk take what is new. For the end of a build.
    pub async fn settle(&self) -> Result<()> {
        let mut batch = Batch::default();
        {
            let mut known = self.shared.steps();
            let touched = std::mem::take(&mut known.touched);
            for (key, (at, times)) in touched {
                let Some(step) = known.steps.get(&key) else { continue };
                let mut step = Step::clone(step);
                step.last_used = at;
                step.used += times;
                batch.put(&step)?;
                known.steps.insert(key, Arc::new(step));
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.shared.db.commit(batch, Durability::Process).await
    }
}

impl From<Pin> for Held {
    fn from(pin: Pin) -> Self {
        Self {
            inner: Arc::new(Inner::Pinned(pin)),
        }
    }
}

impl Held {
    /// Whether it has no files at all, so that nobody need mount it.
    pub fn is_empty(&self) -> bool {
        /// Of an archive of nothing.
        const NOTHING: u64 = 1024;
        match &*self.inner {
            Inner::Pinned(pin) => pin.layer.size == 0 && pin.layer.tar_size == Some(NOTHING),
            Inner::Sealed(sealed) => sealed.is_empty,
        }
    }

    /// Where its files are, for as long as the answer is held: not longer than it takes to open or mount them.
    pub async fn lend(&self) -> Lent {
        match &*self.inner {
            Inner::Pinned(pin) => Lent {
                path: pin.path(),
                _guard: None,
            },
            Inner::Sealed(sealed) => {
                let guard = Arc::clone(&sealed.path).read_owned().await;
                Lent {
                    path: guard.clone(),
                    _guard: Some(guard),
                }
            }
        }
    }

    /// The layer, once its digest is known.
    pub async fn settled(&self) -> Result<Layer> {
        match &*self.inner {
            Inner::Pinned(pin) => Ok(pin.layer.clone()),
            Inner::Sealed(sealed) => {
                let mut outcome = sealed.outcome.clone();
                let outcome = outcome.wait_for(Option::is_some).await.map_err(|_| Error::Closed)?;
                match outcome.as_ref() {
                    Some(Ok(pin)) => Ok(pin.layer.clone()),
                    Some(Err(error)) => Err(Error::Invalid(error.to_string())),
                    None => Err(Error::Closed),
                }
            }
        }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The paths of layers that have files, in their order.
pub async fn lend_all(layers: &[Held]) -> Vec<Lent> {
    let mut lent = Vec::with_capacity(layers.len());
    for held in layers.iter().filter(|held| !held.is_empty()) {
        lent.push(held.lend().await);
    }
    lent
}

fn open_all<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<Vec<Root>> {
    paths.map(|path| Root::open(path).at("open", path)).collect()
}

/// What goes wrong where a draft is tidied.
enum Tidying {
    Archive(ferry_archive::Error),
    Other(Error),
}

impl From<ferry_archive::Error> for Tidying {
    fn from(error: ferry_archive::Error) -> Self {
        Self::Archive(error)
    }
}

impl Tidying {
    fn of(self, upper: &std::path::Path) -> Error {
        match self {
            Self::Archive(error) => Error::archive("the step's files", upper, error),
            Self::Other(error) => error,
        }
    }
}

/// What it takes to make a layer of a draft.
struct Sealing {
    shared: Arc<Shared>,
    below: Vec<Held>,
    path: Arc<RwLock<PathBuf>>,
    rest: Arc<Mutex<Option<Staging>>>,
}

impl Sealing {
    async fn finish(self, draft: Draft) -> Result<Pin> {
        let hashed = blocking(move || hash(&draft).map(|hashed| (draft, hashed)));
        let (draft, hashed) = hashed.await?;
        let mut diff_ids = Vec::new();
        let mut parent = None;
        for held in &self.below {
            let layer = held.settled().await?;
            diff_ids.push(layer.diff_id);
            parent = Some(layer.chain_id);
        }
        diff_ids.push(hashed.diff_id.clone());
        let layer = Layer {
            chain_id: chain_id(&diff_ids).unwrap_or_else(|| hashed.diff_id.clone()),
            diff_id: hashed.diff_id,
            parent,
            size: hashed.size,
            tar_size: Some(hashed.tar_size),
            opaque: false,
            blob: None,
        };
        // Nobody opens it by its old path from here on.
        let mut path = self.path.write_owned().await;
        let (shared, rest) = (self.shared, self.rest);
        blocking(move || {
            crate::layout::remove_all(&draft.work()).at("remove", &draft.work())?;
            let mut staging = Some(draft.staging);
            let chain = layer.chain_id.clone();
            let missing = || Error::Invalid("a layer was made twice".to_owned());
            let pin = shared
                .layers
                .obtain(&chain, || Ok((staging.take().ok_or_else(missing)?, layer)))?;
            *rest.lock().unwrap_or_else(PoisonError::into_inner) = staging;
            *path = shared.layers.path(&chain);
            Ok(pin)
        })
        .await
    }
}

struct Hashed {
    diff_id: Digest,
    tar_size: u64,
    size: u64,
}

/// Writes the recipe of a draft's tar beside it.
fn hash(draft: &Draft) -> Result<Hashed> {
    let (upper, beside) = (draft.upper(), &draft.staging.path);
    let root = Root::open(&upper).at("open", &upper)?;
    let recorder = Recorder::create(beside, &root).at("write the recipe in", beside)?;
    let options = DiffOptions {
        recorder: Some(recorder.clone()),
        ..DiffOptions::default()
    };
    let wrong = |source| Error::archive("the step's files", &upper, source);
    let written = diff(&root, recorder.record(Aside::default()), &options).map_err(wrong)?;
    for warning in &written.warnings {
        tracing::warn!(path = %warning.path.display(), "{}", warning.what);
    }
    let size = written.size;
    let (diff_id, tar_size) = written.stream.into_inner().finish().at("hash", &upper)?;
    recorder.finish().at("write the recipe in", beside)?;
    Ok(Hashed {
        diff_id,
        tar_size,
        size,
    })
}

impl Shared {
    pub(crate) fn steps(&self) -> MutexGuard<'_, Known> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_steps(&self, keys: &[String]) -> Result<()> {
        let _changing = self.changing();
        let removed: Vec<_> = {
            let mut known = self.steps();
            keys.iter().filter_map(|key| known.remove(key)).collect()
        };
        let index = self.index();
        let held: Vec<_> = removed.iter().flat_map(|step| step.layers.iter().cloned()).collect();
        let gone = self.layers.take(&held, &self.needed(&index));
        let mut batch = Batch::default();
        removed.iter().for_each(|step| batch.delete::<Step>(&step.key));
        gone.iter()
            .for_each(|layer| batch.delete::<layers::Record>(&layer.chain_id.to_string()));
        if let Err(error) = self.db.commit_blocking(batch, Durability::Process) {
            self.layers.keep(gone);
            let mut known = self.steps();
            removed.iter().for_each(|step| known.insert(Step::clone(step)));
            return Err(error);
        }
        self.layers.gone(&gone);
        Ok(())
    }

    /// Steps whose files a power cut may have taken, and those whose layers are not there.
    pub(crate) fn untrue(steps: Vec<Step>, has: impl Fn(&Digest) -> bool) -> (Vec<Step>, Vec<String>) {
        let boot = settling::boot();
        let (kept, dropped): (Vec<_>, Vec<_>) = steps
            .into_iter()
            .partition(|step| (step.boot.is_none() || step.boot == boot) && step.layers.iter().all(&has));
        (kept, dropped.into_iter().map(|step| step.key).collect())
    }
}
