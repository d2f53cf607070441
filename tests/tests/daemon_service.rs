//! The daemon below a service manager: sockets that it passes, what it is told, and the settings that are read again.

use std::io::Write as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, wait_until};
use rustix::process::{Pid, Signal, kill_process};

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// `systemd-socket-activate` with the daemon behind it: it starts at the first connection, in the same process.
struct Activated {
    child: Child,
    log: std::path::PathBuf,
}

impl Activated {
    fn start(prepared: &TestDaemon, sockets: &[&str], notify: Option<&Path>, args: &[String]) -> Self {
        let log = prepared.dir().join("activated.log");
        let network = format!("--net={}", prepared.network().display());
        let mut command = Command::new("nsenter");
        command.arg(network).arg("systemd-socket-activate");
        for socket in sockets {
            command.args(["-l", socket]);
        }
        if let Some(path) = notify {
            command.args(["-E", &format!("NOTIFY_SOCKET={}", path.display())]);
        }
        let ferry = ferry_testkit::tools::ferry();
        let output = std::fs::File::create(&log).unwrap();
        command.arg(&ferry).args(args).stdin(Stdio::null());
        let child = command
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn stop(mut self) -> i32 {
        signal(self.child.id(), Signal::TERM);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_systemd() -> bool {
    let there = Path::new("/usr/bin/systemd-socket-activate").exists();
    if !there {
        eprintln!("skipped: there is no systemd-socket-activate");
    }
    there
}

/// The daemon's arguments without its own socket.
fn without_host(prepared: &TestDaemon) -> Vec<String> {
    let mut args = prepared.daemon_args();
    let at = args.iter().position(|arg| arg == "--host").unwrap();
    args.drain(at..at + 2);
    args
}

#[test]
fn sockets_of_systemd_are_served_and_it_hears_how_far_the_daemon_is() {
    if !has_systemd() {
        return;
    }
    let prepared = TestDaemon::builder().prepare();
    let socket = prepared.socket().display().to_string();
    let notify = prepared.dir().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = || {
        let mut text = [0; 200];
        let count = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..count]).into_owned()
    };
    for hosts in [&["--host=fd://"][..], &[]] {
        let _ = std::fs::remove_file(&socket);
        let mut args = without_host(&prepared);
        args.extend(hosts.iter().map(|&host| host.to_owned()));
        let activated = Activated::start(&prepared, &[&socket], Some(&notify), &args);
        wait_until("the socket is there", || Path::new(&socket).exists());
        // The first client starts the daemon, and is answered.
        prepared.cli(["version"]).ok();
        assert_eq!(heard(), "READY=1");
        prepared.cli(["run", "--rm", "ferry/hello"]).ok();
        signal(activated.child.id(), Signal::HUP);
        let reloading = heard();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(heard(), "READY=1");
        let log = activated.log();
        assert_eq!(activated.stop(), 0, "{log}");
        assert_eq!(heard(), "STOPPING=1");
        // It is the manager's, for the next daemon.
        assert!(Path::new(&socket).exists());
    }
    std::fs::remove_file(&socket).unwrap();
    prepared.finish();
}

#[test]
fn without_sockets_fd_says_what_to_do() {
    let prepared = TestDaemon::builder().prepare();
    let mut args = without_host(&prepared);
    args.push("--host=fd://".to_owned());
    let ferry = ferry_testkit::tools::ferry();
    let words: Vec<&str> = [ferry.to_str().unwrap()]
        .into_iter()
        .chain(args.iter().map(String::as_str))
        .collect();
    let output = prepared.in_namespace(&words).output();
    let words = "no sockets found via socket activation: make sure the service was started by systemd";
    assert!(output.code == 1 && output.stderr.contains(words), "{output:?}");
    prepared.finish();
}

#[test]
fn a_reload_takes_what_it_can_and_names_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daemon.json");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(r#"{"labels":["a=b"],"mtu":1500,"registry-mirrors":["http://one.example"]}"#);
    let engine = TestDaemon::builder()
        .arg(&format!("--config-file={}", file.display()))
        .start();
    let info = |what: &str| engine.cli(["info", "--format", what]).ok();
    assert_eq!(info("{{.Labels}} {{.Debug}}"), "[a=b] false");
    let sleeper = engine.sleeper("sleeper", &[]);
    let events = engine
        .run(["events", "--filter", "type=daemon", "--format", "{{json .}}"])
        .spawn();
    std::thread::sleep(Duration::from_millis(300));

    write(
        r#"{"labels":["c=d"],"debug":true,"mtu":1400,"insecure-registries":["x:1"],"default-shm-size":"1m",
        "default-ulimits":{"core":{"Name":"core","Hard":0,"Soft":0}},"init":true,"shutdown-timeout":7}"#,
    );
    signal(engine.engine_pid(), Signal::HUP);
    wait_until("the labels are the new ones", || {
        info("{{.Labels}} {{.Debug}}") == "[c=d] true"
    });
    assert!(
        info("{{json .RegistryConfig}}").contains("x:1") && !info("{{json .RegistryConfig}}").contains("one.example")
    );
    let log = engine.log();
    let taken = "changed=\"debug, default-shm-size, default-ulimits, init, insecure-registries, labels, registry-mirrors, shutdown-timeout\"";
    assert!(log.contains(taken), "{log}");
    assert!(
        log.contains("need a restart of the daemon") && log.contains("keys=\"mtu\""),
        "{log}"
    );
    assert!(log.contains("shutdown-timeout sets nothing"), "{log}");
    // Containers from now on are as the file says.
    let seen = engine.sh(
        &[],
        "df -k /dev/shm | tail -1 | awk '{print $2}'; ulimit -c; cat /proc/1/comm",
    );
    assert_eq!(seen, "1024\n0\nferry");
    let event = events.wait_for("\n");
    let event: serde_json::Value = serde_json::from_str(event.trim()).unwrap();
    let attributes = &event["Actor"]["Attributes"];
    assert_eq!(
        (event["Type"].as_str(), event["Action"].as_str()),
        (Some("daemon"), Some("reload"))
    );
    assert_eq!(
        (attributes["labels"].as_str(), attributes["debug"].as_str()),
        (Some("[\"c=d\"]"), Some("true"))
    );
    assert_eq!(attributes["shutdown-timeout"].as_str(), Some("7"));

    // What is wrong changes nothing.
    write(r#"{"labels":["e=f"],"nosuch":1}"#);
    signal(engine.engine_pid(), Signal::HUP);
    wait_until("the error is in the log", || {
        engine.log().contains("Error reloading configuration")
    });
    assert!(
        engine
            .log()
            .contains("the following directives don't match any configuration option: nosuch")
    );
    assert_eq!(info("{{.Labels}}"), "[c=d]");
    assert_eq!(engine.field(&sleeper, "/State/Running"), "true");
    engine.finish();
}

/// Whatever its clients are waiting for, they see an end, and the engine is gone at once.
#[test]
fn an_engine_ends_at_once_whoever_is_connected() {
    const TCP: &str = "tcp://127.0.0.1:2375";
    let mut daemon = TestDaemon::builder()
        .arg(&format!("--host={TCP}"))
        .arg("--tls=false")
        .start();
    daemon.sleeper("c1", &["-i"]);
    daemon.in_namespace(&["ip", "link", "set", "lo", "up"]).output();
    let lines: [&[&str]; 7] = [
        &["events"],
        &["logs", "-f", "c1"],
        &["attach", "c1"],
        &["exec", "-i", "c1", "cat"],
        &["stats", "c1"],
        &["wait", "c1"],
        &["run", "--rm", "-i", BUSYBOX, "cat"],
    ];
    let raw: [&[u8]; 3] = [
        b"",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n",
        b"POST /v1.51/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ];
    let mut took = Vec::new();
    let mut stop = |daemon: &mut TestDaemon, who: String| {
        std::thread::sleep(Duration::from_millis(400));
        let begin = Instant::now();
        daemon.stop();
        took.push((begin.elapsed(), who));
        daemon.start_again();
    };
    stop(&mut daemon, "nobody".to_owned());
    let ferry = ferry_testkit::tools::ferry();
    for host in [daemon.host(), TCP.to_owned()] {
        for line in lines {
            let line = format!("sleep 1 | {} -H {host} {}", ferry.display(), line.join(" "));
            let client = daemon.in_namespace(&["sh", "-c", &line]).spawn();
            stop(&mut daemon, line);
            drop(client);
        }
    }
    for text in raw {
        let mut client = UnixStream::connect(daemon.socket()).unwrap();
        client.write_all(text).unwrap();
        stop(&mut daemon, String::from_utf8_lossy(text).into_owned());
    }
    let slow: Vec<_> = took.iter().filter(|(took, _)| *took > Duration::from_secs(2)).collect();
    assert!(slow.is_empty(), "{slow:#?}");
}
