//! Contexts and files to ADD that were made to get out, to fill memory or to never end (security design, families F2 and F5).

use std::path::Path;
use std::time::{Duration, Instant};

use ferry_testkit::images::{self, Layer};
use ferry_testkit::{TestDaemon, http};
use serde_json::Value;

use crate::build::Place;
use crate::evil_archives::{Canary, clean, corpus, most_memory};

/// The most memory the engine has ever had.
const MEMORY: u64 = 120 << 20;

/// What `POST /build` says of a context: the last error, if it is one.
pub fn post(engine: &TestDaemon, query: &str, body: &[u8]) -> Result<String, String> {
    let path = format!("/build?{query}");
    let answer = http::request(engine.socket(), "POST", &path, "application/x-tar", body).unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status != 200 {
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        return Err(format!(
            "{} {}",
            answer.status,
            said["message"].as_str().unwrap_or(&text)
        ));
    }
    let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default();
    match last["errorDetail"]["message"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(text),
    }
}

/// Entries of an archive before another archive's.
fn before(layer: Layer, archive: &[u8]) -> Vec<u8> {
    [layer.truncated(), archive.to_vec()].concat()
}

#[test]
fn no_archive_of_the_corpus_reaches_the_host_by_any_way_into_a_build() {
    let place = Place::new();
    let canary = Canary::new("build");
    let dockerfile = b"FROM busybox\nCOPY . /all/\nADD evil.tar /\nADD evil.tar /into/\nRUN true\n";
    let added = b"FROM busybox\nADD evil.tar /\nADD evil.tar /into/\nRUN true\n";
    let (mut taken, mut refused) = (0, 0);
    let mut answered = |what: &str, result: Result<String, String>| {
        let text = result.as_ref().unwrap_or_else(|error| error);
        assert!(!text.trim().is_empty() && !text.contains("panic"), "{what}: {text}");
        canary.assert_untouched(what);
        if result.is_ok() { taken += 1 } else { refused += 1 }
    };
    for (name, tar) in corpus::archives(&canary.dir) {
        let file = |text: &[u8]| {
            Layer::new()
                .file("Dockerfile", text, 0o644)
                .file("evil.tar", &tar, 0o644)
        };
        answered(
            &format!("POST {name}"),
            post(&place.engine, "t=made", &before(file(dockerfile), &tar)),
        );
        answered(
            &format!("ADD {name}"),
            post(&place.engine, "t=made", &file(added).finish()),
        );
        let run = place
            .command()
            .args(["build", "-q", "-"])
            .input(before(file(dockerfile), &tar))
            .output();
        let said = run.stderr.clone();
        answered(
            &format!("- {name}"),
            if run.code == 0 {
                Ok("built".to_owned())
            } else {
                Err(said)
            },
        );
    }
    assert!(taken > 40 && refused > 40, "{taken} were taken, {refused} refused");
    assert_eq!(place.engine.sh(&[], "echo alive"), "alive");
    clean(&place.engine);
}

#[test]
fn the_engine_stays_small_whatever_a_context_claims() {
    let place = Place::new();
    let special = |kind: u8, size: u64| corpus::header("x", kind, size).to_vec();
    let dockerfile = |text: &str| Layer::new().file("Dockerfile", text.as_bytes(), 0o644);
    let copies = || dockerfile("FROM busybox\nCOPY . /all\n");
    let head = |layer: Layer, more: &[u8]| [layer.truncated(), more.to_vec()].concat();
    let mut deep = copies();
    for depth in [40, 45] {
        deep = deep.dir(&"d/".repeat(depth), 0o755);
    }
    let long = "l".repeat(300);
    for (name, context, wanted) in [
        (
            "a Dockerfile of a gibibyte",
            images::stretched(b"FROM busybox\n", b'#', 1 << 10),
            "longer than",
        ),
        (
            "a name of a gibibyte",
            images::stretched(&head(copies(), &special(b'L', 1 << 30)), b'n', 1 << 10),
            "",
        ),
        (
            "a record of a gibibyte",
            images::stretched(&head(copies(), &special(b'x', 1 << 30)), b' ', 1 << 10),
            "",
        ),
        (
            "segments without end",
            images::stretched(&head(copies(), &corpus::sparse_of_segments(1 << 30)), b'1', 1 << 10),
            "",
        ),
        (
            "ten thousand directories in each other",
            copies()
                .pax(&[("path", "d/".repeat(10_000).as_bytes())])
                .dir("x", 0o755)
                .finish(),
            "",
        ),
        (
            "a name that is too long",
            copies()
                .pax(&[("path", long.as_bytes())])
                .file("f", b"x", 0o644)
                .finish(),
            "",
        ),
        (
            "an exbibyte of nothing",
            copies()
                .pax(&[
                    ("GNU.sparse.major", b"0"),
                    ("GNU.sparse.minor", b"1"),
                    ("GNU.sparse.map", b"0,1"),
                    ("GNU.sparse.size", b"1152921504606846976"),
                ])
                .file("f", b"x", 0o644)
                .finish(),
            "",
        ),
        (
            "a file that ends early",
            copies().header_only("f", 1 << 40).finish(),
            "",
        ),
        (
            "a Dockerfile that is a device",
            Layer::new().device("Dockerfile", 1, 5).finish(),
            "",
        ),
        (
            "a Dockerfile that is a link to one",
            Layer::new().symlink("Dockerfile", "/dev/zero").finish(),
            "",
        ),
        (
            "a Dockerfile that is a directory",
            Layer::new().dir("Dockerfile", 0o755).finish(),
            "",
        ),
        (
            "a Dockerfile that is itself",
            Layer::new().symlink("Dockerfile", "Dockerfile").finish(),
            "",
        ),
        (
            "a .dockerignore of two mebibytes",
            copies().file(".dockerignore", &vec![b'#'; 2 << 20], 0o644).finish(),
            "longer than",
        ),
        ("nothing", Vec::new(), ""),
        ("nothing, packed", images::stretched(&[], 0, 0), ""),
    ] {
        let begin = Instant::now();
        let error = match post(&place.engine, "t=made", &context) {
            // What is no directory's Dockerfile may be none at all.
            Ok(text) => panic!("{name} was built: {text}"),
            Err(error) => error,
        };
        assert!(error.contains(wanted) && !error.contains("panic"), "{name}: {error}");
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{name} took {:?}",
            begin.elapsed()
        );
        let most = most_memory(&place.engine);
        assert!(most < MEMORY, "{name}: the engine had {} MiB", most >> 20);
    }
    post(&place.engine, "t=made", &deep.finish()).unwrap();
    clean(&place.engine);
}

/// Who leaves takes the work along, however much of it there would be.
#[test]
fn a_file_of_nothing_but_holes_is_given_up_with_its_build() {
    let place = Place::new();
    place.write("Dockerfile", "FROM busybox\nCOPY holes /\n");
    let holes = std::fs::File::create(place.path("holes")).unwrap();
    holes.set_len(4 << 40).unwrap();
    let mut running = place.command().args(["build", "--progress", "plain", "."]).spawn();
    running.wait_for_error("load build context");
    std::thread::sleep(Duration::from_millis(500));
    assert!(running.is_running(), "4 TiB were read");
    running.signal(ferry_testkit::signal::KILL);
    running.finish();
    ferry_testkit::wait_until("the engine rests", || {
        let before = crate::overload::time_used(place.engine.engine_pid());
        std::thread::sleep(Duration::from_millis(300));
        crate::overload::time_used(place.engine.engine_pid()) - before < Duration::from_millis(60)
    });
    place.is_clean();
}

/// Devices of an archive are devices in the image, as Docker has them, and no step opens the host's by them.
#[test]
fn devices_of_a_context_are_copied_and_not_opened() {
    let place = Place::new();
    let context = Layer::new()
        .file(
            "Dockerfile",
            b"FROM busybox\nCOPY . /all\nRUN ls -l /all; ! cat /all/mem; ! cat /all/disk\n",
            0o644,
        )
        .device("mem", 1, 1)
        .device("zero", 1, 5)
        .device("disk", 8, 0)
        .finish();
    match post(&place.engine, "t=made", &context) {
        Ok(text) => assert!(text.contains("1,   1"), "{text}"),
        Err(error) => assert!(error.contains("device") || error.contains("mem"), "{error}"),
    }
    assert!(!Path::new("/all").exists());
    clean(&place.engine);
}

/// How deep a tree is, is up to whoever made it: it is copied or refused, whoever has made it.
#[test]
fn trees_as_deep_as_can_be_are_copied_or_refused() {
    let place = Place::new();
    let make = |levels: usize| format!("for n in $(seq {levels}); do mkdir d && cd d; done; echo deep > f");
    for (levels, fits) in [(700, true), (1300, false)] {
        std::fs::create_dir_all(place.path("tree")).unwrap();
        ferry_testkit::Run::new("sh")
            .directory(place.path("tree"))
            .args(["-c", &make(levels)])
            .output()
            .ok();
        let find = "cd /tree; n=0; while cd d 2>/dev/null; do n=$((n+1)); done; cat f > /found; echo $n >> /found";
        let both = [
            ("a context", format!("FROM busybox\nCOPY tree /tree\nRUN {find}\n")),
            (
                "a stage",
                format!(
                    "FROM busybox AS a\nRUN mkdir /tree && cd /tree && {}\nFROM busybox\nCOPY --from=a /tree /tree\nRUN {find}\n",
                    make(levels)
                ),
            ),
        ];
        for (from, dockerfile) in both.into_iter().take(if fits { 2 } else { 1 }) {
            place.write("Dockerfile", &dockerfile);
            let output = place.ferry("build -t made .");
            match fits {
                true => {
                    output.ok();
                    assert_eq!(place.inside("made", "cat /found"), format!("deep\n{levels}"), "{from}");
                    place.ferry("build -q -o out .").ok();
                    std::fs::remove_dir_all(place.path("out")).unwrap();
                }
                false => {
                    crate::build_attacks::refused(&output, from);
                    let said = output.stderr;
                    assert!(
                        said.contains("levels") || said.contains("deep"),
                        "{from}, {levels}: {said}"
                    );
                }
            }
        }
        std::fs::remove_dir_all(place.path("tree")).unwrap();
    }
    clean(&place.engine);
}
