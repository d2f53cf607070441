//! The daemon: settings, sockets, engine, and the order in which they come up and go down.
//!
//! ```text
//! settings ─▶ sockets ─▶ engine (reconciles) ─▶ registry, if any ─▶ serve ──SIGTERM, SIGINT, idle──▶ answers end ─▶ engine closes
//!    ▲                                                              │
//!    └── what may change, read again ◀──────────SIGHUP──────────────┘
//! ```
//! Containers live on in their shims.

mod builder;
mod defaults;
mod file;
mod flags;
mod heap;
mod log;
mod metrics;
mod networks;
mod others;
pub(crate) mod registries;
mod reload;
mod runtimes;
mod service;
mod settings;
mod tls;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use ferry_engine::Engine;
use ferry_server::{Acceptor, Activity, Identity, Listener, Place};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::flags::Flags;
use self::log::Level;
use self::reload::Reloader;
use self::service::{Inherited, Manager};
use self::settings::Settings;
use crate::registry::Site;
use crate::{build, refuse};

/// Two are enough for what never blocks; what blocks has threads that come and go.
const WORKERS: usize = 2;
const BLOCKING: usize = 32;
const STACK: usize = 1 << 20;
/// How long a blocking thread waits for more work before it ends: an engine at rest has none.
const KEEP: Duration = Duration::from_secs(2);

pub fn main(args: &[OsString]) -> ExitCode {
    let flags = match Flags::try_parse_from(std::iter::once(&OsString::from("ferry daemon")).chain(args)) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 1 } else { 0 });
        }
    };
    if flags.version {
        let _ = writeln!(
            std::io::stdout(),
            "Ferry version {}, build {:.12}",
            build::VERSION,
            build::id()
        );
        return ExitCode::SUCCESS;
    }
    let done = Settings::merge(flags.clone(), &variable).and_then(|settings| match flags.validate {
        true => validate(&settings),
        false => run(settings, flags),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("ferry daemon: {error:#}")),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn validate(settings: &Settings) -> Result<()> {
    settings.tls.acceptor(&settings.places)?;
    let _ = writeln!(std::io::stderr(), "configuration OK");
    Ok(())
}

fn run(mut settings: Settings, flags: Flags) -> Result<()> {
    if settings.on_demand {
        // Out of the session of the terminal whose command started it; a leader already has its own.
        let _ = rustix::process::setsid();
    }
    settings.engine.open_files = raise_open_files();
    let level = log::start(settings.log_format, settings.log_level, settings.raw_logs);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .thread_stack_size(STACK)
        .thread_keep_alive(KEEP)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(settings, flags, level))
}

/// A container is some descriptors, and so is a client: as many as are allowed, whatever a shell gives its children. Returns
/// what it was, which containers get.
fn raise_open_files() -> Option<(u64, u64)> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    setrlimit(Resource::Nofile, raised).ok()?;
    Some((before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX)))
}

async fn serve(settings: Settings, flags: Flags, level: Level) -> Result<()> {
    for note in &settings.notes {
        tracing::info!("{note}");
    }
    let acceptor = settings.tls.acceptor(&settings.places)?;
    let listeners = listen(&settings, acceptor.as_ref())?;
    let scraped = settings.metrics.map(metrics::listen).transpose()?;
    let manager = Manager::of_environment();
    let engine = Engine::open(settings.engine.clone()).await?;
    let site = settings.registry.map(|registry| {
        let site = Site::open(registry, &variable);
        site.context("the registry of this engine")
    });
    let site = match site.transpose() {
        Ok(site) => site,
        Err(error) => {
            engine.close().await;
            return Err(error);
        }
    };
    let pidfile = PidFile::write(&settings.pidfile)?;
    let closing = CancellationToken::new();
    let activity = Activity::default();
    tokio::spawn(heap::trim(closing.clone()));
    let reloader = Reloader {
        flags,
        keys: settings.keys,
        level,
        engine: engine.clone(),
        acceptor,
        manager: manager.clone(),
        environment: variable,
    };
    tokio::spawn(on_signal(reloader, closing.clone())?);
    if let Some(limit) = settings.idle_exit {
        tokio::spawn(on_idle(engine.clone(), activity.clone(), limit, closing.clone()));
    }
    let registry = site.map(|site| tokio::spawn(site.run(closing.clone())));
    let scraped = scraped.map(|listener| tokio::spawn(metrics::serve(listener, engine.clone(), closing.clone())));
    let identity = Identity {
        version: build::VERSION.to_owned(),
        build: build::id(),
        on_demand: settings.on_demand,
    };
    let hosts: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    tracing::info!(?hosts, version = build::VERSION, "the engine listens");
    manager.ready();
    let router = ferry_server::router(engine.clone(), identity, closing.clone());
    ferry_server::serve(listeners, router, closing, activity).await;
    manager.stopping();
    for beside in registry.into_iter().chain(scraped) {
        // One that panicked has served for as long as it could.
        let _ = beside.await;
    }
    engine.close().await;
    drop(pidfile);
    tracing::info!("the engine has ended");
    Ok(())
}

/// In the order of the hosts.
fn listen(settings: &Settings, acceptor: Option<&Acceptor>) -> Result<Vec<Listener>> {
    let mut inherited = Inherited::of_environment();
    let mut listeners = Vec::new();
    for place in &settings.places {
        settings.tls.warn(place);
        match place {
            Place::Unix(path) => listeners.push(Listener::unix(path, settings.group.as_deref())?),
            Place::Tcp(address) => listeners.push(Listener::tcp(*address, acceptor.cloned())?),
            Place::Inherited(number) => listeners.extend(inherited.listeners(*number, acceptor)?),
        }
    }
    Ok(listeners)
}

/// Ends the engine, or reads its file again.
fn on_signal(mut reloader: Reloader, closing: CancellationToken) -> Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("listen for signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    // A terminal that goes away is no reason to end.
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reloader.reload().await,
            }
        }
        closing.cancel();
    })
}

/// Ends the engine when nobody was connected and nothing ran for `limit`.
async fn on_idle(engine: Engine, activity: Activity, limit: Duration, closing: CancellationToken) {
    let look = (limit / 10).max(Duration::from_millis(100));
    let mut quiet = Duration::ZERO;
    while quiet < limit {
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            () = closing.cancelled() => return,
        }
        quiet = if engine.is_busy() {
            Duration::ZERO
        } else {
            (quiet + look).min(activity.idle_for())
        };
    }
    tracing::info!("nothing runs and nobody asks: the engine ends");
    closing.cancel();
}

/// The daemon's process id, for those who want to signal it. What keeps two engines apart is the lock of the data root.
#[derive(Debug)]
struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn write(path: &'a Path) -> Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        std::fs::write(path, std::process::id().to_string()).with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        let own = std::process::id().to_string();
        if std::fs::read_to_string(self.0).is_ok_and(|text| text.trim() == own) {
            let _ = std::fs::remove_file(self.0);
        }
    }
}
