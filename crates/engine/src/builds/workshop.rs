//! What the builder works with: the store's layers, and processes in containers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use ferry_build::frontend::Sent;
use ferry_build::graph::{Exec, Git, Http};
use ferry_build::progress::{Event, Events, Status};
use ferry_build::request::Layout;
use ferry_build::workspace::{self, Earlier, Ended, Fetched, Image, Known, Made, Recalled, Run, Tree};
use ferry_build::{Error, Result, Session, Workspace};
use ferry_distribution::Credentials;
use ferry_image::{AnyReference, Digest, Platform};
use ferry_storage::{Built, Held, Step};
use ferry_sys::Root;
use ferry_sys::overlay::Overlay;
use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use super::{Solved, process};
use crate::container::Lines;
use crate::images::{Images, LayerState, PullRequest, Reporter, Step as Pulling};
use crate::world::World;

/// What a build works with. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub(super) struct Workshop {
    pub world: Arc<World>,
    pub shared: Arc<Shared>,
    pub lines: Arc<Lines>,
    /// Layers of images that are not the engine's, by the image.
    pub brought: Arc<Mutex<HashMap<Digest, Vec<Layer>>>>,
    /// Of this build alone.
    pub imported: Arc<OnceLock<super::cache::Imported>>,
}

/// What all builds of an engine share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Steps that are being made, by key.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Results that somebody holds, by id.
    pub results: Mutex<HashMap<String, Weak<super::Inner>>>,
    pub caches: super::caches::Caches,
    pub collector: Arc<super::collect::Collector>,
    pub sizes: super::kept::Sizes,
}

/// A layer, and when it was made.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub held: Held,
    pub created: Option<Timestamp>,
}

impl workspace::Layer for Layer {
    fn created(&self) -> Option<Timestamp> {
        self.created
    }

    async fn name(&self) -> Result<String> {
        let settled = self.held.settled().await.map_err(failed("make a layer"))?;
        Ok(settled.chain_id.to_string())
    }
}

#[derive(Debug)]
pub(super) struct Draft {
    pub draft: ferry_storage::Draft,
    root: Root,
}

impl workspace::Draft for Draft {
    fn root(&self) -> &Root {
        &self.root
    }
}

pub(super) fn failed(what: &str) -> impl FnOnce(ferry_storage::Error) -> Error {
    move |error| match error {
        ferry_storage::Error::NoSpace { .. } => Error::Internal(crate::error::chain(&error)),
        error => Error::internal(what, &error),
    }
}

impl Workshop {
    fn held(tree: &Tree<Layer>) -> Vec<Held> {
        tree.layers.iter().map(|layer| layer.held.clone()).collect()
    }

    fn now(held: Held) -> Layer {
        Layer {
            held,
            created: Some(Timestamp::now()),
        }
    }

    pub fn solved(&self, id: &str) -> Option<Solved> {
        let results = self.shared.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.get(id)?.upgrade().map(|inner| Solved { inner })
    }

    async fn pull(
        &self,
        name: &str,
        platform: &Platform,
        session: &Arc<dyn Session>,
        events: &Events,
        vertex: &str,
    ) -> Result<()> {
        let reference = crate::images::parse_reference(name).map_err(|error| Error::invalid(error.message))?;
        let credentials = credentials(session, reference.domain()).await?;
        let request = PullRequest {
            reference: reference.tagged(),
            platform: Some(platform.clone()),
            credentials,
        };
        let (reporter, telling) = reporting(events, vertex);
        let pulled = Images::new(Arc::clone(&self.world)).pull(request, &reporter).await;
        drop(reporter);
        let _ = telling.await;
        pulled.map_err(|error| Error::NotFound(error.message))
    }
}

/// What the client has for a registry.
pub(super) async fn credentials(session: &Arc<dyn Session>, host: &str) -> Result<Credentials> {
    Ok(match session.credentials(host).await? {
        Some((username, token)) if username.is_empty() => Credentials::Identity { username, token },
        Some((username, password)) => Credentials::Basic { username, password },
        None => Credentials::Anonymous,
    })
}

/// Tells how layers come along, until the reporter is dropped.
pub(super) fn reporting(events: &Events, vertex: &str) -> (Reporter, JoinHandle<()>) {
    let (reporter, mut steps) = Reporter::new();
    let (events, vertex) = (events.clone(), vertex.to_owned());
    let telling = tokio::spawn(async move {
        while let Some(step) = steps.recv().await {
            if let Pulling::Layer { id, state } = step {
                tell(&events, &vertex, &id, &state);
            }
        }
    });
    (reporter, telling)
}

/// How a layer of a base image comes along.
fn tell(events: &Events, vertex: &str, id: &str, state: &LayerState) {
    let (current, total, done) = match state {
        LayerState::Fetching { current, total } => (*current, *total, false),
        LayerState::Unpacked | LayerState::Exists => (0, 0, true),
        _ => return,
    };
    events.send(Event::Status(Status {
        vertex: vertex.to_owned(),
        id: id.to_owned(),
        current,
        total,
        started: Some(Timestamp::now()),
        completed: done.then(Timestamp::now),
    }));
}

impl Workspace for Workshop {
    type Layer = Layer;
    type Draft = Draft;
    type Turn = OwnedMutexGuard<()>;

    fn platform(&self) -> Platform {
        Platform::host()
    }

    async fn find_image(
        &self,
        name: &str,
        platform: &Platform,
        pull: bool,
        session: &Arc<dyn Session>,
        events: &Events,
    ) -> Result<Image> {
        let local = |name: &str| {
            let found = crate::images::find(&self.world, name).ok()?;
            platform.matches(&crate::images::platform(&found)).then_some(found)
        };
        let is_id = matches!(name.parse::<AnyReference>(), Ok(AnyReference::Id(_)));
        let found = match local(name).filter(|_| !pull || is_id) {
            Some(found) => found,
            None => {
                self.pull(name, platform, session, events, "").await?;
                let missing = || Error::NotFound(format!("{name}: not found"));
                crate::images::find(&self.world, name).map_err(|_| missing())?
            }
        };
        let digest = crate::images::repo_digests(&found);
        let digest = digest
            .iter()
            .find_map(|named| named.split_once('@').map(|(_, digest)| digest));
        Ok(Image {
            name: match digest {
                Some(digest) if !is_id && !name.contains('@') => format!("{name}@{digest}"),
                _ => name.to_owned(),
            },
            id: found.id.clone(),
            config: found.raw_config.clone(),
            platform: crate::images::platform(&found),
            layers: found.layers.iter().map(|layer| layer.chain_id.clone()).collect(),
        })
    }

    async fn find_layout(
        &self,
        name: &str,
        layout: &Layout,
        platform: &Platform,
        session: &Arc<dyn Session>,
        told: (&Events, &str),
    ) -> Result<Image> {
        super::layouts::find(self, name, layout, platform, session, told).await
    }

    fn image(&self, image: &Image) -> Result<Tree<Layer>> {
        let brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layers) = brought.get(&image.id) {
            return Ok(Tree { layers: layers.clone() });
        }
        drop(brought);
        let missing = || Error::NotFound(format!("the image {} was removed", image.name));
        let found = self.world.store.images.get(&image.id).ok_or_else(missing)?;
        let held = self.world.store.steps.image(&found).map_err(|_| missing())?;
        let layers = held.into_iter().map(|held| Layer { held, created: None });
        Ok(Tree {
            layers: layers.collect(),
        })
    }

    fn result(&self, id: &str) -> Option<(Tree<Layer>, String)> {
        let inner = self.solved(id)?.inner;
        Some((inner.tree.clone(), inner.identity.clone()))
    }

    fn result_config(&self, id: &str) -> Option<Vec<u8>> {
        self.solved(id).map(|solved| solved.inner.config.clone())
    }

    async fn fetch_context(&self, url: &str, session: &Arc<dyn Session>) -> Result<Sent> {
        super::fetch::context(self, url, session).await
    }

    async fn fetch_file(&self, http: &Http, session: &Arc<dyn Session>) -> Result<Fetched<Self>> {
        super::fetch::file(self, http, session).await
    }

    async fn fetch_git(&self, git: &Git, session: &Arc<dyn Session>) -> Result<Fetched<Self>> {
        super::fetch::git(self, git, session).await
    }

    async fn draft(&self) -> Result<Draft> {
        let steps = self.world.store.steps.clone();
        let draft = tokio::task::spawn_blocking(move || {
            let draft = steps.draft().map_err(failed("make a directory for a layer"))?;
            let root = Root::open(&draft.upper());
            let root = root.map_err(|error| Error::internal("open a directory for a layer", &error))?;
            Ok(Draft { draft, root })
        });
        draft
            .await
            .map_err(|error| Error::internal("make a directory for a layer", &error))?
    }

    async fn seal(
        &self,
        draft: Draft,
        below: &Tree<Layer>,
        made: Vec<PathBuf>,
        latest: Option<Timestamp>,
    ) -> Result<Layer> {
        let below = Self::held(below);
        let sealed = self.world.store.steps.seal(draft.draft, &below, made, latest).await;
        sealed.map(Self::now).map_err(failed("make a layer"))
    }

    async fn rebase(&self, layer: &Layer, below: &Tree<Layer>) -> Result<Layer> {
        let below = Self::held(below);
        let rebased = self.world.store.steps.rebase(&layer.held, &below).await;
        let held = rebased.map_err(failed("put a layer on top of others"))?;
        Ok(Layer {
            held,
            created: layer.created,
        })
    }

    fn layer(&self, name: &str) -> Option<Layer> {
        let held = self.world.store.steps.hold(&name.parse().ok()?)?;
        Some(Layer { held, created: None })
    }

    async fn view(&self, tree: &Tree<Layer>) -> Result<Root> {
        let lent = ferry_storage::lend_all(&Self::held(tree)).await;
        let empty = self.world.store.empty_dir();
        let viewed = tokio::task::spawn_blocking(move || {
            let lower: Vec<PathBuf> = lent.iter().rev().map(|lent| lent.path.clone()).collect();
            let root = match lower.as_slice() {
                [] => Root::open(&empty),
                // An overlay has at least two.
                [only] => Root::open(only),
                lower => {
                    let overlay = Overlay {
                        lower,
                        upper: None,
                        volatile: false,
                        idmap: None,
                    };
                    overlay.mount_from_threads().map(|mount| Root::from_fd(mount.into_fd()))
                }
            };
            drop(lent);
            root
        });
        let root = viewed
            .await
            .map_err(|error| Error::internal("look at layers", &error))?;
        root.map_err(|error| Error::internal("look at layers", &error))
    }

    fn index(&self, key: &str) -> Option<PathBuf> {
        let dir = super::dir(&self.world, "index").ok()?;
        Some(dir.join(Digest::of(key).encoded()))
    }

    async fn run(&self, run: Run<'_, Self>) -> Result<Ended> {
        process::run(self, run).await
    }

    async fn keep_failed(&self, draft: Draft, below: &Tree<Layer>, exec: &Exec, made: Vec<PathBuf>) -> Result<Digest> {
        let mut held = Self::held(below);
        held.push(self.seal(draft, below, made, None).await?.held);
        let mut diff_ids = Vec::new();
        for held in &held {
            diff_ids.push(
                held.settled()
                    .await
                    .map_err(failed("make a layer"))?
                    .diff_id
                    .to_string(),
            );
        }
        let image = ferry_build::frontend::config::ImageConfig::of_process(exec, &self.platform());
        let config = image.finish(&diff_ids, &[], Timestamp::now());
        let config = config.map_err(|error| Error::internal("write the image's configuration", &error))?;
        let built = Built {
            config,
            references: Vec::new(),
        };
        let loaded = self.world.store.steps.record(built, &held).await;
        Ok(loaded
            .map_err(failed("keep the files of a step that failed"))?
            .image
            .id
            .clone())
    }

    fn earlier(&self, place: &str) -> Vec<Earlier> {
        let steps = self.world.store.steps.all().into_iter();
        let alike = steps.filter(|step| step.description.starts_with(place));
        let earlier = alike.map(|step| Earlier {
            description: step.description,
            made_of: step.made_of,
            created: step.created,
        });
        earlier.collect()
    }

    fn recall(&self, key: &str) -> Option<Recalled<Layer>> {
        let Some((step, held)) = self.world.store.steps.recall(key) else {
            return self.imported.get()?.recall(key);
        };
        let times = step.times.iter().copied().chain(std::iter::repeat(None));
        let layers = held.into_iter().zip(times);
        Some(Recalled {
            files: Known::Here(Tree {
                layers: layers.map(|(held, created)| Layer { held, created }).collect(),
            }),
            identity: match step.identity.as_str() {
                "" => step.key.clone(),
                identity => identity.to_owned(),
            },
        })
    }

    async fn obtain(&self, key: &str, vertex: &str, events: &Events) -> Option<Tree<Layer>> {
        super::cache::obtain(self, self.imported.get()?, key, vertex, events).await
    }

    async fn turn(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            match turns.get(key).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    let turn = Arc::default();
                    turns.insert(key.to_owned(), Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }

    async fn remember(&self, made: Made, tree: &Tree<Layer>) -> Result<()> {
        let step = Step {
            key: made.key,
            identity: made.identity,
            aliases: made.aliases,
            parents: made.parents,
            made_of: made.made_of,
            kind: made.kind.to_owned(),
            description: made.description,
            times: tree.layers.iter().map(|layer| layer.created).collect(),
            ..Step::default()
        };
        let held = Self::held(tree);
        let remembered = self.world.store.steps.remember(step, &held).await;
        remembered.map_err(failed("write down what a step made"))
    }

    async fn alias(&self, key: &str, alias: &str) -> Result<()> {
        let noted = self.world.store.steps.alias(key, alias).await;
        noted.map_err(failed("write down what a step is known by"))
    }
}
