//! What a build does, as a graph of steps. The kinds are those of BuildKit's LLB, so that one can be made of it.

use std::collections::BTreeMap;

use ferry_dockerfile::Range;
use ferry_dockerfile::instruction::Sharing;
use serde::Serialize;

use crate::request::{Address, Limits};
use crate::workspace::Image;

/// Steps in an order in which each comes after its inputs.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub steps: Vec<Step>,
}

/// The number of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StepId(pub usize);

#[derive(Debug, Clone)]
pub struct Step {
    pub op: Op,
    pub inputs: Vec<StepId>,
    /// `[build 2/5] RUN make`
    pub name: String,
    /// Where it stands in the Dockerfile.
    pub ranges: Vec<Range>,
    /// Do it whatever is remembered.
    pub no_cache: bool,
}

/// What a step does. What comes out are files, those of a tree or, of [`Op::Context`], of a directory.
#[derive(Debug, Clone)]
pub enum Op {
    Image(Image),
    /// Another build's result, by the id its owner knows it by.
    Result(String),
    Context(Context),
    Http(Http),
    Git(Git),
    Exec(Box<Exec>),
    Files(Files),
    /// The layers of all inputs on top of each other, first one lowest.
    Merge,
}

/// Files of whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Context {
    /// In the session.
    pub name: String,
    /// What of it is used, by this build, as BuildKit's `followpaths`.
    pub paths: Vec<String>,
    /// `.dockerignore`.
    pub exclude: Vec<String>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Http {
    pub url: String,
    pub checksum: Option<String>,
    /// What it is called.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Git {
    /// Without fragment and query.
    pub remote: String,
    /// A branch, tag or commit; empty for the remote's `HEAD`.
    pub reference: String,
    pub subdirectory: String,
    /// A commit it has to be.
    pub checksum: Option<String>,
    pub keep_git_dir: bool,
    pub submodules: bool,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Exec {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Values that the process sees and its cache does not: the proxy arguments.
    #[serde(skip)]
    pub proxies: BTreeMap<String, String>,
    pub cwd: String,
    pub user: String,
    pub hostname: String,
    /// `default`, `none`, `host` or a network's name.
    pub network: String,
    pub insecure: bool,
    pub extra_hosts: Vec<(String, Address)>,
    pub shm_size: i64,
    pub ulimits: Vec<(String, i64, i64)>,
    #[serde(skip)]
    pub cgroup_parent: String,
    #[serde(skip)]
    pub limits: Limits,
    pub devices: Vec<(String, bool)>,
    /// The first input is its root; without it, nothing is.
    pub has_root: bool,
    pub mounts: Vec<ExecMount>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExecMount {
    /// Absolute.
    pub target: String,
    pub kind: MountKind,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum MountKind {
    /// Of an input, by its place in [`Step::inputs`]; what is written is lost.
    Bind {
        input: usize,
        source: String,
        writable: bool,
    },
    Cache {
        id: String,
        sharing: SharingMode,
        /// What it begins with.
        input: Option<usize>,
        source: String,
        writable: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// Bytes; 0 for the kernel's default.
    Tmpfs { size: i64 },
    Secret {
        id: String,
        /// The variable that holds it; then there is a file only if `target` is not empty.
        env: Option<String>,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Ssh {
        id: String,
        required: bool,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// A script of the Dockerfile's own.
    Document { content: Vec<u8>, mode: u32 },
}

/// [`Sharing`], which is no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SharingMode {
    Shared,
    Private,
    Locked,
}

impl From<Sharing> for SharingMode {
    fn from(sharing: Sharing) -> Self {
        match sharing {
            Sharing::Shared => Self::Shared,
            Sharing::Private => Self::Private,
            Sharing::Locked => Self::Locked,
        }
    }
}

/// Files that are written, on top of a tree or of nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Files {
    /// What they are written on, by its place in [`Step::inputs`]. Of one without, links and users are looked up nowhere.
    pub base: Option<usize>,
    /// One after the other.
    pub actions: Vec<Action>,
}

impl Files {
    pub fn copies(&self) -> impl Iterator<Item = &Copy> {
        self.actions.iter().filter_map(|action| match action {
            Action::Copy(copy) => Some(copy),
            Action::MakeDirectory { .. } | Action::Documents { .. } => None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Action {
    Copy(Copy),
    /// With all above it; one that is there stays as it is.
    MakeDirectory {
        path: String,
        mode: u32,
        /// `user[:group]`
        owner: Option<String>,
    },
    /// Here-documents that become files.
    Documents {
        /// Name and content.
        files: Vec<(String, Vec<u8>)>,
        /// Absolute; with `/` at its end a directory.
        destination: String,
        chmod: Option<String>,
        owner: Option<String>,
    },
}

/// `COPY`, and what `ADD` does with local files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Copy {
    /// Whose files, by its place in [`Step::inputs`].
    pub input: usize,
    /// Relative to the input's root, cleaned; patterns unless `literal`. With `parents` a `/./` is where the part that is kept
    /// begins.
    pub sources: Vec<String>,
    /// Absolute; with `/` at its end a directory.
    pub destination: String,
    /// `user[:group]`, looked up in the base; without it everything is root's (or the source's own, with `keep_owner`).
    pub owner: Option<String>,
    /// As [`ferry_dockerfile::instruction::Chmod`] reads it.
    pub chmod: Option<String>,
    pub parents: bool,
    pub exclude: Vec<String>,
    /// Archives among the sources are unpacked into the destination.
    pub unpack: bool,
    /// A source without a match is no error.
    pub allow_missing: bool,
    pub keep_owner: bool,
    pub literal: bool,
}
