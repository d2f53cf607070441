//! A Dockerfile of expansions against the image BuildKit made of it (words/record.sh).
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ferry_dockerfile::Dockerfile;
use ferry_dockerfile::instruction::{Command, CommandLine, Expander, Healthcheck, Port};
use ferry_dockerfile::words::Variables;
use serde_json::Value;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/words").join(name)).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// What the solver will do with a stage, as far as the configuration of an image shows it.
#[derive(Default)]
struct Image {
    variables: Variables,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    volumes: BTreeSet<String>,
    ports: BTreeSet<String>,
    triggers: Vec<String>,
    workdir: String,
    user: String,
    signal: String,
    cmd: Option<CommandLine>,
    entrypoint: Option<CommandLine>,
    health: Option<Healthcheck>,
    shell: Vec<String>,
}

impl Image {
    fn run(&mut self, escape: char, command: &Command) {
        let variables = self.variables.clone();
        let mut expander = Expander::new(escape, &variables);
        match command.expand(&mut expander).unwrap() {
            Command::Env(env) => {
                self.env.extend(env.pairs.clone());
                self.variables.extend(env.pairs);
            }
            Command::Arg(arguments) => {
                for argument in arguments {
                    let value = argument.value(&mut expander).unwrap().unwrap();
                    self.variables.insert(argument.name, value);
                }
            }
            Command::Label(labels) => self.labels.extend(labels.pairs),
            Command::Volume(paths) => self.volumes.extend(paths),
            Command::Expose(ports) => {
                for port in ports.iter().map(|port| Port::parse(port).unwrap()) {
                    let all = port.first..=port.last;
                    self.ports
                        .extend(all.map(|number| format!("{number}/{}", port.protocol)));
                }
            }
            Command::Onbuild(trigger) => self.triggers.push(trigger),
            Command::Workdir(path) => self.workdir = path,
            Command::User(user) => self.user = user,
            Command::StopSignal(signal) => self.signal = signal,
            Command::Cmd(line) => self.cmd = Some(line),
            Command::Entrypoint(line) => self.entrypoint = Some(line),
            Command::Healthcheck(health) => self.health = Some(health),
            Command::Shell(shell) => self.shell = shell,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn every_word_is_what_buildkit_makes_of_it() {
    let file = Dockerfile::parse(&read("words.dockerfile")).unwrap();
    let config: Value = serde_json::from_slice(&read("words.json")).unwrap();
    let search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    let mut image = Image::default();
    image.variables.insert("PATH".to_owned(), search.clone());
    image.env.insert("PATH".to_owned(), search);
    for instruction in &file.stages[0].instructions {
        image.run(file.escape, &instruction.command);
    }
    let env = strings(&config["Env"]);
    let env: BTreeMap<_, _> = env.iter().map(|pair| pair.split_once('=').unwrap()).collect();
    for (name, value) in &image.env {
        assert_eq!(env.get(name.as_str()), Some(&value.as_str()), "{name}");
    }
    assert_eq!(image.env.len(), env.len());
    let labels = config["Labels"].as_object().unwrap();
    let labels: BTreeMap<_, _> = labels
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(image.labels, labels);
    assert_eq!(image.volumes, keys(&config["Volumes"]));
    assert_eq!(image.ports, keys(&config["ExposedPorts"]));
    assert_eq!(image.triggers, strings(&config["OnBuild"]));
    assert_eq!(image.workdir, config["WorkingDir"]);
    assert_eq!(image.user, config["User"]);
    assert_eq!(image.signal, config["StopSignal"]);
    assert_eq!(image.shell, strings(&config["Shell"]));
    assert_eq!(image.cmd, Some(CommandLine::Exec(strings(&config["Cmd"]))));
    // The shell that was chosen until then is put before.
    let entrypoint = strings(&config["Entrypoint"]);
    assert_eq!(image.entrypoint, Some(CommandLine::Shell(entrypoint[2].clone())));
    let Some(Healthcheck::Command {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    }) = image.health
    else {
        panic!("no health check");
    };
    let health = &config["Healthcheck"];
    assert_eq!(command, CommandLine::Shell(strings(&health["Test"])[1].clone()));
    for (name, value) in [
        ("Interval", interval.as_nanos()),
        ("Timeout", timeout.as_nanos()),
        ("StartPeriod", start_period.as_nanos()),
        ("StartInterval", start_interval.as_nanos()),
        ("Retries", retries.into()),
    ] {
        assert_eq!(health[name].as_u64().map(u128::from), Some(value), "{name}");
    }
}
