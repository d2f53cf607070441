//! `commit` and `export`.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, Run, TestDaemon};
use serde_json::{Value, json};

fn config(engine: &Engine, image: &str) -> Value {
    engine.api("GET", &format!("/images/{image}/json"), None).1["Config"].clone()
}

#[test]
fn a_running_container_becomes_an_image_and_runs_on() {
    let engine = Engine::start();
    engine.busybox();
    engine.sleeper("c1", &["--hostname", "told", "-e", "A=b"]);
    engine
        .cli(["exec", "c1", "sh", "-c", "echo new >/new; rm /bin/vi; mkdir /etc/mine"])
        .ok();
    let id = engine
        .cli([
            "commit",
            "-a",
            "me <me@x>",
            "-m",
            "a & b",
            "-c",
            "ENV C=$A",
            "-c",
            "CMD [\"cat\", \"/new\"]",
            "c1",
            "made:1",
        ])
        .ok();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(engine.field("c1", "/State/Status"), "running");
    assert_eq!(engine.cli(["run", "--rm", "made:1"]).ok(), "new");
    assert_eq!(
        engine
            .cli([
                "run",
                "--rm",
                "made:1",
                "sh",
                "-c",
                "ls -d /bin/vi /etc/mine 2>/dev/null; echo $A$C"
            ])
            .ok(),
        "/etc/mine\nbb"
    );
    let image = engine.api("GET", "/images/made:1/json", None).1;
    let parent = engine.api("GET", &format!("/images/{BUSYBOX}/json"), None).1;
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(image["Parent"], parent["Id"]);
    assert_eq!(
        (&image["Author"], &image["Comment"]),
        (&json!("me <me@x>"), &json!("a & b"))
    );
    let (own, below) = (&image["RootFS"]["Layers"], &parent["RootFS"]["Layers"]);
    assert_eq!(own.as_array().unwrap().len(), below.as_array().unwrap().len() + 1);
    let history = engine
        .cli(["history", "--no-trunc", "--format", "{{.ID}} {{.Comment}}", "made:1"])
        .ok();
    assert_eq!(history.lines().next(), Some(format!("{id} a & b").as_str()));
}

#[test]
fn what_the_engine_mounts_on_is_in_no_layer() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon
        .cli(["run", "--name", "c1", "-v", "/tmp:/mnt/tmp", BUSYBOX, "true"])
        .ok();
    let id = daemon.cli(["commit", "c1"]).ok();
    let image = daemon.api("GET", &format!("/images/{id}/json"), None).1;
    let parent = daemon.api("GET", &format!("/images/{BUSYBOX}/json"), None).1;
    let layers = |image: &Value| image["RootFS"]["Layers"].as_array().unwrap().len();
    // A mount point that the user asked for is in a layer, as with Docker; nothing else is.
    assert_eq!(layers(&image), layers(&parent) + 1);
    let file = daemon.dir().join("saved.tar");
    daemon.cli(["save", "-o", file.to_str().unwrap(), &id]).ok();
    let top = image["RootFS"]["Layers"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_str()
        .unwrap()[7..]
        .to_owned();
    let script = format!("tar -xOf {} blobs/sha256/{top} | tar -t", file.display());
    assert_eq!(Run::new("sh").args(["-c", &script]).ok(), "mnt/\nmnt/tmp/");
}

/// Instructions first, then what they and the request leave to the container (moby daemon/commit.go).
#[test]
fn the_request_the_instructions_and_the_container_in_this_order() {
    let engine = Engine::start();
    engine.busybox();
    let body = json!({
        "Image": BUSYBOX, "Env": ["A=c", "P=1"], "Cmd": ["run", "me"], "Entrypoint": ["e"], "Labels": { "l": "c", "m": "c" },
        "WorkingDir": "/w", "StopSignal": "SIGINT",
        "Healthcheck": { "Test": ["CMD", "x"], "Interval": 2_000_000_000 },
        "HostConfig": { "NetworkMode": "none" },
    });
    let (status, made) = engine.api("POST", "/containers/create?name=m1", Some(&body));
    assert_eq!(status, 201, "{made}");
    let commit = |body: Option<Value>, changes: &[&str]| {
        let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let changes: String = changes
            .iter()
            .map(|change| format!("&changes={}", escape(change)))
            .collect();
        let (status, answer) = engine.api("POST", &format!("/commit?container=m1{changes}"), body.as_ref());
        assert_eq!(status, 201, "{answer}");
        config(&engine, answer["Id"].as_str().unwrap())
    };
    let plain = commit(None, &[]);
    assert_eq!(
        (&plain["Cmd"], &plain["Entrypoint"]),
        (&json!(["run", "me"]), &json!(["e"]))
    );
    assert_eq!(commit(None, &["ENV A=z Q=$P"])["Env"][0], "A=z");
    // An entrypoint takes the command away, unless one comes with it; an empty one is none.
    let entry = commit(None, &["ENTRYPOINT [\"x\"]"]);
    assert_eq!((&entry["Cmd"], &entry["Entrypoint"]), (&Value::Null, &json!(["x"])));
    let both = commit(None, &["CMD [\"y\"]", "ENTRYPOINT [\"x\"]"]);
    assert_eq!((&both["Cmd"], &both["Entrypoint"]), (&json!(["y"]), &json!(["x"])));
    let emptied = commit(None, &["ENTRYPOINT []"]);
    assert_eq!(
        (&emptied["Cmd"], &emptied["Entrypoint"]),
        (&json!(["run", "me"]), &json!(["e"]))
    );
    let sick = commit(None, &["HEALTHCHECK NONE"]);
    assert_eq!(
        sick["Healthcheck"],
        json!({ "Test": ["NONE"], "Interval": 2_000_000_000 })
    );
    let asked = commit(
        Some(json!({ "Env": ["A=b", "NEW=1"], "Labels": { "l": "b" } })),
        &["ENV X=$P$A"],
    );
    let mut env: Vec<_> = asked["Env"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    env.retain(|entry| !entry.starts_with("PATH="));
    // The container's own variables are not there yet when the instructions are read.
    assert_eq!(env, ["A=b", "NEW=1", "X=b", "P=1"]);
    assert_eq!(asked["Labels"], json!({ "l": "b", "m": "c" }));
}

#[test]
fn mistakes_are_named_before_anything_is_made() {
    let engine = Engine::start();
    engine.busybox();
    engine.cli(["create", "--name", "c1", BUSYBOX]).ok();
    for (path, code, message) in [
        ("/commit", 400, "invalid name or ID supplied: \"\""),
        ("/commit?container=nosuch", 404, "No such container: nosuch"),
        (
            "/commit?container=c1&repo=BAD:x",
            400,
            "invalid reference format: repository name (library/BAD) must be lowercase",
        ),
        ("/commit?container=c1&repo=bad&tag=x:y", 400, "invalid tag format"),
        (
            "/commit?container=c1&changes=RUN%20x",
            400,
            "RUN is not a valid change command",
        ),
    ] {
        let (status, answer) = engine.api("POST", path, None);
        assert_eq!((status, answer["message"].as_str()), (code, Some(message)), "{path}");
    }
    assert_eq!(
        engine.cli(["commit", "c1", "BAD:x"]).fails(1),
        "invalid reference format: repository name (library/BAD) must be lowercase"
    );
    assert_eq!(engine.cli(["images", "-aq", "-f", "dangling=true"]).ok(), "");
}

#[test]
fn an_export_is_the_whole_tree_without_what_is_mounted() {
    let engine = Engine::start();
    engine.busybox();
    engine.sleeper("c1", &["--tmpfs", "/scratch"]);
    engine
        .cli([
            "exec",
            "c1",
            "sh",
            "-c",
            "echo x >/own; echo y >/scratch/mounted; rm /bin/vi; ln /own /own2",
        ])
        .ok();
    let (dir, _) = engine.share("export");
    let file = dir.join("c1.tar");
    let path = file.to_str().unwrap();
    let listing = |program: &dyn Fn(&[&str]) -> ferry_testkit::Output| {
        program(&["export", "-o", path, "c1"]).ok();
        let names = Run::new("tar").args(["-tf", path]).ok();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let names = listing(&|line| engine.ferry(line));
    let has = |name: &str| names.iter().any(|line| line == name);
    assert!(has("own") && has("bin/sh") && has("scratch/"), "{names:?}");
    assert!(!has("scratch/mounted") && !has("bin/vi"), "{names:?}");
    assert!(names.iter().all(|line| !line.contains(".wh.")), "{names:?}");
    assert_eq!(listing(&|line| engine.docker(line)), names);
    // It can be imported, and runs.
    engine.cli(["import", path, "again:1"]).ok();
    assert_eq!(engine.cli(["run", "--rm", "again:1", "cat", "/own2"]).ok(), "x");
    // Stopped, it is the same.
    engine.cli(["stop", "-t", "0", "c1"]).ok();
    assert_eq!(listing(&|line| engine.cli(line)), names);
}

#[test]
fn the_ids_of_a_user_namespace_do_not_travel() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon
        .cli([
            "run",
            "--userns=auto",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "echo x >/root-s; echo y >/other; chown 5:6 /other",
        ])
        .ok();
    daemon.cli(["commit", "c1", "made:1"]).ok();
    let owners = daemon
        .cli(["run", "--rm", "made:1", "stat", "-c", "%u:%g", "/root-s", "/other"])
        .ok();
    assert_eq!(owners, "0:0\n5:6");
    let file = daemon.dir().join("c1.tar");
    daemon.cli(["export", "-o", file.to_str().unwrap(), "c1"]).ok();
    let listed = Run::new("tar")
        .args(["--numeric-owner", "-tvf", file.to_str().unwrap(), "root-s", "other"])
        .ok();
    assert!(listed.contains(" 0/0 ") && listed.contains(" 5/6 "), "{listed}");
}
