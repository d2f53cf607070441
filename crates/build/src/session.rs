//! Whoever asked for a build: the one who has the files and the secrets.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ferry_image::Digest;
use ferry_sys::Root;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Result;
use crate::progress::Status;

pub use futures_util::future::BoxFuture;

/// A client's side of a build. Every call may fail because it is gone.
pub trait Session: Debug + Send + Sync {
    /// A directory of the client's. What `wanted` does not name need not be there; how it goes is told to `report`.
    fn directory<'a>(
        &'a self,
        name: &'a str,
        wanted: &'a Wanted,
        report: &'a (dyn Fn(Status) + Send + Sync),
    ) -> BoxFuture<'a, Result<Directory>>;

    /// What the client sends instead of a directory.
    fn upload<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>>;

    /// `None`: it has no such secret.
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// A connection to an agent; `None`: it has no such agent. An empty id is `default`.
    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Box<dyn Stream>>>>;

    /// User and password (or an identity token, with an empty user) for a registry.
    fn credentials<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<(String, String)>>>;

    /// Where an archive goes that is the build's result: the `number`-th of its outputs.
    fn receive_archive<'a>(
        &'a self,
        number: usize,
        attributes: &'a [(String, String)],
    ) -> BoxFuture<'a, Result<Box<dyn AsyncWrite + Send + Unpin>>>;

    /// Writes the files of a tree to a directory of the client's.
    fn receive_directory<'a>(&'a self, number: usize, tree: Root) -> BoxFuture<'a, Result<()>>;

    /// A content store of the client's, by its name. `None`: it has no such one.
    fn store<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Arc<dyn ContentStore>>>>;

    /// Ends when the client is gone.
    fn gone(&self) -> BoxFuture<'_, ()>;
}

/// What the client keeps by digests: an OCI layout.
pub trait ContentStore: Debug + Send + Sync {
    /// Bytes; `None`: it has no such content.
    fn size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>>;

    /// A content from an offset on. Nobody has verified it.
    fn read<'a>(&'a self, digest: &'a Digest, offset: u64) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>>;

    /// Takes a content. Returns when the client has all of it.
    fn write<'a>(
        &'a self,
        digest: &'a Digest,
        size: u64,
        content: Box<dyn AsyncRead + Send + Unpin>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Has the index name a manifest: its descriptor, as JSON.
    fn publish<'a>(&'a self, tag: &'a str, manifest: &'a str) -> BoxFuture<'a, Result<()>>;
}

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What of a directory is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Wanted {
    /// Paths and patterns, links followed; all of it if there are none.
    pub paths: Vec<String>,
    /// Patterns as of `.dockerignore`.
    pub exclude: Vec<String>,
}

/// A directory that is here now.
#[derive(Debug)]
pub struct Directory {
    pub root: Root,
    /// What nobody wanted may be here all the same, so that [`Wanted::exclude`] is still to be looked at.
    pub whole: bool,
    /// Names the place these files come from, if the same place may be sent again: what is known of their contents is kept
    /// under it. Its files are known by inode, so that a file that is replaced is another one.
    pub key: Option<String>,
    /// Held as long as the directory is used.
    pub hold: Box<dyn Any + Send + Sync>,
}

/// When a file was fetched, as `Last-Modified` says it.
pub type Modified = Option<SystemTime>;
