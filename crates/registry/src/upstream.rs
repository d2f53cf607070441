//! The seam of a pull-through cache. Nothing implements it yet: the registry's client will.
//!
//! A [`Registry`](crate::Registry) with an upstream asks it when the backend answers `None` to a GET or HEAD of somebody who may
//! pull: a manifest is pushed into the backend with [`Backend::put_manifest`](crate::Backend::put_manifest) after its blobs, and
//! a blob goes to the client while [`Backend::append`](crate::Backend::append) takes the same bytes, so that a second client
//! finds it. A manifest by tag is asked for again when it is older than a while; by digest it never changes. What an upstream
//! sends is believed after its digest was checked, as with every client.

use std::future::Future;
use std::io;

use ferry_image::Digest;

use crate::backend::{Incoming, Stored};
use crate::name::{Name, Reference};

/// Another registry, from which content is fetched that is not here.
pub trait Upstream: Send + Sync + 'static {
    /// `None` when it has no such manifest.
    fn manifest(
        &self,
        repository: &Name,
        reference: &Reference,
    ) -> impl Future<Output = io::Result<Option<Stored>>> + Send;

    /// The size and the bytes of a blob; `None` when it has no such blob.
    fn blob(
        &self,
        repository: &Name,
        digest: &Digest,
    ) -> impl Future<Output = io::Result<Option<(u64, Incoming)>>> + Send;
}
