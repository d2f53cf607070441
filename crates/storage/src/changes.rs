//! The Dockerfile instructions of `docker import -c` and `commit -c`, into a container configuration as moby has it.
//!
//! The errors are Docker's words (buildkit frontend/dockerfile/instructions, moby builder/dockerfile, 28.5).

mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};
use words::{expand, flags, split};

/// moby's container.Config, in its order of fields.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    exposed_ports: BTreeMap<String, Empty>,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "is_false")]
    args_escaped: bool,
    image: String,
    volumes: Option<BTreeMap<String, Empty>>,
    working_dir: String,
    entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_false")]
    network_disabled: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    mac_address: String,
    on_build: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Empty {}

/// Durations in nanoseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    retries: i64,
}

fn null_is_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> std::result::Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(switch: &bool) -> bool {
    !*switch
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

const COMMANDS: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn invalid<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(what.into()))
}

/// Applies instructions to an empty configuration.
pub fn parse(changes: &[String]) -> Result<Config> {
    parse_on(Config::default(), changes)
}

/// Applies instructions to a configuration.
pub fn parse_on(mut config: Config, changes: &[String]) -> Result<Config> {
    if changes.is_empty() {
        return Ok(config);
    }
    let lines = words::lines(&changes.join("\n"));
    if lines.is_empty() {
        return invalid("file with no instructions");
    }
    let instructions: Vec<_> = lines
        .iter()
        .map(|line| line.split_once(words::blank).unwrap_or((line, "")))
        .collect();
    for (command, _) in &instructions {
        if !COMMANDS.contains(&command.to_ascii_uppercase().as_str()) {
            return invalid(format!("{command} is not a valid change command"));
        }
    }
    let mut command_given = false;
    for (command, rest) in instructions {
        let command = command.to_ascii_uppercase();
        config.apply(&command, rest.trim())?;
        command_given |= command == "CMD";
        // What the command was is an argument to another program now.
        if command == "ENTRYPOINT" && !command_given {
            config.cmd = None;
        }
    }
    Ok(config)
}

impl Config {
    fn apply(&mut self, command: &str, rest: &str) -> Result<()> {
        let (flags, rest) = flags(rest)?;
        if let (Some((name, _)), true) = (flags.first(), command != "HEALTHCHECK") {
            return invalid(format!("unknown flag: --{name}"));
        }
        let env = self.env.clone().unwrap_or_default();
        let one = || match rest {
            "" => invalid(format!("{command} requires exactly one argument")),
            rest => expand(rest, &env),
        };
        match command {
            "CMD" => self.cmd = Some(command_line(rest)?),
            "ENTRYPOINT" => self.entrypoint = Some(command_line(rest)?).filter(|line| !line.is_empty()),
            "ENV" => {
                for (key, value) in pairs(command, rest, &env)? {
                    let list = self.env.get_or_insert_default();
                    let entry = format!("{key}={value}");
                    match list.iter_mut().find(|old| old.split('=').next() == Some(&key)) {
                        Some(old) => *old = entry,
                        None => list.push(entry),
                    }
                }
            }
            "LABEL" => self.labels.get_or_insert_default().extend(pairs(command, rest, &env)?),
            "EXPOSE" => {
                for word in list(command, rest, &env)? {
                    self.exposed_ports
                        .extend(ports(&word)?.into_iter().map(|port| (port, Empty {})));
                }
            }
            "VOLUME" => {
                let paths = match json(rest)? {
                    Some(paths) => paths.iter().map(|path| expand(path, &env)).collect::<Result<_>>()?,
                    None => list(command, rest, &env)?,
                };
                if paths.is_empty() {
                    return invalid("VOLUME requires at least one argument");
                }
                for path in paths {
                    if path.trim().is_empty() {
                        return invalid("VOLUME specified can not be an empty string");
                    }
                    self.volumes.get_or_insert_default().insert(path, Empty {});
                }
            }
            "USER" => self.user = one()?,
            "WORKDIR" => self.working_dir = join(&self.working_dir, &one()?),
            "STOPSIGNAL" => {
                let signal = one()?;
                if !is_signal(&signal) {
                    return invalid(format!("invalid signal: {signal}"));
                }
                self.stop_signal = signal;
            }
            "ONBUILD" => self.on_build.get_or_insert_default().push(trigger(rest)?),
            _ => self.healthcheck = Some(healthcheck(&flags, rest)?),
        }
        Ok(())
    }
}

/// `["a", "b"]` as it is, everything else through the shell.
fn command_line(rest: &str) -> Result<Vec<String>> {
    Ok(match json(rest)? {
        Some(line) => line,
        None if rest.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        None => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.to_owned()],
    })
}

/// A JSON array of strings; `None` if it is no JSON array.
fn json(rest: &str) -> Result<Option<Vec<String>>> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(array) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else {
        return Ok(None);
    };
    let strings = array.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => invalid("when using JSON array syntax, arrays must be comprised of strings only"),
    });
    strings.collect::<Result<_>>().map(Some)
}

fn list(command: &str, rest: &str, env: &[String]) -> Result<Vec<String>> {
    if rest.is_empty() {
        return invalid(format!("{command} requires at least one argument"));
    }
    rest.split_whitespace().map(|word| expand(word, env)).collect()
}

/// `a=b c="d e"`, or the old form `a b c`, which is one pair.
fn pairs(command: &str, rest: &str, env: &[String]) -> Result<Vec<(String, String)>> {
    let words = split(rest);
    let Some(first) = words.first() else {
        return invalid(format!("{command} requires at least one argument"));
    };
    let raw: Vec<(&str, &str)> = if first.contains('=') {
        let pair = |word: &'_ String| word.find('=').map(|at| (at, word.len()));
        let mut raw = Vec::new();
        for word in &words {
            let Some((at, _)) = pair(word) else {
                return invalid(format!(
                    "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
                ));
            };
            raw.push((&word[..at], &word[at + 1..]));
        }
        raw
    } else {
        match rest.split_once(words::blank) {
            Some((key, value)) => vec![(key, value.trim_start())],
            None => return invalid(format!("{command} must have two arguments")),
        }
    };
    let expanded = raw
        .into_iter()
        .map(|(key, value)| Ok((expand(key, env)?, expand(value, env)?)));
    let pairs: Vec<_> = expanded.collect::<Result<_>>()?;
    match pairs.iter().any(|(key, _)| key.is_empty()) {
        true => invalid(format!("{command} names can not be blank")),
        false => Ok(pairs),
    }
}

/// `80`, `80/udp`, `8000-8002/tcp`, with anything before a last colon left out.
fn ports(spec: &str) -> Result<Vec<String>> {
    let (range, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let range = range.rsplit_once(':').map_or(range, |(_, container)| container);
    if range.is_empty() {
        return invalid(format!("No port specified: {spec}<empty>"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return invalid(format!("Invalid containerPort: {range}"));
    };
    if last < first {
        return invalid(format!("Invalid containerPort: {range}"));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return invalid(format!("Invalid proto: {protocol}"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn join(current: &str, path: &str) -> String {
    let mut parts: Vec<&str> = if path.starts_with('/') {
        Vec::new()
    } else {
        current.split('/').collect()
    };
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.retain(|part| !part.is_empty());
    format!("/{}", parts.join("/"))
}

fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 34] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
        "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    if let Ok(number) = text.parse::<i32>() {
        return number != 0;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, most: u32| {
        let offset = name.strip_prefix(prefix).map(str::parse::<u32>);
        name == prefix.trim_end_matches(['+', '-'])
            || matches!(offset, Some(Ok(offset)) if (1..=most).contains(&offset))
    };
    NAMES.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

fn trigger(rest: &str) -> Result<String> {
    let first = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match first.as_str() {
        "" => invalid("ONBUILD requires at least one argument"),
        "ONBUILD" => invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        "MAINTAINER" | "FROM" => invalid(format!("{first} isn't allowed as an ONBUILD trigger")),
        _ => Ok(rest.to_owned()),
    }
}

fn healthcheck(flags: &[(String, Option<String>)], rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    for (name, value) in flags {
        if !matches!(
            name.as_str(),
            "interval" | "timeout" | "start-period" | "start-interval" | "retries"
        ) {
            return invalid(format!("unknown flag: --{name}"));
        }
        if flags.iter().filter(|(other, _)| other == name).count() > 1 {
            return invalid(format!("Duplicate flag specified: {name}"));
        }
        if value.is_none() {
            return invalid(format!("missing a value on flag: {name}"));
        }
    }
    if rest.is_empty() {
        return invalid("HEALTHCHECK requires at least one argument");
    }
    let (kind, command) = rest.split_once(words::blank).unwrap_or((rest, ""));
    let command = command.trim();
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => {
            return Ok(Healthcheck {
                test: vec!["NONE".to_owned()],
                ..check
            });
        }
        "NONE" => return invalid("HEALTHCHECK NONE takes no arguments"),
        "CMD" => match json(command)? {
            Some(line) if !line.is_empty() => [vec!["CMD".to_owned()], line].concat(),
            None if !command.is_empty() => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            _ => return invalid("Missing command after HEALTHCHECK CMD"),
        },
        other => return invalid(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    for (name, value) in flags {
        let value = value.as_deref().unwrap_or_default();
        let field = match name.as_str() {
            "interval" => &mut check.interval,
            "timeout" => &mut check.timeout,
            "start-period" => &mut check.start_period,
            "start-interval" => &mut check.start_interval,
            _ => {
                check.retries = retries(value)?;
                continue;
            }
        };
        *field = interval(name, value)?;
    }
    Ok(check)
}

fn retries(value: &str) -> Result<i64> {
    if value.is_empty() {
        return Ok(0);
    }
    match value.parse::<i32>() {
        Ok(count) if count < 0 => invalid(format!("--retries cannot be negative ({count})")),
        Ok(count) => Ok(count.into()),
        Err(_) => invalid(format!("strconv.ParseInt: parsing {value:?}: invalid syntax")),
    }
}

fn interval(name: &str, value: &str) -> Result<i64> {
    if value.is_empty() {
        return Ok(0);
    }
    let Some(nanos) = words::duration(value) else {
        return invalid(format!("time: invalid duration {value:?}"));
    };
    if nanos != 0 && nanos < 1_000_000 {
        return invalid(format!("Interval {name:?} cannot be less than 1ms"));
    }
    Ok(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_of(changes: &[&str]) -> String {
        let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
        serde_json::to_string(&parse(&changes).unwrap()).unwrap()
    }

    /// What a configuration says is in the one that is made of it, with the changes.
    #[test]
    fn changes_add_to_a_configuration() {
        let text = r#"{"Hostname":"h","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["A=b"],"Cmd":["x"],"Image":"base:1","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{"k":"v"},"StopTimeout":3,"Shell":["/bin/x"]}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let same = parse_on(config.clone(), &[]).unwrap();
        assert_eq!(serde_json::to_string(&same).unwrap(), text);
        let changes = ["ENV C=$A".to_owned(), "LABEL l=m".to_owned(), "CMD [\"y\"]".to_owned()];
        let changed = serde_json::to_string(&parse_on(config, &changes).unwrap()).unwrap();
        assert_eq!(
            changed,
            text.replace(r#"["A=b"]"#, r#"["A=b","C=b"]"#)
                .replace(r#"["x"]"#, r#"["y"]"#)
                .replace(r#"{"k":"v"}"#, r#"{"k":"v","l":"m"}"#)
        );
    }

    #[test]
    fn an_entrypoint_takes_the_command_away_that_was_not_given_with_it() {
        let before = Config {
            cmd: Some(vec!["old".to_owned()]),
            ..Config::default()
        };
        let cmd = |changes: &[&str]| {
            let changes: Vec<_> = changes.iter().map(|&change| change.to_owned()).collect();
            parse_on(before.clone(), &changes).unwrap().cmd
        };
        let new = Some(vec!["new".to_owned()]);
        assert_eq!(cmd(&["ENTRYPOINT [\"e\"]"]), None);
        assert_eq!(cmd(&["ENTRYPOINT []"]), None);
        assert_eq!(cmd(&["ENTRYPOINT [\"e\"]", "CMD [\"new\"]"]), new);
        assert_eq!(cmd(&["CMD [\"new\"]", "ENTRYPOINT [\"e\"]"]), new);
    }

    /// As Docker Engine 28.5.2 wrote them.
    #[test]
    fn configurations_equal_dockers() {
        let full = json_of(&[
            r#"CMD ["a","b"]"#,
            "ENTRYPOINT run me",
            r#"ENV A=1 B="two words""#,
            "ENV C c c",
            "EXPOSE 80 443/udp 8000-8002",
            r#"LABEL x=y "a b"=c"#,
            "USER 1:2",
            "VOLUME /a /b",
            r#"VOLUME ["/c"]"#,
            "WORKDIR /w",
            "WORKDIR x",
            "STOPSIGNAL SIGTERM",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s --timeout=2s --retries=3 CMD test -f /x",
        ]);
        assert_eq!(
            full,
            r#"{"Hostname":"","Domainname":"","User":"1:2","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"ExposedPorts":{"443/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}},"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["A=1","B=two words","C=c c"],"Cmd":["a","b"],"Healthcheck":{"Test":["CMD-SHELL","test -f /x"],"Interval":5000000000,"Timeout":2000000000,"Retries":3},"Image":"","Volumes":{"/a":{},"/b":{},"/c":{}},"WorkingDir":"/w/x","Entrypoint":["/bin/sh","-c","run me"],"OnBuild":["RUN x"],"Labels":{"a b":"c","x":"y"},"StopSignal":"SIGTERM"}"#
        );
        assert_eq!(
            json_of(&["CMD x y", "HEALTHCHECK NONE", "env Q=$A", "ENV Q=2"]),
            r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":["Q=2"],"Cmd":["/bin/sh","-c","x y"],"Healthcheck":{"Test":["NONE"]},"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}"#
        );
        assert!(
            json_of(&[r#"HEALTHCHECK CMD ["x"]"#, "CMD []"]).contains(r#""Cmd":[],"Healthcheck":{"Test":["CMD","x"]}"#)
        );
        assert!(json_of(&["USER a b"]).contains(r#""User":"a b""#));
        assert!(
            json_of(&["ENV A=1", "ENV B=${A}x C=$A-${N:-d} D='$A'"]).contains(r#""Env":["A=1","B=1x","C=1-d","D=$A"]"#)
        );
    }

    #[test]
    fn errors_are_dockers_words() {
        for (change, error) in [
            ("RUN x", "RUN is not a valid change command"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV", "ENV requires at least one argument"),
            ("EXPOSE abc", "Invalid containerPort: abc"),
            ("EXPOSE 99999", "Invalid containerPort: 99999"),
            ("LABEL x", "LABEL must have two arguments"),
            ("USER", "USER requires exactly one argument"),
            ("VOLUME", "VOLUME requires at least one argument"),
            ("VOLUME []", "VOLUME requires at least one argument"),
            ("WORKDIR", "WORKDIR requires exactly one argument"),
            ("STOPSIGNAL FOO", "invalid signal: FOO"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            (
                "ONBUILD ONBUILD x",
                "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            ),
            ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
            ("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK --interval=x CMD y", "time: invalid duration \"x\""),
            ("HEALTHCHECK --foo=1 CMD y", "unknown flag: --foo"),
            (
                "HEALTHCHECK --interval=1us CMD x",
                "Interval \"interval\" cannot be less than 1ms",
            ),
            ("CMD --foo x", "unknown flag: --foo"),
            (
                "ENV A=1 B",
                "Syntax error - can't find = in \"B\". Must be of the form: name=value",
            ),
            ("", "file with no instructions"),
        ] {
            assert_eq!(parse(&[change.to_owned()]).unwrap_err().to_string(), error, "{change}");
        }
    }
}
