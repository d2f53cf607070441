//! Puts back what somebody else flushed or removed, containers' limits too, and keeps containers passing where another firewall
//! begins to drop.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ferry_network::Fabric;
use tokio::io::unix::AsyncFd;

use super::failure::run;
use crate::error::chain;

/// Who flushes often writes again at once.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(50);

/// Mends firewall, bridges and limits after each change of somebody else's, until the engine closes.
pub(super) async fn watch(fabric: Arc<Fabric>, closing: tokio_util::sync::CancellationToken) -> Result<(), String> {
    let mut rules = fabric.watch().map_err(|error| chain(&error))?;
    let mut links = fabric.losses().map_err(|error| chain(&error))?;
    let rules_ready = descriptor(&rules)?;
    let links_ready = descriptor(&links)?;
    loop {
        let mended = Arc::clone(&fabric);
        let (what, done) = tokio::select! {
            ready = rules_ready.readable() => {
                ready.map_err(|error| error.to_string())?.clear_ready();
                let changed = rules.changed_by(&[fabric.port()]).map_err(|error| chain(&error))?;
                if !changed.foreign {
                    continue;
                }
                let by = changed.by.map(|by| format!("{by} changed the firewall table"));
                let what = by.unwrap_or_else(|| "somebody changed the firewall table".to_owned());
                let done = run("put the firewall back", move || mended.mend()).await;
                if done.as_ref().is_ok_and(|plan| !plan.steps.is_empty()) {
                    // Until then nothing kept outsiders out, so it was done at once; he may not be through.
                    tokio::time::sleep(SETTLE).await;
                }
                (what, done)
            }
            ready = links_ready.readable() => {
                ready.map_err(|error| error.to_string())?.clear_ready();
                let lost = links.take().map_err(|error| chain(&error))?;
                if lost.as_ref().is_none_or(|lost| lost.forwarding) {
                    let all = Arc::clone(&fabric);
                    if let Err(error) = run("follow net.ipv4.ip_forward", move || all.mend()).await {
                        tracing::error!(%error, "somebody changed net.ipv4.ip_forward, and Ferry cannot follow");
                    }
                }
                if lost.as_ref().is_some_and(|lost| lost.links.is_empty()) {
                    continue;
                }
                let lost = lost.map(|lost| lost.links);
                let (limits, links) = (Arc::clone(&fabric), lost.clone());
                match run("put a container's limit back", move || limits.mend_limits(links.as_ref())).await {
                    Ok(false) => {}
                    Ok(true) => tracing::warn!("somebody changed what limits a container's traffic: it is as it was again"),
                    Err(error) => {
                        tracing::error!(%error, "somebody changed what limits a container's traffic, and it cannot be put back");
                    }
                }
                let what = "somebody changed a bridge of Ferry's".to_owned();
                (what, run("put a bridge back", move || mended.mend_links(lost.as_ref())).await)
            }
            () = closing.cancelled() => return Ok(()),
        };
        match done {
            Ok(plan) if plan.steps.is_empty() => {}
            Ok(_) => tracing::warn!("{what}: it is as it was again"),
            Err(error) => tracing::error!(%error, "{what}, and it cannot be put back"),
        }
    }
}

#[expect(
    deprecated,
    reason = "the descriptor is its own and stays open; its successor is unsafe"
)]
pub(super) fn descriptor(watch: &impl AsFd) -> Result<AsyncFd<OwnedFd>, String> {
    let descriptor = watch.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    AsyncFd::new(descriptor).map_err(|error| error.to_string())
}
