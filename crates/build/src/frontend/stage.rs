//! One stage: what it is based on, and its instructions in order.

use std::sync::Arc;

use ferry_dockerfile::Range;
use ferry_dockerfile::checks::{From, On};
use ferry_dockerfile::instruction::{Command, Instruction};
use ferry_dockerfile::words::Variables;
use ferry_image::Platform;

use super::Making;
use super::config::{History, ImageConfig, PATH};
use super::names::Numbering;
use crate::error::{Error, Result};
use crate::graph::{Op, StepId};
use crate::request::{Named, NoCache};
use crate::workspace::Workspace;

/// Stages that wait for each other, those aside that come in the order of the file.
const MAX_DEPTH: usize = 256;
/// The most instructions that `ONBUILD` adds in one build.
const MAX_TRIGGERED: usize = 100_000;

/// A stage as far as its instructions have come.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its files; none of a stage on `scratch` before its first step.
    pub files: Option<StepId>,
    pub image: ImageConfig,
    /// What processes see: `ENV`, and `ARG` with a value.
    pub env: Vec<(String, String)>,
    /// The same, for expansions.
    pub variables: Variables,
    /// `ARG`, in order.
    pub arguments: Vec<(String, Option<String>)>,
    pub workdir: String,
    pub user: String,
    pub platform: Platform,
    pub numbering: Numbering,
    pub no_cache: bool,
    /// By this stage itself.
    pub has_command: bool,
}

impl Stage {
    pub fn set(&mut self, key: &str, value: &str) {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.to_owned(), value.to_owned()));
        self.variables.insert(key.to_owned(), value.to_owned());
    }

    /// Notes an instruction in the history.
    pub fn note(&mut self, created_by: impl Into<String>, kind: Noted) {
        let mut created_by = created_by.into();
        if kind == Noted::Files {
            created_by.push_str(" # buildkit");
        }
        self.image.history.push(History {
            created: None,
            created_by,
            author: self.image.author.clone(),
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer: kind == Noted::Empty,
        });
    }

    pub fn shell(&self) -> Vec<String> {
        match self.image.config.shell.as_slice() {
            [] => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell.to_vec(),
        }
    }
}

/// What an instruction leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// A layer made by a command.
    Files,
    /// A layer.
    Layer,
    /// No layer.
    Empty,
}

/// Whether it has what is a stage for BuildKit: an image that is copied from, or the source of a mount, even of one without.
fn has_sources(instruction: &Instruction) -> bool {
    match &instruction.command {
        Command::Run(run) => !run.mount_flags.is_empty(),
        Command::Copy(copy) => copy.from.is_some(),
        _ => false,
    }
}

impl<W: Workspace> Making<'_, W> {
    /// A stage with all its instructions.
    pub async fn stage(&mut self, index: usize) -> Result<Arc<Stage>> {
        if let Some(done) = &self.stages[index] {
            return Ok(Arc::clone(done));
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let what = format!("more than {MAX_DEPTH} stages take files from stages that come after them");
            return Err(Error::Invalid(what));
        }
        let (mut stage, triggers) = Box::pin(self.begin(index)).await?;
        let own = &self.file.stages[index];
        stage.numbering.total += triggers
            .iter()
            .chain(&own.instructions)
            .filter(|instruction| is_counted(&instruction.command))
            .count();
        self.note_base(&mut stage, own.range);
        for instruction in triggers.iter().chain(&own.instructions) {
            self.instruction(&mut stage, instruction).await?;
        }
        self.depth -= 1;
        let done = Arc::new(stage);
        self.stages[index] = Some(Arc::clone(&done));
        Ok(done)
    }

    /// What a stage begins with, and the instructions its base adds.
    async fn begin(&mut self, index: usize) -> Result<(Stage, Vec<Instruction>)> {
        let written = &self.file.stages[index];
        let name = written.name.clone();
        let platform = self.scope.stages[index].platform.clone();
        let is_alone = self.file.stages.len() == 1 && !written.instructions.iter().any(has_sources);
        let numbering = Numbering {
            stage: if is_alone { String::new() } else { written.title(index) },
            ..Numbering::default()
        };
        let is_named = |wanted: &String| name.as_ref() == Some(wanted) || *wanted == written.title(index);
        let no_cache = match &self.job.request.no_cache {
            NoCache::None => false,
            NoCache::All => true,
            NoCache::Stages(stages) => stages.iter().any(is_named),
        };
        let mut stage = Stage {
            files: None,
            image: ImageConfig::scratch(&platform),
            env: Vec::new(),
            variables: Variables::new(),
            arguments: Vec::new(),
            workdir: String::new(),
            user: String::new(),
            platform: platform.clone(),
            numbering,
            no_cache,
            has_command: false,
        };
        // A named context takes the place of the whole stage.
        let instead = name.filter(|name| self.named(name).is_some());
        let on = match instead {
            Some(name) => On::Image(name),
            None => self.scope.stages[index].on.clone(),
        };
        match on {
            On::Scratch => {}
            On::Stage(base) => {
                let base = self.stage(base).await?;
                stage.files = base.files;
                stage.image = base.image.clone();
                stage.env.clone_from(&base.env);
                stage.variables.clone_from(&base.variables);
                stage.no_cache |= base.no_cache && matches!(self.job.request.no_cache, NoCache::All);
            }
            On::Image(name) if self.is_files(&name) => {
                let step = self.named_files(&name).await?;
                stage.files = step.map(|step| self.as_tree(step, "/", written.range));
                if let Some(Named::Result(id)) = self.named(&name).cloned() {
                    stage.image = self.result_config(&id)?;
                }
            }
            On::Image(name) => {
                let image = self.image(&name, &platform).await?;
                stage.image = ImageConfig::parse(&image.config)
                    .map_err(|error| Error::invalid(format!("the configuration of {name}: {error}")))?;
                stage.platform = image.platform.clone();
                stage.numbering.total = 1;
                let title = stage.numbering.next(&format!("FROM {}", image.name));
                stage.files = match image.layers.is_empty() {
                    true => None,
                    false => Some(self.image_step(image, title, vec![written.range])),
                };
            }
        }
        for pair in stage.image.config.env.clone() {
            let (key, value) = pair.split_once('=').unwrap_or((&pair, ""));
            stage.set(key, value);
        }
        if !stage.variables.contains_key("PATH") {
            stage.set("PATH", PATH);
            stage.image.set_env("PATH", PATH);
        }
        stage.workdir = match stage.image.config.working_dir.as_str() {
            "" => "/".to_owned(),
            workdir => workdir.to_owned(),
        };
        stage.user = stage.image.config.user.clone();
        let triggers = std::mem::take(&mut stage.image.config.on_build);
        if triggers.len() > MAX_TRIGGERED {
            return Err(Error::invalid(format!(
                "ONBUILD triggers more than {MAX_TRIGGERED} instructions"
            )));
        }
        let trigger = |text: &String| ferry_dockerfile::trigger(text, written.range);
        let triggers = triggers.iter().map(trigger).collect::<Result<Vec<_>, _>>()?;
        Ok((stage, triggers))
    }

    /// A base image's step was named before the number of steps was known.
    fn note_base(&mut self, stage: &mut Stage, range: Range) {
        let Some(StepId(files)) = stage.files.filter(|_| stage.numbering.done == 1) else {
            return;
        };
        let numbering = stage.numbering.clone();
        if let Some(step) = self.graph.steps.get_mut(files)
            && let Op::Image(image) = &step.op
            && step.ranges.first() == Some(&range)
        {
            let mut first = Numbering { done: 0, ..numbering };
            step.name = first.next(&format!("FROM {}", image.name));
        }
    }

    /// The step with the files that `--from` names.
    pub async fn from(&mut self, from: From, name: &str, platform: &Platform, range: Range) -> Result<Option<StepId>> {
        if let From::Stage(index) = from {
            return Ok(Box::pin(self.stage(index)).await?.files);
        }
        if self.is_files(name) {
            return self.named_files(name).await;
        }
        if name == "scratch" {
            return Ok(None);
        }
        let image = self.image(name, platform).await?;
        let title = format!("FROM {}", image.name);
        Ok(match image.layers.is_empty() {
            true => None,
            false => Some(self.image_step(image, title, vec![range])),
        })
    }

    /// What is known of another build's result.
    fn result_config(&self, id: &str) -> Result<ImageConfig> {
        let missing = || Error::NotFound(format!("the result {id} of another build is gone"));
        let config = self.job.workspace.result_config(id).ok_or_else(missing)?;
        ImageConfig::parse(&config).map_err(|error| Error::internal("read another build's result", &error))
    }
}

fn is_counted(command: &Command) -> bool {
    matches!(
        command,
        Command::Add(_) | Command::Copy(_) | Command::Run(_) | Command::Workdir(_)
    )
}
