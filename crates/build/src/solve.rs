//! From a graph to layers.
//!
//! ```text
//! probe: what is this step's key, and is its result remembered?        (asks its inputs what they are known by; no files)
//!   │ no
//! make:  the inputs' files, all at once ─▶ its turn ─▶ a draft ─▶ a process or files ─▶ sealed ─▶ remembered, behind
//! ```
//!
//! A key is made of what a step does and of what its inputs are known by. A step that takes files by their contents (`COPY`) has
//! two: a quick one of where they come from, if that says all, and the true one of what they are. What is not asked for is not
//! made: a build whose last step is remembered opens no file. As soon as one is not remembered, the stages that others copy from
//! are made beside each other.
//!
//! Each step's work is a task of its own: the stack of a thread has no room for a Dockerfile of a few hundred steps that ask each
//! other.

mod context;
mod explain;
mod fetch;
mod key;
mod make;
mod source;

pub(crate) use make::excerpt;
pub use source::copy_tree;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_dockerfile::Range;
use jiff::Timestamp;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::error::{Error, Failed, Result};
use crate::frontend::{Job, Opened, Plan};
use crate::graph::{Graph, Op, Step, StepId};
use crate::progress::{Event, Vertex};
use crate::session::BoxFuture;
use crate::workspace::{Known, Tree, Workspace};

/// How many processes of one build run at a time, however many stages it has.
const AT_ONCE: usize = 16;

/// The files of a build's target.
#[derive(Debug)]
pub struct Solution<W: Workspace> {
    pub tree: Tree<W::Layer>,
    /// What they are known by.
    pub identity: String,
    /// Keys of the steps that were looked at, those below first.
    pub keys: Vec<String>,
}

/// A graph that is being solved.
pub(crate) struct Solver<W: Workspace> {
    job: Job<W>,
    graph: Graph,
    /// For progress, by step.
    vertices: Vec<String>,
    nodes: Vec<Node<W>>,
    contexts: Mutex<HashMap<String, Opened>>,
    epoch: Option<Timestamp>,
    /// What is written down behind.
    behind: TaskTracker,
    /// Something is not remembered: the rest of the build need not hope that nothing has to be made.
    missed: CancellationToken,
    /// Steps whose end was told.
    told: Mutex<Vec<bool>>,
    failed: Arc<Mutex<Option<Error>>>,
    /// For processes.
    permits: Semaphore,
}

/// What is known of a step.
struct Node<W: Workspace> {
    probed: OnceCell<Probed<W::Layer>>,
    made: OnceCell<Output<W::Layer>>,
    /// The files of a step that copies some and is not remembered, between its key and its writing.
    chosen: Mutex<Option<source::Chosen>>,
}

/// A step's key, and its result if it is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Probed<L> {
    /// What steps on top of it know it by.
    pub identity: String,
    /// Under which its result is remembered; empty for what is not.
    pub key: String,
    /// Other keys under which it is to be found.
    pub aliases: Vec<String>,
    pub made_of: Vec<(String, String)>,
    pub files: Known<L>,
}

/// A step's files.
#[derive(Debug, Clone)]
pub(crate) enum Output<L> {
    Tree(Tree<L>),
    Directory(Opened),
}

/// Makes what a plan is for.
pub async fn solve<W: Workspace>(job: &Job<W>, plan: &Plan) -> Result<Solution<W>> {
    let Some(target) = plan.target else {
        return Ok(Solution {
            tree: Tree::default(),
            identity: key::SCRATCH.to_owned(),
            keys: Vec::new(),
        });
    };
    let solver = Arc::new(Solver {
        job: job.clone(),
        graph: plan.graph.clone(),
        vertices: key::vertices(&plan.graph),
        nodes: plan.graph.steps.iter().map(|_| Node::default()).collect(),
        contexts: Mutex::new(plan.contexts.clone()),
        epoch: plan.epoch,
        behind: TaskTracker::new(),
        missed: CancellationToken::new(),
        told: Mutex::new(vec![false; plan.graph.steps.len()]),
        failed: Arc::default(),
        permits: Semaphore::new(AT_ONCE),
    });
    solver.announce(target);
    let solved = async {
        let tree = match job.request.has_no_output && solver.probe(target).await?.files.is_known() {
            true => {
                solver.tell_cached(target);
                Tree::default()
            }
            false => solver.files_of(target).await?,
        };
        let identity = solver.probe(target).await?.identity.clone();
        Ok(Solution {
            tree,
            identity,
            keys: solver.keys(),
        })
    };
    let solved = solved.await;
    solver.behind.close();
    solver.behind.wait().await;
    let failed = solver.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed.map_or(solved, Err) {
        Err(Error::Step(mut failed)) => {
            failed.show(&plan.filename, &plan.source);
            Err(Error::Step(failed))
        }
        solved => solved,
    }
}

/// Work that is a task of its own: a step asks its inputs, which ask theirs, and a thread's stack has room for few of them.
/// Dropped, it ends.
async fn task<T: Send + 'static>(work: BoxFuture<'static, Result<T>>) -> Result<T> {
    let done = AbortOnDropHandle::new(tokio::spawn(work)).await;
    done.map_err(|error| Error::internal("a step's task", &error))?
}

impl<W: Workspace> Default for Node<W> {
    fn default() -> Self {
        Self {
            probed: OnceCell::new(),
            made: OnceCell::new(),
            chosen: Mutex::default(),
        }
    }
}

impl<W: Workspace> Solver<W> {
    fn step(&self, id: StepId) -> &Step {
        &self.graph.steps[id.0]
    }

    /// Tells which steps there are, as far as the target needs them.
    fn announce(&self, target: StepId) {
        let mut needed = vec![false; self.graph.steps.len()];
        needed[target.0] = true;
        // What a step needs comes before it.
        for index in (0..=target.0).rev() {
            if needed[index] {
                for input in &self.graph.steps[index].inputs {
                    needed[input.0] = true;
                }
            }
        }
        for index in (0..=target.0).filter(|index| needed[*index]) {
            self.job.events.send(Event::Vertex(self.vertex(StepId(index))));
        }
    }

    fn vertex(&self, id: StepId) -> Vertex {
        let step = self.step(id);
        let inputs = step.inputs.iter().map(|input| self.vertices[input.0].clone());
        Vertex {
            id: self.vertices[id.0].clone(),
            inputs: inputs.collect(),
            name: step.name.clone(),
            ..Vertex::default()
        }
    }

    /// What a step is known by.
    pub(crate) async fn probe(self: &Arc<Self>, id: StepId) -> Result<&Probed<W::Layer>> {
        let probing = || task(Arc::clone(self).probing(id));
        self.nodes[id.0].probed.get_or_try_init(probing).await
    }

    fn probing(self: Arc<Self>, id: StepId) -> BoxFuture<'static, Result<Probed<W::Layer>>> {
        Box::pin(async move { self.once(self.probe_now(id)).await })
    }

    /// A step's files, which are made if they have to be.
    pub(crate) async fn output(self: &Arc<Self>, id: StepId) -> Result<Output<W::Layer>> {
        let making = || task(Arc::clone(self).making(id));
        self.nodes[id.0].made.get_or_try_init(making).await.cloned()
    }

    async fn files_of(self: &Arc<Self>, target: StepId) -> Result<Tree<W::Layer>> {
        match self.output(target).await? {
            Output::Tree(tree) => Ok(tree),
            Output::Directory(_) => Err(Error::invalid("a context is no image")),
        }
    }

    fn making(self: Arc<Self>, id: StepId) -> BoxFuture<'static, Result<Output<W::Layer>>> {
        Box::pin(async move { self.once(self.output_now(id)).await })
    }

    /// What fails, fails once: those that waited for it would do it again.
    async fn once<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let failed = || self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed().is_some() {
            return Err(Error::Canceled);
        }
        match work.await {
            Err(Error::Canceled) => Err(Error::Canceled),
            Err(error) => {
                failed().get_or_insert(error);
                Err(Error::Canceled)
            }
            done => done,
        }
    }

    async fn output_now(self: &Arc<Self>, id: StepId) -> Result<Output<W::Layer>> {
        let step = self.step(id);
        if let Op::Context(context) = &step.op {
            return self.open_context(id, context).await.map(Output::Directory);
        }
        let probed = self.probe(id).await?;
        let tree = match &probed.files {
            Known::Here(tree) => Some(tree.clone()),
            Known::Elsewhere => self.obtain(id, probed).await,
            Known::No => None,
        };
        let tree = match (tree, &step.op) {
            (Some(tree), _) => {
                self.tell_cached(id);
                tree
            }
            (None, Op::Http(_) | Op::Git(_)) => self.fetch_again(id).await?,
            (None, _) => self.make(id, probed).await?,
        };
        Ok(Output::Tree(tree))
    }

    /// A step's files from a cache that was imported; `None` if they cannot be had after all.
    async fn obtain(&self, id: StepId, probed: &Probed<W::Layer>) -> Option<Tree<W::Layer>> {
        let workspace = &self.job.workspace;
        let _turn = workspace.turn(&probed.key).await;
        // Another build may have brought it meanwhile.
        if let Some(tree) = workspace.recall(&probed.key).and_then(|found| found.files.here()) {
            return Some(tree);
        }
        workspace
            .obtain(&probed.key, &self.vertices[id.0], &self.job.events)
            .await
    }

    /// The keys of all steps that were looked at.
    fn keys(&self) -> Vec<String> {
        let probed = self.nodes.iter().filter_map(|node| node.probed.get());
        let keys = probed.map(|probed| probed.key.clone());
        keys.filter(|key| !key.is_empty()).collect()
    }

    /// The files of all inputs, made at the same time.
    async fn outputs(self: &Arc<Self>, ids: &[StepId]) -> Result<Vec<Output<W::Layer>>> {
        let outputs = ids.iter().map(|id| self.output(*id));
        futures_util::future::try_join_all(outputs).await
    }

    /// A remembered step is told once, and those below it, which nobody asks for.
    fn tell_cached(&self, id: StepId) {
        let mut open = vec![id];
        let mut below = Vec::new();
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(id) = open.pop() {
                if !std::mem::replace(&mut told[id.0], true) {
                    below.push(id);
                    open.extend(&self.step(id).inputs);
                }
            }
        }
        below.sort_unstable();
        for id in below {
            let running = self.job.events.start_as(Vertex {
                cached: true,
                ..self.vertex(id)
            });
            let _ = running.end(Ok::<_, Error>(()));
        }
    }

    /// Begins a step that is not remembered.
    fn start(&self, id: StepId) -> crate::progress::Running {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)[id.0] = true;
        self.job.events.start_as(self.vertex(id))
    }

    fn failure(&self, id: StepId, why: String, exit_code: Option<i32>) -> Error {
        let step = self.step(id);
        let ranges: Vec<Range> = step.ranges.clone();
        Error::Step(Box::new(Failed {
            vertex: self.vertices[id.0].clone(),
            name: step.name.clone(),
            why,
            command: String::new(),
            exit_code,
            ranges,
            ..Failed::default()
        }))
    }
}
