//! What steps are known by.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};

use ferry_image::Digest;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::source::{Chosen, Owned};
use super::{Output, Probed, Solver};
use crate::aside::blocking;
use crate::error::{Error, Result};
use crate::graph::{Files, Graph, MountKind, Op, StepId};
use crate::workspace::{Known, Workspace};

/// What no files at all are known by.
pub const SCRATCH: &str = "scratch";
/// Changes when the same step would become other files than before.
const VERSION: &str = "1";

/// Of what a step does and what it is on top of.
pub fn key(op: &str, what: &impl Serialize, inputs: &[String]) -> String {
    let json = serde_json::to_vec(&(VERSION, op, what, inputs)).unwrap_or_default();
    Digest::of(json).encoded().to_owned()
}

/// Names steps for progress: by what they do, so that a step of the same name is another one if it does something else.
pub fn vertices(graph: &Graph) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for (index, step) in graph.steps.iter().enumerate() {
        let inputs: Vec<&String> = step.inputs.iter().map(|input| &ids[input.0]).collect();
        let op = match &step.op {
            Op::Image(image) => serde_json::to_string(&("image", &image.id)),
            Op::Result(id) => serde_json::to_string(&("result", id)),
            Op::Context(context) => serde_json::to_string(&("context", context)),
            Op::Http(http) => serde_json::to_string(&("http", http)),
            Op::Git(git) => serde_json::to_string(&("git", git)),
            Op::Exec(exec) => serde_json::to_string(&("exec", exec)),
            Op::Files(files) => serde_json::to_string(&("files", files)),
            Op::Merge => serde_json::to_string("merge"),
        };
        let text = serde_json::to_string(&(op.unwrap_or_default(), inputs)).unwrap_or_default();
        let mut id = Digest::of(text).to_string();
        if !known.insert(id.clone()) {
            id = Digest::of(format!("{id} {index}")).to_string();
            known.insert(id.clone());
        }
        ids.push(id);
    }
    ids
}

impl<W: Workspace> Solver<W> {
    pub(super) async fn probe_now(self: &Arc<Self>, id: StepId) -> Result<Probed<W::Layer>> {
        let step = self.step(id);
        match &step.op {
            Op::Image(image) => {
                let identity = image.layers.iter().map(Digest::encoded).collect::<Vec<_>>().join(" ");
                Ok(Probed {
                    identity: key("image", &identity, &[]),
                    key: String::new(),
                    aliases: Vec::new(),
                    made_of: Vec::new(),
                    files: Known::Here(self.job.workspace.image(image)?),
                })
            }
            // By what it was made of, and not by its id: the same build comes to another one each time.
            Op::Result(result) => {
                let (tree, identity) = self.result(result)?;
                Ok(Probed {
                    identity,
                    key: String::new(),
                    aliases: Vec::new(),
                    made_of: Vec::new(),
                    files: Known::Here(tree),
                })
            }
            // Known by its contents only, which depends on who asks.
            Op::Context(context) => Ok(Probed {
                identity: key("context", context, &[]),
                key: String::new(),
                aliases: Vec::new(),
                made_of: Vec::new(),
                files: Known::No,
            }),
            Op::Http(_) | Op::Git(_) => self.fetch(id).await,
            Op::Exec(exec) => {
                let inputs = self.identities(id, exec.has_root.then_some(0)).await?;
                let mut made_of = vec![("instruction".to_owned(), key("exec", exec, &[]))];
                for (place, (input, identity)) in step.inputs.iter().zip(&inputs).enumerate() {
                    made_of.push((self.role(place, exec.has_root, *input), identity.clone()));
                }
                // What a process was told in secret, or by a proxy, does not count.
                let key = match self.epoch {
                    None => key("exec", &public(exec), &inputs),
                    // Its files get other times.
                    Some(epoch) => key("exec", &(public(exec), epoch), &inputs),
                };
                self.recalled(id, key, made_of)
            }
            Op::Files(files) => self.probe_files(id, files).await,
            Op::Merge => {
                let inputs = self.identities(id, None).await?;
                let made_of = inputs
                    .iter()
                    .map(|input| ("layers".to_owned(), input.clone()))
                    .collect();
                self.recalled(id, key("merge", &(), &inputs), made_of)
            }
        }
    }

    /// What a step's inputs are known by. What is below it, the input in the place `base`, may have to be made before that is
    /// known. In a build in which something is not remembered, the others are made meanwhile: stages beside each other.
    async fn identities(self: &Arc<Self>, id: StepId, base: Option<usize>) -> Result<Vec<String>> {
        let inputs = &self.step(id).inputs;
        let known = CancellationToken::new();
        let probing = async {
            let probes = inputs.iter().map(|input| self.probe(*input));
            let probed = try_join_all(probes).await?;
            known.cancel();
            Ok(probed.into_iter().map(|probed| probed.identity.clone()).collect())
        };
        let others = inputs
            .iter()
            .enumerate()
            .filter(|(place, _)| base.is_some_and(|base| base != *place));
        let others: Vec<StepId> = others
            .map(|(_, input)| *input)
            .filter(|input| !self.is_context(*input))
            .collect();
        let making = async {
            tokio::select! {
                biased;
                () = known.cancelled() => {}
                () = self.missed.cancelled() => {
                    try_join_all(others.iter().map(|input| self.make_early(*input))).await?;
                }
            }
            Ok::<_, Error>(())
        };
        let (identities, ()) = futures_util::future::try_join(probing, making).await?;
        Ok(identities)
    }

    async fn make_early(self: &Arc<Self>, id: StepId) -> Result<()> {
        match self.probe(id).await?.files {
            Known::No => self.output(id).await.map(drop),
            Known::Here(_) | Known::Elsewhere => Ok(()),
        }
    }

    /// How an input is called, for who asks why a step was done.
    fn role(&self, place: usize, has_root: bool, input: StepId) -> String {
        match (place, has_root) {
            (0, true) => "the files below".to_owned(),
            _ => self.step(input).name.clone(),
        }
    }

    /// Files by where they come from if that says all, and else by what they are.
    async fn probe_files(self: &Arc<Self>, id: StepId, what: &Files) -> Result<Probed<W::Layer>> {
        let step = self.step(id);
        let mut inputs = self.identities(id, what.base).await?;
        let mut made_of = vec![("instruction".to_owned(), key("files", what, &[]))];
        for (place, (input, identity)) in step.inputs.iter().zip(&inputs).enumerate() {
            made_of.push((self.role(place, what.base.is_some(), *input), identity.clone()));
        }
        let copied: Vec<usize> = what.copies().map(|copy| copy.input).collect();
        let from_context = copied.iter().any(|place| self.is_context(step.inputs[*place]));
        let quick = key("files", &(what, self.epoch), &inputs);
        if copied.is_empty() {
            return self.recalled(id, quick, made_of);
        }
        if !from_context && !step.no_cache {
            let found = self.recalled(id, quick.clone(), made_of.clone())?;
            if found.files.is_known() {
                return Ok(found);
            }
        }
        if !from_context {
            self.missed.cancel();
        }
        let (contents, chosen) = self.contents(id, what).await?;
        for place in copied {
            inputs[place].clone_from(&contents);
        }
        made_of.push(("contents".to_owned(), contents));
        let mut found = self.recalled(id, key("files", &(what, self.epoch), &inputs), made_of)?;
        if !matches!(found.files, Known::Here(_)) {
            *self.nodes[id.0].chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen);
        }
        if !from_context {
            if found.files.is_known() {
                self.job.workspace.alias(&found.key, &quick).await?;
            } else {
                found.aliases.push(quick);
            }
        }
        Ok(found)
    }

    /// A digest of all that a step copies, and what that is.
    pub(super) async fn contents(self: &Arc<Self>, id: StepId, what: &Files) -> Result<(String, Chosen)> {
        let step = self.step(id);
        let places: Vec<usize> = (0..step.inputs.len())
            .filter(|place| Some(*place) != what.base)
            .collect();
        let wanted: Vec<StepId> = places.iter().map(|place| step.inputs[*place]).collect();
        let outputs = self.outputs(&wanted).await?;
        let mut sources: Vec<Option<Owned>> = step.inputs.iter().map(|_| None).collect();
        for (place, output) in places.into_iter().zip(outputs) {
            sources[place] = Some(self.source(output).await?);
        }
        let what = what.clone();
        let digest = blocking("look at files", move || Chosen::select(&what, sources)?.digest(&what));
        digest.await?.map_err(|error| self.failure(id, error.to_string(), None))
    }

    /// A directory to copy from.
    pub(super) async fn source(&self, output: Output<W::Layer>) -> Result<Owned> {
        Ok(match output {
            Output::Directory(opened) => {
                let index = opened
                    .directory
                    .key
                    .as_deref()
                    .and_then(|key| self.job.workspace.index(key));
                Owned::Context { opened, index }
            }
            Output::Tree(tree) => Owned::Tree(self.job.workspace.view(&tree).await?),
        })
    }

    pub(super) fn is_context(&self, id: StepId) -> bool {
        matches!(self.step(id).op, Op::Context(_))
    }

    /// What is remembered under a key. A step that is to be done whatever is remembered becomes another one for those above.
    fn recalled(&self, id: StepId, key: String, made_of: Vec<(String, String)>) -> Result<Probed<W::Layer>> {
        if self.step(id).no_cache {
            let salt = ferry_kit::Id::random();
            return Ok(Probed {
                identity: self::key("again", &salt.to_string(), std::slice::from_ref(&key)),
                key,
                aliases: Vec::new(),
                made_of,
                files: Known::No,
            });
        }
        let found = self.job.workspace.recall(&key);
        let (identity, files) = match found {
            Some(found) => (found.identity, found.files),
            None => (key.clone(), Known::No),
        };
        Ok(Probed {
            identity,
            key,
            aliases: Vec::new(),
            made_of,
            files,
        })
    }

    fn result(&self, id: &str) -> Result<(crate::workspace::Tree<W::Layer>, String)> {
        let missing = || crate::Error::NotFound(format!("the result {id} of another build is gone"));
        self.job.workspace.result(id).ok_or_else(missing)
    }
}

/// A process without what its result does not depend on.
fn public(exec: &crate::graph::Exec) -> crate::graph::Exec {
    let mut exec = exec.clone();
    for mount in &mut exec.mounts {
        match &mut mount.kind {
            MountKind::Cache { id, .. } => id.clear(),
            MountKind::Bind { .. }
            | MountKind::Tmpfs { .. }
            | MountKind::Secret { .. }
            | MountKind::Ssh { .. }
            | MountKind::Document { .. } => {}
        }
    }
    exec
}
