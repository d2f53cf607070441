//! What a reload of the daemon's settings changes: read anew by whoever needs it, replaced as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use ferry_api::events::kind;
use tokio::sync::Semaphore;

use crate::config::{Config, Defaults, Registries, Reload, Runtimes};
use crate::error::Result;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Live(RwLock<Arc<Settings>>);

/// What is under way keeps those it began with.
#[derive(Debug)]
pub(crate) struct Settings {
    pub debug: bool,
    /// Of the daemon, for `info`.
    pub labels: Vec<String>,
    pub containers: Defaults,
    pub runtimes: Runtimes,
    pub registries: Registries,
    /// The client of registries.
    pub client: ferry_distribution::Client,
    /// One permit a layer that is being fetched.
    pub downloads: Arc<Semaphore>,
    /// One permit a layer that is being sent.
    pub uploads: Arc<Semaphore>,
}

impl Live {
    pub fn new(config: &Config) -> Result<Self> {
        let registries = config.registries.clone();
        Ok(Self(RwLock::new(Arc::new(Settings {
            debug: config.debug,
            labels: config.labels.clone(),
            containers: config.containers.clone(),
            runtimes: config.runtimes.clone(),
            client: ferry_distribution::Client::new(registries.client.clone())?,
            downloads: Arc::new(Semaphore::new(registries.downloads)),
            uploads: Arc::new(Semaphore::new(registries.uploads)),
            registries,
        }))))
    }

    pub fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, reload: Reload) -> Result<()> {
        let before = self.get();
        let registries = reload.registries;
        // One that stays as it is keeps those who wait for it.
        let permits = |same: bool, kept: &Arc<Semaphore>, count: usize| match same {
            true => Arc::clone(kept),
            false => Arc::new(Semaphore::new(count)),
        };
        let (down, up) = (registries.downloads, registries.uploads);
        let settings = Settings {
            debug: reload.debug,
            labels: reload.labels,
            containers: reload.containers,
            runtimes: reload.runtimes,
            client: ferry_distribution::Client::new(registries.client.clone())?,
            downloads: permits(down == before.registries.downloads, &before.downloads, down),
            uploads: permits(up == before.registries.uploads, &before.uploads, up),
            registries,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        Ok(())
    }
}

/// Takes the new settings, and says so to those who listen, with the attributes of dockerd's event.
pub(crate) fn reload(world: &World, reload: Reload) -> Result<()> {
    let mut attributes = reload.more.clone();
    attributes.extend(attributes_of(&reload));
    attributes.insert("name".to_owned(), world.host.hostname.clone());
    world.live.set(reload)?;
    world
        .events
        .publish(kind::DAEMON, "reload", world.networks.engine_id(), attributes);
    Ok(())
}

fn attributes_of(reload: &Reload) -> BTreeMap<String, String> {
    let list = |list: Vec<String>| serde_json::to_string(&list).unwrap_or_default();
    let client = &reload.registries.client;
    let mirrors = client.mirrors.iter().filter(|mirror| mirror.domain == "docker.io");
    let known = reload.runtimes.known.iter();
    let runtimes: Vec<String> = known
        .map(|(name, runtime)| format!("{name}:{}", runtime.path.display()))
        .collect();
    [
        ("debug", reload.debug.to_string()),
        ("labels", list(reload.labels.clone())),
        ("insecure-registries", list(client.insecure.clone())),
        (
            "registry-mirrors",
            list(mirrors.map(|mirror| mirror.url.to_string()).collect()),
        ),
        ("max-concurrent-downloads", reload.registries.downloads.to_string()),
        ("max-concurrent-uploads", reload.registries.uploads.to_string()),
        ("max-download-attempts", client.limits.attempts.to_string()),
        ("default-shm-size", reload.containers.shm_size.to_string()),
        ("default-ipc-mode", reload.containers.ipc.clone()),
        (
            "default-cgroupns-mode",
            reload.containers.cgroupns.clone().unwrap_or_default(),
        ),
        ("default-runtime", reload.runtimes.default.clone()),
        ("runtimes", runtimes.join(" ")),
        ("live-restore", "true".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
