//! Side by side with the real Docker Engine: the unmodified `docker` CLI on both, Ferry's own CLI on Ferry; the same
//! bytes on both streams and the same exit codes.

use std::time::Duration;

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::{Client, Output, Program, TestDaemon, peer};

/// One engine through one command line.
struct Side<'a> {
    name: &'static str,
    client: &'a Client,
    program: Program,
}

impl Side<'_> {
    fn run(&self, line: &str) -> Output {
        self.client.command(self.program).args(split(line)).output()
    }
}

/// Words, with single quotes.
pub fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// The layers of words that Docker puts before the cause of a failed start; Ferry has none of these layers.
const LAYERS: [&str; 6] = [
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: \
     unable to start container process: error during container init: ",
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: \
     unable to start container process: ",
    "OCI runtime exec failed: exec failed: unable to start container process: ",
    "OCI runtime exec failed: exec failed: ",
    "failed to set up container networking: ",
    // Of a working directory, too, where it is beside the point.
    ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the \
     expected type",
];

/// What differs between two engines by right: ids, and what Docker wraps a cause in.
pub fn normalise(text: &str) -> String {
    let text = LAYERS
        .iter()
        .fold(text.to_owned(), |text, layer| text.replace(layer, ""));
    // The command line says the name it was started by.
    let names = [
        ("ferry: ", "docker: "),
        ("Run 'ferry ", "Run 'docker "),
        ("Usage:  ferry ", "Usage:  docker "),
        ("'ferry ", "'docker "),
        ("\tferry ", "\tdocker "),
    ];
    let text = names
        .iter()
        .fold(text, |text, (ours, theirs)| text.replace(ours, theirs));
    // docker's own log of a pipe that it closed itself.
    let noise = |line: &&str| !line.contains("level=error msg=\"Can't add file");
    let text: String = text.split_inclusive('\n').filter(noise).collect();
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\0']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let hex = word.len() >= 12 && word.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        out.push_str(if hex && [12, 64].contains(&word.len()) {
            "<id>"
        } else {
            &word
        });
        word.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

/// Runs the same lines on all three sides and compares after each.
fn compare(lines: &[&str]) {
    compare_with(&[], lines);
}

fn compare_with(extra: &[Image], lines: &[&str]) {
    let Some(docker) = peer::Docker::get() else { return };
    let (one, two) = (TestDaemon::start(), TestDaemon::start());
    let sides = [
        Side {
            name: "docker CLI on Docker",
            client: &docker,
            program: Program::Docker,
        },
        Side {
            name: "docker CLI on Ferry",
            client: &one,
            program: Program::Docker,
        },
        Side {
            name: "ferry CLI on Ferry",
            client: &two,
            program: Program::Ferry,
        },
    ];
    for side in &sides {
        side.client.busybox();
        if !extra.is_empty() {
            side.client.load(&images::docker_archive(extra));
        }
    }
    // What others built on the engine that all tests share is in its answers.
    docker.docker(["builder", "prune", "-af"]);
    let mut differences = Vec::new();
    for line in lines {
        let outputs: Vec<_> = sides.iter().map(|side| side.run(line)).collect();
        let shown = |output: &Output| {
            let mut stdout = normalise(&output.stdout);
            // Images of one second, and changes in one directory, come in any order from Docker.
            if line.starts_with("images") || line.starts_with("diff") {
                let mut lines: Vec<_> = stdout.lines().collect();
                lines.sort_unstable();
                stdout = lines.join("\n");
            }
            format!(
                "exit {}\nstdout: {}\nstderr: {}",
                output.code,
                stdout,
                normalise(&output.stderr)
            )
        };
        for (side, output) in sides.iter().zip(&outputs).skip(1) {
            if shown(output) != shown(&outputs[0]) {
                differences.push(format!(
                    "`{line}`, {}:\n{}\nbut {}:\n{}\n",
                    sides[0].name,
                    shown(&outputs[0]),
                    side.name,
                    shown(output)
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences\n\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn run_and_its_exit_codes() {
    compare(&[
        "run --rm busybox echo hello",
        "run --rm busybox sh -c 'echo out; echo err >&2; exit 7'",
        "run --rm busybox nope",
        "run --rm busybox /etc/passwd",
        "run --rm busybox /nope",
        "run --rm busybox /etc",
        "run --rm busybox ''",
        "run --rm -w relative busybox true",
        "run --rm -w /root -u app busybox true",
        "run --rm -u nobody-knows busybox true",
        "run --rm --nonsense busybox true",
        "run --rm -m 1m busybox true",
        "run --rm --oom-kill-disable busybox true",
        "run --rm --oom-kill-disable -m 64m --memory-swappiness 5 busybox true",
        "run --rm --cap-add NONSENSE busybox true",
        "run --rm --name 'a b' busybox true",
        "run --rm -v /a:b busybox true",
        "run --rm --network container:nobody busybox true",
        "run --rm --env-file /nowhere busybox true",
        "run --rm --pull never nothing:1 true",
        "run --rm --hostname web -e A=1 busybox env",
        "run --rm busybox id",
        "run --rm -u app busybox id",
        "run --rm busybox sh -c 'kill -9 $$'",
        "run",
        "run --rm",
        "run --rm -d --name d1 busybox sleep 1000",
        "ps --format '{{.Names}} {{.Image}} {{.Command}} {{.State}}'",
        "rm -f d1",
        "ps -a",
    ]);
}

#[test]
fn the_life_of_a_container() {
    compare(&[
        "create --name c1 busybox sleep 1000",
        "ps -a --format '{{.Names}} {{.Status}}'",
        "inspect -f '{{.State.Status}} {{.Path}} {{json .Args}} {{json .Config.Cmd}} {{.HostConfig.NetworkMode}}' c1",
        "exec c1 true",
        "start c1",
        "start c1",
        "exec c1 echo hello",
        "exec c1 nope",
        "exec c1 /etc/passwd",
        "exec -u app -w /tmp -e A=1 c1 sh -c 'id; pwd; echo $A'",
        "exec -w relative c1 pwd",
        "exec -w /nope c1 pwd",
        "exec -w /etc/passwd c1 pwd",
        "exec -w /root -u app c1 pwd",
        "exec c1 /nope",
        "exec c1 /etc",
        "exec -u nobody-knows c1 true",
        "exec -u root:nobody-knows c1 true",
        "exec -u 4294967296 c1 true",
        "exec -u 4242:4243 c1 id",
        "exec -t c1 nope",
        "exec -t -u nobody-knows c1 true",
        "exec -d c1 nope",
        "exec -d c1 /etc/passwd",
        "exec -d -w /etc/passwd c1 true",
        "exec -d -w relative c1 true",
        "exec -d -u nobody-knows c1 true",
        "exec c1 sh -c 'exit 9'",
        "pause c1",
        "pause c1",
        "exec c1 true",
        "unpause c1",
        "unpause c1",
        "rename c1 d1",
        "rename d1 d1",
        "kill -s NONSENSE d1",
        "kill -s USR1 d1",
        "rm d1",
        "stop -t 0 d1",
        "stop d1",
        "inspect -f '{{.State.ExitCode}} {{.State.OOMKilled}} {{.State.Error}}' d1",
        "wait d1",
        "kill d1",
        "unpause d1",
        "attach d1",
        "top d1",
        "start nobody d1",
        "stop -t 0 d1 nobody",
        "rm nobody",
        "rm d1",
        "rm -f nobody",
        "create --name e1 busybox sh -c 'echo attached; exit 4'",
        "start -a e1",
        "logs e1",
        "rm -v e1",
    ]);
}

#[test]
fn logs_of_every_kind() {
    compare(&[
        "run --name c1 busybox sh -c 'echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three'",
        "logs c1",
        "logs --tail 1 c1",
        "logs -n 0 c1",
        "logs --since 2999-01-01 c1",
        "logs --tail nonsense c1",
        "logs --since nonsense c1",
        "logs nobody",
        "run --name t1 -t busybox sh -c 'echo one; echo two >&2'",
        "logs t1",
        "run -d --name f1 busybox sh -c 'echo first; sleep 0.5; echo last'",
        "logs -f f1",
    ]);
}

#[test]
fn images_of_every_kind() {
    let labelled = Image::new("told:1", vec![Layer::new().file("content", b"told", 0o644).finish()])
        .config("Cmd", serde_json::json!(["run", "me"]))
        .config("Labels", serde_json::json!({"kind": "test"}));
    let other = Image::new("told:2", vec![Layer::new().file("content", b"other", 0o644).finish()]);
    compare_with(
        &[labelled, other],
        &[
            "images",
            "images -a",
            "images told",
            "images --digests told:1",
            "images --no-trunc told:1",
            "images -q -f label=kind=test",
            "images -f nonsense=1",
            "tag told:1 second",
            "tag told:1 localhost:5000/deep/third:v1",
            "tag nothing x",
            "tag told:1 UPPER",
            "images --format '{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}'",
            "history told:1",
            "history --no-trunc -q told:1",
            "image inspect -f '{{.Id}} {{json .RepoTags}} {{json .Config}} {{.Os}}/{{.Architecture}} {{.Size}} {{json .RootFS}}' told:1",
            "image inspect nothing",
            "create --name c1 told:1",
            "rmi told:1 second",
            "rmi told:2",
            "rmi nothing",
            "rmi localhost:5000/deep/third:v1",
            "rm c1",
            "rmi told:1",
            "load -i /nowhere",
        ],
    );
}

#[test]
fn stats_diff_and_prunes() {
    compare(&[
        "run -d --name c1 --label mark=p1 busybox sh -c 'echo x >/new; rm /bin/ls; mkdir /d; echo y >/d/f; exec sleep 1000'",
        "exec c1 sleep 0.3",
        "diff c1",
        "diff nobody",
        "container diff",
        "create --name s1 --label mark=p1 busybox",
        "diff s1",
        "stats --no-stream --format '{{.Name}} {{.Container}} {{.PIDs}}' c1 s1",
        "stats --no-stream --format 'table {{.Container}}\t{{.MemPerc}}' s1",
        "stats --no-stream --format json s1",
        "stats --no-stream s1",
        "stats --no-stream --no-trunc s1",
        "stats --no-stream --format '{{.Foo}}' c1",
        "stats --no-stream nobody",
        "stats --no-stream c1 nobody",
        "stats nobody",
        "container prune -f --filter nonsense=1",
        "container prune -f --filter nonsense",
        "container prune -f --filter until=nonsense",
        "container prune --filter label=mark=p1",
        "container prune -f --filter label=mark=p1 --filter until=1h",
        "container prune -f --filter label=mark=p1",
        "container prune -f --filter label=mark=p1",
        "system prune --volumes",
        "system prune -a --filter label=mark=p1",
        "system prune -f --filter label=mark=nothing",
        "system prune -f --volumes --filter until=1h",
        "system prune -f --filter nonsense=1",
        "rm -f c1",
    ]);
}

#[test]
fn links_of_the_default_bridge() {
    compare(&[
        "run -d --name l1 -e FOO=1 -e HOME=/x -e EMPTY --expose 90-93/tcp --expose 80 --expose 53/udp busybox sleep 1000",
        "run --name l2 --link l1:my-one.x busybox sh -c 'env | grep MY_ONE | sed s/[0-9.]*:[0-9]*$/IP/ | grep -v ADDR | sort'",
        "inspect -f '{{json .HostConfig.Links}}' l2",
        "inspect -f '{{json .HostConfig.Links}}' l1",
        "ps -a --no-trunc --format '{{.Names}}'",
        "ps -a --format '{{.Names}}'",
        "rm --link l2/nothing",
        "rm --link nobody/nothing",
        "rm --link nobody",
        "rm --link l2",
        "rm --link l2/my-one.x",
        "rm --link l2/my-one.x",
        "ps -a --no-trunc --format '{{.Names}}'",
        "inspect -f '{{json .HostConfig.Links}}' l2",
        "run --rm --link nobody:x busybox true",
        "run --rm --link l1:aa --link l1:bb busybox sh -c 'env | grep _NAME | wc -l'",
        "run --rm --network host --link l1:aa busybox true",
        "run --rm --network none --link l1:aa busybox sh -c 'env | grep -c AA_'",
        "stop -t 0 l1",
        "run --name l3 --link l1:aa busybox true",
        "rm -f l1 l2 l3",
    ]);
}

#[test]
fn top_and_what_it_is_asked_for() {
    compare(&[
        "run -d --name c1 busybox sleep 1000",
        "top c1 -o user,args",
        "top c1 -o nothing",
        "rm -f c1",
    ]);
}

#[test]
fn lists_and_their_filters() {
    compare(&[
        "run --name ended --label a=1 busybox sh -c 'exit 3'",
        "create --name made --label b busybox",
        "run -d --name running busybox sleep 1000",
        "ps -a --format '{{.Names}}'",
        "ps -a -f status=exited --format '{{.Names}} {{.Labels}}'",
        "ps -a -f label=a --format '{{.Names}}'",
        "ps -a -f label=a=2 --format '{{.Names}}'",
        "ps -a -f exited=3 --format '{{.Names}}'",
        "ps -a -f status=nonsense",
        "ps -f nonsense=1",
        "ps -a -f before=running --format '{{.Names}}'",
        "ps -a -f since=ended --format '{{.Names}}'",
        "ps -a -f ancestor=busybox --format '{{.Names}}'",
        "ps -a -f name=n --format 'table {{.Names}}\t{{.Image}}\t{{.Command}}'",
        "ps -a -n 1 --format '{{.Names}} {{.Networks}} {{.Ports}} {{.Mounts}}'",
        "ps -a --format '{{.Nonsense}}'",
        "ps -a --format '{{'",
        "ps -a --format json -f name=nothing",
        "inspect nobody",
        "inspect -f '{{.Nonsense}}' ended",
        "inspect -f '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}} {{json .HostConfig.Ulimits}} {{json .Mounts}}' running",
        "inspect -f '{{json .HostConfig.MaskedPaths}} {{json .HostConfig.ReadonlyPaths}} {{.HostConfig.ShmSize}} {{.HostConfig.IpcMode}}' running",
    ]);
}

/// Every key of the peer's answer, with the kind of its value.
fn keys(prefix: &str, value: &serde_json::Value, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{prefix}/{key}");
                // Names and addresses are data, not keys.
                if ["Labels", "Networks", "Runtimes"].contains(&key.as_str()) {
                    into.insert(path);
                    continue;
                }
                into.insert(path.clone());
                keys(&path, value, into);
            }
        }
        serde_json::Value::Array(items) => {
            into.insert(format!("{prefix}[]"));
            for item in items {
                keys(&format!("{prefix}[]"), item, into);
            }
        }
        serde_json::Value::Null => {
            into.insert(format!("{prefix}=null"));
        }
        _ => {}
    }
}

#[test]
fn answers_have_the_same_keys() {
    let Some(docker) = peer::Docker::get() else { return };
    let daemon = TestDaemon::start();
    let mut differences = Vec::new();
    for client in [&*docker, &*daemon] {
        client.busybox();
        client
            .docker([
                "run", "-d", "--name", "c1", "-m", "64m", "--label", "a=1", BUSYBOX, "sleep", "1000",
            ])
            .ok();
        client
            .docker(["create", "--name", "d1", "--network", "none", BUSYBOX])
            .ok();
    }
    for path in [
        "/v1.51/containers/c1/json",
        "/v1.51/containers/d1/json",
        "/v1.51/containers/json?all=1",
        "/v1.51/images/json",
        "/v1.51/images/busybox/json",
        "/v1.51/images/busybox/history",
        "/v1.51/containers/c1/top",
        "/version",
    ] {
        let [theirs, ours] = [&*docker, &*daemon].map(|client| {
            let (status, value) = client.api("GET", path, None);
            assert_eq!(status, 200, "{path}");
            let mut found = std::collections::BTreeSet::new();
            keys("", &value, &mut found);
            found
        });
        // Ferry's engine has no containerd, runc and init of its own name to tell versions of.
        let expected = |key: &&String| path != "/version" || !key.contains("Components");
        let missing: Vec<_> = theirs.difference(&ours).filter(expected).collect();
        let extra: Vec<_> = ours.difference(&theirs).filter(expected).collect();
        if !(missing.is_empty() && extra.is_empty()) {
            differences.push(format!("{path}: missing {missing:?}, extra {extra:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn events_say_the_same() {
    let Some(docker) = peer::Docker::get() else { return };
    let (one, two) = (TestDaemon::start(), TestDaemon::start());
    let sides = [
        Side {
            name: "Docker",
            client: &docker,
            program: Program::Docker,
        },
        Side {
            name: "Ferry",
            client: &one,
            program: Program::Docker,
        },
        Side {
            name: "ferry CLI",
            client: &two,
            program: Program::Ferry,
        },
    ];
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.image}} {{.Actor.Attributes.signal}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.oldName}}";
    let stories = sides.map(|side| {
        side.client.busybox();
        let events = side
            .client
            .command(side.program)
            .args(["events", "-f", "type=container", "--format", format])
            .spawn();
        std::thread::sleep(Duration::from_millis(500));
        for line in [
            "run --rm --name c1 busybox sh -c 'exit 3'",
            "run -d --name d1 busybox sleep 1000",
            "pause d1",
            "unpause d1",
            "rename d1 e1",
            "exec e1 true",
            "kill -s KILL e1",
            "wait e1",
            "start e1",
            "restart -t 0 e1",
            "stop -t 0 e1",
            "rm e1",
        ] {
            side.run(line);
        }
        let story = events.wait_for("container destroy e1");
        (side.name, normalise(&story))
    });
    for (name, story) in &stories[1..] {
        assert_eq!(&stories[0].1, story, "{name} tells another story");
    }
}

#[test]
fn import_and_load_give_the_same_ids() {
    let Some(docker) = peer::Docker::get() else { return };
    let daemon = TestDaemon::start();
    let image = images::above_busybox("same:1", Layer::new().file("x", b"x", 0o644));
    let ids = [&*docker, &*daemon].map(|client| {
        let printed = client
            .command(Program::Docker)
            .args(["load"])
            .input(images::docker_archive(std::slice::from_ref(&image)))
            .ok();
        let imported = client
            .command(Program::Docker)
            .args(["import", "-", "imported:1"])
            .input(images::busybox_tar())
            .ok();
        let layers = client
            .docker(["image", "inspect", "-f", "{{json .RootFS}}", "imported:1"])
            .ok();
        assert!(imported.starts_with("sha256:"));
        (
            printed,
            client.docker(["images", "-q", "--no-trunc", "same:1"]).ok(),
            layers,
        )
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn copying_and_what_cannot_be_copied() {
    compare(&[
        "create --name c1 busybox true",
        "cp",
        "cp a b",
        "cp a:/x b:/y",
        "cp nope:/x /var/tmp",
        "cp /etc/passwd nope:/",
        "cp c1:/nope /var/tmp",
        "cp c1:/etc/passwd /nonexistent/x",
        "cp c1:/etc/passwd /var/tmp/no-such-dir/",
        "cp c1:/etc /etc/passwd",
        "cp c1: /var/tmp",
        "cp /var/nonexistent c1:/",
        "cp /etc/passwd c1:/nope/x",
        "cp /etc/passwd c1:/nope/",
        "cp -q /etc/passwd c1:/tmp/copy",
        "cp c1:/tmp/copy /dev/null",
        "rm c1",
    ]);
}
