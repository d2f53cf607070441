//! Which group a container and its execs are in, and whom it belongs to.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ferry_testkit::{Bundle, skip_outside_guest};
use serde_json::json;

use super::is_v2;

#[test]
fn root_a_group_that_is_used_or_frozen_is_refused() {
    let bundle = Bundle::sleeping();
    bundle.up();
    for command in ["create", "run"] {
        bundle
            .call(&[command, "other"])
            .fails(1, "container's cgroup is not empty: ");
    }
    assert_eq!(
        bundle.status("c"),
        "running",
        "the container that was there is left alone"
    );
    bundle.call(&["state", "other"]).fails(1, "container does not exist");

    let frozen = Bundle::sleeping();
    let path = frozen.spec["linux"]["cgroupsPath"]
        .as_str()
        .unwrap()
        .trim_start_matches('/')
        .to_owned();
    let (root, file, value) = if is_v2() {
        ("/sys/fs/cgroup", "cgroup.freeze", "1")
    } else {
        ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN")
    };
    let group = Path::new(root).join(path);
    fs::create_dir_all(&group).unwrap();
    fs::write(group.join(file), value).unwrap();
    frozen
        .call(&["create", "c"])
        .fails(1, "container's cgroup unexpectedly frozen");
    fs::remove_dir(&group).unwrap();
    frozen.call(&["create", "c"]).ok();
}

#[test]
fn root_an_exec_can_go_into_a_group_below() {
    let bundle = Bundle::sleeping();
    bundle.up();
    let cgroups = |flags: &[&str]| {
        let args: Vec<&str> = ["exec"]
            .iter()
            .chain(flags)
            .copied()
            .chain(["c", "cat", "/proc/self/cgroup"])
            .collect();
        bundle.call(&args)
    };
    cgroups(&["--cgroup", ".."]).fails(255, " .. is not a sub cgroup path");
    cgroups(&["--cgroup", "nonexistent"]).fails(255, "/nonexistent/cgroup.procs: no such file");
    cgroups(&["--cgroup", "nosuch:/"]).fails(255, "");
    let plain = cgroups(&["--cgroup", "/"]).ok();
    assert_eq!(plain, cgroups(&[]).ok());
    for group in bundle.cgroups() {
        let below = group.join("below");
        fs::create_dir(&below).unwrap();
        // Nothing can run in a v1 cpuset that has none.
        for file in ["cpuset.cpus", "cpuset.mems"].map(|file| (group.join(file), below.join(file))) {
            if !is_v2() && file.0.exists() {
                fs::write(file.1, fs::read_to_string(file.0).unwrap()).unwrap();
            }
        }
    }
    let everywhere = cgroups(&["--cgroup", "below"]).ok();
    let lines = everywhere.lines().filter(|line| line.ends_with("/c/below")).count();
    assert_eq!(lines, bundle.cgroups().len(), "{everywhere}");
    if !is_v2() {
        let some = cgroups(&["--cgroup", "memory:below", "--cgroup", "pids,freezer:/below"]).ok();
        for line in some.lines().filter(|line| line.contains("/c")) {
            let named = ["memory:", "pids:", "freezer:"].iter().any(|name| line.contains(name));
            assert_eq!(line.ends_with("/c/below"), named, "{some}");
        }
        cgroups(&["--cgroup", "memory:nonexistent"]).fails(255, "/nonexistent/cgroup.procs: no such file");
        cgroups(&["--cgroup", "memory:/", "--cgroup", "memory:/"]).fails(255, "specified multiple times");
        cgroups(&["--cgroup", ":/"]).fails(255, "empty <controller> prefix");
        cgroups(&["--cgroup", "/", "--cgroup", "memory:/"]).fails(255, "missing <controller>: prefix");
    }
}

#[test]
fn root_an_exec_follows_a_first_process_that_made_groups_of_its_own() {
    if !is_v2() {
        skip_outside_guest("it needs cgroup v2");
        return;
    }
    let mut bundle = Bundle::sleeping().and("linux.namespaces", json!({ "type": "cgroup" }));
    writable_cgroups(&mut bundle);
    bundle.up();
    bundle
        .exec("mkdir /sys/fs/cgroup/foo && echo 1 > /sys/fs/cgroup/foo/cgroup.procs")
        .ok();
    assert_eq!(bundle.exec("cat /proc/self/cgroup").ok(), "0::/");
    let script = "echo $$ > /sys/fs/cgroup/foo/cgroup.procs; echo +memory > /sys/fs/cgroup/cgroup.subtree_control";
    bundle.exec(script).ok();
    assert_eq!(bundle.exec("cat /proc/self/cgroup").ok(), "0::/foo");
    bundle
        .call(&["exec", "--cgroup", "/", "c", "true"])
        .fails(255, "cgroup.procs: device or resource busy");
    assert_eq!(
        bundle
            .call(&["exec", "--cgroup", "foo", "c", "cat", "/proc/self/cgroup"])
            .ok(),
        "0::/foo"
    );
}

/// The container may write to its own groups.
fn writable_cgroups(bundle: &mut Bundle) {
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "cgroup" {
            mount["options"] = json!(["nosuid", "noexec", "nodev", "rw"]);
        }
    }
}

#[test]
fn root_a_group_is_its_user_s_where_it_is_the_container_s_own_and_writable() {
    if !is_v2() {
        skip_outside_guest("it needs cgroup v2");
        return;
    }
    let maps = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let make = |own: bool, writable: bool| {
        let mut bundle = Bundle::sleeping()
            .and("linux.namespaces", json!({ "type": "user" }))
            .with("linux.uidMappings", maps.clone())
            .with("linux.gidMappings", maps.clone())
            .with("process.user", json!({ "uid": 7, "gid": 7 }));
        if own {
            bundle = bundle.and("linux.namespaces", json!({ "type": "cgroup" }));
        }
        if writable {
            writable_cgroups(&mut bundle);
        }
        for path in [bundle.path().to_owned(), bundle.rootfs()] {
            std::os::unix::fs::chown(path, Some(200_000), Some(200_000)).unwrap();
        }
        bundle.call(&["create", "c"]).ok();
        bundle
    };
    let owner = |bundle: &Bundle, file: &str| fs::metadata(bundle.cgroups()[0].join(file)).unwrap().uid();
    let given = make(true, true);
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(owner(&given, file), 200_007, "{file:?}");
    }
    for file in ["memory.max", "cgroup.freeze", "pids.max"] {
        assert_eq!(owner(&given, file), 0, "{file}");
    }
    given.call(&["start", "c"]).ok();
    given
        .exec("mkdir /sys/fs/cgroup/mine && stat -c %u /sys/fs/cgroup")
        .ok();
    for (own, writable) in [(true, false), (false, true), (false, false)] {
        let kept = make(own, writable);
        assert_eq!(
            (owner(&kept, ""), owner(&kept, "cgroup.procs")),
            (0, 0),
            "{own} {writable}"
        );
    }
}
