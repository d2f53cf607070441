//! One instruction by its shape: what its arguments are is decided by its name, what they mean is not.

use serde_json::value::RawValue;

use super::heredoc::Heredoc;
use crate::error::Problem;
use crate::range::Range;
use crate::split;

/// An instruction whose arguments are cut, and nothing more.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// As it is written.
    pub name: String,
    /// With their dashes, without quotes.
    pub flags: Vec<String>,
    pub arguments: Arguments,
    /// The logical line.
    pub text: String,
    pub heredocs: Vec<Heredoc>,
    pub range: Range,
    /// The comments before it, without `#`.
    pub comments: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// `KEY=value …`, or `KEY some value` alone.
    Pairs {
        pairs: Vec<(String, String)>,
        legacy: bool,
    },
    /// `HEALTHCHECK`: the type, and the rest as it would be of `CMD`.
    Health {
        kind: String,
        command: Box<Arguments>,
    },
    /// `ONBUILD`: the instruction, and whether it may have here-documents.
    Trigger {
        name: String,
        documents: bool,
    },
}

impl Node {
    pub fn may_have_documents(&self) -> bool {
        match &self.arguments {
            Arguments::Trigger { documents, .. } => *documents,
            Arguments::Json(_) => false,
            _ => takes_documents(&self.name),
        }
    }
}

fn takes_documents(name: &str) -> bool {
    ["ADD", "COPY", "RUN"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

pub(crate) fn parse(text: String, escape: char) -> Result<Node, Problem> {
    let (name, flags, rest) = split::instruction(&text);
    let name = name.to_owned();
    let arguments = match name.to_ascii_uppercase().as_str() {
        "ONBUILD" => trigger_arguments(rest, escape)?,
        upper => arguments(upper, rest, escape)?,
    };
    Ok(Node {
        name,
        flags,
        arguments,
        text,
        heredocs: Vec::new(),
        range: Range::default(),
        comments: Vec::new(),
    })
}

/// The instruction of an `ONBUILD`, at the place where it is triggered. Its escape character is always `\`, as it may
/// come from an image.
pub(crate) fn trigger(expression: &str, range: Range) -> Result<Node, crate::Error> {
    let mut nodes = super::read(expression.as_bytes())
        .map_err(|error| error.problem.at(range))?
        .nodes;
    match (nodes.pop(), nodes.is_empty()) {
        (Some(mut node), true) => {
            node.range = range;
            Ok(node)
        }
        _ => Err(Problem::invalid("onbuild trigger should be a single expression").at(range)),
    }
}

fn arguments(upper: &str, rest: &str, escape: char) -> Result<Arguments, Problem> {
    Ok(match upper {
        "ADD" | "COPY" | "VOLUME" => match json(rest)? {
            Some(words) => Arguments::Json(words),
            None => Arguments::Words(split::blanks(rest)),
        },
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => command(rest)?,
        "ENV" => pairs("ENV", rest, escape)?,
        "LABEL" => pairs("LABEL", rest, escape)?,
        "ARG" => Arguments::Words(split::words(rest, escape)),
        "EXPOSE" | "FROM" => Arguments::Words(split::blanks(rest)),
        "HEALTHCHECK" => {
            let (kind, command_line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            match kind {
                "" => Arguments::Words(Vec::new()),
                kind => Arguments::Health {
                    kind: kind.to_owned(),
                    command: Box::new(command(command_line.trim_start())?),
                },
            }
        }
        _ => whole(rest),
    })
}

fn trigger_arguments(rest: &str, escape: char) -> Result<Arguments, Problem> {
    if rest.is_empty() {
        return Ok(Arguments::Words(Vec::new()));
    }
    let (name, _, rest) = split::instruction(rest);
    let upper = name.to_ascii_uppercase();
    // Its shape has to be right already; what it means is found when it is triggered.
    let arguments = arguments(&upper, rest, escape)?;
    Ok(Arguments::Trigger {
        documents: takes_documents(&upper) && !matches!(arguments, Arguments::Json(_)),
        name: name.to_owned(),
    })
}

fn whole(rest: &str) -> Arguments {
    Arguments::Words(match rest {
        "" => Vec::new(),
        rest => vec![rest.to_owned()],
    })
}

fn command(rest: &str) -> Result<Arguments, Problem> {
    Ok(match json(rest)? {
        Some(words) => Arguments::Json(words),
        None => whole(rest),
    })
}

/// `None` if it is no JSON array; an error if it is one, but not of strings.
fn json(rest: &str) -> Result<Option<Vec<String>>, Problem> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    // Items stay text until the whole is known to be JSON: an array of numbers may be as large as the file.
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(rest) else {
        return Ok(None);
    };
    let string = |item: &&RawValue| serde_json::from_str(item.get()).map_err(|_| Problem::JsonStrings);
    items.iter().map(string).collect::<Result<_, _>>().map(Some)
}

fn pairs(instruction: &'static str, rest: &str, escape: char) -> Result<Arguments, Problem> {
    let words = split::words(rest, escape);
    let legacy = words.first().is_some_and(|word| !word.contains('='));
    let pairs = if legacy {
        let (key, value) = split::legacy_pair(rest).ok_or(Problem::TwoArguments(instruction))?;
        vec![(key.to_owned(), value.to_owned())]
    } else {
        let pair = |word: &String| match word.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Problem::NoEquals(word.clone())),
        };
        words.iter().map(pair).collect::<Result<_, _>>()?
    };
    Ok(Arguments::Pairs { pairs, legacy })
}
