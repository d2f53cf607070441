//! Links to blobs, and their content.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use ferry_image::Digest;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use crate::backend::{Content, Error, Intent, Result};
use crate::name::Name;

use super::durable::make_dirs;
use super::reading::Reading;
use super::{FileSystem, Inner, Link, found, millis};

/// Content up to this size is kept in memory when it was read.
pub const SMALL: u64 = 64 << 10;

impl FileSystem {
    pub(super) async fn blob_link(
        &self,
        repository: &Name,
        digest: &Digest,
        intent: Intent,
    ) -> Result<Option<Arc<Link>>> {
        let key = key(repository, digest);
        if let Some(link) = self.0.links.get(&key)
            && (intent == Intent::Pull || self.0.is_fresh(&link))
        {
            return Ok(Some(link));
        }
        let (repository, digest) = (repository.clone(), digest.clone());
        let look = move |inner: &Inner| inner.look_up_blob(&repository, &digest, intent, &key);
        match intent {
            Intent::Pull => self.blocking(look).await,
            Intent::Push => self.linking(look).await,
        }
    }

    pub(super) async fn read_blob(
        &self,
        repository: &Name,
        digest: &Digest,
        from: u64,
        to: u64,
    ) -> Result<Option<Content>> {
        let Some(link) = self.blob_link(repository, digest, Intent::Pull).await? else {
            return Ok(None);
        };
        if to > link.size || from > to {
            return Err(Error::Storage {
                what: "read past the end of a blob",
                source: io::ErrorKind::InvalidInput.into(),
            });
        }
        if link.size <= SMALL {
            let range = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
            let known = self.0.contents.get(&digest.to_string());
            let content = match known {
                Some(content) => Some(content),
                None => {
                    let digest = digest.clone();
                    self.blocking(move |inner| inner.small(&digest)).await?
                }
            };
            return match content {
                Some(content) if content.len() >= range.end => Ok(Some(Content::Whole(content.slice(range)))),
                Some(_) => Err(Error::Storage {
                    what: "read the whole blob",
                    source: io::ErrorKind::UnexpectedEof.into(),
                }),
                None => Ok(None),
            };
        }
        let digest = digest.clone();
        let opened = self
            .blocking(move |inner| found(File::open(inner.paths.content(&digest))).map_err(Error::io("open a blob")));
        let pool = self.0.pool.clone();
        Ok(opened
            .await?
            .map(|file| Content::Stream(Box::pin(Reading::new(file, from, to, pool)))))
    }
}

impl Inner {
    pub(super) fn is_fresh(&self, link: &Link) -> bool {
        let age = millis(SystemTime::now()).saturating_sub(link.promised.load(Ordering::Relaxed));
        u128::from(age) < self.renewal().as_millis()
    }

    fn look_up_blob(&self, repository: &Name, digest: &Digest, intent: Intent, key: &str) -> Result<Option<Arc<Link>>> {
        let seen = self.links.changes();
        if intent == Intent::Push {
            self.epoch.pin([digest]);
        }
        let Some(link) = self.stat_blob(repository, digest, intent)? else {
            return Ok(None);
        };
        let link = Arc::new(link);
        self.links.insert(key, link.clone(), 1, seen);
        Ok(Some(link))
    }

    /// The link and what it leads to, from the disk.
    pub(super) fn stat_blob(&self, repository: &Name, digest: &Digest, intent: Intent) -> Result<Option<Link>> {
        let path = self.paths.blob(repository, digest);
        let Some(promised) = self
            .promise(&path, intent)
            .map_err(Error::io("look at a blob's link"))?
        else {
            return Ok(None);
        };
        let content = found(fs::metadata(self.paths.content(digest))).map_err(Error::io("look at a blob"))?;
        Ok(content.map(|content| Link {
            size: content.len(),
            media_type: "".into(),
            promised: AtomicU64::new(promised),
        }))
    }

    /// A link's time, which is renewed when somebody may rely on it and it is old; `None` when there is no link.
    pub(super) fn promise(&self, path: &Path, intent: Intent) -> io::Result<Option<u64>> {
        let Some(metadata) = found(fs::metadata(path))? else {
            return Ok(None);
        };
        let (time, now) = (millis(metadata.modified()?), millis(SystemTime::now()));
        if intent == Intent::Push && u128::from(now.saturating_sub(time)) >= self.renewal().as_millis() {
            return Ok(found(renew(path))?.map(|()| now));
        }
        Ok(Some(time))
    }

    /// Small content, verified: what is read rarely can be read carefully.
    pub(super) fn small(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let seen = self.contents.changes();
        let read = found(fs::read(self.paths.content(digest))).map_err(Error::io("read content"))?;
        let Some(content) = read.map(Bytes::from) else {
            return Ok(None);
        };
        let mut hasher = ferry_image::Hasher::new(digest.algorithm());
        hasher.update(&content);
        if hasher.finish() != *digest {
            return Err(Error::Storage {
                what: "read content",
                source: io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{digest} is damaged on the disk: push it again"),
                ),
            });
        }
        self.keep(digest, &content, seen);
        Ok(Some(content))
    }

    pub(super) fn keep(&self, digest: &Digest, content: &Bytes, seen: u64) {
        if u64::try_from(content.len()).is_ok_and(|size| size <= SMALL) {
            self.contents
                .insert(&digest.to_string(), content.clone(), content.len() + 200, seen);
        }
    }

    /// Makes the link, or renews it. The caller is inside the epoch and has pinned the digest.
    pub(super) fn link_blob(&self, repository: &Name, digest: &Digest, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
        let path = self.paths.blob(repository, digest);
        // First, so that the collector looks there, however far this comes.
        self.names().insert(repository.clone());
        let make = || File::options().write(true).create(true).truncate(false).open(&path);
        match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = path.parent().ok_or(error)?;
                make_dirs(&self.sync, &self.paths.root, parent)?;
                make()?;
            }
            other => drop(other?),
        }
        renew(&path)?;
        dirs.extend(path.parent().map(Path::to_owned));
        Ok(())
    }

    pub(super) fn mount(&self, from: &Name, to: &Name, digest: &Digest) -> Result<bool> {
        self.epoch.pin([digest]);
        if self.stat_blob(from, digest, Intent::Pull)?.is_none() {
            return Ok(false);
        }
        let mut dirs = Vec::new();
        self.unmark(to, digest, &mut dirs)
            .and_then(|()| self.link_blob(to, digest, &mut dirs))
            .map_err(Error::io("link a blob"))?;
        self.sync.sync(dirs).map_err(Error::io("sync a blob's link"))?;
        Ok(true)
    }

    /// Nobody links anything meanwhile.
    pub(super) fn delete_blob(&self, repository: &Name, digest: &Digest) -> Result<bool> {
        let path = self.paths.blob(repository, digest);
        if !path.exists() {
            return Ok(false);
        }
        if let Some(manifest) = self.user_of(repository, digest)? {
            return Err(Error::InUse {
                blob: digest.clone(),
                manifest,
            });
        }
        let mut dirs: Vec<PathBuf> = path.parent().map(Path::to_owned).into_iter().collect();
        found(fs::remove_file(&path))
            .and_then(|_| self.unmark(repository, digest, &mut dirs))
            .map_err(Error::io("remove a blob's link"))?;
        self.links.remove(&key(repository, digest));
        self.sync
            .sync(dirs)
            .map_err(Error::io("sync the removal of a blob's link"))?;
        Ok(true)
    }
}

pub fn key(repository: &Name, digest: &Digest) -> String {
    format!("{repository}!{digest}")
}

/// Sets the modification time to now.
pub fn renew(path: &Path) -> io::Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())?)
}
