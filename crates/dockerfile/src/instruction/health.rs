//! `HEALTHCHECK`.

use std::time::Duration;

use super::CommandLine;
use super::flags::{Flags, Kind};
use super::parse::command_line;
use crate::error::Problem;
use crate::source::{Arguments, Node};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Not even the one of the base image.
    None,
    /// Times that are zero are the base image's or the engine's; so are no retries.
    Command {
        command: CommandLine,
        interval: Duration,
        timeout: Duration,
        start_period: Duration,
        start_interval: Duration,
        retries: u32,
    },
}

const FLAGS: [(&str, Kind); 5] = [
    ("interval", Kind::Text),
    ("retries", Kind::Text),
    ("start-interval", Kind::Text),
    ("start-period", Kind::Text),
    ("timeout", Kind::Text),
];

pub(super) fn parse(node: &Node) -> Result<Healthcheck, Problem> {
    let Arguments::Health { kind, command } = &node.arguments else {
        return Err(Problem::AtLeastOne("HEALTHCHECK"));
    };
    let is_empty = |words: &Vec<String>| words.is_empty();
    let nothing = matches!(&**command, Arguments::Words(words) | Arguments::Json(words) if is_empty(words));
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        return match nothing {
            true => Ok(Healthcheck::None),
            false => Err(Problem::invalid("HEALTHCHECK NONE takes no arguments")),
        };
    }
    let flags = Flags::parse(&node.flags, &FLAGS)?;
    if kind != "CMD" {
        let kind = ferry_kit::gofmt::quote(&kind);
        return Err(Problem::invalid(format!(
            "Unknown type {kind} in HEALTHCHECK (try CMD)"
        )));
    }
    if nothing {
        return Err(Problem::invalid("Missing command after HEALTHCHECK CMD"));
    }
    let time = |name: &'static str| time(name, &flags.text(name).unwrap_or_default());
    Ok(Healthcheck::Command {
        command: command_line(command),
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries: retries(&flags.text("retries").unwrap_or_default())?,
    })
}

/// At least a millisecond, or zero.
fn time(name: &str, text: &str) -> Result<Duration, Problem> {
    if text.is_empty() {
        return Ok(Duration::ZERO);
    }
    let time = ferry_kit::duration::parse_go(text).map_err(|error| Problem::invalid(error.to_string()))?;
    match Duration::try_from(time) {
        Ok(time) if time.is_zero() || time >= Duration::from_millis(1) => Ok(time),
        _ => Err(Problem::invalid(format!("Interval \"{name}\" cannot be less than 1ms"))),
    }
}

fn retries(text: &str) -> Result<u32, Problem> {
    if text.is_empty() {
        return Ok(0);
    }
    let quoted = ferry_kit::gofmt::quote(text);
    match text.parse::<i32>() {
        Ok(number) => {
            u32::try_from(number).map_err(|_| Problem::invalid(format!("--retries cannot be negative ({number})")))
        }
        Err(error) => {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            let what = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(Problem::invalid(format!("strconv.ParseInt: parsing {quoted}: {what}")))
        }
    }
}
