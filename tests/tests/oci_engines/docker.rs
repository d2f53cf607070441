//! dockerd's containers through their life.

use std::time::Duration;

use ferry_testkit::{Engines, wait_until, wait_within};

/// Starts a container and proves that it is Ferry's.
#[track_caller]
fn up(engines: &Engines, line: &[&str]) -> String {
    let id = engines.docker(["run", "-d"]).args(line).ok();
    engines.assert_ferry_runs(&id);
    id
}

#[track_caller]
fn inspect(engines: &Engines, format: &str, name: &str) -> String {
    engines.docker(["inspect", "-f", format, name]).ok()
}

#[track_caller]
fn status(engines: &Engines, name: &str) -> String {
    inspect(engines, "{{.State.Status}}", name)
}

const SLEEP: [&str; 3] = ["busybox", "sleep", "1000"];

#[test]
fn a_container_is_paused_stopped_restarted_and_killed() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done";
    let id = up(&engines, &["--name", "c1", "busybox", "sh", "-c", script]);
    let logs = |wanted: &str| wait_until(wanted, || engines.docker(["logs", "c1"]).ok() == wanted);
    logs("up");
    let pid = inspect(&engines, "{{.State.Pid}}", "c1");

    engines.docker(["pause", "c1"]).ok();
    assert_eq!(status(&engines, "c1"), "paused");
    assert_eq!(engines.limit(&id, "freezer", "freezer.state"), "FROZEN");
    let error = engines.docker(["exec", "c1", "true"]).output().fails(1);
    assert!(error.contains("is paused"), "{error}");
    engines.docker(["unpause", "c1"]).ok();
    assert_eq!(status(&engines, "c1"), "running");
    assert_eq!(engines.limit(&id, "freezer", "freezer.state"), "THAWED");
    assert_eq!(inspect(&engines, "{{.State.Pid}}", "c1"), pid);

    engines.docker(["kill", "-s", "USR1", "c1"]).ok();
    logs("up\nusr1");
    engines.docker(["stop", "c1"]).ok();
    assert_eq!(
        inspect(&engines, "{{.State.Status}} {{.State.ExitCode}}", "c1"),
        "exited 3"
    );
    assert_eq!(engines.states(), [], "a container that has ended has no state");
    engines.docker(["start", "c1"]).ok();
    engines.assert_ferry_runs(&id);
    logs("up\nusr1\nterm\nup");
    engines.docker(["restart", "c1"]).ok();
    engines.assert_ferry_runs(&id);
    logs("up\nusr1\nterm\nup\nterm\nup");
    // One that is paused can be killed, too.
    engines.docker(["pause", "c1"]).ok();
    engines.docker(["kill", "c1"]).ok();
    assert_eq!(
        inspect(&engines, "{{.State.Status}} {{.State.ExitCode}}", "c1"),
        "exited 137"
    );
    engines.docker(["rm", "c1"]).ok();

    // A policy of restarts ends with its count.
    let line = [
        "--name",
        "c2",
        "--restart",
        "on-failure:2",
        "busybox",
        "sh",
        "-c",
        "exit 4",
    ];
    engines.docker(["run", "-d"]).args(line).ok();
    wait_until("two restarts", || {
        inspect(
            &engines,
            "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}",
            "c2",
        ) == "2 exited 4"
    });
}

#[test]
fn limits_are_set_updated_and_read_back() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    let line = "--name limited --memory 32m --memory-swap 32m --cpu-shares 300 --pids-limit 50";
    let id = up(&engines, &[&line.split(' ').collect::<Vec<_>>()[..], &SLEEP].concat());
    let limits = || {
        [
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.memsw.limit_in_bytes"),
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.cfs_quota_us"),
            ("pids", "pids.max"),
        ]
        .map(|(controller, file)| engines.limit(&id, controller, file))
        .join(" ")
    };
    assert_eq!(limits(), "33554432 33554432 300 -1 50");
    let update = "update --memory 64m --memory-swap 128m --cpu-shares 500 --cpus 0.5 --pids-limit 60 --cpuset-cpus 0";
    engines.docker(update.split(' ')).args(["limited"]).ok();
    assert_eq!(limits(), "67108864 134217728 500 50000 60");
    assert_eq!(engines.limit(&id, "cpuset", "cpuset.cpus"), "0");
    let allowed = engines
        .docker(["exec", "limited", "grep", "Cpus_allowed_list", "/proc/1/status"])
        .ok();
    assert_eq!(allowed, "Cpus_allowed_list:\t0");
    let smaller = [
        "update",
        "--memory",
        "8m",
        "--memory-swap",
        "8m",
        "--pids-limit",
        "-1",
        "limited",
    ];
    engines.docker(smaller).ok();
    assert_eq!(limits(), "8388608 8388608 500 50000 max");

    let stats = ["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", "limited"];
    let stats = engines.docker(stats).ok();
    assert!(stats.starts_with("1 ") && stats.ends_with("/ 8MiB"), "{stats}");
    let top = engines.docker(["top", "limited", "-o", "pid,args"]).ok();
    assert!(top.ends_with(" sleep 1000"), "{top}");
}

#[test]
fn what_needs_too_much_memory_is_killed_and_said_to_be() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    let line = "run --name c1 --memory 16m --memory-swap 16m busybox tail /dev/zero";
    engines.docker(line.split(' ')).output().fails(137);
    assert_eq!(
        inspect(&engines, "{{.State.OOMKilled}} {{.State.ExitCode}}", "c1"),
        "true 137"
    );
    // One of several processes: the container goes on.
    let line = ["--name", "c2", "--memory", "16m", "--memory-swap", "16m"];
    up(&engines, &[&line[..], &SLEEP].concat());
    engines.docker(["exec", "c2", "tail", "/dev/zero"]).output().fails(137);
    assert_eq!(status(&engines, "c2"), "running");
    wait_until("it is noticed", || {
        inspect(&engines, "{{.State.OOMKilled}}", "c2") == "true"
    });
}

#[test]
fn health_checks_find_out_what_is_healthy_and_what_is_not() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    let often = [
        "--health-interval=200ms",
        "--health-retries=2",
        "--health-cmd",
        "test -e /tmp/well",
        "--name",
        "c1",
    ];
    up(&engines, &[&often[..], &SLEEP].concat());
    let becomes = |wanted: &str| {
        wait_within(Duration::from_secs(15), wanted, || {
            inspect(&engines, "{{.State.Health.Status}}", "c1") == wanted
        });
    };
    becomes("unhealthy");
    engines.docker(["exec", "c1", "touch", "/tmp/well"]).ok();
    becomes("healthy");
    engines.docker(["exec", "c1", "rm", "/tmp/well"]).ok();
    becomes("unhealthy");
}

#[test]
fn containers_share_namespaces_with_each_other() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    up(
        &engines,
        &[&["--name", "first", "--ipc", "shareable"][..], &SLEEP].concat(),
    );
    let shared = ["--pid", "--network", "--ipc"].map(|flag| format!("{flag}=container:first"));
    let mut line = vec!["--name", "second"];
    line.extend(shared.iter().map(String::as_str));
    up(&engines, &[&line[..], &SLEEP].concat());
    let of = |name: &str, kind: &str| {
        let path = format!("/proc/self/ns/{kind}");
        engines.docker(["exec", name, "readlink", &path]).ok()
    };
    for kind in ["pid", "net", "ipc"] {
        assert_eq!(of("first", kind), of("second", kind), "{kind}");
    }
    assert_ne!(of("first", "mnt"), of("second", "mnt"));
    // What listens in one answers in the other.
    engines
        .docker(["exec", "-d", "first", "sh", "-c", "exec nc -ll -p 80 -e echo hi"])
        .ok();
    wait_until("a greeting", || {
        let line = ["exec", "second", "nc", "-w", "1", "127.0.0.1", "80"];
        engines.docker(line).output().stdout == "hi\n"
    });
    engines.docker(["kill", "first"]).ok();
    wait_until("the second ends with the first's PID namespace", || {
        status(&engines, "second") == "exited"
    });
}

#[test]
fn many_containers_come_and_go_at_once() {
    let Some(engines) = Engines::with_docker() else {
        return;
    };
    engines.assert_docker_uses_ferry();
    let line =
        "i=0; while [ $i -lt 4 ]; do docker run --rm busybox sh -c 'exit 7'; [ $? = 7 ] || exit 1; i=$((i+1)); done";
    std::thread::scope(|scope| {
        let workers = [(); 4].map(|()| scope.spawn(|| engines.sh(&format!("set +e; {line}"))));
        for worker in workers {
            worker.join().unwrap();
        }
    });
    assert_eq!(engines.states(), []);
}
