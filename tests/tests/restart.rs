//! Restart policies, waits across restarts, and the order in which containers come back.

use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Client, Engine, TestDaemon, wait_until};
use serde_json::json;

fn ends(client: &Client, name: &str, policy: &str, script: &str) {
    client.busybox();
    client
        .cli([
            "run",
            "-d",
            "--name",
            name,
            "--restart",
            policy,
            BUSYBOX,
            "sh",
            "-c",
            script,
        ])
        .ok();
}

fn actions(client: &Client, name: &str) -> Vec<String> {
    // `--until` counts whole seconds, as Docker's.
    std::thread::sleep(Duration::from_millis(1100));
    let filter = format!("container={name}");
    let events = client
        .cli([
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            &filter,
            "--format",
            "{{.Action}}",
        ])
        .ok();
    events.lines().map(str::to_owned).collect()
}

#[test]
fn a_restart_is_counted_when_it_is_decided_and_tries_end() {
    let engine = Engine::start();
    ends(&engine, "c1", "on-failure:2", "exit 3");
    wait_until("the tries are used up", || {
        engine.field("c1", "/State/Status") == "exited" && engine.field("c1", "/RestartCount") == "2"
    });
    assert_eq!(engine.field("c1", "/State/ExitCode"), "3");
    // Docker cannot update what is just being started, so it runs for a while.
    ends(&engine, "c2", "on-failure", "sleep 1");
    wait_until("it has ended", || engine.field("c2", "/State/Status") == "exited");
    assert_eq!(engine.field("c2", "/RestartCount"), "0");
    // An update of what has ended starts nothing; the next end sees it.
    engine.cli(["update", "--restart", "always", "c2"]).ok();
    assert_eq!(engine.field("c2", "/State/Status"), "exited");
    engine.cli(["start", "c2"]).ok();
    wait_until("it is restarted", || engine.field("c2", "/RestartCount") != "0");
    engine.cli(["update", "--restart", "no", "c2"]).ok();
    wait_until("it stays ended", || engine.field("c2", "/State/Status") == "exited");
}

#[test]
fn a_stop_in_the_back_off_is_a_stop() {
    let engine = Engine::start();
    ends(&engine, "c1", "always", "exit 3");
    wait_until("it is in a long back-off", || {
        engine.field("c1", "/RestartCount") == "6" && engine.field("c1", "/State/Status") == "restarting"
    });
    assert_eq!(engine.api("POST", "/containers/c1/pause", None).0, 409);
    assert_eq!(engine.api("POST", "/containers/c1/start", None).0, 304);
    assert_eq!(engine.api("POST", "/containers/c1/stop", None).0, 204);
    assert_eq!(engine.field("c1", "/State/Status"), "exited");
    assert_eq!(engine.api("POST", "/containers/c1/stop", None).0, 304);
    assert_eq!(actions(&engine, "c1").last().map(String::as_str), Some("stop"));
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(
        (engine.field("c1", "/State/Status"), engine.field("c1", "/RestartCount")),
        ("exited".into(), "6".into())
    );
    engine.cli(["start", "c1"]).ok();
    wait_until("it is in a long back-off", || {
        engine.field("c1", "/RestartCount") == "6" && engine.field("c1", "/State/Status") == "restarting"
    });
    assert_eq!(engine.api("POST", "/containers/c1/kill", None).0, 204);
    assert_eq!(engine.field("c1", "/State/Status"), "exited");
}

#[test]
fn the_back_off_doubles() {
    let engine = Engine::start();
    let began = Instant::now();
    ends(&engine, "c1", "always", "exit 1");
    // 100 + 200 + 400 + 800 ms lie before the fifth exit.
    wait_until("it is restarted five times", || {
        engine.field("c1", "/RestartCount") == "5"
    });
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_secs(6),
        "{took:?}"
    );
}

#[test]
fn a_wait_gets_the_exit_although_the_next_run_has_begun() {
    let engine = Engine::start();
    ends(&engine, "c1", "always", "sleep 1; exit 4");
    for condition in ["not-running", "next-exit", ""] {
        let (status, answer) = engine.api("POST", &format!("/containers/c1/wait?condition={condition}"), None);
        assert_eq!((status, &answer["StatusCode"]), (200, &json!(4)), "{condition}");
    }
    engine.cli(["create", "--name", "bad", BUSYBOX, "nope"]).ok();
    let wait = || engine.api("POST", "/containers/bad/wait", None).1;
    assert_eq!(wait(), json!({"StatusCode": 0}));
    engine.cli(["start", "bad"]).fails(1);
    let answer = wait();
    assert_eq!(answer["StatusCode"], 127);
    let message = answer["Error"]["Message"].as_str().unwrap();
    assert!(message.contains("executable file not found in $PATH"), "{message}");
    assert_eq!(engine.api("POST", "/containers/bad/wait?condition=foo", None).0, 400);
}

#[test]
fn policies_and_updates_that_make_no_sense_are_refused() {
    let engine = Engine::start();
    engine.sleeper("c1", &["--rm", "--cpus", "0.5", "-m", "64m", "--memory-swap", "128m"]);
    let update = |body: serde_json::Value| {
        let (status, answer) = engine.api("POST", "/containers/c1/update", Some(&body));
        let message = answer["message"].as_str().unwrap_or_default();
        (
            status,
            message
                .rsplit_once("Cannot update container ")
                .map_or(message.to_owned(), |(_, rest)| rest[66..].to_owned()),
        )
    };
    let conflict = |text: &str| (409, text.to_owned());
    assert_eq!(
        update(json!({"RestartPolicy": {"Name": "always"}})),
        conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
    );
    assert_eq!(
        update(json!({"CpuPeriod": 50_000})),
        conflict("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
    );
    assert_eq!(
        update(json!({"Memory": 268_435_456})),
        conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    );
    assert_eq!(update(json!({"NanoCpus": 700_000_000})).0, 200);
    let create = |policy: serde_json::Value| {
        let body = json!({"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": {"RestartPolicy": policy}});
        let (status, answer) = engine.api("POST", "/containers/create", Some(&body));
        assert_eq!(status, 400, "{body}");
        answer["message"].as_str().unwrap().to_owned()
    };
    let only = "invalid restart policy: maximum retry count can only be used with 'on-failure'";
    for name in ["always", "no", ""] {
        assert_eq!(create(json!({"Name": name, "MaximumRetryCount": 2})), only);
    }
    assert_eq!(
        create(json!({"Name": "unless-stopped", "MaximumRetryCount": -1})),
        format!("{only} and cannot be negative")
    );
}

#[test]
fn containers_come_back_in_composes_order() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let labels = |service: &str, depends: &str| {
        [
            "com.docker.compose.project=p".to_owned(),
            format!("com.docker.compose.service={service}"),
            format!("com.docker.compose.depends_on={depends}"),
        ]
    };
    let run = |name: &str, depends: &str, more: &[&str]| {
        let labels = labels(name, depends);
        let mut args = vec!["run", "-d", "--name", name, "--restart", "always"];
        args.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        args.extend(more);
        args.extend([BUSYBOX, "sleep", "1000"]);
        daemon.cli(args).ok();
    };
    // By name they would come in another order.
    run("app", "db:service_healthy:true,ring:service_started:false", &[]);
    run("db", "", &["--health-cmd", "true", "--health-interval", "1s"]);
    run("ring", "loop:service_started:false", &[]);
    run("loop", "ring:service_started:false", &[]);
    let pids = ["app", "db", "ring", "loop"].map(|name| daemon.pid(name));
    daemon.kill9();
    // As after a reboot: nothing runs.
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    daemon.start_again();
    for name in ["db", "ring", "loop", "app"] {
        wait_until(name, || daemon.field(name, "/State/Status") == "running");
    }
    let healthy_at = daemon.inspect("db")["State"]["Health"]["Log"][0]["End"].clone();
    let started = daemon.field("app", "/State/StartedAt");
    assert!(
        started.as_str() >= healthy_at.as_str().unwrap(),
        "{started} {healthy_at}"
    );
    for name in ["app", "db", "ring", "loop"] {
        assert_eq!(daemon.field(name, "/RestartCount"), "0");
    }
}
