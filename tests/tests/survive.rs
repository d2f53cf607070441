//! The daemon may die at any time: containers do not notice, and the next daemon knows them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::signal::KILL;
use ferry_testkit::{Pty, TestDaemon, parent, wait_until};

/// Process id and start time (clock ticks since boot, proc(5) field 22).
fn identity(daemon: &TestDaemon, name: &str) -> (u32, String) {
    let pid = daemon.pid(name);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start = stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().to_owned();
    (pid, start)
}

#[test]
fn twenty_containers_live_through_kill_9() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let network = ["bridge", "none", "host"][n % 3];
        let script = "trap 'exit 138' USR1; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.2; done";
        daemon
            .cli([
                "run",
                "-d",
                "--name",
                name,
                "--network",
                network,
                "-m",
                "64m",
                BUSYBOX,
                "sh",
                "-c",
                script,
            ])
            .ok();
    }
    daemon
        .cli([
            "run",
            "-d",
            "--name",
            "ends",
            BUSYBOX,
            "sh",
            "-c",
            "while [ ! -f /go ]; do sleep 0.05; done; exit 42",
        ])
        .ok();
    daemon
        .cli([
            "run",
            "-d",
            "--rm",
            "--name",
            "ends-rm",
            BUSYBOX,
            "sh",
            "-c",
            "while [ ! -f /go ]; do sleep 0.05; done",
        ])
        .ok();
    let go: Vec<_> = ["ends", "ends-rm"]
        .map(|name| format!("/proc/{}/root/go", daemon.pid(name)))
        .into();
    let before: BTreeMap<_, _> = names
        .iter()
        .map(|name| (name.clone(), identity(&daemon, name)))
        .collect();
    let addresses: Vec<String> = names
        .iter()
        .map(|name| daemon.field(name, "/NetworkSettings/Networks"))
        .collect();

    daemon.kill9();
    for file in &go {
        std::fs::write(file, "").unwrap();
    }
    std::thread::sleep(Duration::from_millis(700));
    for (pid, start) in before.values() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives without a daemon");
        assert!(stat.contains(start.as_str()));
    }
    let started = Instant::now();
    daemon.start_again();
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "adopting took {:?}",
        started.elapsed()
    );

    let after: BTreeMap<_, _> = names
        .iter()
        .map(|name| (name.clone(), identity(&daemon, name)))
        .collect();
    assert_eq!(before, after);
    let kept: Vec<String> = names
        .iter()
        .map(|name| daemon.field(name, "/NetworkSettings/Networks"))
        .collect();
    assert_eq!(addresses, kept);
    wait_until("the one that ended meanwhile is known", || {
        daemon.field("ends", "/State/Running") == "false"
    });
    assert_eq!(daemon.field("ends", "/State/ExitCode"), "42");
    assert_eq!(daemon.cli(["wait", "ends"]).ok(), "42");
    wait_until("--rm is kept", || !daemon.has_container("ends-rm"));

    let follow = daemon.run(["logs", "-f", "--tail", "1", "c0"]).spawn();
    let first = follow.wait_for("line ");
    let number: u32 = first.lines().next().unwrap()["line ".len()..].parse().unwrap();
    follow.wait_for(&format!("line {}\n", number + 2));
    drop(follow);
    let lines = daemon.cli(["logs", "c1"]).ok();
    let numbers: Vec<u32> = lines
        .lines()
        .map(|line| line["line ".len()..].parse().unwrap())
        .collect();
    assert!(
        numbers.windows(2).all(|two| two[1] == two[0] + 1) && numbers[0] == 1,
        "a line of the log is missing: {numbers:?}"
    );
    for name in &names {
        assert_eq!(daemon.cli(["exec", name, "sh", "-c", "exit 5"]).code, 5);
    }
    // c0 is on the bridge.
    let gateway = daemon.field("c0", "/NetworkSettings/Gateway");
    daemon.cli(["exec", "c0", "ping", "-c", "1", "-W", "2", &gateway]).ok();
    daemon.cli(["stop", "-t", "1", "c0"]).ok();
    assert_eq!(daemon.field("c0", "/State/ExitCode"), "137");
    daemon.cli(["kill", "-s", "USR1", "c1"]).ok();
    assert_eq!(daemon.cli(["wait", "c1"]).ok(), "138");
    daemon.cli(["start", "c0"]).ok();
    let new = daemon.sleeper("new", &[]);
    assert_eq!(new.len(), 64);
}

#[test]
fn an_orderly_restart_leaves_them_too() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    daemon.sleeper("paused", &[]);
    daemon.cli(["pause", "paused"]).ok();
    let before = identity(&daemon, "c1");
    daemon.restart();
    assert_eq!(identity(&daemon, "c1"), before);
    assert_eq!(daemon.field("paused", "/State/Status"), "paused");
    daemon.cli(["unpause", "paused"]).ok();
    daemon.cli(["exec", "paused", "true"]).ok();
}

#[test]
fn an_attached_client_keeps_its_stream() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    let mut pty = Pty::spawn(
        &daemon
            .run(["run", "-it", "--name", "c1", "-e", "PS1=ready# ", BUSYBOX, "sh"])
            .into_command(),
    );
    pty.expect("ready# ");
    daemon.kill9();
    pty.send("echo with''out\n");
    pty.expect("without");
    daemon.start_again();
    pty.send("echo with''in\n");
    pty.expect("within");
    assert_eq!(daemon.field("c1", "/State/Running"), "true");
    drop(pty);
}

#[test]
fn killed_again_and_again_it_converges() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.sleeper("steady", &[]);
    let before = identity(&daemon, "steady");
    for round in 0..8u64 {
        let running: Vec<_> = (0..4)
            .map(|n| {
                let name = format!("r{round}-{n}");
                daemon
                    .run(["run", "-d", "--name", &name, BUSYBOX, "sleep", "1000"])
                    .spawn()
            })
            .collect();
        std::thread::sleep(Duration::from_millis(3 + round * 17));
        daemon.kill9();
        drop(running);
        daemon.start_again();
        let list = daemon.cli(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
        for line in list.lines() {
            let (name, state) = line.split_once(' ').unwrap();
            match state {
                "running" => daemon.cli(["exec", name, "true"]).ok(),
                "created" | "exited" => daemon.cli(["start", name]).ok(),
                other => panic!("{name} is {other}"),
            };
            if name != "steady" {
                daemon.cli(["rm", "-f", name]).ok();
            }
        }
    }
    assert_eq!(identity(&daemon, "steady"), before);
}

#[test]
fn a_shim_that_dies_takes_its_container_with_it() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    daemon.sleeper("other", &[]);
    let pid = daemon.pid("c1");
    let shim = parent(pid);
    assert_ne!(shim, daemon.engine_pid(), "the daemon is the parent");
    ferry_testkit::Run::new("kill").args(["-9", &shim.to_string()]).ok();
    wait_until("the container is known to be gone", || {
        daemon.field("c1", "/State/Running") == "false"
    });
    assert_eq!(daemon.field("c1", "/State/ExitCode"), "137");
    // Whoever inherits it may not have reaped it yet.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(
        status.is_empty() || status.contains("State:\tZ"),
        "its process runs on: {status}"
    );
    daemon.cli(["exec", "other", "true"]).ok();
    daemon.cli(["start", "c1"]).ok();
    daemon.cli(["exec", "c1", "true"]).ok();
}

#[test]
fn nobody_waits_for_a_shim_that_hangs() {
    let daemon = TestDaemon::start();
    daemon.sleeper("hung", &[]);
    daemon.sleeper("c1", &[]);
    let shim = parent(daemon.pid("hung")).to_string();
    ferry_testkit::Run::new("kill").args(["-STOP", &shim]).ok();
    let waiting = daemon.run(["exec", "hung", "true"]).spawn();
    let started = Instant::now();
    daemon.cli(["ps"]).ok();
    daemon.cli(["exec", "c1", "true"]).ok();
    daemon.cli(["inspect", "hung"]).ok();
    let took = started.elapsed();
    ferry_testkit::Run::new("kill").args(["-CONT", &shim]).ok();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(waiting.finish().code, 0);
}

#[test]
fn a_killed_client_does_not_end_the_daemon() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    for wait in [0, 1, 3, 10, 30] {
        let run = daemon.run(["run", "--rm", BUSYBOX, "sleep", "0.1"]).spawn();
        std::thread::sleep(Duration::from_millis(wait));
        run.signal(KILL);
    }
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    wait_until("all of them go", || {
        daemon.cli(["ps", "-aq", "-f", "status=running"]).ok().is_empty()
    });
}
