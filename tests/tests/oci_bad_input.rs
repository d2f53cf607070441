//! `ferry runtime`: what it is given wrong is refused by name, and leaves nothing behind.

use std::fs;
use std::time::{Duration, Instant};

use ferry_testkit::Bundle;
use serde_json::{Value, json};

#[track_caller]
fn refused(bundle: &Bundle, text: &str) {
    bundle.run().fails(1, text);
    assert_eq!(bundle.leftovers(), [""; 0]);
    bundle.call(&["create", "c"]).fails(1, text);
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_ids_that_are_paths_or_too_long_are_refused() {
    let bundle = Bundle::sh("true");
    for id in ["a/b", "..", ".", "../../etc", "a b", &"x".repeat(300)] {
        bundle.call(&["create", id]).fails(1, "invalid container ID format");
        for command in ["state", "start", "kill", "delete"] {
            bundle.call(&[command, id]).fails(1, "invalid container ID format");
        }
    }
    bundle.call(&["create", ""]).fails(1, "container id cannot be empty");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_a_configuration_that_is_absent_or_broken_is_refused() {
    let bundle = Bundle::sh("true");
    let run = || bundle.call_as_it_is(&["run", "c"], |_| {});
    let path = bundle.path().join("config.json");
    let _ = fs::remove_file(&path);
    run().fails(1, "JSON specification file config.json not found");
    for (text, error) in [
        ("", "unexpected EOF"),
        ("{ociVersion}", "invalid JSON"),
        ("{\"ociVersion\":", "unexpected EOF"),
        ("[]", "ociVersion"),
        ("{}", "ociVersion"),
        ("{\"ociVersion\":5}", "ociVersion: "),
    ] {
        fs::write(&path, text).unwrap();
        run().fails(1, error);
    }
    fs::write(&path, format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000))).unwrap();
    run().fails(1, "invalid type");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    run().fails(1, "not a regular file");
    fs::remove_dir(&path).unwrap();
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_each_wrong_field_is_named() {
    let table: [(&str, Value, &str); 13] = [
        ("ociVersion", json!("3.0.0"), "version 3.0.0 is not supported"),
        ("process.user.uid", json!(-1), "process.user.uid"),
        ("process.args", json!(["nosuch"]), "executable file not found in $PATH"),
        ("process.args", json!(["/etc"]), "exec: \"/etc\": is a directory\""),
        ("root.path", json!("nosuch"), "no such file or directory"),
        ("linux.namespaces.0.path", json!("/nosuch"), "/nosuch"),
        (
            "linux.namespaces.1.path",
            json!("/proc/self/ns/pid"),
            "is not a net namespace",
        ),
        ("linux.sysctl", json!({ "net.ipv4.nosuch": "1" }), "net.ipv4.nosuch"),
        ("linux.resources.unified", json!({ "memory.max": "1x" }), ""),
        ("linux.cgroupsPath", json!("a:b:c"), "linux.cgroupsPath"),
        (
            "linux.seccomp",
            json!({ "defaultAction": "NO" }),
            "linux.seccomp.defaultAction",
        ),
        (
            "process.scheduler",
            json!({ "policy": "SCHED_FIFO", "priority": 200 }),
            "error setting scheduler",
        ),
        (
            "linux.devices",
            json!([{ "path": "/dev/x", "type": "c", "major": -1 }]),
            "linux.devices[0].major",
        ),
    ];
    for (field, value, error) in table {
        refused(&Bundle::sh("true").with(field, value), error);
    }
}

#[test]
fn root_a_rootfs_that_is_a_link_is_refused() {
    let bundle = Bundle::sh("true").with("root.path", json!("link"));
    std::os::unix::fs::symlink("rootfs", bundle.path().join("link")).unwrap();
    refused(&bundle, "invalid rootfs: not an absolute path, or a symlink");
}

#[test]
fn root_mounts_that_cannot_be_are_refused() {
    for (mount, error) in [
        (json!({ "destination": "/x", "type": "nosuchfs", "source": "x" }), "/x"),
        (
            json!({ "destination": "/x", "source": "/nosuch", "options": ["bind"] }),
            "/nosuch",
        ),
        (
            json!({ "destination": "/proc/1", "type": "tmpfs", "source": "x" }),
            "inside /proc",
        ),
        (
            json!({ "destination": "/x", "type": "tmpfs", "source": "x", "options": ["nosuch=1"] }),
            "nosuch",
        ),
        (json!({ "destination": "/x" }), "mounts[7]"),
    ] {
        refused(&Bundle::sh("true").and("mounts", mount), error);
    }
}

#[test]
fn root_hooks_that_fail_or_hang_end_the_create() {
    let hook = |script: &str, timeout: Option<i64>| {
        let mut hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
        if let Some(timeout) = timeout {
            hook["timeout"] = json!(timeout);
        }
        json!([hook])
    };
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let failing = Bundle::sh("true").with("hooks", json!({ kind: hook("echo out; echo err >&2; exit 3", None) }));
        refused(
            &failing,
            &format!("error running {kind} hook #0: exit status 3, stdout: out"),
        );
        let hanging = Bundle::sh("true").with("hooks", json!({ kind: hook("sleep 100 & sleep 100", Some(1)) }));
        let begin = Instant::now();
        hanging.run().fails(1, "hook ran past specified timeout of 1.0s");
        assert!(begin.elapsed() < Duration::from_secs(5), "{kind}");
        let absent = Bundle::sh("true").with("hooks", json!({ kind: [{ "path": "/nosuch" }] }));
        refused(&absent, "fork/exec /nosuch: no such file or directory");
        let relative = Bundle::sh("true").with("hooks", json!({ kind: [{ "path": "sh" }] }));
        refused(&relative, &format!("hooks.{kind}[0]"));
    }
    // What a hook leaves running delays nobody.
    let leaving = Bundle::sh("true").with("hooks", json!({ "createRuntime": hook("sleep 3 &", None) }));
    let begin = Instant::now();
    leaving.run().ok();
    assert!(begin.elapsed() < Duration::from_secs(2));
    // After the start it is the container that goes; after the end it is only said.
    let late = Bundle::sh("sleep 30").with("hooks", json!({ "poststart": hook("exit 1", None) }));
    late.run().fails(1, "error running poststart hook #0");
    let last = Bundle::sh("true").with("hooks", json!({ "poststop": hook("exit 1", None) }));
    let ended = last.run();
    assert!(ended.code == 0 && ended.stderr.contains("poststop hook"), "{ended:?}");
}

#[test]
fn root_a_damaged_state_is_said_and_can_be_removed() {
    let bundle = Bundle::sh("true");
    for text in ["", "{\"version\":1,", "[]", "{\"version\":9}"] {
        let dir = bundle.state_root().join("c");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("state.json"), text).unwrap();
        bundle
            .call(&["state", "c"])
            .fails(1, "the state of container c is damaged");
        bundle
            .call(&["create", "c"])
            .fails(1, "container with given ID already exists");
        bundle.call(&["delete", "c"]).fails(1, "damaged");
        assert_eq!(bundle.call(&["list", "-q"]).ok(), "c");
        bundle.call(&["delete", "--force", "c"]).ok();
        assert_eq!(bundle.leftovers(), [""; 0]);
    }
}

#[test]
fn root_a_state_of_another_boot_is_a_stopped_container() {
    let bundle = Bundle::sleeping();
    bundle.up();
    let file = bundle.state_root().join("c/state.json");
    let text = fs::read_to_string(&file).unwrap();
    let mut state: Value = serde_json::from_str(&text).unwrap();
    state["boot"] = json!("another");
    fs::write(&file, state.to_string()).unwrap();
    assert_eq!(bundle.status("c"), "stopped");
    bundle.call(&["kill", "c", "KILL"]).fails(1, "container not running");
    fs::write(&file, text).unwrap();
    assert_eq!(bundle.status("c"), "running");
}

#[test]
fn root_consoles_nobody_answers_and_pid_files_that_cannot_be_end_the_create() {
    let bundle = Bundle::sh("true").with("process.terminal", json!(true));
    bundle
        .call(&["create", "--console-socket", "nosuch", "c"])
        .fails(1, "dial unix");
    assert_eq!(bundle.leftovers(), [""; 0]);
    let bundle = Bundle::sh("true");
    bundle
        .call(&["create", "--pid-file", "/nosuch/pid", "c"])
        .fails(1, "/nosuch/pid");
    bundle
        .call(&["create", "--pidfd-socket", "/nosuch", "c"])
        .fails(1, "dial unix");
    bundle
        .call(&["create", "--bundle", "/nosuch", "c"])
        .fails(1, "chdir /nosuch: no such file or directory");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_user_files_that_lie_are_not_believed() {
    let start = |prepare: &dyn Fn(&Bundle)| {
        let bundle = Bundle::sh("echo $HOME");
        prepare(&bundle);
        let begin = Instant::now();
        assert_eq!(bundle.run().ok(), "/");
        assert!(begin.elapsed() < Duration::from_secs(2));
    };
    start(&|bundle| {
        assert!(
            std::process::Command::new("mkfifo")
                .arg(bundle.rootfs().join("etc/passwd"))
                .status()
                .unwrap()
                .success()
        );
    });
    start(&|bundle| std::os::unix::fs::symlink("/dev/zero", bundle.rootfs().join("etc/passwd")).unwrap());
    start(&|bundle| {
        let file = fs::File::create(bundle.rootfs().join("etc/passwd")).unwrap();
        file.set_len(4 << 30).unwrap();
    });
}

#[test]
fn root_ten_thousand_mounts_are_made() {
    let mut bundle = Bundle::sh("wc -l < /proc/self/mountinfo");
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    for number in 0..10_000 {
        let destination = format!("/many/{number}");
        mounts.push(json!({ "destination": destination, "type": "tmpfs", "source": "x", "options": ["mode=755"] }));
    }
    let ended = bundle.run();
    assert!(ended.ok().parse::<u32>().unwrap() > 10_000);
}
