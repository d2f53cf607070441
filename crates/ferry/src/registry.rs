//! `ferry registry serve` and `ferry registry gc`; the daemon mounts the same [`Site`].
//!
//! ```text
//! settings ─▶ directory (lock) ─▶ ports ─▶ collector, control socket, serve ──SIGTERM, SIGINT──▶ answers end
//! ```

mod flags;
mod log;
mod settings;
mod site;
mod upstream;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use ferry_registry::{Backend as _, Collected, FileSystem, FileSystemOptions, control};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::flags::Serve;
use self::flags::{Command, Flags, Gc};
pub use self::settings::{File, Settings};
pub use self::site::Site;
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
    let site = Site::open(settings, &|name| std::env::var(name).ok())?;
    site.run(shutdown).await;
    Ok(())
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
