//! `pull`, `push`, `login`, and what is left when they break off. The registry is Ferry's own, `docker` the real one's client.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use ferry_testkit::images::{self, Compression, Image, Layer};
use ferry_testkit::{Registry, TestDaemon, Wire, wait_within};
use rustix::process::Signal;
use serde_json::{Value, json};

const APP: &str = "127.0.0.1:5000/team/app:1";

/// Busybox and a layer of its own above.
fn app(reference: &str, content: &str) -> Image {
    images::above_busybox(reference, Layer::new().file("content", content.as_bytes(), 0o644))
}

/// With so many layers of 24 MiB.
fn large(reference: &str, layers: u8) -> Image {
    let layer = |salt: u8| {
        let mut bytes = images::noise(24 << 20);
        bytes[0] = salt;
        Layer::new().file(&format!("large{salt}"), &bytes, 0o644).finish()
    };
    let mut image = app(reference, "large");
    image.layers.extend((0..layers).map(layer));
    image.compression(Compression::Gzip)
}

fn load(daemon: &TestDaemon, image: &Image) {
    daemon
        .run(["load", "-q"])
        .input(images::docker_archive(std::slice::from_ref(image)))
        .ok();
}

fn clean(daemon: &TestDaemon) {
    let said = daemon.cli(["system", "check"]).ok();
    assert!(said.ends_with("nothing is wrong"), "{said}");
}

fn inspect(daemon: &TestDaemon, name: &str) -> Value {
    let text = daemon.cli(["image", "inspect", name]).ok();
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// The last line but one of a push: `1: digest: sha256:… size: …`.
fn digest(pushed: &str) -> String {
    let at = pushed.find("sha256:").unwrap();
    pushed[at..at + 71].to_owned()
}

#[test]
fn what_is_pushed_comes_back_and_is_the_same() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let image = app(APP, "1");
    load(&daemon, &image);
    let first = daemon.cli(["push", APP]).ok();
    assert!(
        first.starts_with("The push refers to repository [127.0.0.1:5000/team/app]\n"),
        "{first}"
    );
    assert_eq!(first.matches(": Pushed").count(), 2, "{first}");
    let again = daemon.cli(["push", APP]).ok();
    assert_eq!(again.matches(": Layer already exists").count(), 2, "{again}");
    assert_eq!(digest(&first), digest(&again));
    assert_eq!(daemon.cli(["push", "-q", APP]).ok(), APP);

    daemon.cli(["rmi", APP]).ok();
    let pulled = daemon.cli(["pull", APP]).ok();
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[0], "1: Pulling from team/app");
    for step in [
        "Pulling fs layer",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ] {
        assert!(pulled.contains(step), "{step}: {pulled}");
    }
    assert_eq!(lines[lines.len() - 3], format!("Digest: {}", digest(&first)));
    assert_eq!(
        lines[lines.len() - 2],
        format!("Status: Downloaded newer image for {APP}")
    );
    assert_eq!(lines[lines.len() - 1], APP);
    assert_eq!(inspect(&daemon, APP)["Id"], json!(image.id()));
    let by_digest = format!("127.0.0.1:5000/team/app@{}", digest(&first));
    assert_eq!(inspect(&daemon, APP)["RepoDigests"], json!([by_digest]));
    assert_eq!(daemon.cli(["run", "--rm", APP, "cat", "/content"]).ok(), "1");
    // The blobs are those that came: it goes elsewhere as the very same image.
    daemon.cli(["tag", APP, "127.0.0.1:5000/other/app:9"]).ok();
    let mounted = daemon.cli(["push", "127.0.0.1:5000/other/app:9"]).ok();
    assert_eq!(mounted.matches(": Mounted from team/app").count(), 2, "{mounted}");
    assert_eq!(digest(&mounted), digest(&first));

    let same = daemon.cli(["pull", APP]).ok();
    assert_eq!(
        same,
        format!(
            "1: Pulling from team/app\nDigest: {}\nStatus: Image is up to date for {APP}\n{APP}",
            digest(&first)
        )
    );
    assert_eq!(daemon.cli(["pull", "-q", APP]).ok(), APP);
    daemon.cli(["rmi", "-f", &image.id()]).ok();
    daemon.cli(["pull", "-q", &by_digest]).ok();
    assert_eq!(inspect(&daemon, &by_digest)["RepoTags"], json!([]));
    // `run` brings what is not there; what is seen of it is no output of the container.
    let run = daemon.cli(["run", "--rm", APP, "cat", "/content"]);
    assert!(
        run.stderr
            .starts_with(&format!("Unable to find image '{APP}' locally\n")),
        "{run:?}"
    );
    assert_eq!(run.ok(), "1");
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

#[test]
fn dockers_own_client_pulls_pushes_and_runs() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    load(&daemon, &app(APP, "1"));
    load(&daemon, &app("127.0.0.1:5000/team/app:2", "2"));
    let pushed = daemon.docker(["push", "-a", "127.0.0.1:5000/team/app"]).ok();
    assert_eq!(pushed.matches(": digest: sha256:").count(), 2, "{pushed}");
    daemon.docker(["rmi", APP, "127.0.0.1:5000/team/app:2"]).ok();
    let pulled = daemon.docker(["pull", "-a", "127.0.0.1:5000/team/app"]).ok();
    assert!(
        pulled.contains("1: Pulling from team/app") && pulled.contains("2: Pulling from team/app"),
        "{pulled}"
    );
    daemon.docker(["rmi", APP]).ok();
    assert_eq!(daemon.docker(["run", "--rm", "-q", APP, "cat", "/content"]).ok(), "1");
    let always = daemon.docker(["run", "--rm", "--pull=always", APP, "cat", "/content"]);
    assert!(always.stderr.contains("Image is up to date"), "{always:?}");
    assert_eq!(always.ok(), "1");
    drop(registry);
    daemon.finish();
}

#[test]
fn what_cannot_be_had_is_named_as_docker_names_it() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    load(&daemon, &app(APP, "1"));
    daemon.cli(["push", "-q", APP]).ok();
    let prefix = "Error response from daemon: ";
    for (line, said) in [
        (
            vec!["pull", "127.0.0.1:5000/team/app:none"],
            format!("{prefix}manifest for 127.0.0.1:5000/team/app:none not found: manifest unknown: "),
        ),
        (
            vec!["pull", "127.0.0.1:5999/x:1"],
            format!(
                "{prefix}Get \"http://127.0.0.1:5999/v2/x/manifests/1\": dial tcp 127.0.0.1:5999: connect: connection refused"
            ),
        ),
        (
            vec!["pull", "--platform", "x/y/z/w", APP],
            format!("{prefix}\"x/y/z/w\": cannot parse platform specifier: invalid argument"),
        ),
        (
            vec!["push", "127.0.0.1:5000/nothing:1"],
            "An image does not exist locally with the tag: 127.0.0.1:5000/nothing".to_owned(),
        ),
        (
            vec!["pull", "-a", APP],
            "tag can't be used with --all-tags/-a".to_owned(),
        ),
        (vec!["push", "x@sha256:12"], "invalid reference format".to_owned()),
    ] {
        let error = daemon.cli(&line).fails(1);
        assert!(error.starts_with(&said), "{line:?}: {error}");
    }
    let other = daemon.cli(["pull", "--platform", "linux/arm64", APP]).ok();
    assert!(
        other.contains("does not match the specified platform (linux/arm64"),
        "{other}"
    );
    let run = daemon.cli(["run", "127.0.0.1:5000/none:1"]).fails(125);
    assert!(run.contains("manifest for 127.0.0.1:5000/none:1 not found"), "{run}");
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

#[test]
fn who_signs_in_may_pull_until_they_sign_out() {
    let daemon = TestDaemon::start();
    let passwords = daemon.dir().join("htpasswd");
    // `secret`, bcrypt.
    fs::write(
        &passwords,
        "joe:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n",
    )
    .unwrap();
    let registry = Registry::start(&daemon, &["--htpasswd", passwords.to_str().unwrap()]);
    let (config, kept) = (daemon.dir().join("config"), daemon.dir().join("config/config.json"));
    fs::create_dir(&config).unwrap();
    fs::write(&kept, r#"{"zz":{"a":1},"auths":{}}"#).unwrap();
    let run = |line: &[&str]| daemon.run(line).env("DOCKER_CONFIG", &config);
    load(&daemon, &app(APP, "1"));
    let refused = run(&["push", APP]).output().fails(1);
    assert!(
        refused.contains("denied") || refused.contains("unauthorized"),
        "{refused}"
    );
    let wrong = run(&["login", "-u", "joe", "--password-stdin", "127.0.0.1:5000"]);
    let wrong = wrong.input("wrong\n").output().fails(1);
    assert!(wrong.contains("401") || wrong.contains("unauthorized"), "{wrong}");
    let right = run(&["login", "-u", "joe", "--password-stdin", "127.0.0.1:5000"]);
    let right = right.input("secret\n").output();
    assert!(
        right.stderr.contains("Your credentials are stored unencrypted"),
        "{right:?}"
    );
    assert_eq!(right.ok(), "Login Succeeded");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&kept).unwrap();
    assert!(text.contains("\"zz\"") && text.contains("am9lOnNlY3JldA=="), "{text}");
    run(&["push", "-q", APP]).ok();
    daemon.cli(["rmi", APP]).ok();
    run(&["pull", "-q", APP]).ok();
    let docker = daemon
        .command(ferry_testkit::Program::Docker)
        .env("DOCKER_CONFIG", &config);
    docker.args(["pull", "-q", APP]).ok();
    assert_eq!(
        run(&["logout", "127.0.0.1:5000"]).ok(),
        "Removing login credentials for 127.0.0.1:5000"
    );
    run(&["pull", "-q", APP]).output().fails(1);
    for (line, said) in [
        (
            &["login", "127.0.0.1:5000"][..],
            "Error: Cannot perform an interactive login from a non TTY device",
        ),
        (
            &["login", "--password-stdin", "127.0.0.1:5000"],
            "the --password-stdin option requires --username to be set",
        ),
        (
            &["login", "-p", "a", "--password-stdin", "x"],
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
        (&["login", "-u", "", "-p", "a", "x"], "username is empty"),
    ] {
        assert_eq!(run(line).output().fails(1), said, "{line:?}");
    }
    drop(registry);
    daemon.finish();
}

#[test]
fn a_pull_goes_on_where_it_was_cut_and_where_the_engine_died() {
    let mut daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let image = large("127.0.0.1:5000/large:1", 5);
    load(&daemon, &image);
    daemon.cli(["push", "-q", "127.0.0.1:5000/large:1"]).ok();
    daemon.cli(["rmi", "127.0.0.1:5000/large:1"]).ok();
    let size: u64 = image.blobs().iter().map(|blob| blob.len() as u64).sum();
    let wire = Wire::start(&daemon, 8 << 20);
    let name = "127.0.0.1:5001/large:1";
    for share in [3, 2] {
        let pull = daemon.run(["pull", name]).spawn();
        wait_within(Duration::from_secs(60), "a part of it", || wire.bytes() > size / share);
        daemon.kill9();
        drop(pull);
        daemon.start_again();
        assert_eq!(daemon.cli(["images", "-q", "127.0.0.1:5001/large"]).ok(), "");
    }
    daemon.cli(["pull", "-q", name]).ok();
    assert_eq!(inspect(&daemon, name)["Id"], json!(image.id()));
    let wire = wire.bytes();
    assert!(wire <= size + size / 20, "{wire} bytes for {size}");
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

#[test]
fn pulls_of_one_image_share_the_work() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let image = large("127.0.0.1:5000/large:1", 2);
    load(&daemon, &image);
    daemon.cli(["push", "-q", "127.0.0.1:5000/large:1"]).ok();
    daemon.cli(["rmi", "127.0.0.1:5000/large:1"]).ok();
    let size: u64 = image.blobs().iter().map(|blob| blob.len() as u64).sum();
    let wire = Wire::start(&daemon, u64::MAX);
    let pulls = [(); 4].map(|()| daemon.run(["pull", "-q", "127.0.0.1:5001/large:1"]).spawn());
    for pull in pulls {
        pull.finish().ok();
    }
    let wire = wire.bytes();
    assert!(wire <= size + size / 20, "{wire} bytes for {size}");
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

#[test]
fn who_gives_up_a_pull_leaves_parts_and_nothing_else() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let image = large("127.0.0.1:5000/large:1", 2);
    load(&daemon, &image);
    daemon.cli(["push", "-q", "127.0.0.1:5000/large:1"]).ok();
    daemon.cli(["rmi", "127.0.0.1:5000/large:1"]).ok();
    let wire = Wire::start(&daemon, u64::MAX);
    let pull = daemon.run(["pull", "127.0.0.1:5001/large:1"]).spawn();
    wait_within(Duration::from_secs(60), "a part of it", || wire.bytes() > 4 << 20);
    pull.signal(Signal::KILL);
    drop(pull);
    let entries = |dir: &str| fs::read_dir(daemon.data_root().join(dir)).unwrap().count();
    wait_within(Duration::from_secs(10), "the pull ends", || entries("tmp") == 0);
    assert_eq!(entries("layers"), 0);
    assert_eq!(daemon.cli(["images", "-q"]).ok(), "");
    clean(&daemon);
    drop(registry);
    daemon.finish();
}

/// A short form of what `cargo xtask soak --images` does for long.
#[test]
fn pulls_and_removals_that_are_killed_leave_the_store_whole() {
    let mut daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let image = large("127.0.0.1:5000/large:1", 2);
    load(&daemon, &image);
    daemon.cli(["push", "-q", "127.0.0.1:5000/large:1"]).ok();
    for round in 0..12_u64 {
        let line: &[&str] = match round % 2 {
            0 => &["rmi", "-f", "127.0.0.1:5000/large:1"],
            _ => &["pull", "-q", "127.0.0.1:5000/large:1"],
        };
        let work = daemon.run(line).spawn();
        std::thread::sleep(Duration::from_millis(round * 37 % 200));
        daemon.kill9();
        drop(work);
        daemon.start_again();
        clean(&daemon);
        if daemon.cli(["images", "-q", "127.0.0.1:5000/large"]).ok().is_empty() {
            daemon.cli(["pull", "-q", "127.0.0.1:5000/large:1"]).ok();
        }
        assert_eq!(
            daemon
                .cli(["run", "--rm", "127.0.0.1:5000/large:1", "cat", "/content"])
                .ok(),
            "large"
        );
    }
    drop(registry);
    daemon.finish();
}

#[test]
fn what_is_damaged_is_found_and_mended() {
    let daemon = TestDaemon::start();
    let registry = Registry::start(&daemon, &[]);
    let image = app(APP, "1").compression(Compression::Gzip);
    load(&daemon, &image);
    daemon.cli(["push", "-q", APP]).ok();
    clean(&daemon);
    let layers = daemon.data_root().join("layers");
    let mut own = fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path());
    let own = own.find(|layer| layer.join("fs/content").exists()).unwrap();
    fs::write(own.join("fs/content"), "2").unwrap();
    fs::create_dir(layers.join("ab".repeat(32))).unwrap();
    let old = std::time::SystemTime::now() - Duration::from_secs(600);
    let dir = fs::File::open(layers.join("ab".repeat(32))).unwrap();
    dir.set_modified(old).unwrap();
    // What is only looked at is not read.
    let quick = daemon.cli(["system", "check", "--quick"]).says_and_fails(1);
    assert!(
        quick.contains("nothing refers to it") && !quick.contains("the image"),
        "{quick}"
    );
    let found = daemon.cli(["system", "check"]).says_and_fails(1);
    assert!(found.contains(&format!("the image {APP}: its layer")), "{found}");
    assert!(found.contains("2 found, 2 left"), "{found}");
    let held = daemon.cli(["create", "--name", "holder", APP]);
    held.ok();
    let left = daemon.cli(["system", "check", "--repair"]).says_and_fails(1);
    assert!(left.contains("left alone: the container"), "{left}");
    daemon.cli(["rm", "holder"]).ok();
    let mended = daemon.cli(["system", "check", "--repair"]).ok();
    assert!(mended.contains("none left"), "{mended}");
    clean(&daemon);
    assert_eq!(daemon.cli(["images", "-q"]).ok(), "");
    daemon.cli(["pull", "-q", APP]).ok();
    assert_eq!(daemon.cli(["run", "--rm", APP, "cat", "/content"]).ok(), "1");
    drop(registry);
    daemon.finish();
}

#[test]
fn mirrors_are_asked_first_and_missed_by_nobody() {
    let daemon = TestDaemon::builder()
        .arg("--registry-mirror=http://127.0.0.1:5999")
        .arg("--registry-mirror=http://127.0.0.1:5000")
        .start();
    let registry = Registry::start(&daemon, &[]);
    load(&daemon, &app("127.0.0.1:5000/library/thing:1", "1"));
    daemon.cli(["push", "-q", "127.0.0.1:5000/library/thing:1"]).ok();
    // The first mirror is not there.
    assert_eq!(daemon.cli(["pull", "-q", "thing:1"]).ok(), "docker.io/library/thing:1");
    // They also say which tags there are.
    daemon.cli(["rmi", "thing:1"]).ok();
    daemon.cli(["pull", "-q", "-a", "thing"]).ok();
    assert_eq!(daemon.cli(["images", "--format", "{{.Tag}}", "thing"]).ok(), "1");
    let info: Value = serde_json::from_str(&daemon.cli(["info", "--format", "{{json .}}"]).ok()).unwrap();
    assert_eq!(
        info["RegistryConfig"]["Mirrors"],
        json!(["http://127.0.0.1:5999/", "http://127.0.0.1:5000/"])
    );
    drop(registry);
    daemon.finish();
}
