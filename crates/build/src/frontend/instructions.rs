//! Instructions that change the configuration alone, and which file does what.

use ferry_dockerfile::checks::{From, Scope};
use ferry_dockerfile::instruction::{Command, CommandLine, Expander, Healthcheck as Health, Instruction, Port};
use ferry_dockerfile::path;

use super::Making;
use super::config::{Empty, Healthcheck};
use super::names::shown;
use super::stage::{Noted, Stage};
use crate::error::{Error, Result};
use crate::graph::{Action, Files, Op, Step};
use crate::workspace::Workspace;

/// What is neither a stage nor the build's context among what an instruction takes files from.
pub fn origins(command: &Command, scope: &Scope) -> Result<Vec<String>> {
    let elsewhere = |from: &String| scope.mounted_from(from) == From::Elsewhere;
    Ok(match command {
        Command::Copy(copy) => match &copy.from {
            Some(from) if scope.copied_from(from)? == From::Elsewhere => vec![from.clone()],
            _ => Vec::new(),
        },
        Command::Run(run) => run.mount_sources().filter(elsewhere).collect(),
        _ => Vec::new(),
    })
}

impl<W: Workspace> Making<'_, W> {
    pub async fn instruction(&mut self, stage: &mut Stage, instruction: &Instruction) -> Result<()> {
        let variables = stage.variables.clone();
        let mut expander = Expander::new(self.file.escape, &variables);
        expander.spent = self.spent;
        let expanded = instruction.command.expand(&mut expander);
        let at = |problem: ferry_dockerfile::Problem| Error::from(problem.at(instruction.range));
        let command = expanded.map_err(at)?;
        self.spent = expander.spent;
        match &command {
            Command::Run(run) => self.run(stage, instruction, run).await?,
            Command::Copy(transfer) => self.transfer(stage, instruction, transfer, "COPY").await?,
            Command::Add(transfer) => self.transfer(stage, instruction, transfer, "ADD").await?,
            Command::Workdir(word) => self.workdir(stage, instruction, word),
            Command::Arg(arguments) => self.argument(stage, arguments).map_err(at)?,
            command => configure(stage, command).map_err(at)?,
        }
        Ok(())
    }

    fn argument(
        &mut self,
        stage: &mut Stage,
        arguments: &[ferry_dockerfile::instruction::Argument],
    ) -> Result<(), ferry_dockerfile::Problem> {
        let mut words = vec!["ARG".to_owned()];
        for argument in arguments {
            let given = self.job.request.build_args.get(&argument.name);
            let value = match (given, &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(_)) => {
                    let mut expander = Expander::new(self.file.escape, &stage.variables);
                    expander.spent = self.spent;
                    let value = argument.value(&mut expander)?;
                    self.spent = expander.spent;
                    value
                }
                (None, None) => self.scope.globals.get(&argument.name).cloned(),
            };
            if let Some(value) = &value {
                stage.set(&argument.name, value);
            }
            words.push(match &value {
                Some(value) => format!("{}={value}", argument.name),
                None => argument.name.clone(),
            });
            stage.arguments.push((argument.name.clone(), value));
        }
        stage.note(words.join(" "), Noted::Empty);
        Ok(())
    }

    fn workdir(&mut self, stage: &mut Stage, instruction: &Instruction, word: &str) {
        let workdir = path::join(&stage.workdir, word);
        stage.workdir.clone_from(&workdir);
        stage.image.config.working_dir.clone_from(&workdir);
        let what = shown(&instruction.text, &stage.variables);
        let name = stage.numbering.next(&what);
        let mut noted = Noted::Empty;
        if workdir != "/" {
            noted = Noted::Layer;
            let base = stage.files;
            let files = Files {
                base: base.map(|_| 0),
                actions: vec![Action::MakeDirectory {
                    path: workdir.clone(),
                    mode: 0o755,
                    owner: Some(stage.user.clone()).filter(|user| !user.is_empty()),
                }],
            };
            stage.files = Some(self.add(Step {
                op: Op::Files(files),
                inputs: base.into_iter().collect(),
                name,
                ranges: vec![instruction.range],
                no_cache: stage.no_cache,
            }));
        }
        stage.note(format!("WORKDIR {workdir}"), noted);
    }
}

/// A command in the form in which images keep it.
pub fn command_line(stage: &Stage, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => {
            let mut words = stage.shell();
            words.push(text.clone());
            words
        }
    }
}

/// Go's `%q` of strings in a slice.
fn quoted(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| ferry_kit::gofmt::quote(word)).collect();
    format!("[{}]", words.join(" "))
}

fn configure(stage: &mut Stage, command: &Command) -> Result<(), ferry_dockerfile::Problem> {
    match command {
        Command::Env(pairs) => {
            let mut words = vec!["ENV".to_owned()];
            for (key, value) in &pairs.pairs {
                stage.set(key, value);
                stage.image.set_env(key, value);
                words.push(format!("{key}={value}"));
            }
            stage.note(words.join(" "), Noted::Empty);
        }
        Command::Label(pairs) => {
            let mut words = vec!["LABEL".to_owned()];
            for (key, value) in &pairs.pairs {
                stage.image.config.labels.insert(key.clone(), value.clone());
                words.push(format!("{key}={value}"));
            }
            stage.note(words.join(" "), Noted::Empty);
        }
        Command::Maintainer(author) => {
            stage.image.author.clone_from(author);
            stage.note(format!("MAINTAINER {author}"), Noted::Empty);
        }
        Command::Cmd(command) => {
            let words = command_line(stage, command);
            stage.note(format!("CMD {}", quoted(&words)), Noted::Empty);
            stage.image.config.cmd = Some(words);
            stage.image.config.args_escaped = true;
            stage.has_command = true;
        }
        Command::Entrypoint(command) => {
            let words = command_line(stage, command);
            stage.note(format!("ENTRYPOINT {}", quoted(&words)), Noted::Empty);
            stage.image.config.entrypoint = Some(words);
            // What the base's command was is an argument to another program now.
            if !stage.has_command {
                stage.image.config.cmd = None;
            }
        }
        Command::Expose(words) => expose(stage, words)?,
        Command::Volume(paths) => {
            for path in paths {
                stage.image.config.volumes.insert(path.clone(), Empty {});
            }
            stage.note(format!("VOLUME [{}]", paths.join(" ")), Noted::Empty);
        }
        Command::User(user) => {
            stage.user.clone_from(user);
            stage.image.config.user.clone_from(user);
            stage.note(format!("USER {user}"), Noted::Empty);
        }
        Command::StopSignal(signal) => {
            if ferry_kit::signal::parse(signal).is_none() {
                return Err(ferry_dockerfile::Problem::Invalid(format!("invalid signal: {signal}")));
            }
            stage.image.config.stop_signal.clone_from(signal);
            stage.note(format!("STOPSIGNAL {signal}"), Noted::Empty);
        }
        Command::Shell(words) => {
            stage.image.config.shell.clone_from(words);
            stage.note(format!("SHELL [{}]", words.join(" ")), Noted::Empty);
        }
        Command::Healthcheck(health) => healthcheck(stage, health),
        Command::Onbuild(expression) => stage.image.config.on_build.push(expression.clone()),
        Command::Run(_) | Command::Copy(_) | Command::Add(_) | Command::Workdir(_) | Command::Arg(_) => {}
    }
    Ok(())
}

fn expose(stage: &mut Stage, words: &[String]) -> Result<(), ferry_dockerfile::Problem> {
    let mut ports = Vec::new();
    for word in words {
        let port = Port::parse(word)?;
        for number in port.first..=port.last {
            ports.push(format!("{number}/{}", port.protocol));
        }
    }
    ports.sort();
    ports.dedup();
    for port in &ports {
        stage.image.config.exposed_ports.insert(port.clone(), Empty {});
    }
    stage.note(format!("EXPOSE [{}]", ports.join(" ")), Noted::Empty);
    Ok(())
}

fn healthcheck(stage: &mut Stage, health: &Health) {
    let nanos = |time: &std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let check = match health {
        Health::None => Healthcheck {
            test: vec!["NONE".to_owned()],
            ..Healthcheck::default()
        },
        Health::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let mut test = Vec::new();
            match command {
                CommandLine::Exec(words) => {
                    test.push("CMD".to_owned());
                    test.extend(words.clone());
                }
                CommandLine::Shell(text) => test.extend(["CMD-SHELL".to_owned(), text.clone()]),
            }
            Healthcheck {
                test,
                interval: nanos(interval),
                timeout: nanos(timeout),
                start_period: nanos(start_period),
                start_interval: nanos(start_interval),
                retries: i64::from(*retries),
            }
        }
    };
    // Go's `%q` of a pointer to a struct: durations print as text in quotes, a number as a character.
    let time =
        |nanos: i64| ferry_kit::gofmt::quote(&ferry_kit::duration::format(jiff::SignedDuration::from_nanos(nanos)));
    let retries = u32::try_from(check.retries)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or('\u{fffd}');
    let note = format!(
        "HEALTHCHECK &{{{} {} {} {} {} {}}}",
        quoted(&check.test),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        go_quoted_rune(retries),
    );
    stage.note(note, Noted::Empty);
    stage.image.config.healthcheck = Some(check);
}

/// Go's `%q` of an integer.
fn go_quoted_rune(rune: char) -> String {
    match rune {
        '\'' => "'\\''".to_owned(),
        '\\' => "'\\\\'".to_owned(),
        '\x07' => "'\\a'".to_owned(),
        '\x08' => "'\\b'".to_owned(),
        '\x0c' => "'\\f'".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\r' => "'\\r'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        '\x0b' => "'\\v'".to_owned(),
        rune if rune < ' ' || rune == '\x7f' => format!("'\\x{:02x}'", u32::from(rune)),
        rune => format!("'{rune}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_quoted_as_go_quotes_them() {
        for (number, expected) in [(0, "'\\x00'"), (3, "'\\x03'"), (7, "'\\a'"), (39, "'\\''"), (65, "'A'")] {
            assert_eq!(go_quoted_rune(char::from_u32(number).unwrap()), expected);
        }
        assert_eq!(quoted(&["a b".into(), "c\"".into()]), r#"["a b" "c\""]"#);
    }
}
