//! `attach`, `start -a` and `start -i`.

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::signal::{INT, TERM};
use ferry_testkit::{Engine, wait_until};

#[test]
fn attached_clients_see_output_and_the_exit_code() {
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
            "while [ ! -f /go ]; do sleep 0.05; done; echo seen; echo err >&2; exit 6",
        ])
        .ok();
    let first = engine.run(["attach", "c1"]).spawn();
    let second = engine.run(["attach", "--no-stdin", "c1"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(400));
    engine.cli(["exec", "c1", "touch", "/go"]).ok();
    for attached in [first, second] {
        let output = attached.finish();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str(), output.code),
            ("seen\n", "err\n", 6)
        );
    }
}

#[test]
fn input_goes_to_the_process_and_its_end_too() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "-i",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "while read line; do echo got $line; done; echo closed",
        ])
        .ok();
    let mut attached = engine.run(["attach", "c1"]).open_stdin().spawn();
    attached.send("one\n");
    attached.wait_for("got one");
    attached.send("two\n");
    attached.wait_for("got two");
    attached.close_stdin();
    // `run -i -d` has StdinOnce off: the end of one client's input is not the end of the container's.
    let stays = engine.field("c1", "/State/Running") == "true";
    assert!(stays);
    drop(attached);
    engine.cli(["rm", "-f", "c1"]).ok();
}

#[test]
fn run_i_ends_with_its_input() {
    let engine = Engine::start();
    engine.busybox();
    let mut run = engine
        .run([
            "run",
            "--rm",
            "-i",
            BUSYBOX,
            "sh",
            "-c",
            "while read line; do echo got $line; done; echo closed",
        ])
        .open_stdin()
        .spawn();
    run.send("one\n");
    run.wait_for("got one");
    run.close_stdin();
    let output = run.finish();
    assert_eq!((output.stdout.as_str(), output.code), ("got one\nclosed\n", 0));
}

#[test]
fn start_attached_prints_and_returns_the_code() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli(["create", "--name", "c1", BUSYBOX, "sh", "-c", "echo from start; exit 8"])
        .ok();
    let output = engine.cli(["start", "-a", "c1"]);
    assert_eq!((output.stdout.as_str(), output.code), ("from start\n", 8));
    engine.cli(["create", "-i", "--name", "d1", BUSYBOX, "cat"]).ok();
    assert_eq!(engine.run(["start", "-a", "-i", "d1"]).input("through").ok(), "through");
}

#[test]
fn signals_of_the_client_reach_the_process() {
    let engine = Engine::start();
    engine.busybox();
    let script = "trap 'echo term; exit 21' TERM; trap 'echo int' INT; echo ready; while true; do sleep 0.05; done";
    let run = engine.run(["run", "--name", "c1", BUSYBOX, "sh", "-c", script]).spawn();
    run.wait_for("ready");
    run.signal(INT);
    run.wait_for("int");
    run.signal(TERM);
    let output = run.finish();
    assert_eq!((output.stdout.as_str(), output.code), ("ready\nint\nterm\n", 21));
}

#[test]
fn without_sig_proxy_only_the_client_ends() {
    let engine = Engine::start();
    engine.sleeper("c1", &[]);
    let attached = engine.run(["attach", "--sig-proxy=false", "c1"]).spawn();
    std::thread::sleep(std::time::Duration::from_millis(300));
    attached.signal(TERM);
    drop(attached);
    assert_eq!(engine.field("c1", "/State/Running"), "true");
}

#[test]
fn a_killed_client_leaves_the_container_running() {
    let engine = Engine::start();
    engine.busybox();
    let run = engine
        .run([
            "run",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "echo ready; n=0; while true; do n=$((n+1)); echo $n; sleep 0.05; done",
        ])
        .spawn();
    run.wait_for("ready");
    drop(run);
    let before = engine.cli(["logs", "c1"]).stdout.lines().count();
    wait_until("the log grows on", || {
        engine.cli(["logs", "c1"]).stdout.lines().count() > before + 3
    });
}

#[test]
fn attaching_to_what_does_not_run_is_refused() {
    let engine = Engine::start();
    engine.busybox();
    engine.cli(["create", "--name", "c1", BUSYBOX]).ok();
    let message = engine.cli(["attach", "c1"]).fails(1);
    assert_eq!(message, "You cannot attach to a stopped container, start it first");
    engine.sleeper("p1", &[]);
    engine.cli(["pause", "p1"]).ok();
    let message = engine.cli(["attach", "p1"]).fails(1);
    assert_eq!(message, "You cannot attach to a paused container, unpause it first");
    engine.cli(["unpause", "p1"]).ok();
}
