//! The builder, against what BuildKit makes of the same Dockerfiles ([corpus](../corpus/build/README.md)).

mod agent;
mod case;
mod image;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::{Case, Way};
use ferry_testkit::{Engine, Kind};

/// How many are built at a time.
const AT_ONCE: usize = 4;

/// Where Ferry differs by right from what is recorded: `NAME`, or `NAME: ` and the start of a line, and why.
const DIFFERENT: [(&str, &str); 14] = [
    (
        "add-archive-xz",
        "dockerd asks a program for these, which is not where it was recorded",
    ),
    ("copy-chown-scratch-name: error", "says why"),
    (
        "copy-link-flag",
        "dockerd cannot merge layers: there --link is a plain COPY",
    ),
    ("copy-link-flag-over-link", "the same"),
    ("copy-link-flag-user-name", "the same"),
    (
        "copy-wildcards: d 755 0:0 /",
        "a directory that several sources are copied to has the last one's time",
    ),
    (
        "from-scratch-run",
        "says what could not be started, not that runc ended with 1",
    ),
    ("run-fails-exec", "the same"),
    (
        "run-mount-bind-missing: > [",
        "says that the context is copied for the mount",
    ),
    (
        "from-image-missing-file: error",
        "says what is not there as for any other image, than the stage's own",
    ),
    ("ignore-copied: error", "says that .dockerignore leaves it out"),
    ("stages-target-number", "a number names a stage"),
    ("workdir-file: error", "names the file that is in the way"),
    ("user-unknown: error", "no process was started"),
];

/// What an engine makes of a case.
fn result(case: &Case, engine: &Engine, way: Way) -> String {
    match case.build(engine, way) {
        Ok(()) => {
            let about = |more: &str| engine.api("GET", &format!("/images/{}/{more}", case.name), None).1;
            let inspected = about("json");
            if inspected["RootFS"]["Layers"].as_array().is_none_or(Vec::is_empty) {
                return image::describe_settings(&inspected, &about("history"));
            }
            let (dir, _) = engine.share(&format!("save-{}", case.name));
            let file = dir.join("image.tar");
            engine.cli(["save", "-o", file.to_str().unwrap(), &case.name]).ok();
            let text = image::describe(&std::fs::read(&file).unwrap());
            std::fs::remove_dir_all(dir).unwrap();
            text
        }
        Err(refused) => {
            let mut text = format!("error {}\n", refused.message);
            if let Some(shown) = refused.shown {
                let _ = write!(text, "shown\n{shown}");
            }
            text
        }
    }
}

/// Without the attributes that dockerd leaves out of archives, where Ferry has them.
fn without_users_attributes(text: &str) -> String {
    let mut kept = String::new();
    for word in text.split_inclusive(' ') {
        if !(word.starts_with("user.") && word.contains('=')) {
            kept.push_str(word);
        }
    }
    kept
}

/// Lines of one and not of the other; what is shown only where both show it.
fn differences(name: &str, expected: &str, got: &str) -> Vec<String> {
    let got = &without_users_attributes(got);
    let expected = match got.contains("\nshown\n") {
        true => expected,
        false => expected.split_once("shown\n").map_or(expected, |(before, _)| before),
    };
    let only = |sign: char, of: &str, other: &str| -> Vec<String> {
        let lines = of.lines().filter(|line| !other.lines().any(|its| its == *line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    let mut found = only('-', expected, got);
    found.extend(only('+', got, expected));
    if found.is_empty() && expected != got {
        found.push("the same lines in another order, or not as often".to_owned());
    }
    found.retain(|line| {
        let line = line[1..].trim_start();
        !DIFFERENT.iter().any(|(what, _)| match what.split_once(": ") {
            Some((case, start)) => case == name && line.starts_with(start),
            None => *what == name,
        })
    });
    found
}

/// `FERRY_RECORD=1` with `FERRY_TEST_ENGINE=docker` writes what is compared otherwise; `FERRY_CASES` names some of them.
fn compare(way: Way) {
    let records = std::env::var("FERRY_RECORD").is_ok_and(|value| value == "1");
    assert!(
        !records || Engine::chosen() == Kind::Docker,
        "only the real engine is recorded: FERRY_TEST_ENGINE=docker"
    );
    let chosen = std::env::var("FERRY_CASES").unwrap_or_default();
    let mut names = Case::all();
    names.retain(|name| chosen.is_empty() || chosen.split_whitespace().any(|part| name.starts_with(part)));
    let engine = Engine::start();
    engine.busybox();
    let (next, report) = (AtomicUsize::new(0), Mutex::new(String::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = Case::read(name);
                    let is_newer = name.starts_with("newer-");
                    let is_sent = engine.is_ferry() && way == Way::Post;
                    if is_sent && case.needs_a_session() || !engine.is_ferry() && is_newer {
                        continue;
                    }
                    let got = result(&case, &engine, way);
                    let file = Case::folder().join(format!("{name}.result"));
                    if records {
                        std::fs::write(file, got).unwrap();
                        continue;
                    }
                    let expected = std::fs::read_to_string(file).unwrap_or_default();
                    let found = differences(name, &expected, &got);
                    if !found.is_empty() {
                        let mut report = report.lock().unwrap();
                        let _ = writeln!(report, "{name}\n    {}", found.join("\n    "));
                    }
                }
            });
        }
    });
    let report = report.into_inner().unwrap();
    assert!(
        report.is_empty(),
        "not as BuildKit makes them (- BuildKit, + this):\n{report}"
    );
}

#[test]
fn builds_are_what_buildkit_makes_of_them() {
    compare(Way::CommandLine);
}

#[test]
fn builds_by_the_old_route_are_what_buildkit_makes_of_them() {
    if Engine::chosen() == Kind::Ferry {
        compare(Way::Post);
    }
}
