//! `update`: in which order files are written, what stays, and that one which is refused leaves everything as it was.

use std::collections::BTreeMap;
use std::fs;

use ferry_testkit::Bundle;
use serde_json::{Value, json};

use super::{disk, held, holds, is_v2, limited, update, update_fails};

#[test]
fn root_updates_of_memory_and_swap_go_in_the_order_that_fits() {
    const MIB: i64 = 1 << 20;
    let bundle = limited(json!({ "memory": { "limit": 32 * MIB, "swap": 40 * MIB } }));
    bundle.call(&["create", "c"]).ok();
    for (memory, swap) in [(64, 80), (30, 50), (60, 60), (32, -1), (40, 48)] {
        let swap = if swap < 0 { swap } else { swap * MIB };
        update(&bundle, &json!({ "memory": { "limit": memory * MIB, "swap": swap } }));
        let memory = (memory * MIB).to_string();
        holds(&bundle, ("memory.limit_in_bytes", &memory), ("memory.max", &memory));
    }
    holds(
        &bundle,
        ("memory.memsw.limit_in_bytes", "50331648"),
        ("memory.swap.max", "8388608"),
    );
    // Either of them alone: what both together may use stays what it was.
    bundle.call(&["update", "--memory-swap", "64m", "c"]).ok();
    holds(
        &bundle,
        ("memory.memsw.limit_in_bytes", "67108864"),
        ("memory.swap.max", "25165824"),
    );
    bundle.call(&["update", "--memory", "44m", "c"]).ok();
    holds(
        &bundle,
        ("memory.memsw.limit_in_bytes", "67108864"),
        ("memory.swap.max", "20971520"),
    );
    let too_much = bundle.call(&["update", "--memory", "100m", "c"]);
    assert_eq!(too_much.code, 1, "{too_much:?}");
    let below = json!({ "memory": { "limit": 32 * MIB, "swap": 16 * MIB } });
    fs::write(bundle.path().join("r.json"), below.to_string()).unwrap();
    let below = bundle.call(&["update", "-r", "r.json", "c"]);
    assert_eq!(below.code, 1, "{below:?}");
}

#[test]
fn root_a_memory_limit_below_the_use_can_be_refused() {
    let bundle = limited(json!({ "memory": { "limit": 67_108_864, "swap": 67_108_864 } }));
    bundle.up();
    for (limits, text) in [
        (
            json!({ "limit": 4096, "checkBeforeUpdate": true }),
            "rejecting memory limit 4096 <= usage",
        ),
        (
            json!({ "limit": 4096, "swap": 8192, "checkBeforeUpdate": true }),
            "rejecting memory+swap limit 8192 <= usage",
        ),
    ] {
        // The kernel of v1 refuses by itself.
        let text = if is_v2() { text } else { "below what the group uses" };
        update_fails(&bundle, &json!({ "memory": limits }), text);
    }
    assert_eq!(bundle.status("c"), "running");
    holds(
        &bundle,
        ("memory.limit_in_bytes", "67108864"),
        ("memory.max", "67108864"),
    );
}

#[test]
fn root_processor_time_is_changed_in_the_order_that_fits() {
    let bundle = limited(json!({ "cpu": { "shares": 100, "quota": 500_000, "period": 1_000_000 } }));
    bundle.call(&["create", "c"]).ok();
    holds(&bundle, ("cpu.shares", "100"), ("cpu.weight", "17"));
    let change = |flags: &[&str]| {
        let args: Vec<&str> = ["update"].iter().chain(flags).copied().chain(["c"]).collect();
        bundle.call(&args).ok();
    };
    let is = |quota: &str, period: &str, burst: &str| {
        holds(&bundle, ("cpu.cfs_quota_us", quota), ("", ""));
        let line = format!("{} {period}", if quota == "-1" { "max" } else { quota });
        holds(&bundle, ("cpu.cfs_period_us", period), ("cpu.max", &line));
        holds(&bundle, ("cpu.cfs_burst_us", burst), ("cpu.max.burst", burst));
    };
    change(&["--cpu-period", "900000"]);
    is("500000", "900000", "0");
    change(&["--cpu-quota", "600000", "--cpu-burst", "600000"]);
    is("600000", "900000", "600000");
    // Both down, then both up: the burst is never above the quota.
    change(&["--cpu-quota", "200000", "--cpu-burst", "100000"]);
    is("200000", "900000", "100000");
    change(&[
        "--cpu-quota",
        "700000",
        "--cpu-burst",
        "650000",
        "--cpu-period",
        "1000000",
    ]);
    is("700000", "1000000", "650000");
    change(&["--cpu-burst", "0"]);
    is("700000", "1000000", "0");
    change(&["--cpu-quota", "-1", "--cpu-period", "100000", "--cpu-share", "200"]);
    is("-1", "100000", "0");
    holds(&bundle, ("cpu.shares", "200"), ("cpu.weight", "29"));
    bundle
        .call(&["update", "--cpu-quota", "10", "c"])
        .fails(1, "the kernel refused");
}

#[test]
fn root_an_idle_container_has_no_shares_until_it_is_not() {
    let bundle = limited(json!({ "cpu": { "idle": 1, "shares": 512 } }));
    bundle.call(&["create", "c"]).ok();
    assert_eq!(held(&bundle, "cpu.idle"), "1");
    update(&bundle, &json!({ "cpu": { "idle": 0, "shares": 512 } }));
    assert_eq!(held(&bundle, "cpu.idle"), "0");
    holds(&bundle, ("cpu.shares", "512"), ("cpu.weight", "59"));
    bundle.call(&["update", "--cpu-idle", "1", "c"]).ok();
    assert_eq!(held(&bundle, "cpu.idle"), "1");
    bundle
        .call(&["update", "--cpu-idle", "2", "c"])
        .fails(1, "idle is 0 or 1");
}

#[test]
fn root_a_cpuset_can_come_later_and_takes_the_processes_along() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle
        .call(&["update", "--cpuset-cpus", "0", "--cpuset-mems", "0", "c"])
        .ok();
    assert_eq!(
        (held(&bundle, "cpuset.cpus"), held(&bundle, "cpuset.mems")),
        ("0".into(), "0".into())
    );
    let allowed = "sed -n 's/Cpus_allowed_list:\\t//p' /proc/1/status /proc/self/status";
    assert_eq!(bundle.exec(allowed).ok(), "0\n0");
    bundle
        .call(&["update", "--cpuset-cpus", "1-0", "c"])
        .fails(1, "a list is like");
}

#[test]
fn root_an_update_leaves_devices_alone_and_a_paused_container_paused() {
    let bundle = Bundle::sleeping();
    bundle.up();
    bundle.call(&["pause", "c"]).ok();
    // An engine sends the limits it has on record, with rules that are not all.
    update(
        &bundle,
        &json!({ "pids": { "limit": 40 }, "devices": [{ "allow": false, "access": "rwm" }] }),
    );
    assert_eq!(
        (bundle.status("c").as_str(), held(&bundle, "pids.max").as_str()),
        ("paused", "40")
    );
    bundle.call(&["resume", "c"]).ok();
    assert_eq!(bundle.exec("echo x > /dev/null && echo written").ok(), "written");
}

/// Every setting of the container's groups that an update can change.
fn settings(bundle: &Bundle) -> BTreeMap<String, String> {
    const FILES: [&str; 8] = [
        "memory.", "cpu.", "cpuset.", "pids.max", "blkio.", "io.", "hugetlb.", "rdma.max",
    ];
    // What is counted, and not set.
    const COUNTED: [&str; 14] = [
        "stat",
        "usage",
        "current",
        "failcnt",
        "events",
        "pressure",
        "peak",
        "io_service",
        "io_serviced",
        "time",
        "sectors",
        "pressure_level",
        "effective",
        "kmem",
    ];
    let mut found = BTreeMap::new();
    for group in bundle.cgroups() {
        for entry in fs::read_dir(&group).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_setting =
                FILES.iter().any(|file| name.starts_with(file)) && !COUNTED.iter().any(|word| name.contains(word));
            if is_setting && let Ok(text) = fs::read_to_string(&path) {
                found.insert(path.display().to_string(), text);
            }
        }
    }
    assert!(found.len() > 5, "{found:?}");
    found
}

/// The update fails with `text`, and nothing is another than before.
#[track_caller]
fn changes_nothing(bundle: &Bundle, resources: &Value, text: &str) {
    let before = settings(bundle);
    // A kernel may not take an empty list again; then it is the one that was in force.
    let in_force = |file: &str| fs::read_to_string(format!("{file}.effective")).unwrap_or_default();
    let lists: BTreeMap<&String, String> = before.keys().map(|file| (file, in_force(file))).collect();
    update_fails(bundle, resources, text);
    let after = settings(bundle);
    for (file, value) in &before {
        let same = after.get(file) == Some(value) || value == "\n" && after.get(file) == Some(&lists[file]);
        assert!(
            same,
            "{file} holds {:?} and not {value:?} after {resources}",
            after.get(file)
        );
    }
}

/// Different values for everything that there is on this machine, but for `refused`.
fn everything_but(refused: &Value) -> Value {
    let mut all = json!({
        "memory": { "limit": 134_217_728, "swap": 201_326_592, "reservation": 16_777_216 },
        "cpu": { "shares": 300, "quota": 30_000, "period": 90_000, "burst": 20_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 77 },
    });
    if let Some((major, minor)) = disk() {
        let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
        all["blockIO"] = json!({ "throttleReadBpsDevice": rate(999_424), "throttleWriteIOPSDevice": rate(777) });
    }
    for (section, values) in refused.as_object().unwrap() {
        match (all[section].as_object_mut(), values.as_object()) {
            (Some(all), Some(values)) => all.extend(values.clone()),
            _ => all[section] = values.clone(),
        }
    }
    all
}

/// What is refused after everything else was written, by the kernel or for what became of it, and in which words.
fn refusals() -> Vec<(Value, &'static str)> {
    let nowhere = json!([{ "major": 250, "minor": 250, "rate": 1 }]);
    let mut all = vec![
        (
            json!({ "blockIO": { "throttleWriteBpsDevice": nowhere } }),
            "a throttle needs a whole disk that is there",
        ),
        (json!({ "cpu": { "cpus": "4000" } }), "not all of these are there"),
        (json!({ "cpu": { "idle": 1, "quota": 10 } }), "the kernel refused"),
        (json!({ "cpu": { "burst": 40_000 } }), "the burst at most the quota"),
        (
            json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] }),
            "linux.resources.hugepageLimits.3MB",
        ),
        (json!({ "rdma": { "mlx5_9": { "hcaHandles": 3 } } }), "rdma"),
    ];
    if is_v2() {
        let files =
            json!({ "memory.high": "20971520", "memory.oom.group": "1", "cpu.weight.nice": "5", "zzz.max": "1" });
        all.push((json!({ "unified": files }), "controller \"zzz\" not available"));
    } else {
        all.push((json!({ "cpu": { "shares": 1 } }), "the minimum allowed cpu-shares is 2"));
        all.push((
            json!({ "memory": { "limit": 33_554_432, "swap": 16_777_216 } }),
            "below the memory limit",
        ));
        all.push((
            json!({ "memory": { "swappiness": 10, "disableOOMKiller": true }, "cpu": { "quota": 10 } }),
            "the kernel refused",
        ));
    }
    all
}

#[test]
fn root_a_refused_update_leaves_the_limits_as_they_were() {
    let mut resources = json!({
        "memory": { "limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432 },
        "cpu": { "shares": 512, "quota": 40_000, "period": 50_000, "burst": 10_000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 33 },
    });
    if let Some((major, minor)) = disk() {
        resources["blockIO"] =
            json!({ "throttleReadBpsDevice": [{ "major": major, "minor": minor, "rate": 485_376 }] });
    }
    let bundle = limited(resources);
    bundle.up();
    for (refused, text) in refusals() {
        changes_nothing(&bundle, &everything_but(&refused), text);
    }
    holds(
        &bundle,
        ("memory.limit_in_bytes", "67108864"),
        ("memory.max", "67108864"),
    );
    holds(&bundle, ("cpu.shares", "512"), ("cpu.weight", "59"));
    assert_eq!(held(&bundle, "pids.max"), "33");
    // Idle, it has no weight that could be put back.
    update(&bundle, &json!({ "cpu": { "idle": 1 } }));
    changes_nothing(
        &bundle,
        &json!({ "cpu": { "idle": 0, "shares": 700, "quota": 10 } }),
        "the kernel refused",
    );
    assert_eq!(bundle.status("c"), "running");
    update(&bundle, &everything_but(&json!({ "cpu": { "idle": 0 } })));
    assert_eq!(held(&bundle, "pids.max"), "77");
}

#[test]
fn root_a_refused_update_sets_no_limit_where_there_was_none() {
    let bundle = Bundle::sleeping();
    bundle.up();
    for (refused, text) in refusals() {
        changes_nothing(&bundle, &everything_but(&refused), text);
    }
    holds(
        &bundle,
        ("memory.limit_in_bytes", "9223372036854771712"),
        ("memory.max", "max"),
    );
    assert_eq!(held(&bundle, "pids.max"), "max");
    // A class of service comes last.
    let before = settings(&bundle);
    bundle
        .call(&["update", "--pids-limit", "5", "--l3-cache-schema", "L3:0=f", "c"])
        .fails(1, "need a container that was created with linux.intelRdt");
    assert_eq!(settings(&bundle), before);
}
