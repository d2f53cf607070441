//! What the engine does for a build: layers, processes, and what was built before.

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use ferry_image::{Digest, Platform};
use ferry_sys::Root;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::Exec;
use crate::session::Session;

/// Files as layers on top of each other, lowest first; none is an empty directory.
#[derive(Debug)]
pub struct Tree<L> {
    pub layers: Vec<L>,
}

/// Layers, processes, results. Clones are handles on the same one.
pub trait Workspace: Debug + Clone + Send + Sync + 'static {
    /// A read-only directory of files. A clone keeps it.
    type Layer: Debug + Clone + Send + Sync + 'static;
    /// A layer that is being written. Dropped, it is removed.
    type Draft: Draft + 'static;

    /// The layers of an image that [`Workspace::resolve`] found.
    fn image(&self, image: &Image) -> impl Future<Output = Result<Tree<Self::Layer>>> + Send;

    /// A new layer on top of a tree.
    fn draft(&self) -> impl Future<Output = Result<Self::Draft>> + Send;

    /// Ends the writing. Its digest is made behind: nobody waits for it before [`Workspace::remember`].
    fn seal(&self, draft: Self::Draft, below: &Tree<Self::Layer>) -> impl Future<Output = Result<Self::Layer>> + Send;

    /// All of a tree as one directory that nobody can write to. Blocks for a moment.
    fn view(&self, tree: &Tree<Self::Layer>) -> Result<Root>;

    /// Runs a process. Its changes are the draft's.
    fn run(&self, run: Run<'_, Self>) -> impl Future<Output = Result<Ended>> + Send;
}

/// A directory that becomes a layer.
pub trait Draft: Debug + Send {
    /// Where files are written, without regard to what is below: what is written wins, and directories join.
    fn root(&self) -> &Root;
}

/// A process in a tree.
#[derive(Debug)]
pub struct Run<'a, W: Workspace> {
    pub exec: &'a Exec,
    pub root: &'a Tree<W::Layer>,
    pub draft: &'a W::Draft,
    pub session: &'a Arc<dyn Session>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub out_of_memory: bool,
}

/// An image that is here, or that a registry has.
#[derive(Debug, Clone)]
pub struct Image {
    /// `docker.io/library/debian:12@sha256:…`, as progress shows it.
    pub name: String,
    /// Of its configuration.
    pub id: Digest,
    /// The configuration as JSON.
    pub config: Vec<u8>,
    pub platform: Platform,
    /// Chain ids, lowest first.
    pub layers: Vec<Digest>,
}

/// A result that is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Remembered {
    pub key: String,
    pub layers: Vec<PathBuf>,
}
