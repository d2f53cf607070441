//! dockerd with `--userns-remap`: every container in a user namespace.

use std::os::unix::fs::MetadataExt as _;

use ferry_testkit::Engines;

#[test]
fn containers_of_a_remapped_engine_are_nobody_on_the_host() {
    let Some(engines) = Engines::start() else { return };
    // The machine has no program by which dockerd could make its user.
    engines.sh(
        "echo dockremap:x:991:991::/:/bin/false >>/etc/passwd; echo dockremap:x:991: >>/etc/group
         echo dockremap:1000000:65536 | tee -a /etc/subuid >>/etc/subgid",
    );
    engines.start_docker(&["--userns-remap=default"]);
    let line = [
        "run", "-d", "--name", "c1", "--memory", "64m", "busybox", "sleep", "1000",
    ];
    let id = engines.docker(line).ok();
    engines.assert_ferry_runs(&id);
    let inside = |line: &[&str]| engines.docker(["exec", "c1"]).args(line).ok();
    let map = inside(&["cat", "/proc/self/uid_map"]);
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [0, host, 65536] = numbers[..] else { panic!("{map}") };
    assert_eq!(host, 1_000_000);
    let pid = engines.docker(["inspect", "-f", "{{.State.Pid}}", "c1"]).ok();
    let owner = std::fs::metadata(engines.path(&format!("/proc/{pid}"))).unwrap().uid();
    assert_eq!(owner, host);

    assert_eq!(inside(&["id", "-u"]), "0");
    inside(&["sh", "-c", "touch /x && chown 1000 /x && echo x > /dev/null"]);
    assert_eq!(engines.docker(["exec", "-u", "app", "c1", "id", "-u"]).ok(), "1000");
    assert_eq!(engines.limit(&id, "memory", "memory.limit_in_bytes"), "67108864");
    let refused = inside(&["sh", "-c", "mknod /n c 1 3 2>&1; cat /proc/kcore 2>/dev/null | wc -c"]);
    assert_eq!(refused, "mknod: /n: Operation not permitted\n0");

    let run = |line: &str| {
        let both = ["ferry", "real"].map(|runtime| {
            let output = engines
                .docker(["run", "--rm", "--runtime", runtime])
                .args(line.split(' '))
                .output();
            (output.code, output.stdout, output.stderr)
        });
        assert_eq!(both[0], both[1], "{line}");
        both[0].clone()
    };
    assert_eq!(run("busybox cat /proc/self/uid_map /proc/self/gid_map").0, 0);
    assert_eq!(run("busybox nope").0, 127);
    assert_eq!(run("-v /tmp:/t busybox stat -c %u /t /dev/null /proc /sys /").0, 0);
    assert_eq!(run("--read-only --tmpfs /t:uid=5 busybox stat -c %u /t").1, "5\n");
    assert_eq!(
        run("--device /dev/fuse busybox stat -c %F /dev/fuse").1,
        "character special file\n"
    );
    assert_eq!(run("--privileged --userns=host busybox cat /proc/self/uid_map").0, 0);
    assert_eq!(run("--init -u app busybox id -u").1, "1000\n");
    assert_eq!(run("--network none busybox ls /sys/class/net").1, "lo\n");
    assert_eq!(run("--network container:c1 --userns host busybox true").0, 0);
    assert_eq!(run("--network container:c1 --pid container:c1 busybox true").0, 0);

    engines.sh(
        "mkdir -p /tmp/context; printf 'FROM busybox\\nRUN cat /proc/self/uid_map > /map\\n' > /tmp/context/Dockerfile",
    );
    engines.docker(["build", "-t", "built", "/tmp/context"]).ok();
    assert_eq!(
        engines
            .docker(["run", "--rm", "built", "cat", "/map"])
            .ok()
            .split_whitespace()
            .nth(1),
        Some(&*host.to_string())
    );
}
