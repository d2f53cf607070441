//! `--userns=auto`: a range of ids of the container's own. Docker has no such thing, so these run on Ferry only.

use std::os::unix::fs::MetadataExt;

use ferry_testkit::images::{self, BUSYBOX};
use ferry_testkit::{Run, TestDaemon};

/// `(inside, outside, length)` of the container's id map.
fn map(daemon: &TestDaemon, name: &str) -> (u32, u32, u32) {
    let text = std::fs::read_to_string(format!("/proc/{}/uid_map", daemon.pid(name))).unwrap();
    let numbers: Vec<u32> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    (numbers[0], numbers[1], numbers[2])
}

#[test]
fn root_inside_is_nobody_outside() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--userns", "auto"]);
    let (inside, outside, length) = map(&daemon, "c1");
    assert_eq!((inside, length), (0, 65_536));
    assert!(outside >= 65_536, "{outside}");
    assert_eq!(daemon.cli(["exec", "c1", "id", "-u"]).ok(), "0");
    assert_eq!(
        daemon
            .cli([
                "exec",
                "c1",
                "sh",
                "-c",
                "echo x > /file; stat -c %u /file /etc/passwd /bin/busybox"
            ])
            .ok(),
        "0\n0\n0"
    );
    assert_eq!(
        std::fs::metadata(format!("/proc/{}", daemon.pid("c1"))).unwrap().uid(),
        outside
    );
}

#[test]
fn no_file_that_the_host_s_root_owns_is_written() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--userns", "auto"]);
    let (_, outside, length) = map(&daemon, "c1");
    daemon.cli(["exec", "c1", "sh", "-c", "echo x > /file; mkdir /d; echo y > /d/f; chown 1000:1000 /d/f; echo z >> /etc/passwd; cp /bin/busybox /b; chmod 4755 /b"]).ok();
    let id = daemon.field("c1", "/Id");
    let upper = daemon.data_root().join("containers").join(id).join("upper");
    let list = Run::new("find")
        .args([upper.as_os_str(), "-printf".as_ref(), "%U %p\n".as_ref()])
        .ok();
    assert!(list.lines().count() >= 5, "{list}");
    for line in list.lines() {
        let owner: u32 = line.split(' ').next().unwrap().parse().unwrap();
        assert!((outside..outside + length).contains(&owner), "{line}");
    }
}

#[test]
fn two_containers_have_ranges_of_their_own_and_keep_them() {
    let mut daemon = TestDaemon::start();
    daemon.sleeper("a1", &["--userns", "auto"]);
    daemon.sleeper("b1", &["--userns", "auto"]);
    let (a, b) = (map(&daemon, "a1"), map(&daemon, "b1"));
    assert!(a.1.abs_diff(b.1) >= 65_536, "{a:?} {b:?}");
    daemon.cli(["exec", "a1", "sh", "-c", "echo kept > /file"]).ok();
    daemon.restart();
    daemon.cli(["restart", "-t", "0", "a1"]).ok();
    assert_eq!(map(&daemon, "a1"), a);
    assert_eq!(
        daemon
            .cli(["exec", "a1", "sh", "-c", "cat /file; stat -c %u /file"])
            .ok(),
        "kept\n0"
    );
    daemon.sleeper("c1", &["--userns", "auto"]);
    assert!(![a.1, b.1].contains(&map(&daemon, "c1").1));
}

#[test]
fn layers_are_mapped_and_not_copied() {
    let daemon = TestDaemon::start();
    daemon.busybox();
    let used = || -> u64 {
        let text = Run::new("du")
            .args(["-sk".as_ref(), daemon.data_root().as_os_str()])
            .ok();
        text.split_whitespace().next().unwrap().parse().unwrap()
    };
    let before = used();
    for n in 0..5 {
        daemon.sleeper(&format!("c{n}"), &["--userns", "auto"]);
    }
    assert!(used() - before < 1024, "five containers take {} KiB", used() - before);
    let layer = images::busybox_tar().len();
    assert!(layer > 1 << 20);
}

#[test]
fn what_needs_the_host_s_root_is_refused_inside() {
    let daemon = TestDaemon::start();
    let inside = daemon.sh(&["--userns", "auto"], "mknod /tmp/n c 1 3 2>/dev/null || echo no; cat /proc/self/uid_map | wc -l; ls /dev/null /dev/zero | wc -l; echo x > /dev/null && echo dev; id -u; hostname | wc -l");
    assert_eq!(inside, "no\n1\n2\ndev\n0\n1");
    let network = daemon.sh(
        &["--userns", "auto"],
        "ls /sys/class/net; ping -c 1 -W 2 $(ip route | awk '/default/ {print $3}') > /dev/null && echo up",
    );
    assert_eq!(network, "eth0\nlo\nup");
    let bind = daemon.dir().join("bind");
    std::fs::create_dir_all(&bind).unwrap();
    let option = format!("{}:/b", bind.display());
    let denied = daemon.try_sh(&["--userns", "auto", "-v", &option], "touch /b/x");
    assert_ne!(denied.code, 0, "a directory of the host's root was written: {denied:?}");
}

#[test]
fn host_is_the_default_and_can_be_said() {
    let daemon = TestDaemon::start();
    daemon.sleeper("c1", &["--userns", "host"]);
    assert_eq!(map(&daemon, "c1"), (0, 0, u32::MAX));
    daemon.cli(["run", "--rm", BUSYBOX, "true"]).ok();
}
