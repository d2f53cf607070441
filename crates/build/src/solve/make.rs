//! Making what is not remembered.
//!
//! Futures are boxed where they are made: a step's inputs are polled below it, and theirs below them, on one stack.

use ferry_dockerfile::Range;

use super::{Output, Probed, Solver};
use crate::error::{Error, Result};
use crate::graph::{Exec, Files, Op, StepId};
use crate::session::BoxFuture;
use crate::workspace::{Draft as _, Made, Run, Tree, Workspace};

impl<W: Workspace> Solver<'_, W> {
    pub(super) fn make<'s>(
        &'s self,
        id: StepId,
        probed: &'s Probed<W::Layer>,
    ) -> BoxFuture<'s, Result<Tree<W::Layer>>> {
        Box::pin(async move {
            let step = self.step(id);
            let workspace = &self.job.workspace;
            let inputs = self.outputs(&step.inputs).await?;
            let turn = workspace.turn(&probed.key).await;
            // Another build may have made it meanwhile.
            if !step.no_cache
                && let Some(tree) = workspace.recall(&probed.key).and_then(|found| found.files.here())
            {
                self.tell_cached(id);
                return Ok(tree);
            }
            let running = self.start(id);
            let (tree, kind) = match &step.op {
                Op::Exec(exec) => (running.end(self.exec(id, exec, inputs).await)?, "regular"),
                Op::Files(files) => (running.end(self.write(id, files, inputs).await)?, "regular"),
                Op::Merge => (running.end(self.merge(inputs).await)?, "regular"),
                Op::Image(_) | Op::Result(_) | Op::Context(_) | Op::Http(_) | Op::Git(_) => {
                    return Err(Error::Internal(format!("{} has no files to make", step.name)));
                }
            };
            let mut parents = Vec::new();
            for input in &step.inputs {
                parents.push(self.probe(*input).await?.key.clone());
            }
            parents.retain(|key| !key.is_empty());
            let made = Made {
                key: probed.key.clone(),
                identity: match probed.identity == probed.key {
                    true => String::new(),
                    false => probed.identity.clone(),
                },
                aliases: probed.aliases.clone(),
                parents,
                made_of: probed.made_of.clone(),
                kind,
                description: step.name.clone(),
            };
            self.remember(made, &tree, turn);
            Ok(tree)
        })
    }

    /// Writes a result down, while the build goes on.
    pub(super) fn remember(&self, made: Made, tree: &Tree<W::Layer>, turn: W::Turn) {
        let (workspace, tree) = (self.job.workspace.clone(), tree.clone());
        let failed = std::sync::Arc::clone(&self.failed);
        self.behind.spawn(async move {
            if let Err(error) = workspace.remember(made, &tree).await {
                let mut failed = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                failed.get_or_insert(error);
            }
            drop(turn);
        });
    }

    fn exec<'s>(
        &'s self,
        id: StepId,
        exec: &'s Exec,
        inputs: Vec<Output<W::Layer>>,
    ) -> BoxFuture<'s, Result<Tree<W::Layer>>> {
        Box::pin(async move {
            let mut trees = Vec::new();
            for input in inputs {
                match input {
                    Output::Tree(tree) => trees.push(tree),
                    Output::Directory(_) => return Err(Error::Internal("a context cannot be mounted".to_owned())),
                }
            }
            let below = match exec.has_root {
                true => trees.first().cloned().unwrap_or_default(),
                false => Tree::default(),
            };
            let workspace = &self.job.workspace;
            let draft = workspace.draft().await?;
            let ended = workspace
                .run(Run {
                    exec,
                    root: &below,
                    inputs: &trees,
                    draft: &draft,
                    session: &self.job.session,
                    vertex: &self.vertices[id.0],
                    events: &self.job.events,
                })
                .await;
            let ended = ended.map_err(|error| self.at(id, error))?;
            if ended.code != 0 {
                let command = ferry_kit::gofmt::quote(&exec.args.join(" "));
                let mut why = format!(
                    "process {command} did not complete successfully: exit code: {}",
                    ended.code
                );
                if ended.out_of_memory {
                    why.push_str(": cannot allocate memory");
                }
                return Err(self.failure(id, why, Some(ended.code)));
            }
            self.sealed(draft, below, ended.made).await
        })
    }

    fn write<'s>(
        &'s self,
        id: StepId,
        files: &'s Files,
        inputs: Vec<Output<W::Layer>>,
    ) -> BoxFuture<'s, Result<Tree<W::Layer>>> {
        Box::pin(async move {
            let workspace = &self.job.workspace;
            let mut below = Tree::default();
            let mut sources = Vec::new();
            for (place, input) in inputs.into_iter().enumerate() {
                match (files.base == Some(place), input) {
                    (true, Output::Tree(tree)) => {
                        below = tree;
                        sources.push(None);
                    }
                    (_, input) => sources.push(Some(self.source(input).await?)),
                }
            }
            let view = match below.layers.is_empty() {
                true => None,
                false => Some(workspace.view(&below).await?),
            };
            let draft = workspace.draft().await?;
            let (files, epoch) = (files.clone(), self.epoch);
            let written = tokio::task::spawn_blocking(move || {
                let done = super::source::write(&files, &sources, view.as_ref(), draft.root(), epoch);
                done.map(|()| draft)
            });
            let written = written.await.map_err(|error| Error::internal("write files", &error))?;
            let draft = written.map_err(|error| self.at(id, error))?;
            self.sealed(draft, below, Vec::new()).await
        })
    }

    async fn sealed(
        &self,
        draft: W::Draft,
        below: Tree<W::Layer>,
        made: Vec<std::path::PathBuf>,
    ) -> Result<Tree<W::Layer>> {
        let layer = self.job.workspace.seal(draft, &below, made).await?;
        let mut tree = below;
        tree.layers.push(layer);
        Ok(tree)
    }

    fn merge(&self, inputs: Vec<Output<W::Layer>>) -> BoxFuture<'_, Result<Tree<W::Layer>>> {
        Box::pin(async move {
            let mut tree = Tree::default();
            for input in inputs {
                let Output::Tree(other) = input else {
                    return Err(Error::Internal("a context has no layers".to_owned()));
                };
                if tree.layers.is_empty() {
                    tree = other;
                    continue;
                }
                for layer in other.layers {
                    let layer = self.job.workspace.rebase(&layer, &tree).await?;
                    tree.layers.push(layer);
                }
            }
            Ok(tree)
        })
    }

    /// An error as that of a step.
    pub(super) fn at(&self, id: StepId, error: Error) -> Error {
        match error {
            Error::Invalid(why) | Error::NotFound(why) => self.failure(id, why, None),
            other => other,
        }
    }
}

/// Ranges are told with the lines they are of.
pub fn excerpt(filename: &str, source: &[u8], ranges: &[Range]) -> String {
    let error = ferry_dockerfile::Error {
        ranges: ranges.to_vec(),
        ..ferry_dockerfile::Problem::Invalid(String::new()).into()
    };
    error.excerpt(filename, source)
}
