//! The daemon, a shim, a helper: killed or stopped at every step of what they do. What is found afterwards is what there is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ferry_testkit::images::{self, BUSYBOX, Image, Layer};
use ferry_testkit::signal::{CONT, KILL, STOP};
use ferry_testkit::{TestDaemon, parent, siege, wait_for_none, wait_until};
use serde_json::json;

/// Processes started by the daemon: shims, the spare one and helpers among them.
fn children(daemon: &TestDaemon) -> BTreeSet<u32> {
    let engine = daemon.engine_pid();
    let threads = std::fs::read_dir(format!("/proc/{engine}/task")).unwrap();
    let of =
        |thread: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(thread.ok()?.path().join("children")).ok();
    let lists: Vec<String> = threads.filter_map(of).collect();
    lists
        .iter()
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()))
        .collect()
}

fn signal(pid: u32, signal: ferry_testkit::signal::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The shims that have no container: the one that waits for the next.
fn spare(daemon: &TestDaemon, containers: &[&str]) -> BTreeSet<u32> {
    let taken: BTreeSet<u32> = containers.iter().map(|name| parent(daemon.pid(name))).collect();
    children(daemon).difference(&taken).copied().collect()
}

/// An image with a megabyte where it has a volume.
fn with_volume() -> Image {
    let mut layer = Layer::new().dir("data", 0o755);
    for number in 0..64 {
        layer = layer.file(&format!("data/f{number}"), &images::noise(16 << 10), 0o644);
    }
    Image::new("data:1", vec![images::busybox_tar(), layer.finish()]).config("Volumes", json!({"/data": {}}))
}

/// Everything that exists is a container's that works, and then nothing is left.
fn is_sound(daemon: &TestDaemon, steady: &str) {
    let begin = Instant::now();
    let list = daemon.cli(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok();
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "ps took {:?}",
        begin.elapsed()
    );
    for (name, state) in list.lines().map(|line| line.split_once(' ').unwrap()) {
        match state {
            "running" => daemon.cli(["exec", name, "true"]).ok(),
            "created" | "exited" => daemon.cli(["start", name]).ok(),
            other => panic!("{name} is {other}"),
        };
        if name != steady {
            daemon.cli(["rm", "-f", "-v", name]).ok();
        }
    }
    wait_for_none("what belongs to no container", || daemon.ghosts());
}

/// Each verb with what has to be there before, by name `x1`.
const VERBS: [(&str, &[&str], &[&str]); 8] = [
    ("create", &[], &["create", "--name", "x1", BUSYBOX, "sleep", "1000"]),
    (
        "fill",
        &[],
        &["create", "--name", "x1", "-v", "v1:/data", "data:1", "sleep", "1000"],
    ),
    ("run", &[], &["run", "-d", "--name", "x1", BUSYBOX, "sleep", "1000"]),
    (
        "mount",
        &[],
        &["run", "-d", "--name", "x1", "-v", "mem:/m", BUSYBOX, "sleep", "1000"],
    ),
    (
        "exec",
        &["run", "-d", "--name", "x1", BUSYBOX, "sleep", "1000"],
        &["exec", "x1", "sh", "-c", "sleep 0.02"],
    ),
    (
        "stop",
        &["run", "-d", "--name", "x1", BUSYBOX, "sleep", "1000"],
        &["stop", "-t", "0", "x1"],
    ),
    (
        "rm",
        &[
            "run",
            "-d",
            "--name",
            "x1",
            "-v",
            "/anonymous",
            BUSYBOX,
            "sleep",
            "1000",
        ],
        &["rm", "-f", "-v", "x1"],
    ),
    ("volume", &[], &["volume", "create", "made"]),
];

#[test]
fn a_daemon_that_is_killed_at_any_moment_of_any_verb_leaves_no_ghost() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.load(&images::docker_archive(&[with_volume()]));
    let mem = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    daemon
        .cli(["volume", "create"].into_iter().chain(mem).chain(["mem"]))
        .ok();
    daemon.sleeper("steady", &[]);
    let steady = daemon.pid("steady");
    for (verb, before, line) in VERBS {
        for step in 0..6 {
            if !before.is_empty() {
                daemon.cli(before).ok();
            }
            let client = daemon.run(line).spawn();
            // The command line takes 2 ms to ask, and most is done 10 ms later.
            std::thread::sleep(Duration::from_micros(1500 + step * 2300));
            daemon.kill9();
            drop(client);
            daemon.start_again();
            is_sound(&daemon, "steady");
            assert_eq!(daemon.pid("steady"), steady, "{verb} {step}");
            // Full or not there, never between: what is filled next is whole.
            if verb == "fill" {
                let count = [
                    "run",
                    "--rm",
                    "-v",
                    "v1:/data",
                    "data:1",
                    "sh",
                    "-c",
                    "ls /data | wc -l",
                ];
                assert_eq!(daemon.cli(count).ok(), "64", "{step}");
                daemon.cli(["volume", "rm", "v1"]).ok();
            }
        }
    }
    let volumes = daemon.cli(["volume", "ls", "-q"]).ok();
    let named = |name: &str| ["made", "mem"].contains(&name);
    assert!(volumes.lines().all(named), "an anonymous volume was left: {volumes}");
}

#[test]
fn a_daemon_that_is_stopped_goes_on_where_it_was() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.load(&images::docker_archive(&[with_volume()]));
    daemon.cli(["volume", "create", "mem"]).ok();
    daemon.sleeper("steady", &[]);
    for (verb, before, line) in VERBS {
        if !before.is_empty() {
            daemon.cli(before).ok();
        }
        let client = daemon.run(line).spawn();
        std::thread::sleep(Duration::from_millis(4));
        signal(daemon.engine_pid(), STOP);
        std::thread::sleep(Duration::from_millis(100));
        signal(daemon.engine_pid(), CONT);
        let done = client.finish();
        assert_eq!(done.code, 0, "{verb}: {}", done.stderr);
        is_sound(&daemon, "steady");
        if verb == "fill" {
            daemon.cli(["volume", "rm", "v1"]).ok();
        }
    }
    daemon.restart();
}

#[test]
fn a_shim_that_is_killed_in_a_start_leaves_nothing_of_it() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.sleeper("steady", &[]);
    let steady = daemon.pid("steady");
    let mut failed = 0;
    for step in 0..24 {
        wait_until("a shim waits", || !spare(&daemon, &["steady"]).is_empty());
        let shims = spare(&daemon, &["steady"]);
        daemon.cli(["create", "--name", "x1", BUSYBOX, "sleep", "1000"]).ok();
        let client = daemon.run(["start", "x1"]).spawn();
        std::thread::sleep(Duration::from_micros(1000 + step * 500));
        shims.iter().for_each(|pid| signal(*pid, KILL));
        let done = client.finish();
        failed += u32::from(done.code != 0);
        let mut lives = false;
        wait_until(
            "the end is known, or nothing ran, or another shim took the place of one that was dead before",
            || {
                let running = daemon.field("x1", "/State/Running") == "true";
                lives = running && children(&daemon).contains(&parent(daemon.pid("x1")));
                lives || !running
            },
        );
        if lives {
            daemon.cli(["rm", "-f", "x1"]).ok();
            continue;
        }
        wait_for_none("what belongs to no container", || daemon.ghosts());
        if done.code == 0 {
            assert_eq!(daemon.field("x1", "/State/ExitCode"), "137");
            assert!(daemon.field("x1", "/State/Error").contains("supervisor"), "by name");
        } else {
            assert!(done.stderr.contains("supervisor"), "{}", done.stderr);
        }
        daemon.cli(["start", "x1"]).ok();
        daemon.cli(["exec", "x1", "true"]).ok();
        daemon.cli(["rm", "-f", "x1"]).ok();
        assert_eq!(daemon.pid("steady"), steady);
    }
    assert!(
        failed > 0,
        "no kill came before the container ran: the steps are too late"
    );
}

#[test]
fn a_shim_that_is_killed_while_it_waits_is_missed_by_nobody() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon.sh(&[], "true");
    wait_until("a shim waits", || !children(&daemon).is_empty());
    for pid in children(&daemon) {
        signal(pid, KILL);
        wait_until("it is gone", || !children(&daemon).contains(&pid));
    }
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
}

#[test]
fn a_shim_that_dies_is_restarted_by_policy_and_waited_for_by_nobody() {
    let daemon = TestDaemon::start();
    daemon.sleeper("always", &["--restart", "always"]);
    daemon.sleeper("other", &[]);
    let (first, other) = (daemon.pid("always"), daemon.pid("other"));
    let waiting = daemon.run(["exec", "always", "sleep", "1000"]).spawn();
    wait_until("the exec runs", || daemon.inspect("always")["ExecIDs"].is_array());
    let begin = Instant::now();
    signal(parent(first), KILL);
    wait_until("it runs again", || {
        let pid = daemon.pid("always");
        pid != 0 && pid != first
    });
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_ne!(waiting.finish().code, 0);
    assert_eq!(daemon.field("always", "/RestartCount"), "1");
    assert_eq!(daemon.pid("other"), other);
    daemon.cli(["exec", "always", "true"]).ok();
    wait_for_none("what belongs to no container", || daemon.ghosts());
}

#[test]
fn a_shim_that_wakes_up_after_its_daemon_died_starts_nothing() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.sleeper("first", &[]);
    for again in [false, true] {
        // A launch prepares the shim for the next.
        daemon.sh(&[], "true");
        wait_until("a shim waits", || !spare(&daemon, &["first"]).is_empty());
        let stopped = spare(&daemon, &["first"]);
        stopped.iter().for_each(|pid| signal(*pid, STOP));
        daemon.cli(["create", "--name", "x1", BUSYBOX, "sleep", "1000"]).ok();
        let client = daemon.run(["start", "x1"]).spawn();
        std::thread::sleep(Duration::from_millis(100));
        daemon.kill9();
        drop(client);
        daemon.start_again();
        assert_eq!(daemon.field("x1", "/State/Status"), "created");
        let mut pid = 0;
        if again {
            daemon.cli(["start", "x1"]).ok();
            pid = daemon.pid("x1");
        }
        stopped.iter().for_each(|pid| signal(*pid, CONT));
        for shim in &stopped {
            wait_until("the old shim ends", || {
                let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap_or_default();
                status.is_empty() || status.contains("State:\tZ")
            });
        }
        wait_for_none("what belongs to no container", || daemon.ghosts());
        if again {
            assert_eq!(daemon.pid("x1"), pid);
            daemon.cli(["exec", "x1", "true"]).ok();
            daemon.restart();
            assert_eq!(daemon.pid("x1"), pid, "its socket is its own");
        }
        daemon.cli(["rm", "-f", "x1"]).ok();
    }
}

#[test]
fn a_shim_that_is_stopped_holds_up_no_daemon_that_starts() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("hung", &[]);
    daemon.sleeper("other", &[]);
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
    let (pid, ends) = (daemon.pid("hung"), daemon.pid("ends"));
    let shims = [parent(pid), parent(ends)];
    daemon.kill9();
    shims.iter().for_each(|shim| signal(*shim, STOP));
    std::fs::write(format!("/proc/{ends}/root/go"), "").unwrap();
    let begin = Instant::now();
    daemon.start_again();
    daemon.cli(["exec", "other", "true"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(daemon.field("hung", "/State/Status"), "running");
    assert_eq!(daemon.pid("hung"), pid);
    daemon.cli(["restart", "-t", "0", "other"]).ok();
    shims.iter().for_each(|shim| signal(*shim, CONT));
    daemon.cli(["exec", "hung", "true"]).ok();
    wait_until("the end is known", || daemon.field("ends", "/State/Running") == "false");
    assert_eq!(daemon.field("ends", "/State/ExitCode"), "42");
    assert_eq!(daemon.pid("hung"), pid);
}

#[test]
fn a_daemon_that_hears_nothing_for_long_kills_no_container() {
    let daemon = TestDaemon::start();
    let names = ["c0", "c1", "c2", "c3", "c4"];
    for name in names {
        daemon.sleeper(name, &["--health-cmd", "echo x", "--health-interval", "1ms"]);
    }
    let pids = names.map(|name| daemon.pid(name));
    signal(daemon.engine_pid(), STOP);
    // More than the kernel keeps for it.
    std::thread::sleep(Duration::from_secs(6));
    // What waits at the socket is asked before the engine has heard that the shims gave up on it.
    let asked = [
        &["exec", "c0", "true"][..],
        &["cp", "c1:/etc/passwd", "-"],
        &["kill", "-s", "WINCH", "c2"],
        &["pause", "c3"],
        &["exec", "-t", "c4", "true"],
    ]
    .map(|line| daemon.run(line).spawn());
    std::thread::sleep(Duration::from_millis(300));
    signal(daemon.engine_pid(), CONT);
    for client in asked {
        client.finish().ok();
    }
    daemon.cli(["unpause", "c3"]).ok();
    for (name, pid) in names.into_iter().zip(pids) {
        wait_until("the container is healthy", || {
            daemon.field(name, "/State/Health/Status") == "healthy"
        });
        assert_eq!(daemon.field(name, "/State/Status"), "running");
        assert_eq!(daemon.pid(name), pid);
    }
    for name in names {
        daemon.cli(["stop", "-t", "0", name]).ok();
        assert_eq!(daemon.field(name, "/State/ExitCode"), "137");
    }
}

/// As the engine does it, in its place.
fn freeze(pid: u32, freeze: bool) {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let file = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "freezer" => Some((
                format!("/sys/fs/cgroup/freezer{path}/freezer.state"),
                ["THAWED", "FROZEN"],
            )),
            "" => Some((format!("/sys/fs/cgroup{path}/cgroup.freeze"), ["0", "1"])),
            _ => None,
        }
    });
    let (file, words) = file.unwrap();
    std::fs::write(file, words[usize::from(freeze)]).unwrap();
}

#[test]
fn a_daemon_that_dies_half_way_through_a_pause_leaves_what_can_be_ended() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--health-cmd", "echo x", "--health-interval", "1ms"]);
    let pid = daemon.pid("c1");
    daemon.kill9();
    freeze(pid, true);
    daemon.start_again();
    assert_eq!(daemon.field("c1", "/State/Status"), "paused");
    daemon.cli(["unpause", "c1"]).ok();
    assert_eq!(daemon.cli(["exec", "c1", "echo", "x"]).ok(), "x");
    daemon.cli(["pause", "c1"]).ok();
    daemon.kill9();
    freeze(pid, false);
    daemon.start_again();
    assert_eq!(daemon.field("c1", "/State/Status"), "running");
    assert_eq!(daemon.cli(["exec", "c1", "echo", "x"]).ok(), "x");
    wait_until("the container is healthy", || {
        daemon.field("c1", "/State/Health/Status") == "healthy"
    });
}

#[test]
fn a_helper_that_is_killed_fails_its_own_call_and_no_other() {
    let daemon = TestDaemon::start();
    daemon.load(&images::docker_archive(&[with_volume()]));
    daemon.sleeper("steady", &[]);
    let steady = parent(daemon.pid("steady"));
    let mut failed = 0;
    for step in 0..60 {
        // A busy machine starts them later.
        if step >= 12 && failed > 0 {
            break;
        }
        let client = daemon
            .run(["create", "--name", "x1", "-v", "v1:/data", "data:1", "true"])
            .spawn();
        std::thread::sleep(Duration::from_micros(2000 + step % 30 * 700));
        for pid in children(&daemon) {
            if pid != steady {
                signal(pid, KILL);
            }
        }
        let done = client.finish();
        if done.code != 0 {
            failed += 1;
            assert!(
                done.stderr.contains("supervisor") || done.stderr.contains("volume v1"),
                "{}",
                done.stderr
            );
            assert!(!daemon.has_container("x1"));
        }
        let count = [
            "run",
            "--rm",
            "-v",
            "v1:/data",
            "data:1",
            "sh",
            "-c",
            "ls /data | wc -l",
        ];
        assert_eq!(daemon.cli(count).ok(), "64", "{step}");
        if done.code == 0 {
            daemon.cli(["rm", "x1"]).ok();
        }
        daemon.cli(["volume", "rm", "v1"]).ok();
        wait_for_none("what belongs to no container", || daemon.ghosts());
    }
    assert!(failed > 0, "no helper was hit");
}

#[test]
fn what_is_damaged_is_named_and_the_others_live() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("whole", &[]);
    daemon.sleeper("bad", &[]);
    daemon.cli(["volume", "create", "v1"]).ok();
    let pid = daemon.pid("whole");
    let id = daemon.field("bad", "/Id");
    let (dir, run) = (
        daemon.data_root().join("containers").join(&id),
        daemon.run_dir().join("containers").join(&id),
    );
    // Every file of a container's own, cut short and overwritten in turn, while it runs and while it does not.
    for running in [true, false] {
        if !running {
            daemon.cli(["stop", "-t", "0", "bad"]).ok();
        }
        let mut files = Vec::new();
        for place in [&dir, &run, &dir.join("log")] {
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path()).filter(|path| path.is_file()));
        }
        assert!(files.len() > 3, "{files:?}");
        for file in files {
            for content in [&b""[..], b"\xff\0{]"] {
                daemon.kill9();
                std::fs::write(&file, content).unwrap();
                daemon.start_again();
                assert_eq!(daemon.pid("whole"), pid, "{}", file.display());
                daemon.cli(["exec", "whole", "true"]).ok();
                let state = daemon.field("bad", "/State/Status");
                assert_eq!(state == "running", running, "{}: {state}", file.display());
                let _ = daemon.cli(["logs", "bad"]);
            }
        }
        daemon.cli(["restart", "-t", "0", "bad"]).ok();
        daemon.cli(["exec", "bad", "true"]).ok();
    }
}

/// Runs SQL on the database of a daemon that is not there; gives the first column.
fn sql(daemon: &TestDaemon, statements: &[&str]) -> Vec<String> {
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1])\nfor s in sys.argv[2:]:\n  for row in c.execute(s): print(row[0])\nc.commit()";
    let db = daemon.data_root().join("ferry.db").display().to_string();
    let args = ["-c", script, &db].into_iter().chain(statements.iter().copied());
    let said = ferry_testkit::Run::new("python3").args(args).ok();
    said.lines().map(str::to_owned).collect()
}

#[test]
fn a_record_that_cannot_be_read_is_named_and_nothing_it_named_is_lost() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("whole", &[]);
    daemon.cli(["network", "create", "front"]).ok();
    daemon.cli(["volume", "create", "v1"]).ok();
    daemon.sleeper("bad", &["--network", "front", "-v", "v1:/data"]);
    let write = "echo kept > /f; echo kept > /data/f";
    daemon.cli(["exec", "bad", "sh", "-c", write]).ok();
    let (pid, whole) = (daemon.pid("whole"), daemon.field("whole", "/Id"));
    daemon.kill9();
    let rows = sql(&daemon, &["SELECT kind || ' ' || key FROM documents"]);
    daemon.start_again();
    for row in &rows {
        let (kind, key) = row.split_once(' ').unwrap();
        if key == whole {
            continue;
        }
        let this = format!("WHERE kind = '{kind}' AND key = '{key}'");
        daemon.kill9();
        sql(
            &daemon,
            &[
                &format!("CREATE TABLE saved AS SELECT * FROM documents {this}"),
                &format!("UPDATE documents SET body = CAST('{{\"key' AS BLOB) {this}"),
            ],
        );
        daemon.start_again();
        // Still known as such by the daemon after that one, which collects what nothing refers to.
        daemon.kill9();
        daemon.start_again();
        assert_eq!(daemon.pid("whole"), pid, "{row}");
        daemon.cli(["exec", "whole", "true"]).ok();
        let said = daemon.cli(["system", "check"]).stdout;
        assert!(said.contains(kind) && said.contains(key), "{row}: {said}");
        daemon.kill9();
        sql(
            &daemon,
            &[
                "INSERT OR REPLACE INTO documents SELECT * FROM saved",
                "DROP TABLE saved",
                "DELETE FROM quarantine",
            ],
        );
        daemon.start_again();
        assert_eq!(daemon.pid("whole"), pid, "{row}");
        daemon.cli(["start", "bad"]).ok();
        let kept = daemon.cli(["exec", "bad", "cat", "/f", "/data/f"]).ok();
        assert_eq!(kept, "kept\nkept", "{row}");
        assert_eq!(daemon.sh(&["--network", "front"], "echo alive"), "alive", "{row}");
    }
}

#[test]
fn fifty_containers_live_through_a_short_siege() {
    let outcome = siege::lay(50, 12, 7);
    assert!(outcome.kills == 12 && outcome.lines > 50, "{outcome:?}");
}
