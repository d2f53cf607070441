//! Stage by stage, instruction by instruction, with the variables each has.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use ferry_image::Reference;

use super::bases::{Bases, Parent};
use super::instructions::{self, Used};
use super::{Options, Rule, Warnings};
use crate::error::{Error, Problem, Result};
use crate::file::{self, Dockerfile};
use crate::instruction::{Command, Instruction};
use crate::range::Range;
use crate::suggest;
use crate::words::Variables;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most variables all stages together may copy from what they are based on.
const MAX_INHERITED: usize = 5_000_000;

/// The most instructions that `ONBUILD` adds in one file: each stage on a base has all of its triggers again.
const MAX_TRIGGERED: usize = 100_000;

/// What an instruction changes for those after it, and for stages based on this one.
#[derive(Clone, Default)]
pub(super) struct State {
    pub variables: Rc<Variables>,
    /// Arguments without a value: known, and empty.
    pub declared: Rc<BTreeSet<String>>,
    pub workdir: String,
    /// In this file, not by an image.
    pub workdir_is_set: bool,
    pub shell_is_set: bool,
}

/// What the walk has at hand.
pub(super) struct Walk<'a> {
    pub file: &'a Dockerfile,
    pub globals: &'a Variables,
    pub options: &'a Options<'a>,
    pub warnings: &'a mut Warnings,
    by_name: HashMap<&'a str, usize>,
    /// Bytes that values took so far.
    pub spent: usize,
    inherited: usize,
    triggered: usize,
}

/// Where `--from` points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Stage(usize),
    /// An image, or a named context.
    Elsewhere,
}

pub(super) fn walk(file: &Dockerfile, bases: &Bases, options: &Options<'_>, warnings: &mut Warnings) -> Result<()> {
    let mut walk = Walk::new(file, bases, options, warnings);
    let needs = walk.needs()?;
    without_circles(file, &needs)?;
    let target = walk.target()?;
    let needed = reachable(bases, &needs, target.unwrap_or(file.stages.len() - 1));
    let looked_at = |index: usize| target.is_none() || needed[index];
    for (index, found) in bases.of.iter().enumerate() {
        if let Parent::Image(name) = &found.base {
            reference(name).map_err(|problem| problem.at(file.stages[index].range))?;
        }
    }
    walk.images_are_names()?;
    // What is wrong with any trigger comes before what is wrong with an instruction.
    let mut begun: Vec<(State, Vec<Instruction>)> = Vec::new();
    for (index, is_needed) in needed.iter().enumerate() {
        begun.push(walk.begin(index, bases, *is_needed)?);
    }
    let mut states: Vec<State> = Vec::new();
    for (index, (mut state, triggers)) in begun.into_iter().enumerate() {
        let stage = &file.stages[index];
        if let Parent::Stage(base) = bases.of[index].base {
            state = states[base].clone();
        }
        if looked_at(index) {
            let mut used = Used::default();
            for instruction in triggers.iter().chain(&stage.instructions) {
                instructions::look(&mut walk, index, &mut state, &mut used, instruction)?;
            }
        }
        states.push(state);
    }
    Ok(())
}

/// The stage that is built, and which ones that needs.
pub(super) fn needed(
    file: &Dockerfile,
    bases: &Bases,
    options: &Options<'_>,
    warnings: &mut Warnings,
) -> Result<(usize, Vec<bool>)> {
    let walk = Walk::new(file, bases, options, warnings);
    let needs = walk.needs()?;
    without_circles(file, &needs)?;
    let target = walk.target()?.unwrap_or(file.stages.len() - 1);
    let needed = reachable(bases, &needs, target);
    Ok((target, needed))
}

fn triggers_of(stage: &file::Stage) -> Vec<String> {
    let expression = |instruction: &Instruction| match &instruction.command {
        Command::Onbuild(expression) => Some(expression.clone()),
        _ => None,
    };
    stage.instructions.iter().filter_map(expression).collect()
}

fn reference(name: &str) -> Result<Option<Reference>, Problem> {
    if name == "scratch" {
        return Ok(None);
    }
    Reference::parse_named(name).map(Some).map_err(|error| {
        let name = ferry_kit::gofmt::quote(name);
        Problem::invalid(format!("failed to parse stage name {name}: {error}"))
    })
}

/// For each stage those that its instructions take something from, and where.
type Needs = Vec<Vec<(usize, Range)>>;

/// A stage that needs itself, by whatever way.
fn without_circles(file: &Dockerfile, needs: &Needs) -> Result<()> {
    let mut done = vec![false; needs.len()];
    for first in 0..needs.len() {
        // Each stage on the way, with the number of its next need.
        let mut way = vec![(first, 0)];
        let mut is_on_way = HashMap::from([(first, ())]);
        if done[first] {
            continue;
        }
        while let Some((stage, next)) = way.last_mut() {
            let Some(&(needed, _)) = needs[*stage].get(*next) else {
                done[*stage] = true;
                is_on_way.remove(stage);
                way.pop();
                continue;
            };
            *next += 1;
            if is_on_way.contains_key(&needed) {
                let title = file.stages[first].title(first);
                // As BuildKit finds its way back.
                let ranges = way
                    .iter()
                    .rev()
                    .map(|(stage, next)| needs[*stage][*next - 1].1)
                    .collect();
                return Err(Error {
                    ranges,
                    ..Problem::Circular(title).into()
                });
            }
            if !done[needed] {
                is_on_way.insert(needed, ());
                way.push((needed, 0));
            }
        }
    }
    Ok(())
}

fn reachable(bases: &Bases, needs: &Needs, target: usize) -> Vec<bool> {
    let mut reached = vec![false; needs.len()];
    let mut open = vec![target];
    while let Some(stage) = open.pop() {
        if std::mem::replace(&mut reached[stage], true) {
            continue;
        }
        open.extend(needs[stage].iter().map(|(needed, _)| *needed));
        if let Parent::Stage(base) = bases.of[stage].base {
            open.push(base);
        }
    }
    reached
}

/// Where `--from` of `COPY` points, of a file with that many stages.
pub(super) fn copy_origin(from: &str, stages: usize, named: impl Fn(&str) -> Origin) -> Result<Origin, Problem> {
    if let Ok(number) = from.parse::<i64>() {
        let index = usize::try_from(number).ok().filter(|index| *index < stages);
        return index
            .map(Origin::Stage)
            .ok_or_else(|| Problem::StageIndex(from.to_owned()));
    }
    let origin = named(from);
    if origin == Origin::Elsewhere && from.contains('$') {
        return Err(Problem::invalid(
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ));
    }
    Ok(origin)
}

impl<'a> Walk<'a> {
    fn new(file: &'a Dockerfile, bases: &'a Bases, options: &'a Options<'a>, warnings: &'a mut Warnings) -> Self {
        let mut by_name = HashMap::new();
        for (index, stage) in file.stages.iter().enumerate() {
            by_name.extend(stage.name.as_deref().map(|name| (name, index)));
        }
        Self {
            file,
            globals: &bases.globals,
            options,
            warnings,
            by_name,
            spent: 0,
            inherited: 0,
            triggered: 0,
        }
    }

    fn target(&self) -> Result<Option<usize>, Problem> {
        let Some(name) = self.options.target.filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        self.file.stage(name).map(Some).ok_or_else(|| {
            let nearest = suggest::nearest(name, self.by_name.keys().copied());
            let hint = nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
            let name = ferry_kit::gofmt::quote(name);
            Problem::invalid(format!("target stage {name} could not be found{hint}"))
        })
    }

    fn needs(&self) -> Result<Needs> {
        let of_stage = |stage: &file::Stage| {
            let mut needs = Vec::new();
            for instruction in &stage.instructions {
                for origin in self.origins(instruction)? {
                    if let Origin::Stage(index) = origin {
                        needs.push((index, instruction.range));
                    }
                }
            }
            Ok(needs)
        };
        self.file.stages.iter().map(of_stage).collect()
    }

    /// What is copied from has a name an image can have.
    fn images_are_names(&self) -> Result<()> {
        let instructions = self.file.stages.iter().flat_map(|stage| &stage.instructions);
        for instruction in instructions {
            if let Command::Copy(copy) = &instruction.command
                && let Some(from) = &copy.from
                && self.copy_origin(from)? == Origin::Elsewhere
            {
                reference(from).map_err(|problem| problem.at(instruction.range))?;
            }
        }
        Ok(())
    }

    fn origins(&self, instruction: &Instruction) -> Result<Vec<Origin>> {
        match &instruction.command {
            Command::Copy(copy) => match &copy.from {
                Some(from) => self
                    .copy_origin(from)
                    .map(|origin| vec![origin])
                    .map_err(|problem| problem.at(instruction.range)),
                None => Ok(Vec::new()),
            },
            Command::Run(run) => Ok(run.mount_sources().map(|from| self.mount_origin(&from)).collect()),
            _ => Ok(Vec::new()),
        }
    }

    pub fn mount_origin(&self, from: &str) -> Origin {
        match self.by_name.get(from.to_lowercase().as_str()) {
            Some(index) => Origin::Stage(*index),
            None => Origin::Elsewhere,
        }
    }

    pub fn copy_origin(&self, from: &str) -> Result<Origin, Problem> {
        copy_origin(from, self.file.stages.len(), |name| self.mount_origin(name))
    }

    /// What a stage on an image begins with, and what the base of any stage has for those who build on it.
    fn begin(&mut self, index: usize, bases: &Bases, is_needed: bool) -> Result<(State, Vec<Instruction>)> {
        let (state, triggers) = match &bases.of[index].base {
            Parent::Stage(base) if is_needed => (State::default(), triggers_of(&self.file.stages[*base])),
            Parent::Stage(_) => (State::default(), Vec::new()),
            Parent::Image(name) => self.image(name, index, bases)?,
        };
        let mut instructions = Vec::new();
        for trigger in triggers.iter().filter(|_| is_needed) {
            self.triggered += 1;
            if self.triggered > MAX_TRIGGERED {
                return Err(
                    Problem::invalid(format!("ONBUILD triggers more than {MAX_TRIGGERED} instructions")).into(),
                );
            }
            let instruction = file::trigger(trigger, self.file.stages[index].range)?;
            self.origins(&instruction)?;
            instructions.push(instruction);
        }
        Ok((state, instructions))
    }

    /// A stage on an image begins with what the image says.
    fn image(&mut self, name: &str, index: usize, bases: &Bases) -> Result<(State, Vec<String>)> {
        let stage = &self.file.stages[index];
        let found = &bases.of[index];
        let reference = reference(name).map_err(|problem| problem.at(stage.range))?;
        let base = reference.and_then(|reference| (self.options.base)(&reference.tagged(), &found.platform));
        let mut base = base.unwrap_or_default();
        let actual = &base.platform;
        if !actual.os.is_empty() && !actual.matches(&found.platform) {
            self.warnings.add(Rule::InvalidBaseImagePlatform, stage.range, || {
                format!(
                    "Base image {name} was pulled with platform \"{actual}\", expected \"{}\" for current build",
                    found.platform
                )
            });
        }
        base.variables
            .entry("PATH".to_owned())
            .or_insert_with(|| PATH.to_owned());
        let state = State {
            variables: Rc::new(base.variables),
            workdir: base.workdir,
            shell_is_set: !base.shell.is_empty(),
            ..State::default()
        };
        Ok((state, base.triggers))
    }

    /// Sets a variable. Stages share what they inherit until they change it.
    pub fn set(&mut self, state: &mut State, name: String, value: String) -> Result<(), Problem> {
        if Rc::strong_count(&state.variables) > 1 {
            self.inherited += state.variables.len();
            if self.inherited > MAX_INHERITED {
                return Err(Problem::invalid(format!(
                    "all stages together inherit more than {MAX_INHERITED} variables"
                )));
            }
        }
        Rc::make_mut(&mut state.variables).insert(name, value);
        Ok(())
    }
}
