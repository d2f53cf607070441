//! Attach, freeze, kill, remove.

use std::io::Read;
use std::time::{Duration, Instant};

use ferry_cgroup::Error;

use super::testbed::{eventually, resources, testbed};

#[test]
fn a_process_that_writes_zero_to_tasks_is_in_every_hierarchy() {
    let Some(mut bed) = testbed("{}") else { return };
    assert!(bed.warnings.is_empty(), "{:?}", bed.warnings);
    let path = bed.cgroup.path().to_owned();
    let mut stdout = bed.shell("cat /proc/self/cgroup").stdout.take().unwrap();
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    for controller in [
        "memory", "cpu", "cpuset", "cpuacct", "pids", "devices", "freezer", "blkio",
    ] {
        assert!(
            text.contains(&format!(":{controller}:/{path}\n")),
            "{controller} in {text}"
        );
    }
}

#[test]
fn attaching_does_not_wait_for_a_grace_period() {
    let Some(bed) = testbed("{}") else { return };
    let enter = || {
        // Idle time lets the grace period machinery fall asleep, which is when waiting for it shows.
        std::thread::sleep(Duration::from_millis(100));
        let started = Instant::now();
        bed.cgroup.enter().unwrap();
        started.elapsed()
    };
    // The best of a few: tests beside this one hold the kernel's cgroup lock now and then.
    let took = std::thread::scope(|scope| scope.spawn(|| (0..5).map(|_| enter()).min()).join())
        .unwrap()
        .unwrap();
    println!("enter: {took:?}");
    assert!(took < Duration::from_millis(6), "{took:?}");
}

#[test]
fn a_frozen_group_makes_no_progress_until_thawed() {
    let Some(mut bed) = testbed("{}") else { return };
    bed.shell("while :; do :; done");
    let usage = |bed: &super::testbed::Testbed| bed.cgroup.stats().unwrap().cpu.total;
    eventually("progress", || usage(&bed) > 1_000_000);
    bed.cgroup.freeze().unwrap();
    let frozen = usage(&bed);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(usage(&bed), frozen);
    bed.cgroup.thaw().unwrap();
    eventually("progress after thaw", || usage(&bed) > frozen);
}

#[test]
fn kill_ends_forking_nested_and_frozen_processes() {
    let Some(mut bed) = testbed("{}") else { return };
    let nested = format!("{}/inner", bed.cgroup.path());
    let (inner, _) = bed.hierarchy.create(&nested, &resources("{}")).unwrap();
    bed.shell("while :; do sleep 0.001 & done");
    bed.shell(&format!(
        "echo $$ > /sys/fs/cgroup/freezer/{nested}/cgroup.procs; sleep 1000 & sleep 1000"
    ));
    eventually("the nested processes", || inner.pids().unwrap().len() == 3);
    assert!(bed.cgroup.pids().unwrap().len() > 3);
    inner.freeze().unwrap();
    bed.cgroup.kill(9).unwrap();
    assert!(bed.cgroup.pids().unwrap().is_empty());
    bed.cgroup.remove().unwrap();
    assert!(matches!(bed.cgroup.pids(), Err(Error::NotFound(_))));
    bed.cgroup.remove().unwrap();
}

#[test]
fn another_signal_reaches_all_and_ends_only_who_wants() {
    let Some(mut bed) = testbed("{}") else { return };
    bed.shell("trap '' TERM; while :; do sleep 0.01; done");
    bed.shell("sleep 1000");
    eventually("both", || bed.cgroup.pids().unwrap().len() >= 2);
    std::thread::sleep(Duration::from_millis(50));
    bed.cgroup.kill(15).unwrap();
    eventually("one left", || !bed.cgroup.pids().unwrap().is_empty());
    assert!(matches!(bed.cgroup.kill(99), Err(Error::Invalid { .. })));
}

#[test]
fn removing_the_parent_waits_for_the_last_child() {
    let Some(bed) = testbed("{}") else { return };
    bed.hierarchy.remove_empty(&bed.parent).unwrap();
    assert!(bed.hierarchy.open(&bed.parent).is_ok());
    bed.cgroup.remove().unwrap();
    bed.hierarchy.remove_empty(&bed.parent).unwrap();
    assert!(matches!(bed.hierarchy.open(&bed.parent), Err(Error::NotFound(_))));
    assert!(matches!(bed.hierarchy.open(bed.cgroup.path()), Err(Error::NotFound(_))));
}
