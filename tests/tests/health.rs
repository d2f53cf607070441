//! Health checks: Docker's states and texts, checks without a program, and that none of it needs the daemon.

use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, TestDaemon, wait_until};
use serde_json::{Value, json};

/// A check every second, unless `options` says otherwise; it runs `sleep 1000`.
fn checked(client: &ferry_testkit::Client, name: &str, options: &[&str]) {
    let mut all = vec!["--health-interval", "1s"];
    all.extend(options);
    client.sleeper(name, &all);
}

fn status(client: &ferry_testkit::Client, name: &str) -> String {
    client.field(name, "/State/Health/Status")
}

/// Exit codes and outputs of the checks, oldest first.
fn results(client: &ferry_testkit::Client, name: &str) -> Vec<(i64, String)> {
    let log = client.inspect(name)["State"]["Health"]["Log"].clone();
    let entries = log.as_array().unwrap();
    let entry = |entry: &Value| {
        (
            entry["ExitCode"].as_i64().unwrap(),
            entry["Output"].as_str().unwrap().to_owned(),
        )
    };
    entries.iter().map(entry).collect()
}

#[test]
fn a_container_becomes_unhealthy_and_healthy_again() {
    let engine = Engine::start();
    let mut events = engine
        .run([
            "events",
            "--filter",
            "container=c1",
            "--format",
            "{{.Action}} {{.Actor.Attributes.exitCode}}",
        ])
        .spawn();
    checked(
        &engine,
        "c1",
        &["--health-cmd", "echo looking; test -f /well", "--health-retries", "2"],
    );
    let health = engine.inspect("c1")["State"]["Health"].clone();
    assert_eq!(health, json!({"Status": "starting", "FailingStreak": 0, "Log": []}));
    let ps = |filter: &str| {
        engine
            .cli(["ps", "-a", "--filter", filter, "--format", "{{.Names}} {{.Status}}"])
            .ok()
    };
    assert!(ps("health=starting").ends_with("(health: starting)"));
    wait_until("it is unhealthy", || status(&engine, "c1") == "unhealthy");
    assert!(
        ps("health=unhealthy").ends_with("(unhealthy)"),
        "{}",
        ps("health=unhealthy")
    );
    assert_eq!(ps("health=healthy"), "");
    assert_eq!(
        results(&engine, "c1")[..2],
        [(1, "looking\n".to_owned()), (1, "looking\n".to_owned())]
    );
    engine.cli(["exec", "c1", "touch", "/well"]).ok();
    wait_until("it is healthy", || status(&engine, "c1") == "healthy");
    assert_eq!(engine.field("c1", "/State/Health/FailingStreak"), "0");
    assert!(ps("health=healthy").ends_with("(healthy)"));
    wait_until("five results are kept", || results(&engine, "c1").len() == 5);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(results(&engine, "c1").len(), 5);

    engine.cli(["stop", "-t", "0", "c1"]).ok();
    assert_eq!(status(&engine, "c1"), "unhealthy");
    engine.cli(["start", "c1"]).ok();
    assert_eq!(
        (status(&engine, "c1"), results(&engine, "c1").len()),
        ("starting".into(), 5)
    );

    let seen = events.so_far();
    events.signal(ferry_testkit::signal::KILL);
    let first: Vec<_> = seen
        .lines()
        .map(|line| line.trim_end_matches(" <no value>"))
        .filter(|line| line.contains("exec_") || line.contains("health"))
        .take(7)
        .collect();
    let (create, start) = (
        "exec_create: /bin/sh -c echo looking; test -f /well",
        "exec_start: /bin/sh -c echo looking; test -f /well",
    );
    assert_eq!(
        first,
        [
            create,
            start,
            "exec_die 1",
            create,
            start,
            "exec_die 1",
            "health_status: unhealthy"
        ]
    );
    assert!(seen.contains("health_status: healthy"), "{seen}");
    let _ = events.is_running();
}

#[test]
fn what_a_check_says_is_kept_as_docker_keeps_it() {
    let engine = Engine::start();
    checked(
        &engine,
        "slow",
        &["--health-cmd", "echo begun; sleep 77", "--health-timeout", "1s"],
    );
    checked(
        &engine,
        "mute",
        &["--health-cmd", "sleep 77", "--health-timeout", "1500ms"],
    );
    checked(
        &engine,
        "long",
        &["--health-cmd", "head -c 5000 /dev/zero | tr '\\0' x"],
    );
    checked(&engine, "bytes", &["--health-cmd", "printf '\\377\\376a' >&2; exit 7"]);
    let body = json!({"Image": BUSYBOX, "Cmd": ["sleep", "1000"], "Healthcheck": {"Test": ["CMD", "nope"], "Interval": 1_000_000_000}});
    assert_eq!(engine.api("POST", "/containers/create?name=none", Some(&body)).0, 201);
    engine.cli(["start", "none"]).ok();
    let first = |name: &str| {
        wait_until("there is a result", || !results(&engine, name).is_empty());
        results(&engine, name)[0].clone()
    };
    assert_eq!(
        first("slow"),
        (-1, "Health check exceeded timeout (1s): begun\n".into())
    );
    assert_eq!(first("mute"), (-1, "Health check exceeded timeout (1.5s)".into()));
    assert_eq!(first("long"), (0, format!("{}...", "x".repeat(4096))));
    assert_eq!(first("bytes"), (7, "\u{fffd}\u{fffd}a".into()));
    let (code, output) = first("none");
    assert_eq!(code, -1);
    assert!(output.contains("executable file not found in $PATH"), "{output}");
    if engine.is_ferry() {
        // Not only the shell was ended.
        let top = engine.cli(["top", "mute"]).ok();
        assert!(top.matches("sleep 77").count() <= 1, "{top}");
    }
}

#[test]
fn a_paused_container_is_not_checked() {
    let engine = Engine::start();
    checked(&engine, "c1", &["--health-cmd", "true"]);
    wait_until("it is healthy", || status(&engine, "c1") == "healthy");
    engine.cli(["pause", "c1"]).ok();
    assert_eq!(status(&engine, "c1"), "unhealthy");
    let ps = engine.cli(["ps", "--format", "{{.Status}}"]).ok();
    assert!(ps.ends_with("(Paused)"), "{ps}");
    let before = results(&engine, "c1").len();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(results(&engine, "c1").len(), before);
    engine.cli(["unpause", "c1"]).ok();
    assert_eq!(status(&engine, "c1"), "unhealthy");
    wait_until("it is healthy again", || status(&engine, "c1") == "healthy");
}

#[test]
fn an_images_check_is_made_unless_it_is_refused() {
    let engine = Engine::start();
    engine.busybox();
    engine.cli(["create", "--name", "base", BUSYBOX, "sleep", "1000"]).ok();
    let change = "HEALTHCHECK --interval=1s --retries=1 CMD test -f /well";
    engine.cli(["commit", "-c", change, "base", "checked"]).ok();
    engine.cli(["run", "-d", "--name", "c1", "checked"]).ok();
    engine
        .cli(["run", "-d", "--name", "c2", "--no-healthcheck", "checked"])
        .ok();
    engine
        .cli(["run", "-d", "--name", "c3", "--health-cmd", "true", "checked"])
        .ok();
    wait_until("it is unhealthy", || status(&engine, "c1") == "unhealthy");
    wait_until("it is healthy", || status(&engine, "c3") == "healthy");
    assert!(engine.inspect("c2")["State"].get("Health").is_none());
    assert_eq!(
        engine
            .cli(["ps", "--filter", "health=none", "--format", "{{.Names}}"])
            .ok(),
        "c2"
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let engine = Engine::start();
    engine.busybox();
    let create = |check: Value| {
        let body = json!({"Image": BUSYBOX, "Cmd": ["true"], "Healthcheck": check});
        let (status, answer) = engine.api("POST", "/containers/create", Some(&body));
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    for (key, value) in [
        ("Interval", 1),
        ("Timeout", -1),
        ("StartPeriod", 999_999),
        ("StartInterval", 1),
    ] {
        let message = format!("{key} in Healthcheck cannot be less than 1ms");
        assert_eq!(create(json!({key: value})), (400, message));
    }
    assert_eq!(
        create(json!({"Retries": -1})),
        (400, "Retries in Healthcheck cannot be negative".into())
    );
    assert_eq!(create(json!({"Test": ["FOO", "x"]})).0, 201);
    let refused = engine.cli(["ps", "--filter", "health=x"]);
    assert!(
        refused.stderr.contains(
            "invalid filter 'health=x': invalid value for health (x): must be one of none, starting, healthy, unhealthy"
        ),
        "{refused:?}"
    );
}

#[test]
fn checks_go_on_while_the_daemon_is_dead() {
    let mut daemon = TestDaemon::start();
    checked(
        &daemon,
        "falls",
        &["--health-cmd", "test ! -f /ill", "--health-retries", "1"],
    );
    checked(
        &daemon,
        "holds",
        &["--health-cmd", "echo x >>/checks", "--health-retries", "1"],
    );
    for name in ["falls", "holds"] {
        wait_until("it is healthy", || status(&daemon, name) == "healthy");
    }
    let root = |name: &str| format!("/proc/{}/root", daemon.pid(name));
    let (ill, checks) = (format!("{}/ill", root("falls")), format!("{}/checks", root("holds")));
    daemon.kill9();
    let count = || std::fs::read_to_string(&checks).unwrap().lines().count();
    let before = count();
    std::fs::write(&ill, "").unwrap();
    wait_until("it is checked without a daemon", || count() >= before + 3);
    daemon.start_again();
    assert_eq!(
        (status(&daemon, "falls"), status(&daemon, "holds")),
        ("unhealthy".into(), "healthy".into())
    );
    let since = "1h";
    // `--until` counts whole seconds, as Docker's.
    std::thread::sleep(Duration::from_millis(1100));
    let events = daemon
        .cli([
            "events",
            "--since",
            since,
            "--until",
            "0s",
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}}",
        ])
        .ok();
    assert!(events.contains("health_status: unhealthy falls"), "{events}");
    assert!(!events.contains("health_status: healthy holds"), "{events}");
    std::fs::remove_file(&ill).unwrap();
    wait_until("it is healthy again", || status(&daemon, "falls") == "healthy");
    // Killed at any moment of a check, twenty times.
    for round in 0..20 {
        daemon.kill9();
        std::thread::sleep(Duration::from_millis(37 * round % 500));
        daemon.start_again();
        assert_eq!(
            (status(&daemon, "falls"), status(&daemon, "holds")),
            ("healthy".into(), "healthy".into())
        );
    }
}

#[test]
fn http_and_tcp_are_checked_without_a_program() {
    let daemon = TestDaemon::start();
    let serve = "mkdir -p /w; echo ok >/w/fine; httpd -p 8080 -h /w; sleep 1000";
    let run = |name: &str, options: &[&str]| {
        daemon.busybox();
        let args = [
            "run",
            "-d",
            "--name",
            name,
            "--health-interval",
            "1s",
            "--health-retries",
            "1",
        ];
        daemon
            .cli(args.iter().chain(options).chain(&[BUSYBOX, "sh", "-c", serve]))
            .ok();
    };
    run("web", &["--health-http", ":8080/fine"]);
    run("lost", &["--health-http", "http://localhost:8080/nothing"]);
    run("port", &["--health-tcp", ":8080"]);
    run("shut", &["--health-tcp", ":81"]);
    run("own", &["--network", "none", "--health-tcp", "localhost:8080"]);
    run("auto", &["--userns", "auto", "--health-http", ":8080/fine"]);
    run("mute", &["--health-http", ":99/", "--health-timeout", "1s"]);
    // Somebody who listens and says nothing.
    daemon
        .cli(["exec", "-d", "mute", "nc", "-l", "-p", "99", "-e", "sleep", "100"])
        .ok();
    for name in ["web", "port", "own", "auto"] {
        wait_until(name, || status(&daemon, name) == "healthy");
    }
    for name in ["lost", "shut", "mute"] {
        wait_until(name, || status(&daemon, name) == "unhealthy");
    }
    assert_eq!(results(&daemon, "web")[0], (0, "HTTP/1.1 200 OK".into()));
    assert_eq!(results(&daemon, "lost")[0], (1, "HTTP/1.1 404 Not Found".into()));
    assert_eq!(results(&daemon, "port")[0], (0, "connected to 127.0.0.1:8080".into()));
    assert_eq!(
        results(&daemon, "shut")[0],
        (1, "connect to 127.0.0.1:81: connection refused".into())
    );
    assert!(
        results(&daemon, "mute")
            .iter()
            .any(|result| *result == (-1, "Health check exceeded timeout (1s)".into())),
        "{:?}",
        results(&daemon, "mute")
    );
    // No process but the container's own.
    let top = daemon.cli(["top", "port", "-o", "pid"]).ok();
    assert_eq!(top.lines().count(), 3, "{top}");
    let refused = daemon.cli(["create", "--health-http", "https://x/", BUSYBOX]);
    assert!(refused.stderr.contains("https is not checked"), "{refused:?}");
}

#[test]
fn an_unhealthy_container_is_restarted_stopped_or_killed() {
    let daemon = TestDaemon::start();
    let unwell = |name: &str, action: &str, more: &[&str]| {
        let mut options = vec![
            "--health-cmd",
            "false",
            "--health-retries",
            "2",
            "--health-on-failure",
            action,
        ];
        options.extend(more);
        checked(&daemon, name, &options);
    };
    unwell("none", "none", &[]);
    unwell("again", "restart", &["--stop-timeout", "0"]);
    unwell("stops", "stop", &["--stop-timeout", "0", "--restart", "always"]);
    unwell("dies", "kill", &[]);
    unwell("lives", "kill", &["--restart", "always"]);
    let began = Instant::now();
    wait_until("it is restarted", || daemon.field("again", "/RestartCount") != "0");
    assert!(began.elapsed() < Duration::from_secs(10));
    wait_until("it is stopped", || daemon.field("stops", "/State/Status") == "exited");
    wait_until("it is killed", || daemon.field("dies", "/State/Status") == "exited");
    assert_eq!(daemon.field("dies", "/State/ExitCode"), "137");
    wait_until("the policy restarts it", || {
        daemon.field("lives", "/RestartCount") != "0"
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.field("stops", "/RestartCount"), "0");
    assert_eq!(
        (daemon.field("none", "/State/Status"), status(&daemon, "none")),
        ("running".into(), "unhealthy".into())
    );
    let events = daemon
        .cli([
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "container=again",
            "--format",
            "{{.Action}}",
        ])
        .ok();
    let place = |what: &str| {
        events
            .lines()
            .position(|line| line == what)
            .unwrap_or_else(|| panic!("{what}: {events}"))
    };
    assert!(
        place("health_status: unhealthy") < place("die") && place("die") < place("restart"),
        "{events}"
    );
}
