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
