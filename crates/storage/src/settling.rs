//! Images that are used before the disk has them.
//!
//! A pull ends when the page cache has everything, and the sync goes on behind it. Until that is through, a record
//! names the image and the boot in which it came. The page cache outlives whatever ends the engine, but no power cut: then the next
//! opening finds the record of another boot, reads the image through, and removes it if it is not whole.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::db::{Batch, Db, Document, Durability, WeakDb};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// An image that the disk may not have yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Unsynced {
    /// One's own: an image may go and come again before the first sync is through.
    pub key: String,
    pub image: String,
    boot: String,
}

impl Document for Unsynced {
    const KIND: &'static str = "unsynced";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

impl Unsynced {
    pub fn new(image: String) -> Self {
        Self {
            key: format!("{image} {}", jiff::Timestamp::now().as_nanosecond()),
            image,
            boot: boot().unwrap_or_default(),
        }
    }

    /// Whether the page cache it was written to is gone.
    pub fn is_of_another_boot(&self) -> bool {
        boot().is_none_or(|boot| boot != self.boot)
    }
}

/// Names the boot that this machine is in.
pub(crate) fn boot() -> Option<String> {
    std::fs::read_to_string(BOOT).ok().map(|boot| boot.trim().to_owned())
}

/// Brings images to disk, all that wait with one sync.
#[derive(Debug)]
pub(crate) struct Settling {
    root: PathBuf,
    /// Weak, so that a long sync keeps nobody from closing the data root: what it was for stays recorded.
    db: WeakDb,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    running: bool,
    waiting: Vec<String>,
}

impl Settling {
    pub fn new(root: &Path, db: &Db) -> Self {
        Self {
            root: root.to_owned(),
            db: db.downgrade(),
            queue: Mutex::default(),
        }
    }

    /// Whether something of what was recorded may not be on disk.
    pub fn is_busy(&self) -> bool {
        let queue = self.queue();
        queue.running || !queue.waiting.is_empty()
    }

    /// Begins to bring images to disk that are recorded as [`Unsynced`], by their keys. Does not wait.
    pub fn add(self: &Arc<Self>, keys: impl IntoIterator<Item = String>) {
        let mut queue = self.queue();
        queue.waiting.extend(keys);
        if queue.running || queue.waiting.is_empty() {
            return;
        }
        let this = Arc::clone(self);
        let work = move || {
            while let Some(keys) = this.next() {
                if !this.sync(&keys) {
                    // They stay recorded, and wait for the next one that comes.
                    let mut queue = this.queue();
                    queue.running = false;
                    queue.waiting.extend(keys);
                    break;
                }
            }
        };
        // Without a thread they wait for the next one.
        queue.running = std::thread::Builder::new()
            .name("ferry-sync".to_owned())
            .spawn(work)
            .is_ok();
    }

    fn next(&self) -> Option<Vec<String>> {
        let mut queue = self.queue();
        queue.running = !queue.waiting.is_empty();
        queue.running.then(|| std::mem::take(&mut queue.waiting))
    }

    /// False if the disk did not take them.
    fn sync(&self, keys: &[String]) -> bool {
        let synced = File::open(&self.root).and_then(|root| rustix::fs::syncfs(root).map_err(Into::into));
        if let Err(error) = synced {
            tracing::error!(root = %self.root.display(), %error, ?keys, "cannot bring images to disk");
            return false;
        }
        let mut batch = Batch::default();
        keys.iter().for_each(|key| batch.delete::<Unsynced>(key));
        if let Err(error) = self.db.commit_blocking(batch, Durability::Process) {
            tracing::warn!(%error, ?keys, "cannot note that images are on disk");
        }
        true
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
