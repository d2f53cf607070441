//! How much of what upstreams have is kept.
//!
//! What was kept is counted, and when there is more than allowed, storage takes what was not asked for longest until a tenth of
//! the bound is free: so not every blob that comes costs a look at everything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::http::Registry;

/// Between two looks when there was too much and it could not go.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Room {
    most: Option<u64>,
    /// Bytes that were kept since they were counted.
    grown: AtomicU64,
    changed: Notify,
}

impl Room {
    pub fn new(most: Option<u64>) -> Self {
        Self {
            most,
            grown: AtomicU64::default(),
            changed: Notify::new(),
        }
    }
}

impl<B: Backend> Registry<B> {
    pub(super) fn grown(&self, bytes: u64) {
        let room = &self.0.through.room;
        room.grown.fetch_add(bytes, Ordering::AcqRel);
        room.changed.notify_one();
    }

    /// Keeps what came from upstreams within [`Caching::size`](super::Caching::size), until `shutdown`. Where there is no bound
    /// this ends at once.
    pub async fn keep_within(&self, shutdown: CancellationToken) {
        let room = &self.0.through.room;
        let Some(most) = room.most else { return };
        // What is there from before is counted, and goes only if it is too much.
        let mut target = most;
        loop {
            // What comes from now on may be counted twice, which the next look puts right.
            room.grown.store(0, Ordering::Release);
            let left = match self.0.backend.trim(target).await {
                Ok(trimmed) => {
                    self.0.metrics.trimmed(&trimmed);
                    if trimmed.removed > 0 {
                        tracing::info!(?trimmed, most, "the cache was larger than allowed");
                    }
                    trimmed.left
                }
                Err(error) => {
                    tracing::error!(cause = ?std::error::Error::source(&error), "{error}");
                    u64::MAX
                }
            };
            target = most - most / 10;
            let full = || left.saturating_add(room.grown.load(Ordering::Acquire)) > most;
            if full() {
                // Somebody is reading all of it, or the disk failed.
                tokio::select! {
                    () = tokio::time::sleep(PATIENCE) => {}
                    () = shutdown.cancelled() => return,
                }
            }
            while !full() {
                tokio::select! {
                    () = room.changed.notified() => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}
