//! The engine on demand: started by root's command line when none answers, and gone when nobody needs it.

use std::time::Duration;

use ferry_testkit::images::{self, BUSYBOX};
use ferry_testkit::{Machine, tools, wait_within};
use serde_json::json;

/// Seconds after which the engine is idle enough, and what an end may take on top.
const IDLE: u64 = 2;
const END: Duration = Duration::from_secs(15);

const STARTED: &str = "ferry: started the engine (it ends itself when idle)";

fn machine() -> Machine {
    Machine::start(json!({ "idle-exit": IDLE }))
}

#[test]
fn the_first_command_starts_an_engine_says_so_once_and_it_ends_itself() {
    let machine = machine();
    let first = machine.ferry().args(["run", "--rm", "ferry/hello"]).output();
    assert_eq!((first.code, first.stderr.trim_end()), (0, STARTED), "{first:?}");
    assert!(first.stdout.contains("PID 1"), "{first:?}");
    let second = machine.ferry().args(["ps", "-aq"]).output();
    assert_eq!((second.code, &*second.stdout, &*second.stderr), (0, "", ""));
    assert_eq!(machine.engines().len(), 1);
    machine.wait_for_end(END);
    assert_eq!(
        machine.sh("ls /run/ferry/*.sock /run/ferry.pid 2>/dev/null || true"),
        ""
    );
    // And again, on what the first one left.
    let third = machine.ferry().args(["images", "-q", "ferry/hello"]).output();
    assert_eq!(third.stderr.trim_end(), STARTED);
    assert_eq!(third.ok().len(), 12);
    machine.wait_for_end(END);
}

/// A copy, and no link: the engine is the same file, and must not take itself for a command line that starts an engine.
#[test]
fn a_copy_named_docker_starts_one_engine() {
    let machine = machine();
    let docker = machine.dir().join("docker");
    std::fs::copy(ferry_testkit::tools::ferry(), &docker).unwrap();
    let first = machine.run(&docker).args(["images", "-q"]).output();
    assert_eq!((first.code, first.stderr.lines().count()), (0, 1), "{first:?}");
    assert_eq!(machine.engines().len(), 1);
    machine.wait_for_end(END);
}

#[test]
fn an_engine_on_demand_stays_while_a_container_runs_and_comes_back_to_it() {
    let machine = machine();
    machine.ferry().args(["load"]).input(images::busybox_archive()).ok();
    let sleep = ["run", "-d", "--name", "c1", BUSYBOX, "sleep", "1000"];
    machine.ferry().args(sleep).ok();
    std::thread::sleep(Duration::from_secs(2 * IDLE));
    let [engine] = machine.engines()[..] else {
        panic!("one engine runs")
    };
    machine.sh("kill -9 $(cat /run/ferry.pid)");
    wait_within(END, "the engine is gone", || !machine.engines().contains(&engine));
    let told = machine.ferry().args(["exec", "c1", "echo", "alive"]).output();
    assert_eq!((&*told.stdout, told.stderr.trim_end()), ("alive\n", STARTED));
    machine.ferry().args(["rm", "-f", "c1"]).ok();
    machine.wait_for_end(END);
}

#[test]
fn commands_at_the_same_time_start_one_engine() {
    let machine = machine();
    let commands: Vec<_> = (0..8).map(|_| machine.ferry().args(["ps", "-q"]).spawn()).collect();
    for command in commands {
        let output = command.finish();
        assert_eq!((output.code, &*output.stdout), (0, ""), "{output:?}");
    }
    // Those that came too late may still be on their way out.
    wait_within(END, "one engine is left", || machine.engines().len() == 1);
    machine.wait_for_end(END);
}

#[test]
fn nobody_but_root_and_no_other_host_starts_one() {
    let machine = machine();
    let ferry = ferry_testkit::tools::ferry().display().to_string();
    let drop = ["--reuid", "65534", "--regid", "65534", "--clear-groups", &ferry, "ps"];
    let refused = machine.run("setpriv").args(drop).output();
    assert_ne!(refused.code, 0);
    assert!(!refused.stderr.contains(STARTED), "{refused:?}");
    machine
        .ferry()
        .args(["-H", "unix:///run/other.sock", "ps"])
        .output()
        .fails(1);
    machine.ferry().args(["--help"]).ok();
    assert!(machine.engines().is_empty());
}

#[test]
fn members_of_the_docker_group_reach_it_however_it_was_started() {
    let machine = machine();
    machine.sh("echo docker:x:4242: >> /etc/group");
    let ferry = ferry_testkit::tools::ferry().display().to_string();
    let look = "stat -c '%a %u %g' /run/ferry /run/ferry/ferry.sock";
    let member = |args: &[&str]| {
        let drop = ["--reuid", "65534", "--regid", "65534", "--groups", "4242", &ferry];
        machine.run("setpriv").args(drop).args(args).output()
    };
    machine.ferry().args(["ps"]).ok();
    assert_eq!(machine.sh(look), "750 0 4242\n660 0 4242");
    assert_eq!(member(&["ps", "-q"]).ok(), "");
    machine.wait_for_end(END);
    machine.sh("rm -r /run/ferry");
    let engine = machine.ferry().args(["daemon"]).spawn();
    wait_within(END, "the engine listens", || {
        machine.run("test").args(["-S", "/run/ferry/ferry.sock"]).output().code == 0 && member(&["ps"]).code == 0
    });
    assert_eq!(machine.sh(look), "750 0 4242\n660 0 4242");
    // Idle like the other: the file says so.
    machine.wait_for_end(END);
    engine.finish().ok();
}

/// The name alone makes it the command line: the engine is started as Ferry, and not as one more command that starts one.
#[test]
fn a_copy_called_docker_starts_one_engine() {
    let machine = machine();
    let copy = format!("cp {} /run/docker; /run/docker ps -aq 2>&1", tools::ferry().display());
    assert_eq!(machine.sh(&copy).trim_end(), STARTED);
    assert_eq!(machine.engines().len(), 1);
    machine.wait_for_end(END);
}
