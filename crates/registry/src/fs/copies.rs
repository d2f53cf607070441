//! Copies of what upstreams have: which they are, when they were last asked for, and which of them go when there is little room.
//!
//! A copy has a *mark* beside its link. The mark is durable before the link is made and goes after it, so that nothing that came
//! from an upstream is taken for something that was pushed; and who pushes the same content takes the mark away. The mark's time
//! is when the copy was asked for.
//!
//! Trimming is a collection ([`super::epoch`]): marks and links are read while others write, what is made or used meanwhile is
//! pinned, and stays. The order is that of every removal: tags, links, content, and the marks last. A blob that somebody reads is
//! open, and is read to its end; one that is still coming is held by those who wait for it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ferry_image::Digest;

use crate::backend::{Error, Hold, Result, Trimmed};
use crate::name::{Name, Tag};

use super::blobs::{self, renew};
use super::durable::make_dirs;
use super::epoch::{Collecting, key};
use super::paths::{BLOBS, COPIES, MANIFESTS, digest_of};
use super::{FileSystem, Inner, found, listing, millis};

/// A mark's time is set at most so often.
const USED: Duration = Duration::from_secs(1);

/// Content that is not to be trimmed, and by how many.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<HashMap<u128, usize>>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, HashMap<u128, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Guard(Held, u128);

impl Drop for Guard {
    fn drop(&mut self) {
        let mut held = self.0.lock();
        if let Some(count) = held.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.1);
            }
        }
    }
}

/// Content that nobody has pushed.
struct Copy {
    digest: Digest,
    size: u64,
    /// Milliseconds of the epoch, the latest of all marks.
    used: u64,
    repositories: Vec<Name>,
}

impl FileSystem {
    pub(super) fn hold_content(&self, digest: &Digest) -> Hold {
        let key = key(digest);
        *self.0.held.lock().entry(key).or_default() += 1;
        Hold::new(Guard(self.0.held.clone(), key))
    }

    pub(super) fn note_use(&self, repository: &Name, digest: &Digest) {
        let key = format!("{repository}*{digest}");
        let seen = self.0.used.changes();
        if self.0.used.get(&key).is_some_and(|since| since.elapsed() < USED) {
            return;
        }
        self.0.used.insert(&key, Instant::now(), 1, seen);
        let mark = self.0.paths.copy(repository, digest);
        // It may not be a copy, or have gone.
        tokio::task::spawn_blocking(move || renew(&mark));
    }

    pub(super) async fn run_trim(&self, most: u64) -> Result<Trimmed> {
        let turn = self.0.collecting.clone().lock_owned().await;
        let inner = self.0.clone();
        let handle = tokio::runtime::Handle::current();
        self.blocking(move |_| {
            let _turn = turn;
            let collecting = handle.block_on(inner.epoch.begin());
            inner.trim(&collecting, most).map_err(Error::io("trim the cache"))
        })
        .await
    }
}

impl Inner {
    /// Says that what the link is about to lead to is a copy, unless somebody has pushed it. The caller is inside the epoch and
    /// has pinned it.
    pub(super) fn mark(&self, repository: &Name, digest: &Digest, link: &Path) -> io::Result<()> {
        let path = self.paths.copy(repository, digest);
        if path.exists() {
            return renew(&path);
        }
        if link.exists() {
            return Ok(());
        }
        self.names().insert(repository.clone());
        let parent = self.paths.part(repository, COPIES);
        make_dirs(&self.sync, &self.paths.root, &parent)?;
        File::create(&path)?;
        self.sync.sync([parent])
    }

    pub(super) fn unmark(&self, repository: &Name, digest: &Digest, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
        if found(fs::remove_file(self.paths.copy(repository, digest)))?.is_some() {
            dirs.push(self.paths.part(repository, COPIES));
        }
        Ok(())
    }

    fn trim(&self, collecting: &Collecting<'_>, most: u64) -> io::Result<Trimmed> {
        let mut copies = self.copies(collecting)?;
        let mut trimmed = Trimmed {
            left: copies.iter().map(|copy| copy.size).sum(),
            ..Trimmed::default()
        };
        if trimmed.left <= most {
            return Ok(trimmed);
        }
        copies.sort_unstable_by_key(|copy| copy.used);
        let mut excess = trimmed.left - most;
        let held: HashSet<u128> = self.held.lock().keys().copied().collect();
        copies.retain(|copy| {
            let goes = excess > 0 && !held.contains(&key(&copy.digest));
            excess = excess.saturating_sub(if goes { copy.size } else { 0 });
            goes
        });
        let mut dirs = Vec::new();
        self.take_tags(collecting, &copies, &mut dirs)?;
        self.sync.sync(std::mem::take(&mut dirs))?;
        for copy in &copies {
            self.unless_used(collecting, copy, || {
                for repository in &copy.repositories {
                    self.take_links(repository, &copy.digest, &mut dirs)?;
                }
                Ok(())
            })?;
        }
        self.sync.sync(std::mem::take(&mut dirs))?;
        for copy in &copies {
            let taken = self.unless_used(collecting, copy, || {
                let removed = found(fs::remove_file(self.paths.content(&copy.digest)))?;
                self.contents.remove(&copy.digest.to_string());
                for repository in &copy.repositories {
                    self.unmark(repository, &copy.digest, &mut dirs)?;
                }
                Ok(removed.is_some())
            })?;
            if taken == Some(true) {
                trimmed.removed += 1;
                trimmed.bytes += copy.size;
                trimmed.left -= copy.size;
            }
        }
        self.sync.sync(dirs)?;
        Ok(trimmed)
    }

    /// All content that only copies lead to. Marks without a link go: their content never came, or has gone.
    fn copies(&self, collecting: &Collecting<'_>) -> io::Result<Vec<Copy>> {
        let names: Vec<Name> = self.names().iter().cloned().collect();
        let (mut copies, mut pushed) = (HashMap::<Digest, Copy>::new(), HashSet::new());
        for name in names {
            let links = [BLOBS, MANIFESTS].map(|part| listing::entries(&self.paths.part(&name, part)));
            let [blobs, manifests] = links;
            let links: HashSet<String> = blobs?.into_iter().chain(manifests?).collect();
            let marks: HashSet<String> = listing::entries(&self.paths.part(&name, COPIES))?.into_iter().collect();
            pushed.extend(
                links
                    .difference(&marks)
                    .filter_map(|name| digest_of(name))
                    .map(|digest| key(&digest)),
            );
            for digest in marks.iter().filter_map(|name| digest_of(name)) {
                let path = self.paths.copy(&name, &digest);
                if !links.contains(&super::paths::file_name(&digest)) {
                    collecting
                        .unless_pinned(&digest, || found(fs::remove_file(&path)))
                        .transpose()?;
                    continue;
                }
                let used = found(fs::metadata(&path).and_then(|mark| mark.modified()))?.map_or(0, millis);
                let copy = copies.entry(digest.clone()).or_insert_with(|| Copy {
                    digest,
                    size: 0,
                    used: 0,
                    repositories: Vec::new(),
                });
                copy.used = copy.used.max(used);
                copy.repositories.push(name.clone());
            }
        }
        let mut copies: Vec<Copy> = copies.into_values().collect();
        copies.retain(|copy| !pushed.contains(&key(&copy.digest)));
        for copy in &mut copies {
            let content = found(fs::metadata(self.paths.content(&copy.digest)))?;
            copy.size = content.map_or(0, |content| content.len());
        }
        Ok(copies)
    }

    /// Does `take`, unless the copy is pinned or held; nobody pins or holds it meanwhile.
    fn unless_used<T>(
        &self,
        collecting: &Collecting<'_>,
        copy: &Copy,
        take: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let taken = collecting.unless_pinned(&copy.digest, || {
            let held = self.held.lock();
            (!held.contains_key(&key(&copy.digest))).then(take).transpose()
        });
        taken.transpose().map(Option::flatten)
    }

    /// A tag that moves to another manifest just now may go as well: then the upstream is asked again.
    fn take_tags(&self, collecting: &Collecting<'_>, copies: &[Copy], dirs: &mut Vec<PathBuf>) -> io::Result<()> {
        let mut tags: HashMap<&Name, Vec<(Tag, Digest)>> = HashMap::new();
        for copy in copies {
            for repository in &copy.repositories {
                if !self.paths.manifest(repository, &copy.digest).exists() {
                    continue;
                }
                if !tags.contains_key(repository) {
                    tags.insert(repository, self.all_tags(repository).map_err(io::Error::other)?);
                }
                self.unless_used(collecting, copy, || {
                    let known = tags.get(repository).into_iter().flatten();
                    for (tag, _) in known.filter(|(_, digest)| *digest == copy.digest) {
                        self.remove_tag(repository, tag, dirs)?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn take_links(&self, repository: &Name, digest: &Digest, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
        if self.paths.manifest(repository, digest).exists() {
            self.remove_manifest_link(repository, digest, dirs)?;
        }
        let blob = self.paths.blob(repository, digest);
        if found(fs::remove_file(&blob))?.is_some() {
            self.links.remove(&blobs::key(repository, digest));
            dirs.push(self.paths.part(repository, BLOBS));
        }
        Ok(())
    }
}
