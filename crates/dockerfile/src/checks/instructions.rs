//! Rules about one instruction, with its variables; and the errors it would end the build with.

use std::rc::Rc;

use ferry_image::Digest;

use super::walk::{Origin, State, Walk};
use super::{Rule, Warnings};
use crate::error::{Problem, Result};
use crate::instruction::{
    Argument, Chmod, Command, CommandLine, Expander, Instruction, MountKind, Pairs, Port, Run, Transfer, is_git,
    is_http,
};
use crate::range::Range;
use crate::suggest;

/// Arguments that are for the build, not for its commands.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Among more names than this no nearest one is looked for.
const MAX_NAMES: usize = 10_000;

/// Where a stage has an instruction of which only the last one counts.
#[derive(Default)]
pub(super) struct Used {
    cmd: Option<Range>,
    entrypoint: Option<Range>,
    healthcheck: Option<Range>,
}

pub(super) fn look(
    walk: &mut Walk<'_>,
    stage: usize,
    state: &mut State,
    used: &mut Used,
    instruction: &Instruction,
) -> Result<()> {
    one(walk, stage, state, used, instruction).map_err(|problem| problem.at(instruction.range))
}

fn one(
    walk: &mut Walk<'_>,
    stage: usize,
    state: &mut State,
    used: &mut Used,
    instruction: &Instruction,
) -> Result<(), Problem> {
    let range = instruction.range;
    let command = with_variables(walk, state, range, |expander| instruction.command.expand(expander))?;
    match &command {
        Command::Add(transfer) => add(walk, range, transfer)?,
        Command::Copy(transfer) => copy(walk, stage, range, transfer)?,
        Command::Arg(arguments) => {
            for argument in arguments {
                arg(walk, state, range, argument)?;
            }
        }
        Command::Env(pairs) => {
            legacy(walk.warnings, instruction, pairs);
            for (name, value) in &pairs.pairs {
                secret(walk.warnings, range, "ENV", name);
                walk.set(state, name.clone(), value.clone())?;
            }
        }
        Command::Label(pairs) => legacy(walk.warnings, instruction, pairs),
        Command::Run(run) => mounts(walk, stage, state, range, run)?,
        Command::Cmd(line) => {
            once(walk.warnings, &mut used.cmd, instruction);
            json(walk.warnings, state, instruction, line);
        }
        Command::Entrypoint(line) => {
            once(walk.warnings, &mut used.entrypoint, instruction);
            json(walk.warnings, state, instruction, line);
        }
        Command::Healthcheck(_) => once(walk.warnings, &mut used.healthcheck, instruction),
        Command::Expose(ports) => ports.iter().try_for_each(|port| expose(walk.warnings, range, port))?,
        Command::Shell(_) => state.shell_is_set = true,
        Command::Workdir(path) => workdir(walk.warnings, state, range, path),
        Command::Maintainer(_)
        | Command::Onbuild(_)
        | Command::StopSignal(_)
        | Command::User(_)
        | Command::Volume(_) => {}
    }
    Ok(())
}

/// Expands something, and says which variables it missed even if it fails.
fn with_variables<T>(
    walk: &mut Walk<'_>,
    state: &State,
    range: Range,
    expand: impl FnOnce(&mut Expander<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let mut expander = Expander::new(walk.file.escape, &state.variables);
    expander.spent = walk.spent;
    let result = expand(&mut expander);
    walk.spent = expander.spent;
    for name in &expander.unmatched {
        if walk.warnings.is_full() {
            break;
        }
        if state.declared.contains(name) || NOT_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        walk.warnings.add(Rule::UndefinedVar, range, || {
            let names = state.variables.keys().map(String::as_str).take(MAX_NAMES);
            let hint = suggest::nearest(name, names).map(|name| format!(" (did you mean ${name}?)"));
            format!("Usage of undefined variable '${name}'{}", hint.unwrap_or_default())
        });
    }
    result
}

/// A value that is given goes before the default, and a global argument's value before none.
fn arg(walk: &mut Walk<'_>, state: &mut State, range: Range, argument: &Argument) -> Result<(), Problem> {
    secret(walk.warnings, range, "ARG", &argument.name);
    let given = walk.options.arguments.get(&argument.name).cloned();
    let value = match (given, &argument.default) {
        (Some(given), _) => Some(given),
        (None, Some(_)) => with_variables(walk, state, range, |expander| argument.value(expander))?,
        (None, None) => walk.globals.get(&argument.name).cloned(),
    };
    match value {
        Some(value) => walk.set(state, argument.name.clone(), value)?,
        None => {
            Rc::make_mut(&mut state.declared).insert(argument.name.clone());
        }
    }
    Ok(())
}

fn add(walk: &mut Walk<'_>, range: Range, transfer: &Transfer) -> Result<(), Problem> {
    chmod(transfer)?;
    if let Some(checksum) = &transfer.checksum {
        match transfer.sources.as_slice() {
            [source] if is_git(source) => {}
            [source] if is_http(source) => {
                let digest = checksum.parse::<Digest>();
                digest.map_err(|error| Problem::invalid(error.to_string()))?;
            }
            [_] => return Err(Problem::invalid("checksum requires HTTP(S) or Git sources")),
            _ => return Err(Problem::invalid("checksum can't be specified for multiple sources")),
        }
    }
    for source in transfer
        .sources
        .iter()
        .filter(|source| !is_git(source) && !is_http(source))
    {
        ignored(walk, range, "Add", source);
    }
    Ok(())
}

fn copy(walk: &mut Walk<'_>, stage: usize, range: Range, transfer: &Transfer) -> Result<(), Problem> {
    if let Some(from) = &transfer.from
        && let Origin::Stage(origin) = walk.copy_origin(from)?
        && origin >= stage
    {
        let title = walk.file.stages[stage].title(stage);
        return Err(Problem::invalid(format!(
            "cannot copy from stage {}, it needs to be defined before current stage \"{title}\"",
            ferry_kit::gofmt::quote(from)
        )));
    }
    chmod(transfer)?;
    for source in &transfer.sources {
        if is_git(source) {
            return Err(Problem::invalid("source can't be a git ref for COPY"));
        }
        if is_http(source) {
            return Err(Problem::invalid("source can't be a URL for COPY"));
        }
        if transfer.from.is_none() {
            ignored(walk, range, "Copy", source);
        }
    }
    Ok(())
}

fn chmod(transfer: &Transfer) -> Result<(), Problem> {
    transfer.chmod.as_deref().map(Chmod::parse).transpose().map(|_| ())
}

/// A path that is not sent, with nothing below it that is.
fn ignored(walk: &mut Walk<'_>, range: Range, verb: &str, source: &str) {
    let Some(ignore) = walk.options.ignore else { return };
    let path = crate::path::clean(source);
    let path = path.trim_start_matches('/');
    if path.is_empty() || path == "." || !ignore.ignores(path) || !ignore.can_skip(path) {
        return;
    }
    walk.warnings.add(Rule::CopyIgnoredFile, range, || {
        let path = ferry_kit::gofmt::quote(path);
        format!("Attempting to {verb} file {path} that is excluded by .dockerignore")
    });
}

fn mounts(walk: &mut Walk<'_>, stage: usize, state: &State, range: Range, run: &Run) -> Result<(), Problem> {
    let mounts = with_variables(walk, state, range, |expander| {
        let mounts = run.mounts(expander)?;
        run.devices(expander)?;
        Ok(mounts)
    })?;
    for mount in mounts {
        if !mount.from.is_empty()
            && let Origin::Stage(origin) = walk.mount_origin(&mount.from)
            && origin >= stage
        {
            let quote = ferry_kit::gofmt::quote;
            return Err(Problem::invalid(format!(
                "cannot mount from stage {} to {}, stage needs to be defined before current command",
                quote(&mount.from),
                quote(&mount.target)
            )));
        }
        if matches!(mount.kind, MountKind::Bind | MountKind::Cache | MountKind::Tmpfs) {
            mount.place(&state.workdir)?;
        }
    }
    Ok(())
}

fn expose(warnings: &mut Warnings, range: Range, text: &str) -> Result<(), Problem> {
    let (manner, port) = Port::parse_with(text);
    if manner.protocol_has_capitals {
        warnings.add(Rule::ExposeProtoCasing, range, || {
            format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase")
        });
    }
    if manner.has_host {
        warnings.add(Rule::ExposeInvalidFormat, range, || {
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'")
        });
    }
    port.map(|_| ())
}

/// Only the first relative path of a stage: an absolute one there mends all.
fn workdir(warnings: &mut Warnings, state: &mut State, range: Range, path: &str) {
    if !state.workdir_is_set && !path.starts_with('/') {
        warnings.add(Rule::WorkdirRelativePath, range, || {
            let path = ferry_kit::gofmt::quote(path);
            format!("Relative workdir {path} can have unexpected results if the base image changes")
        });
    }
    state.workdir_is_set = true;
    state.workdir = crate::path::join(&state.workdir, path);
}

fn legacy(warnings: &mut Warnings, instruction: &Instruction, pairs: &Pairs) {
    if pairs.legacy {
        let name = &instruction.name;
        warnings.add(Rule::LegacyKeyValueFormat, instruction.range, || {
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format")
        });
    }
}

/// The one before is what will not be used.
fn once(warnings: &mut Warnings, before: &mut Option<Range>, instruction: &Instruction) {
    if let Some(before) = before.replace(instruction.range) {
        let name = &instruction.name;
        warnings.add(Rule::MultipleInstructionsDisallowed, before, || {
            format!("Multiple {name} instructions should not be used in the same stage because only the last one will be used")
        });
    }
}

fn json(warnings: &mut Warnings, state: &State, instruction: &Instruction, line: &CommandLine) {
    // Who chose a shell wants it.
    if matches!(line, CommandLine::Shell(_)) && !state.shell_is_set {
        let name = &instruction.name;
        warnings.add(Rule::JsonArgsRecommended, instruction.range, || {
            format!("JSON arguments recommended for {name} to prevent unintended behavior related to OS signals")
        });
    }
}

fn secret(warnings: &mut Warnings, range: Range, instruction: &str, name: &str) {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const PUBLIC: [&str; 3] = ["public", "file", "version"];
    let has = |words: &[&str]| {
        name.split('_')
            .any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
    };
    if has(&SECRET) && !has(&PUBLIC) {
        warnings.add(Rule::SecretsUsedInArgOrEnv, range, || {
            let name = ferry_kit::gofmt::quote(name);
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name})")
        });
    }
}
