//! A registry that is served: opened first, which can fail, then run to its end. Alone or in the daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ferry_registry::{
    Acceptor, Auth, Backend as _, Caching, Collection, FileSystem, FileSystemOptions, Limits, Listener, Metrics,
    PROTOCOLS, Registry, control, metrics_router, router, secret, serve,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::settings::Settings;
use super::upstream;

/// A registry whose directory and ports are its own.
#[derive(Debug)]
pub struct Site {
    registry: Registry<FileSystem>,
    storage: FileSystem,
    listeners: Vec<Listener>,
    metrics: Option<Listener>,
    limits: Limits,
    collection: Collection,
    interval: Option<Duration>,
}

impl Site {
    pub fn open(settings: Settings, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let storage = open(&settings.root, settings.storage.clone())?;
        let auth = match &settings.auth {
            None => Auth::open(),
            Some(auth) => {
                let key = settings.root.join("secret");
                let key = secret(&key).with_context(|| format!("read {}", key.display()))?;
                Auth::new(auth, &key)?
            }
        };
        let caching = Caching {
            places: upstream::places(&settings.upstreams, &settings.upstream_except, environment)?,
            ttl: settings.upstream_ttl,
            size: settings.cache_size,
            ..Caching::default()
        };
        let tls = settings.tls.as_ref();
        let tls = tls.map(|files| Acceptor::read(files, PROTOCOLS)).transpose()?;
        let listen = |address, tls| Listener::bind(address, tls).with_context(|| format!("listen on {address}"));
        let mut listeners = Vec::new();
        for address in &settings.listen {
            let listener = listen(*address, tls.clone())?;
            if settings.auth.is_none() && !address.ip().is_loopback() && !settings.options.read_only {
                tracing::warn!(%address, "everybody who reaches this port can push: set --htpasswd or rights");
            }
            listeners.push(listener);
        }
        let metrics = settings
            .metrics_listen
            .map(|address| listen(address, None))
            .transpose()?;
        // Nothing can fail from here on.
        for given in &settings.upstreams {
            tracing::info!(name = given.name, url = given.url, "the registry is a cache");
        }
        for listener in &listeners {
            let address = listener.address().context("read the port that was given")?;
            tracing::info!(%address, tls = tls.is_some(), root = %settings.root.display(), "the registry listens");
        }
        Ok(Self {
            registry: Registry::with_upstreams(storage.clone(), auth, settings.options, caching),
            storage,
            listeners,
            metrics,
            limits: settings.limits,
            collection: settings.collection,
            interval: settings.interval,
        })
    }

    /// Until `shutdown`; answers under way end.
    pub async fn run(self, shutdown: CancellationToken) {
        let metrics = self.registry.metrics();
        let mut tasks = JoinSet::new();
        if let Some(listener) = self.metrics {
            let (limits, router) = (self.limits.clone(), metrics_router(metrics.clone()));
            tasks.spawn(serve(vec![listener], router, limits, metrics.clone(), shutdown.clone()));
        }
        if let Some(interval) = self.interval {
            tasks.spawn(collect_often(
                self.storage.clone(),
                self.collection,
                interval,
                metrics.clone(),
                shutdown.clone(),
            ));
        }
        let (registry, until) = (self.registry.clone(), shutdown.clone());
        tasks.spawn(async move { registry.keep_within(until).await });
        let controlled = control::listen(self.storage, metrics.clone(), shutdown.clone());
        tasks.spawn(async move {
            if let Err(error) = controlled.await {
                tracing::error!(%error, "`ferry registry gc` does not reach this server");
            }
        });
        serve(self.listeners, router(self.registry), self.limits, metrics, shutdown).await;
        while tasks.join_next().await.is_some() {}
        tracing::info!("the registry has ended");
    }
}

fn open(root: &Path, options: FileSystemOptions) -> Result<FileSystem> {
    FileSystem::open(root, options).with_context(|| format!("open {}", root.display()))
}

async fn collect_often(
    storage: FileSystem,
    collection: Collection,
    interval: Duration,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shutdown.cancelled() => return,
        }
        match storage.collect(collection.clone()).await {
            Ok(collected) => {
                metrics.collected(&collected);
                tracing::info!(?collected, "collected");
            }
            Err(error) => tracing::error!(cause = ?std::error::Error::source(&error), "{error}"),
        }
    }
}
