//! Builds: what the builder asks of the engine, and what the API asks of builds.
//!
//! ```text
//! <data root>/builds/cache/       cache mounts ([`caches`])
//!                   /index/       what is known of contexts' contents
//!                   /contexts/    what clients sent of their contexts
//!                   /history/     what happened in builds of BuildKit's clients
//! ```
//! All of that can go at any time without a build being wrong. Layers and what is remembered of steps are the store's.

mod agent;
mod cache;
mod caches;
mod collect;
mod export;
mod fetch;
mod kept;
mod layouts;
mod process;
mod repository;
mod workshop;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use ferry_build::cache::{CacheDestination, INLINE_ARGUMENT, Place};
use ferry_build::output::{Kept, Output, OutputKind, Prune};
use ferry_build::progress::Events;
use ferry_build::session::BoxFuture;
use ferry_build::workspace::{Image, Tree};
use ferry_build::{Error, Job, Request, Session, Workspace as _};
use ferry_image::{AnyReference, Platform};
use ferry_kit::Id;
use ferry_sys::Root;
use jiff::Timestamp;

use crate::container::Lines;
use crate::world::World;
pub use kept::prune_of;
use workshop::{Layer, Workshop};

/// The builder of an engine. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Builds {
    world: Arc<World>,
    shared: Arc<workshop::Shared>,
}

/// What a build came to. As long as a clone is held, its files stay, and other builds can name it
/// ([`ferry_build::request::Named::Result`]).
#[derive(Debug, Clone)]
pub struct Solved {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    id: String,
    config: Vec<u8>,
    image: ferry_build::frontend::config::ImageConfig,
    tree: Tree<Layer>,
    /// What other builds know its files by.
    identity: String,
    epoch: Option<Timestamp>,
    /// Of the steps that were looked at.
    keys: Vec<String>,
    imported: Arc<OnceLock<cache::Imported>>,
    /// A build argument asks for a cache in the image.
    is_inline: bool,
    answers: BTreeMap<String, Vec<u8>>,
}

impl Solved {
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The image's configuration as JSON, without what only an export adds: its layers.
    pub fn config(&self) -> &[u8] {
        &self.inner.config
    }

    /// Of a call ([`ferry_build::request::Call`]): `result.json`, `result.txt`, `result.statuscode`, `version`.
    pub fn answers(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.inner.answers
    }
}

impl Builds {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self {
            world,
            shared: Arc::default(),
        }
    }

    /// What one build works with.
    fn shop(&self) -> Workshop {
        Workshop {
            world: Arc::clone(&self.world),
            shared: Arc::clone(&self.shared),
            lines: Arc::new(Lines::new(&self.world)),
            imported: Arc::default(),
            brought: Arc::default(),
        }
    }

    /// Builds. Dropped, the build is canceled, and its processes end. What happens is told to `events`, the last event before this
    /// returns.
    pub fn solve(
        &self,
        request: Request,
        session: Arc<dyn Session>,
        events: Events,
    ) -> BoxFuture<'_, Result<Solved, Error>> {
        Box::pin(async move {
            self.check_entitlements(&request)?;
            let call = request.call;
            let job = Job {
                request: Arc::new(request),
                session: Arc::clone(&session),
                workspace: self.shop(),
                events,
            };
            if let Some(call) = call {
                let answers = ferry_build::answer(&job, call).await?;
                return Ok(self.keep(Inner {
                    id: Id::random().to_string(),
                    answers,
                    ..Inner::default()
                }));
            }
            if job.request.cache_from.len() > cache::MOST {
                let most = cache::MOST;
                return Err(Error::invalid(format!(
                    "--cache-from: a build has at most {most} caches"
                )));
            }
            let building = async {
                let (plan, ()) = tokio::try_join!(ferry_build::plan(&job), import(&job))?;
                let solution = ferry_build::solve(&job, &plan).await?;
                Ok::<_, Error>((plan, solution))
            };
            let (plan, solution) = tokio::select! {
                built = building => built?,
                () = session.gone() => return Err(Error::Canceled),
            };
            if let Some(imported) = job.workspace.imported.get() {
                cache::keep(&job.workspace, imported, &solution.keys).await;
            }
            collect::later(&self.world, &self.shared);
            if let Err(error) = self.world.store.steps.settle().await {
                tracing::warn!(%error, "cannot note which steps were used");
            }
            let unfinished = plan.image.finish(&[], &[], plan.epoch.unwrap_or_default());
            Ok(self.keep(Inner {
                id: Id::random().to_string(),
                config: unfinished.map_err(|error| Error::internal("write the image's configuration", &error))?,
                image: plan.image,
                tree: solution.tree,
                identity: solution.identity,
                epoch: plan.epoch,
                keys: solution.keys,
                imported: job.workspace.imported,
                is_inline: job
                    .request
                    .build_args
                    .get(INLINE_ARGUMENT)
                    .is_some_and(|value| is_true(value)),
                answers: BTreeMap::new(),
            }))
        })
    }

    /// A client may allow a build only what the daemon's configuration grants, as with dockerd.
    fn check_entitlements(&self, request: &Request) -> Result<(), Error> {
        let (asked, granted) = (&request.entitlements, &self.world.config.builds);
        let refused = match () {
            () if asked.network_host && !granted.network_host => "network.host",
            () if asked.security_insecure && !granted.security_insecure => "security.insecure",
            () if asked.device && !granted.device => "device",
            () => return Ok(()),
        };
        let key = refused.replace('.', "-");
        Err(Error::invalid(format!(
            "granting entitlement {refused} is not allowed by build daemon configuration: set \"{key}\" of \
             \"builder.entitlements\" in daemon.json"
        )))
    }

    /// A result's files.
    pub fn view<'a>(&'a self, solved: &'a Solved) -> BoxFuture<'a, Result<Root, Error>> {
        Box::pin(async move { self.shop().view(&solved.inner.tree).await })
    }

    /// An image as a build would find it; without a platform, the engine's own.
    pub fn image<'a>(
        &'a self,
        name: &'a str,
        platform: Option<Platform>,
        pull: bool,
        session: &'a Arc<dyn Session>,
        events: &'a Events,
    ) -> BoxFuture<'a, Result<Image, Error>> {
        Box::pin(async move {
            let name = match name.parse() {
                Ok(AnyReference::Name(reference)) => reference.tagged().to_string(),
                Ok(AnyReference::Id(id)) => id.to_string(),
                Err(error) => return Err(Error::invalid(format!("{name}: {error}"))),
            };
            let shop = self.shop();
            let platform = platform.unwrap_or_else(|| shop.platform());
            shop.find_image(&name, &platform, pull, session, events).await
        })
    }

    /// Lets other builds name a result, as long as somebody holds it.
    fn keep(&self, inner: Inner) -> Solved {
        let inner = Arc::new(inner);
        let mut results = self.shared.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.retain(|_, result| result.strong_count() > 0);
        results.insert(inner.id.clone(), Arc::downgrade(&inner));
        drop(results);
        Solved { inner }
    }

    /// Makes something of a result. Returns what clients are told: `containerimage.digest`, `containerimage.config.digest`, `image.name`, …
    pub fn export<'a>(
        &'a self,
        solved: &'a Solved,
        outputs: &'a [Output],
        caches: &'a [CacheDestination],
        session: Arc<dyn Session>,
        events: Events,
    ) -> BoxFuture<'a, Result<BTreeMap<String, String>, Error>> {
        Box::pin(async move {
            let (shop, solved) = (self.shop(), &solved.inner);
            let is_inline = caches.iter().any(|cache| cache.place == Place::Inline);
            let is_image =
                |output: &Output| matches!(output.kind, OutputKind::Image | OutputKind::Docker | OutputKind::Oci);
            if is_inline && !outputs.iter().any(is_image) {
                return Err(Error::invalid(
                    "--cache-to type=inline: nothing of this build is an image: add an output that is, or use type=registry",
                ));
            }
            let is_inline = is_inline || solved.is_inline;
            let mut told = BTreeMap::new();
            for (number, output) in outputs.iter().enumerate() {
                let exporting = export::export(&shop, solved, number, output, is_inline, &session, &events);
                told.extend(exporting.await?);
            }
            for destination in caches {
                told.extend(cache::export(&shop, solved, destination, &session, &events).await?);
            }
            Ok(told)
        })
    }

    /// A directory for what a client sends; it goes with who holds it.
    pub async fn draft(&self) -> Result<impl ferry_build::workspace::Draft + use<>, Error> {
        self.shop().draft().await
    }

    /// Where files lie that clients send of a context.
    pub fn contexts_dir(&self) -> Result<PathBuf, Error> {
        dir(&self.world, "contexts")
    }

    /// Where is written what happened in builds.
    pub fn history_dir(&self) -> Result<PathBuf, Error> {
        dir(&self.world, "history")
    }

    /// What is kept of builds, and matches ([`Prune::filters`]).
    pub fn usage<'a>(&'a self, filters: &'a [String]) -> BoxFuture<'a, Result<Vec<Kept>, Error>> {
        Box::pin(async move { kept::usage(&self.world, &self.shared, filters).await })
    }

    /// Removes some of that; what went.
    pub fn prune(&self, prune: Prune) -> BoxFuture<'_, Result<Vec<Kept>, Error>> {
        Box::pin(async move { kept::prune(&self.world, &self.shared, prune).await })
    }
}

/// Looks at the caches a build may take from.
fn import(job: &Job<Workshop>) -> BoxFuture<'_, Result<(), Error>> {
    Box::pin(async move {
        let (request, shop) = (&job.request, &job.workspace);
        if request.cache_from.is_empty() {
            return Ok(());
        }
        if request.cache_from.len() > cache::MOST {
            let most = cache::MOST;
            return Err(Error::invalid(format!(
                "--cache-from: a build has at most {most} caches"
            )));
        }
        let platform = request.platform.clone().unwrap_or_else(|| shop.platform());
        let imported = cache::import(shop, &request.cache_from, &platform, &job.session, &job.events).await;
        let _ = shop.imported.set(imported);
        Ok(())
    })
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// One of the builder's own directories.
fn dir(world: &World, name: &str) -> Result<PathBuf, Error> {
    let dir = world.store.root().join("builds").join(name);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|error| Error::internal(format!("make {}", dir.display()), &error))?;
    Ok(dir)
}
