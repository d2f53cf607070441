//! `system df`, `image prune` and the lists of images.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::{Engine, TestDaemon};
use serde_json::Value;

fn small(reference: &str, content: &str) -> Image {
    Image::new(
        reference,
        vec![Layer::new().file("content", content.as_bytes(), 0o644).finish()],
    )
}

/// What is shared, what is not, a container with four bytes, and an image without a name.
fn stage(engine: &Engine) {
    engine.load(&images::docker_archive(&[small("small:1", "123456")]));
    engine.cli(["create", "--name", "c1", "small:1", "x"]).ok();
    let (dir, _) = engine.share("df");
    std::fs::write(dir.join("four"), "new\n").unwrap();
    engine.cli(["cp", dir.join("four").to_str().unwrap(), "c1:/four"]).ok();
    engine.cli(["commit", "c1", "small:2"]).ok();
    engine.cli(["commit", "c1"]).ok();
}

/// Both clients print the same; ages may tick between the two.
fn same(engine: &Engine, line: &[&str]) -> String {
    let mut pair = (String::new(), String::new());
    for _ in 0..5 {
        pair = (engine.ferry(line).ok(), engine.docker(line).ok());
        if pair.0 == pair.1 {
            break;
        }
    }
    assert_eq!(pair.0, pair.1, "{line:?}");
    pair.0
}

const SUMMARY: &str = "\
TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images          3         1         10B       10B (100%)
Containers      1         0         4B        4B (100%)
Local Volumes   0         0         0B        0B
Build Cache     0         0         0B        0B";

#[test]
fn sizes_add_up_and_are_shown_as_docker_shows_them() {
    let engine = Engine::start();
    stage(&engine);
    assert_eq!(engine.ferry(["system", "df"]).ok(), SUMMARY);
    assert_eq!(engine.docker(["system", "df"]).ok(), SUMMARY);
    for format in ["json", "{{.Type}}", "table {{.Type}}\\t{{.Size}}", "{{json .}}"] {
        same(&engine, &["system", "df", "--format", format]);
    }
    for format in [
        "json",
        "{{range .Images}}{{.Repository}} {{.UniqueSize}}|{{end}}",
        "table",
    ] {
        same(&engine, &["system", "df", "-v", "--format", format]);
    }
    let detailed = same(&engine, &["system", "df", "-v"]);
    assert!(
        detailed.contains("\nLocal Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\n\nBuild cache usage: 0B\n\n")
    );
    for bad in [
        vec!["system", "df", "--format", "{{.Bad}}"],
        vec!["system", "df", "-v", "--format", "{{.Bad}}"],
    ] {
        assert_eq!(engine.ferry(&bad).fails(1), engine.docker(&bad).fails(1));
    }
    let (_, usage) = engine.api("GET", "/system/df", None);
    let one = |name: &str| {
        let images = usage["Images"].as_array().unwrap();
        let image = images.iter().find(|image| image["RepoTags"][0] == name).unwrap();
        (
            image["Size"].as_i64(),
            image["SharedSize"].as_i64(),
            image["Containers"].as_i64(),
        )
    };
    assert_eq!(one("small:1"), (Some(6), Some(6), Some(1)));
    assert_eq!(one("small:2"), (Some(10), Some(10), Some(0)));
    assert_eq!(usage["LayersSize"], 10);
    assert_eq!(usage["Containers"][0]["SizeRw"], 4);
    let (status, answer) = engine.api("GET", "/system/df?type=foo", None);
    assert_eq!(
        (status, answer["message"].as_str()),
        (400, Some("unknown object type: foo"))
    );
    let (_, only) = engine.api("GET", "/system/df?type=container", None);
    assert_eq!((&only["Images"], &only["LayersSize"]), (&Value::Null, &Value::from(0)));
}

/// Bytes of the files below, each once.
fn bytes(path: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let meta = entry.path().symlink_metadata().unwrap();
            match meta.is_dir() {
                true => bytes(&entry.path(), seen),
                false if seen.insert(meta.ino()) => meta.len(),
                false => 0,
            }
        })
        .sum()
}

#[test]
fn what_df_says_is_what_is_on_disk() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon
        .cli([
            "run",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "dd if=/dev/zero of=/big bs=1k count=300 2>/dev/null; ln /big /big2",
        ])
        .ok();
    daemon.cli(["commit", "c1", "made:1"]).ok();
    let (_, usage) = daemon.api("GET", "/system/df", None);
    let mut seen = std::collections::HashSet::new();
    let layers = std::fs::read_dir(daemon.data_root().join("layers")).unwrap();
    let on_disk: u64 = layers
        .map(|layer| bytes(&layer.unwrap().path().join("fs"), &mut seen))
        .sum();
    assert_eq!(usage["LayersSize"], on_disk);
    let id = daemon.cli(["inspect", "-f", "{{.Id}}", "c1"]).ok();
    let upper = daemon.data_root().join("containers").join(id).join("upper");
    assert_eq!(usage["Containers"][0]["SizeRw"], bytes(&upper, &mut seen));
}

#[test]
fn prune_takes_what_nobody_needs() {
    let engine = Engine::start();
    stage(&engine);
    assert_eq!(
        engine.cli(["image", "prune", "-f", "--filter", "label=nope"]).ok(),
        "Total reclaimed space: 0B"
    );
    assert_eq!(
        engine.cli(["image", "prune", "-af", "--filter", "until=1h"]).ok(),
        "Total reclaimed space: 0B"
    );
    let asked = "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] ";
    assert_eq!(engine.run(["image", "prune"]).input("n\n").ok(), asked.trim_end());
    let pruned = engine.run(["image", "prune"]).input("y\n").ok();
    let pruned = pruned.strip_prefix(asked).unwrap_or(&pruned);
    assert!(pruned.starts_with("Deleted Images:\ndeleted: sha256:"), "{pruned}");
    assert!(pruned.ends_with("\n\nTotal reclaimed space: 0B"), "{pruned}");
    let pruned = engine.cli(["image", "prune", "-af"]).ok();
    assert!(
        pruned.starts_with("Deleted Images:\nuntagged: small:2\ndeleted: sha256:"),
        "{pruned}"
    );
    assert!(pruned.ends_with("\n\nTotal reclaimed space: 4B"), "{pruned}");
    // A container holds the rest.
    assert_eq!(engine.cli(["image", "prune", "-af"]).ok(), "Total reclaimed space: 0B");
    assert_eq!(
        engine.cli(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok(),
        "small:1"
    );
    assert_eq!(
        engine.cli(["image", "prune", "-f", "--filter", "bad=1"]).fails(1),
        "Error response from daemon: invalid filter 'bad'"
    );
    assert_eq!(
        engine.cli(["image", "prune", "-f", "--filter", "until=bad"]).fails(1),
        "Error response from daemon: failed to parse value as time or duration: \"bad\""
    );
}

#[test]
fn images_are_filtered_by_what_they_are_and_when_they_came() {
    let engine = Engine::start();
    stage(&engine);
    let list = |filter: &str| {
        let text = engine
            .cli(["images", "-f", filter, "--format", "{{.Repository}}:{{.Tag}}"])
            .ok();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(list("since=small:1"), ["<none>:<none>", "small:2"]);
    assert_eq!(list("before=small:2"), ["small:1"]);
    assert_eq!(list("dangling=true"), ["<none>:<none>"]);
    assert_eq!(list("reference=sm*:2"), ["small:2"]);
    assert_eq!(list("label=nope"), [""; 0]);
    assert_eq!(
        engine.cli(["images", "-f", "until=bad"]).fails(1),
        "Error response from daemon: failed to parse value as time or duration: \"bad\""
    );
}

#[test]
fn the_tree_is_dockers_byte_for_byte() {
    let engine = Engine::start();
    stage(&engine);
    engine
        .cli(["tag", "small:2", "registry.example:5000/team/small:two"])
        .ok();
    engine
        .cli([
            "tag",
            "small:1",
            "a-very-long-name-for-an-image-that-does-not-fit-in-eighty-columns:1",
        ])
        .ok();
    for line in [
        vec!["images", "--tree"],
        vec!["images", "--tree", "-a"],
        vec!["images", "--tree", "nosuch"],
    ] {
        // Names of one image come in any order from Docker Engine, and the same from Ferry's.
        if engine.is_ferry() {
            assert_eq!(engine.ferry(&line).ok(), engine.docker(&line).ok(), "{line:?}");
        }
    }
    for flag in ["-q", "--no-trunc", "--digests", "--format=x"] {
        let line = ["images", "--tree", flag];
        assert_eq!(engine.ferry(line).fails(1), engine.docker(line).fails(1));
    }
}
