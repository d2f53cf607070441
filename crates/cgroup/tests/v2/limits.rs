//! Every limit in the kernel's own words, where v2 has the controllers.

use std::os::unix::fs::MetadataExt as _;

use ferry_cgroup::{Error, Warning};
use oci_spec::runtime::LinuxResources;

use super::testbed::{Testbed, eventually, testbed};

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn with_controllers() -> Option<Testbed> {
    testbed().filter(Testbed::has_controllers)
}

/// The number of the disk that the root file system is on.
fn disk() -> (u64, u64) {
    let device = std::fs::metadata("/").unwrap().dev();
    (rustix::fs::major(device).into(), rustix::fs::minor(device).into())
}

#[test]
fn root_limits_hold_as_they_were_asked_for() {
    let Some(bed) = with_controllers() else { return };
    let (major, minor) = disk();
    let json = format!(
        r#"{{"memory": {{"limit": 67108864, "swap": 100663296, "reservation": 33554432}},
            "cpu": {{"shares": 512, "quota": 25000, "period": 50000, "cpus": "0", "mems": "0"}},
            "pids": {{"limit": 20}},
            "blockIO": {{"throttleWriteBpsDevice": [{{"major": {major}, "minor": {minor}, "rate": 1048576}}],
                "throttleReadIOPSDevice": [{{"major": {major}, "minor": {minor}, "rate": 100}}]}},
            "unified": {{"memory.high": "50331648"}}}}"#
    );
    assert_eq!(bed.cgroup.update(&resources(&json)).unwrap(), []);
    for (file, wanted) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        ("memory.high", "50331648"),
        ("cpu.weight", "59"),
        ("cpu.max", "25000 50000"),
        ("cpuset.cpus", "0"),
        ("cpuset.cpus.effective", "0"),
        ("cpuset.mems.effective", "0"),
        ("pids.max", "20"),
    ] {
        assert_eq!(bed.held(file), wanted, "{file}");
    }
    let io = format!("{major}:{minor} rbps=max wbps=1048576 riops=100 wiops=max");
    assert_eq!(bed.held("io.max"), io);
    let limits = bed.cgroup.stats().unwrap();
    assert_eq!((limits.memory.limit, limits.pids.limit), (Some(67_108_864), Some(20)));
}

#[test]
fn root_what_was_set_before_a_refusal_is_put_back() {
    let Some(bed) = with_controllers() else { return };
    let (major, minor) = disk();
    let throttle = |rate: u64| format!(r#"{{"major": {major}, "minor": {minor}, "rate": {rate}}}"#);
    let limits = |memory: u64, cpu: &str, rates: &str, last: &str| {
        resources(&format!(
            r#"{{"memory": {{"limit": {memory}, "swap": {memory}}}, "cpu": {{{cpu}}}, "pids": {{"limit": {}}},
                "blockIO": {{"throttleReadBpsDevice": [{rates}]}}{last}}}"#,
            memory >> 20
        ))
    };
    let files = [
        "memory.max",
        "memory.swap.max",
        "memory.high",
        "cpu.idle",
        "cpu.weight",
        "cpu.max",
        "pids.max",
        "io.max",
    ];
    let held = || files.map(|file| bed.held(file));
    let nowhere = format!(r#"{}, {{"major": 250, "minor": 250, "rate": 1}}"#, throttle(7_340_032));
    let unknown = r#", "unified": {"memory.high": "16777216", "zzz.max": "1"}"#;
    // Without limits, and with some.
    for _ in 0..2 {
        let before = held();
        let refused = limits(67_108_864, r#""idle": 1, "quota": 90000"#, &nowhere, "");
        let error = bed.cgroup.update(&refused).unwrap_err();
        assert!(
            matches!(&error, Error::Refused { file, .. } if file.ends_with("io.max")),
            "{error}"
        );
        assert_eq!(held(), before);
        let refused = limits(
            67_108_864,
            r#""idle": 1, "quota": 90000"#,
            &throttle(7_340_032),
            unknown,
        );
        assert!(matches!(bed.cgroup.update(&refused), Err(Error::Invalid { .. })));
        assert_eq!(held(), before);
        let some = limits(33_554_432, r#""shares": 512, "quota": 25000"#, &throttle(1_048_576), "");
        assert_eq!(bed.cgroup.update(&some).unwrap(), []);
    }
}

#[test]
fn root_limits_are_lifted_again() {
    let Some(bed) = with_controllers() else { return };
    let (major, minor) = disk();
    let throttle = |rate: u64| {
        resources(&format!(
            r#"{{"blockIO": {{"throttleWriteBpsDevice": [{{"major": {major}, "minor": {minor}, "rate": {rate}}}]}}}}"#
        ))
    };
    bed.cgroup.update(&throttle(1_048_576)).unwrap();
    bed.cgroup.update(&throttle(0)).unwrap();
    assert_eq!(bed.held("io.max"), "");
    for (json, file, wanted) in [
        (
            r#"{"memory": {"limit": 67108864, "swap": 67108864}}"#,
            "memory.swap.max",
            "0",
        ),
        (r#"{"memory": {"limit": -1, "swap": -1}}"#, "memory.max", "max"),
        (
            r#"{"cpu": {"quota": 10000, "period": 100000}}"#,
            "cpu.max",
            "10000 100000",
        ),
        (r#"{"cpu": {"quota": -1}}"#, "cpu.max", "max 100000"),
        (r#"{"pids": {"limit": 5}}"#, "pids.max", "5"),
        (r#"{"pids": {"limit": -1}}"#, "pids.max", "max"),
    ] {
        assert_eq!(bed.cgroup.update(&resources(json)).unwrap(), [], "{json}");
        assert_eq!(bed.held(file), wanted, "{json}");
    }
}

#[test]
fn root_what_the_kernel_refuses_is_told_with_its_file() {
    let Some(bed) = with_controllers() else { return };
    for json in [
        r#"{"cpu": {"quota": 10}}"#,
        r#"{"blockIO": {"throttleWriteBpsDevice": [{"major": 250, "minor": 250, "rate": 1}]}}"#,
    ] {
        let error = bed.cgroup.update(&resources(json)).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{json}: {error}");
    }
    // The kernel keeps processors that are not there for the day they are.
    match bed.cgroup.update(&resources(r#"{"cpu": {"cpus": "4000"}}"#)) {
        Ok(warnings) => assert!(
            matches!(warnings.as_slice(), [Warning::Adjusted { .. }]),
            "{warnings:?}"
        ),
        Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"),
    }
}

#[test]
fn root_memory_kills_are_counted_and_noticed() {
    let Some(mut bed) = with_controllers() else { return };
    let json = r#"{"memory": {"limit": 16777216, "swap": 16777216}}"#;
    bed.cgroup.update(&resources(json)).unwrap();
    let watch = bed.cgroup.oom_watch().unwrap();
    let path = bed.cgroup.path().to_owned();
    bed.shell(&path, "tail /dev/zero; sleep 1000");
    eventually("the kill", || bed.cgroup.oom_kills().unwrap() == 1);
    let mut buffer = [0; 4096];
    assert!(rustix::io::read(&watch, &mut buffer).unwrap() > 0);
}

#[test]
fn root_a_group_with_processes_gets_controllers_for_its_children() {
    let Some(mut bed) = with_controllers() else { return };
    // As a ferry in a container of its own: what looks like the root to it holds processes, which move to a child.
    let outer = bed.cgroup.path().to_owned();
    let pid = bed.shell(&outer, "exec sleep 1000");
    eventually("the process", || bed.cgroup.pids().unwrap().len() == 1);
    let layout = ferry_cgroup::Layout::V2(format!("{}/{outer}", bed.root).into());
    let inside = ferry_cgroup::Hierarchy::try_from(layout).unwrap();
    let (cgroup, warnings) = inside
        .create("ferry/one", &resources(r#"{"pids": {"limit": 7}}"#))
        .unwrap();
    assert_eq!(warnings, []);
    assert_eq!(bed.held("ferry/one/pids.max"), "7");
    assert_eq!(bed.held("init/cgroup.procs"), pid.to_string());
    cgroup.remove().unwrap();
    inside.remove_empty("ferry").unwrap();
}
