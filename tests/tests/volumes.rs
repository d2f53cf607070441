//! Volumes: what is in them outlives containers and daemons, and nothing in them leads out.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::{Client, Engine, TestDaemon};
use serde_json::{Value, json};

fn data(daemon: &TestDaemon, volume: &str) -> PathBuf {
    daemon.data_root().join("volumes").join(volume).join("_data")
}

fn names(engine: &Client) -> Vec<String> {
    let text = engine.cli(["volume", "ls", "-q"]).ok();
    text.lines().map(str::to_owned).collect()
}

/// Busybox with files of its own below `/data`, which is a volume.
fn with_data(reference: &str) -> Image {
    let layers = vec![
        images::busybox_tar(),
        Layer::new()
            .dir_of("data", 0o1770, (33, 34))
            .file("data/own", b"of the image", 0o644)
            .file_of("data/owned", b"", 0o640, (5, 6))
            .hard_link("data/again", "data/own")
            .symlink("data/out", "/etc/passwd")
            .dir("data/sub", 0o711)
            .finish(),
    ];
    Image::new(reference, layers).config("Volumes", json!({"/data": {}}))
}

#[test]
fn a_volume_outlives_its_containers() {
    let engine = Engine::start();
    engine.busybox();
    assert_eq!(engine.cli(["volume", "create", "--label", "a=b", "v1"]).ok(), "v1");
    assert_eq!(engine.cli(["volume", "create", "v1"]).ok(), "v1");
    engine.sh(&["-v", "v1:/x"], "echo kept > /x/file");
    assert_eq!(
        engine.sh(
            &["-v", "v1:/x:ro"],
            "cat /x/file; touch /x/no 2>/dev/null || echo refused"
        ),
        "kept\nrefused"
    );
    let shown = engine
        .cli([
            "volume",
            "inspect",
            "-f",
            "{{.Name}} {{.Driver}} {{.Scope}} {{.Labels}} {{.Options}}",
            "v1",
        ])
        .ok();
    assert_eq!(shown, "v1 local local map[a:b] map[]");
    engine
        .cli(["create", "--name", "c1", "-v", "v1:/x", BUSYBOX, "true"])
        .ok();
    let id = engine.field("c1", "/Id");
    for force in ["", "?force=1"] {
        let (status, answer) = engine.api("DELETE", &format!("/volumes/v1{force}"), None);
        assert_eq!(
            (status, answer["message"].as_str()),
            (409, Some(format!("remove v1: volume is in use - [{id}]").as_str()))
        );
    }
    engine.cli(["rm", "-v", "c1"]).ok();
    assert_eq!(names(&engine), ["v1"]);
    assert_eq!(engine.cli(["volume", "rm", "v1"]).ok(), "v1");
    assert_eq!(names(&engine), [""; 0]);
    assert_eq!(engine.api("DELETE", "/volumes/v1", None).0, 404);
    assert_eq!(engine.api("DELETE", "/volumes/v1?force=1", None).0, 204);
}

#[test]
fn bad_requests_are_refused_in_dockers_words() {
    let engine = Engine::start();
    engine.busybox();
    let post = |body: Value| {
        let (status, answer) = engine.api("POST", "/volumes/create", Some(&body));
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    for (body, status, text) in [
        (
            json!({"Name": "a"}),
            400,
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        (
            json!({"Name": ".."}),
            400,
            "create ..: \"..\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        ),
        (
            json!({"Name": "vx", "Driver": "foo"}),
            404,
            "create vx: error looking up volume plugin foo: plugin \"foo\" not found",
        ),
        (
            json!({"Name": "vx", "DriverOpts": {"foo": "1"}}),
            400,
            "create vx: invalid option: \"foo\"",
        ),
        (
            json!({"Name": "vx", "DriverOpts": {"type": "tmpfs"}}),
            400,
            "create vx: missing required option: \"device\"",
        ),
    ] {
        assert_eq!(post(body), (status, text.to_owned()));
    }
    let create = |host: Value| {
        let body = json!({"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": host});
        let (status, answer) = engine.api("POST", "/containers/create", Some(&body));
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    let mount = |mount: Value| create(json!({"Mounts": [mount]}));
    for (answer, status, text) in [
        (
            create(json!({"Binds": ["v1:/x", "v2:/x"]})),
            400,
            "Duplicate mount point: /x",
        ),
        (
            create(json!({"VolumeDriver": "foo", "Binds": ["v77:/x"]})),
            404,
            "create v77: error looking up volume plugin foo: plugin \"foo\" not found",
        ),
        (
            create(json!({"VolumesFrom": ["nosuch"]})),
            400,
            "No such container: nosuch",
        ),
        (
            create(json!({"VolumesFrom": [""]})),
            400,
            "volumes-from specification cannot be an empty string",
        ),
        (
            mount(json!({"Type": "volume"})),
            400,
            "invalid mount config for type \"volume\": field Target must not be empty",
        ),
        (
            mount(json!({"Type": "foo", "Target": "/x"})),
            400,
            "invalid mount config for type \"foo\": mount type unknown",
        ),
        (
            mount(json!({"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}})),
            400,
            "invalid mount config for type \"volume\": must not set Subpath when using anonymous volumes",
        ),
        (
            mount(json!({"Type": "volume", "Source": "v1", "Target": "/x", "VolumeOptions": {"Subpath": "../a"}})),
            400,
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume",
        ),
        (
            mount(json!({"Type": "tmpfs", "Target": "/x", "VolumeOptions": {}})),
            400,
            "VolumeOptions must not be specified on mount type \"tmpfs\"",
        ),
    ] {
        assert_eq!(answer, (status, text.to_owned()));
    }
    // Nothing was made for what was refused.
    assert_eq!(names(&engine), [""; 0]);
    let (status, answer) = engine.api("PUT", "/volumes/v1?version=1", Some(&json!({})));
    assert_eq!(
        (status, &answer["message"]),
        (
            503,
            &json!("volume update only valid for cluster volumes, but swarm is unavailable")
        )
    );
}

#[test]
fn what_the_image_has_goes_into_an_empty_volume_once() {
    let engine = Engine::start();
    engine.load(&images::docker_archive(&[with_data("filled:1")]));
    let run = |options: &[&str], script: &str| {
        let line = [&["run", "--rm"], options, &["filled:1", "sh", "-c", script]].concat();
        engine.cli(line).ok()
    };
    let look = "cd /data; stat -c '%n %a %u:%g %h' . own owned; cat own; readlink out; ls -d sub";
    let whole = ". 1770 33:34 3\nown 644 0:0 2\nowned 640 5:6 1\nof the image/etc/passwd\nsub";
    assert_eq!(run(&["-v", "v1:/data"], look), whole);
    assert_eq!(
        run(
            &["-v", "v1:/data"],
            "rm /data/own; echo mine > /data/file; ls /data | wc -l"
        ),
        "5"
    );
    assert_eq!(run(&["-v", "v1:/data"], "ls /data | wc -l"), "5");
    assert_eq!(run(&["-v", "v2:/data:nocopy"], "ls /data | wc -l"), "0");
    // Anonymous ones are filled too, and go with `--rm`.
    assert_eq!(run(&[], look), whole);
    assert_eq!(names(&engine), ["v1", "v2"]);
}

#[test]
fn anonymous_volumes_go_with_their_container_and_named_ones_stay() {
    let engine = Engine::start();
    engine.load(&images::docker_archive(&[with_data("filled:1")]));
    engine
        .cli([
            "create", "--name", "c1", "-v", "named:/n", "-v", "/anon", "filled:1", "true",
        ])
        .ok();
    assert_eq!(names(&engine).len(), 3);
    engine
        .cli(["create", "--name", "c2", "--volumes-from", "c1:ro", "filled:1", "true"])
        .ok();
    let of = engine.inspect("c2")["Mounts"].as_array().unwrap().clone();
    assert_eq!(of.len(), 3, "{of:?}");
    assert!(
        of.iter()
            .all(|point| point["RW"] == false && point["Type"] == "volume" && point["Driver"] == "local")
    );
    // The other one has them still.
    engine.cli(["rm", "-v", "c1"]).ok();
    assert_eq!(names(&engine).len(), 3);
    engine.cli(["rm", "-v", "c2"]).ok();
    assert_eq!(names(&engine), ["named"]);
    engine
        .cli(["run", "--rm", "-v", "/a", "-v", "/b", "filled:1", "true"])
        .ok();
    assert_eq!(names(&engine), ["named"]);
    engine.cli(["run", "--name", "c3", "-v", "/a", "filled:1", "true"]).ok();
    engine.cli(["rm", "c3"]).ok();
    assert_eq!(names(&engine).len(), 3);
    let pruned = engine.cli(["volume", "prune", "-f"]).ok();
    assert!(
        pruned.starts_with("Deleted Volumes:\n") && pruned.contains("\n\nTotal reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(names(&engine), ["named"]);
    assert_eq!(
        engine.cli(["volume", "prune", "-af"]).ok(),
        "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B"
    );
}

#[test]
fn one_tmpfs_is_shared_and_survives_the_daemon() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=1000"];
    daemon
        .cli([&["volume", "create"], &options[..], &["mem"]].concat())
        .ok();
    daemon.sleeper("one", &["-v", "mem:/m"]);
    daemon.cli(["exec", "one", "sh", "-c", "echo shared > /m/file"]).ok();
    daemon.sleeper("two", &["-v", "mem:/m"]);
    let read = |daemon: &TestDaemon, of: &str| daemon.cli(["exec", of, "cat", "/m/file"]).ok();
    assert_eq!(read(&daemon, "two"), "shared");
    assert_eq!(std::fs::metadata(data(&daemon, "mem")).unwrap().uid(), 1000);
    daemon.kill9();
    daemon.start_again();
    assert_eq!(read(&daemon, "one"), "shared");
    daemon.sleeper("three", &["-v", "mem:/m"]);
    assert_eq!(read(&daemon, "three"), "shared");
    daemon.cli(["rm", "-f", "one", "two"]).ok();
    assert_eq!(read(&daemon, "three"), "shared");
    daemon.cli(["rm", "-f", "three"]).ok();
    // The last one has gone, and with it the mount.
    assert_ne!(std::fs::metadata(data(&daemon, "mem")).unwrap().uid(), 1000);
    assert_eq!(daemon.cli(["volume", "rm", "mem"]).ok(), "mem");
    assert!(!data(&daemon, "mem").exists());
}

#[test]
fn a_mount_that_nobody_uses_any_more_goes_when_the_next_engine_comes() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon
        .cli([
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "-o",
            "o=uid=1000",
            "mem",
        ])
        .ok();
    daemon.sleeper("one", &["-v", "mem:/m"]);
    let pid = daemon.pid("one");
    daemon.kill9();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    daemon.start_again();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::fs::metadata(data(&daemon, "mem")).unwrap().uid() == 1000 {
        assert!(std::time::Instant::now() < end, "it is mounted still");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn no_death_of_the_daemon_leaves_half_a_volume() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.cli(["volume", "create", "whole"]).ok();
    daemon.sh(&["-v", "whole:/x"], "echo kept > /x/file");
    daemon.cli(["volume", "create", "gone"]).ok();
    daemon.kill9();
    let volumes = daemon.data_root().join("volumes");
    // Of a creation: a directory without a record. Of a removal: a record without a directory. And data that came by hand.
    std::fs::create_dir_all(volumes.join("begun/_data")).unwrap();
    std::fs::remove_dir_all(volumes.join("gone")).unwrap();
    std::fs::create_dir_all(volumes.join("brought/_data")).unwrap();
    std::fs::write(volumes.join("brought/_data/file"), "by hand").unwrap();
    daemon.start_again();
    assert_eq!(names(&daemon), ["brought", "whole"]);
    assert!(!volumes.join("begun").exists());
    assert_eq!(
        daemon.sh(&["-v", "whole:/x", "-v", "brought:/y"], "cat /x/file /y/file"),
        "kept\nby hand"
    );
}

#[test]
fn a_subpath_leads_nowhere_but_below_its_volume() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.sh(
        &["-v", "v1:/x"],
        "mkdir -p /x/in/deep; echo inside > /x/in/file; ln -s /etc /x/abs; ln -s in /x/rel; ln -s ../../../.. /x/up",
    );
    let at = |subpath: &str| {
        let mount = format!("type=volume,src=v1,dst=/y,volume-subpath={subpath}");
        daemon.cli(["run", "--rm", "--mount", &mount, BUSYBOX, "cat", "/y/file"])
    };
    assert_eq!(at("in").ok(), "inside");
    assert_eq!(at("rel").ok(), "inside");
    for out in ["abs", "up", "up/etc"] {
        let failed = at(out);
        assert!(
            failed.stderr.contains("path concatenation escapes the base directory"),
            "{out}: {}",
            failed.stderr
        );
    }
    assert!(at("nosuch").stderr.contains("no such file or directory"));
}

#[test]
fn links_of_an_image_lead_to_its_own_files_only() {
    let daemon = TestDaemon::start();
    let secret = daemon.dir().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("file"), "of the host").unwrap();
    let up = format!("../../../../../../../../..{}", secret.display());
    let layers = vec![
        images::busybox_tar(),
        Layer::new()
            .symlink("abs", secret.to_str().unwrap())
            .symlink("rel", &up)
            .dir("real", 0o755)
            .file("real/file", b"of the image", 0o644)
            .symlink("link", "/real")
            .finish(),
    ];
    let volumes = json!({"/abs": {}, "/rel": {}, "/link": {}, "/../../../../etc": {}, "relative": {}, "/": {}});
    daemon.load(&images::docker_archive(&[
        Image::new("hostile:1", layers).config("Volumes", volumes)
    ]));
    daemon.cli(["create", "--name", "c1", "hostile:1", "true"]).ok();
    let volumes = daemon.data_root().join("volumes");
    let mut found = Vec::new();
    for volume in std::fs::read_dir(volumes).unwrap() {
        for file in std::fs::read_dir(volume.unwrap().path().join("_data")).unwrap() {
            found.push(std::fs::read_to_string(file.unwrap().path()).unwrap_or_default());
        }
    }
    assert!(found.contains(&"of the image".to_owned()), "{found:?}");
    assert!(!found.contains(&"of the host".to_owned()));
}

#[test]
fn what_somebody_mounted_into_a_volume_is_left_to_them() {
    let daemon = TestDaemon::builder().set_up("true").start();
    daemon.busybox();
    daemon.cli(["volume", "create", "v1"]).ok();
    let place = data(&daemon, "v1");
    let mount = |line: &[&str]| {
        let pid = daemon.engine_pid().to_string();
        let enter = ["nsenter", "-t", &pid, "-m", "--"];
        daemon.in_namespace(&[&enter[..], line].concat()).ok()
    };
    mount(&["mount", "-t", "tmpfs", "tmpfs", place.to_str().unwrap()]);
    daemon.sh(&["-v", "v1:/x"], "echo theirs > /x/file");
    let refused = daemon.cli(["volume", "rm", "v1"]);
    assert!(
        refused.stderr.contains("something else is mounted on"),
        "{}",
        refused.stderr
    );
    assert_eq!(daemon.sh(&["-v", "v1:/x"], "cat /x/file"), "theirs");
    mount(&["umount", place.to_str().unwrap()]);
    assert_eq!(daemon.cli(["volume", "rm", "v1"]).ok(), "v1");
}

#[test]
fn a_volume_without_its_directory_says_so() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.cli(["volume", "create", "v1"]).ok();
    std::fs::remove_dir(data(&daemon, "v1")).unwrap();
    let failed = daemon.cli(["run", "--rm", "-v", "v1:/x", BUSYBOX, "true"]);
    assert!(
        failed.stderr.contains("the directory of volume \"v1\" is gone"),
        "{}",
        failed.stderr
    );
    assert_eq!(daemon.cli(["volume", "rm", "v1"]).ok(), "v1");
    // A link in its place is not followed anywhere.
    daemon.cli(["volume", "create", "v2"]).ok();
    std::fs::remove_dir(data(&daemon, "v2")).unwrap();
    let canary = daemon.dir().join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("file"), "untouched").unwrap();
    symlink(&canary, data(&daemon, "v2")).unwrap();
    assert_eq!(daemon.cli(["volume", "rm", "v2"]).ok(), "v2");
    assert_eq!(std::fs::read(canary.join("file")).unwrap(), b"untouched");
}

#[test]
fn a_container_with_ids_of_its_own_owns_what_it_writes() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let script = "echo x > /x/file; chown 7:8 /x/file; stat -c '%u:%g' /x /x/file";
    assert_eq!(daemon.sh(&["--userns", "auto", "-v", "v1:/x"], script), "0:0\n7:8");
    let file = std::fs::metadata(data(&daemon, "v1").join("file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (7, 8));
    assert_eq!(daemon.sh(&["-v", "v1:/x"], "stat -c '%u:%g' /x/file"), "7:8");
}

#[test]
fn volumes_are_listed_and_counted() {
    let engine = Engine::start();
    engine.busybox();
    for (name, label) in [("v10", "a=1"), ("v9", "a=2")] {
        engine.cli(["volume", "create", "--label", label, name]).ok();
    }
    engine
        .cli([
            "run",
            "--name",
            "c1",
            "-v",
            "v9:/x",
            BUSYBOX,
            "sh",
            "-c",
            "printf 12345 > /x/f",
        ])
        .ok();
    for (line, same) in [
        (&["volume", "ls"][..], true),
        (&["volume", "ls", "-q"], true),
        (&["volume", "ls", "--format", "json"], true),
        (
            &[
                "volume",
                "ls",
                "--format",
                "table {{.Name}}\\t{{.Label \"a\"}}\\t{{.Size}}",
            ],
            true,
        ),
        (&["volume", "ls", "-f", "dangling=true"], true),
        (&["volume", "ls", "-f", "label=a=2", "-f", "name=v"], true),
        (&["volume", "ls", "-f", "foo=1"], false),
        (&["volume", "ls", "-f", "dangling=maybe"], false),
        (&["volume", "inspect", "v9", "nosuch"], false),
        (&["volume", "inspect", "-f", "{{json .}}", "v9"], true),
        (&["volume", "rm", "v9", "nosuch"], false),
        (&["volume", "update", "v9"], false),
        (&["volume", "create", "a/b"], false),
        (&["system", "df"], true),
        (&["system", "df", "-v", "--format", "{{json .Volumes}}"], true),
    ] {
        let (ferry, docker) = (engine.ferry(line), engine.docker(line));
        assert_eq!(
            (ferry.code, &ferry.stdout, &ferry.stderr),
            (docker.code, &docker.stdout, &docker.stderr),
            "{line:?}"
        );
        assert_eq!(ferry.code == 0, same, "{line:?}: {}", ferry.stderr);
    }
    let (_, usage) = engine.api("GET", "/system/df?type=volume", None);
    let v9 = usage["Volumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|volume| volume["Name"] == "v9")
        .unwrap()
        .clone();
    assert_eq!(v9["UsageData"], json!({"RefCount": 1, "Size": 5}));
    let mode = std::fs::metadata(v9["Mountpoint"].as_str().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_volume_is_carried_as_an_archive() {
    let engine = Engine::start();
    engine.busybox();
    engine.sh(
        &["-v", "from:/x"],
        "echo text > /x/f; chown 5:6 /x/f; chmod 4711 /x/f; ln /x/f /x/g; ln -s /etc/shadow /x/l; chmod 1777 /x",
    );
    let (dir, _) = engine.share("volume");
    let file = dir.join("v.tar").display().to_string();
    engine.ferry(["volume", "export", "-o", &file, "from"]).ok();
    let refused = engine.ferry(["volume", "import", "to", &file]);
    assert!(refused.stderr.contains("get to: no such volume"), "{}", refused.stderr);
    engine.cli(["volume", "create", "to"]).ok();
    engine.ferry(["volume", "import", "to", &file]).ok();
    let look = "cd /x; stat -c '%n %a %u:%g %h' . f g; cat g; readlink l";
    let (from, to) = (engine.sh(&["-v", "from:/x"], look), engine.sh(&["-v", "to:/x"], look));
    assert_eq!(from, to);
    assert!(
        from.starts_with(". 1777 0:0 2\nf 4711 5:6 2\n") && from.ends_with("text\n/etc/shadow"),
        "{from}"
    );
    // What is no archive changes nothing and is said.
    std::fs::write(dir.join("v.tar"), [7; 4096]).unwrap();
    assert_eq!(engine.ferry(["volume", "import", "to", &file]).code, 1);
    assert_eq!(engine.sh(&["-v", "to:/x"], look), to);
}

#[test]
fn containers_that_are_made_at_once_fill_a_volume_once() {
    let engine = Engine::start();
    engine.load(&images::docker_archive(&[with_data("filled:1")]));
    let running: Vec<_> = (0..6)
        .map(|_| {
            engine
                .run([
                    "run",
                    "--rm",
                    "-v",
                    "v1:/data",
                    "filled:1",
                    "sh",
                    "-c",
                    "cat /data/own; ls /data | wc -l",
                ])
                .spawn()
        })
        .collect();
    for one in running {
        assert_eq!(one.finish().ok(), "of the image5");
    }
}

#[test]
fn mounts_of_a_bind_are_read_only_with_it_unless_asked_otherwise() {
    let daemon = TestDaemon::builder()
        .set_up("mkdir -p $DIR/b/below; mount -t tmpfs tmpfs $DIR/b/below")
        .start();
    daemon.busybox();
    let source = daemon.dir().join("b");
    let at = |more: &str| {
        let mount = format!("type=bind,src={},dst=/b{more}", source.display());
        let script = "touch /b/f 2>/dev/null && echo top; touch /b/below/f 2>/dev/null && echo below; grep -c ' /b/below ' /proc/mounts";
        daemon
            .cli(["run", "--rm", "--mount", &mount, BUSYBOX, "sh", "-c", script])
            .stdout
    };
    assert_eq!(at(""), "top\nbelow\n1\n");
    assert_eq!(at(",readonly"), "1\n");
    assert_eq!(at(",readonly,bind-recursive=writable"), "below\n1\n");
    assert_eq!(at(",readonly,bind-recursive=readonly,bind-propagation=rprivate"), "1\n");
    assert_eq!(at(",bind-recursive=disabled"), "top\nbelow\n0\n");
}

#[test]
fn files_are_copied_into_a_volume_of_a_container_that_does_not_run() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let below = daemon.dir().join("below");
    std::fs::create_dir(&below).unwrap();
    let device = format!("device={}", below.display());
    daemon
        .cli([
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            &device,
            "-o",
            "o=bind",
            "dev",
        ])
        .ok();
    daemon
        .cli([
            "create", "--name", "c1", "--userns", "auto", "-v", "dev:/d", "-v", "v1:/x", BUSYBOX, "true",
        ])
        .ok();
    let file = daemon.dir().join("file");
    std::fs::write(&file, "text").unwrap();
    for target in ["c1:/d/f", "c1:/x/f"] {
        daemon.cli(["cp", file.to_str().unwrap(), target]).ok();
    }
    assert_eq!(std::fs::read(below.join("f")).unwrap(), b"text");
    assert_eq!(std::fs::metadata(data(&daemon, "v1").join("f")).unwrap().uid(), 0);
    // Nothing stays mounted for it.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while data(&daemon, "dev").join("f").exists() {
        assert!(std::time::Instant::now() < end, "it is mounted still");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// What an engine leaves that died between a container's record and the filling of its volume: the volume, empty.
#[test]
fn a_volume_that_a_death_left_unfilled_is_filled_by_the_next_engine() {
    let mut daemon = TestDaemon::start();
    daemon.load(&images::docker_archive(&[with_data("data:1")]));
    daemon
        .cli(["create", "--name", "c1", "-v", "v1:/data", "data:1", "true"])
        .ok();
    daemon.kill9();
    let data = data(&daemon, "v1");
    let names = || -> Vec<_> {
        std::fs::read_dir(&data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect()
    };
    let filled = names();
    assert!(!filled.is_empty());
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    daemon.start_again();
    // It answers when it is through.
    daemon.cli(["ps"]).ok();
    assert_eq!(names().len(), filled.len());
}
