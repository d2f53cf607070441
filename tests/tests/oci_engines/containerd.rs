//! containerd's shim with `--runc-binary`.

use ferry_testkit::{Engines, Pty, Run, images, wait_until};

const IMAGE: &str = "docker.io/library/busybox:latest";

fn start() -> Option<Engines> {
    let engines = Engines::start()?;
    engines.start_containerd();
    engines
        .ctr(["image", "import", "-"])
        .input(images::busybox_archive())
        .ok();
    Some(engines)
}

/// `ctr run` with a runtime and a control group below the machine's own.
#[track_caller]
fn run(engines: &Engines, runtime: &str, flags: &[&str], id: &str, line: &[&str]) -> Run {
    let group = format!("{}/{id}", engines.cgroup());
    engines
        .ctr(["run", "--runc-binary", runtime, "--cgroup", &group])
        .args(flags)
        .args([IMAGE, id])
        .args(line)
}

#[track_caller]
fn status(engines: &Engines, id: &str) -> String {
    let list = engines.ctr(["task", "ls"]).ok();
    let line = list.lines().find(|line| line.starts_with(id)).unwrap_or_default();
    line.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

#[test]
fn ctr_runs_what_it_runs_with_runc() {
    let Some(engines) = start() else { return };
    // Those below are gone too soon to be looked at.
    run(&engines, Engines::FERRY, &["-d"], "c0", &["sleep", "1000"]).ok();
    engines.assert_ferry_runs("c0");
    engines.ctr(["task", "delete", "--force", "c0"]).output();
    engines.ctr(["container", "rm", "c0"]).ok();
    let lines: [&[&str]; 6] = [
        &["echo", "hello"],
        &["sh", "-c", "echo out; echo err >&2; exit 7"],
        &["nope"],
        &["/etc/passwd"],
        &["/nope"],
        &[
            "sh",
            "-c",
            "grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ulimit -n; umask; id; awk '{print $5}' /proc/self/mountinfo | grep -v ^/sys | sort",
        ],
    ];
    for line in lines {
        let both = [Engines::FERRY, Engines::RUNC].map(|runtime| {
            let output = run(&engines, runtime, &["--rm"], "c1", line).output();
            (output.code, output.stdout, output.stderr)
        });
        assert_eq!(both[0], both[1], "{line:?}");
    }
    assert_eq!(engines.states(), []);
}

#[test]
fn a_task_is_paused_entered_updated_killed_and_deleted() {
    let Some(engines) = start() else { return };
    let flags = ["-d", "--memory-limit", "33554432", "--pid-file", "/run/c1.pid"];
    run(&engines, Engines::FERRY, &flags, "c1", &["sleep", "1000"]).ok();
    engines.assert_ferry_runs("c1");
    assert_eq!(status(&engines, "c1"), "RUNNING");
    assert_eq!(engines.limit("c1", "memory", "memory.limit_in_bytes"), "33554432");
    let exec = |name: &str, line: &[&str]| engines.ctr(["task", "exec", "--exec-id", name]).args(line).output();
    assert_eq!(exec("e1", &["c1", "echo", "hello"]).ok(), "hello");
    assert_eq!(exec("e2", &["c1", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(
        exec(
            "e3",
            &["--user", "1000", "--cwd", "/tmp", "c1", "sh", "-c", "id -u; pwd"]
        )
        .ok(),
        "1000\n/tmp"
    );
    let error = exec("e4", &["c1", "nope"]).fails(1);
    assert!(
        error.contains("exec: \"nope\": executable file not found in $PATH"),
        "{error}"
    );
    engines.ctr(["task", "pause", "c1"]).ok();
    assert_eq!(status(&engines, "c1"), "PAUSED");
    engines.ctr(["task", "resume", "c1"]).ok();
    assert_eq!(status(&engines, "c1"), "RUNNING");
    let pid = std::fs::read_to_string(engines.path("/run/c1.pid")).unwrap();
    assert!(engines.ctr(["task", "ps", "c1"]).ok().contains(pid.trim()));
    let metrics = engines.ctr(["task", "metrics", "c1"]).ok();
    assert!(metrics.contains("memory.usage_in_bytes"), "{metrics}");

    engines.ctr(["task", "kill", "--signal", "KILL", "c1"]).ok();
    wait_until("it has ended", || status(&engines, "c1") == "STOPPED");
    // It passes the program's exit code on.
    let ended = engines.ctr(["task", "delete", "c1"]).output();
    assert!(ended.stderr.contains("exit code 137"), "{ended:?}");
    engines.ctr(["container", "rm", "c1"]).ok();
    assert_eq!(engines.states(), []);
}

#[test]
fn a_task_has_a_terminal() {
    let Some(engines) = start() else { return };
    let flags = ["--rm", "-t", "--env", "PS1=ready>"];
    let mut pty = Pty::spawn(&run(&engines, Engines::FERRY, &flags, "c1", &["sh"]).into_command());
    pty.expect("ready>");
    engines.assert_ferry_runs("c1");
    pty.send("tty; exit 4\n");
    pty.expect("/dev/pts/0");
    assert_eq!(pty.wait(), 4);
    wait_until("nothing is left", || engines.states().is_empty());
}
