//! Clients by the thousand, clients that go silent, and an engine that may open no more files: whoever is not to blame notices
//! nothing.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, parent, wait_until, wait_within};
use rustix::process::{Pid, Resource, Rlimit};

fn say(daemon: &TestDaemon, text: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The limit under which so many more can be opened: it is one on their numbers.
fn room_for(pid: u32, more: usize) -> u64 {
    let taken = |number: &u64| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    (0..).filter(|number| !taken(number)).nth(more).unwrap()
}

/// Of its own memory, in KiB.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Of a processor, since it began.
pub fn time_used(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    let ticks = after.split_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

#[test]
fn ten_thousand_idle_event_streams_cost_little_and_slow_nobody() {
    const STREAMS: usize = 10_000;
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    let engine = daemon.engine_pid();
    let (files, kib) = (descriptors(engine), memory(engine));
    let filter = "%7B%22event%22%3A%5B%22rename%22%5D%7D";
    let request = format!("GET /v1.51/events?filters={filter} HTTP/1.1\r\nHost: d\r\n\r\n");
    let mut streams: Vec<UnixStream> = (0..STREAMS).map(|_| say(&daemon, &request)).collect();
    for stream in &mut streams {
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
    }
    let each = (memory(engine) - kib) * 1024 / STREAMS as u64;
    assert!(each < 24 * 1024, "a stream takes {each} bytes");
    let begin = Instant::now();
    daemon.cli(["ps", "-a"]).ok();
    daemon.cli(["exec", "c1", "true"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let used = time_used(engine);
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        time_used(engine) - used < Duration::from_millis(100),
        "they are not idle"
    );
    daemon.cli(["rename", "c1", "c2"]).ok();
    for stream in [0, STREAMS / 2, STREAMS - 1] {
        let mut text = String::new();
        let mut bytes = [0; 4096];
        while !text.contains("\"rename\"") {
            let count = streams[stream].read(&mut bytes).unwrap();
            assert_ne!(count, 0, "{text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }
    drop(streams);
    wait_within(Duration::from_secs(20), "all are let go of", || {
        descriptors(engine) <= files + 8
    });
    daemon.cli(["exec", "c2", "true"]).ok();
}

#[test]
fn an_engine_that_may_open_no_more_files_refuses_and_recovers() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    daemon.cli(["create", "--name", "c2", BUSYBOX, "sleep", "1000"]).ok();
    let (engine, pid) = (daemon.engine_pid(), daemon.pid("c1"));
    let raw = Pid::from_raw(i32::try_from(engine).unwrap());
    let limit = |files: u64| Rlimit {
        current: Some(files),
        maximum: Some(20_000),
    };
    let files = descriptors(engine);
    let before = rustix::process::prlimit(raw, Resource::Nofile, limit(room_for(engine, 6))).unwrap();
    // More than it can take; those that it could not are in the socket's queue.
    let held: Vec<UnixStream> = (0..40).map(|_| say(&daemon, "GET /_ping HTTP/1.1\r\n")).collect();
    wait_until("it has no descriptor left", || descriptors(engine) >= files + 6);
    let used = time_used(engine);
    std::thread::sleep(Duration::from_secs(1));
    let used = time_used(engine) - used;
    assert!(used < Duration::from_millis(300), "it spins: {used:?}");
    drop(held);
    // With room for a client, and for little of what a start needs: it works or says why not.
    wait_until("they are let go of", || descriptors(engine) <= files);
    rustix::process::prlimit(raw, Resource::Nofile, limit(room_for(engine, 1))).unwrap();
    let (status, answer) = daemon.api("POST", "/containers/c2/start", None);
    let why = answer["message"].as_str().unwrap_or_default();
    assert!(
        status == 204 || (status == 500 && why.contains("open files")),
        "{status}: {answer}"
    );
    rustix::process::prlimit(raw, Resource::Nofile, before).unwrap();
    daemon.cli(["start", "c2"]).ok();
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
    daemon.cli(["exec", "c1", "true"]).ok();
    assert_eq!(daemon.pid("c1"), pid);
    ferry_testkit::wait_for_none("what belongs to no container", || daemon.ghosts());
}

#[test]
fn connections_that_are_taken_over_and_abandoned_go_with_their_clients() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    daemon
        .cli([
            "run",
            "-d",
            "-i",
            "--name",
            "c1",
            BUSYBOX,
            "sh",
            "-c",
            "while read line; do echo got $line; done; sleep 1000",
        ])
        .ok();
    let (engine, shim) = (daemon.engine_pid(), parent(daemon.pid("c1")));
    let files = (descriptors(engine), descriptors(shim));
    let attach = "POST /v1.51/containers/c1/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    for round in 0..300 {
        let mut stream = say(&daemon, attach);
        match round % 3 {
            // Before it hears that it may speak.
            0 => {}
            // In the middle of what it says.
            1 => stream.write_all(b"half a li").unwrap(),
            // It listens no more, and says so.
            _ => {
                let mut head = [0; 12];
                stream.read_exact(&mut head).unwrap();
                stream.shutdown(Shutdown::Read).unwrap();
                stream.write_all(b"\n").unwrap();
            }
        }
    }
    wait_within(Duration::from_secs(20), "all are let go of", || {
        descriptors(engine) <= files.0 + 4 && descriptors(shim) <= files.1
    });
    // One that says no more still hears.
    let mut half = say(&daemon, attach);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        half.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    half.write_all(b"\nlast\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    let mut bytes = [0; 512];
    while !said.contains("got last") {
        let count = half.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
}

#[test]
fn bodies_without_end_and_clients_without_haste_hold_up_nobody() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    let engine = daemon.engine_pid();
    let kib = memory(engine);
    // Heads that never end, and bodies that never come.
    let slow: Vec<UnixStream> = (0..200)
        .map(|number| match number % 2 {
            0 => say(&daemon, "GET /v1.51/info HTTP/1.1\r\nHost: d\r\nX-Slow: "),
            _ => say(&daemon, "POST /v1.51/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"),
        })
        .collect();
    let mut endless = say(
        &daemon,
        "POST /v1.51/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(65536));
    let mut sent = 0usize;
    while endless.write_all(chunk.as_bytes()).is_ok() {
        sent += 65536;
        assert!(sent < 256 << 20, "a body of {sent} bytes was taken");
    }
    let mut answer = String::new();
    let _ = endless.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let grown = memory(engine).saturating_sub(kib);
    assert!(grown < 40 * 1024, "{grown} KiB more");
    let begin = Instant::now();
    daemon.cli(["exec", "c1", "true"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    drop(slow);
}

/// More than the engine has threads for what blocks.
#[test]
fn archives_that_clients_take_or_send_slowly_hold_up_nobody() {
    const CLIENTS: usize = 40;
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &["-v", "data:/data"]);
    let fill = "head -c 4000000 /dev/urandom > /data/big";
    daemon.cli(["exec", "c1", "sh", "-c", fill]).ok();
    let mut slow = Vec::new();
    for path in [
        &format!("/images/get?names={BUSYBOX}"),
        "/containers/c1/export",
        "/volumes/data/export",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n");
        for _ in 0..CLIENTS {
            let mut stream = say(&daemon, &request);
            let mut head = [0; 15];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK", "{path}");
            slow.push(stream);
        }
    }
    let import = "POST /volumes/data/import HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: 9000\r\n\r\n\0";
    slow.extend((0..CLIENTS).map(|_| say(&daemon, import)));
    let begin = Instant::now();
    daemon.cli(["run", "--rm", "-v", "other:/o", BUSYBOX, "true"]).ok();
    daemon.cli(["cp", "c1:/etc", "-"]).ok();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(slow);
}

#[test]
fn a_machine_that_was_switched_off_comes_back_as_its_policies_say() {
    let mut daemon = TestDaemon::start();
    for (name, policy) in [
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("stopped", "unless-stopped"),
        ("never", "no"),
        ("failure", "on-failure"),
    ] {
        daemon.sleeper(name, &["--restart", policy, "-v", "data:/data"]);
    }
    daemon
        .cli(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem"])
        .ok();
    daemon.sleeper("mem", &["--restart", "always", "-v", "mem:/m"]);
    daemon
        .cli(["exec", "always", "sh", "-c", "echo kept > /data/f; echo kept > /f"])
        .ok();
    daemon.cli(["stop", "-t", "0", "stopped"]).ok();
    let before: Vec<u32> = ["always", "unless", "never", "failure", "mem"]
        .iter()
        .map(|name| daemon.pid(name))
        .collect();
    let shims: Vec<u32> = before.iter().map(|pid| parent(*pid)).collect();
    // All at once, and what is in memory is gone.
    daemon.kill9();
    for pid in shims.iter().chain(&before) {
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, ferry_testkit::signal::KILL);
    }
    wait_until("all have ended", || {
        before
            .iter()
            .chain(&shims)
            .all(|pid| !fs::exists(format!("/proc/{pid}")).unwrap())
    });
    for entry in fs::read_dir(daemon.run_dir()).unwrap().flatten() {
        let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
    }
    daemon.start_again();
    for name in ["always", "unless", "failure", "mem"] {
        wait_until(&format!("{name} runs again"), || {
            daemon.field(name, "/State/Running") == "true" && daemon.pid(name) != 0
        });
    }
    for name in ["stopped", "never"] {
        assert_eq!(daemon.field(name, "/State/Status"), "exited", "{name}");
    }
    assert_eq!(daemon.field("never", "/State/ExitCode"), "137");
    assert_eq!(
        daemon.cli(["exec", "always", "cat", "/f", "/data/f"]).ok(),
        "kept\nkept"
    );
    daemon
        .cli(["exec", "mem", "sh", "-c", "grep ' /m tmpfs' /proc/mounts"])
        .ok();
    daemon.cli(["start", "never"]).ok();
    ferry_testkit::wait_for_none("what belongs to no container", || daemon.ghosts());
}
