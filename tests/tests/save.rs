//! `save`: archives that other engines, and this one, make the same images of.

use std::path::Path;

use ferry_testkit::images::{self, Compression, Image, Layer};
use ferry_testkit::{Engine, Run, TestDaemon, peer};

/// Above busybox: what layers have that plain files have not.
const CHANGES: &str =
    "mkdir -p /data/deep; echo one >/data/one; ln /data/one /data/two; ln -s one /data/link; mkfifo /data/pipe
    chmod 4755 /data/two; chown 12345678:99 /data/deep; rm -f /bin/vi; printf x >\"/data/new
line\"; touch -d '1999-01-01 00:00:00' /data/one";

fn archive(engine: &Engine, names: &[&str]) -> Vec<u8> {
    let (dir, _) = engine.share("archives");
    let file = dir.join("saved.tar");
    let path = file.to_str().unwrap();
    engine.cli(["save", "-o", path].iter().chain(names)).ok();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    bytes
}

fn member(archive: &[u8], name: &str) -> String {
    Run::new("tar").args(["-xOf", "-", name]).input(archive).ok()
}

fn id(engine: &ferry_testkit::Client, name: &str) -> String {
    engine.cli(["image", "inspect", "-f", "{{.Id}}", name]).ok()
}

/// `made:1`, with a layer that a container wrote, and `made:2` on top of it with none.
fn make(engine: &Engine) {
    engine.busybox();
    engine
        .cli(["run", "--name", "c1", images::BUSYBOX, "sh", "-ec", CHANGES])
        .ok();
    engine.cli(["commit", "-m", "changed", "c1", "made:1"]).ok();
    engine.cli(["create", "--name", "c2", "made:1"]).ok();
    engine.cli(["commit", "-c", "LABEL x=y", "c2", "made:2"]).ok();
}

#[test]
fn what_is_saved_loads_as_the_same_images() {
    let (from, to) = (Engine::start(), TestDaemon::start());
    make(&from);
    let saved = archive(&from, &["made"]);
    let loaded = to.run(["load"]).input(saved.clone()).ok();
    let mut lines: Vec<_> = loaded.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: made:1", "Loaded image: made:2"]);
    for name in ["made:1", "made:2"] {
        assert_eq!(id(&from, name), id(&to, name));
    }
    let seen = to.cli([
        "run",
        "--rm",
        "made:2",
        "sh",
        "-c",
        "cat /data/two; stat -c %a /data/two; test -e /bin/vi || echo gone",
    ]);
    assert_eq!(seen.ok(), "one\n4755\ngone");
    // Again, from what was loaded.
    assert!(archive(&Engine::Ferry(Box::new(to)), &["made"]) == saved, "other bytes");
}

#[test]
fn dockers_engine_and_this_one_give_each_other_their_images() {
    let Some(docker) = peer::Docker::get() else {
        eprintln!("skipped: the peers are not set up");
        return;
    };
    let (ours, docker) = (Engine::Ferry(Box::new(TestDaemon::start())), Engine::Docker(docker));
    make(&ours);
    make_there(&docker);
    for (from, to, name) in [(&ours, &docker, "made:2"), (&docker, &ours, "there:2")] {
        let saved = archive(from, &[name]);
        to.run(["load"]).input(saved.clone()).ok();
        assert_eq!(id(from, name), id(to, name));
        assert!(timeless(archive(to, &[name])) == timeless(saved), "{name}: other bytes");
        to.cli(["run", "--rm", name, "cat", "/data/two"]).ok();
    }
    for name in ["made:2", "there:2", "there:1"] {
        docker.cli(["rmi", "-f", name]).ok();
    }
}

/// Without the time of the second member, `blobs/sha256/`, and the sum over it: Docker's is the moment of saving.
fn timeless(mut archive: Vec<u8>) -> Vec<u8> {
    archive[512 + 136..512 + 156].fill(0);
    archive
}

fn make_there(docker: &Engine) {
    docker.busybox();
    docker.cli(["rm", "-f", "t1", "t2"]).ok();
    docker
        .cli([
            "run",
            "--network",
            "none",
            "--name",
            "t1",
            images::BUSYBOX,
            "sh",
            "-ec",
            CHANGES,
        ])
        .ok();
    docker.cli(["commit", "-m", "changed", "t1", "there:1"]).ok();
    docker.cli(["create", "--name", "t2", "there:1"]).ok();
    docker.cli(["commit", "-c", "LABEL x=y", "t2", "there:2"]).ok();
    docker.cli(["rm", "-f", "t1", "t2"]).ok();
}

#[test]
fn layers_come_out_of_whatever_they_came_in() {
    let daemon = TestDaemon::start();
    for (reference, compression) in [
        ("tar:1", Compression::None),
        ("gzip:1", Compression::Gzip),
        ("zstd:1", Compression::Zstd),
    ] {
        let layer = Layer::new().file("told", reference.as_bytes(), 0o644);
        let image = Image::new(reference, vec![layer.finish()]).compression(compression);
        daemon
            .run(["load"])
            .input(images::oci_archive(std::slice::from_ref(&image)))
            .ok();
        let file = daemon.dir().join("saved.tar");
        daemon.cli(["save", "-o", file.to_str().unwrap(), reference]).ok();
        let bytes = std::fs::read(&file).unwrap();
        let digest = images::sha256(&image.layers[0]);
        let found = Run::new("tar")
            .args(["-xOf", file.to_str().unwrap(), &format!("blobs/sha256/{digest}")])
            .output();
        assert_eq!(found.code, 0, "{reference}: {found:?}");
        let manifest: serde_json::Value = serde_json::from_str(&member(&bytes, "manifest.json")).unwrap();
        assert_eq!(manifest[0]["Config"], format!("blobs/sha256/{}", &image.id()[7..]));
        assert_eq!(
            manifest[0]["Layers"],
            serde_json::json!([format!("blobs/sha256/{digest}")])
        );
    }
}

#[test]
fn a_layer_that_was_changed_on_disk_is_an_error_and_no_archive() {
    let daemon = TestDaemon::start();
    let image = Image::new(
        "victim:1",
        vec![Layer::new().file("content", b"as it was", 0o644).finish()],
    );
    daemon.load(&images::docker_archive(&[image]));
    let layers = daemon.data_root().join("layers");
    let layer = std::fs::read_dir(layers).unwrap().next().unwrap().unwrap().path();
    std::fs::write(layer.join("fs/content"), "as it is.").unwrap();
    let file = daemon.dir().join("saved.tar");
    let output = daemon.cli(["save", "-o", file.to_str().unwrap(), "victim:1"]);
    assert_ne!(output.code, 0, "{output:?}");
    assert!(!file.exists(), "half an archive");
    let left = std::fs::read_dir(daemon.dir()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().contains("saved.tar")),
        "{left:?}"
    );
    assert!(
        daemon.log().contains("its files were changed on disk"),
        "{}",
        daemon.log()
    );
}

#[test]
fn what_cannot_be_saved_is_said_in_dockers_words() {
    let engine = Engine::start();
    engine.load(&images::docker_archive(&[Image::new(
        "small:1",
        vec![Layer::new().file("x", b"x", 0o644).finish()],
    )]));
    let (dir, _) = engine.share("out");
    let inside = |name: &str| dir.join(name).display().to_string();
    let program = ferry_testkit::tools::docker();
    for (line, code, message) in [
        (
            vec!["save", "nosuch"],
            1,
            "Error response from daemon: No such image: nosuch",
        ),
        (
            vec!["save", "-o", "/nonexistent/x", "small:1"],
            1,
            "failed to save image: invalid output path: stat /nonexistent: no such file or directory",
        ),
        (
            vec!["save", "-o", "/tmp", "small:1"],
            1,
            "failed to save image: cannot write to a directory",
        ),
        (
            vec!["save", "-o", "/dev/null", "small:1"],
            1,
            "failed to save image: cannot write to a character device file",
        ),
        (
            vec!["save", "--platform", "a/b/c/d", "small:1"],
            1,
            "invalid platform: \"a/b/c/d\": cannot parse platform specifier: invalid argument",
        ),
        (
            vec!["save", "--platform", "linux/riscv64", "small:1"],
            1,
            "Error response from daemon: no suitable export target found for platform linux/riscv64",
        ),
        (
            vec!["export", "nosuch"],
            1,
            "Error response from daemon: No such container: nosuch",
        ),
        (
            vec!["export", "-o", "/nonexistent/x", "x"],
            1,
            "failed to export container: invalid output path: stat /nonexistent: no such file or directory",
        ),
    ] {
        assert_eq!(engine.ferry(&line).fails(code), message, "{line:?}");
        if program.exists() {
            assert_eq!(engine.docker(&line).fails(code), message, "{line:?}");
        }
    }
    let good = inside("good.tar");
    engine.cli(["save", "--platform", "linux", "-o", &good, "small:1"]).ok();
    let mode = std::fs::metadata(Path::new(&good)).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
}
