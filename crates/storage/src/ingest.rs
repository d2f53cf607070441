//! Blobs on their way in: `ingest/<hex>` holds the first bytes of a blob, as far as they have come.
//!
//! What has come stays when the transfer breaks off, the engine dies or the machine goes down, and the next transfer goes on
//! behind it; not so when it failed for want of room, which others need more. Nothing here is trusted: a blob is read from its first byte, hashed, whenever it is used, and a file that turns
//! out wrong is thrown away. Files that nobody came back to for a day are collected at start-up and when a pull begins; at
//! start-up, so are those of blobs that have come whole, which a death after the record of their image left here.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ferry_image::Digest;

use crate::error::Context as _;
use crate::layout::Layout;
use crate::{Error, Result};

/// How long a part is kept for a transfer that goes on.
const KEPT: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(crate) struct Ingests {
    layout: Layout,
    busy: Mutex<HashSet<Digest>>,
    changed: Condvar,
}

/// One blob on its way in; nobody else writes it meanwhile.
#[derive(Debug)]
pub(crate) struct Ingest {
    ingests: Arc<Ingests>,
    digest: Digest,
    pub path: PathBuf,
}

impl Ingests {
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            busy: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits while another one brings the same blob in.
    pub fn begin(self: &Arc<Self>, digest: &Digest) -> Result<Ingest> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while !busy.insert(digest.clone()) {
            busy = self.changed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        drop(busy);
        let ingest = Ingest {
            ingests: Arc::clone(self),
            digest: digest.clone(),
            path: self.layout.ingest().join(digest.encoded()),
        };
        // A blob that is there already need not come again; a link keeps it whoever removes it meanwhile.
        match std::fs::hard_link(self.layout.blob(digest), &ingest.path) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => {
                Err(error).at("link the blob to", &ingest.path)
            }
            _ => Ok(ingest),
        }
    }

    /// Removes the parts that no transfer is writing: those nobody came back to for a day, and those whose digest's hex digits
    /// are `done`. Returns the bytes freed.
    pub fn collect(&self, done: impl Fn(&OsStr) -> bool) -> Result<u64> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.layout.ingest();
        let mut freed = 0;
        for entry in std::fs::read_dir(&dir).at("read", &dir)? {
            let entry = entry.at("read", &dir)?;
            let path = entry.path();
            let name = entry.file_name();
            if busy.iter().any(|digest| name == digest.encoded()) {
                continue;
            }
            let data = entry.metadata().at("look at", &path)?;
            let age = SystemTime::now().duration_since(data.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            if done(&name) || age.is_ok_and(|age| age > KEPT) {
                std::fs::remove_file(&path).at("remove", &path)?;
                // A second name of a blob frees nothing.
                freed += if data.nlink() == 1 { data.len() } else { 0 };
            }
        }
        Ok(freed)
    }
}

/// Parts that go at once when there is no room for them, unless somebody is writing them.
#[derive(Debug)]
pub(crate) struct Parts {
    ingests: Arc<Ingests>,
    digests: Vec<Digest>,
    full: AtomicBool,
}

impl Parts {
    pub fn new(ingests: &Arc<Ingests>, digests: Vec<Digest>) -> Self {
        Self {
            ingests: Arc::clone(ingests),
            digests,
            full: AtomicBool::new(false),
        }
    }

    /// Passes an outcome on. After a failure for want of room the parts go when this is dropped.
    pub fn noting<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.as_ref().is_err_and(Error::is_no_space) {
            self.full.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if !self.full.load(Ordering::Relaxed) {
            return;
        }
        let busy = self.ingests.busy.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in self.digests.iter().filter(|digest| !busy.contains(*digest)) {
            // What stays is collected.
            let _ = std::fs::remove_file(self.ingests.layout.ingest().join(digest.encoded()));
        }
    }
}

impl Ingest {
    /// The bytes that are there, and how many; what comes next is appended to the file. A longer file is none of this blob.
    pub fn open(&self, size: u64) -> Result<(File, u64)> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&self.path).at("open", &self.path)?;
        let have = file.metadata().at("look at", &self.path)?.len();
        if have <= size {
            return Ok((file, have));
        }
        drop(file);
        self.discard()?;
        let file = options.open(&self.path).at("open", &self.path)?;
        Ok((file, 0))
    }

    pub fn discard(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &self.path),
            _ => Ok(()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let mut busy = self.ingests.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.digest);
        self.ingests.changed.notify_all();
    }
}
