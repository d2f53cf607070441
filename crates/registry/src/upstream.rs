//! The seam to other registries, of which this one is a cache. The registry's client is on the other side of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use ferry_image::Digest;

use crate::backend::Incoming;
use crate::manifest::Descriptor;
use crate::name::{Name, Reference, Tag};

/// An answer on its way. `None` is for what the upstream does not have.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<Option<T>, Trouble>> + Send + 'a>>;

/// Why an upstream gives nothing. The message names it, the repository and the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Trouble {
    pub why: Why,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody answers, or with an error of its own.
    Down,
    /// It asks to be left alone, perhaps for so long.
    Busy(Option<Duration>),
    /// Our credentials are missing, wrong or not enough.
    Denied,
    /// The answer makes no sense, or is a lie.
    Wrong,
}

impl Trouble {
    /// Whether what is here already may be given instead. Not when access was taken away.
    pub fn passes(&self) -> bool {
        self.why != Why::Denied
    }
}

/// A manifest that an upstream has. By digest it is verified.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub media_type: String,
    pub content: Bytes,
}

/// Another registry, from which content is fetched that is not here. `repository` is as it is called there.
pub trait Upstream: fmt::Debug + Send + Sync + 'static {
    /// As a person knows it: its URL.
    fn shown(&self) -> &str;

    /// Which manifest a tag points to now.
    fn digest<'a>(&'a self, repository: &'a Name, tag: &'a Tag) -> Asked<'a, Digest>;

    fn manifest<'a>(&'a self, repository: &'a Name, reference: &'a Reference) -> Asked<'a, Fetched>;

    /// The size of a blob.
    fn size<'a>(&'a self, repository: &'a Name, digest: &'a Digest) -> Asked<'a, u64>;

    /// The size and the bytes of a blob, which need not be the right ones.
    fn blob<'a>(&'a self, repository: &'a Name, digest: &'a Digest) -> Asked<'a, (u64, Incoming)>;

    fn tags<'a>(&'a self, repository: &'a Name) -> Asked<'a, Vec<String>>;

    /// What refers to a manifest. An empty list, or `None`, for nothing.
    fn referrers<'a>(&'a self, repository: &'a Name, subject: &'a Digest) -> Asked<'a, Vec<Descriptor>>;
}
