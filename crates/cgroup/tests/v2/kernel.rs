//! Freezing, killing and removing need no controller.

use std::time::Duration;

use ferry_cgroup::Error;
use oci_spec::runtime::LinuxResources;

use super::testbed::{Testbed, eventually, testbed};

#[test]
fn a_frozen_group_makes_no_progress_until_thawed() {
    let Some(mut bed) = testbed() else { return };
    let path = bed.cgroup.path().to_owned();
    bed.shell(&path, "while :; do :; done");
    let usage = |bed: &Testbed| bed.cgroup.stats().unwrap().cpu.total;
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
    let Some(mut bed) = testbed() else { return };
    let path = bed.cgroup.path().to_owned();
    let nested = format!("{path}/inner");
    let (inner, _) = bed.hierarchy.create(&nested, &LinuxResources::default()).unwrap();
    // Beside it and not above it: a group that hands controllers down holds no processes.
    let forking = format!("{path}/forking");
    bed.hierarchy.create(&forking, &LinuxResources::default()).unwrap();
    bed.shell(&forking, "while :; do sleep 0.001 & done");
    let pid = bed.shell(&nested, "sleep 1000 & sleep 1000; true");
    eventually("the nested processes", || inner.pids().unwrap().len() == 3);
    assert!(bed.cgroup.pids().unwrap().contains(&i32::try_from(pid).unwrap()));
    inner.freeze().unwrap();
    bed.cgroup.kill(9).unwrap();
    assert!(bed.cgroup.pids().unwrap().is_empty());
    bed.cgroup.remove().unwrap();
    assert!(matches!(bed.cgroup.pids(), Err(Error::NotFound(_))));
    bed.cgroup.remove().unwrap();
}

#[test]
fn an_unknown_group_is_not_found_and_a_parent_in_use_stays() {
    let Some(bed) = testbed() else { return };
    assert!(matches!(
        bed.hierarchy.open("ferry-test-nothing"),
        Err(Error::NotFound(_))
    ));
    bed.hierarchy.remove_empty(&bed.parent).unwrap();
    assert!(bed.hierarchy.open(&bed.parent).is_ok());
}
