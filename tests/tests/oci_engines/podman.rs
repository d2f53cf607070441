//! `podman --runtime`: no daemon; conmon calls the runtime.

use ferry_testkit::{Engines, Run, images, wait_until};

/// podman with Ferry, busybox loaded.
fn start() -> Option<Engines> {
    let engines = Engines::start()?;
    // For --userns=auto.
    engines.sh("echo containers:x:990:990::/:/bin/false >>/etc/passwd
         echo containers:2000000:1000000 | tee -a /etc/subuid >>/etc/subgid");
    podman(&engines, &["load", "-q"]).input(images::busybox_archive()).ok();
    Some(engines)
}

#[track_caller]
fn podman(engines: &Engines, line: &[&str]) -> Run {
    engines.podman(Engines::FERRY, line)
}

#[track_caller]
fn up(engines: &Engines, line: &[&str]) -> String {
    let parent = format!("--cgroup-parent={}", engines.cgroup());
    let id = podman(engines, &["run", "-d", &parent]).args(line).ok();
    engines.assert_ferry_runs(&id);
    id
}

#[test]
fn podman_runs_execs_pauses_and_stops() {
    let Some(engines) = start() else { return };
    let parent = format!("--cgroup-parent={}", engines.cgroup());
    // What scripts depend on is the same as with runc.
    let lines: [&[&str]; 9] = [
        &["busybox", "echo", "hello"],
        &["busybox", "sh", "-c", "echo out; echo err >&2; exit 7"],
        &["busybox", "nope"],
        &["busybox", "/etc/passwd"],
        &["busybox", "/nope"],
        &["busybox", "/etc"],
        &[
            "-u",
            "app",
            "-w",
            "/tmp",
            "-e",
            "A=1",
            "busybox",
            "sh",
            "-c",
            "id; pwd; echo $A",
        ],
        &[
            "--read-only",
            "--tmpfs",
            "/t",
            "--init",
            "busybox",
            "sh",
            "-c",
            "touch /t/x /x",
        ],
        &[
            "--memory",
            "64m",
            "--pids-limit",
            "50",
            "--cap-drop",
            "ALL",
            "busybox",
            "grep",
            "Cap",
            "/proc/self/status",
        ],
    ];
    for line in lines {
        let both = [Engines::FERRY, Engines::RUNC].map(|runtime| {
            let output = engines.podman(runtime, ["run", "--rm", &parent]).args(line).output();
            (output.code, output.stdout, output.stderr.replace(runtime, "RUNTIME"))
        });
        assert_eq!(both[0], both[1], "{line:?}");
    }

    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let id = up(
        &engines,
        &["--name", "c1", "--memory", "64m", "busybox", "sh", "-c", script],
    );
    wait_until("it is up", || podman(&engines, &["logs", "c1"]).ok() == "up");
    let line = [
        "exec",
        "-u",
        "app",
        "-w",
        "/tmp",
        "-e",
        "A=1",
        "c1",
        "sh",
        "-c",
        "id -u; pwd; echo $A; exit 9",
    ];
    let output = podman(&engines, &line).output();
    assert_eq!((output.code, &*output.stdout), (9, "1000\n/tmp\n1\n"), "{output:?}");
    podman(&engines, &["exec", "c1", "nope"]).output().fails(127);
    podman(&engines, &["exec", "c1", "/etc/passwd"]).output().fails(126);
    let status = || {
        podman(
            &engines,
            &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c1"],
        )
        .ok()
    };
    podman(&engines, &["pause", "c1"]).ok();
    assert_eq!(status(), "paused 0");
    podman(&engines, &["unpause", "c1"]).ok();
    assert_eq!(status(), "running 0");
    podman(&engines, &["update", "--memory", "32m", "--memory-swap", "32m", "c1"]).ok();
    assert_eq!(
        engines.limit(&format!("libpod-{id}"), "memory", "memory.limit_in_bytes"),
        "33554432"
    );
    podman(&engines, &["restart", "c1"]).ok();
    engines.assert_ferry_runs(&id);
    podman(&engines, &["stop", "c1"]).ok();
    assert_eq!(status(), "exited 3");
    podman(&engines, &["rm", "c1"]).ok();
    assert_eq!(engines.states(), []);
}

#[test]
fn a_pod_s_containers_share_its_namespaces() {
    let Some(engines) = start() else { return };
    let parent = format!("--cgroup-parent={}", engines.cgroup());
    let line = [
        "pod",
        "create",
        "--name",
        "p1",
        &parent,
        "--infra-image=busybox",
        "--infra-command=/bin/sleep 1000",
    ];
    podman(&engines, &line).ok();
    for name in ["c1", "c2"] {
        let id = podman(
            &engines,
            &["run", "-d", "--pod", "p1", "--name", name, "busybox", "sleep", "1000"],
        )
        .ok();
        engines.assert_ferry_runs(&id);
    }
    assert_eq!(engines.states().len(), 3, "two and the one that holds the namespaces");
    let of =
        |name: &str, kind: &str| podman(&engines, &["exec", name, "readlink", &format!("/proc/self/ns/{kind}")]).ok();
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(of("c1", kind), of("c2", kind), "{kind}");
    }
    for kind in ["mnt", "pid"] {
        assert_ne!(of("c1", kind), of("c2", kind), "{kind}");
    }
    podman(
        &engines,
        &["exec", "-d", "c1", "sh", "-c", "exec nc -ll -p 80 -e echo hi"],
    )
    .ok();
    wait_until("one answers the other", || {
        podman(&engines, &["exec", "c2", "nc", "-w", "1", "127.0.0.1", "80"])
            .output()
            .stdout
            == "hi\n"
    });
    let status = || podman(&engines, &["pod", "inspect", "-f", "{{.State}}", "p1"]).ok();
    assert_eq!(status(), "Running");
    podman(&engines, &["pod", "pause", "p1"]).ok();
    assert_eq!(status(), "Paused");
    podman(&engines, &["pod", "unpause", "p1"]).ok();
    podman(&engines, &["pod", "stop", "-t", "0", "p1"]).ok();
    assert_eq!(status(), "Exited");
    podman(&engines, &["pod", "rm", "p1"]).ok();
    assert_eq!(engines.states(), []);
}

#[test]
fn podman_gives_containers_user_namespaces_of_their_own() {
    let Some(engines) = start() else { return };
    let first = up(
        &engines,
        &["--userns=auto:size=1000", "--name", "c1", "busybox", "sleep", "1000"],
    );
    let second = up(
        &engines,
        &["--userns=auto:size=1000", "--name", "c2", "busybox", "sleep", "1000"],
    );
    let map = |id: &str| podman(&engines, &["exec", id, "cat", "/proc/self/uid_map"]).ok();
    assert_ne!(map(&first), map(&second));
    podman(&engines, &["exec", "c1", "sh", "-c", "touch /x && chown 100 /x"]).ok();
    for name in ["c1", "c2"] {
        podman(&engines, &["rm", "-f", "-t", "0", name]).ok();
    }
}
