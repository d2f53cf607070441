//! `--mount type=image`, as Docker 28.5 has it: read-only, of an image as it was when the container was made.

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::{Client, Engine, TestDaemon, wait_for_none};

/// Two layers, of which the upper one hides a file of the lower.
fn data(reference: &str) -> Image {
    let below = Layer::new()
        .dir("data", 0o755)
        .file("data/below", b"below", 0o644)
        .file("data/hidden", b"x", 0o644)
        .dir("data/sub", 0o755)
        .file_of("data/sub/own", b"own", 0o640, (5, 6));
    let above = Layer::new()
        .file("data/above", b"above", 0o644)
        .file("data/.wh.hidden", b"", 0o644)
        .symlink("data/out", "/etc");
    Image::new(reference, vec![below.finish(), above.finish()])
}

fn load(client: &Client) {
    client.busybox();
    let single = Image::new("single:1", vec![Layer::new().file("file", b"single", 0o644).finish()]);
    client.load(&images::docker_archive(&[data("data:1"), single]));
}

fn run(client: &Client, mount: &str, script: &str) -> ferry_testkit::Output {
    client.cli(["run", "--rm", "--mount", mount, BUSYBOX, "sh", "-c", script])
}

#[test]
fn an_image_is_mounted_read_only_whole_or_in_part() {
    let engine = Engine::start();
    load(&engine);
    let all = "type=image,src=data:1,dst=/x";
    assert_eq!(run(&engine, all, "ls /x/data").ok(), "above\nbelow\nout\nsub");
    assert_eq!(run(&engine, all, "stat -c %a:%u:%g /x/data/sub/own").ok(), "640:5:6");
    assert_ne!(run(&engine, all, "touch /x/new").code, 0);
    assert_eq!(
        run(
            &engine,
            "type=image,src=single:1,dst=/x",
            "cat /x/file; touch /x/new 2>&1 | grep -c Read-only"
        )
        .ok(),
        "single1"
    );
    assert_eq!(
        run(&engine, &format!("{all},image-subpath=data/sub"), "cat /x/own").ok(),
        "own"
    );
    assert_eq!(
        run(&engine, &format!("{all},image-subpath=data/above"), "cat /x").ok(),
        "above"
    );
    for (more, code, why) in [
        (",image-subpath=data/nope", 127, "cannot access path"),
        (",image-subpath=data/out", 125, "escapes the base directory"),
        (
            ",image-subpath=../..",
            125,
            "subpath must be a relative path within the volume",
        ),
        (
            ",image-subpath=/data",
            125,
            "subpath must be a relative path within the volume",
        ),
    ] {
        let done = run(&engine, &format!("{all}{more}"), "true");
        assert_eq!(done.code, code, "{more}: {}", done.stderr);
        assert!(done.stderr.contains(why), "{more}: {}", done.stderr);
    }
    assert!(
        run(&engine, "type=image,dst=/x", "true")
            .fails(125)
            .contains("field Source must not be empty")
    );
}

#[test]
fn a_container_keeps_the_image_it_mounts() {
    let engine = Engine::start();
    load(&engine);
    let create = [
        "create",
        "--name",
        "c1",
        "--mount",
        "type=image,src=data:1,dst=/x",
        BUSYBOX,
        "cat",
        "/x/data/above",
    ];
    engine.cli(create).ok();
    let mounts = &engine.inspect("c1")["Mounts"][0];
    assert_eq!(
        (
            mounts["Type"].as_str(),
            mounts["Name"].as_str(),
            mounts["RW"].as_bool(),
            mounts["Propagation"].as_str()
        ),
        (Some("image"), Some("data:1"), Some(false), Some("rprivate"))
    );
    assert_eq!(engine.cli(["ps", "-a", "--format", "{{.Mounts}}"]).ok(), "data:1");
    let said = engine.cli(["rmi", "data:1"]).fails(1);
    assert!(said.contains("is using its referenced image"), "{said}");
    engine.cli(["image", "prune", "-af"]).ok();
    engine.cli(["image", "inspect", "data:1"]).ok();
    // By force it goes, and the container keeps what it has.
    engine.cli(["rmi", "-f", "data:1"]).ok();
    assert_eq!(engine.cli(["start", "-a", "c1"]).ok(), "above");
    engine.cli(["rm", "c1"]).ok();
}

#[test]
fn the_layers_of_a_mounted_image_outlive_daemons_and_go_with_the_last_container() {
    let mut daemon = TestDaemon::start();
    load(&daemon);
    let layers = daemon.data_root().join("layers");
    let count = || std::fs::read_dir(&layers).unwrap().count();
    let before = count();
    daemon.sleeper("c1", &["--mount", "type=image,src=data:1,dst=/x"]);
    daemon.cli(["rmi", "-f", "data:1"]).ok();
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.cli(["exec", "c1", "cat", "/x/data/above"]).ok(), "above");
    daemon.cli(["restart", "-t", "0", "c1"]).ok();
    assert_eq!(daemon.cli(["exec", "c1", "cat", "/x/data/below"]).ok(), "below");
    // `cp` sees it running or not.
    daemon.cli(["stop", "-t", "0", "c1"]).ok();
    let to = daemon.dir().join("copied");
    daemon.cli(["cp", "c1:/x/data/above", to.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "above");
    assert_eq!(count(), before);
    daemon.cli(["rm", "c1"]).ok();
    wait_for_none("its layers", || {
        (count() + 2 > before)
            .then(|| count().to_string())
            .into_iter()
            .collect()
    });
}

#[test]
fn with_ids_of_its_own_a_container_sees_the_images_owners() {
    let daemon = TestDaemon::start();
    load(&daemon);
    for (image, file, owner) in [("data:1", "data/sub/own", "5:6"), ("single:1", "file", "0:0")] {
        let mount = format!("type=image,src={image},dst=/x");
        let script = format!("stat -c %u:%g /x/{file}");
        assert_eq!(daemon.sh(&["--userns", "auto", "--mount", &mount], &script), owner);
    }
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let said = run(&daemon, "type=image,src=nope:1,dst=/x", "true").fails(125);
    assert!(said.contains("no image nope:1 to mount at /x: pull it first"), "{said}");
}
