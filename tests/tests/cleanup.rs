//! Nothing is left: dropping a `TestDaemon` checks processes, control groups, links, rules, mounts and directories.

use std::collections::BTreeSet;
use std::path::Path;

use ferry_testkit::images::{self, BUSYBOX, Layer};
use ferry_testkit::{TestDaemon, wait_for_none, wait_until};

/// Every path below, but for the database's own files. What vanishes meanwhile may be in it or not.
fn tree(dir: &Path) -> BTreeSet<String> {
    // It complains about what vanishes while it looks, and fails for it.
    let list = ferry_testkit::Run::new("find").args([dir.as_os_str()]).output().stdout;
    list.lines()
        .filter(|line| !line.contains("ferry.db"))
        .map(str::to_owned)
        .collect()
}

/// Data root and run directory of a daemon without containers, once nothing is left to delete: files go after the answer.
fn settled(daemon: &TestDaemon) -> BTreeSet<String> {
    // The socket is there before the engine: one that has answered has made its files.
    daemon.cli(["version"]).ok();
    let busy = [
        daemon.data_root().join("containers"),
        daemon.data_root().join("tmp"),
        daemon.run_dir().join("containers"),
    ];
    wait_for_none("what is still to be deleted", || {
        let all = busy.iter().flat_map(|dir| tree(dir));
        all.filter(|path| !busy.iter().any(|dir| dir == Path::new(path)))
            .collect()
    });
    let (mut all, run) = (tree(&daemon.data_root()), tree(&daemon.run_dir()));
    all.extend(run);
    all
}

/// What is there and was not, with a `+`, and what was there and is not, with a `-`.
fn changes(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let more = now.difference(before).map(|path| format!("+ {path}"));
    let less = before.difference(now).map(|path| format!("- {path}"));
    more.chain(less).collect()
}

#[test]
fn a_daemon_that_did_nothing_leaves_nothing() {
    let daemon = TestDaemon::start();
    let links = daemon.in_namespace(&["ip", "-o", "link"]).ok();
    assert_eq!(
        links.lines().count(),
        1,
        "the bridge is made with the first container: {links}"
    );
    daemon.finish();
}

#[test]
fn every_way_to_end_a_container_leaves_the_disk_as_it_was() {
    let daemon = TestDaemon::start();
    daemon.sh(&[], "true");
    let before = settled(&daemon);
    daemon.sh(
        &[],
        "dd if=/dev/zero of=/big bs=1M count=5 2>/dev/null; mkdir -p /a/b/c; ln -s /x /a/l",
    );
    daemon.try_sh(&[], "exit 3");
    daemon.cli(["run", "--rm", BUSYBOX, "nope"]).fails(127);
    daemon.cli(["run", "--rm", "-w", "/etc/passwd", BUSYBOX, "true"]);
    daemon.cli(["run", "--rm", "-v", "/nowhere:/x:nonsense", BUSYBOX, "true"]);
    daemon.cli(["run", "--rm", "--network", "nonsense", BUSYBOX, "true"]);
    daemon
        .cli(["run", "--rm", "-m", "16m", BUSYBOX, "tail", "/dev/zero"])
        .fails(137);
    daemon.sleeper("c1", &["--tmpfs", "/t"]);
    daemon.cli(["rm", "-f", "c1"]).ok();
    daemon
        .cli(["run", "-d", "--rm", "--name", "d1", BUSYBOX, "sleep", "1000"])
        .ok();
    daemon.cli(["stop", "-t", "0", "d1"]).ok();
    daemon.cli(["create", "--name", "e1", BUSYBOX]).ok();
    daemon.cli(["rm", "e1"]).ok();
    assert_eq!(changes(&before, &settled(&daemon)), [""; 0]);
    let links = daemon.in_namespace(&["ip", "-o", "link"]).ok();
    assert!(!links.contains("veth"), "{links}");
}

#[test]
fn removing_the_image_removes_its_layers() {
    let daemon = TestDaemon::start();
    let before = settled(&daemon);
    let image = images::above_busybox("gone:1", Layer::new().file("x", b"x", 0o644));
    daemon.load(&images::docker_archive(&[image]));
    daemon.cli(["run", "--rm", "gone:1", "true"]).ok();
    daemon.cli(["rmi", "gone:1"]).ok();
    wait_for_none("what is left of the image", || {
        let mut changes = changes(&before, &settled(&daemon));
        changes.retain(|change| !change.starts_with('+') || !Path::new(&change[2..]).is_dir());
        changes
    });
}

#[test]
fn no_mount_of_a_container_shows_on_the_host() {
    let daemon = TestDaemon::start();
    for n in 0..5 {
        daemon.sleeper(&format!("c{n}"), &["--tmpfs", "/t"]);
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let own: Vec<&str> = table
        .lines()
        .filter(|line| line.contains(daemon.cgroup_parent()) || line.contains("ferry/containers"))
        .collect();
    assert!(own.is_empty(), "{own:#?}");
}

#[test]
fn the_daemon_s_end_takes_its_bridge_and_rules_and_sysctls_along() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("c1", &[]);
    let rules = daemon.in_namespace(&["nft", "list", "ruleset"]).ok();
    assert!(rules.contains("table "), "{rules}");
    daemon.cli(["rm", "-f", "c1"]).ok();
    daemon.stop();
    let links = daemon.in_namespace(&["ip", "-o", "link"]).ok();
    assert_eq!(links.lines().count(), 1, "{links}");
    assert_eq!(daemon.in_namespace(&["nft", "list", "ruleset"]).ok(), "");
    let forwarding = daemon.in_namespace(&["sh", "-c", "cat /proc/sys/net/ipv4/conf/*/forwarding"]);
    assert!(!forwarding.ok().contains('1'), "forwarding is still on");
}

#[test]
fn directories_of_nobody_are_collected_at_the_start() {
    let mut daemon = TestDaemon::start();
    daemon.busybox();
    daemon.stop();
    let data = daemon.data_root();
    let orphan = "0123456789abcdef".repeat(4);
    for dir in [
        format!("containers/{orphan}/upper"),
        format!("layers/{orphan}/fs"),
        "tmp/half-done".to_owned(),
    ] {
        std::fs::create_dir_all(data.join(dir)).unwrap();
    }
    daemon.start_again();
    wait_until("the orphans are collected", || {
        !data.join(format!("containers/{orphan}")).exists()
            && !data.join(format!("layers/{orphan}")).exists()
            && !data.join("tmp/half-done").exists()
    });
    assert_eq!(daemon.sh(&[], "echo alive"), "alive");
}
