//! Control groups as containers see them and as the host does, on whichever version this machine has: `cargo xtask vm`
//! runs the same tests on the other one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ferry_testkit::images::BUSYBOX;
use ferry_testkit::{Client, Engine, TestDaemon, wait_until};

fn is_v2(engine: &Client) -> bool {
    engine.cli(["info", "--format", "{{.CgroupVersion}}"]).ok() == "2"
}

/// What a control file of the container's group holds, read on the host: v1 by its controller, v2 in one directory.
fn held(engine: &Client, container: &str, v1: (&str, &str), v2: &str) -> String {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", engine.pid(container))).unwrap();
    let (controller, file) = v1;
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if is_v2(engine) {
            return controllers.is_empty().then(|| format!("/sys/fs/cgroup{path}/{v2}"));
        }
        let found = controllers.split(',').any(|name| name == controller);
        found.then(|| format!("/sys/fs/cgroup/{controllers}{path}/{file}"))
    });
    let path = path.unwrap_or_else(|| panic!("no {controller} in {groups}"));
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .to_owned()
}

#[test]
fn a_device_that_is_not_allowed_can_be_made_but_not_opened() {
    let engine = Engine::start();
    // loop-control: openable without any capability, once the group allows it.
    let script = "mknod /d c 10 237 && mknod /b b 7 0; (: < /d) && echo char; (: < /b) && echo block; (: >> /d) && echo write; true";
    for (options, wanted) in [
        (&[][..], ""),
        (&["--device", "/dev/loop-control"], "char\nwrite"),
        (&["--device", "/dev/loop-control:/dev/x:r"], "char"),
        (&["--device-cgroup-rule", "c 10:* w"], "write"),
        (&["--device-cgroup-rule", "b 7:* rwm"], "block"),
        (&["--privileged"], "char\nblock\nwrite"),
    ] {
        let seen = engine.try_sh(options, script);
        assert_eq!(seen.stdout.trim_end(), wanted, "{options:?}: {seen:?}");
        let refused = seen.stderr.matches("Operation not permitted").count();
        assert_eq!(refused, 3 - wanted.lines().count(), "{options:?}: {seen:?}");
    }
}

#[test]
fn an_exec_is_bound_by_the_container_s_devices_and_limits() {
    let engine = Engine::start();
    engine.sleeper("c1", &["--pids-limit", "50"]);
    let output = engine.cli(["exec", "--privileged", "c1", "sh", "-c", "mknod /d c 10 237; : < /d"]);
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
    let group = |args: &[&str]| engine.cli([&["exec", "c1", "cat"], args].concat()).ok();
    assert_eq!(group(&["/proc/self/cgroup"]), group(&["/proc/1/cgroup"]));
}

#[test]
fn update_changes_a_running_container_and_leaves_its_devices_refused() {
    let engine = Engine::start();
    engine.sleeper("c1", &["-m", "64m", "--cpus", "0.5"]);
    engine
        .cli([
            "update",
            "-m",
            "96m",
            "--memory-swap",
            "128m",
            "--cpus",
            "0.25",
            "--pids-limit",
            "33",
            "--cpuset-cpus",
            "1",
            "c1",
        ])
        .ok();
    let memory = held(&engine, "c1", ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, "100663296");
    let quota = held(&engine, "c1", ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(["25000", "25000 100000"].contains(&quota.as_str()), "{quota}");
    assert_eq!(held(&engine, "c1", ("pids", "pids.max"), "pids.max"), "33");
    assert_eq!(held(&engine, "c1", ("cpuset", "cpuset.cpus"), "cpuset.cpus"), "1");
    let list = "grep Cpus_allowed_list /proc/1/status | cut -f2";
    assert_eq!(engine.cli(["exec", "c1", "sh", "-c", list]).ok(), "1");
    assert_eq!(engine.field("c1", "/HostConfig/Memory"), "100663296");
    let output = engine.cli(["exec", "c1", "sh", "-c", "mknod /d c 10 237; : < /d"]);
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
}

#[test]
fn the_group_is_named_after_the_container_and_gone_with_it() {
    let engine = TestDaemon::start();
    let id = engine.sleeper("c1", &[]);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", engine.pid("c1"))).unwrap();
    let own = format!("/{}/{id}", engine.cgroup_parent());
    assert!(groups.lines().any(|line| line.ends_with(&own)), "{groups}");
    let dir = if is_v2(&engine) { "" } else { "/memory" };
    let dir = format!("/sys/fs/cgroup{dir}{own}");
    assert!(Path::new(&dir).is_dir());
    engine.cli(["rm", "-f", "c1"]).ok();
    wait_until("the group is gone", || !Path::new(&dir).exists());
}

#[test]
fn another_parent_can_be_chosen() {
    let engine = TestDaemon::start();
    let parent = format!("/{}/mine", engine.cgroup_parent());
    let id = engine.sleeper("c1", &["--cgroup-parent", &parent]);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", engine.pid("c1"))).unwrap();
    assert!(groups.contains(&format!("{parent}/{id}")), "{groups}");
    engine.cli(["rm", "-f", "c1"]).ok();
    // A parent that was asked for may be the user's own: like Docker's, it stays.
    for line in groups.lines() {
        let mut parts = line.split(':').skip(1);
        let (controllers, path) = (parts.next().unwrap(), parts.next().unwrap());
        if let Some(path) = path.strip_suffix(&format!("/{id}")) {
            if !is_v2(&engine) && (controllers.is_empty() || controllers.starts_with("name=")) {
                continue;
            }
            let dir = format!("/sys/fs/cgroup/{controllers}{path}");
            wait_until("only the parent is left", || fs::remove_dir(&dir).is_ok());
        }
    }
}

#[test]
fn the_cgroup_namespace_is_private_on_v2_and_the_host_s_on_v1() {
    let engine = Engine::start();
    let default = if is_v2(&engine) { "private" } else { "host" };
    let id = engine.sleeper("c1", &[]);
    assert_eq!(engine.field("c1", "/HostConfig/CgroupnsMode"), default);
    engine.sleeper("p1", &["--privileged"]);
    assert_eq!(engine.field("p1", "/HostConfig/CgroupnsMode"), default);
    let seen = |options: &[&str]| engine.sh(options, "cut -d: -f3 /proc/self/cgroup | sort -u");
    assert_eq!(seen(&["--cgroupns", "private"]), "/");
    assert!(seen(&["--cgroupns", "host"]).lines().any(|path| path.len() > 60));
    if default == "private" {
        assert_eq!(seen(&[]), "/");
        assert_eq!(seen(&["--privileged"]), "/");
        let own = "cat /sys/fs/cgroup/cgroup.procs | grep -c .";
        assert_eq!(engine.sh(&[], own), "3", "the shell, cat and grep");
        // With the host's namespace the whole hierarchy is there, read-only as ever.
        let whole = format!("ls -d /sys/fs/cgroup/*/{id}; mkdir /sys/fs/cgroup/x 2>&1; true");
        let seen = engine.sh(&["--cgroupns", "host"], &whole);
        assert!(seen.contains(&id) && seen.contains("Read-only file system"), "{seen}");
    }
}

#[test]
fn a_privileged_container_may_have_groups_of_its_own() {
    let engine = Engine::start();
    let below = if is_v2(&engine) { "" } else { "/pids" };
    let dir = format!("/sys/fs/cgroup{below}/inner");
    let script = format!("mkdir {dir} && sh -c 'echo $$ > {dir}/cgroup.procs; exec sleep 1000' & sleep 1000");
    engine.busybox();
    engine
        .cli([
            "run",
            "-d",
            "--name",
            "c1",
            "--privileged",
            BUSYBOX,
            "sh",
            "-c",
            &script,
        ])
        .ok();
    wait_until("the inner group has a process", || {
        let inside = engine.cli(["exec", "c1", "cat", &format!("{dir}/cgroup.procs")]);
        !inside.stdout.trim().is_empty()
    });
    let top = engine.cli(["top", "c1"]).ok();
    assert_eq!(top.matches("sleep 1000").count(), 2, "{top}");
    engine.cli(["pause", "c1"]).ok();
    engine.cli(["unpause", "c1"]).ok();
    engine.cli(["rm", "-f", "c1"]).ok();
}

#[test]
fn writes_to_a_disk_are_as_slow_as_asked_for() {
    let engine = TestDaemon::start();
    let device = fs::metadata(engine.data_root()).unwrap().dev();
    let number = |device: u64| (device >> 8 & 0xfff, (device & 0xff) | (device >> 12 & 0xfff00));
    let (major, minor) = number(device);
    let mut block = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).unwrap_or_default();
    if Path::new("/sys/dev/block").join(&block).join("partition").exists() {
        block.pop();
    }
    let name = block.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let disk = format!("/dev/{name}");
    if name.is_empty() || !Path::new(&disk).exists() {
        eprintln!("skipped: the data root is on no disk with a node");
        return;
    }
    engine.sleeper("c1", &["--device-write-bps", &format!("{disk}:1mb")]);
    let limit = held(&engine, "c1", ("blkio", "blkio.throttle.write_bps_device"), "io.max");
    let (major, minor) = number(fs::metadata(&disk).unwrap().rdev());
    let wanted = match is_v2(&engine) {
        true => format!("{major}:{minor} rbps=max wbps=1048576 riops=max wiops=max"),
        false => format!("{major}:{minor} 1048576"),
    };
    assert_eq!(limit, wanted);
    let started = Instant::now();
    let write = "dd if=/dev/zero of=/x bs=64k count=32 oflag=direct 2>&1";
    engine.cli(["exec", "c1", "sh", "-c", write]).ok();
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1500), "2 MiB at 1 MiB/s took {took:?}");
}

#[test]
fn what_only_v1_has_is_left_out_with_a_warning_on_v2() {
    let engine = Engine::start();
    let options = ["-m", "64m", "--memory-swappiness", "10", "--oom-kill-disable"];
    engine.busybox();
    let output = engine.cli([&["create", "--name", "c1"], &options[..], &[BUSYBOX, "true"]].concat());
    assert_eq!(output.code, 0, "{output:?}");
    let discarded = output.stderr.matches("discarded").count();
    assert_eq!(discarded, if is_v2(&engine) { 2 } else { 0 }, "{output:?}");
    engine.cli(["start", "c1"]).ok();
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_nothing() {
    let engine = TestDaemon::start();
    engine.busybox();
    let none = engine.cli(["run", "--rm", "--cpu-quota", "999", BUSYBOX, "true"]);
    assert_eq!(none.code, 125, "{none:?}");
    assert_eq!(engine.cli(["ps", "-aq"]).ok(), "");
    engine.finish();
}
