//! Making what is not remembered.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use ferry_dockerfile::Range;

use super::source::{Chosen, Earlier};
use super::{Output, Probed, Solver};
use crate::aside::blocking;
use crate::error::{Error, Result};
use crate::files::Manifest;
use crate::graph::{Exec, Files, Op, StepId};
use crate::workspace::{Draft as _, Layer as _, Made, Run, Tree, Workspace};

impl<W: Workspace> Solver<W> {
    pub(super) async fn make(self: &Arc<Self>, id: StepId, probed: &Probed<W::Layer>) -> Result<Tree<W::Layer>> {
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
            Op::Exec(exec) => {
                self.explain(id, probed, None);
                (running.end(self.exec(id, exec, inputs).await)?, "regular")
            }
            Op::Files(files) => (running.end(self.write(id, probed, files, inputs).await)?, "regular"),
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
    }

    /// Writes a result down, while the build goes on.
    pub(super) fn remember(&self, made: Made, tree: &Tree<W::Layer>, turn: W::Turn) {
        let (workspace, tree) = (self.job.workspace.clone(), tree.clone());
        let failed = Arc::clone(&self.failed);
        self.behind.spawn(async move {
            if let Err(error) = workspace.remember(made, &tree).await {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
            }
            drop(turn);
        });
    }

    async fn exec(&self, id: StepId, exec: &Exec, inputs: Vec<Output<W::Layer>>) -> Result<Tree<W::Layer>> {
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
        let _permit = self.permits.acquire().await;
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
            let command = exec.args.join(" ");
            let quoted = ferry_kit::gofmt::quote(&command);
            let mut why = format!(
                "process {quoted} did not complete successfully: exit code: {}",
                ended.code
            );
            if ended.out_of_memory {
                why.push_str(": cannot allocate memory");
            }
            let mut failure = self.failure(id, why, Some(ended.code));
            if let Error::Step(failed) = &mut failure {
                failed.command = command;
                if self.job.request.keep_failed {
                    failed.image = Some(workspace.keep_failed(draft, &below, exec, ended.made).await?);
                }
            }
            return Err(failure);
        }
        self.sealed(draft, below, ended.made).await
    }

    async fn write(
        self: &Arc<Self>,
        id: StepId,
        probed: &Probed<W::Layer>,
        files: &Files,
        inputs: Vec<Output<W::Layer>>,
    ) -> Result<Tree<W::Layer>> {
        let workspace = &self.job.workspace;
        let below = match files.base.and_then(|base| inputs.into_iter().nth(base)) {
            Some(Output::Tree(tree)) => tree,
            Some(Output::Directory(_)) => return Err(Error::Internal("a context has no layers".to_owned())),
            None => Tree::default(),
        };
        let view = match below.layers.is_empty() {
            true => None,
            false => Some(workspace.view(&below).await?),
        };
        let chosen = self.nodes[id.0]
            .chosen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let chosen = match chosen {
            Some(chosen) => chosen,
            None if files.copies().next().is_none() => Chosen::default(),
            // Its result was to be had from a cache, and is not.
            None => self.contents(id, files).await?.1,
        };
        let place = self.place_of_manifest(files, &chosen);
        let earlier = match &place {
            Some(place) => self.earlier(place).await?,
            None => None,
        };
        let draft = workspace.draft().await?;
        let (files, epoch) = (files.clone(), self.epoch);
        let written = blocking("write files", move || {
            let manifest = chosen.write(&files, view.as_ref(), draft.root(), epoch, earlier.as_ref())?;
            let changed = earlier.and_then(|earlier| manifest.difference(&earlier.manifest));
            Ok((draft, manifest, changed))
        });
        let (draft, manifest, changed) = written.await?.map_err(|error| self.at(id, error))?;
        self.explain(id, probed, changed.as_deref());
        let tree = self.sealed(draft, below, Vec::new()).await?;
        if let (Some(place), Some(layer)) = (place, tree.layers.last()) {
            self.keep_manifest(place, manifest, layer.clone());
        }
        Ok(tree)
    }

    /// Where it is kept what a step like this one wrote from the same places.
    fn place_of_manifest(&self, files: &Files, chosen: &Chosen) -> Option<PathBuf> {
        let places = chosen.places();
        let like = super::key::key("like", &(files, self.epoch, &places), &[]);
        match places.is_empty() {
            true => None,
            false => self.job.workspace.index(&like),
        }
    }

    async fn earlier(&self, place: &Path) -> Result<Option<Earlier>> {
        let place = place.to_owned();
        let opened = tokio::task::spawn_blocking(move || Manifest::open(&place)).await;
        let Some((name, manifest)) = opened.map_err(|error| Error::internal("read a manifest", &error))? else {
            return Ok(None);
        };
        let workspace = &self.job.workspace;
        let Some(layer) = workspace.layer(&name) else {
            return Ok(None);
        };
        let root = workspace.view(&Tree { layers: vec![layer] }).await?;
        Ok(Some(Earlier { root, manifest }))
    }

    /// Once the layer has its name, while the build goes on. The next build is slower without it.
    fn keep_manifest(&self, place: PathBuf, manifest: Manifest, layer: W::Layer) {
        self.behind.spawn(async move {
            let Ok(name) = layer.name().await else { return };
            let kept = tokio::task::spawn_blocking(move || manifest.save(&place, &name)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, "cannot keep what is known of a step's files");
            }
        });
    }

    async fn sealed(&self, draft: W::Draft, below: Tree<W::Layer>, made: Vec<PathBuf>) -> Result<Tree<W::Layer>> {
        let layer = self.job.workspace.seal(draft, &below, made, self.epoch).await?;
        let mut tree = below;
        tree.layers.push(layer);
        Ok(tree)
    }

    async fn merge(&self, inputs: Vec<Output<W::Layer>>) -> Result<Tree<W::Layer>> {
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
