//! `logs`: what a container printed, then and now.

use ferry_testkit::Engine;
use ferry_testkit::images::BUSYBOX;

fn printed(engine: &Engine, script: &str) {
    engine.busybox();
    engine.cli(["run", "--name", "c1", BUSYBOX, "sh", "-c", script]).ok();
}

#[test]
fn both_streams_are_kept_apart() {
    let engine = Engine::start();
    printed(&engine, "echo one; echo two >&2; printf 'no end'");
    let output = engine.cli(["logs", "c1"]);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("one\nno end", "two\n")
    );
}

#[test]
fn tail_since_until_and_timestamps_select() {
    let engine = Engine::start();
    printed(&engine, "for n in 1 2 3 4 5; do echo $n; done; sleep 1.2; echo late");
    let logs = |args: &[&str]| engine.cli(["logs"].iter().chain(args).chain(["c1"].iter())).ok();
    assert_eq!(logs(&["--tail", "2"]), "5\nlate");
    assert_eq!(logs(&["-n", "0"]), "");
    assert_eq!(logs(&["--tail", "all"]).lines().count(), 6);
    let stamped = logs(&["-t"]);
    let (stamp, text) = stamped.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(
        (text, stamp.len(), stamp.ends_with('Z'), &stamp[10..11]),
        ("late", 30, true, "T"),
        "{stamped}"
    );
    assert_eq!(logs(&["--since", stamp]), "late");
    assert_eq!(logs(&["--until", stamp]).lines().count(), 6);
    assert_eq!(logs(&["--since", "2999-01-01"]), "");
    assert_eq!(logs(&["--since", "10m"]).lines().count(), 6);
}

#[test]
fn following_shows_what_comes_and_ends_with_the_container() {
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
            "echo early; while [ ! -f /go ]; do sleep 0.05; done; echo late",
        ])
        .ok();
    let follow = engine.run(["logs", "-f", "c1"]).spawn();
    follow.wait_for("early");
    engine.cli(["exec", "c1", "touch", "/go"]).ok();
    let output = follow.finish();
    assert_eq!((output.stdout.as_str(), output.code), ("early\nlate\n", 0));
}

#[test]
fn following_from_the_end_shows_only_what_is_new() {
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
            "echo early; while [ ! -f /go ]; do sleep 0.05; done; echo late",
        ])
        .ok();
    ferry_testkit::wait_until("the first line is there", || {
        engine.cli(["logs", "c1"]).stdout == "early\n"
    });
    let follow = engine.run(["logs", "-f", "--tail", "0", "c1"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(300));
    engine.cli(["exec", "c1", "touch", "/go"]).ok();
    assert_eq!(follow.finish().stdout, "late\n");
}

#[test]
fn long_lines_and_odd_bytes_are_not_changed() {
    let engine = Engine::start();
    printed(
        &engine,
        r#"head -c 100000 /dev/zero | tr '\0' a; echo; printf 'tab\t"quote" back\\slash \033[1m <&> \303\274\n'"#,
    );
    let output = engine.cli(["logs", "c1"]).stdout;
    let (long, odd) = output.split_once('\n').unwrap();
    assert_eq!(
        (long.len(), odd),
        (100_000, "tab\t\"quote\" back\\slash \u{1b}[1m <&> ü\n")
    );
}

#[test]
fn a_second_run_of_the_container_adds_to_the_log() {
    let engine = Engine::start();
    printed(&engine, "echo again");
    engine.cli(["start", "-a", "c1"]).ok();
    assert_eq!(engine.cli(["logs", "c1"]).ok(), "again\nagain");
}

#[test]
fn a_terminal_has_one_stream_with_carriage_returns() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "-t",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "echo out; echo err >&2",
        ])
        .ok();
    engine.cli(["wait", "c1"]).ok();
    let output = engine.cli(["logs", "c1"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\r\nerr\r\n", ""));
}

#[test]
fn the_log_file_is_docker_s_json() {
    let engine = Engine::start();
    if !engine.is_ferry() {
        return;
    }
    printed(&engine, "echo one; echo two >&2");
    let path = engine.field("c1", "/LogPath");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["log"], &lines[0]["stream"]),
        (&"one\n".into(), &"stdout".into())
    );
    assert_eq!(
        (&lines[1]["log"], &lines[1]["stream"]),
        (&"two\n".into(), &"stderr".into())
    );
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    assert!(
        text.starts_with(r#"{"log":"one\n","stream":"stdout","time":""#),
        "{text}"
    );
}

/// Numbers 1 to `last`, one a line, and nothing else.
fn counts_to(text: &str, last: usize) -> Result<(), String> {
    let mut lines = text.lines();
    for number in 1..=last {
        let line = lines.next().unwrap_or("the end");
        if line != number.to_string() {
            return Err(format!("{line} where {number} should be"));
        }
    }
    lines
        .next()
        .map_or(Ok(()), |line| Err(format!("{line} after the last")))
}

#[test]
fn following_misses_nothing_however_often_the_log_is_rotated() {
    let engine = Engine::start();
    engine.busybox();
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=1000"];
    let script = "sleep 1; seq 1 10000; sleep 1; seq 10001 20000";
    let run = ["run", "-d", "--name", "c1"].into_iter().chain(options);
    engine.cli(run.chain([BUSYBOX, "sh", "-c", script])).ok();
    let follower = engine.run(["logs", "-f", "c1"]).spawn();
    let followed = follower.finish().ok();
    assert_eq!(counts_to(&followed, 20_000), Ok(()));
    assert_eq!(counts_to(&engine.cli(["logs", "c1"]).ok(), 20_000), Ok(()));
}
