//! `linux.resources` through `ferry runtime`: each limit read back from the kernel's file, on the version of control groups
//! that this machine has (v2: `cargo xtask vm`).

mod groups;
mod updates;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ferry_testkit::{Bundle, skip_outside_guest, wait_until};
use serde_json::{Value, json};

/// A container that sleeps, in the given state, with limits.
fn limited(resources: Value) -> Bundle {
    Bundle::sleeping().with("linux.resources", resources)
}

fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether a controller is there at all; says so where it is not.
fn has(controller: &str) -> bool {
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let v1 = own
        .lines()
        .filter_map(|line| line.split(':').nth(1))
        .flat_map(|list| list.split(','));
    let found = v2.split_whitespace().chain(v1).any(|name| name == controller);
    if !found {
        println!("skipped: no controller {controller}");
    }
    found
}

/// What a control file holds, by its name on v1 or on v2; the two never have the same.
#[track_caller]
fn held(bundle: &Bundle, name: &str) -> String {
    let files: Vec<PathBuf> = bundle.cgroups().iter().map(|dir| dir.join(name)).collect();
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok());
    text.unwrap_or_else(|| panic!("no {name} in {files:?}"))
        .trim()
        .to_owned()
}

/// Asserts the value of a file of v1 or of v2, whichever there is.
#[track_caller]
fn holds(bundle: &Bundle, v1: (&str, &str), v2: (&str, &str)) {
    let (file, value) = if is_v2() { v2 } else { v1 };
    if !file.is_empty() {
        assert_eq!(held(bundle, file), value, "{file}");
    }
}

#[track_caller]
fn update(bundle: &Bundle, resources: &Value) {
    fs::write(bundle.path().join("r.json"), resources.to_string()).unwrap();
    bundle.call(&["update", "-r", "r.json", "c"]).ok();
}

#[track_caller]
fn update_fails(bundle: &Bundle, resources: &Value, text: &str) {
    fs::write(bundle.path().join("r.json"), resources.to_string()).unwrap();
    bundle.call(&["update", "-r", "r.json", "c"]).fails(1, text);
}

/// The number of a whole disk, which throttles need.
fn disk() -> Option<(u64, u64)> {
    let entries = fs::read_dir("/sys/block").unwrap();
    let number = entries
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("dev")).ok())
        .next();
    let number = number?;
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn root_every_limit_is_in_its_file_at_creation() {
    let bundle = limited(json!({
        "memory": { "limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432, "kernel": -1, "kernelTCP": -1,
                    "useHierarchy": true, "disableOOMKiller": false },
        "cpu": { "shares": 512, "quota": 40_000, "period": 50_000, "burst": 10_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 33 },
    }));
    bundle.call(&["create", "c"]).ok();
    holds(
        &bundle,
        ("memory.limit_in_bytes", "67108864"),
        ("memory.max", "67108864"),
    );
    holds(
        &bundle,
        ("memory.memsw.limit_in_bytes", "100663296"),
        ("memory.swap.max", "33554432"),
    );
    holds(
        &bundle,
        ("memory.soft_limit_in_bytes", "33554432"),
        ("memory.low", "33554432"),
    );
    holds(&bundle, ("cpu.shares", "512"), ("cpu.weight", "59"));
    holds(&bundle, ("cpu.cfs_quota_us", "40000"), ("cpu.max", "40000 50000"));
    holds(&bundle, ("cpu.cfs_period_us", "50000"), ("", ""));
    holds(&bundle, ("cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000"));
    assert_eq!(held(&bundle, "cpuset.cpus"), "0");
    assert_eq!(held(&bundle, "cpuset.mems"), "0");
    assert_eq!(held(&bundle, "pids.max"), "33");
}

#[test]
fn root_zero_is_not_set_and_less_is_no_limit() {
    let bundle = limited(json!({
        "memory": { "limit": 0, "swap": 0, "reservation": 0 }, "cpu": { "shares": 0, "quota": 0, "period": 0 },
        "pids": { "limit": 0 }, "blockIO": { "weight": 0 },
    }));
    bundle.call(&["create", "c"]).ok();
    assert_eq!(held(&bundle, "pids.max"), "max");
    holds(
        &bundle,
        ("memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    );
    update(
        &bundle,
        &json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864 }, "pids": { "limit": 9 } }),
    );
    holds(
        &bundle,
        ("memory.memsw.limit_in_bytes", "67108864"),
        ("memory.swap.max", "0"),
    );
    update(
        &bundle,
        &json!({ "memory": { "limit": -1 }, "pids": { "limit": -1 }, "cpu": { "quota": -1 } }),
    );
    assert_eq!(held(&bundle, "pids.max"), "max");
    holds(
        &bundle,
        ("memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    );
    holds(
        &bundle,
        ("memory.memsw.limit_in_bytes", "9223372036854771712"),
        ("memory.swap.max", "max"),
    );
    holds(&bundle, ("cpu.cfs_quota_us", "-1"), ("cpu.max", "max 100000"));
}

#[test]
fn root_throttles_are_in_force_by_device_and_can_be_changed() {
    let Some((major, minor)) = disk() else { return };
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let bundle = limited(json!({ "blockIO": { "throttleReadBpsDevice": rate(485_760) } }));
    bundle.call(&["create", "c"]).ok();
    let line = format!("{major}:{minor} rbps=485760 wbps=max riops=max wiops=max");
    let v1 = format!("{major}:{minor} 485760");
    holds(&bundle, ("blkio.throttle.read_bps_device", &v1), ("io.max", &line));
    update(
        &bundle,
        &json!({ "blockIO": {
            "throttleReadBpsDevice": rate(10_485_760), "throttleWriteBpsDevice": rate(9_437_184),
            "throttleReadIOPSDevice": rate(1000), "throttleWriteIOPSDevice": rate(900),
        } }),
    );
    let line = format!("{major}:{minor} rbps=10485760 wbps=9437184 riops=1000 wiops=900");
    let v1 = format!("{major}:{minor} 900");
    holds(&bundle, ("blkio.throttle.write_iops_device", &v1), ("io.max", &line));
    let nowhere = json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 250, "minor": 250, "rate": 1 }] } });
    update_fails(&bundle, &nowhere, "a throttle needs a whole disk that is there");
}

#[test]
fn root_weights_of_disks_are_converted_or_refused_by_name() {
    let bundle = limited(json!({ "blockIO": { "weight": 750 } }));
    let files = ["io.bfq.weight", "io.weight", "blkio.bfq.weight", "blkio.weight"];
    let probe = Bundle::sleeping();
    probe.call(&["create", "c"]).ok();
    let file = files
        .iter()
        .find(|file| probe.cgroups().iter().any(|dir| dir.join(file).exists()));
    let Some(file) = file else {
        bundle.call(&["create", "c"]).fails(1, "linux.resources.blockIO.weight");
        return;
    };
    bundle.call(&["create", "c"]).ok();
    let expected = if *file == "io.weight" { "7475" } else { "750" };
    assert!(
        held(&bundle, file).ends_with(expected),
        "{file}: {}",
        held(&bundle, file)
    );
}

#[test]
fn root_huge_pages_are_limited_by_use_and_by_reservation() {
    if !has("hugetlb") {
        let pages = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] });
        limited(pages)
            .call(&["create", "c"])
            .fails(1, "linux.resources.hugepageLimits.2MB");
        return;
    }
    let bundle = limited(json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }] }));
    bundle.call(&["create", "c"]).ok();
    holds(
        &bundle,
        ("hugetlb.2MB.limit_in_bytes", "4194304"),
        ("hugetlb.2MB.max", "4194304"),
    );
    holds(
        &bundle,
        ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
    );
    update(
        &bundle,
        &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 2_097_152 }] }),
    );
    holds(
        &bundle,
        ("hugetlb.2MB.limit_in_bytes", "2097152"),
        ("hugetlb.2MB.max", "2097152"),
    );
    for (size, text) in [("3MB", "hugepageLimits.3MB"), ("2mb", "a page size is like 2MB")] {
        let unknown = json!({ "hugepageLimits": [{ "pageSize": size, "limit": 1 }] });
        limited(unknown).call(&["create", "c"]).fails(1, text);
    }
}

#[test]
fn root_rdma_of_a_device_that_is_not_there_is_refused_by_name() {
    let none = json!({ "rdma": { "mlx5_9": { "hcaHandles": 3, "hcaObjects": 10000 } } });
    limited(none)
        .call(&["create", "c"])
        .fails(1, if has("rdma") { "mlx5_9" } else { "rdma" });
    if has("rdma") {
        let empty = json!({ "rdma": { "mlx5_9": {} } });
        limited(empty)
            .call(&["create", "c"])
            .fails(1, "it needs hcaHandles, hcaObjects or both");
    }
}

#[test]
fn root_network_classes_and_priorities_are_of_v1() {
    let bundle = limited(json!({
        "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 500 }] },
    }));
    let created = bundle.call(&["create", "c"]);
    if is_v2() {
        // As runc: left out, but not in silence.
        created.ok();
        assert!(
            created.stderr.contains("network.classID 1048577 is not applied"),
            "{created:?}"
        );
        assert!(
            created.stderr.contains("network.priorities lo 500 is not applied"),
            "{created:?}"
        );
    } else if has("net_cls") && has("net_prio") {
        created.ok();
        assert_eq!(held(&bundle, "net_cls.classid"), "1048577");
        assert!(held(&bundle, "net_prio.ifpriomap").contains("lo 500"));
    } else {
        created.fails(1, "linux.resources.network");
    }
}

#[test]
fn root_unified_writes_files_by_name() {
    let unified = |files: Value| limited(json!({ "memory": { "limit": 33_554_432 }, "unified": files }));
    if !is_v2() {
        let bundle = unified(json!({ "memory.min": "131072" }));
        bundle
            .call(&["create", "c"])
            .fails(1, "invalid configuration: cannot use unified on cgroup v1");
        return;
    }
    let bundle = unified(json!({
        "memory.min": "131072", "memory.low": "524288", "memory.high": "20971520", "memory.max": "41943040",
        "pids.max": "99", "cpu.max": "10000 100000", "cpu.weight": "42", "cpuset.cpus": "0", "memory.oom.group": "1",
    }));
    bundle.up();
    for (file, value) in bundle.spec["linux"]["resources"]["unified"].as_object().unwrap() {
        assert_eq!(held(&bundle, file), value.as_str().unwrap(), "{file}");
    }
    let files = json!({ "cpu.max": "max 100000", "pids.max": "10" });
    update(&bundle, &json!({ "unified": files }));
    assert_eq!(
        (held(&bundle, "cpu.max"), held(&bundle, "pids.max")),
        ("max 100000".into(), "10".into())
    );
    for (file, value, text) in [
        (
            "nothing.max",
            "1",
            "nothing.max\": can't be set: controller \"nothing\" not available",
        ),
        ("memory.nothing", "1", "memory.nothing\": the group has no such file"),
        ("nothing", "1", "it must be in the form CONTROLLER.PARAMETER"),
        ("../memory.max", "1", "has no slashes"),
        ("memory.max", "1x", "memory.max"),
    ] {
        unified(json!({ file: value })).call(&["create", "c"]).fails(1, text);
    }
}

#[test]
fn root_all_controllers_of_v2_are_there() {
    if !is_v2() {
        skip_outside_guest("it needs cgroup v2");
        return;
    }
    let bundle = Bundle::sleeping();
    bundle.call(&["create", "c"]).ok();
    let all = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    assert_eq!(held(&bundle, "cgroup.controllers"), all.trim());
}

#[test]
fn root_settings_that_v2_lacks_are_left_out_with_a_warning() {
    let bundle = limited(json!({ "memory": { "swappiness": 20, "limit": 33_554_432, "kernel": 1_048_576 } }));
    let created = bundle.call(&["create", "c"]);
    created.ok();
    assert!(
        created.stderr.contains("Kernel memory settings are ignored"),
        "{created:?}"
    );
    if is_v2() {
        assert!(
            created.stderr.contains("memory.swappiness 20 is not applied"),
            "{created:?}"
        );
    } else {
        assert_eq!(held(&bundle, "memory.swappiness"), "20");
        let none = limited(json!({ "cpu": { "shares": 1 } }));
        none.call(&["create", "c"])
            .fails(1, "the minimum allowed cpu-shares is 2");
        let none = limited(json!({ "memory": { "swappiness": 101 } }));
        none.call(&["create", "c"]).fails(1, "0 to 100");
    }
}

#[test]
fn root_statistics_have_what_the_kernel_counts() {
    let bundle = limited(json!({
        "cpu": { "cpus": "0", "mems": "0" }, "memory": { "limit": 67_108_864, "swap": 67_108_864 }, "pids": { "limit": 20 },
    }));
    bundle.up();
    let text = bundle.call(&["events", "--stats", "c"]).ok();
    assert!(
        text.starts_with(r#"{"type":"stats","id":"c","data":{"cpu":{"usage":{"#),
        "{text}"
    );
    let stats: Value = serde_json::from_str(&text).unwrap();
    let data = &stats["data"];
    assert_eq!(data["pids"]["limit"], 20);
    assert_eq!(data["memory"]["usage"]["limit"], 67_108_864);
    assert_eq!(data["memory"]["swap"]["limit"], 67_108_864, "both together");
    if is_v2() {
        if has("hugetlb") {
            assert_eq!(data["hugetlb"]["2MB"]["failcnt"], 0);
        }
        let pressure = bundle.cgroups()[0].join("cpu.pressure");
        assert_eq!(
            data["cpu"]["psi"]["some"]["avg10"].is_number(),
            fs::read(pressure).is_ok(),
            "{data}"
        );
    } else {
        assert_eq!(
            (&data["cpuset"]["cpus"], &data["cpuset"]["mems"]),
            (&json!([0]), &json!([0]))
        );
        assert!(data["cpu"]["usage"]["percpu"].is_array(), "{data}");
        assert_eq!(data["cpuset"]["sched_load_balance"], 1);
    }
}

#[test]
fn root_out_of_memory_is_an_event() {
    let bundle = limited(json!({ "memory": { "limit": 33_554_432, "swap": 33_554_432 } }));
    bundle.up();
    let log = bundle.path().join("events");
    let mut events = Command::new(ferry_testkit::tools::ferry())
        .args(["runtime", "--root"])
        .arg(bundle.state_root())
        .args(["events", "--interval", "1s", "c"])
        .stdout(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let read = || fs::read_to_string(&log).unwrap();
    wait_until("statistics", || read().contains("stats"));
    let ended = bundle.exec("x=a; while :; do x=$x$x; done");
    assert_ne!(ended.code, 0);
    wait_until("an event", || read().contains(r#"{"type":"oom","id":"c"}"#));
    bundle.call(&["delete", "--force", "c"]).ok();
    assert!(events.wait().unwrap().success());
}
