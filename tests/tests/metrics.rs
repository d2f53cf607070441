//! `metrics-addr`: what Prometheus reads, through the reference parser of its Python client.

use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Output, Run, TestDaemon, tools};
use serde_json::Value;

const ADDRESS: &str = "127.0.0.1:9323";

fn daemon() -> TestDaemon {
    TestDaemon::builder().arg("--metrics-addr").arg(ADDRESS).start()
}

fn curl(daemon: &TestDaemon, arguments: &[&str]) -> Output {
    let line = [&["curl", "-s", "-m", "10"], arguments].concat();
    daemon.in_namespace(&line).output()
}

fn scrape(daemon: &TestDaemon) -> String {
    curl(daemon, &["-f", &format!("http://{ADDRESS}/metrics")]).ok()
}

/// `[[name, labels, value]…]`, as the parser reads it.
fn parse(text: &str) -> Vec<(String, Value, f64)> {
    let script = "import sys, json; from prometheus_client.parser import text_string_to_metric_families as families\n\
                  print(json.dumps([[s.name, s.labels, s.value] for f in families(sys.stdin.read()) for s in f.samples]))";
    let json = Run::new(tools::python())
        .args(["-c", script])
        .input(format!("{text}\n"))
        .ok();
    serde_json::from_str(&json).unwrap()
}

#[track_caller]
fn value(samples: &[(String, Value, f64)], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&(String, Value, f64)| {
        sample.0 == name
            && labels
                .iter()
                .all(|(key, value)| sample.1[*key].as_str() == Some(*value))
    };
    let found: Vec<_> = samples.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
    found[0].2
}

#[test]
fn what_is_scraped_is_what_stats_says() {
    let daemon = daemon();
    daemon.busybox();
    let odd = "a\"b\\c\nd} 1";
    let label = format!("com.docker.compose.service={odd}");
    let script = "head -c 30000000 /dev/zero >/x; cat /x >/dev/null; while :; do :; done";
    let options = [
        "run",
        "-d",
        "--name",
        "busy",
        "--cpus",
        "0.5",
        "-m",
        "64m",
        "--pids-limit",
        "40",
        "-l",
        &label,
    ];
    daemon
        .cli(options.into_iter().chain([BUSYBOX, "sh", "-c", script]))
        .ok();
    daemon.sleeper("idle", &[]);
    daemon.cli(["pause", "idle"]).ok();
    daemon.cli(["create", "--name", "made", BUSYBOX]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    // Both within half a second see the same sample.
    let (samples, stats) = loop {
        let begin = Instant::now();
        let text = scrape(&daemon);
        let (_, stats) = daemon.api("GET", "/containers/busy/stats?stream=false&one-shot=true", None);
        if begin.elapsed() < Duration::from_millis(300) {
            break (parse(&text), stats);
        }
    };
    let own = [("name", "busy"), ("image", BUSYBOX)];
    let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_f64).unwrap();
    let cpu = value(
        &samples,
        "container_cpu_usage_seconds_total",
        &[("name", "busy"), ("cpu", "total")],
    );
    assert!(
        (cpu - number("/cpu_stats/cpu_usage/total_usage") / 1e9).abs() < 1e-6,
        "{cpu} {stats}"
    );
    assert!(cpu > 0.1);
    let usage = value(&samples, "container_memory_usage_bytes", &own);
    assert_eq!(usage, number("/memory_stats/usage"));
    let inactive = stats["memory_stats"]["stats"].get("total_inactive_file");
    let inactive = inactive
        .or(stats["memory_stats"]["stats"].get("inactive_file"))
        .unwrap();
    let working = value(&samples, "container_memory_working_set_bytes", &own);
    assert_eq!(working, (usage - inactive.as_f64().unwrap()).max(0.0));
    assert_eq!(
        value(&samples, "container_spec_memory_limit_bytes", &own),
        f64::from(64 << 20)
    );
    assert_eq!(
        value(&samples, "container_threads", &own),
        number("/pids_stats/current")
    );
    assert_eq!(value(&samples, "container_threads_max", &own), 40.0);
    let received = value(
        &samples,
        "container_network_receive_bytes_total",
        &[("name", "busy"), ("interface", "eth0")],
    );
    assert_eq!(received, number("/networks/eth0/rx_bytes"));
    let throttled = value(&samples, "container_cpu_cfs_throttled_periods_total", &own);
    assert_eq!(throttled, number("/cpu_stats/throttling_data/throttled_periods"));
    // What a user wrote is a label's value, whatever it is.
    let service = [("container_label_com_docker_compose_service", odd)];
    assert_eq!(value(&samples, "container_memory_usage_bytes", &service), usage);
    let id = daemon.field("busy", "/Id");
    assert_eq!(value(&samples, "container_memory_usage_bytes", &[("id", &id)]), usage);
    // The command line agrees.
    let shown = daemon
        .cli(["stats", "--no-stream", "--format", "{{.PIDs}}", "busy"])
        .ok();
    assert_eq!(shown, value(&samples, "container_threads", &own).to_string());

    // dockerd's own.
    for (state, count) in [("running", 1.0), ("paused", 1.0), ("stopped", 1.0)] {
        let found = value(
            &samples,
            "engine_daemon_container_states_containers",
            &[("state", state)],
        );
        assert_eq!(found, count, "{state}");
    }
    assert_eq!(
        value(&samples, "engine_daemon_engine_info", &[("os_type", "linux")]),
        1.0
    );
    for (action, at_least) in [("create", 3.0), ("start", 2.0), ("delete", 0.0)] {
        let done = value(
            &samples,
            "engine_daemon_container_actions_seconds_count",
            &[("action", action)],
        );
        assert!(done >= at_least, "{action}: {done}");
    }
    assert!(value(&samples, "engine_daemon_events_total", &[]) > 3.0);
    assert!(
        !samples
            .iter()
            .any(|(name, labels, _)| name.starts_with("container_") && labels["name"] == "made")
    );
}

#[test]
fn health_checks_and_removals_are_counted() {
    let daemon = daemon();
    daemon.busybox();
    let check = [
        "run",
        "-d",
        "--name",
        "c1",
        "--health-cmd",
        "false",
        "--health-interval",
        "100ms",
        BUSYBOX,
    ];
    daemon.cli(check.into_iter().chain(["sleep", "1000"])).ok();
    ferry_testkit::wait_until("checks are counted", || {
        value(
            &parse(&scrape(&daemon)),
            "engine_daemon_health_checks_failed_total",
            &[],
        ) >= 2.0
    });
    daemon.cli(["rm", "-f", "c1"]).ok();
    let samples = parse(&scrape(&daemon));
    assert!(value(&samples, "engine_daemon_health_checks_total", &[]) >= 2.0);
    let deleted = [("action", "delete")];
    assert_eq!(
        value(&samples, "engine_daemon_container_actions_seconds_count", &deleted),
        1.0
    );
    assert!(
        !samples.iter().any(|(name, ..)| name.starts_with("container_")),
        "nothing runs"
    );
}

#[test]
fn the_port_serves_nothing_else_and_bounds_its_clients() {
    let daemon = daemon();
    let status = |arguments: &[&str]| {
        curl(
            &daemon,
            &[&["-o", "/dev/null", "-w", "%{http_code}"], arguments].concat(),
        )
        .ok()
    };
    let at = |path: &str| format!("http://{ADDRESS}{path}");
    assert_eq!(status(&[&at("/metrics")]), "200");
    assert_eq!(status(&["-I", &at("/metrics")]), "200");
    assert_eq!(curl(&daemon, &[&at("/healthz")]).ok(), "ok");
    for path in [
        "/",
        "/v1.51/containers/json",
        "/_ping",
        "/metrics/../info",
        "/metrics/x",
    ] {
        assert_eq!(status(&["--path-as-is", &at(path)]), "404", "{path}");
    }
    assert_eq!(status(&["-X", "POST", "-d", "x", &at("/metrics")]), "405");
    let headers = curl(&daemon, &["-D", "-", "-o", "/dev/null", &at("/metrics")])
        .ok()
        .to_lowercase();
    assert!(
        headers.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{headers}"
    );

    // Who says half a request, nonsense, or too much, keeps nobody from scraping.
    let python = r#"
import socket, sys
held = []
for n in range(20):
    s = socket.create_connection(("127.0.0.1", 9323)); s.sendall(b"GET /metrics HTTP/1.1\r\nHos"); held.append(s)
for bad in [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET /metrics HTTP/9\r\n\r\n", b"A" * 2000000]:
    s = socket.create_connection(("127.0.0.1", 9323)); s.settimeout(5)
    try:
        s.sendall(bad)
        s.recv(100)
    except OSError:
        pass
s = socket.create_connection(("127.0.0.1", 9323)); s.settimeout(5)
s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
print(s.recv(15).decode())
"#;
    assert_eq!(daemon.in_namespace(&["python3", "-c", python]).ok(), "HTTP/1.1 200 OK");
}

#[test]
fn a_port_of_the_loopback_is_out_of_reach_of_containers() {
    let daemon = daemon();
    daemon.busybox();
    assert!(!scrape(&daemon).is_empty());
    let gateway = "$(ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p')";
    for address in [gateway, "127.0.0.1"] {
        let script = format!("wget -T 2 -O - http://{address}:9323/metrics");
        let tried = daemon.try_sh(&[], &script);
        assert_ne!(tried.code, 0, "{tried:?}");
    }
}

#[test]
fn an_address_that_is_taken_is_named_and_one_that_is_none_too() {
    let daemon = daemon();
    let refused = |address: &str| {
        let other = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| other.path().join(name).display().to_string();
        let ferry = tools::ferry().display().to_string();
        let (data, run, host) = (path("data"), path("run"), format!("unix://{}", path("s")));
        let line = [
            &ferry,
            "daemon",
            "--data-root",
            &data,
            "--exec-root",
            &run,
            "--host",
            &host,
            "--metrics-addr",
            address,
        ];
        let output = daemon.in_namespace(&line).output();
        assert_eq!(output.code, 1, "{output:?}");
        output.stderr
    };
    let taken = refused(ADDRESS);
    assert!(
        taken.contains(&format!("metrics-addr: cannot listen on {ADDRESS}")),
        "{taken}"
    );
    assert!(taken.contains("Address already in use"), "{taken}");
    let wrong = refused("web:metrics");
    assert!(wrong.contains("metrics-addr: \"web:metrics\""), "{wrong}");
}

/// A scrape is samples that others may share, and nothing is looked at in between.
#[test]
fn a_scraper_that_hurries_reads_the_same_sample() {
    let daemon = daemon();
    daemon.sleeper("c1", &[]);
    let mut seen = Vec::new();
    let begin = Instant::now();
    for _ in 0..5 {
        let samples = parse(&scrape(&daemon));
        seen.push(value(&samples, "container_last_seen", &[("name", "c1")]));
    }
    let passed = begin.elapsed().as_secs_f64();
    seen.dedup();
    assert!(
        f64::from(u32::try_from(seen.len()).unwrap()) <= passed / 0.5 + 1.0,
        "{seen:?} in {passed}"
    );
}

/// Over one connection, one request after the other, as Prometheus does.
#[test]
fn a_connection_serves_many_scrapes_and_goes_with_the_daemon() {
    let mut daemon = daemon();
    let python = r##"
import http.client, sys
c = http.client.HTTPConnection("127.0.0.1", 9323)
for _ in range(3):
    c.request("GET", "/metrics"); assert c.getresponse().read().startswith(b"# HELP")
print("ready", flush=True)
sys.stdin.readline()
try:
    c.request("GET", "/metrics"); c.getresponse(); print("still there")
except (OSError, http.client.HTTPException):
    print("gone")
"##;
    let mut client = daemon.in_namespace(&["python3", "-c", python]).open_stdin().spawn();
    client.wait_for("ready");
    let begin = Instant::now();
    daemon.stop();
    assert!(begin.elapsed() < Duration::from_secs(5));
    client.send("\n");
    client.wait_for("gone");
    client.finish().ok();
    daemon.start_again();
    assert!(!scrape(&daemon).is_empty());
}
