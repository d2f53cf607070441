//! From shapes to instructions.

use super::{Argument, Command, CommandLine, Flags, Instruction, NAMES, Pairs, copy, flags, health, run};
use crate::error::Problem;
use crate::source::{Arguments, Node};
use crate::suggest;

/// An instruction, or the beginning of a stage.
#[derive(Debug)]
pub(crate) enum Parsed {
    From(From),
    Instruction(Instruction),
}

#[derive(Debug)]
pub(crate) struct From {
    pub base: String,
    /// In lower case.
    pub name: Option<String>,
    pub platform: Option<String>,
    pub description: String,
}

pub(crate) fn parse(node: &Node) -> Result<Parsed, Problem> {
    let command = match node.name.to_ascii_uppercase().as_str() {
        "FROM" => return from(node).map(Parsed::From),
        "ADD" => Command::Add(copy::parse(node, "ADD")?),
        "ARG" => arg(node)?,
        "CMD" => Command::Cmd(plain_command(node)?),
        "COPY" => Command::Copy(copy::parse(node, "COPY")?),
        "ENTRYPOINT" => Command::Entrypoint(plain_command(node)?),
        "ENV" => Command::Env(pairs(node, "ENV")?),
        "EXPOSE" => expose(node)?,
        "HEALTHCHECK" => Command::Healthcheck(health::parse(node)?),
        "LABEL" => Command::Label(pairs(node, "LABEL")?),
        "MAINTAINER" => Command::Maintainer(flagless(node, "MAINTAINER")?),
        "ONBUILD" => onbuild(node)?,
        "RUN" => Command::Run(run::parse(node)?),
        "SHELL" => shell(node)?,
        // Docker never looks at its flags.
        "STOPSIGNAL" => Command::StopSignal(single(node, "STOPSIGNAL")?),
        "USER" => Command::User(flagless(node, "USER")?),
        "VOLUME" => volume(node)?,
        "WORKDIR" => Command::Workdir(flagless(node, "WORKDIR")?),
        _ => {
            return Err(Problem::UnknownInstruction {
                name: node.name.clone(),
                nearest: suggest::nearest_in_case(&node.name, &NAMES),
            });
        }
    };
    Ok(Parsed::Instruction(Instruction {
        name: node.name.clone(),
        text: node.text.clone(),
        range: node.range,
        command,
    }))
}

fn words(node: &Node) -> &[String] {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words,
        _ => &[],
    }
}

fn no_flags(node: &Node) -> Result<(), Problem> {
    Flags::parse(&node.flags, &[]).map(|_| ())
}

fn single(node: &Node, name: &'static str) -> Result<String, Problem> {
    match words(node) {
        [word] => Ok(word.clone()),
        _ => Err(Problem::ExactlyOne(name)),
    }
}

fn flagless(node: &Node, name: &'static str) -> Result<String, Problem> {
    let word = single(node, name)?;
    no_flags(node)?;
    Ok(word)
}

/// The command of `RUN`, `CMD`, `ENTRYPOINT` and `HEALTHCHECK CMD`.
pub(super) fn command_line(arguments: &Arguments) -> CommandLine {
    match arguments {
        Arguments::Json(words) => CommandLine::Exec(words.clone()),
        Arguments::Words(words) => CommandLine::Shell(words.join(" ")),
        _ => CommandLine::Shell(String::new()),
    }
}

fn plain_command(node: &Node) -> Result<CommandLine, Problem> {
    no_flags(node)?;
    Ok(command_line(&node.arguments))
}

fn from(node: &Node) -> Result<From, Problem> {
    let (base, name) = match words(node) {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => return Err(Problem::invalid("FROM requires either one or three arguments")),
    };
    let flags = Flags::parse(&node.flags, &[("platform", flags::Kind::Text)])?;
    Ok(From {
        base: base.clone(),
        description: name.as_deref().map_or_else(String::new, |name| description(node, name)),
        name,
        platform: flags.text("platform").filter(|platform| !platform.is_empty()),
    })
}

/// `[a-z][a-z0-9-_.]*` in lower case.
fn stage_name(written: &str) -> Result<String, Problem> {
    let name = written.to_lowercase();
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(inner) {
        return Ok(name);
    }
    Err(Problem::invalid(format!(
        "invalid name for build stage: {}, name can't start with a number or contain symbols",
        ferry_kit::gofmt::quote(written)
    )))
}

/// What a comment `# name what it is` says.
fn description(node: &Node, name: &str) -> String {
    let of_name = |comment: &String| Some(comment.strip_prefix(name)?.strip_prefix(' ')?.to_owned());
    node.comments.iter().find_map(of_name).unwrap_or_default()
}

fn arg(node: &Node) -> Result<Command, Problem> {
    let words = words(node);
    if words.is_empty() {
        return Err(Problem::AtLeastOne("ARG"));
    }
    let argument = |word: &String| {
        let (name, default) = match word.split_once('=') {
            Some(("", _)) => return Err(Problem::BlankName("ARG")),
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(Argument {
            name: name.to_owned(),
            default,
            description: description(node, name),
        })
    };
    words.iter().map(argument).collect::<Result<_, _>>().map(Command::Arg)
}

fn pairs(node: &Node, name: &'static str) -> Result<Pairs, Problem> {
    no_flags(node)?;
    match &node.arguments {
        Arguments::Pairs { pairs, legacy } if !pairs.is_empty() => {
            if pairs.iter().any(|(key, _)| key.is_empty()) {
                return Err(Problem::BlankName(name));
            }
            Ok(Pairs {
                pairs: pairs.clone(),
                legacy: *legacy,
            })
        }
        _ => Err(Problem::AtLeastOne(name)),
    }
}

fn expose(node: &Node) -> Result<Command, Problem> {
    let mut ports = words(node).to_vec();
    if ports.is_empty() {
        return Err(Problem::AtLeastOne("EXPOSE"));
    }
    no_flags(node)?;
    ports.sort();
    Ok(Command::Expose(ports))
}

fn onbuild(node: &Node) -> Result<Command, Problem> {
    let Arguments::Trigger { name, .. } = &node.arguments else {
        return Err(Problem::AtLeastOne("ONBUILD"));
    };
    no_flags(node)?;
    match name.to_uppercase().as_str() {
        "ONBUILD" => {
            return Err(Problem::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        }
        upper @ ("FROM" | "MAINTAINER") => {
            return Err(Problem::invalid(format!("{upper} isn't allowed as an ONBUILD trigger")));
        }
        _ => {}
    }
    // Behind the word itself, which is as long in every case.
    let mut expression = node.text.trim_start()[node.name.len()..].trim_start().to_owned();
    for document in &node.heredocs {
        expression.push('\n');
        expression.push_str(&String::from_utf8_lossy(&document.content));
        expression.push_str(&document.name);
    }
    Ok(Command::Onbuild(expression))
}

fn shell(node: &Node) -> Result<Command, Problem> {
    no_flags(node)?;
    match &node.arguments {
        Arguments::Json(words) if !words.is_empty() => Ok(Command::Shell(words.clone())),
        Arguments::Words(words) if !words.is_empty() => {
            Err(Problem::invalid("SHELL requires the arguments to be in JSON form"))
        }
        _ => Err(Problem::AtLeastOne("SHELL")),
    }
}

pub(super) fn empty_volume() -> Problem {
    Problem::invalid("VOLUME specified can not be an empty string")
}

fn volume(node: &Node) -> Result<Command, Problem> {
    let paths = words(node);
    if paths.is_empty() {
        return Err(Problem::AtLeastOne("VOLUME"));
    }
    no_flags(node)?;
    let paths: Vec<String> = paths.iter().map(|path| path.trim().to_owned()).collect();
    if paths.iter().any(String::is_empty) {
        return Err(empty_volume());
    }
    Ok(Command::Volume(paths))
}
