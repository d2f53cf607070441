//! A registry in the daemon.

use ferry_testkit::{Registry, TestDaemon};

const APP: &str = "127.0.0.1:5000/team/app:1";

#[test]
fn the_engines_own_registry_is_pushed_to_and_pulled_from_and_survives_with_it() {
    let mut daemon = TestDaemon::builder().arg("--registry=127.0.0.1:5000").start();
    daemon.busybox();
    daemon.cli(["tag", "busybox", APP]).ok();
    daemon.cli(["push", APP]).ok();
    daemon.cli(["rmi", APP]).ok();
    daemon.docker(["pull", APP]).ok();
    daemon.docker(["tag", APP, "127.0.0.1:5000/team/app:2"]).ok();
    daemon.docker(["push", "127.0.0.1:5000/team/app:2"]).ok();
    assert!(
        daemon
            .data_root()
            .join("registry/repositories/team/app/_tags/2")
            .exists()
    );
    let curl = |path: &str| {
        daemon
            .in_namespace(&["curl", "-fsS", &format!("http://127.0.0.1:5000{path}")])
            .ok()
    };
    assert_eq!(curl("/healthz").trim(), "ok");
    assert!(curl("/v2/team/app/tags/list").contains(r#"["1","2"]"#));
    assert!(
        daemon.log().contains("path=\"/v2/team/app/tags/list\" status=200"),
        "{}",
        daemon.log()
    );

    daemon.kill9();
    daemon.start_again();
    daemon.cli(["rmi", "127.0.0.1:5000/team/app:2"]).ok();
    daemon.cli(["pull", "127.0.0.1:5000/team/app:2"]).ok();
    daemon.stop();
    let log = daemon.log();
    let (registry, engine) = (log.rfind("the registry has ended"), log.rfind("the engine has ended"));
    assert!(registry.is_some() && registry < engine, "{log}");
    daemon.start_again();
    daemon.cli(["pull", APP]).ok();
    daemon.finish();
}

#[test]
fn its_directory_is_counted_and_its_metrics_have_a_port_of_their_own() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"registry":{"listen":["127.0.0.1:5000"],"metrics-listen":"127.0.0.1:5003"}}"#;
    std::fs::write(file.path(), text).unwrap();
    let daemon = TestDaemon::builder()
        .arg(&format!("--config-file={}", file.path().display()))
        .start();
    let summary = daemon.docker(["system", "df"]).ok();
    daemon.busybox();
    daemon.cli(["tag", "busybox", APP]).ok();
    daemon.cli(["push", APP]).ok();
    let root = daemon.data_root().join("registry");
    let bytes = |dir: &str| {
        let line = format!(
            "find {} -type f -printf '%s\\n' | awk '{{ sum += $1; count++ }} END {{ print sum, count }}'",
            root.join(dir).display()
        );
        let said = daemon.in_namespace(&["sh", "-c", &line]).ok();
        let (bytes, count) = said.split_once(' ').unwrap();
        (bytes.parse::<i64>().unwrap(), count.parse::<i64>().unwrap())
    };
    let (_, usage) = daemon.api("GET", "/system/df", None);
    assert_eq!(usage["Registry"]["Root"], root.display().to_string());
    assert_eq!(usage["Registry"]["Size"], bytes("").0);
    assert_eq!((usage["Registry"]["Blobs"].as_i64(), bytes("blobs").1), (Some(3), 3));
    // Docker's tables are Docker's, and what it asks for alone is alone.
    assert_eq!(daemon.cli(["system", "df"]).ok(), daemon.docker(["system", "df"]).ok());
    assert_eq!(
        summary.lines().count(),
        daemon.docker(["system", "df"]).ok().lines().count()
    );
    let (_, only) = daemon.api("GET", "/system/df?type=image", None);
    assert!(only.get("Registry").is_none(), "{only}");
    let (ours, theirs) = (
        daemon.cli(["system", "df", "-v"]).ok(),
        daemon.docker(["system", "df", "-v"]).ok(),
    );
    let rest = ours
        .strip_prefix(theirs.trim_end())
        .unwrap_or_else(|| panic!("{ours}\n{theirs}"));
    let words: Vec<&str> = rest.split_whitespace().collect();
    let root = root.display().to_string();
    assert_eq!(
        words[..7],
        ["Registry", "space", "usage:", "ROOT", "BLOBS", "SIZE", root.as_str()],
        "{rest}"
    );
    assert_eq!(words[7], "3");

    let curl = |url: &str| daemon.in_namespace(&["curl", "-sS", "-w", " %{http_code}", url]).ok();
    let metrics = curl("http://127.0.0.1:5003/metrics");
    let pushed = r#"ferry_registry_requests_total{route="manifest",method="PUT",status="201"} 1"#;
    assert!(metrics.lines().any(|line| line == pushed), "{metrics}");
    // Not where everybody is.
    assert!(curl("http://127.0.0.1:5000/metrics").ends_with(" 404"));
    daemon.finish();
}

#[test]
fn a_port_that_is_taken_is_said_and_the_engine_does_not_start() {
    let daemon = TestDaemon::builder().arg("--registry=127.0.0.1:5000").prepare();
    let _other = Registry::start(&daemon, &[]);
    let ferry = ferry_testkit::tools::ferry();
    let args = daemon.daemon_args();
    let line: Vec<&str> = [ferry.to_str().unwrap()]
        .into_iter()
        .chain(args.iter().map(String::as_str))
        .collect();
    let said = daemon.in_namespace(&line).output().fails(1);
    let wanted = "the registry of this engine: listen on 127.0.0.1:5000: Address already in use";
    assert!(said.contains(wanted), "{said}");
}
