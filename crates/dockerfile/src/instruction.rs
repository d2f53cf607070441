//! Instructions as they are written, with their flags. Values of variables come later.
//!
//! What is expanded, and when, is decided here: [`Command::expand`] puts an environment's values into everything that may
//! have variables, and what can only be understood afterwards ([`Mount`], [`Chmod`], [`Port`]) is parsed from the result.
//!
//! | instruction | expanded |
//! |---|---|
//! | `ADD` `COPY` | sources, destination, `--chown`, `--chmod`, `--exclude`, `--checksum`; here-documents without quotes |
//! | `ENV` `LABEL` | names and values, all with the environment before the instruction |
//! | `ARG` | the default value, only if no other is given: by the caller |
//! | `EXPOSE` | each word, which may become several |
//! | `RUN` | `--mount` but for `from`, `--device`; the command is the shell's |
//! | `STOPSIGNAL` `USER` `VOLUME` `WORKDIR` | all |
//! | `CMD` `ENTRYPOINT` `HEALTHCHECK` `MAINTAINER` `ONBUILD` `SHELL` | nothing |
//!
//! `FROM`, with `--platform`, knows only the arguments before the first stage.

mod chmod;
mod copy;
mod expand;
mod flags;
mod health;
mod mount;
mod parse;
mod port;
mod run;

pub use chmod::{Chmod, Clause};
pub use copy::{Document, Transfer, is_git, is_http};
pub use expand::Expander;
pub use health::Healthcheck;
pub use mount::{Mount, MountKind, Sharing};
pub use port::Port;
pub use run::{Device, Network, Run, Script, Security};

pub(crate) use flags::Flags;
pub(crate) use parse::{Parsed, parse};

use crate::range::Range;

/// Every instruction but `FROM`, in the words of the API's reference, upper case.
pub(crate) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// As it is written: `copy`.
    pub name: String,
    /// The logical line, as progress and history show it.
    pub text: String,
    pub range: Range,
    pub command: Command,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    Add(Transfer),
    Arg(Vec<Argument>),
    Cmd(CommandLine),
    Copy(Transfer),
    Entrypoint(CommandLine),
    Env(Pairs),
    /// Ports as words.
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Pairs),
    Maintainer(String),
    /// The instruction that is triggered, with its here-documents.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `NAME` or `NAME=default` of `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub default: Option<String>,
    /// From a comment `# NAME what it is` before it.
    pub description: String,
}

/// Names and values of `ENV` and `LABEL`, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    pub pairs: Vec<(String, String)>,
    /// Written as `NAME some value`.
    pub legacy: bool,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// A JSON array: arguments, run as they are.
    Exec(Vec<String>),
    /// Text for the shell; empty if there is none.
    Shell(String),
}

/// Go's `strconv.ParseBool`.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
