//! Storage in a directory.
//!
//! ```text
//! <root>/                                     one server at a time (flock on `lock`), 0700
//!   control.sock                              `ferry registry gc` asks the server here ([`crate::control`])
//!   secret                                    the key of the server's own tokens
//!   blobs/<algorithm>/<2 digits>/<hex>        every blob and manifest, once, whatever repositories have it
//!   repositories/<name>/
//!     _blobs/<algorithm>.<hex>                empty: this repository has the blob
//!     _manifests/<algorithm>.<hex>            this repository has the manifest; its descriptor and subject as JSON
//!     _tags/<tag>                             the digest of a manifest
//!     _referrers/<algorithm>.<hex>/<a>.<hex>  for each subject, the manifests that name it; their descriptors
//!     _copies/<algorithm>.<hex>               empty: this blob or manifest came from an upstream; its time is when it was asked for
//!   uploads/<id>/data, meta                   the bytes so far, and whose they are
//!   tmp/                                      small files are made here and renamed into place; emptied at start
//! ```
//! No component of a repository's name begins with `_`, so names and what belongs to them do not meet.
//!
//! **Writing.** Content goes to a file of its own and is hashed on the way. Then, in this order: data synced; renamed to its
//! digest; the directories synced; the link to it written and synced; with a tag, the same again. Things go the other way round.
//! Syncs of directories are shared by all who wait for one ([`durable::GroupSync`]). A manifest's content is durable before its link, and what it names was durable before the manifest
//! was taken: after any crash, what has a link is whole. What has none is the rest of something that did not finish, and the
//! collector takes it.
//!
//! **Promises.** The modification time of a link is when it was made, or last promised to somebody who pushes. It is renewed
//! when it is older than a quarter of the grace time; so it costs one system call in a long while, survives a restart, and the
//! collector reads it with the rest.
//!
//! **Collecting** goes on beside all that: see [`gc`].
//!
//! Names, links and small content that were read are kept in bounded caches. The process that has the lock is the only one
//! that writes, so nothing else has to be asked. What somebody takes from the disk behind its back is noticed when a manifest that
//! names it is pushed, and else when the caches have let go of it.

mod blobs;
mod copies;
mod durable;
mod epoch;
mod gc;
mod listing;
mod manifests;
mod paths;
mod reading;
mod uploads;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ferry_image::Digest;

use crate::backend::{
    Append, Backend, Collected, Collection, Content, Error, Hold, Intent, Referrers, Result, Stored, Trimmed,
};
use crate::cache::Cache;
use crate::manifest::Manifest;
use crate::name::{Name, Reference, Tag, UploadId};

use self::copies::Held;
use self::durable::GroupSync;
use self::epoch::Epoch;
use self::paths::Paths;
use self::reading::Pool;
use self::uploads::Upload;

/// How a directory is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// For how long what was said to somebody who pushes holds.
    pub grace: Duration,
    /// Uploads that are open at once.
    pub uploads: usize,
    /// Bytes of one blob.
    pub blob_max: u64,
    /// Bytes of small content that is kept in memory.
    pub cache: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            grace: Collection::default().grace,
            uploads: 4096,
            blob_max: 1 << 40,
            cache: 16 << 20,
        }
    }
}

/// Entries of the caches of names and links, at most.
const ENTRIES: usize = 20_000;

/// A directory with a registry in it. Cloned, it is the same one.
#[derive(Clone, Debug)]
pub struct FileSystem(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    paths: Paths,
    options: Options,
    sync: GroupSync,
    epoch: Epoch,
    pool: Arc<Pool>,
    /// `<repository>:<tag>` to the manifest's digest.
    tags: Cache<Digest>,
    /// `<repository>@<digest>` for manifests, `<repository>!<digest>` for blobs.
    links: Cache<Arc<Link>>,
    /// Small content by digest.
    contents: Cache<Bytes>,
    /// `<repository>*<digest>` of copies: when their time was set last.
    used: Cache<Instant>,
    held: Held,
    names: Mutex<BTreeSet<Name>>,
    uploads: Mutex<HashMap<UploadId, Arc<Upload>>>,
    collecting: Arc<tokio::sync::Mutex<()>>,
    /// Held while this is open.
    _lock: File,
}

/// That a repository has something.
#[derive(Debug)]
struct Link {
    size: u64,
    /// Of a manifest.
    media_type: Arc<str>,
    /// The link's time, in milliseconds of the epoch.
    promised: AtomicU64,
}

impl FileSystem {
    /// Opens a directory, and makes it if it is not there. Blocks.
    pub fn open(root: &Path, options: Options) -> Result<Self> {
        let paths = Paths::new(root);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        made.map_err(Error::io("make the registry's directory"))?;
        let lock = lock(root).map_err(Error::io("lock the registry's directory"))?;
        for dir in paths.fixed() {
            fs::create_dir_all(dir).map_err(Error::io("make the registry's directories"))?;
        }
        for dir in root.parent().into_iter().chain([root, &*paths.blobs]) {
            durable::sync(dir).map_err(Error::io("sync the registry's directories"))?;
        }
        empty(&paths.tmp).map_err(Error::io("empty the registry's tmp"))?;
        let names = listing::names(&paths.repositories).map_err(Error::io("read the repositories"))?;
        let uploads = uploads::read(&paths.uploads).map_err(Error::io("read the uploads"))?;
        Ok(Self(Arc::new(Inner {
            paths,
            sync: GroupSync::default(),
            epoch: Epoch::default(),
            pool: Arc::default(),
            tags: Cache::new(ENTRIES),
            links: Cache::new(ENTRIES),
            contents: Cache::new(options.cache),
            used: Cache::new(ENTRIES),
            held: Held::default(),
            names: Mutex::new(names),
            uploads: Mutex::new(uploads),
            collecting: Arc::default(),
            options,
            _lock: lock,
        })))
    }

    pub fn root(&self) -> &Path {
        &self.0.paths.root
    }

    /// Runs what blocks where it may. What has begun goes on to its end, whether or not somebody waits for it.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let inner = self.0.clone();
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(error) => Err(Error::Storage {
                what: "finish",
                source: io::Error::other(error),
            }),
        }
    }

    /// As [`Self::blocking`], for what makes or renews a link: the collector sees it whole or knows of it.
    async fn linking<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let entered = self.0.epoch.enter().await;
        self.blocking(move |inner| {
            let _entered = entered;
            work(inner)
        })
        .await
    }

    /// As [`Self::blocking`], for what takes a link away: nothing is linked meanwhile.
    async fn alone<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let entered = self.0.epoch.alone().await;
        self.blocking(move |inner| {
            let _entered = entered;
            work(inner)
        })
        .await
    }
}

impl Inner {
    fn names(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A promise that is older than this is renewed.
    fn renewal(&self) -> Duration {
        self.options.grace / 4
    }
}

fn lock(root: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!(
                "another server uses {}: give each a directory of its own",
                root.display()
            ),
        )),
        Err(error) => Err(error.into()),
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `None` for what is not there.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Backend for FileSystem {
    async fn blob(&self, repository: &Name, digest: &Digest, intent: Intent) -> Result<Option<u64>> {
        Ok(self.blob_link(repository, digest, intent).await?.map(|link| link.size))
    }

    async fn read(&self, repository: &Name, digest: &Digest, from: u64, to: u64) -> Result<Option<Content>> {
        self.read_blob(repository, digest, from, to).await
    }

    async fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<bool> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.alone(move |inner| inner.delete_blob(&repository, &digest)).await
    }

    async fn mount(&self, from: &Name, to: &Name, digest: &Digest) -> Result<bool> {
        let (from, to, digest) = (from.clone(), to.clone(), digest.clone());
        self.linking(move |inner| inner.mount(&from, &to, &digest)).await
    }

    async fn begin(&self, repository: &Name) -> Result<UploadId> {
        let repository = repository.clone();
        self.blocking(move |inner| inner.begin(&repository)).await
    }

    async fn offset(&self, repository: &Name, id: UploadId) -> Result<u64> {
        Ok(self.0.upload(repository, id)?.offset())
    }

    async fn append(&self, repository: &Name, id: UploadId, append: Append) -> Result<u64> {
        self.append_upload(repository, id, append).await
    }

    async fn finish(&self, repository: &Name, id: UploadId, digest: &Digest) -> Result<u64> {
        self.finish_upload(repository, id, digest, false).await
    }

    async fn keep_blob(&self, repository: &Name, id: UploadId, digest: &Digest) -> Result<u64> {
        self.finish_upload(repository, id, digest, true).await
    }

    async fn partial(&self, repository: &Name, id: UploadId, from: u64, to: u64) -> Result<Content> {
        self.read_upload(repository, id, from, to).await
    }

    async fn cancel(&self, repository: &Name, id: UploadId) -> Result<()> {
        self.cancel_upload(repository, id).await
    }

    async fn manifest(&self, repository: &Name, reference: &Reference, intent: Intent) -> Result<Option<Stored>> {
        self.find_manifest(repository, reference, intent).await
    }

    async fn put_manifest(&self, repository: &Name, tag: Option<&Tag>, manifest: Manifest) -> Result<()> {
        let (repository, tag) = (repository.clone(), tag.cloned());
        self.linking(move |inner| inner.put_manifest(&repository, tag.as_ref(), &manifest))
            .await
    }

    async fn keep_manifest(&self, repository: &Name, tag: Option<&Tag>, manifest: Manifest) -> Result<()> {
        let (repository, tag) = (repository.clone(), tag.cloned());
        self.linking(move |inner| inner.keep_manifest(&repository, tag.as_ref(), &manifest))
            .await
    }

    async fn delete_manifest(&self, repository: &Name, digest: &Digest) -> Result<bool> {
        let (repository, digest) = (repository.clone(), digest.clone());
        self.alone(move |inner| inner.delete_manifest(&repository, &digest))
            .await
    }

    async fn delete_tag(&self, repository: &Name, tag: &Tag) -> Result<bool> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.alone(move |inner| inner.delete_tag(&repository, &tag)).await
    }

    async fn tags(&self, repository: &Name, after: Option<&str>, limit: usize) -> Result<Option<Vec<String>>> {
        let (repository, after) = (repository.clone(), after.map(str::to_owned));
        self.blocking(move |inner| inner.list_tags(&repository, after.as_deref(), limit))
            .await
    }

    async fn repositories(&self, after: Option<&str>, limit: usize) -> Result<Vec<Name>> {
        Ok(self.0.list_repositories(after, limit))
    }

    async fn referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> Result<Referrers> {
        let (repository, subject, after) = (repository.clone(), subject.clone(), after.cloned());
        self.blocking(move |inner| inner.list_referrers((&repository, &subject), after.as_ref(), limit))
            .await
    }

    fn used(&self, repository: &Name, digest: &Digest) {
        self.note_use(repository, digest);
    }

    fn hold(&self, digest: &Digest) -> Hold {
        self.hold_content(digest)
    }

    async fn trim(&self, most: u64) -> Result<Trimmed> {
        self.run_trim(most).await
    }

    async fn collect(&self, collection: Collection) -> Result<Collected> {
        self.run_collection(collection).await
    }

    async fn check(&self) -> Result<()> {
        self.blocking(Inner::probe).await
    }
}

impl Inner {
    fn probe(&self) -> Result<()> {
        let path: PathBuf = self.paths.temporary().map_err(Error::io("name a file"))?;
        let written = fs::write(&path, b"healthy").and_then(|()| fs::read(&path));
        let removed = fs::remove_file(&path);
        written.map_err(Error::io("write to the registry's directory"))?;
        removed.map_err(Error::io("remove from the registry's directory"))
    }
}
