//! What the engine does for a build: images, layers, processes, and what was built before.

use std::fmt::Debug;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use ferry_image::{Digest, Platform};
use ferry_sys::Root;
use jiff::Timestamp;

use crate::error::Result;
use crate::frontend::Sent;
use crate::graph::{Exec, Git, Http};
use crate::progress::Events;
use crate::request::Layout;
use crate::session::Session;

/// Files as layers on top of each other, lowest first; none is an empty directory.
#[derive(Debug, Clone)]
pub struct Tree<L> {
    pub layers: Vec<L>,
}

impl<L> Default for Tree<L> {
    fn default() -> Self {
        Self { layers: Vec::new() }
    }
}

/// Images, layers, processes, results. Clones are handles on the same one.
pub trait Workspace: Debug + Clone + Send + Sync + 'static {
    /// A read-only directory of files. A clone keeps it.
    type Layer: Layer;
    /// A layer that is being written. Dropped, it is removed.
    type Draft: Draft;
    /// Held as long as a step is made, so that nobody else makes it.
    type Turn: Debug + Send + 'static;

    /// What runs here.
    fn platform(&self) -> Platform;

    /// An image by its full name or id: a local one, or one that is pulled.
    fn find_image(
        &self,
        name: &str,
        platform: &Platform,
        pull: bool,
        session: &Arc<dyn Session>,
        events: &Events,
    ) -> impl Future<Output = Result<Image>> + Send;

    /// An image in an OCI layout of the client's, which stands for `name`. How it comes is told of a step.
    fn find_layout(
        &self,
        name: &str,
        layout: &Layout,
        platform: &Platform,
        session: &Arc<dyn Session>,
        told: (&Events, &str),
    ) -> impl Future<Output = Result<Image>> + Send;

    /// The files of an image that was found.
    fn image(&self, image: &Image) -> Result<Tree<Self::Layer>>;

    /// The files of another build's result, and what they are known by.
    fn result(&self, id: &str) -> Option<(Tree<Self::Layer>, String)>;

    /// The configuration of another build's result, as JSON.
    fn result_config(&self, id: &str) -> Option<Vec<u8>>;

    /// A context that is fetched: an archive or a Dockerfile by HTTP, or a repository.
    fn fetch_context(&self, url: &str, session: &Arc<dyn Session>) -> impl Future<Output = Result<Sent>> + Send;

    /// Fetches a file into a draft. What makes it the same file again, for a step's key.
    fn fetch_file(&self, http: &Http, session: &Arc<dyn Session>)
    -> impl Future<Output = Result<Fetched<Self>>> + Send;

    /// Checks a repository out into a draft.
    fn fetch_git(&self, git: &Git, session: &Arc<dyn Session>) -> impl Future<Output = Result<Fetched<Self>>> + Send;

    /// An empty directory that becomes a layer.
    fn draft(&self) -> impl Future<Output = Result<Self::Draft>> + Send;

    /// Ends the writing of a layer on top of a tree; `made` is what was made in it only to mount something on, relative to its
    /// root; nothing in it is younger than `latest`. The layer can be used at once.
    fn seal(
        &self,
        draft: Self::Draft,
        below: &Tree<Self::Layer>,
        made: Vec<PathBuf>,
        latest: Option<Timestamp>,
    ) -> impl Future<Output = Result<Self::Layer>> + Send;

    /// The same layer on top of another tree.
    fn rebase(
        &self,
        layer: &Self::Layer,
        below: &Tree<Self::Layer>,
    ) -> impl Future<Output = Result<Self::Layer>> + Send;

    /// A layer by its name, if it is still there.
    fn layer(&self, name: &str) -> Option<Self::Layer>;

    /// All of a tree as one directory that nobody can write to.
    fn view(&self, tree: &Tree<Self::Layer>) -> impl Future<Output = Result<Root>> + Send;

    /// Where contents of a place's files are remembered.
    fn index(&self, key: &str) -> Option<PathBuf>;

    /// Runs a process. Dropped, the process and all its children end.
    fn run(&self, run: Run<'_, Self>) -> impl Future<Output = Result<Ended>> + Send;

    /// The files of a process that failed, as an image in which a shell is run as the process was.
    fn keep_failed(
        &self,
        draft: Self::Draft,
        below: &Tree<Self::Layer>,
        exec: &Exec,
        made: Vec<PathBuf>,
    ) -> impl Future<Output = Result<Digest>> + Send;

    /// Steps that are remembered whose description begins so. Does no I/O.
    fn earlier(&self, place: &str) -> Vec<Earlier>;

    /// What is remembered of a step, here or in a cache that was imported. Does no I/O.
    fn recall(&self, key: &str) -> Option<Recalled<Self::Layer>>;

    /// Brings the files of a step in from a cache that was imported, and remembers the step. `None`, saying so, if they cannot
    /// be had.
    fn obtain(
        &self,
        key: &str,
        vertex: &str,
        events: &Events,
    ) -> impl Future<Output = Option<Tree<Self::Layer>>> + Send;

    /// Waits until nobody else makes the step with this key.
    fn turn(&self, key: &str) -> impl Future<Output = Self::Turn> + Send;

    /// Remembers a step. Returns when it is; what is remembered is whole, whenever the engine is killed.
    fn remember(&self, made: Made, tree: &Tree<Self::Layer>) -> impl Future<Output = Result<()>> + Send;

    /// Lets a step be found by another key as well.
    fn alias(&self, key: &str, alias: &str) -> impl Future<Output = Result<()>> + Send;
}

pub trait Layer: Debug + Clone + Send + Sync + 'static {
    /// When it was made, if this engine made it.
    fn created(&self) -> Option<Timestamp>;

    /// What it is found by later. Waits for its digest.
    fn name(&self) -> impl Future<Output = Result<String>> + Send;
}

/// A directory that becomes a layer.
pub trait Draft: Debug + Send + Sync + 'static {
    /// Where files are written, without regard to what is below: what is written wins, and directories join.
    fn root(&self) -> &Root;
}

/// A process in a tree.
#[derive(Debug)]
pub struct Run<'a, W: Workspace> {
    pub exec: &'a Exec,
    pub root: &'a Tree<W::Layer>,
    /// What the mounts show, by the places of the step's inputs.
    pub inputs: &'a [Tree<W::Layer>],
    pub draft: &'a W::Draft,
    pub session: &'a Arc<dyn Session>,
    /// Where its output goes.
    pub vertex: &'a str,
    pub events: &'a Events,
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub out_of_memory: bool,
    /// What was made in the draft only to mount something on.
    pub made: Vec<PathBuf>,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched<W: Workspace> {
    pub draft: W::Draft,
    /// The digest of a file, a commit.
    pub identity: String,
}

/// An image that is here.
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

/// A result that was remembered.
#[derive(Debug, Clone)]
pub struct Recalled<L> {
    pub files: Known<L>,
    /// What steps on top of it know it by.
    pub identity: String,
}

/// A step that was made before.
#[derive(Debug, Clone)]
pub struct Earlier {
    pub description: String,
    pub made_of: Vec<(String, String)>,
    pub created: Timestamp,
}

/// Where a step's files are.
#[derive(Debug, Clone)]
pub enum Known<L> {
    Here(Tree<L>),
    /// In a cache that was imported ([`Workspace::obtain`]).
    Elsewhere,
    /// They are to be made.
    No,
}

impl<L> Known<L> {
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::No)
    }

    pub fn here(self) -> Option<Tree<L>> {
        match self {
            Self::Here(tree) => Some(tree),
            Self::Elsewhere | Self::No => None,
        }
    }
}

/// What is to be remembered of a step.
#[derive(Debug, Clone, Default)]
pub struct Made {
    pub key: String,
    /// Empty if it is the key.
    pub identity: String,
    pub aliases: Vec<String>,
    /// Keys of the steps it is on top of.
    pub parents: Vec<String>,
    /// Of what it is made, by name, for who asks why it was done.
    pub made_of: Vec<(String, String)>,
    /// BuildKit's word for it: `regular`, `source.git.checkout`, …
    pub kind: &'static str,
    pub description: String,
}
