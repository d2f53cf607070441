//! `exec`: another process in a container that runs.

use std::time::Duration;

use ferry_testkit::{Engine, wait_until};

#[test]
fn exit_codes_and_both_streams_come_back() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let output = engine.cli(["exec", "c1", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str(), output.code),
        ("out\n", "err\n", 5)
    );
    assert_eq!(engine.cli(["exec", "c1", "true"]).code, 0);
    assert_eq!(engine.cli(["exec", "c1", "sh", "-c", "kill -9 $$"]).code, 137);
}

#[test]
fn a_command_that_is_not_there_or_not_executable_is_127_or_126() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let missing = engine.cli(["exec", "c1", "nope"]);
    assert!(
        missing.stdout.contains("executable file not found in $PATH")
            || missing.stderr.contains("executable file not found in $PATH"),
        "{missing:?}"
    );
    assert_eq!(missing.code, 127);
    let denied = engine.cli(["exec", "c1", "/etc/passwd"]);
    assert!(format!("{denied:?}").contains("permission denied"), "{denied:?}");
    assert_eq!(denied.code, 126);
}

#[test]
fn environment_user_and_directory_are_its_own() {
    let engine = Engine::start();
    engine.sleeper("c1", &["-e", "A=container", "-w", "/tmp"]);
    let exec = |args: &[&str]| engine.cli(["exec"].iter().chain(args)).ok();
    assert_eq!(
        exec(&["-e", "B=exec", "c1", "sh", "-c", "echo $A $B; pwd"]),
        "container exec\n/tmp"
    );
    assert_eq!(
        exec(&["-e", "A=mine", "-w", "/etc", "c1", "sh", "-c", "echo $A; pwd"]),
        "mine\n/etc"
    );
    assert_eq!(
        exec(&[
            "-u",
            "app",
            "c1",
            "sh",
            "-c",
            "id -un; echo $HOME; grep CapEff /proc/self/status"
        ]),
        "app\n/home/app\nCapEff:\t0000000000000000"
    );
    assert_eq!(exec(&["-u", "7:8", "c1", "id"]), "uid=7 gid=8 groups=8");
}

#[test]
fn it_is_confined_as_the_container_is() {
    let engine = Engine::start();
    engine.sleeper(
        "c1",
        &[
            "--cap-drop",
            "CHOWN",
            "--security-opt",
            "no-new-privileges",
            "--pids-limit",
            "50",
        ],
    );
    let script = "grep -E '^(Cap|NoNew|Seccomp:)' /proc/PID/status; for n in pid net mnt ipc uts cgroup; do readlink /proc/PID/ns/$n; done; cat /proc/PID/cgroup";
    let init = engine.cli(["exec", "c1", "sh", "-c", &script.replace("PID", "1")]).ok();
    let exec = engine
        .cli(["exec", "c1", "sh", "-c", &script.replace("PID", "self")])
        .ok();
    assert_eq!(init, exec);
}

#[test]
fn standard_input_reaches_it() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let counted = engine
        .run(["exec", "-i", "c1", "wc", "-c"])
        .input("x".repeat(1_000_000))
        .ok();
    assert_eq!(counted, "1000000");
}

#[test]
fn detached_it_runs_on_alone() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let output = engine
        .cli(["exec", "-d", "c1", "sh", "-c", "sleep 0.1; echo done > /tmp/done"])
        .ok();
    assert_eq!(output, "");
    wait_until("the detached command has run", || {
        engine.cli(["exec", "c1", "cat", "/tmp/done"]).code == 0
    });
}

#[test]
fn many_at_once_do_not_mix() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let running: Vec<_> = (0..20)
        .map(|n| {
            engine
                .run(["exec", "c1", "sh", "-c", &format!("sleep 0.1; echo {n}; exit {n}")])
                .spawn()
        })
        .collect();
    for (n, exec) in running.into_iter().enumerate() {
        let output = exec.finish();
        assert_eq!(
            (output.stdout.trim(), output.code),
            (n.to_string().as_str(), i32::try_from(n).unwrap())
        );
    }
}

#[test]
fn it_ends_with_the_container() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let exec = engine.run(["exec", "c1", "sh", "-c", "echo in; sleep 1000"]).spawn();
    exec.wait_for("in");
    engine.cli(["kill", "c1"]).ok();
    assert_eq!(exec.finish().code, 137);
}

#[test]
fn a_container_that_does_not_run_or_is_paused_takes_none() {
    let engine = Engine::start();
    engine.busybox();
    let id = engine
        .cli([
            "create",
            "--name",
            "c1",
            ferry_testkit::images::BUSYBOX,
            "sleep",
            "1000",
        ])
        .ok();
    let message = engine.cli(["exec", "c1", "true"]).fails(1);
    assert_eq!(
        message,
        format!("Error response from daemon: container {id} is not running")
    );
    engine.cli(["start", "c1"]).ok();
    engine.cli(["pause", "c1"]).ok();
    let message = engine.cli(["exec", "c1", "true"]).fails(1);
    assert_eq!(
        message,
        "Error response from daemon: Container c1 is paused, unpause the container before exec"
    );
    engine.cli(["unpause", "c1"]).ok();
    engine.cli(["exec", "c1", "true"]).ok();
}

#[test]
fn the_api_tells_about_one() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let body = serde_json::json!({"Cmd": ["sh", "-c", "exit 4"], "AttachStdout": true});
    let (status, answer) = engine.api("POST", "/v1.51/containers/c1/exec", Some(&body));
    assert_eq!(status, 201, "{answer}");
    let id = answer["Id"].as_str().unwrap().to_owned();
    let (status, before) = engine.api("GET", &format!("/v1.51/exec/{id}/json"), None);
    assert_eq!(
        (status, &before["Running"], &before["ExitCode"]),
        (200, &false.into(), &serde_json::Value::Null)
    );
    let (status, _) = engine.api(
        "POST",
        &format!("/v1.51/exec/{id}/start"),
        Some(&serde_json::json!({"Detach": true})),
    );
    assert_eq!(status, 200);
    wait_until("the exec has ended", || {
        engine.api("GET", &format!("/v1.51/exec/{id}/json"), None).1["ExitCode"] == 4
    });
    let (status, answer) = engine.api(
        "POST",
        &format!("/v1.51/exec/{id}/start"),
        Some(&serde_json::json!({"Detach": true})),
    );
    assert_eq!(
        (status, answer["message"].as_str().unwrap()),
        (409, format!("exec command {id} has already run").as_str())
    );
    let (status, answer) = engine.api("GET", "/v1.51/exec/nope/json", None);
    assert_eq!(
        (status, answer["message"].as_str().unwrap()),
        (404, "No such exec instance: nope")
    );
}

#[test]
fn a_client_that_goes_away_leaves_the_container_alone() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let exec = engine
        .run(["exec", "-i", "c1", "sh", "-c", "echo in; sleep 1000"])
        .open_stdin()
        .time(Duration::from_secs(5))
        .spawn();
    exec.wait_for("in");
    drop(exec);
    engine.cli(["exec", "c1", "true"]).ok();
    assert_eq!(engine.field("c1", "/State/Running"), "true");
}

/// What the start says of the terminal is how its output comes, as with Docker; docker-py says nothing.
#[test]
fn output_is_framed_as_the_start_asks() {
    let engine = Engine::start();
    engine.busybox();
    engine.sleeper("c1", &[]);
    for (terminal, told) in [(true, false), (true, true), (false, false), (false, true)] {
        let create = serde_json::json!({"Cmd": ["printf", "hello"], "Tty": terminal, "AttachStdout": true});
        let (_, created) = engine.api("POST", "/containers/c1/exec", Some(&create));
        let output = std::process::Command::new("curl")
            .args(["-s", "-H", "Content-Type: application/json", "--unix-socket"])
            .arg(engine.socket())
            .args(["-d", &format!("{{\"Tty\":{told}}}")])
            .arg(format!("http://d/exec/{}/start", created["Id"].as_str().unwrap()))
            .output()
            .unwrap();
        let expected: &[u8] = if told { b"hello" } else { b"\x01\0\0\0\0\0\0\x05hello" };
        assert_eq!(output.stdout, expected, "a terminal: {terminal}, told: {told}");
    }
}
