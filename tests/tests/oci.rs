//! `ferry runtime`: the life of a container as callers of runc go through it.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use ferry_testkit::{Bundle, wait_until};
use serde_json::json;

#[test]
fn root_a_container_is_created_started_and_deleted() {
    let bundle = Bundle::sh("echo up; exit 3");
    bundle.call(&["create", "--pid-file", "pid", "c"]).ok();
    let state = bundle.state("c");
    let pid = fs::read_to_string(bundle.path().join("pid")).unwrap();
    assert_eq!(state["pid"].to_string(), pid);
    for (key, value) in [
        ("id", json!("c")),
        ("status", json!("created")),
        ("bundle", json!(bundle.path())),
        ("rootfs", json!(bundle.rootfs())),
        ("owner", json!("")),
    ] {
        assert_eq!(state[key], value, "{key}");
    }
    bundle.call(&["start", "c"]).ok();
    bundle.wait_for_status("c", "stopped");
    assert_eq!(bundle.state("c")["pid"], 0);
    bundle
        .call(&["start", "c"])
        .fails(1, "cannot start a container that has stopped");
    bundle.call(&["delete", "c"]).ok();
    bundle.call(&["state", "c"]).fails(1, "container does not exist");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_run_passes_output_input_and_exit_code_on() {
    let bundle = Bundle::sh("echo out; echo err >&2; exit 7");
    let ended = bundle.run();
    assert_eq!(
        (ended.code, ended.stdout.as_str(), ended.stderr.as_str()),
        (7, "out\n", "err\n")
    );
    let bundle = Bundle::sh("cat");
    fs::write(bundle.path().join("in"), "text").unwrap();
    let input = fs::File::open(bundle.path().join("in")).unwrap();
    let ended = bundle.call_with(&["run", "c"], |command| {
        command.stdin(input);
    });
    assert_eq!(ended.ok(), "text");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_a_running_container_is_not_deleted_without_force() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle
        .call(&["create", "c"])
        .fails(1, "container with given ID already exists");
    bundle
        .call(&["delete", "c"])
        .fails(1, "cannot delete container c that is not stopped: running");
    bundle
        .call(&["start", "c"])
        .fails(1, "cannot start an already running container");
    bundle.call(&["delete", "--force", "c"]).ok();
    bundle.call(&["delete", "--force", "c"]).ok();
    bundle.call(&["delete", "c"]).fails(1, "container does not exist");
}

#[test]
fn root_signals_reach_the_first_process_by_name_and_number() {
    let bundle = Bundle::sh("trap 'echo got; exit 4' USR1; touch /tmp/ready; while :; do sleep 0.05; done");
    bundle.up();
    wait_until("the program is ready", || bundle.rootfs().join("tmp/ready").exists());
    bundle
        .call(&["kill", "c", "BOGUS"])
        .fails(1, "unknown signal \"BOGUS\"");
    bundle.call(&["kill", "c", "SIGUSR1"]).ok();
    bundle.wait_for_status("c", "stopped");
    bundle.call(&["kill", "c", "9"]).fails(1, "container not running");
    bundle.call(&["kill", "--all", "c", "9"]).ok();
}

#[test]
fn root_a_created_container_can_be_killed_and_executed_in() {
    let bundle = Bundle::sleeping();
    bundle.call(&["create", "c"]).ok();
    assert_eq!(bundle.exec("echo early").ok(), "early");
    bundle.call(&["kill", "c", "KILL"]).ok();
    bundle.wait_for_status("c", "stopped");
    bundle.call(&["delete", "c"]).ok();
}

#[test]
fn root_exec_joins_what_the_container_has() {
    let bundle = Bundle::sleeping();
    bundle.up();
    let pid = bundle.state("c")["pid"].as_i64().unwrap();
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let inside = bundle.exec(&format!("readlink /proc/self/ns/{kind}")).ok();
        let first = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(inside, first.to_string_lossy(), "{kind}");
    }
    let groups = bundle.exec("cat /proc/self/cgroup").ok();
    assert!(groups.contains("ferry-test-oci-"), "{groups}");
    assert_eq!(bundle.exec("exit 9").code, 9);
    bundle
        .call(&["exec", "c", "nosuch"])
        .fails(255, "exec: \"nosuch\": executable file not found in $PATH");
    bundle
        .call(&["exec", "c", "/nosuch"])
        .fails(255, "exec: \"/nosuch\": stat /nosuch: no such file or directory");
    bundle.call(&["exec", "c"]).fails(255, "exec args cannot be empty");
    bundle
        .call(&["exec", "--tty", "--detach", "c", "true"])
        .fails(255, "without setting console socket");
}

#[test]
fn root_exec_s_flags_change_the_process() {
    let bundle = Bundle::sleeping();
    bundle.up();
    let exec = |flags: &[&str], script: &str| {
        let args: Vec<&str> = ["exec"]
            .iter()
            .chain(flags)
            .copied()
            .chain(["c", "/bin/sh", "-c", script])
            .collect();
        bundle.call(&args)
    };
    assert_eq!(
        exec(&["-u", "7:8", "-g", "9", "-g", "10"], "id -u; id -g; id -G").ok(),
        "7\n8\n8 9 10"
    );
    assert_eq!(
        exec(&["--cwd", "/tmp", "-e", "A=1", "--env=B=2"], "pwd; echo $A$B").ok(),
        "/tmp\n12"
    );
    let caps = |ended: ferry_testkit::bundle::Ended| u64::from_str_radix(&ended.ok(), 16).unwrap();
    let bounding = "sed -n 's/CapBnd:\\t//p' /proc/self/status";
    assert_eq!(caps(exec(&["--cap", "CAP_CHOWN"], bounding)) & 1, 1);
    assert_eq!(caps(exec(&[], bounding)) & 1, 0);
    // CVE-2022-29162
    let inheritable = "sed -n 's/CapInh:\\t//p' /proc/self/status";
    assert_eq!(caps(exec(&["--cap", "CAP_CHOWN"], inheritable)), 0);
    for user in ["root", "-1", "1:", "0x1", "4294967295", "+1"] {
        exec(&["-u", user], "id").fails(255, "invalid syntax");
    }
}

#[test]
fn root_exec_takes_a_whole_process() {
    let bundle = Bundle::sleeping();
    bundle.up();
    let process = json!({
        "args": ["/bin/sh", "-c", "echo $X; id -u; grep NoNewPrivs /proc/self/status; umask"],
        "cwd": "/", "env": ["X=y", "PATH=/bin"], "user": { "uid": 5, "gid": 6, "umask": 63 }, "noNewPrivileges": false,
    });
    fs::write(bundle.path().join("process.json"), process.to_string()).unwrap();
    let text = bundle.call(&["exec", "--process", "process.json", "c"]).ok();
    assert_eq!(text, "y\n5\nNoNewPrivs:\t0\n0077");
    bundle
        .call(&["exec", "-p", "/nosuch", "c"])
        .fails(255, "no such file or directory");
}

#[test]
fn root_a_detached_exec_outlives_the_command_and_writes_its_pid() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle
        .call(&[
            "exec",
            "-d",
            "--pid-file",
            "pid",
            "c",
            "/bin/sh",
            "-c",
            "echo $$ > /tmp/pid; sleep 30",
        ])
        .ok();
    let pid: u32 = fs::read_to_string(bundle.path().join("pid")).unwrap().parse().unwrap();
    wait_until("the exec runs", || bundle.rootfs().join("tmp/pid").exists());
    assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    let pids: Vec<u32> = serde_json::from_str(&bundle.call(&["ps", "-f", "json", "c"]).ok()).unwrap();
    assert!(pids.contains(&pid) && pids.len() >= 2, "{pids:?}");
    let table = bundle.call(&["ps", "c"]).ok();
    assert!(table.starts_with("UID") && table.lines().count() >= 3, "{table}");
}

#[test]
fn root_a_paused_container_stands_still() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle.call(&["resume", "c"]).fails(1, "container not paused");
    bundle.call(&["pause", "c"]).ok();
    assert_eq!(bundle.status("c"), "paused");
    bundle.exec("true").fails(255, "cannot exec in a paused container");
    bundle.call(&["pause", "c"]).fails(1, "container not running");
    bundle.call(&["resume", "c"]).ok();
    assert_eq!(bundle.status("c"), "running");
    bundle.call(&["pause", "c"]).ok();
    bundle.call(&["kill", "c", "KILL"]).ok();
    bundle.wait_for_status("c", "stopped");
    bundle.call(&["delete", "c"]).ok();
}

#[test]
fn root_a_paused_container_is_deleted_by_force() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle.call(&["pause", "c"]).ok();
    bundle.call(&["delete", "-f", "c"]).ok();
}

#[test]
fn root_list_shows_every_container() {
    let bundle = Bundle::sleeping().with("linux.cgroupsPath", json!(""));
    assert_eq!(bundle.call(&["list", "-f", "json"]).ok(), "null");
    for id in ["one", "two"] {
        bundle.call(&["create", id]).ok();
    }
    assert_eq!(bundle.call(&["list", "-q"]).ok(), "one\ntwo");
    let table = bundle.call(&["list"]).ok();
    assert!(
        table.starts_with("ID          PID         STATUS      BUNDLE"),
        "{table}"
    );
    let list: serde_json::Value = serde_json::from_str(&bundle.call(&["list", "-f", "json"]).ok()).unwrap();
    assert_eq!((&list[1]["id"], &list[1]["owner"]), (&json!("two"), &json!("root")));
    bundle.call(&["list", "-f", "bogus"]).fails(1, "invalid format option");
}

#[test]
fn root_limits_can_be_changed_and_statistics_read() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle
        .call(&["update", "--memory", "64m", "--pids-limit", "20", "c"])
        .ok();
    fs::write(bundle.path().join("r.json"), r#"{"cpu":{"shares":512}}"#).unwrap();
    bundle.call(&["update", "-r", "r.json", "c"]).ok();
    bundle
        .call(&["update", "--memory", "bogus", "c"])
        .fails(1, "invalid value for memory: invalid size: 'bogus'");
    let stats: serde_json::Value = serde_json::from_str(&bundle.call(&["events", "--stats", "c"]).ok()).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!("c")));
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(stats["data"]["pids"]["limit"], 20);
}

#[test]
fn root_errors_go_to_the_log_as_callers_read_them() {
    let bundle = Bundle::sh("true");
    let ended = bundle.call(&["--log", "log", "--log-format", "json", "state", "nope"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (1, "container does not exist\n"));
    let line: serde_json::Value = serde_json::from_slice(&fs::read(bundle.path().join("log")).unwrap()).unwrap();
    assert_eq!(
        (&line["level"], &line["msg"]),
        (&json!("error"), &json!("container does not exist"))
    );
    let ended = bundle.call(&["state", "nope"]);
    assert!(
        ended.stderr.contains("level=error msg=\"container does not exist\""),
        "{ended:?}"
    );
    bundle
        .call(&["--log-format", "x", "state", "nope"])
        .fails(1, "invalid log-format: x");
    bundle
        .call(&["--systemd-cgroup", "create", "c"])
        .fails(1, "--systemd-cgroup is not supported");
    bundle.call(&["bogus"]).fails(3, "No help topic for 'bogus'");
    bundle
        .call(&["create"])
        .fails(1, "\"create\" requires exactly 1 argument(s)");
    bundle
        .call(&["create", "--bogus", "c"])
        .fails(1, "flag provided but not defined: -bogus");
    bundle.call(&["checkpoint", "c"]).fails(1, "not supported");
}

#[test]
fn root_a_terminal_s_master_is_sent_to_the_console_socket() {
    let bundle = Bundle::sh("tty; test -t 0 && echo yes; stat -c %T /dev/console; sleep 30")
        .with("process.terminal", json!(true))
        .with("process.consoleSize", json!({ "height": 33, "width": 77 }));
    bundle.call(&["create", "c"]).fails(
        1,
        "cannot allocate tty if runc will detach without setting console socket",
    );
    let socket = bundle.path().join("console");
    let listener = UnixListener::bind(&socket).unwrap();
    let receiver = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        ferry_testkit::bundle::receive_fd(&stream)
    });
    bundle.call(&["create", "--console-socket", "console", "c"]).ok();
    let master = receiver.join().unwrap();
    assert!(master.as_raw_fd() > 2);
    bundle.call(&["start", "c"]).ok();
    let mut text = String::new();
    let end = Instant::now() + Duration::from_secs(5);
    while !text.contains("yes") && Instant::now() < end {
        let mut buffer = [0; 256];
        let mut file = &fs::File::from(master.try_clone().unwrap());
        let count = std::io::Read::read(&mut file, &mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(text.contains("/dev/pts/0") && text.contains("yes"), "{text}");
}

#[test]
fn root_preserved_descriptors_arrive_and_no_other() {
    let bundle = Bundle::sh("ls /proc/self/fd; echo $LISTEN_FDS $LISTEN_PID");
    let text = bundle.run().ok();
    // The fourth is ls's own.
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    bundle
        .call(&["run", "--preserve-fds", "2", "c"])
        .fails(1, "preserved-fd");
    let script = "exec 3</dev/null 4</dev/null; exec \"$@\"";
    let program = ferry_testkit::tools::ferry();
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(program)
        .args(["runtime", "--root"])
        .arg(bundle.state_root())
        .args(["run", "--preserve-fds", "1", "--bundle"])
        .arg(bundle.path())
        .arg("c")
        .env("LISTEN_FDS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3", "4", "5", "1", "1"],
        "{output:?}"
    );
}

#[test]
fn root_the_runtime_s_binary_cannot_be_reached_from_inside() {
    // CVE-2019-5736: the interpreter is whatever starts the container.
    let bundle = Bundle::sh("true").with("process.args", json!(["/evil"]));
    let evil = bundle.rootfs().join("evil");
    fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    let mut mode = fs::metadata(&evil).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(&evil, mode).unwrap();
    let binary = ferry_testkit::tools::ferry();
    let before = fs::metadata(&binary).unwrap().modified().unwrap();
    bundle.run();
    assert_eq!(fs::metadata(&binary).unwrap().modified().unwrap(), before);
    // While an exec is on its way in, its /proc/PID/exe is a file nobody can write to.
    let bundle = Bundle::sh(
        "while :; do for p in /proc/[0-9]*; do (echo x >> $p/exe) 2>/dev/null && echo written > /tmp/hit; done; done",
    )
    .with("process.capabilities", json!(null));
    bundle.up();
    for _ in 0..30 {
        bundle.exec("true").ok();
    }
    assert!(!bundle.rootfs().join("tmp/hit").exists());
    assert_eq!(fs::metadata(&binary).unwrap().modified().unwrap(), before);
}

#[test]
fn root_a_create_that_is_killed_leaves_nothing_that_delete_does_not_remove() {
    let bundle = Bundle::sleeping();
    for delay in 0..24u64 {
        fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
        let mut child = std::process::Command::new(ferry_testkit::tools::ferry())
            .args(["runtime", "--root"])
            .arg(bundle.state_root())
            .args(["create", "--bundle"])
            .arg(bundle.path())
            .arg("c")
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(delay * 400));
        let _ = child.kill();
        child.wait().unwrap();
        bundle.call(&["delete", "--force", "c"]).ok();
        wait_until("nothing is left", || bundle.leftovers().is_empty());
    }
}

#[test]
fn root_many_containers_come_and_go_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let bundle = Bundle::sh("exit 5");
                for _ in 0..10 {
                    assert_eq!(bundle.run().code, 5);
                }
                assert_eq!(bundle.leftovers(), [""; 0]);
            });
        }
    });
}
