//! What the kernel does with the limits.

use std::io::Read;
use std::time::{Duration, Instant};

use ferry_cgroup::{Error, Warning};

use super::testbed::{eventually, resources, testbed};

#[test]
fn a_process_over_its_memory_limit_is_killed_and_counted() {
    let json = r#"{"memory": {"limit": 16777216, "swap": 33554432}}"#;
    let Some(mut bed) = testbed(json) else { return };
    assert!(bed.warnings.is_empty(), "{:?}", bed.warnings);
    let watch = bed.cgroup.oom_watch().unwrap();
    let status = bed.shell("exec tail /dev/zero").wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert_eq!(bed.cgroup.oom_kills().unwrap(), 1);
    let mut poll = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&timeout)).unwrap(), 1);
    let memory = bed.cgroup.stats().unwrap().memory;
    assert_eq!((memory.limit, memory.swap_limit), (Some(16_777_216), Some(33_554_432)));
    assert!(memory.max_usage > 8_000_000 && memory.failures > 0);
}

#[test]
fn memory_and_swap_go_up_and_down_together() {
    let Some(bed) = testbed(r#"{"memory": {"limit": 67108864, "swap": 134217728}}"#) else {
        return;
    };
    for (limit, swap) in [
        (268_435_456_i64, 268_435_456_i64),
        (33_554_432, 33_554_432),
        (67_108_864, -1),
        (-1, 0),
    ] {
        let json = format!(r#"{{"memory": {{"limit": {limit}, "swap": {swap}}}}}"#);
        assert_eq!(bed.cgroup.update(&resources(&json)).unwrap(), []);
    }
    assert_eq!(bed.cgroup.stats().unwrap().memory.limit, None);
}

#[test]
fn a_memory_limit_below_the_usage_says_so() {
    let Some(mut bed) = testbed("{}") else { return };
    bed.shell("x=$(head -c 20000000 /dev/zero | tr '\\0' x); sleep 1000 & wait");
    eventually("usage", || bed.cgroup.stats().unwrap().memory.usage > 20_000_000);
    let error = bed
        .cgroup
        .update(&resources(r#"{"memory": {"limit": 4096}}"#))
        .unwrap_err();
    let Error::Refused {
        file, value, meaning, ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(file.ends_with("memory.limit_in_bytes"));
    assert_eq!(value, "4096");
    assert!(
        meaning.starts_with("a memory limit of 4096 is below what the group uses ("),
        "{meaning}"
    );
}

#[test]
fn a_swap_limit_below_memory_is_refused_and_leaves_nothing_behind() {
    let Some(bed) = testbed("{}") else { return };
    let path = format!("{}/refused", bed.parent);
    let wrong = resources(r#"{"memory": {"limit": 67108864, "swap": 33554432}}"#);
    assert!(matches!(
        bed.hierarchy.create(&path, &wrong),
        Err(Error::Refused { .. })
    ));
    assert!(matches!(bed.hierarchy.open(&path), Err(Error::NotFound(_))));
}

#[test]
fn a_fork_beyond_the_pids_limit_fails() {
    let Some(mut bed) = testbed(r#"{"pids": {"limit": 3}}"#) else {
        return;
    };
    let sleeping = "sleep 1000 2>/dev/null >/dev/null &".repeat(4);
    let mut stderr = String::new();
    bed.shell(&sleeping)
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(stderr.to_lowercase().contains("fork"), "{stderr}");
    let pids = bed.cgroup.stats().unwrap().pids;
    assert_eq!(pids.limit, Some(3));
    assert_eq!(bed.cgroup.update(&resources(r#"{"pids": {"limit": -1}}"#)).unwrap(), []);
    assert_eq!(bed.cgroup.stats().unwrap().pids.limit, None);
}

#[test]
fn a_quota_of_a_fifth_of_a_cpu_holds() {
    let Some(mut bed) = testbed(r#"{"cpu": {"quota": 10000, "period": 50000, "shares": 512}}"#) else {
        return;
    };
    assert!(bed.warnings.is_empty(), "{:?}", bed.warnings);
    assert_eq!(bed.file("cpu", "cpu.shares"), "512");
    bed.shell("while :; do :; done");
    eventually("progress", || bed.cgroup.stats().unwrap().cpu.total > 10_000_000);
    let (before, started) = (bed.cgroup.stats().unwrap().cpu, Instant::now());
    std::thread::sleep(Duration::from_millis(1000));
    let (after, elapsed) = (bed.cgroup.stats().unwrap().cpu, started.elapsed());
    let share = (after.total - before.total) as f64 / elapsed.as_nanos() as f64;
    println!("share {share:.3}");
    assert!(share < 0.26, "{share}");
    assert!(after.throttled_periods > before.throttled_periods && after.throttled_time > before.throttled_time);
}

#[test]
fn bandwidth_that_fits_only_as_a_whole_is_set_in_any_order() {
    let Some(bed) = testbed(r#"{"cpu": {"quota": 100000, "period": 100000}}"#) else {
        return;
    };
    for json in [
        r#"{"cpu": {"quota": 2000, "period": 2000, "burst": 1000}}"#,
        r#"{"cpu": {"quota": 500000, "period": 1000000, "burst": 400000}}"#,
        r#"{"cpu": {"quota": -1}}"#,
    ] {
        assert_eq!(bed.cgroup.update(&resources(json)).unwrap(), [], "{json}");
    }
    assert_eq!(bed.file("cpu", "cpu.cfs_quota_us"), "-1");
    let error = bed.cgroup.update(&resources(r#"{"cpu": {"quota": 10}}"#)).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn what_was_set_before_a_refusal_is_put_back() {
    let limits = r#"{"memory": {"limit": 33554432, "swap": 67108864}, "cpu": {"shares": 512, "quota": 50000, "burst": 40000},
        "pids": {"limit": 20}}"#;
    let Some(bed) = testbed(limits) else { return };
    let held = || {
        let files = [
            ("memory", "memory.limit_in_bytes"),
            ("memory", "memory.memsw.limit_in_bytes"),
            ("cpu", "cpu.shares"),
            ("cpu", "cpu.idle"),
            ("cpu", "cpu.cfs_quota_us"),
            ("cpu", "cpu.cfs_burst_us"),
            ("pids", "pids.max"),
        ];
        files.map(|(controller, file)| bed.file(controller, file))
    };
    let before = held();
    let change = |last: &str| {
        resources(&format!(
            r#"{{"memory": {{"limit": 134217728, "swap": 134217728}}, "cpu": {{"idle": 1, "quota": 90000, "burst": 80000}},
                "pids": {{"limit": 7}}{last}}}"#
        ))
    };
    let nowhere = r#", "blockIO": {"throttleReadBpsDevice": [{"major": 250, "minor": 250, "rate": 1}]}"#;
    let error = bed.cgroup.update(&change(nowhere)).unwrap_err();
    assert!(matches!(&error, Error::Refused { file, .. } if file.ends_with("blkio.throttle.read_bps_device")));
    assert_eq!(held(), before);
    // Nothing is refused, but what came of it.
    let refusal = Error::Unexpected {
        file: "x".into(),
        content: String::new(),
    };
    let refused = bed.cgroup.update_if(&change(""), |_| Err::<(), _>(refusal));
    assert!(matches!(refused, Err(Error::Unexpected { .. })));
    assert_eq!(held(), before);
    assert_eq!(bed.cgroup.update(&change("")).unwrap(), []);
    assert_ne!(held(), before);
}

#[test]
fn clamped_shares_are_a_warning_with_both_values() {
    let Some(bed) = testbed(r#"{"cpu": {"shares": 1}}"#) else {
        return;
    };
    let expected = Warning::Adjusted {
        limit: "cpu.shares".into(),
        asked: "1".into(),
        held: "2".into(),
    };
    assert_eq!(bed.warnings, [expected]);
    assert_eq!(
        bed.warnings[0].to_string(),
        "cpu.shares: asked for 1, the kernel holds 2"
    );
}

#[test]
fn limits_this_kernel_lacks_are_warnings() {
    let json = r#"{"cpu": {"cpus": "0"}, "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}]}"#;
    let Some(bed) = testbed(json) else { return };
    if std::path::Path::new("/sys/fs/cgroup/hugetlb").exists() {
        return;
    }
    assert_eq!(bed.warnings.len(), 1, "{:?}", bed.warnings);
    assert!(
        bed.warnings[0].to_string().contains("hugetlb controller"),
        "{}",
        bed.warnings[0]
    );
    assert_eq!(bed.file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(bed.file("cpuset", "cpuset.mems"), "0");
}

#[test]
fn a_running_container_gets_its_first_cpuset() {
    let Some(mut bed) = testbed("{}") else { return };
    let pid = bed.shell("sleep 1000 & exec sleep 1000").id();
    eventually("both", || bed.cgroup.pids().unwrap().len() == 2);
    assert_eq!(bed.cgroup.update(&resources(r#"{"cpu": {"cpus": "1"}}"#)).unwrap(), []);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t1\n"), "{status}");
    assert_eq!(bed.file("cpuset", "cgroup.procs").lines().count(), 2);
    let error = bed
        .cgroup
        .update(&resources(r#"{"cpu": {"cpus": "4000"}}"#))
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn only_listed_devices_open() {
    let json = r#"{"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "r"}]}"#;
    let Some(mut bed) = testbed(json) else { return };
    let script = "exec 2>&1; : < /dev/null && echo null; (: < /dev/zero) && echo zero; (: > /dev/zero) && echo wrote; \
        (: < /dev/full) && echo full";
    let mut text = String::new();
    bed.shell(script)
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    let opened: Vec<&str> = text.lines().filter(|line| !line.contains("ermitted")).collect();
    assert_eq!(opened, ["null", "zero"], "{text}");

    let wider = r#"{"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "access": "rw"}]}"#;
    bed.cgroup.update(&resources(wider)).unwrap();
    assert_eq!(bed.file("devices", "devices.list"), "c 1:* rw");
}

#[test]
fn a_privileged_container_keeps_all_devices() {
    let Some(bed) = testbed(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#) else {
        return;
    };
    assert_eq!(bed.file("devices", "devices.list"), "a *:* rwm");
}

#[test]
fn block_io_weight_and_throttle_reach_the_kernel() {
    let Some(bed) = testbed(r#"{"blockIO": {"weight": 300}}"#) else {
        return;
    };
    assert_eq!(bed.warnings, []);
    let root = rustix::fs::stat("/").unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(root), rustix::fs::minor(root));
    let json = format!(
        r#"{{"blockIO": {{"throttleReadBpsDevice": [{{"major": {major}, "minor": {minor}, "rate": 1048576}}]}}}}"#
    );
    match bed.cgroup.update(&resources(&json)) {
        Ok(_) => {
            let held = bed.file("blkio", "blkio.throttle.read_bps_device");
            assert_eq!(held, format!("{major}:{minor} 1048576"));
        }
        // A root on something that is no disk.
        Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"),
    }
}
