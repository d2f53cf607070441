//! What a person reads who asked for help, or typed what there is not.

use super::{COMMON, COMPLETION, GROUPS, HIDDEN, ROOT, SPECS, instead, manifest};
use crate::{
    environment::Environment,
    failure::{Failure, Result},
    flags::{Arity, Spec, flag_texts},
    hints,
    ui::{Channel, Ui},
};

/// What was probably meant, below a complaint that a person reads.
pub(super) fn meant(ui: &Ui, find: impl FnOnce() -> Option<String>) -> String {
    let found = ui.is_terminal(Channel::Stderr).then(find).flatten();
    found.map_or_else(String::new, |meant| format!("\n\n{}", hints::question(&meant)))
}

pub(super) fn command_meant(program: &str, in_group: bool, typed: &str) -> Option<String> {
    let paths = SPECS.iter().flat_map(|spec| match spec.aliases {
        "" => spec.name.split(", "),
        aliases => aliases.split(", "),
    });
    let groups = GROUPS.iter().map(|(name, _)| *name);
    let paths = paths.chain(groups).filter(|path| path.contains(' ') == in_group);
    hints::nearest(typed, paths).map(|path| format!("{program} {path}"))
}

pub(super) fn flag_meant(spec: &Spec, complaint: &str) -> Option<String> {
    let typed = complaint.strip_prefix("unknown flag: --")?;
    let flags = spec.definitions();
    hints::nearest(typed, flags.iter().map(|flag| flag.name)).map(|name| format!("--{name}"))
}

pub(super) fn unknown(program: &str, group: Option<&str>, typed: &str) -> String {
    // What docker's source calls these two.
    let usage = |group: &str| match group {
        "manifest" | "volume" => format!("{group} COMMAND"),
        group => group.to_owned(),
    };
    if let Some(instead) = instead(typed) {
        return format!("{program}: {typed} is not supported: {instead}");
    }
    match group {
        Some(group) => format!(
            "{program}: unknown command: {program} {typed}\n\nUsage:  {program} {}\n\nRun '{program} {group} --help' for more information",
            usage(group)
        ),
        None => format!("{program}: unknown command: {program} {typed}\n\nRun '{program} --help' for more information"),
    }
}

/// `docker ps [OPTIONS]`; a command that is used in several ways has a line for each.
pub(super) fn usage_line(program: &str, path: &str, spec: &Spec) -> String {
    let line = |path: &str, synopsis: &str| {
        let parts = [program, path, synopsis].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(" ")
    };
    // Docker writes the further ones out with the short name.
    let line = |(at, synopsis): (usize, &str)| line(if at == 0 { path } else { spec.name }, synopsis);
    let ways = spec.synopsis.split('\n').enumerate().map(line);
    ways.collect::<Vec<_>>().join("\n\t")
}

pub(super) fn bad_flag(program: &str, path: &str, spec: &Spec, complaint: &str) -> Failure {
    let usage = usage_line(program, path, spec);
    let command = if path.is_empty() {
        program.to_owned()
    } else {
        format!("{program} {path}")
    };
    let text = format!("{complaint}\n\nUsage:  {usage}\n\nRun '{command} --help' for more information");
    Failure {
        code: 125,
        message: text,
    }
}

pub(super) fn check_arity(program: &str, path: &str, spec: &Spec, count: usize) -> Result<()> {
    // The one command that is checked by docker's library and not by docker.
    if path == "context use" && count != 1 {
        return Err(Failure::new(format!("accepts 1 arg(s), received {count}")));
    }
    let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
    let (complaint, see) = match spec.arity {
        Arity::None if count > 0 => ("accepts no arguments".to_owned(), "Run"),
        Arity::Exactly(want) if count != want => (format!("requires {want} {}", plural(want)), "Run"),
        Arity::AtLeast(want) if count < want => (format!("requires at least {want} {}", plural(want)), "See"),
        Arity::AtMost(want) if count > want => (format!("requires at most {want} {}", plural(want)), "Run"),
        Arity::Between(low, high) if !(low..=high).contains(&count) => (
            format!("requires at least {low} and at most {high} {}", plural(high)),
            "Run",
        ),
        _ => return Ok(()),
    };
    let usage = usage_line(program, path, spec);
    Err(Failure::new(format!(
        "{program}: '{program} {path}' {complaint}\n\nUsage:  {usage}\n\n{see} '{program} {path} --help' for more information"
    )))
}

pub(super) fn command(program: &str, path: &str, spec: &Spec, columns: usize) -> String {
    let mut out = format!("Usage:  {}\n\n{}\n", usage_line(program, path, spec), spec.about);
    if !spec.aliases.is_empty() {
        let aliases: Vec<String> = spec
            .aliases
            .split(", ")
            .map(|alias| format!("{program} {alias}"))
            .collect();
        out.push_str(&format!("\nAliases:\n  {}\n", aliases.join(", ")));
    }
    if let Some(command) = spec.name.strip_prefix("manifest ") {
        out.push_str(&experimental(&format!("manifest {command}")));
    }
    let [flags, own] = spec.groups();
    for (title, flags) in [("Options", flags), ("Options of Ferry's own", own)] {
        if !flags.is_empty() {
            out.push_str(&format!("\n{title}:\n{}", flag_texts(&flags, columns)));
        }
    }
    out
}

/// Docker's words, about Docker's command.
fn experimental(command: &str) -> String {
    format!(
        "\nEXPERIMENTAL:\n  docker {command} is an experimental feature.\n  Experimental features provide early access to \
         product functionality. These\n  features may change between releases without warning, or can be removed from a\n  \
         future release. Learn more about experimental features in our documentation:\n  \
         https://docs.docker.com/go/experimental/\n"
    )
}

fn listing<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort_unstable();
    entries
        .into_iter()
        .map(|(name, about)| format!("  {name:<11} {about}\n"))
        .collect()
}

/// The commands of a group, by their names in it.
pub(crate) fn members(group: &str) -> Vec<(&'static str, &'static str)> {
    let shown = SPECS.iter().filter(|spec| !HIDDEN.contains(&spec.name));
    let named = shown.filter_map(|spec| {
        let mut paths = if spec.aliases.is_empty() {
            spec.name
        } else {
            spec.aliases
        }
        .split(", ");
        let name = paths.find_map(|path| path.strip_prefix(group)?.strip_prefix(' '))?;
        Some((name, spec.summary()))
    });
    named.collect()
}

pub(super) fn group(program: &str, group: &str, about: &str) -> String {
    let about = match group {
        "manifest" => format!("{}{}", manifest::ABOUT, experimental(group)),
        _ => format!("{about}\n"),
    };
    format!(
        "Usage:  {program} {group} COMMAND\n\n{about}\nCommands:\n{}\nRun '{program} {group} COMMAND --help' for more information on a command.\n",
        listing(members(group))
    )
}

pub(super) fn root(env: &Environment, ui: &Ui) -> String {
    let program = &env.program;
    let top_level = |specs: &[&'static Spec]| {
        let named = specs.iter().filter(|spec| !spec.name.contains(' '));
        named.map(|spec| (spec.name, spec.summary())).collect::<Vec<_>>()
    };
    let common: String = top_level(&SPECS[..COMMON])
        .into_iter()
        .map(|(name, about)| format!("  {name:<11} {about}\n"))
        .collect();
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\n{}\n\nCommon Commands:\n{common}\nManagement Commands:\n{}\nCommands:\n{}\nGlobal Options:\n{}\nRun '{program} COMMAND --help' for more information on a command.\n",
        ROOT.about,
        listing(GROUPS.into_iter().filter(|(name, _)| *name != COMPLETION)),
        listing(top_level(&SPECS[COMMON..])),
        flag_texts(&ROOT.definitions(), ui.columns()),
    )
}
