//! Hostile archives: nothing they hold reaches the host, and nothing of them stays after a refusal.

use std::path::Path;

use ferry_testkit::images::{self, Image, Layer, docker_archive};
use ferry_testkit::{Engine, Output, TestDaemon};

/// Loads an image of one layer above busybox.
fn load(engine: &Engine, layer: Layer) -> Output {
    let image = images::above_busybox("hostile:1", layer);
    engine.run(["load"]).input(docker_archive(&[image])).output()
}

/// No image of the hostile archive is there, and the engine still works.
fn refused(engine: &Engine, output: &Output) {
    assert_eq!(output.code, 1, "{output:?}");
    assert!(!output.stderr.trim().is_empty());
    assert_eq!(engine.cli(["images", "-q", "hostile"]).ok(), "");
    assert_eq!(engine.sh(&[], "echo alive"), "alive");
}

/// A name on the host that no test makes by honest means.
fn canary() -> String {
    format!("/var/tmp/ferry-canary-{}", std::process::id())
}

#[test]
fn names_with_dots_do_not_leave_the_root() {
    let engine = Engine::start();
    let canary = canary();
    for up in ["../../../../../../../../..", "a/../../../../../../../.."] {
        let output = load(&engine, Layer::new().file(&format!("{up}{canary}"), b"x", 0o644));
        assert!(!Path::new(&canary).exists(), "escaped: {output:?}");
        // Refusing and keeping it inside are both right.
        if output.code != 0 {
            refused(&engine, &output);
        }
    }
}

#[test]
fn absolute_names_are_below_the_root() {
    let engine = Engine::start();
    let canary = canary();
    load(&engine, Layer::new().file(&canary, b"inside", 0o644)).ok();
    assert!(!Path::new(&canary).exists());
    assert_eq!(engine.cli(["run", "--rm", "hostile:1", "cat", &canary]).ok(), "inside");
}

#[test]
fn symbolic_links_lead_nowhere_outside() {
    let engine = Engine::start();
    let canary = canary();
    for target in [
        "/var/tmp",
        "../../../../../../../../../var/tmp",
        "/proc/self/root/var/tmp",
    ] {
        let name = Path::new(&canary).file_name().unwrap().to_string_lossy();
        let layer = Layer::new()
            .symlink("trap", target)
            .file(&format!("trap/{name}"), b"x", 0o644);
        let output = load(&engine, layer);
        assert!(!Path::new(&canary).exists(), "escaped through {target}: {output:?}");
        engine.cli(["rmi", "-f", "hostile:1"]);
    }
    assert_eq!(engine.sh(&[], "echo alive"), "alive");
}

#[test]
fn hard_links_to_the_host_are_refused() {
    let engine = Engine::start();
    for target in ["../../../../../../../../../etc/hostname", "/etc/hostname"] {
        let output = load(&engine, Layer::new().hard_link("stolen", target));
        refused(&engine, &output);
    }
    let through = Layer::new()
        .symlink("up", "../../../../../../../..")
        .hard_link("stolen", "up/etc/hostname");
    let output = load(&engine, through);
    refused(&engine, &output);
}

#[test]
fn a_link_swapped_for_a_directory_does_not_redirect_a_whiteout() {
    let engine = Engine::start();
    let canary = canary();
    std::fs::write(&canary, "host").unwrap();
    let name = Path::new(&canary).file_name().unwrap().to_string_lossy().into_owned();
    let layer = Layer::new()
        .symlink("trap", "/var/tmp")
        .file(&format!("trap/.wh.{name}"), b"", 0o644)
        .file("trap/.wh..wh..opq", b"", 0o644);
    let output = load(&engine, layer);
    let kept = Path::new(&canary).exists();
    let _ = std::fs::remove_file(&canary);
    assert!(kept, "a whiteout removed a file of the host: {output:?}");
}

#[test]
fn a_whiteout_of_dots_is_harmless() {
    let engine = Engine::start();
    for name in [
        ".wh...",
        ".wh..",
        ".wh.",
        "bin/.wh...",
        ".wh..wh.plnk",
        ".wh..wh.aufs/x",
    ] {
        let output = load(&engine, Layer::new().file(name, b"", 0o644));
        if output.code == 0 {
            assert_eq!(
                engine.cli(["run", "--rm", "hostile:1", "echo", "runs"]).ok(),
                "runs",
                "{name}"
            );
        }
        engine.cli(["rmi", "-f", "hostile:1"]);
    }
    assert_eq!(engine.sh(&[], "echo alive"), "alive");
}

#[test]
fn truncated_and_corrupt_archives_are_refused() {
    let engine = Engine::start();
    let whole = docker_archive(&[images::above_busybox("hostile:1", Layer::new().file("x", b"x", 0o644))]);
    for length in [0, 1, 511, 512, 1000, 100_000, whole.len() / 2] {
        let output = engine.run(["load"]).input(&whole[..length]).output();
        if length == 0 {
            assert_eq!(engine.cli(["images", "-q", "hostile"]).ok(), "");
            continue;
        }
        refused(&engine, &output);
    }
    let output = engine
        .run(["load"])
        .input("this is no archive at all\n".repeat(100))
        .output();
    refused(&engine, &output);
    let empty = Layer::new().file("something", b"else", 0o644).finish();
    let output = engine.run(["load"]).input(empty).output();
    refused(&engine, &output);
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let engine = Engine::start();
    let honest = images::above_busybox("hostile:1", Layer::new().file("x", b"honest", 0o644));
    let configuration = honest.configuration();
    let name = format!("{}.json", images::sha256(&configuration));
    let other = Layer::new().file("x", b"forged", 0o644).finish();
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": ["hostile:1"], "Layers": ["a.tar", "b.tar"] }]);
    let archive = Layer::new()
        .file(&name, &configuration, 0o644)
        .file("a.tar", &images::busybox_tar(), 0o644)
        .file("b.tar", &other, 0o644)
        .file("manifest.json", manifest.to_string().as_bytes(), 0o644);
    let output = engine.run(["load"]).input(archive.finish()).output();
    refused(&engine, &output);
}

#[test]
fn manifests_that_lie_or_point_outside_are_refused() {
    let engine = Engine::start();
    // A layer that no engine has: one that it has already, it would not read again.
    let layer = Layer::new().file("lie", canary().as_bytes(), 0o644).finish();
    let good = Image::new("hostile:1", vec![layer.clone()]);
    let configuration = good.configuration();
    for manifest in [
        r#"[{"Config":"../../../etc/passwd","RepoTags":["hostile:1"],"Layers":[]}]"#,
        r#"[{"Config":"/etc/passwd","RepoTags":["hostile:1"],"Layers":[]}]"#,
        r#"[{"Config":"link.json","RepoTags":["hostile:1"],"Layers":["a.tar"]}]"#,
        r#"[{"Config":"config.json","RepoTags":["hostile:1"],"Layers":["missing.tar"]}]"#,
        r#"[{"Config":"config.json","RepoTags":["hostile:1"],"Layers":[]}]"#,
        r#"[{"Config":"config.json","RepoTags":["hostile:1"],"Layers":["a.tar","a.tar"]}]"#,
        r#"[{"Config":"config.json","RepoTags":["HOSTILE:!"],"Layers":["a.tar"]}]"#,
        r#"{"not":"a list"}"#,
        "[[[[",
        "",
    ] {
        let archive = Layer::new()
            .file("config.json", &configuration, 0o644)
            .symlink("link.json", "/etc/passwd")
            .file("a.tar", &layer, 0o644)
            .file("manifest.json", manifest.as_bytes(), 0o644);
        let output = engine.run(["load"]).input(archive.finish()).output();
        assert_eq!(output.code, 1, "{manifest}: {output:?}");
        refused(&engine, &output);
    }
}

#[test]
fn of_duplicates_the_last_one_counts() {
    let engine = Engine::start();
    let twice = Layer::new().file("f", b"first", 0o644).file("f", b"second", 0o600);
    let output = load(&engine, twice);
    if engine.is_ferry() {
        assert_eq!(output.code, 0, "{output:?}");
        let seen = engine.cli(["run", "--rm", "hostile:1", "sh", "-c", "cat /f; stat -c %a /f"]);
        assert_eq!(seen.ok(), "second600");
    } else {
        assert!(
            output.stderr.contains("duplicates of file paths not supported"),
            "{output:?}"
        );
        refused(&engine, &output);
    }
}

#[test]
fn garbage_in_a_layer_is_refused() {
    let engine = Engine::start();
    let valid = Layer::new().file("x", &[7; 4096], 0o644).finish();
    let mut checksum = valid.clone();
    checksum[0] ^= 0xff;
    for (what, bytes) in [
        ("checksum", checksum),
        ("truncated", valid[..2000].to_vec()),
        ("size", Layer::new().header_only("x", 1 << 62).finish()),
        ("text", b"no tar, but quite some text ".repeat(100)),
    ] {
        let image = Image::new("hostile:1", vec![images::busybox_tar(), bytes]);
        let output = engine.run(["load"]).input(docker_archive(&[image])).output();
        assert_eq!(output.code, 1, "{what}: {output:?}");
        refused(&engine, &output);
    }
    let output = engine
        .run(["import", "-", "hostile:1"])
        .input("no tar ".repeat(500))
        .output();
    refused(&engine, &output);
}

#[test]
fn a_bomb_fills_only_its_own_disk_and_leaves_nothing() {
    let daemon = TestDaemon::builder().disk(256).start();
    let image = Image::new("bomb:1", vec![images::busybox_tar(), Layer::new().finish()]);
    let configuration = image.configuration();
    let name = format!("{}.json", images::sha256(&configuration));
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": ["bomb:1"], "Layers": ["a.tar", "b.tar"] }]);
    let archive = Layer::new()
        .file(&name, &configuration, 0o644)
        .file("a.tar", &images::busybox_tar(), 0o644)
        .file("b.tar", &images::bomb(10), 0o644)
        .file("manifest.json", manifest.to_string().as_bytes(), 0o644);
    let output = daemon
        .run(["load"])
        .input(archive.finish())
        .time(std::time::Duration::from_secs(120))
        .output();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("no space left on device"), "{output:?}");
    assert_eq!(daemon.cli(["images", "-q"]).ok(), "");
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    assert!(
        free_kibibytes(&daemon) > 200_000,
        "what the bomb unpacked is still there"
    );
}

/// Free space of a daemon that has a disk of its own.
pub fn free_kibibytes(daemon: &TestDaemon) -> u64 {
    let data = daemon.data_root().display().to_string();
    let table = daemon.in_namespace(&["df", "-k", "--output=avail", &data]).ok();
    table.lines().last().unwrap().trim().parse().unwrap()
}
