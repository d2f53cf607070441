//! Images: `load`, `import`, `tag`, `images`, `rmi`, `history`, `image inspect`.

use ferry_testkit::images::{self, BUSYBOX, Compression, Image, Layer};
use ferry_testkit::{Engine, TestDaemon};
use serde_json::json;

/// A small image that can run nothing: enough for lists and tags.
fn small(reference: &str, content: &str) -> Image {
    Image::new(
        reference,
        vec![Layer::new().file("content", content.as_bytes(), 0o644).finish()],
    )
}

fn load(engine: &Engine, archive: Vec<u8>) -> String {
    engine.run(["load"]).input(archive).ok()
}

fn names(engine: &Engine) -> Vec<String> {
    let text = engine.cli(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut names: Vec<String> = text
        .lines()
        .filter(|name| *name != BUSYBOX)
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

#[test]
fn load_says_what_it_loaded_and_the_id_is_the_configuration_s() {
    let engine = Engine::start();
    let image = small("one:1", "1");
    assert_eq!(
        load(&engine, images::docker_archive(std::slice::from_ref(&image))),
        "Loaded image: one:1"
    );
    assert_eq!(engine.cli(["images", "-q", "--no-trunc", "one:1"]).ok(), image.id());
    // Once more changes nothing.
    assert_eq!(
        load(&engine, images::docker_archive(std::slice::from_ref(&image))),
        "Loaded image: one:1"
    );
}

#[test]
fn load_takes_several_images_files_and_untagged_ones() {
    let engine = Engine::start();
    let several = [small("many:1", "1"), small("many:2", "2")];
    let (dir, _) = engine.share("load");
    let file = dir.join("several.tar");
    std::fs::write(&file, images::docker_archive(&several)).unwrap();
    let output = engine.cli(["load", "-i", file.to_str().unwrap()]).ok();
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Loaded image: many:1", "Loaded image: many:2"]);
    let untagged = Image {
        references: vec![],
        ..small("x", "untagged")
    };
    let output = load(&engine, images::docker_archive(std::slice::from_ref(&untagged)));
    assert_eq!(output, format!("Loaded image ID: {}", untagged.id()));
}

#[test]
fn load_takes_an_oci_layout() {
    // Docker does so only with its containerd image store, which is off in 28 by default.
    let daemon = TestDaemon::start();
    let image = small("oci:1", "oci").compression(Compression::Gzip);
    let output = daemon
        .run(["load"])
        .input(images::oci_archive(std::slice::from_ref(&image)))
        .ok();
    assert_eq!(output, "Loaded image: oci:1");
    let id = daemon.api("GET", &format!("/images/{}/json", image.id()), None).1;
    assert_eq!(id["Id"], image.id().as_str());
}

#[test]
fn an_oci_layout_runs_whatever_its_layers_are_compressed_with() {
    let daemon = TestDaemon::start();
    let mut sizes = std::collections::BTreeSet::new();
    for (reference, compression) in [
        ("oci:tar", Compression::None),
        ("oci:gzip", Compression::Gzip),
        ("oci:members", Compression::GzipMembers),
        ("oci:zstd", Compression::Zstd),
        ("oci:frames", Compression::ZstdFrames),
    ] {
        let layer = Layer::new().file("told", reference.as_bytes(), 0o644);
        let image = images::above_busybox(reference, layer).compression(compression);
        let loaded = daemon
            .run(["load"])
            .input(images::oci_archive(std::slice::from_ref(&image)));
        assert_eq!(loaded.ok(), format!("Loaded image: {reference}"));
        assert_eq!(daemon.cli(["run", "--rm", reference, "cat", "/told"]).ok(), reference);
        let (_, seen) = daemon.api("GET", &format!("/images/{reference}/json"), None);
        assert_eq!(seen["Id"], image.id().as_str());
        let layers = image
            .layers
            .iter()
            .map(|layer| format!("sha256:{}", images::sha256(layer)))
            .collect::<Vec<_>>();
        assert_eq!(seen["RootFS"], json!({ "Type": "layers", "Layers": layers }));
        sizes.insert(seen["Size"].as_u64().unwrap() - reference.len() as u64);
        // What is compressed is kept as it came, for a push that is exact.
        for blob in image.blobs().iter().filter(|_| compression != Compression::None) {
            let kept = daemon.data_root().join("blobs/sha256").join(images::sha256(blob));
            let same = std::fs::read(&kept).is_ok_and(|bytes| bytes == *blob);
            assert!(same, "{} is not the layer that was loaded", kept.display());
        }
        // The next one unpacks the layer below anew.
        daemon.cli(["rmi", reference]).ok();
    }
    assert_eq!(sizes.len(), 1, "a size is that of what is unpacked: {sizes:?}");
}

#[test]
fn a_truncated_layer_is_refused_whatever_it_is_compressed_with() {
    let daemon = TestDaemon::start();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let image = small("cut:1", "x").compression(compression);
        let blob = image.blobs().remove(0);
        let archive = images::oci_archive(std::slice::from_ref(&image));
        // The name, the size and the digest are those of the whole blob.
        let at = archive.windows(blob.len()).position(|bytes| bytes == blob).unwrap();
        let mut cut = archive;
        cut[at + blob.len() / 2..at + blob.len()].fill(0);
        let output = daemon.run(["load"]).input(cut).output();
        assert_eq!(output.code, 1, "{output:?}");
        assert!(!output.stderr.is_empty());
        assert_eq!(daemon.cli(["images", "-q", "cut"]).ok(), "");
    }
}

#[test]
fn load_takes_compressed_archives_and_layers() {
    let engine = Engine::start();
    for (reference, compression) in [("gz:1", Compression::Gzip), ("gz:2", Compression::GzipMembers)] {
        let image = Image {
            references: vec![reference.into()],
            ..images::busybox()
        }
        .compression(compression);
        load(&engine, images::docker_archive(&[image]));
        assert_eq!(engine.cli(["run", "--rm", reference, "echo", "runs"]).ok(), "runs");
        engine.cli(["rmi", "-f", reference]).ok();
    }
    let (dir, _) = engine.share("gzip");
    let path = dir.join("archive.tar");
    std::fs::write(&path, images::docker_archive(&[small("whole:gz", "x")])).unwrap();
    let path = path.display().to_string();
    ferry_testkit::Run::new("gzip").args([&path]).ok();
    assert_eq!(
        engine.cli(["load", "-i", &format!("{path}.gz")]).ok(),
        "Loaded image: whole:gz"
    );
}

#[test]
fn a_name_that_moves_leaves_the_old_image_untagged() {
    let engine = Engine::start();
    let (old, new) = (small("moving:1", "old"), small("moving:1", "new"));
    load(&engine, images::docker_archive(std::slice::from_ref(&old)));
    let output = load(&engine, images::docker_archive(std::slice::from_ref(&new)));
    let wanted = format!(
        "The image moving:1 already exists, renaming the old one with ID {} to empty string",
        old.id()
    );
    assert!(output.starts_with(&wanted), "{output}");
    assert_eq!(engine.cli(["images", "-q", "--no-trunc", "moving:1"]).ok(), new.id());
    assert_eq!(
        engine.cli(["images", "-q", "--no-trunc", "-f", "dangling=true"]).ok(),
        old.id()
    );
}

#[test]
fn tags_come_and_go() {
    let engine = Engine::start();
    let image = small("first:1", "tags");
    load(&engine, images::docker_archive(std::slice::from_ref(&image)));
    engine.cli(["tag", "first:1", "second"]).ok();
    engine
        .cli(["tag", &image.id()[7..19], "localhost:5000/deep/er/third:v1"])
        .ok();
    assert_eq!(
        names(&engine),
        ["first:1", "localhost:5000/deep/er/third:v1", "second:latest"]
    );
    assert_eq!(engine.cli(["rmi", "second"]).ok(), "Untagged: second:latest");
    let message = engine.cli(["rmi", &image.id()]).fails(1);
    assert!(
        message.contains("image is referenced in multiple repositories"),
        "{message}"
    );
    assert_eq!(
        engine.cli(["rmi", "localhost:5000/deep/er/third:v1"]).ok(),
        "Untagged: localhost:5000/deep/er/third:v1"
    );
    let gone = engine.cli(["rmi", "first:1"]).ok();
    let lines: Vec<&str> = gone.lines().collect();
    assert_eq!(
        lines[..2],
        ["Untagged: first:1".to_owned(), format!("Deleted: {}", image.id())]
    );
    assert_eq!(lines.len(), 3, "one layer: {gone}");
    let message = engine.cli(["tag", "nope", "x"]).fails(1);
    assert_eq!(message, "Error response from daemon: No such image: nope:latest");
    for bad in ["UPPER", "a//b", "x:y:z", "-x"] {
        let refused = engine.cli(["tag", BUSYBOX, bad]);
        assert_ne!(refused.code, 0, "{bad}");
    }
}

#[test]
fn an_image_in_use_stays() {
    let engine = Engine::start();
    let image = images::above_busybox("used:1", Layer::new().file("x", b"used", 0o644));
    load(&engine, images::docker_archive(std::slice::from_ref(&image)));
    let short = image.id()[7..19].to_owned();
    let container = engine.cli(["create", "--name", "c1", "used:1"]).ok();
    let message = engine.cli(["rmi", "used:1"]).fails(1);
    let wanted = format!(
        "conflict: unable to remove repository reference \"used:1\" (must force) - container {} is using its referenced image {short}",
        &container[..12]
    );
    assert!(message.ends_with(&wanted), "{message}");
    engine.cli(["start", "c1"]).ok();
    engine.cli(["wait", "c1"]).ok();
    // The image goes, its layers stay for as long as the container needs them.
    let gone = engine.cli(["rmi", "-f", "used:1"]).ok();
    assert_eq!(gone, format!("Untagged: used:1\nDeleted: {}", image.id()));
    engine.cli(["start", "-a", "c1"]).ok();
    engine.cli(["rm", "c1"]).ok();
    assert!(engine.cli(["rmi", &short]).fails(1).contains("No such image"));
}

#[test]
fn a_running_container_s_image_cannot_be_forced_away_by_id() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let short = images::busybox().id()[7..19].to_owned();
    let message = engine.cli(["rmi", "-f", &short]).fails(1);
    let id = engine.field("c1", "/Id");
    let wanted = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {}",
        &id[..12]
    );
    assert!(message.ends_with(&wanted), "{message}");
}

#[test]
fn lists_filter_and_format() {
    let engine = Engine::start();
    let labelled = small("labels:1", "l").config("Labels", json!({"kind": "test"}));
    load(
        &engine,
        images::docker_archive(&[labelled, small("plain:1", "p"), small("plain:2", "q")]),
    );
    let list = |args: &[&str]| {
        let text = engine
            .cli(["images", "--format", "{{.Repository}}:{{.Tag}}"].iter().chain(args))
            .ok();
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(list(&["plain"]), "plain:1 plain:2");
    assert_eq!(list(&["-f", "label=kind=test"]), "labels:1");
    assert_eq!(list(&["-f", "reference=pl*:2"]), "plain:2");
    assert_eq!(list(&["nothing"]), "");
    let table = engine.cli(["images", "plain:1"]).ok();
    assert!(
        table.starts_with("REPOSITORY   TAG       IMAGE ID       CREATED       SIZE\n")
            || table.starts_with("REPOSITORY"),
        "{table}"
    );
    assert!(table.lines().nth(1).unwrap().ends_with("1B"), "{table}");
}

#[test]
fn inspect_and_history_show_what_the_archive_said() {
    let engine = Engine::start();
    let image = small("told:1", "told")
        .config("Cmd", json!(["run", "me"]))
        .config("ExposedPorts", json!({"80/tcp": {}}));
    load(&engine, images::docker_archive(std::slice::from_ref(&image)));
    let (_, value) = engine.api("GET", "/v1.51/images/told:1/json", None);
    assert_eq!(value["Id"], image.id().as_str());
    assert_eq!(value["RepoTags"], json!(["told:1"]));
    assert_eq!(value["Config"]["Cmd"], json!(["run", "me"]));
    assert_eq!(value["Architecture"], "amd64");
    assert_eq!(value["Created"], "2023-11-14T22:13:20Z");
    assert_eq!(value["Size"], 4);
    assert_eq!(
        value["RootFS"]["Layers"][0],
        format!("sha256:{}", images::sha256(&image.layers[0]))
    );
    let history = engine
        .cli([
            "history",
            "--no-trunc",
            "--format",
            "{{.ID}} {{.CreatedBy}} {{.Size}}",
            "told:1",
        ])
        .ok();
    assert_eq!(history, format!("{} ferry-testkit 4B", image.id()));
    let cmd = engine
        .cli(["image", "inspect", "-f", "{{json .Config.Cmd}}", "told:1"])
        .ok();
    assert_eq!(cmd, r#"["run","me"]"#);
    assert!(
        engine
            .cli(["image", "inspect", "nope"])
            .fails(1)
            .to_lowercase()
            .contains("no such image: nope")
    );
}

#[test]
fn import_takes_a_root_from_a_file_or_standard_input() {
    let engine = Engine::start();
    let changes = [
        "-c",
        "CMD [\"echo\", \"imported\"]",
        "-c",
        "ENV A=1 B=two",
        "-c",
        "WORKDIR /tmp",
        "-m",
        "a message",
    ];
    let id = engine
        .run(["import"].iter().chain(&changes).chain(&["-", "mine:1"]))
        .input(images::busybox_tar())
        .ok();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(engine.cli(["run", "--rm", "mine:1"]).ok(), "imported");
    assert_eq!(
        engine
            .cli(["run", "--rm", "mine:1", "sh", "-c", "echo $A $B; pwd"])
            .ok(),
        "1 two\n/tmp"
    );
    assert_eq!(
        engine.cli(["history", "--format", "{{.Comment}}", "mine:1"]).ok(),
        "a message"
    );
    let (dir, _) = engine.share("import");
    let file = dir.join("root.tar");
    std::fs::write(&file, images::busybox_tar()).unwrap();
    engine.cli(["import", file.to_str().unwrap(), "mine:2"]).ok();
    assert_eq!(engine.cli(["run", "--rm", "mine:2", "echo", "two"]).ok(), "two");
    let missing = engine.cli(["run", "--rm", "mine:2"]);
    assert!(
        missing.clone().fails(125).contains("no command specified"),
        "{missing:?}"
    );
    let message = engine
        .run(["import", "-c", "RUN true", "-", "bad:1"])
        .input(images::busybox_tar())
        .output()
        .fails(1);
    assert!(message.contains("RUN is not a valid change command"), "{message}");
}

#[test]
fn images_of_one_layer_store_it_once() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let used = |path: &std::path::Path| -> u64 {
        let text = ferry_testkit::Run::new("du")
            .args(["-sk".as_ref(), path.as_os_str()])
            .ok();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let before = used(&daemon.data_root());
    let copies: Vec<Image> = (0..10)
        .map(|n| Image {
            references: vec![format!("copy:{n}")],
            ..images::busybox().config("Labels", json!({"n": n.to_string()}))
        })
        .collect();
    daemon.load(&images::docker_archive(&copies));
    for n in 0..10 {
        daemon.sleeper(&format!("c{n}"), &[]);
    }
    let grown = used(&daemon.data_root()) - before;
    assert!(
        grown < 2048,
        "ten images and ten containers of one 2 MB layer take {grown} KiB more"
    );
}

#[test]
fn slow_debian_root_runs_real_programs() {
    let engine = Engine::start();
    let Some(tar) = images::debian_root() else { return };
    engine
        .run(["import", "-c", "CMD [\"bash\"]", tar.to_str().unwrap(), "debian:12"])
        .time(std::time::Duration::from_secs(120))
        .output()
        .ok();
    let run = |args: &[&str]| engine.cli(["run", "--rm", "debian:12"].iter().chain(args)).ok();
    assert!(run(&["apt-get", "--version"]).starts_with("apt 2.6"));
    assert_eq!(run(&["perl", "-e", "print join ',', map { $_ * 2 } 1..4"]), "2,4,6,8");
    assert!(run(&["dpkg", "-l"]).lines().count() > 60);
    assert_eq!(
        run(&[
            "sh",
            "-c",
            "useradd -m ferry && su ferry -c 'id -un; pwd; touch ~/x; stat -c %U ~/x'"
        ]),
        "ferry\n/\nferry"
    );
    assert_eq!(
        run(&[
            "python3",
            "-c",
            "import os, socket; print(os.getpid(), socket.gethostname() != '')"
        ]),
        "1 True"
    );
    assert_eq!(
        run(&["bash", "-c", "stat -c '%a %U' /usr/bin/passwd /tmp"]),
        "4755 root\n1777 root"
    );
    assert_eq!(run(&["sh", "-c", "cat /etc/debian_version | cut -d. -f1"]), "12");
    let shown = run(&["sh", "-c", "dpkg -V coreutils; echo $?"]);
    assert_eq!(shown, "0");
}
