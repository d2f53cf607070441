//! How writers and the collector keep out of each other's way.
//!
//! The collector finds what is needed by reading all links, which takes a while, and takes the rest. What is linked meanwhile
//! must not be taken:
//!
//! 1. Whoever makes or renews a link is *inside* ([`Epoch::enter`]) from before it looks whether the content is there until its
//!    links are made.
//! 2. A collection begins when nobody is inside. So what was linked before is on disk, where the collector will see it.
//! 3. From then on, everybody first *pins* what it is going to use, then looks whether it is there.
//! 4. The collector takes a file only under the pins' lock, after a look that it is not pinned.
//!
//! Either the pin came first, and the file stays; or the file went first, and the writer sees that it is not there, and says so.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_image::Digest;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

#[derive(Debug, Default)]
pub struct Epoch {
    gate: Arc<RwLock<()>>,
    /// While something is collected: what was used since that began.
    pins: Mutex<Option<HashSet<u128>>>,
}

/// The first 128 bits of a digest. Two that have the same are kept together.
pub fn key(digest: &Digest) -> u128 {
    u128::from_str_radix(&digest.encoded()[..32], 16).unwrap_or_default()
}

impl Epoch {
    pub async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        self.gate.clone().read_owned().await
    }

    /// Nobody is inside until the guard goes.
    pub async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }

    fn pins(&self) -> MutexGuard<'_, Option<HashSet<u128>>> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller is inside.
    pub fn pin<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) {
        if let Some(pins) = self.pins().as_mut() {
            pins.extend(digests.into_iter().map(key));
        }
    }

    /// Begins a collection. It ends when the value goes.
    pub async fn begin(&self) -> Collecting<'_> {
        let _alone = self.alone().await;
        *self.pins() = Some(HashSet::new());
        Collecting(self)
    }
}

/// A collection that is going on.
#[derive(Debug)]
pub struct Collecting<'a>(&'a Epoch);

impl Collecting<'_> {
    /// Does `take`, unless the digest is pinned; nobody pins it meanwhile.
    pub fn unless_pinned<T>(&self, digest: &Digest, take: impl FnOnce() -> T) -> Option<T> {
        let pins = self.0.pins();
        let pinned = pins.as_ref().is_some_and(|pins| pins.contains(&key(digest)));
        (!pinned).then(take)
    }
}

impl Drop for Collecting<'_> {
    fn drop(&mut self) {
        *self.0.pins() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_collection_waits_for_those_inside_and_knows_what_was_used_since() {
        let epoch = Epoch::default();
        let (before, during) = (Digest::of("before"), Digest::of("during"));
        let inside = epoch.enter().await;
        epoch.pin([&before]);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), epoch.begin()).await;
        assert!(waited.is_err());
        drop(inside);
        let collecting = epoch.begin().await;
        let _inside = epoch.enter().await;
        epoch.pin([&during]);
        assert_eq!(collecting.unless_pinned(&before, || 1), Some(1));
        assert_eq!(collecting.unless_pinned(&during, || 1), None);
        drop(collecting);
        assert!(epoch.pins().is_none());
    }
}
