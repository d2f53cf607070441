//! Limits by control group: each is hit, and what took effect is read back.

use std::time::Duration;

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Engine, TestDaemon, wait_until};

/// A control file of the container's own group, read from inside: v1 below the controller, v2 at the top.
fn control(engine: &Engine, container: &str, v1: &str, v2: &str) -> String {
    let script = format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    engine.cli(["exec", container, "sh", "-c", &script]).ok()
}

#[test]
fn more_memory_than_allowed_is_killed_and_told() {
    let engine = Engine::start();
    engine.busybox();
    let output = engine.cli(["run", "--name", "c1", "-m", "32m", BUSYBOX, "tail", "/dev/zero"]);
    assert_eq!(output.code, 137);
    assert_eq!(engine.field("c1", "/State/OOMKilled"), "true");
    assert_eq!(engine.field("c1", "/State/ExitCode"), "137");
    engine.cli(["run", "--name", "d1", "-m", "32m", BUSYBOX, "true"]).ok();
    assert_eq!(engine.field("d1", "/State/OOMKilled"), "false");
}

#[test]
fn a_child_that_is_killed_for_memory_leaves_the_container() {
    let engine = Engine::start();
    let seen = engine.try_sh(&["-m", "32m"], "tail /dev/zero; echo child $?");
    assert_eq!((seen.stdout.as_str(), seen.code), ("child 137\n", 0), "{seen:?}");
}

#[test]
fn memory_limits_are_in_force() {
    let engine = Engine::start();
    engine.sleeper("c1", &["-m", "64m", "--memory-swap", "96m"]);
    assert_eq!(
        control(&engine, "c1", "memory/memory.limit_in_bytes", "memory.max"),
        "67108864"
    );
    assert_eq!(engine.field("c1", "/HostConfig/MemorySwap"), "100663296");
    engine.sleeper("d1", &["-m", "64m"]);
    assert_eq!(engine.field("d1", "/HostConfig/MemorySwap"), "134217728");
}

#[test]
fn the_pids_limit_refuses_a_fork() {
    let engine = Engine::start();
    let output = engine.try_sh(
        &["--pids-limit", "10"],
        "for n in $(seq 20); do sleep 5 & done; echo never",
    );
    assert!(
        format!("{output:?}").contains("Resource temporarily unavailable")
            || format!("{output:?}").contains("can't fork"),
        "{output:?}"
    );
    engine.sleeper("c1", &["--pids-limit", "10"]);
    assert_eq!(control(&engine, "c1", "pids/pids.max", "pids.max"), "10");
}

#[test]
fn a_quarter_of_a_processor_is_a_quarter() {
    let engine = Engine::start();
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "--name",
            "c1",
            "--cpus",
            "0.25",
            BUSYBOX,
            "sh",
            "-c",
            "while true; do :; done",
        ])
        .ok();
    let used = || -> u64 {
        let text = control(&engine, "c1", "cpuacct/cpuacct.usage", "cpu.stat");
        // v1 counts nanoseconds in one number; v2 has `usage_usec N` first.
        let number: u64 = text.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        if text.starts_with("usage_usec") {
            number
        } else {
            number / 1000
        }
    };
    let (start, before) = (std::time::Instant::now(), used());
    std::thread::sleep(Duration::from_secs(3));
    let share = (used() - before) as f64 / start.elapsed().as_micros() as f64;
    assert!(
        (0.10..0.35).contains(&share),
        "used {share} of a processor, allowed was 0.25"
    );
}

#[test]
fn processors_can_be_chosen() {
    let engine = Engine::start();
    assert_eq!(
        engine.sh(
            &["--cpuset-cpus", "1"],
            "grep Cpus_allowed_list /proc/self/status | cut -f2"
        ),
        "1"
    );
    let message = engine.try_sh(&["--cpuset-cpus", "4000"], "true").fails(125);
    assert!(
        message.contains("Requested CPUs are not available - requested 4000, available: 0-1"),
        "{message}"
    );
}

#[test]
fn shares_are_in_force() {
    let engine = Engine::start();
    engine.sleeper("c1", &["--cpu-shares", "512"]);
    // v2's weight of 512 shares: 1 + (512 - 2) * 9999 / 262142 = 20, or 59 by runc's newer formula.
    let value = control(&engine, "c1", "cpu/cpu.shares", "cpu.weight");
    assert!(["512", "20", "59"].contains(&value.as_str()), "{value}");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let engine = Engine::start();
    for (options, wanted) in [
        (&["-m", "1m"][..], "Minimum memory limit allowed is 6MB"),
        (
            &["-m", "64m", "--memory-swap", "32m"],
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (&["--cpus", "4000"], "range of CPUs is from 0.01 to"),
        (
            &["-m", "much"],
            "invalid argument \"much\" for \"-m, --memory\" flag: invalid size: 'much'",
        ),
        (
            &["--cpus", "x"],
            "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
        ),
        (
            &["--pids-limit", "x"],
            "invalid argument \"x\" for \"--pids-limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            &["--memory-swap", "64m"],
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (&["--ulimit", "nope=1"], "invalid ulimit type: nope"),
        (
            &["--ulimit", "nofile=5:1"],
            "ulimit soft limit must be less than or equal to hard limit: 5 > 1",
        ),
        (&["--cpuset-cpus", "x"], "Invalid value x for cpuset cpus"),
    ] {
        let message = engine.try_sh(options, "true").fails(125);
        assert!(message.contains(wanted), "{options:?}: {message}");
    }
    assert_eq!(engine.cli(["ps", "-aq"]).ok(), "");
}

#[test]
fn shared_memory_counts() {
    let engine = Engine::start();
    let output = engine.try_sh(
        &["-m", "32m", "--shm-size", "200m"],
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=100",
    );
    assert_ne!(output.code, 0);
    wait_until("the engine is well", || engine.api("GET", "/_ping", None).0 == 200);
}

#[test]
fn a_shells_limit_on_open_files_is_the_containers_and_not_the_engines() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: Some(1024),
        maximum: hard,
    };
    setrlimit(Resource::Nofile, wanted).unwrap();
    let daemon = TestDaemon::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.engine_pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let values: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values[0], values[1], "{line}");
    daemon.busybox();
    assert_eq!(daemon.sh(&[], "ulimit -Sn"), "1024");
    daemon.sleeper("c1", &[]);
    assert_eq!(daemon.cli(["exec", "c1", "sh", "-c", "ulimit -Sn"]).ok(), "1024");
}
