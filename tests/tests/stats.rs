//! What containers use, `diff`, and prunes of containers.

use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{TestDaemon, wait_until};
use serde_json::Value;

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN)
}

/// Percent of one processor, as docker computes it.
fn processors(stats: &Value) -> f64 {
    let used = number(stats, "/cpu_stats/cpu_usage/total_usage") - number(stats, "/precpu_stats/cpu_usage/total_usage");
    let passed = number(stats, "/cpu_stats/system_cpu_usage") - number(stats, "/precpu_stats/system_cpu_usage");
    used / passed * number(stats, "/cpu_stats/online_cpus") * 100.0
}

#[test]
fn a_container_s_use_is_what_it_does() {
    let engine = TestDaemon::start();
    engine.busybox();
    let limits = ["--cpus", "0.5", "--memory", "64m", "--pids-limit", "40"];
    let mut args = vec!["run", "-d", "--name", "busy"];
    args.extend(limits);
    args.extend([
        BUSYBOX,
        "sh",
        "-c",
        "head -c 20000000 /dev/zero >/x; while :; do :; done",
    ]);
    engine.cli(args).ok();
    engine.sleeper("idle", &[]);
    std::thread::sleep(Duration::from_millis(2500));
    // Nobody has looked before: the answer is there at once nevertheless.
    let asked = Instant::now();
    let (status, busy) = engine.api("GET", "/containers/busy/stats?stream=false", None);
    assert!(asked.elapsed() < Duration::from_millis(700), "{:?}", asked.elapsed());
    assert_eq!(status, 200);
    let percent = processors(&busy);
    assert!((30.0..75.0).contains(&percent), "half a processor: {percent} {busy}");
    assert_eq!(number(&busy, "/memory_stats/limit"), f64::from(64 << 20));
    assert!(number(&busy, "/memory_stats/usage") > 1e5, "{busy}");
    assert_eq!(number(&busy, "/pids_stats/limit"), 40.0);
    assert!(number(&busy, "/pids_stats/current") >= 1.0);
    assert!(
        number(&busy, "/cpu_stats/throttling_data/throttled_periods") > 0.0,
        "{busy}"
    );
    assert_eq!(busy["name"], "/busy");
    assert!(busy["read"].as_str() > busy["preread"].as_str(), "{busy}");
    let (_, idle) = engine.api("GET", "/containers/idle/stats?stream=0", None);
    assert!(processors(&idle) < 25.0, "{idle}");

    let before = number(&idle, "/networks/eth0/tx_bytes");
    let gateway = engine.sh(
        &["--network", "container:idle"],
        "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'",
    );
    engine
        .cli([
            "exec",
            "idle",
            "ping",
            "-c",
            "3",
            "-i",
            "0.1",
            "-s",
            "1000",
            gateway.trim(),
        ])
        .ok();
    std::thread::sleep(Duration::from_millis(600));
    let (_, idle) = engine.api("GET", "/containers/idle/stats?stream=0", None);
    let sent = number(&idle, "/networks/eth0/tx_bytes") - before;
    assert!((3000.0..20_000.0).contains(&sent), "{sent} bytes: {idle}");
}

#[test]
fn one_alone_is_compared_with_nothing() {
    let engine = TestDaemon::start();
    engine.busybox();
    engine.sleeper("c1", &["--network", "host"]);
    let (_, alone) = engine.api("GET", "/containers/c1/stats?stream=0&one-shot=1", None);
    assert_eq!(alone["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(number(&alone, "/precpu_stats/cpu_usage/total_usage"), 0.0);
    assert!(alone.get("networks").is_none(), "the host's are not its own: {alone}");
    let (status, error) = engine.api("GET", "/containers/c1/stats?one-shot=1", None);
    assert_eq!(
        (status, &error["message"]),
        (400, &"cannot have stream=true and one-shot=true".into())
    );
    let (status, error) = engine.api("GET", "/containers/nobody/stats", None);
    assert_eq!((status, &error["message"]), (404, &"No such container: nobody".into()));
    engine.cli(["stop", "-t", "0", "c1"]).ok();
    let (status, stopped) = engine.api("GET", "/containers/c1/stats?stream=0", None);
    assert_eq!((status, &stopped["name"]), (200, &"/c1".into()));
    assert_eq!(stopped["read"], "0001-01-01T00:00:00Z");
    assert_eq!(stopped["memory_stats"], serde_json::json!({}));
    assert_eq!(stopped["blkio_stats"]["io_service_bytes_recursive"], Value::Null);
}

#[test]
fn a_stream_goes_on_over_an_end_and_ends_with_the_removal() {
    let engine = TestDaemon::start();
    engine.busybox();
    engine.sleeper("c1", &[]);
    let mut curl = std::process::Command::new("curl")
        .args(["-sN", "--unix-socket"])
        .arg(engine.socket())
        .arg("http://d/containers/c1/stats")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("curl is there");
    std::thread::sleep(Duration::from_millis(1500));
    engine.cli(["stop", "-t", "0", "c1"]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    engine.cli(["rm", "c1"]).ok();
    wait_until("the stream of a container that is gone ends", || {
        curl.try_wait().ok().flatten().is_some()
    });
    let output = curl.wait_with_output().expect("curl ends");
    let samples: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a sample"))
        .collect();
    let live = samples
        .iter()
        .filter(|sample| sample["memory_stats"] != serde_json::json!({}))
        .count();
    assert!(live >= 2 && samples.len() > live, "{live} of {}", samples.len());
}

#[test]
fn two_hundred_who_look_cost_one_look() {
    let engine = TestDaemon::start();
    engine.busybox();
    engine.sleeper("c1", &[]);
    let read = |stats: &Value| stats["read"].as_str().unwrap_or_default().to_owned();
    let asked = Instant::now();
    let mut samples: Vec<String> = Vec::new();
    while samples.len() < 200 {
        samples.push(read(&engine.api("GET", "/containers/c1/stats?stream=0", None).1));
    }
    samples.dedup();
    let most = asked.elapsed().as_millis() / 500 + 2;
    assert!(
        samples.len() as u128 <= most,
        "{} samples in {:?}",
        samples.len(),
        asked.elapsed()
    );
}

#[test]
fn diff_is_what_differs() {
    let engine = TestDaemon::start();
    engine.busybox();
    let script =
        "echo x >/new; mkdir /d; echo y >/d/f; rm /bin/ls; chmod 700 /bin/busybox; : >>/etc/passwd; sleep 1000";
    engine
        .cli([
            "run",
            "-d",
            "--name",
            "c1",
            "-v",
            "/tmp:/mnt",
            BUSYBOX,
            "sh",
            "-c",
            script,
        ])
        .ok();
    wait_until("the changes are there", || {
        engine
            .cli(["exec", "c1", "sh", "-c", "[ $(stat -c %a /bin/busybox) = 700 ]"])
            .code
            == 0
    });
    let diff = engine.cli(["diff", "c1"]).ok();
    // /etc/passwd was copied up and is the same as before; /mnt is there to mount on.
    let expected = "C /bin\nC /bin/busybox\nD /bin/ls\nA /d\nA /d/f\nA /mnt\nA /new";
    assert_eq!(diff, expected);
}
