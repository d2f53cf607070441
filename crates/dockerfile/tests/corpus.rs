//! Every Dockerfile of the corpus, against what BuildKit said of it (corpus/README.md).
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferry_dockerfile::checks::{self, Base, Options, Report, Warning};
use ferry_dockerfile::instruction::Command;
use ferry_dockerfile::{Dockerfile, Ignore};
use ferry_image::{Platform, Reference};

const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where it is right to differ from what is recorded, and why.
const DIFFERENT: [(&str, &str); 7] = [
    ("bad-escape", "BuildKit has no line for it"),
    ("bad-directive-twice", "BuildKit gives the line before"),
    ("bad-copy-index", "BuildKit has no line for it"),
    ("bad-copy-negative", "BuildKit has no line for it"),
    ("bad-copy-from-var", "BuildKit has no line for it"),
    ("lint-check-", "BuildKit has no line for it"),
    ("bad-check-first", "BuildKit has no line for it"),
];

/// Errors of the engine, not of the language: signals, and whether an image exists.
const SOLVER: [&str; 2] = ["invalid signal: ", "failed to resolve source metadata"];

#[derive(serde::Deserialize)]
struct Expected {
    warnings: Vec<ExpectedWarning>,
    error: Option<ExpectedError>,
}

#[derive(serde::Deserialize)]
struct ExpectedWarning {
    rule: String,
    description: String,
    #[serde(default)]
    url: String,
    detail: String,
    lines: Vec<Vec<u32>>,
}

#[derive(serde::Deserialize)]
struct ExpectedError {
    message: String,
    lines: Vec<Vec<u32>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".dockerfile").map(str::to_owned)
    };
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}

fn read(name: &str, end: &str) -> Option<Vec<u8>> {
    std::fs::read(folder().join(format!("{name}{end}"))).ok()
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    text.lines().map(pair).collect()
}

/// The two images that were there when the answers were recorded.
fn base(reference: &Reference, platform: &Platform) -> Option<Base> {
    if !platform.matches(&Platform::new("linux", "amd64", "")) {
        return None;
    }
    let variables = pairs(&format!("PATH={SEARCH}"));
    let mut base = Base {
        variables,
        platform: Platform::new("linux", "amd64", ""),
        ..Base::default()
    };
    match reference.familiar().as_str() {
        "busybox:latest" => {}
        "basic:1" => {
            let bytes = std::fs::read(folder().join("bases/basic.dockerfile")).unwrap();
            for instruction in Dockerfile::parse(&bytes).unwrap().stages[0].instructions.clone() {
                match instruction.command {
                    Command::Env(env) => base.variables.extend(env.pairs),
                    Command::Workdir(path) => base.workdir = path,
                    Command::Shell(shell) => base.shell = shell,
                    Command::Onbuild(trigger) => base.triggers.push(trigger),
                    _ => {}
                }
            }
        }
        _ => return None,
    }
    Some(base)
}

fn check(name: &str, bytes: &[u8]) -> Report {
    let arguments = read(name, ".args").map(|bytes| pairs(&String::from_utf8(bytes).unwrap()));
    let ignore = read(name, ".dockerfile.dockerignore").map(|bytes| Ignore::parse(&bytes).unwrap());
    checks::run(
        bytes,
        &Options {
            arguments: arguments.unwrap_or_default(),
            target: None,
            build_platform: Platform::new("linux", "amd64", ""),
            target_platform: Platform::new("linux", "amd64", ""),
            settings: None,
            ignore: ignore.as_ref(),
            base: &base,
        },
    )
}

/// Every line of all ranges.
fn lines(ranges: impl IntoIterator<Item = std::ops::RangeInclusive<u32>>) -> Vec<u32> {
    ranges.into_iter().flatten().collect()
}

fn flat(lines: &[Vec<u32>]) -> Vec<u32> {
    let ranges = lines.iter().filter(|range| range.len() == 2);
    self::lines(ranges.map(|range| range[0]..=range[1]))
}

fn text(rule: &str, lines: &[u32], detail: &str) -> String {
    format!("{rule} {lines:?} {detail}")
}

fn differences(name: &str) -> Vec<String> {
    let report = check(name, &read(name, ".dockerfile").unwrap());
    let Some(expected) = read(name, ".json") else {
        return Vec::new();
    };
    let expected: Expected = serde_json::from_slice(&expected).unwrap();
    let mut out = Vec::new();
    let found = |warning: &Warning| text(warning.rule.name(), &lines([warning.range.lines()]), &warning.detail);
    let mut found: Vec<String> = report.warnings.iter().map(found).collect();
    let wanted = |warning: &ExpectedWarning| text(&warning.rule, &flat(&warning.lines), &warning.detail);
    let mut wanted: Vec<String> = expected.warnings.iter().map(wanted).collect();
    found.sort();
    wanted.sort();
    if found != wanted {
        out.push(format!(
            "{name}: warnings\n    BuildKit {wanted:#?}\n    here     {found:#?}"
        ));
    }
    for warning in &expected.warnings {
        let rule = checks::Rule::ALL
            .into_iter()
            .find(|rule| rule.name() == warning.rule)
            .unwrap();
        assert_eq!(rule.description(), warning.description);
        assert_eq!(rule.url(), warning.url);
    }
    let message = report.error.as_ref().map(ToString::to_string);
    let wanted = expected.error.as_ref().map(|error| error.message.clone());
    if wanted
        .as_deref()
        .is_some_and(|wanted| SOLVER.iter().any(|solver| wanted.contains(solver)))
    {
        if let Some(message) = message {
            out.push(format!("{name}: an error of the solver is one here: {message}"));
        }
        return out;
    }
    // The rest of the sentence is ferry-image's.
    let platform = "failed to parse platform";
    if [&message, &wanted]
        .iter()
        .all(|text| text.as_deref().is_some_and(|text| text.starts_with(platform)))
    {
        return out;
    }
    if message != wanted {
        out.push(format!(
            "{name}: error\n    BuildKit {wanted:?}\n    here     {message:?}"
        ));
    }
    let mut at = report.error.map(|error| lines(error.lines())).unwrap_or_default();
    let wanted = expected.error.map(|error| flat(&error.lines)).unwrap_or_default();
    // Those of a circle are recorded in the file's order; what builds show says theirs.
    at.sort_unstable();
    if at != wanted && !DIFFERENT.iter().any(|(known, _)| name.starts_with(known)) {
        out.push(format!("{name}: lines of the error: BuildKit {wanted:?}, here {at:?}"));
    }
    out
}

#[test]
fn errors_and_warnings_are_buildkits() {
    let names = names();
    assert!(names.len() >= 200, "{}", names.len());
    let all: Vec<String> = names.iter().flat_map(|name| differences(name)).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Newer than the BuildKit that was asked.
#[test]
fn what_is_newer_is_there() {
    for name in names().iter().filter(|name| name.starts_with("newer-")) {
        let error = check(name, &read(name, ".dockerfile").unwrap()).error;
        assert_eq!(error.is_some(), name.contains("bad"), "{name}: {error:?}");
    }
}

/// A generator whose numbers are always the same (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    const PIECES: [&[u8]; 18] = [
        b"\\\n",
        b"\n",
        b"${",
        b"}",
        b"\"",
        b"'",
        b"<<E",
        b"--",
        b"=",
        b"[",
        b"\\",
        b"#",
        b"\xff",
        b"\0",
        b"/",
        b"$a",
        b"\r\n",
        b"ONBUILD ",
    ];
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() + 1);
        match numbers.below(4) {
            0 => drop(bytes.splice(at..at, PIECES[numbers.below(PIECES.len())].iter().copied())),
            1 => drop(bytes.drain(at..(at + numbers.below(9)).min(bytes.len()))),
            2 => {
                let from = numbers.below(other.len());
                let to = (from + numbers.below(60)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ if at < bytes.len() => bytes[at] = u8::try_from(numbers.below(256)).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn mutations_neither_panic_nor_take_long() {
    let files: Vec<Vec<u8>> = names().iter().map(|name| read(name, ".dockerfile").unwrap()).collect();
    let mut numbers = Numbers(0x5eed);
    let mut slowest = std::time::Duration::ZERO;
    for round in 0..20_000 {
        let mut bytes = files[round % files.len()].clone();
        mutate(&mut bytes, &files[numbers.below(files.len())], &mut numbers);
        let started = std::time::Instant::now();
        let report = check("", &bytes);
        slowest = slowest.max(started.elapsed());
        if let Some(error) = report.error {
            assert!(!error.to_string().is_empty());
        }
    }
    assert!(slowest.as_millis() < 500, "{slowest:?}");
}

/// A megabyte of each, without a limit for optimisation: what is quadratic takes minutes.
#[test]
fn hostile_files_take_linear_time() {
    let size = 1 << 20;
    let fill = |piece: &str| piece.repeat(size / piece.len());
    for (name, text) in [
        ("backslashes", fill("\\")),
        ("lines of backslashes", fill("\\\n")),
        ("continuations", "FROM a\nRUN ".to_owned() + &fill("x \\\n")),
        ("empty continuations", "FROM a\nRUN x \\\n".to_owned() + &fill("\n")),
        ("documents", "FROM a\n".to_owned() + &fill("RUN <<E\nE\n")),
        (
            "announcements",
            "FROM a\nRUN ".to_owned() + &fill("<<E ") + "\n" + &fill("E\n"),
        ),
        ("open documents", "FROM a\n".to_owned() + &fill("RUN <<E\n")),
        ("stages", fill("FROM a\n")),
        (
            "chained stages",
            "FROM a AS b\n".to_owned() + &fill("FROM b AS b\nENV x=y\n"),
        ),
        (
            "copies",
            "FROM a AS b\nFROM a\n".to_owned() + &fill("COPY --from=b a /b\n"),
        ),
        (
            "variables",
            "FROM a\nENV ".to_owned()
                + &(0..50_000).map(|n| format!("v{n}={n} ")).collect::<String>()
                + "\nCOPY "
                + &fill("$nope ")
                + " /x",
        ),
        ("braces", "FROM a\nCOPY ".to_owned() + &fill("${a:-") + " /x"),
        (
            "closed braces",
            "FROM a\nCOPY ".to_owned() + &"${a:-x".repeat(150_000) + &"}".repeat(150_000) + " /x",
        ),
        (
            "braces of documents",
            "FROM a\nRUN <<E ".to_owned() + &"${a:-x".repeat(150_000) + &"}".repeat(150_000) + "\nE\n",
        ),
        (
            "doubling",
            "FROM a\nENV a=xxxxxxxx\n".to_owned() + &fill("ENV a=$a$a\n"),
        ),
        (
            "pattern",
            format!(
                "FROM a\nENV a={}\nCOPY ${{a#{}x}} /x",
                "a".repeat(100_000),
                "*a".repeat(100_000)
            ),
        ),
        ("triggers", "FROM a\n".to_owned() + &fill("ONBUILD ")),
        ("array", "FROM a\nRUN [".to_owned() + &fill("1,") + "1]"),
        ("nested arrays", "FROM a\nRUN ".to_owned() + &fill("[")),
        (
            "flags",
            "FROM a\nRUN ".to_owned() + &fill("--mount=type=cache,target=/x "),
        ),
        ("flag", "FROM a\nRUN --".to_owned() + &fill("x")),
        ("name", fill("X")),
        (
            "mount",
            "FROM a\nRUN --mount=type=cache,".to_owned() + &fill("target=/x,"),
        ),
        ("quotes", "FROM a\nCOPY ".to_owned() + &fill("\"'")),
        ("ports", "FROM a\nEXPOSE ".to_owned() + &fill("1-65535 ")),
        ("comments", fill("# a\n") + "FROM a"),
        (
            "triggered",
            "FROM a AS b\n".to_owned() + &"ONBUILD RUN x\n".repeat(30_000) + &"FROM b\n".repeat(60_000),
        ),
        (
            "many patterns",
            format!("FROM a\nENV a={}\n", "x".repeat(500_000)) + &"COPY ${a#*y*y*y*y} /x\n".repeat(20_000),
        ),
        (
            "platforms",
            "ARG a=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".to_owned() + &fill("FROM --platform=$a$a$a a\n"),
        ),
        ("names", fill("ARG ab=1 ac=2\n") + &fill("FROM $ad\n")),
        ("arguments", fill("ARG a=$a\n") + "FROM a"),
        (
            "circle",
            "FROM a AS a\n".to_owned()
                + &(1..20_000)
                    .map(|n| format!("COPY --from={n} a b\nFROM a\n"))
                    .collect::<String>(),
        ),
    ] {
        let started = std::time::Instant::now();
        let report = check("", text.as_bytes());
        let elapsed = started.elapsed();
        assert!(report.warnings.len() <= checks::MAX_WARNINGS);
        println!(
            "{name}: {elapsed:?} {:?}",
            report
                .error
                .map(|error| error.to_string().chars().take(90).collect::<String>())
        );
        assert!(elapsed.as_secs() < 30, "{name} took {elapsed:?}");
    }
}
