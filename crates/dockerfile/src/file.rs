//! A whole Dockerfile: arguments, then stages.

use crate::error::{Error, Problem, Result};
use crate::instruction::{self, Argument, Command, Instruction, Parsed};
use crate::range::Range;
use crate::source::directive::Directive;
use crate::source::{self, Node};

/// A Dockerfile as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Dockerfile {
    pub directives: Vec<Directive>,
    /// `\` or `` ` ``.
    pub escape: char,
    /// Before the first stage, for `FROM`.
    pub arguments: Vec<GlobalArgument>,
    /// Never empty.
    pub stages: Vec<Stage>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalArgument {
    pub argument: Argument,
    pub range: Range,
}

/// `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The instruction as it is written: `from`.
    pub keyword: String,
    /// In lower case, from `AS`.
    pub name: Option<String>,
    /// An earlier stage's name or an image, before expansion.
    pub base: String,
    /// `--platform`, before expansion.
    pub platform: Option<String>,
    /// From a comment `# NAME what it is` before it.
    pub description: String,
    pub text: String,
    /// Of its `FROM`.
    pub range: Range,
    pub instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// Reads a file. `Err` has the first thing that is wrong with it.
    ///
    /// Time and memory are linear in the length of the file, whatever is in it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let source = source::read(bytes)?;
        let mut reading = Reading::default();
        source.nodes.iter().try_for_each(|node| reading.add(node).map(|_| ()))?;
        reading.finish(source.directives, source.escape)
    }

    /// The last stage with that name, or the one with that number, as `--target` and `COPY --from` mean it.
    pub fn stage(&self, reference: &str) -> Option<usize> {
        if let Some(named) = self.stage_named(reference) {
            return Some(named);
        }
        reference.parse().ok().filter(|index| *index < self.stages.len())
    }

    pub(crate) fn stage_named(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages
            .iter()
            .rposition(|stage| stage.name.as_deref() == Some(&name))
    }
}

impl Stage {
    /// Its name, or `stage-2` for the third without one.
    pub fn title(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}

/// One instruction that an image or a stage has for those who build on it, as it is at `range`.
pub fn trigger(expression: &str, range: Range) -> Result<Instruction> {
    let node = source::trigger(expression, range)?;
    match instruction::parse(&node).map_err(|problem| problem.at(range))? {
        Parsed::Instruction(instruction) => Ok(instruction),
        Parsed::From(_) => Err(Problem::invalid("FROM isn't allowed as an ONBUILD trigger").at(range)),
    }
}

/// A file that is read instruction by instruction.
#[derive(Default)]
pub(crate) struct Reading {
    arguments: Vec<GlobalArgument>,
    stages: Vec<Stage>,
}

/// What an instruction turned out to be, for those who look at instructions one by one.
pub(crate) enum Added<'a> {
    Stage(&'a Stage),
    Arguments(Vec<&'a str>),
    Other,
}

impl Reading {
    pub fn add(&mut self, node: &Node) -> Result<Added<'_>> {
        let parsed = instruction::parse(node).map_err(|problem| problem.inside(node.range))?;
        let instruction = match parsed {
            Parsed::From(from) => {
                self.stages.push(Stage {
                    keyword: node.name.clone(),
                    name: from.name,
                    base: from.base,
                    platform: from.platform,
                    description: from.description,
                    text: node.text.clone(),
                    range: node.range,
                    instructions: Vec::new(),
                });
                return Ok(self.stages.last().map_or(Added::Other, Added::Stage));
            }
            Parsed::Instruction(instruction) => instruction,
        };
        let Some(stage) = self.stages.last_mut() else {
            let Command::Arg(arguments) = instruction.command else {
                return Err(Problem::NoStage.at(node.range));
            };
            let first = self.arguments.len();
            let range = node.range;
            let global = |argument| GlobalArgument { argument, range };
            self.arguments.extend(arguments.into_iter().map(global));
            let names = self.arguments[first..].iter().map(|global| &*global.argument.name);
            return Ok(Added::Arguments(names.collect()));
        };
        stage.instructions.push(instruction);
        match stage.instructions.last().map(|last| &last.command) {
            Some(Command::Arg(arguments)) => Ok(Added::Arguments(
                arguments.iter().map(|argument| &*argument.name).collect(),
            )),
            _ => Ok(Added::Other),
        }
    }

    pub fn finish(self, directives: Vec<Directive>, escape: char) -> Result<Dockerfile> {
        if self.stages.is_empty() {
            return Err(Error::from(Problem::NoStages));
        }
        Ok(Dockerfile {
            directives,
            escape,
            arguments: self.arguments,
            stages: self.stages,
        })
    }
}
