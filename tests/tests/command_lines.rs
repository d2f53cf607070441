//! docker's command line and Ferry's on one engine, line by line: the same bytes on both streams, the same exit code.
//!
//! The lines are in `command_lines/*.txt`, one file an engine, run from top to bottom:
//!
//! ```text
//! ps -a                 run by docker, then by ferry; ids and the program's name aside, they must do the same
//! create --name c-SIDE  SIDE is another word for each of them, for what can be done once
//! ~ stats --no-stream   numbers and widths may differ: they are measured anew
//! = run -d busybox      preparation: docker alone, must succeed
//! ! why
//! rm webb               Ferry's answer is another one on purpose, and must still be; the exit code is the same
//! # a remark
//! ```

use std::path::Path;

use ferry_testkit::images::{self, Layer};
use ferry_testkit::{Output, Program, TestDaemon};
use tempfile::TempDir;

use super::compat::{normalise, split};

/// What SIDE is: of one length, for the widths of columns.
const SIDES: [(Program, &str); 2] = [(Program::Docker, "sidea"), (Program::Ferry, "sideb")];

struct Pair {
    engine: TestDaemon,
    /// Where either starts, with the same files.
    directories: [TempDir; 2],
}

impl Pair {
    fn new() -> Self {
        let engine = TestDaemon::start();
        engine.busybox();
        let layer = Layer::new().file("hello", b"hello\n", 0o644);
        let app = images::above_busybox("app:1.0", layer)
            .config("Labels", serde_json::json!({"maintainer": "me"}))
            .config("Env", serde_json::json!(["PATH=/bin", "A=b"]))
            .config("WorkingDir", serde_json::json!("/tmp"));
        engine.load(&images::docker_archive(&[app]));
        let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for directory in &directories {
            std::fs::write(directory.path().join("envs"), "ONE=1\n# remark\nTWO\n").unwrap();
        }
        Self { engine, directories }
    }

    fn run(&self, side: usize, line: &str) -> Output {
        let (program, name) = SIDES[side];
        let words = split(line).into_iter().map(|word| word.replace("SIDE", name));
        let run = self.engine.command(program).args(words);
        run.directory(self.directories[side].path()).output()
    }

    /// What both said; asked again when it depends on the second in which they are asked.
    fn ask(&self, line: &str, measured: bool) -> [String; 2] {
        let mut tries = if line.contains("SIDE") { 1 } else { 3 };
        loop {
            let said = [0, 1].map(|side| {
                let text = shown(&self.run(side, line), SIDES[side].1, self.directories[side].path());
                if measured { without_numbers(&text) } else { text }
            });
            tries -= 1;
            if said[0] == said[1] || tries == 0 {
                return said;
            }
        }
    }
}

fn shown(output: &Output, side: &str, directory: &Path) -> String {
    let masked = |text: &str| {
        let text = text.replace(&directory.display().to_string(), "DIR");
        normalise(
            &text
                .replace(side, "SIDE")
                .replace("ferry", "docker")
                .replace("Ferry", "Docker"),
        )
    };
    format!(
        "exit {}\nstdout: {}\nstderr: {}",
        output.code,
        masked(&output.stdout),
        masked(&output.stderr)
    )
}

fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let c = match c {
            '0'..='9' | '.' => '0',
            ' ' => ' ',
            c => c,
        };
        if !(matches!(c, '0' | ' ') && out.ends_with(c)) {
            out.push(c);
        }
    }
    // Sizes cross the borders of their units.
    [
        ("0GiB", "0B"),
        ("0MiB", "0B"),
        ("0KiB", "0B"),
        ("0kB", "0B"),
        ("0MB", "0B"),
    ]
    .iter()
    .fold(out, |text, (from, to)| text.replace(from, to))
}

/// Runs a file, and says how many lines were compared.
fn compare(name: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/command_lines")
        .join(name);
    let lines = std::fs::read_to_string(path).unwrap();
    let pair = Pair::new();
    let (mut reason, mut count) = (None, 0);
    let mut wrong = Vec::new();
    for line in lines.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(line) = line.strip_prefix("= ") {
            pair.engine.docker(split(line)).ok();
            continue;
        }
        if let Some(text) = line.strip_prefix("! ") {
            reason = Some(text);
            continue;
        }
        let measured = line.strip_prefix("~ ");
        let [docker, ferry] = pair.ask(measured.unwrap_or(line), measured.is_some());
        count += 1;
        let code = |text: &str| text.lines().next().map(str::to_owned);
        match reason.take() {
            Some(reason) if docker == ferry => {
                wrong.push(format!("`{line}` is docker's by now, no longer: {reason}\n"));
            }
            Some(_) if code(&docker) == code(&ferry) => {}
            None if docker == ferry => {}
            _ => wrong.push(format!("`{line}`\ndocker: {docker}\nferry: {ferry}\n")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} lines\n\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    count
}

#[test]
fn lists_and_their_formats_are_docker_s() {
    assert!(compare("lists.txt") > 150);
}

#[test]
fn what_is_said_of_one_thing_is_docker_s() {
    assert!(compare("objects.txt") > 150);
}

#[test]
fn commands_that_change_something_and_their_errors_are_docker_s() {
    assert!(compare("changes.txt") > 200);
}

#[test]
fn the_program_s_own_words_are_docker_s() {
    assert!(compare("program.txt") > 50);
}
