//! A case of the corpus: files, options, and the two ways to build it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ferry_testkit::{Engine, Run, http};
use serde_json::{Map, Value, json};

use super::agent;
use crate::compat::split;

/// What every file of a context is from that has no time of its own: 2023-11-14.
const TIME: &str = "@1700000000";

/// See corpus/build/README.md.
pub struct Case {
    pub name: String,
    sections: Vec<(String, String)>,
}

/// Why there is no image.
#[derive(Debug)]
pub struct Refused {
    /// Without the words before the cause.
    pub message: String,
    /// What a command line shows before: the step's last lines, and those of the Dockerfile.
    pub shown: Option<String>,
}

/// How Ferry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the API's first version of building, which shows no lines.
    Post,
    CommandLine,
}

impl Case {
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/build")
    }

    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(Self::folder().join(format!("{name}.case"))).unwrap();
        let mut sections: Vec<(String, String)> = Vec::new();
        for line in text.split_inclusive('\n') {
            let title = line
                .trim_end()
                .strip_prefix("-- ")
                .and_then(|rest| rest.strip_suffix(" --"));
            match (title, sections.last_mut()) {
                (Some(title), _) => sections.push((title.to_owned(), String::new())),
                (None, Some((_, content))) => content.push_str(line),
                // What it shows.
                (None, None) => {}
            }
        }
        Self {
            name: name.to_owned(),
            sections,
        }
    }

    pub fn all() -> Vec<String> {
        let names = std::fs::read_dir(Self::folder()).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".case").map(str::to_owned)
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn section(&self, title: &str) -> Option<&str> {
        let found = self.sections.iter().find(|(name, _)| name == title);
        found.map(|(_, content)| &**content)
    }

    fn options(&self) -> Vec<String> {
        self.section("options").map(split).unwrap_or_default()
    }

    /// Its options name files or directories of the client's, which `POST /build` cannot send.
    pub fn needs_a_session(&self) -> bool {
        self.options()
            .iter()
            .any(|option| matches!(&**option, "--build-context" | "--secret" | "--ssh"))
    }

    /// Writes the context to an empty directory.
    fn prepare(&self, dir: &Path) {
        for (title, content) in &self.sections {
            if matches!(&**title, "options" | "prepare" | "base") {
                continue;
            }
            let given = title.rsplit_once(' ').filter(|(_, mode)| mode.starts_with('0'));
            let (name, mode) = given.unwrap_or((title, "0644"));
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            Run::new("chmod").args([mode]).args([&path]).output().ok();
        }
        let script = format!(
            "umask 022\n{}\nfind . -mindepth 1 -newermt 2026-01-01 -exec touch -h -d {TIME} {{}} +",
            self.section("prepare").unwrap_or_default()
        );
        let shell = Run::new("sh").directory(dir).env("CORPUS", Self::folder());
        shell.args(["-ec", &script]).output().ok();
    }

    /// Builds it on an engine as `NAME`, and what its `base` section says as `NAME-base` before.
    pub fn build(&self, engine: &Engine, way: Way) -> Result<(), Refused> {
        if let Some(base) = self.section("base") {
            let base = Self {
                name: format!("{}-base", self.name),
                sections: vec![("Dockerfile".to_owned(), base.to_owned())],
            };
            base.build(engine, way)
                .unwrap_or_else(|refused| panic!("{}: {refused:?}", base.name));
        }
        let (dir, known_as) = engine.share(&format!("build-{}", self.name));
        self.prepare(&dir);
        if self.options().iter().any(|option| option == "--ssh") {
            agent::start(&dir.join("agent"));
        }
        let built = match (engine, way) {
            (Engine::Docker(docker), _) => {
                // Where it is told of files, it stands beside them.
                let script = format!("cd {known_as} && exec docker \"$@\"");
                let words = self.words();
                let mut line = vec!["sh", "-c", &script, "docker"];
                line.extend(words.iter().map(String::as_str));
                said(&docker.in_namespace(&line).output())
            }
            (Engine::Ferry(_), Way::Post) => self.post(engine, &dir),
            (Engine::Ferry(_), Way::CommandLine) => said(&engine.run(self.words()).directory(&dir).output()),
        };
        std::fs::remove_dir_all(&dir).unwrap();
        built
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["build".to_owned(), "--progress=plain".to_owned()];
        words.extend(["-t".to_owned(), self.name.clone()]);
        words.extend(self.options());
        words.push(".".to_owned());
        words
    }

    /// By the API, in BuildKit's words.
    fn post(&self, engine: &Engine, dir: &Path) -> Result<(), Refused> {
        let archive = dir.with_extension("tar");
        Run::new("tar")
            .args(["--owner=0", "--group=0", "--xattrs", "--format=posix", "-cf"])
            .args([&archive])
            .arg_directory(dir)
            .output()
            .ok();
        let body = std::fs::read(&archive).unwrap();
        std::fs::remove_file(&archive).unwrap();
        let path = format!("/build?version=2&t={}{}", self.name, self.query());
        let answer = http::request(engine.socket(), "POST", &path, "application/x-tar", &body).unwrap();
        let text = String::from_utf8_lossy(&answer.body);
        let refused = |message: &str| {
            Err(Refused {
                message: cause(message),
                shown: None,
            })
        };
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default();
        match (answer.status, last["errorDetail"]["message"].as_str()) {
            (200, None) => Ok(()),
            (200, Some(message)) => refused(message),
            _ => refused(last["message"].as_str().unwrap_or_default()),
        }
    }

    fn query(&self) -> String {
        let mut query = String::new();
        let mut maps = [("buildargs", Map::new()), ("labels", Map::new())];
        let mut add = |name: &str, value: &str| {
            query.push_str(&format!("&{name}="));
            for byte in value.bytes() {
                query.push_str(&format!("%{byte:02x}"));
            }
        };
        let options = self.options();
        let mut words = options.iter();
        while let Some(option) = words.next() {
            let mut value = || words.next().map(String::as_str).unwrap_or_default();
            match &**option {
                "--no-cache" => add("nocache", "1"),
                "--target" => add("target", value()),
                "--network" => add("networkmode", value()),
                "--add-host" => add("extrahosts", value()),
                "--platform" => add("platform", value()),
                "-f" => add("dockerfile", value()),
                "--build-arg" | "--label" => {
                    let map = usize::from(option == "--label");
                    let (name, value) = value().split_once('=').unwrap();
                    maps[map].1.insert(name.to_owned(), json!(value));
                }
                other => panic!("{}: how is {other} said to POST /build?", self.name),
            }
        }
        for (name, map) in maps {
            add(name, &Value::Object(map).to_string());
        }
        query
    }
}

trait ArgDirectory {
    fn arg_directory(self, dir: &Path) -> Self;
}

impl ArgDirectory for Run {
    /// For tar: all that is in it, but not the directory's own entry, whose owner and times are this machine's.
    fn arg_directory(self, dir: &Path) -> Self {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        self.args(["-C"]).args([dir]).args(["--"]).args(names)
    }
}

/// What a command line said of it.
fn said(output: &ferry_testkit::Output) -> Result<(), Refused> {
    if output.code == 0 {
        return Ok(());
    }
    let lines: Vec<&str> = output.stderr.lines().collect();
    let end = lines.iter().position(|line| line.starts_with("ERROR: "));
    let message = end.map_or(&*output.stderr, |end| &lines[end]["ERROR: ".len()..]);
    Err(Refused {
        message: cause(message),
        shown: Some(shown(&lines[..end.unwrap_or(lines.len())])),
    })
}

/// Around lines of a Dockerfile.
const RULER: &str = "--------------------";

/// From the ruler above the step's last lines, or above the Dockerfile's, without times.
fn shown(lines: &[&str]) -> String {
    let is_name = |at: usize| lines.get(at + 1).is_some_and(|next| **next == *RULER);
    let begin = (0..lines.len()).find(|&at| lines[at] == "------" || is_name(at));
    let mut text = String::new();
    for line in &lines[begin.unwrap_or(lines.len())..] {
        let time = line.split_once(' ').filter(|(time, _)| time.parse::<f64>().is_ok());
        let line = time.map_or((*line).to_owned(), |(_, rest)| format!("T {rest}"));
        let _ = writeln!(text, "  {}", line.trim_end());
    }
    text
}

/// The words that say what is wrong: without those of the layers above, and without an engine's own names.
fn cause(message: &str) -> String {
    let mut message = message.trim();
    for wrapping in ["failed to build: ", "failed to solve: "] {
        message = message.strip_prefix(wrapping).unwrap_or(message);
    }
    if let Some((_, rest)) = message.split_once("failed to calculate checksum of ref ") {
        message = rest.split_once(": ").map_or(rest, |(_, why)| why);
    }
    // How a registry was not reached.
    for way in [": failed to do request: ", ": Get "] {
        message = message.split_once(way).map_or(message, |(what, _)| what);
    }
    match (message.split_once("/var/lib/docker"), message.split_once("/merged/")) {
        (Some((before, _)), Some((_, after))) => format!("{before}/{after}"),
        _ => message.to_owned(),
    }
}
