//! What the server needs of storage.
//!
//! Blobs are stored once by digest, and belong to the repositories that have a link to them: every call names the repository,
//! and content that only another one has is not there. Nothing here is a path or a descriptor: an object store with conditional
//! writes can keep the same contract.
//!
//! * Content is immutable, and visible when it is whole, verified and durable; never before.
//! * An answer [`Intent::Push`] is a promise: what it says is there stays for [`Collection::grace`], collector or not, because a
//!   client goes on to push a manifest that names it.
//! * [`Backend::put_manifest`] takes a manifest when all it names is there, and from then on nothing of it is collected. Either
//!   the manifest is there with everything, or it is refused.
//! * An upload is a sequence of bytes that only grows. It survives the death of the process; what a client is told of its
//!   length after that is what there is.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use ferry_image::{Algorithm, Digest};
use futures_util::Stream;
use serde::{Deserialize, Serialize};

use crate::manifest::{Descriptor, Manifest};
use crate::name::{Name, Reference, Tag, UploadId};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why storage does not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the upload is not there: it is finished, cancelled or expired")]
    UploadUnknown,
    /// The bytes do not follow those that are there, of which there are `offset`.
    #[error("the upload has {offset} bytes, and the next ones have to follow these")]
    Range { offset: u64 },
    #[error("the content's digest is {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("the upload is larger than the {limit} bytes that are allowed")]
    TooLarge { limit: u64 },
    #[error("too many uploads are open: {limit}")]
    TooManyUploads { limit: usize },
    /// Something that a manifest names is not in its repository.
    #[error("blob {0} is not in this repository")]
    BlobUnknown(Digest),
    #[error("manifest {0} is not in this repository")]
    ManifestUnknown(Digest),
    #[error("{digest} has {actual} bytes, and the manifest says {stated}")]
    Size { digest: Digest, stated: u64, actual: u64 },
    #[error("blob {blob} is part of manifest {manifest}: delete that first")]
    InUse { blob: Digest, manifest: Digest },
    /// What the client sends has ended early, or does not come.
    #[error("the request's body ended early")]
    Body(#[source] io::Error),
    #[error("cannot {what}")]
    Storage {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Storage { what, source }
    }
}

/// What the one who asks goes on to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It reads. Nothing is promised.
    Pull,
    /// It may push a manifest that names it.
    Push,
}

/// Part of a blob or all of it.
pub enum Content {
    Whole(Bytes),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// The bytes of an upload, as they come.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct Stored {
    pub digest: Digest,
    pub media_type: std::sync::Arc<str>,
    pub content: Bytes,
}

/// A page of the manifests that have a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referrers {
    pub manifests: Vec<Descriptor>,
    /// After which digest the next page begins.
    pub next: Option<Digest>,
}

/// Bytes to append to an upload.
pub struct Append {
    /// Where the client thinks they begin; `None` for the end.
    pub at: Option<u64>,
    /// How many there are at most. A body with more is refused with [`Error::Range`], and nothing of it stays.
    pub most: Option<u64>,
    /// With which digest the upload will end, where that is known.
    pub algorithm: Option<Algorithm>,
    pub body: Incoming,
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Append")
            .field("at", &self.at)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

/// What a collection takes away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Collection {
    /// What was pushed, mounted or promised less than this ago stays, and so does a manifest that lost its last tag.
    pub grace: Duration,
    /// Manifests stay without a tag; else they go, but for those of an index that stays and referrers of what stays.
    pub keep_untagged: bool,
    /// An upload to which nothing was added for so long is cancelled.
    pub upload_expiry: Duration,
    /// Count, and take nothing.
    pub dry_run: bool,
}

impl Default for Collection {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(3600),
            keep_untagged: true,
            upload_expiry: Duration::from_secs(24 * 3600),
            dry_run: false,
        }
    }
}

/// What a collection took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Collected {
    pub manifests: u64,
    /// Links from repositories to blobs.
    pub links: u64,
    /// Content that no repository had any more, and its bytes.
    pub blobs: u64,
    pub bytes: u64,
    pub uploads: u64,
    /// Repositories that had nothing left.
    pub repositories: u64,
    /// Manifests that could not be read: nothing was taken from their repositories.
    pub unreadable: u64,
}

/// What was taken for want of room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Blobs and manifests, and their bytes.
    pub removed: u64,
    pub bytes: u64,
    /// Bytes of the copies that are left.
    pub left: u64,
}

/// As long as it is there, [`Backend::trim`] leaves something alone.
#[derive(Clone)]
pub struct Hold(#[expect(dead_code, reason = "what counts is when it is dropped")] std::sync::Arc<dyn Send + Sync>);

impl Hold {
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(std::sync::Arc::new(guard))
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// Storage of a registry. See the module for what holds.
pub trait Backend: Send + Sync + 'static {
    /// The size of a blob; `None` when this repository has no such blob.
    fn blob(
        &self,
        repository: &Name,
        digest: &Digest,
        intent: Intent,
    ) -> impl Future<Output = Result<Option<u64>>> + Send;

    /// The bytes `from..to` of a blob. The caller knows its size.
    fn read(
        &self,
        repository: &Name,
        digest: &Digest,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Option<Content>>> + Send;

    /// Takes a blob from a repository. Refused with [`Error::InUse`] while a manifest there names it.
    fn delete_blob(&self, repository: &Name, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// Gives `to` a blob of `from`; false when that has none. The caller has asked whether the client may read `from`.
    fn mount(&self, from: &Name, to: &Name, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    fn begin(&self, repository: &Name) -> impl Future<Output = Result<UploadId>> + Send;

    /// How many bytes an upload has.
    fn offset(&self, repository: &Name, id: UploadId) -> impl Future<Output = Result<u64>> + Send;

    /// Appends to an upload, and says how many bytes it has then. What came before the body broke off stays. Another append to
    /// the same upload that still waits for its client ends with [`Error::Body`].
    fn append(&self, repository: &Name, id: UploadId, append: Append) -> impl Future<Output = Result<u64>> + Send;

    /// Makes a blob of an upload, and says its size. An upload with another digest is gone, and so is one of which nobody knows
    /// whether the disk has it.
    fn finish(&self, repository: &Name, id: UploadId, digest: &Digest) -> impl Future<Output = Result<u64>> + Send;

    /// As [`Backend::finish`], for a copy of what another registry has: it can go when there is little room.
    fn keep_blob(&self, repository: &Name, id: UploadId, digest: &Digest) -> impl Future<Output = Result<u64>> + Send;

    /// The bytes `from..to` of an upload that has them.
    fn partial(
        &self,
        repository: &Name,
        id: UploadId,
        from: u64,
        to: u64,
    ) -> impl Future<Output = Result<Content>> + Send;

    fn cancel(&self, repository: &Name, id: UploadId) -> impl Future<Output = Result<()>> + Send;

    fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        intent: Intent,
    ) -> impl Future<Output = Result<Option<Stored>>> + Send;

    /// Stores a manifest, and points `tag` to it.
    fn put_manifest(
        &self,
        repository: &Name,
        tag: Option<&Tag>,
        manifest: Manifest,
    ) -> impl Future<Output = Result<()>> + Send;

    /// As [`Backend::put_manifest`], for a copy of what another registry has: what it names need not be here, and it can go when
    /// there is little room.
    fn keep_manifest(
        &self,
        repository: &Name,
        tag: Option<&Tag>,
        manifest: Manifest,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Takes a manifest and the tags that point to it.
    fn delete_manifest(&self, repository: &Name, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    fn delete_tag(&self, repository: &Name, tag: &Tag) -> impl Future<Output = Result<bool>> + Send;

    /// At most `limit` tags in order, those after `after`; `None` when there is no such repository.
    fn tags(
        &self,
        repository: &Name,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Option<Vec<String>>>> + Send;

    /// At most `limit` repositories in order, those after `after`.
    fn repositories(&self, after: Option<&str>, limit: usize) -> impl Future<Output = Result<Vec<Name>>> + Send;

    /// At most `limit` manifests with this subject, and at most a few MiB of them, ordered by digest, those after `after`.
    fn referrers(
        &self,
        repository: &Name,
        subject: &Digest,
        after: Option<&Digest>,
        limit: usize,
    ) -> impl Future<Output = Result<Referrers>> + Send;

    /// Notes that a copy was asked for. Waits for nothing.
    fn used(&self, repository: &Name, digest: &Digest);

    /// Keeps [`Backend::trim`] from taking this content, which need not be there yet.
    fn hold(&self, digest: &Digest) -> Hold;

    /// Takes copies, those first that were not asked for longest, until all of them have at most `most` bytes, while others push
    /// and pull. What was pushed stays, and so does what is held. What is being read is read to its end.
    fn trim(&self, most: u64) -> impl Future<Output = Result<Trimmed>> + Send;

    /// Takes what nothing refers to, while others push.
    fn collect(&self, collection: Collection) -> impl Future<Output = Result<Collected>> + Send;

    /// Whether storage works: it writes and reads something.
    fn check(&self) -> impl Future<Output = Result<()>> + Send;
}
