//! What is wrong with a Dockerfile, and where. The texts are BuildKit's, since scripts and people know them.

use std::fmt;

use crate::range::{Lines, Range};

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One [`Problem`] at the places it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub problem: Problem,
    /// Empty for what concerns the file as a whole; a circle of stages has one range for each of its instructions.
    pub ranges: Vec<Range>,
    /// Found while one instruction was read: the text then begins with the number of its line.
    pub instruction: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("file with no instructions")]
    NoInstructions,
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("no build stage in current context")]
    NoStage,
    #[error("only one {0} parser directive can be used")]
    DirectiveTwice(String),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    Escape(String),
    #[error("unterminated heredoc")]
    Heredoc,
    #[error("unknown instruction: {name}{}", did_you_mean(nearest.as_deref()))]
    UnknownInstruction { name: String, nearest: Option<String> },
    #[error("unknown flag: --{name}{}", did_you_mean(nearest.as_deref()))]
    UnknownFlag { name: String, nearest: Option<String> },
    #[error("duplicate flag specified: --{0}")]
    FlagTwice(String),
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    FlagBoolean { name: String, value: String },
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    #[error("{0} requires at least two arguments, but only one was provided. Destination could not be determined")]
    NoDestination(&'static str),
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", ferry_kit::gofmt::quote(.0))]
    NoEquals(String),
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonStrings,
    #[error("failed to process {}: {}", ferry_kit::gofmt::quote(.0.word.as_str()), .0.what)]
    Expansion(crate::words::Failure),
    #[error("invalid stage index {0}")]
    StageIndex(String),
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    #[error("lint violation found for rules: {0}")]
    Checks(String),
    /// Any other thing BuildKit has a sentence for.
    #[error("{0}")]
    Invalid(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

impl Problem {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// As an error at one place.
    pub fn at(self, range: Range) -> Error {
        Error {
            problem: self,
            ranges: vec![range],
            instruction: false,
        }
    }

    /// As an error of one instruction.
    pub(crate) fn inside(self, range: Range) -> Error {
        Error {
            instruction: true,
            ..self.at(range)
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            ranges: Vec::new(),
            instruction: false,
        }
    }
}

impl From<crate::words::Failure> for Problem {
    fn from(failure: crate::words::Failure) -> Self {
        Self::Expansion(failure)
    }
}

impl Error {
    /// The lines it concerns, one-based, in order.
    pub fn lines(&self) -> impl Iterator<Item = Lines> {
        self.ranges.iter().map(Range::lines)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ranges.first() {
            Some(range) if self.instruction => {
                write!(
                    f,
                    "dockerfile parse error on line {}: {}",
                    range.start.line, self.problem
                )
            }
            _ => self.problem.fmt(f),
        }
    }
}

impl std::error::Error for Error {}
