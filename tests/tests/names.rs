//! One binary, several programs: what it is called by decides which one it is.

use std::path::PathBuf;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Output, Run, TestDaemon, tools};

/// A symbolic link to the binary, in the daemon's own directory.
fn link(daemon: &TestDaemon, name: &str) -> PathBuf {
    let link = daemon.dir().join(name);
    std::os::unix::fs::symlink(tools::ferry(), &link).unwrap();
    link
}

fn run(program: &PathBuf, daemon: &TestDaemon, args: &[&str]) -> Output {
    Run::new(program)
        .args(args)
        .env("DOCKER_HOST", daemon.host())
        .env("DOCKER_CONFIG", daemon.dir())
        .output()
}

#[test]
fn as_docker_it_is_the_command_line_under_that_name() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let docker = link(&daemon, "docker");
    let docker = |args: &[&str]| run(&docker, &daemon, args);
    assert_eq!(docker(&["run", "--rm", BUSYBOX, "echo", "hello"]).ok(), "hello");
    let message = docker(&["run", "--rm", BUSYBOX, "nope"]).fails(127);
    assert!(message.starts_with("docker: "), "{message}");
    assert!(
        message.contains("Run 'docker run --help' for more information"),
        "{message}"
    );
    let usage = docker(&["run", "--help"]).ok();
    assert!(
        usage.starts_with("Usage:  docker run [OPTIONS] IMAGE [COMMAND] [ARG...]"),
        "{usage}"
    );
    // Not words of ours that a docker command line lacks.
    for word in ["daemon", "shim", "hello"] {
        let message = docker(&[word]).fails(1);
        assert!(
            message.contains(&format!("unknown command: docker {word}")),
            "{message}"
        );
    }
    // Byte for byte what the real one says.
    for args in [
        &["ps", "-a"][..],
        &["images"],
        &["inspect", "nobody"],
        &["run"],
        &["ps", "--nonsense"],
    ] {
        let (ours, theirs) = (docker(args), daemon.docker(args));
        assert_eq!(
            (ours.code, ours.stdout, ours.stderr),
            (theirs.code, theirs.stdout, theirs.stderr),
            "{args:?}"
        );
    }
}

#[test]
fn as_dockerd_it_is_the_daemon_with_dockerd_s_flags() {
    let mut daemon = TestDaemon::builder()
        .as_dockerd()
        .arg("--debug")
        .arg("--label=a=b")
        .start();
    assert_eq!(daemon.sh(&[], "echo hello"), "hello");
    let (_, info) = daemon.api("GET", "/info", None);
    assert_eq!(
        (&info["Debug"], &info["Labels"]),
        (&true.into(), &["a=b"].as_slice().into())
    );
    daemon.sleeper("c1", &[]);
    daemon.restart();
    assert_eq!(daemon.cli(["exec", "c1", "echo", "alive"]).ok(), "alive");
    let dockerd = daemon.dir().join("dockerd");
    let file = daemon.dir().join("daemon.json");
    std::fs::write(&file, r#"{"debug": true}"#).unwrap();
    let check = ["--validate", "--config-file", file.to_str().unwrap()];
    assert_eq!(run(&dockerd, &daemon, &check).stderr.trim_end(), "configuration OK");
    let message = run(&dockerd, &daemon, &["--nonsense"]).fails(1);
    assert!(message.contains("--nonsense"), "{message}");
    assert_eq!(
        run(&dockerd, &daemon, &["--version"]).ok(),
        daemon.ferry(["daemon", "--version"]).ok()
    );
}

#[test]
fn as_runc_it_is_no_docker_command_line() {
    let daemon = TestDaemon::start();
    let runc = link(&daemon, "runc");
    let output = run(&runc, &daemon, &["ps", "nobody"]);
    assert_ne!(output.code, 0);
    assert!(!output.stderr.contains("docker"), "{output:?}");
}

#[test]
fn as_docker_init_it_starts_a_program_and_reaps() {
    let daemon = TestDaemon::start();
    let init = link(&daemon, "docker-init");
    assert_eq!(run(&init, &daemon, &["--", "sh", "-c", "exit 7"]).code, 7);
}
