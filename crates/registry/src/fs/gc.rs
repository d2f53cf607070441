//! The collector, beside writers ([`super::epoch`] says how it keeps out of their way).
//!
//! For each repository: read all manifests. Those that live are the tagged ones, the young ones (pushed, promised or untagged
//! within the grace time), the parts of an index that lives, and what has a subject that lives; or all, when untagged ones stay.
//! Others go; first these, because what they name is needed as long as somebody can still build on them. Then links go that no
//! manifest names and that are not young. When this is done everywhere, content goes that nobody links to.
//!
//! "Young" is measured from the begin of the collection, so that it makes no difference how long it takes. What cannot be read
//! is no reason to take anything: a repository with such a manifest keeps what it has, and is counted.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ferry_image::{Algorithm, Digest};

use crate::backend::{Collected, Collection, Error, Result};
use crate::manifest::Manifest;
use crate::name::Name;

use super::epoch::{Collecting, key};
use super::paths::{BLOBS, COPIES, MANIFESTS, REFERRERS, TAGS, digest_of};
use super::{FileSystem, Inner, blobs, found, listing, millis};

/// The kernel's clock for files may be a tick behind.
const SLACK: Duration = Duration::from_secs(1);

struct Run<'a> {
    inner: &'a Inner,
    collecting: &'a Collecting<'a>,
    collection: &'a Collection,
    /// What is younger stays: milliseconds of the epoch.
    cutoff: u64,
    collected: Collected,
    /// Directories in which something was removed.
    dirs: Vec<PathBuf>,
}

impl FileSystem {
    pub(super) async fn run_collection(&self, collection: Collection) -> Result<Collected> {
        // It goes on to its end when nobody waits any more, and so does the turn.
        let turn = self.0.collecting.clone().lock_owned().await;
        let start = SystemTime::now();
        let inner = self.0.clone();
        let handle = tokio::runtime::Handle::current();
        let collected = self.blocking(move |_| {
            let _turn = turn;
            let collecting = handle.block_on(inner.epoch.begin());
            // A promise holds from when it was last renewed.
            let kept = collection.grace + collection.grace / 4 + SLACK;
            let mut run = Run {
                inner: &inner,
                collecting: &collecting,
                collection: &collection,
                cutoff: millis(start).saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)),
                collected: Collected::default(),
                dirs: Vec::new(),
            };
            run.everything(start).map_err(Error::io("collect"))?;
            Ok((run.collected, collection.dry_run))
        });
        let (mut collected, dry_run) = collected.await?;
        if !dry_run {
            // Directories that are empty: nobody may be about to use one.
            collected.repositories = self
                .alone(|inner| inner.remove_empty().map_err(Error::io("remove empty repositories")))
                .await?;
        }
        Ok(collected)
    }
}

impl Run<'_> {
    fn everything(&mut self, start: SystemTime) -> io::Result<()> {
        let expiry = u64::try_from(self.collection.upload_expiry.as_millis()).unwrap_or(u64::MAX);
        self.collected.uploads = self
            .inner
            .expire(millis(start).saturating_sub(expiry), self.collection.dry_run)?;
        let names: Vec<Name> = self.inner.names().iter().cloned().collect();
        let mut linked = HashSet::new();
        for name in &names {
            self.repository(name, &mut linked)?;
        }
        // Before content goes, so that no crash brings back a link to nothing.
        self.inner.sync.sync(std::mem::take(&mut self.dirs))?;
        // A repository that is new since: what it links is pinned.
        self.contents(&linked)
    }

    /// Takes what a repository does not need, and adds to `linked` what it keeps.
    fn repository(&mut self, name: &Name, linked: &mut HashSet<u128>) -> io::Result<()> {
        let mut manifests = HashMap::new();
        let mut readable = true;
        for digest in self.inner.all_manifests(name)? {
            match self.inner.names_of(name, &digest) {
                Ok(Some(manifest)) => drop(manifests.insert(digest, Needs::of(&manifest))),
                // Deleted meanwhile, by a request; else damaged.
                Ok(None) if !self.inner.paths.manifest(name, &digest).exists() => {}
                other => {
                    tracing::warn!(repository = %name, %digest, cause = ?other.err(), "a manifest cannot be read: nothing is collected here");
                    self.collected.unreadable += 1;
                    readable = false;
                }
            }
        }
        let links = listing::entries(&self.inner.paths.part(name, BLOBS))?;
        let links: Vec<Digest> = links.iter().filter_map(|name| digest_of(name)).collect();
        if !readable {
            linked.extend(self.inner.all_manifests(name)?.iter().chain(&links).map(key));
            return Ok(());
        }
        let mut live = self.live(name, &manifests)?;
        for digest in manifests
            .keys()
            .filter(|digest| !live.contains(*digest))
            .cloned()
            .collect::<Vec<_>>()
        {
            if !self.take_manifest(name, &digest)? {
                live.insert(digest);
            }
        }
        // What they name goes after them, also for the disk.
        if !self.dirs.is_empty() {
            self.inner.sync.sync(std::mem::take(&mut self.dirs))?;
        }
        // With what was pinned: somebody builds on it.
        close(&mut live, &manifests);
        let needed: HashSet<u128> = live
            .iter()
            .filter_map(|digest| manifests.get(digest))
            .flat_map(|needs| &needs.blobs)
            .map(key)
            .collect();
        for digest in links {
            if needed.contains(&key(&digest)) || !self.take_link(name, &digest)? {
                linked.insert(key(&digest));
            }
        }
        linked.extend(live.iter().map(key));
        self.take_marks(name)
    }

    /// Marks of copies that never came, because the process died in between.
    fn take_marks(&mut self, name: &Name) -> io::Result<()> {
        let paths = &self.inner.paths;
        for digest in listing::entries(&paths.part(name, COPIES))?
            .iter()
            .filter_map(|name| digest_of(name))
        {
            let is_loose = !paths.blob(name, &digest).exists() && !paths.manifest(name, &digest).exists();
            if is_loose && !self.collection.dry_run {
                let take = || self.inner.unmark(name, &digest, &mut self.dirs);
                self.collecting.unless_pinned(&digest, take).transpose()?;
            }
        }
        Ok(())
    }

    fn live(&self, name: &Name, manifests: &HashMap<Digest, Needs>) -> io::Result<HashSet<Digest>> {
        if self.collection.keep_untagged {
            return Ok(manifests.keys().cloned().collect());
        }
        let tags = self.inner.all_tags(name).map_err(io::Error::other)?;
        let mut live: HashSet<Digest> = tags.into_iter().map(|(_, digest)| digest).collect();
        for digest in manifests.keys() {
            if !self.is_old(&self.inner.paths.manifest(name, digest))? {
                live.insert(digest.clone());
            }
        }
        close(&mut live, manifests);
        Ok(live)
    }

    /// Whether a file is there and was neither made nor promised within the grace time.
    fn is_old(&self, path: &Path) -> io::Result<bool> {
        match found(fs::metadata(path))? {
            Some(metadata) => Ok(millis(metadata.modified()?) < self.cutoff),
            None => Ok(false),
        }
    }

    fn take_manifest(&mut self, name: &Name, digest: &Digest) -> io::Result<bool> {
        let path = self.inner.paths.manifest(name, digest);
        let taken = self.collecting.unless_pinned(digest, || {
            let old = self.is_old(&path)?;
            if old && !self.collection.dry_run {
                self.inner.remove_manifest(name, digest, &mut self.dirs)?;
            }
            Ok::<_, io::Error>(old)
        });
        let taken = taken.transpose()?.unwrap_or(false);
        self.collected.manifests += u64::from(taken);
        Ok(taken)
    }

    fn take_link(&mut self, name: &Name, digest: &Digest) -> io::Result<bool> {
        let path = self.inner.paths.blob(name, digest);
        let taken = self.collecting.unless_pinned(digest, || {
            let old = self.is_old(&path)?;
            if old && !self.collection.dry_run {
                fs::remove_file(&path)?;
                self.inner.links.remove(&blobs::key(name, digest));
                self.inner.unmark(name, digest, &mut self.dirs)?;
            }
            Ok::<_, io::Error>(old)
        });
        let taken = taken.transpose()?.unwrap_or(false);
        if taken {
            self.collected.links += 1;
            self.dirs.extend(path.parent().map(Path::to_owned));
            if self.dirs.len() > 1024 {
                self.dirs.sort_unstable();
                self.dirs.dedup();
            }
        }
        Ok(taken)
    }

    /// Takes content that nobody links to. What is linked since the begin is pinned, so its age does not matter.
    fn contents(&mut self, linked: &HashSet<u128>) -> io::Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let base = self.inner.paths.blobs.join(algorithm.name());
            for shard in listing::entries(&base)? {
                for hex in listing::entries(&base.join(&shard))? {
                    let Ok(digest) = Digest::new(algorithm, &hex) else {
                        continue;
                    };
                    if !linked.contains(&key(&digest)) {
                        self.take_content(&digest, &base.join(&shard).join(&hex))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn take_content(&mut self, digest: &Digest, path: &Path) -> io::Result<()> {
        let taken = self.collecting.unless_pinned(digest, || {
            let size = found(fs::metadata(path))?.map(|metadata| metadata.len());
            if size.is_some() && !self.collection.dry_run {
                fs::remove_file(path)?;
                self.inner.contents.remove(&digest.to_string());
            }
            Ok::<_, io::Error>(size)
        });
        if let Some(size) = taken.transpose()?.flatten() {
            self.collected.blobs += 1;
            self.collected.bytes += size;
        }
        Ok(())
    }
}

/// What a manifest needs of its repository.
struct Needs {
    /// Also those of its manifests that are blobs.
    blobs: Vec<Digest>,
    manifests: Vec<Digest>,
    subject: Option<Digest>,
}

impl Needs {
    fn of(manifest: &Manifest) -> Self {
        Self {
            blobs: manifest.parts().map(|part| part.digest.clone()).collect(),
            manifests: manifest.manifests.iter().map(|part| part.digest.clone()).collect(),
            subject: manifest.subject.clone(),
        }
    }
}

/// Adds the parts of what lives, and what refers to it.
fn close(live: &mut HashSet<Digest>, manifests: &HashMap<Digest, Needs>) {
    let mut referrers: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
    for (digest, needs) in manifests {
        if let Some(subject) = &needs.subject {
            referrers.entry(subject).or_default().push(digest);
        }
    }
    let mut waiting: Vec<Digest> = live.iter().cloned().collect();
    while let Some(digest) = waiting.pop() {
        let parts = manifests
            .get(&digest)
            .map(|needs| &needs.manifests)
            .into_iter()
            .flatten();
        let parts = parts.chain(referrers.get(&digest).into_iter().flatten().copied());
        for part in parts {
            if live.insert(part.clone()) {
                waiting.push(part.clone());
            }
        }
    }
}

impl Inner {
    /// Removes repositories without blobs, manifests and tags, and the directories above them. Nobody links anything meanwhile.
    fn remove_empty(&self) -> io::Result<u64> {
        let names: Vec<Name> = self.names().iter().cloned().collect();
        let mut removed = 0;
        for name in names {
            for subject in listing::entries(&self.paths.part(&name, REFERRERS))? {
                let _ = fs::remove_dir(self.paths.part(&name, REFERRERS).join(subject));
            }
            let mut full = false;
            for part in [TAGS, MANIFESTS, BLOBS, REFERRERS, COPIES] {
                full |= !self.remove_if_empty(&self.paths.part(&name, part))?;
            }
            if full {
                continue;
            }
            self.names().remove(&name);
            removed += 1;
            let mut dir = self.paths.repositories.join(name.as_str());
            while dir != self.paths.repositories && fs::remove_dir(&dir).is_ok() {
                dir.pop();
            }
        }
        Ok(removed)
    }

    fn remove_if_empty(&self, dir: &Path) -> io::Result<bool> {
        if !listing::entries(dir)?.is_empty() {
            return Ok(false);
        }
        found(fs::remove_dir(dir)).map(|_| true)
    }
}
