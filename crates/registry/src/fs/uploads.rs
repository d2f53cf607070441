//! Uploads: a file that grows, and a hash that follows it.
//!
//! `offset` is how much the client may rely on. Bytes are written behind it, then it moves; so a request that is dropped at any
//! moment leaves an upload that can go on. The hash is state in memory: after a restart, or an error, it is computed anew from
//! the file when the upload goes on.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use ferry_image::{Algorithm, Digest, Hasher};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backend::{Append, Content, Error, Result};
use crate::name::{Name, UploadId};

use super::durable::place;
use super::reading::Reading;
use super::{FileSystem, Inner, found, millis};

/// What is hashed and written at once, while the next bytes come.
const BATCH: usize = 1 << 20;
/// Chunks in a batch, at most: a body of single bytes costs no more memory than another.
const CHUNKS: usize = 1024;
/// After so many bytes the disk begins to write them, so that little is left when the upload ends.
const WRITE_BACK: u64 = 32 << 20;
const READ: usize = 1 << 20;

pub struct Upload {
    repository: Name,
    dir: PathBuf,
    offset: AtomicU64,
    /// When something was last done with it, in milliseconds of the epoch.
    touched: AtomicU64,
    /// Of the request that appends.
    turn: Mutex<CancellationToken>,
    sink: Arc<tokio::sync::Mutex<Sink>>,
    flushing: Arc<AtomicBool>,
    /// A sync has failed. The kernel says that once, and forgets the bytes (fsync(2)): nobody knows what the disk has.
    lost: Arc<AtomicBool>,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("dir", &self.dir)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Sink {
    file: Option<Arc<File>>,
    /// Of the bytes up to the upload's offset.
    hash: Option<(Algorithm, Hasher)>,
    gone: bool,
    unflushed: u64,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    repository: String,
}

/// The uploads that a directory holds. What is no upload is removed.
pub fn read(dir: &Path) -> io::Result<HashMap<UploadId, Arc<Upload>>> {
    let mut uploads = HashMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match read_one(&path) {
            Some((id, upload)) => drop(uploads.insert(id, Arc::new(upload))),
            None => fs::remove_dir_all(&path)?,
        }
    }
    Ok(uploads)
}

fn read_one(dir: &Path) -> Option<(UploadId, Upload)> {
    let id = dir.file_name()?.to_str()?.parse().ok()?;
    let meta: Meta = serde_json::from_slice(&fs::read(dir.join("meta")).ok()?).ok()?;
    let data = fs::metadata(dir.join("data")).ok()?;
    let upload = Upload::new(meta.repository.parse().ok()?, dir.to_owned());
    upload.offset.store(data.len(), Ordering::Relaxed);
    upload.touched.store(millis(data.modified().ok()?), Ordering::Relaxed);
    Some((id, upload))
}

impl Upload {
    fn new(repository: Name, dir: PathBuf) -> Self {
        Self {
            repository,
            dir,
            offset: AtomicU64::new(0),
            touched: AtomicU64::new(millis(SystemTime::now())),
            turn: Mutex::default(),
            sink: Arc::default(),
            flushing: Arc::default(),
            lost: Arc::default(),
        }
    }

    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends the wait of a request that appends: its client has come back on another connection.
    fn take_turn(&self) -> CancellationToken {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.cancel();
        *turn = CancellationToken::new();
        turn.clone()
    }

    fn touch(&self) {
        self.touched.store(millis(SystemTime::now()), Ordering::Relaxed);
    }

    fn write(&self, sink: &mut Sink, chunks: &[Bytes]) -> io::Result<()> {
        let written = self.write_chunks(sink, chunks);
        if written.is_err() {
            sink.hash = None;
        }
        written
    }

    fn write_chunks(&self, sink: &mut Sink, chunks: &[Bytes]) -> io::Result<()> {
        let (Some(file), Some((_, hash))) = (&sink.file, &mut sink.hash) else {
            return Err(io::Error::other("the upload is not open"));
        };
        let mut at = self.offset();
        for chunk in chunks {
            file.write_all_at(chunk, at)?;
            hash.update(chunk);
            let length = u64::try_from(chunk.len()).unwrap_or(0);
            at += length;
            sink.unflushed += length;
        }
        self.offset.store(at, Ordering::Release);
        self.touch();
        if sink.unflushed >= WRITE_BACK && !self.flushing.swap(true, Ordering::AcqRel) {
            sink.unflushed = 0;
            let (file, flushing, lost) = (file.clone(), self.flushing.clone(), self.lost.clone());
            tokio::task::spawn_blocking(move || {
                if let Err(error) = file.sync_data() {
                    tracing::error!(%error, "cannot sync an upload");
                    lost.store(true, Ordering::Release);
                }
                flushing.store(false, Ordering::Release);
            });
        }
        Ok(())
    }

    /// Opens the file, and computes the hash anew if it is not there, or is not the one that will be asked for.
    fn open(&self, sink: &mut Sink, algorithm: Algorithm) -> io::Result<Arc<File>> {
        let file = match &sink.file {
            Some(file) => file.clone(),
            None => Arc::new(File::options().read(true).write(true).open(self.data())?),
        };
        sink.file = Some(file.clone());
        if sink.hash.as_ref().is_none_or(|(known, _)| *known != algorithm) {
            let mut hash = Hasher::new(algorithm);
            let (mut at, end) = (0, self.offset());
            let mut buffer = vec![0; READ.min(usize::try_from(end).unwrap_or(READ))];
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(READ).min(READ);
                let count = file.read_at(&mut buffer[..most], at)?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                hash.update(&buffer[..count]);
                at += u64::try_from(count).unwrap_or(0);
            }
            sink.hash = Some((algorithm, hash));
        }
        Ok(file)
    }

    /// Takes back what came after `offset`.
    fn cut(&self, sink: &mut Sink, offset: u64) -> io::Result<()> {
        sink.hash = None;
        self.offset.store(offset, Ordering::Release);
        match &sink.file {
            Some(file) => file.set_len(offset),
            None => Ok(()),
        }
    }

    fn remove(&self, sink: &mut Sink) -> io::Result<()> {
        sink.gone = true;
        sink.file = None;
        found(fs::remove_dir_all(&self.dir)).map(drop)
    }
}

type Guard = OwnedMutexGuard<Sink>;

/// The sink, here or at work on a blocking thread.
enum Hand {
    Here(Guard),
    Away(JoinHandle<(Guard, io::Result<()>)>),
}

impl Hand {
    async fn back(self) -> Result<Guard> {
        match self {
            Self::Here(guard) => Ok(guard),
            Self::Away(job) => {
                let (guard, done) = job
                    .await
                    .map_err(io::Error::other)
                    .map_err(Error::io("write an upload"))?;
                done.map_err(Error::io("write an upload"))?;
                Ok(guard)
            }
        }
    }
}

impl Inner {
    pub(super) fn upload(&self, repository: &Name, id: UploadId) -> Result<Arc<Upload>> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get(&id).filter(|upload| upload.repository == *repository);
        upload.cloned().ok_or(Error::UploadUnknown)
    }

    pub(super) fn begin(&self, repository: &Name) -> Result<UploadId> {
        let id = UploadId::random().map_err(Error::io("name an upload"))?;
        let upload = Arc::new(Upload::new(repository.clone(), self.paths.upload(id)));
        {
            let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            if uploads.len() >= self.options.uploads {
                return Err(Error::TooManyUploads {
                    limit: self.options.uploads,
                });
            }
            uploads.insert(id, upload.clone());
        }
        let meta = format!("{{\"repository\":\"{repository}\"}}");
        let made = fs::create_dir(&upload.dir)
            .and_then(|()| fs::write(upload.dir.join("meta"), meta))
            .and_then(|()| File::create_new(upload.data()));
        if let Err(error) = made {
            self.forget(id);
            let _ = fs::remove_dir_all(&upload.dir);
            return Err(Error::io("begin an upload")(error));
        }
        Ok(id)
    }

    fn forget(&self, id: UploadId) {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Makes the content of a file in an upload a blob. The caller is inside the epoch.
    fn place_blob(&self, repository: &Name, data: &Path, digest: &Digest, copy: bool) -> io::Result<()> {
        self.epoch.pin([digest]);
        let mut dirs = Vec::new();
        match copy {
            true => self.mark(repository, digest, &self.paths.blob(repository, digest))?,
            false => self.unmark(repository, digest, &mut dirs)?,
        }
        // Also when it is there: what is pushed again mends what was damaged.
        place(&self.sync, &self.paths, data, &self.paths.content(digest), &mut dirs)?;
        // A link leads to content, whatever happens.
        self.sync.sync(std::mem::take(&mut dirs))?;
        self.link_blob(repository, digest, &mut dirs)?;
        self.sync.sync(dirs)
    }

    /// Removes uploads to which nothing came since `before`, and says how many there were.
    pub(super) fn expire(&self, before: u64, dry_run: bool) -> io::Result<u64> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let old: Vec<_> = uploads.iter().map(|(id, upload)| (*id, upload.clone())).collect();
        drop(uploads);
        let mut count = 0;
        for (id, upload) in old {
            if upload.touched.load(Ordering::Relaxed) >= before {
                continue;
            }
            // One that is in use is not old.
            let Ok(mut sink) = upload.sink.clone().try_lock_owned() else {
                continue;
            };
            count += 1;
            if !dry_run {
                upload.remove(&mut sink)?;
                self.forget(id);
            }
        }
        Ok(count)
    }
}

impl FileSystem {
    pub(super) async fn append_upload(&self, repository: &Name, id: UploadId, mut append: Append) -> Result<u64> {
        let upload = self.0.upload(repository, id)?;
        let turn = upload.take_turn();
        let mut sink = upload.sink.clone().lock_owned().await;
        if sink.gone {
            return Err(Error::UploadUnknown);
        }
        let begin = upload.offset();
        if append.at.is_some_and(|at| at != begin) {
            return Err(Error::Range { offset: begin });
        }
        upload.touch();
        let known = sink.hash.as_ref().map(|(algorithm, _)| *algorithm);
        // A change of mind costs reading everything again; so only at the beginning, or the end.
        let algorithm = known.filter(|_| begin > 0).or(append.algorithm).unwrap_or_default();
        let opened = upload.clone();
        sink = self
            .blocking(move |_| {
                opened.open(&mut sink, algorithm).map_err(Error::io("open an upload"))?;
                Ok(sink)
            })
            .await?;
        let room = self.0.options.blob_max.saturating_sub(begin);
        let most = append.most.unwrap_or(u64::MAX);
        let too_large = Error::TooLarge {
            limit: self.0.options.blob_max,
        };
        // Nothing has to be sent for that.
        if append.most.is_some_and(|most| most > room) {
            return Err(too_large);
        }
        let mut hand = Hand::Here(sink);
        let (mut batch, mut batched, mut taken) = (Vec::new(), 0, 0_u64);
        let ended = loop {
            let next = tokio::select! {
                biased;
                () = turn.cancelled() => Some(Err(io::Error::other("another request goes on with this upload"))),
                next = append.body.next() => next,
            };
            let chunk = match next {
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => break Err(Error::Body(error)),
                None => break Ok(()),
            };
            taken += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            if taken > most.min(room) {
                let mut sink = hand.back().await?;
                let cut = upload.clone();
                self.blocking(move |_| cut.cut(&mut sink, begin).map_err(Error::io("cut an upload")))
                    .await?;
                return Err(match taken > room {
                    true => too_large,
                    false => Error::Range { offset: begin },
                });
            }
            batched += chunk.len();
            batch.push(chunk);
            if batched >= BATCH || batch.len() >= CHUNKS {
                hand = write(&upload, hand.back().await?, std::mem::take(&mut batch));
                batched = 0;
            }
        };
        write(&upload, hand.back().await?, batch).back().await?;
        ended.map(|()| upload.offset())
    }

    /// `copy` when it is one of what an upstream has.
    pub(super) async fn finish_upload(
        &self,
        repository: &Name,
        id: UploadId,
        digest: &Digest,
        copy: bool,
    ) -> Result<u64> {
        let upload = self.0.upload(repository, id)?;
        upload.take_turn();
        let mut sink = upload.sink.clone().lock_owned().await;
        if sink.gone {
            return Err(Error::UploadUnknown);
        }
        let (checked, expected) = (upload.clone(), digest.clone());
        let (sink, verdict) = self
            .blocking(move |_| {
                let verdict = checked.verify(&mut sink, &expected)?;
                Ok((sink, verdict))
            })
            .await?;
        let (size, digest, repository) = (upload.offset(), digest.clone(), repository.clone());
        self.linking(move |inner| {
            let mut sink = sink;
            let placed = match verdict {
                Ok(()) => inner
                    .place_blob(&repository, &upload.data(), &digest, copy)
                    .map_err(Error::io("put a blob in its place")),
                Err(error) => Err(error),
            };
            inner.forget(id);
            upload.remove(&mut sink).map_err(Error::io("remove an upload"))?;
            placed.map(|()| size)
        })
        .await
    }

    pub(super) async fn read_upload(&self, repository: &Name, id: UploadId, from: u64, to: u64) -> Result<Content> {
        let upload = self.0.upload(repository, id)?;
        if to > upload.offset() {
            return Err(Error::Range {
                offset: upload.offset(),
            });
        }
        // Once open it can be read to its end, though the upload is finished meanwhile.
        let opened = self
            .blocking(move |_| found(File::open(upload.data())).map_err(Error::io("open an upload")))
            .await?;
        let file = opened.ok_or(Error::UploadUnknown)?;
        Ok(Content::Stream(Box::pin(Reading::new(
            file,
            from,
            to,
            self.0.pool.clone(),
        ))))
    }

    pub(super) async fn cancel_upload(&self, repository: &Name, id: UploadId) -> Result<()> {
        let upload = self.0.upload(repository, id)?;
        upload.take_turn();
        let mut sink = upload.sink.clone().lock_owned().await;
        self.blocking(move |inner| {
            inner.forget(id);
            upload.remove(&mut sink).map_err(Error::io("remove an upload"))
        })
        .await
    }
}

impl Upload {
    /// Whether the bytes are those of the digest; they are durable then.
    fn verify(&self, sink: &mut Sink, expected: &Digest) -> Result<Result<()>> {
        let file = self
            .open(sink, expected.algorithm())
            .map_err(Error::io("read an upload"))?;
        let actual = match sink.hash.take() {
            Some((_, hash)) => hash.finish(),
            None => return Ok(Err(Error::UploadUnknown)),
        };
        if actual != *expected {
            return Ok(Err(Error::DigestMismatch {
                expected: expected.clone(),
                actual,
            }));
        }
        // A write that failed may have left bytes behind the offset.
        file.set_len(self.offset()).map_err(Error::io("cut an upload"))?;
        let synced = file.sync_data();
        let lost = || io::Error::other("a sync has failed before: the upload has to begin anew");
        // Another attempt would succeed, and mean nothing.
        let synced = match self.lost.load(Ordering::Acquire) {
            true => synced.and_then(|()| Err(lost())),
            false => synced,
        };
        Ok(synced.map_err(Error::io("sync an upload")))
    }
}

fn write(upload: &Arc<Upload>, mut sink: Guard, chunks: Vec<Bytes>) -> Hand {
    if chunks.is_empty() {
        return Hand::Here(sink);
    }
    let upload = upload.clone();
    Hand::Away(tokio::task::spawn_blocking(move || {
        let written = upload.write(&mut sink, &chunks);
        (sink, written)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::backend::{Backend as _, Intent};

    #[tokio::test]
    async fn an_upload_of_which_a_sync_has_failed_is_not_believed_later() {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileSystem::open(dir.path(), Options::default()).unwrap();
        let (name, digest): (Name, _) = ("a".parse().unwrap(), Digest::of(""));
        let id = storage.begin(&name).await.unwrap();
        storage.0.upload(&name, id).unwrap().lost.store(true, Ordering::Release);
        let finished = storage.finish(&name, id, &digest).await;
        assert!(
            matches!(
                finished,
                Err(Error::Storage {
                    what: "sync an upload",
                    ..
                })
            ),
            "{finished:?}"
        );
        assert!(matches!(storage.offset(&name, id).await, Err(Error::UploadUnknown)));
        assert_eq!(storage.blob(&name, &digest, Intent::Pull).await.unwrap(), None);
    }
}
