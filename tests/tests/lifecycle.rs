//! From `create` to `rm`.

use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, http, wait_until};

/// A container that traps TERM, prints, and exits with 21; it runs when this returns.
fn polite(engine: &Engine, name: &str, options: &[&str], signal: &str) {
    engine.busybox();
    let script = format!("trap 'echo bye; exit 21' {signal}; echo ready; while true; do sleep 0.02; done");
    let args = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
    engine.cli(args.chain([BUSYBOX, "sh", "-c", &script])).ok();
    wait_until("the trap is set", || engine.cli(["logs", name]).stdout == "ready\n");
}

#[test]
fn states_follow_one_another() {
    let engine = Engine::start();
    engine.busybox();
    let status = || engine.field("c1", "/State/Status");
    let id = engine.cli(["create", "--name", "c1", BUSYBOX, "sleep", "1000"]).ok();
    assert_eq!(status(), "created");
    assert_eq!(engine.cli(["start", "c1"]).ok(), "c1");
    assert_eq!(status(), "running");
    assert_eq!(engine.cli(["pause", "c1"]).ok(), "c1");
    assert_eq!(status(), "paused");
    assert_eq!(engine.cli(["unpause", "c1"]).ok(), "c1");
    assert_eq!(engine.cli(["stop", "-t", "0", &id[..12]]).ok(), id[..12]);
    assert_eq!(
        (status(), engine.field("c1", "/State/ExitCode")),
        ("exited".into(), "137".into())
    );
    assert_eq!(engine.cli(["start", &id]).ok(), id);
    assert_eq!(status(), "running");
    assert_eq!(engine.cli(["rm", "-f", "c1"]).ok(), "c1");
    assert!(!engine.has_container(&id));
}

#[test]
fn stop_asks_first_and_kills_when_the_time_is_up() {
    let engine = Engine::start();
    polite(&engine, "polite", &[], "TERM");
    engine.cli(["stop", "polite"]).ok();
    assert_eq!(engine.field("polite", "/State/ExitCode"), "21");
    assert_eq!(engine.cli(["logs", "polite"]).ok(), "ready\nbye");

    // PID 1 without a handler does not die of TERM.
    engine.sleeper("deaf", &[]);
    let started = Instant::now();
    engine.cli(["stop", "-t", "1", "deaf"]).ok();
    let took = started.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(engine.field("deaf", "/State/ExitCode"), "137");
}

#[test]
fn stop_signal_and_time_can_be_set_at_creation() {
    let engine = Engine::start();
    polite(&engine, "c1", &["--stop-signal", "USR1"], "USR1");
    engine.cli(["stop", "c1"]).ok();
    assert_eq!(engine.field("c1", "/State/ExitCode"), "21");
    engine.sleeper("d1", &["--stop-timeout", "1"]);
    let started = Instant::now();
    engine.cli(["stop", "d1"]).ok();
    assert!(started.elapsed() < Duration::from_secs(5));
    polite(&engine, "e1", &[], "INT");
    engine.cli(["stop", "-s", "INT", "e1"]).ok();
    assert_eq!(engine.field("e1", "/State/ExitCode"), "21");
}

#[test]
fn stop_and_start_are_idempotent() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    engine.cli(["start", "c1"]).ok();
    for _ in 0..2 {
        engine.cli(["stop", "-t", "0", "c1"]).ok();
    }
    assert_eq!(engine.api("POST", "/v1.51/containers/c1/stop", None).0, 304);
    engine.cli(["start", "c1"]).ok();
    assert_eq!(engine.api("POST", "/v1.51/containers/c1/start", None).0, 304);
}

#[test]
fn kill_sends_any_signal() {
    let engine = Engine::start();
    polite(&engine, "c1", &[], "HUP");
    for signal in ["0", "nope"] {
        let message = engine.cli(["kill", "-s", signal, "c1"]).fails(1);
        assert!(message.ends_with(&format!("invalid signal: {signal}")), "{message}");
    }
    engine.cli(["kill", "-s", "HUP", "c1"]).ok();
    assert_eq!(engine.cli(["wait", "c1"]).ok(), "21");
    let message = engine.cli(["kill", "c1"]).fails(1);
    let id = engine.field("c1", "/Id");
    assert!(
        message.ends_with(&format!("cannot kill container: c1: container {id} is not running")),
        "{message}"
    );
    engine.sleeper("d1", &[]);
    engine.cli(["kill", "d1"]).ok();
    assert_eq!(engine.cli(["wait", "d1"]).ok(), "137");
    polite(&engine, "e1", &[], "USR2");
    engine.cli(["kill", "--signal=12", "e1"]).ok();
    assert_eq!(engine.cli(["wait", "e1"]).ok(), "21");
}

#[test]
fn wait_returns_when_it_ends() {
    let engine = Engine::start();
    engine.busybox();
    for (name, code) in [("a1", "3"), ("b1", "4")] {
        engine
            .cli([
                "run",
                "-d",
                "--name",
                name,
                BUSYBOX,
                "sh",
                "-c",
                &format!("sleep 0.5; exit {code}"),
            ])
            .ok();
    }
    assert_eq!(engine.cli(["wait", "a1", "b1"]).ok(), "3\n4");
    assert_eq!(engine.cli(["wait", "a1"]).ok(), "3");
}

#[test]
fn the_writable_layer_lives_as_long_as_the_container() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "cat /kept 2>/dev/null; echo $(date +%s%N) >> /kept",
        ])
        .ok();
    let first = engine.cli(["start", "-a", "c1"]).ok();
    assert_eq!(first.lines().count(), 1);
    let second = engine.cli(["start", "-a", "c1"]).ok();
    assert_eq!(second.lines().next(), first.lines().next());
    assert_eq!(second.lines().count(), 2);
    engine.cli(["restart", "c1"]).ok();
    engine.cli(["wait", "c1"]).ok();
    engine.cli(["rm", "c1"]).ok();
    engine
        .cli(["run", "--name", "c1", BUSYBOX, "test", "!", "-e", "/kept"])
        .ok();
}

#[test]
fn restart_gives_a_new_process() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let before = engine.pid("c1");
    assert_eq!(engine.cli(["restart", "-t", "0", "c1"]).ok(), "c1");
    let after = engine.pid("c1");
    assert_ne!(before, after);
    engine.cli(["stop", "-t", "0", "c1"]).ok();
    engine.cli(["restart", "c1"]).ok();
    assert_eq!(engine.field("c1", "/State/Running"), "true");
}

#[test]
fn rm_takes_a_stopped_one_and_a_running_one_only_by_force() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let message = engine.cli(["rm", "c1"]).fails(1);
    assert!(
        message.ends_with(
            "cannot remove container \"c1\": container is running: stop the container before removing or force remove"
        ),
        "{message}"
    );
    engine.cli(["pause", "c1"]).ok();
    let message = engine.cli(["rm", "c1"]).fails(1);
    assert!(
        message.ends_with("cannot remove container \"c1\": container is paused and must be unpaused first"),
        "{message}"
    );
    assert_eq!(engine.cli(["rm", "-f", "c1"]).ok(), "c1");
    engine.cli(["create", "--name", "d1", BUSYBOX]).ok();
    assert_eq!(engine.cli(["rm", "d1"]).ok(), "d1");
    assert_eq!(engine.cli(["rm", "-f", "nobody"]).code, 0);
}

#[test]
fn rename_keeps_everything_but_the_name() {
    let engine = Engine::start();
    let id = engine.sleeper("old", &[]);
    engine.cli(["rename", "old", "new"]).ok();
    assert_eq!(
        (engine.field("new", "/Id"), engine.field("new", "/Name")),
        (id, "/new".into())
    );
    assert!(!engine.has_container("old"));
    engine.sleeper("old", &[]);
    let message = engine.cli(["rename", "old", "new"]).fails(1);
    assert!(
        message.contains("The container name \"/new\" is already in use by container"),
        "{message}"
    );
}

#[test]
fn pause_stops_every_process() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "while true; do date +%s%N; sleep 0.01; done",
        ])
        .ok();
    engine.cli(["pause", "c1"]).ok();
    let count = || engine.cli(["logs", "c1"]).stdout.len();
    let before = count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), before);
    let message = engine.cli(["pause", "c1"]).fails(1);
    assert!(message.contains("is already paused"), "{message}");
    engine.cli(["unpause", "c1"]).ok();
    wait_until("it goes on", || count() > before);
    let message = engine.cli(["unpause", "c1"]).fails(1);
    assert!(message.contains("is not paused"), "{message}");
    // A signal thaws it, as with Docker: of an end by SIGKILL no more is told than the end.
    engine.cli(["pause", "c1"]).ok();
    engine.cli(["kill", "-s", "CONT", "c1"]).ok();
    assert_eq!(engine.field("c1", "/State/Status"), "running");
    engine.cli(["pause", "c1"]).ok();
    engine.cli(["stop", "-s", "KILL", "c1"]).ok();
    assert_eq!(engine.field("c1", "/State/Running"), "false");
    // `--until` counts whole seconds, as Docker's.
    std::thread::sleep(Duration::from_millis(1100));
    let events = engine.cli(["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"]);
    let events = events.ok();
    let (_, tail) = events.split_once("unpause\n").unwrap();
    let expected = ["pause", "kill", "unpause", "pause", "kill"];
    assert_eq!(tail.lines().take(5).collect::<Vec<_>>(), expected, "{events}");
    assert_eq!(tail.matches("unpause").count(), 1, "{events}");
}

#[test]
fn top_lists_processes_as_ps_does() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "sleep 1001 & sleep 1002",
        ])
        .ok();
    wait_until("both sleep, one of them in the shell's place", || {
        let table = engine.cli(["top", "c1"]).stdout;
        table.matches("sleep 100").count() == 2 && !table.contains("sh -c")
    });
    let table = engine.cli(["top", "c1"]).ok();
    let titles: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.contains(&engine.pid("c1").to_string()), "{table}");
}

#[test]
fn ps_lists_filters_and_formats() {
    let engine = Engine::start();
    let running = engine.sleeper("running", &["--label", "role=web", "--label", "n=1"]);
    engine.cli(["run", "--name", "ended", BUSYBOX, "sh", "-c", "exit 3"]);
    engine
        .cli(["create", "--name", "created", "--label", "role=web", BUSYBOX])
        .ok();
    let ps = |args: &[&str]| {
        let text = engine.cli(["ps", "--format", "{{.Names}}"].iter().chain(args)).ok();
        text.replace('\n', " ")
    };
    assert_eq!(ps(&[]), "running");
    assert_eq!(ps(&["-a"]), "created ended running");
    assert_eq!(ps(&["-l"]), "created");
    assert_eq!(ps(&["-n", "2"]), "created ended");
    assert_eq!(ps(&["-a", "-f", "status=exited"]), "ended");
    assert_eq!(
        ps(&["-a", "-f", "status=exited", "-f", "status=created"]),
        "created ended"
    );
    assert_eq!(ps(&["-a", "-f", "label=role=web"]), "created running");
    assert_eq!(ps(&["-a", "-f", "label=role=web", "-f", "label=n"]), "running");
    assert_eq!(ps(&["-a", "-f", "name=^/?e"]), "ended");
    assert_eq!(ps(&["-a", "-f", "exited=3"]), "ended");
    assert_eq!(ps(&["-a", "-f", &format!("id={}", &running[..6])]), "running");
    assert_eq!(ps(&["-a", "-f", "before=ended"]), "running");
    assert_eq!(ps(&["-a", "-f", "since=ended"]), "created");
    assert_eq!(ps(&["-a", "-f", "ancestor=busybox"]), "created ended running");
    let line = engine
        .cli([
            "ps",
            "-f",
            "name=running",
            "--format",
            "{{.ID}} {{.Image}} {{.Command}} {{.State}} {{.Status}}",
        ])
        .ok();
    let (id, rest) = line.split_once(' ').unwrap();
    assert_eq!(id, &running[..12]);
    assert!(rest.starts_with("busybox:latest \"sleep 1000\" running Up "), "{rest}");
    let status = engine
        .cli(["ps", "-a", "-f", "name=ended", "--format", "{{.Status}}"])
        .ok();
    assert!(status.starts_with("Exited (3) ") && status.ends_with("ago"), "{status}");
    let message = engine.cli(["ps", "-f", "nope=1"]).fails(1);
    assert!(message.contains("invalid filter 'nope'"), "{message}");
    assert_eq!(engine.cli(["ps", "-q", "--no-trunc"]).ok(), running);
}

#[test]
fn events_tell_the_story_in_order() {
    let engine = Engine::start();
    engine.busybox();
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}";
    let events = engine
        .run([
            "events",
            "--filter",
            "type=container",
            "--filter",
            "container=c1",
            "--format",
            format,
        ])
        .spawn();
    std::thread::sleep(Duration::from_millis(300));
    engine
        .cli(["run", "--rm", "--name", "c1", BUSYBOX, "sh", "-c", "exit 3"])
        .fails(3);
    engine.sleeper("other", &[]);
    let seen = events.wait_for("destroy");
    let seen: Vec<&str> = seen
        .lines()
        .map(|line| line.trim_end_matches(" <no value>").trim_end())
        .collect();
    assert_eq!(
        seen,
        [
            "container create c1",
            "container attach c1",
            "container start c1",
            "container die c1 3",
            "container destroy c1"
        ]
    );
}

#[test]
fn past_events_can_be_asked_for() {
    let engine = Engine::start();
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .to_string();
    engine.sleeper("storied", &[]);
    engine.cli(["pause", "storied"]).ok();
    engine.cli(["unpause", "storied"]).ok();
    engine.cli(["kill", "storied"]).ok();
    engine.cli(["wait", "storied"]).ok();
    let args = [
        "events",
        "--since",
        &since,
        "--until",
        "0s",
        "--filter",
        "container=storied",
        "--filter",
        "type=container",
        "--format",
        "{{.Action}}",
    ];
    wait_until("die is told", || engine.cli(args).stdout.contains("die"));
    let seen = engine.cli(args).ok();
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        ["create", "start", "pause", "unpause", "kill", "die"]
    );
}

#[test]
fn inspect_tells_what_was_asked_for() {
    let engine = Engine::start();
    let id = engine.sleeper(
        "c1",
        &[
            "-m",
            "64m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "30",
            "-e",
            "A=1",
            "--init",
            "--read-only",
        ],
    );
    let value = engine.inspect("c1");
    let field = |pointer: &str| {
        value
            .pointer(pointer)
            .cloned()
            .unwrap_or_else(|| panic!("no {pointer}"))
    };
    assert_eq!(field("/Id"), id.as_str());
    assert_eq!(field("/Path"), "sleep");
    assert_eq!(field("/Args"), serde_json::json!(["1000"]));
    assert_eq!(field("/HostConfig/Memory"), 64 << 20);
    assert_eq!(field("/HostConfig/MemorySwap"), 128 << 20);
    assert_eq!(field("/HostConfig/NanoCpus"), 500_000_000);
    assert_eq!(field("/HostConfig/PidsLimit"), 30);
    assert_eq!(field("/HostConfig/Init"), true);
    assert_eq!(field("/HostConfig/ReadonlyRootfs"), true);
    assert_eq!(field("/HostConfig/NetworkMode"), "bridge");
    assert_eq!(field("/Config/Image"), "busybox:latest");
    assert_eq!(field("/Config/Env/0"), "A=1");
    assert_eq!(field("/Image"), ferry_testkit::images::busybox().id());
    assert_eq!(field("/State/OOMKilled"), false);
    assert!(field("/NetworkSettings/IPAddress").as_str().unwrap().split('.').count() == 4);
    let several = engine
        .cli(["inspect", "-f", "{{.Name}} {{.State.Status}} {{json .Args}}", "c1", &id])
        .ok();
    assert_eq!(several, "/c1 running [\"1000\"]\n/c1 running [\"1000\"]");
    let missing = engine.cli(["inspect", "c1", "nope"]);
    assert!(missing.stdout.contains(&id));
    assert!(missing.fails(1).to_lowercase().contains("no such object: nope"));
}

#[test]
fn ids_can_be_shortened_until_they_are_not_unique() {
    let engine = Engine::start();
    engine.busybox();
    let id = engine.cli(["create", BUSYBOX]).ok();
    assert_eq!(engine.field(&id[..3], "/Id"), id);
    let ids: Vec<String> = (0..17).map(|_| engine.cli(["create", BUSYBOX]).ok()).collect();
    let twice = "0123456789abcdef"
        .chars()
        .find(|first| ids.iter().filter(|id| id.starts_with(*first)).count() > 1);
    let prefix = twice.unwrap().to_string();
    let (status, answer) = engine.api("GET", &format!("/containers/{prefix}/json"), None);
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("multiple IDs found with provided prefix"),
        "{answer}"
    );
}

#[test]
fn version_and_info_answer() {
    let engine = Engine::start();
    let (status, version) = engine.api("GET", "/version", None);
    assert_eq!(
        (status, &version["ApiVersion"], &version["Os"]),
        (200, &"1.51".into(), &"linux".into())
    );
    let (status, info) = engine.api("GET", "/v1.51/info", None);
    assert_eq!(
        (status, &info["Containers"], &info["Driver"]),
        (200, &0.into(), &"overlay2".into()),
        "{info}"
    );
    engine.sleeper("c1", &[]);
    engine.cli(["create", BUSYBOX]).ok();
    let (_, info) = engine.api("GET", "/v1.51/info", None);
    let counts = [
        "Containers",
        "ContainersRunning",
        "ContainersPaused",
        "ContainersStopped",
    ]
    .map(|key| info[key].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(0), Some(1)]);
    assert!(engine.cli(["version", "-f", "{{.Server.APIVersion}}"]).ok() == "1.51");
    engine.cli(["info"]).ok();
}

#[test]
fn older_clients_are_served_and_too_old_ones_told() {
    let engine = Engine::start();
    for version in ["1.40", "1.44", "1.51"] {
        assert_eq!(
            engine.api("GET", &format!("/v{version}/containers/json"), None).0,
            200,
            "{version}"
        );
    }
    let (status, answer) = engine.api("GET", "/v1.52/containers/json", None);
    assert_eq!(status, 400);
    assert_eq!(
        answer["message"],
        "client version 1.52 is too new. Maximum supported API version is 1.51"
    );
    // Below 1.24 the answer is plain text: such clients know no JSON errors.
    let answer = http::request(engine.socket(), "GET", "/v1.12/containers/json", "", b"").unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let wanted = "client version 1.12 is too old. Minimum supported API version is 1.";
    assert!(
        answer.status == 400 && text.contains(wanted),
        "{} {text}",
        answer.status
    );
    let old = engine
        .command(ferry_testkit::Program::Docker)
        .env("DOCKER_API_VERSION", "1.40")
        .args(["ps"])
        .output();
    old.ok();
}
