//! `ferry registry serve` and `ferry registry gc`.
//!
//! ```text
//! settings ─▶ directory (lock) ─▶ ports ─▶ collector, control socket, serve ──SIGTERM, SIGINT──▶ answers end
//! ```

mod flags;
mod log;
mod settings;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use ferry_registry::{
    Acceptor, Auth, Backend as _, Collected, Collection, FileSystem, FileSystemOptions, Listener, Metrics, Registry,
    control, metrics_router, router, secret, serve,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::flags::{Command, Flags, Gc};
use self::settings::Settings;
use crate::refuse;

const BLOCKING: usize = 64;
const KEEP: Duration = Duration::from_secs(10);

pub fn main(args: &[OsString]) -> ExitCode {
    let flags = match Flags::try_parse_from(std::iter::once(&OsString::from("ferry registry")).chain(args)) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 1 } else { 0 });
        }
    };
    let done = match flags.command {
        Command::Serve(flags) => Settings::merge(*flags).and_then(run),
        Command::Gc(gc) => collect(&gc),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("ferry registry: {error:#}")),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEEP)
        .enable_all()
        .build()
        .context("start the runtime")
}

fn run(settings: Settings) -> Result<()> {
    let output = log::start(settings.log_level);
    let served = runtime()?.block_on(serve_until_signal(settings));
    output.flush();
    served
}

async fn serve_until_signal(settings: Settings) -> Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(on_signal(shutdown.clone())?);
    let storage = open(&settings.root, settings.storage.clone())?;
    let auth = match &settings.auth {
        None => Auth::open(),
        Some(auth) => {
            let key = settings.root.join("secret");
            let key = secret(&key).with_context(|| format!("read {}", key.display()))?;
            Auth::new(auth, &key)?
        }
    };
    let tls = settings.tls.as_ref().map(Acceptor::read).transpose()?;
    let listen = |address, tls| Listener::bind(address, tls).with_context(|| format!("listen on {address}"));
    let mut listeners = Vec::new();
    for address in &settings.listen {
        listeners.push(listen(*address, tls.clone())?);
        if settings.auth.is_none() && !address.ip().is_loopback() && !settings.options.read_only {
            tracing::warn!(%address, "everybody who reaches this port can push: set --htpasswd or rights");
        }
    }
    let registry = Registry::new(storage.clone(), auth, settings.options.clone());
    let metrics = registry.metrics();
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(address) = settings.metrics_listen {
        let (limits, router) = (settings.limits.clone(), metrics_router(metrics.clone()));
        tasks.spawn(serve(
            vec![listen(address, None)?],
            router,
            limits,
            metrics.clone(),
            shutdown.clone(),
        ));
    }
    if let Some(interval) = settings.interval {
        let (storage, collection) = (storage.clone(), settings.collection.clone());
        tasks.spawn(collect_often(
            storage,
            collection,
            interval,
            metrics.clone(),
            shutdown.clone(),
        ));
    }
    let controlled = control::listen(storage, metrics.clone(), shutdown.clone());
    tasks.spawn(async move {
        if let Err(error) = controlled.await {
            tracing::error!(%error, "`ferry registry gc` does not reach this server");
        }
    });
    for listener in &listeners {
        let address = listener.address().context("read the port that was given")?;
        tracing::info!(%address, tls = tls.is_some(), root = %settings.root.display(), "the registry listens");
    }
    serve(listeners, router(registry), settings.limits, metrics, shutdown.clone()).await;
    while tasks.join_next().await.is_some() {}
    tracing::info!("the registry has ended");
    Ok(())
}

fn open(root: &std::path::Path, options: FileSystemOptions) -> Result<FileSystem> {
    FileSystem::open(root, options).with_context(|| format!("open {}", root.display()))
}

async fn collect_often(
    storage: FileSystem,
    collection: Collection,
    interval: Duration,
    metrics: std::sync::Arc<Metrics>,
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

fn on_signal(shutdown: CancellationToken) -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("listen for signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}

/// By the server that has the directory, or by this process where there is none.
fn collect(gc: &Gc) -> Result<()> {
    let collection = gc.collection()?;
    anyhow::ensure!(
        gc.root.join("repositories").is_dir(),
        "{} is no registry's directory",
        gc.root.display()
    );
    let options = FileSystemOptions {
        grace: collection.grace,
        ..FileSystemOptions::default()
    };
    let collected = match FileSystem::open(&gc.root, options) {
        Ok(storage) => runtime()?.block_on(storage.collect(collection)).context("collect")?,
        Err(ferry_registry::Error::Storage { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
            let socket = control::socket(&gc.root);
            control::ask(&gc.root, &collection).with_context(|| {
                format!(
                    "ask the server that uses {}, at {}",
                    gc.root.display(),
                    socket.display()
                )
            })?
        }
        Err(error) => return Err(error).with_context(|| format!("open {}", gc.root.display())),
    };
    let _ = writeln!(std::io::stdout(), "{}", told(&collected, gc.dry_run));
    Ok(())
}

fn told(collected: &Collected, dry_run: bool) -> String {
    let Collected {
        manifests,
        links,
        blobs,
        bytes,
        uploads,
        repositories,
        unreadable,
    } = collected;
    let mut text = format!(
        "{} {blobs} blobs and manifests of {bytes} bytes ({manifests} manifests without a tag, {links} links to blobs that no \
         manifest names, {repositories} empty repositories), and {uploads} expired uploads",
        if dry_run { "would remove" } else { "removed" },
    );
    if *unreadable > 0 {
        text.push_str(&format!(
            "\n{unreadable} manifests cannot be read: nothing was taken from their repositories, and the server's log names them"
        ));
    }
    text
}
