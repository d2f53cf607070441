//! `ferry runtime`: each part of config.json, seen from inside the container (docs/oci.md is the table).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use ferry_testkit::Bundle;
use serde_json::json;

/// What `script` prints in a container made of the default configuration and `change`.
fn printed(script: &str, change: impl FnOnce(Bundle) -> Bundle) -> String {
    change(Bundle::sh(script)).run().ok()
}

#[test]
fn root_process_credentials_are_exact() {
    let text =
        printed(
            "id -u; id -g; id -G; umask; grep -E 'Cap|NoNew' /proc/self/status",
            |bundle| {
                bundle
            .with("process.user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 18 }))
            .with(
                "process.capabilities",
                json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
                        "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] }),
            )
            },
        );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["1000", "1001", "1001 5 6", "0022"]);
    let expected = [
        "CapInh:\t0000000000000020",
        "CapPrm:\t0000000000000020",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000021",
        "CapAmb:\t0000000000000020",
        "NoNewPrivs:\t1",
    ];
    assert_eq!(lines[4..], expected);
}

#[test]
fn root_limits_scheduling_and_scores_hold() {
    let script = "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; sed -n 's/^policy *: *//p' /proc/self/sched";
    let text = printed(script, |bundle| {
        bundle
            .with(
                "process.rlimits",
                json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]),
            )
            .with("process.oomScoreAdj", json!(300))
            .with("process.scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }))
            .with(
                "process.ioPriority",
                json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }),
            )
    });
    assert_eq!(text.lines().take(3).collect::<Vec<_>>(), ["100", "200", "300"]);
    if let Some(policy) = text.lines().nth(3) {
        assert_eq!(policy, "3");
    }
}

#[test]
fn root_the_personality_is_the_container_s() {
    let script = "/bin/busybox uname -m";
    assert_eq!(
        printed(script, |bundle| bundle
            .with("linux.personality", json!({ "domain": "LINUX32" }))),
        "i686"
    );
}

#[test]
fn root_names_and_kernel_parameters_are_the_container_s() {
    let script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni";
    let text = printed(script, |bundle| {
        bundle
            .with("hostname", json!("inside"))
            .with("domainname", json!("example"))
            .with(
                "linux.sysctl",
                json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "77" }),
            )
    });
    assert_eq!(text, "inside\nexample\n1\n77");
}

#[test]
fn root_a_missing_working_directory_is_made_and_home_found() {
    let bundle = Bundle::sh("pwd; echo $HOME").with("process.cwd", json!("/not/there"));
    fs::write(bundle.rootfs().join("etc/passwd"), "root:x:0:0::/home/root:/bin/sh\n").unwrap();
    assert_eq!(bundle.run().ok(), "/not/there\n/home/root");
}

#[test]
fn root_default_devices_links_and_rules_are_there() {
    let script = "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %t:%T' $d; done; for l in fd stdin \
                  stdout stderr ptmx; do readlink $l; done; echo x > null; ls -1d pts shm mqueue";
    let text = printed(script, |bundle| bundle);
    assert!(
        text.starts_with("null character special file 1:3\nzero character special file 1:5\n"),
        "{text}"
    );
    assert!(
        text.contains("/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx"),
        "{text}"
    );
    assert!(text.contains("mqueue\npts\nshm"), "{text}");
}

#[test]
fn root_devices_of_the_configuration_are_made_and_allowed_or_not() {
    let devices = json!([
        { "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 384, "uid": 3, "gid": 4 },
        { "path": "/dev/sub/pipe", "type": "p", "fileMode": 438 },
        { "path": "/srv/zero", "type": "c", "major": 1, "minor": 5 },
        { "path": "/dev/mem", "type": "c", "major": 1, "minor": 1 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
    ]);
    let script = "readlink /dev/ptmx; stat -c '%a %u %g %t:%T' /dev/mine; test -p /dev/sub/pipe && echo pipe; stat -c %F /srv/zero; (: < /dev/mem) \
                  2>&1; (: < /srv/zero) && echo read";
    let text = printed(script, |bundle| {
        bundle.with("linux.devices", devices).with(
            "process.capabilities.bounding",
            json!(["CAP_SYS_RAWIO", "CAP_DAC_OVERRIDE"]),
        )
    });
    assert!(
        text.starts_with("pts/ptmx\n600 3 4 1:5\npipe\ncharacter special file\n"),
        "{text}"
    );
    assert!(
        text.contains("Operation not permitted") && text.ends_with("read"),
        "{text}"
    );
}

#[test]
fn root_an_image_s_own_dev_is_used_when_nothing_is_mounted_there() {
    let bundle = Bundle::sh("stat -c %t:%T /dev/null; echo x > /dev/null && echo written");
    let mut bundle = bundle;
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    assert_eq!(bundle.run().ok(), "1:3\nwritten");
}

#[test]
fn root_masked_and_read_only_paths_are_so() {
    let script = "cat /masked-file; ls /masked-dir | wc -l; (echo x > /ro-dir/f) 2>&1; (echo 1 > /proc/sys/kernel/shmmni) 2>&1; \
                  cat /proc/kcore | wc -c";
    let bundle = Bundle::sh(script)
        .and("linux.maskedPaths", json!("/masked-file"))
        .and("linux.maskedPaths", json!("/masked-dir"))
        .and("linux.maskedPaths", json!("/not-there"))
        .and("linux.readonlyPaths", json!("/ro-dir"));
    for dir in ["masked-dir/x", "ro-dir"] {
        fs::create_dir_all(bundle.rootfs().join(dir)).unwrap();
    }
    fs::write(bundle.rootfs().join("masked-file"), "secret").unwrap();
    let text = bundle.run().ok();
    assert!(text.starts_with("0\n"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.ends_with("\n0"), "{text}");
}

#[test]
fn root_bind_mounts_have_their_options_and_their_children() {
    let bundle = Bundle::sh(
        "cat /data/file; (echo x > /data/file) 2>&1; cat /one; grep ' /data ' /proc/self/mountinfo; grep ' /data/sub ' \
         /proc/self/mountinfo; (echo x > /data/sub/y) 2>&1",
    )
    .and(
        "mounts",
        json!({ "destination": "/data", "source": "data", "type": "bind", "options": ["rbind", "rro", "nosuid", "noatime"] }),
    )
    .and("mounts", json!({ "destination": "/one", "source": "data/file", "options": ["bind"] }));
    fs::create_dir_all(bundle.path().join("data/sub")).unwrap();
    fs::write(bundle.path().join("data/file"), "content\n").unwrap();
    // A mount below the source, in a mount namespace of the test's own.
    fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs tmpfs data/sub && exec \"$@\"", "sh"])
        .arg(ferry_testkit::tools::ferry())
        .args(["runtime", "--root"])
        .arg(bundle.state_root())
        .args(["run", "c"])
        .current_dir(bundle.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("content\n"), "{output:?}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert_eq!(text.matches("content").count(), 2, "{text}");
    let line = text.lines().find(|line| line.contains(" /data ")).unwrap();
    assert!(line.contains("ro,nosuid,noatime"), "{line}");
    assert!(
        text.lines()
            .any(|line| line.contains(" /data/sub ro") && line.contains("tmpfs")),
        "{text}"
    );
}

#[test]
fn root_tmpfs_takes_modes_sizes_and_copies_what_it_covers() {
    let bundle = Bundle::sh("cat /full/a/b; stat -c %a /full /sized; grep ' /sized ' /proc/mounts")
        .and("mounts", json!({ "destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }))
        .and(
            "mounts",
            json!({ "destination": "/sized", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1770"] }),
        );
    fs::create_dir_all(bundle.rootfs().join("full/a")).unwrap();
    fs::write(bundle.rootfs().join("full/a/b"), "below\n").unwrap();
    fs::set_permissions(bundle.rootfs().join("full"), fs::Permissions::from_mode(0o751)).unwrap();
    let text = bundle.run().ok();
    assert!(
        text.starts_with("below\n751\n1770\n") && text.contains("size=64k"),
        "{text}"
    );
}

#[test]
fn root_the_root_can_be_read_only_and_shared() {
    let text = printed("(echo x > /file) 2>&1; true", |bundle| {
        bundle
            .with("root.readonly", json!(true))
            .with("linux.rootfsPropagation", json!("shared"))
    });
    assert!(text.contains("Read-only file system"), "{text}");
    let text = printed("sed -n '/ \\/ rw/p' /proc/self/mountinfo", |bundle| {
        bundle.with("linux.rootfsPropagation", json!("rshared"))
    });
    assert!(text.contains("shared:"), "{text}");
}

#[test]
fn root_id_mapped_mounts_show_other_owners() {
    let maps = json!([{ "containerID": 0, "hostID": 5000, "size": 100 }]);
    let bundle = Bundle::sh("stat -c '%u %g' /data/file").and(
        "mounts",
        json!({ "destination": "/data", "source": "data", "type": "bind", "options": ["bind", "idmap"],
                "uidMappings": maps, "gidMappings": maps }),
    );
    fs::create_dir(bundle.path().join("data")).unwrap();
    fs::write(bundle.path().join("data/file"), "").unwrap();
    std::os::unix::fs::chown(bundle.path().join("data/file"), Some(7), Some(8)).unwrap();
    assert_eq!(bundle.run().ok(), "5007 5008");
}

#[test]
fn root_user_namespaces_map_ids_and_can_be_joined() {
    let maps = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let mut bundle = Bundle::sh("id -u; cat /proc/self/uid_map; stat -c %u /proc/self; echo x > /dev/null; sleep 30")
        .and("linux.namespaces", json!({ "type": "user" }))
        .with("linux.uidMappings", maps.clone())
        .with("linux.gidMappings", maps);
    bundle.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "cgroup");
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let ended = bundle.call(&["create", "c"]);
    ended.ok();
    let pid = bundle.state("c")["pid"].as_i64().unwrap();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 200_000);
    bundle.call(&["start", "c"]).ok();
    let inside = bundle.exec("id -u; readlink /proc/self/ns/user").ok();
    let namespace = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(inside, format!("0\n{}", namespace.display()));

    // Another container joins its user, PID and network namespaces by path.
    let path = |kind: &str| json!(format!("/proc/{pid}/ns/{kind}"));
    let mut other = Bundle::sh("readlink /proc/self/ns/user; cat /proc/self/uid_map; ls /proc");
    other.set(
        "linux.namespaces",
        json!([
            { "type": "user", "path": path("user") }, { "type": "pid", "path": path("pid") },
            { "type": "network", "path": path("net") }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
        ]),
    );
    other.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "cgroup");
    let text = other.run().ok();
    assert!(text.contains(&namespace.display().to_string()), "{text}");
    assert!(text.contains("200000"), "{text}");
    assert!(
        text.lines().any(|line| line == "1"),
        "the first container's first process is seen: {text}"
    );
}

#[test]
fn root_a_namespace_is_joined_where_it_is_mounted() {
    // As `ip netns add` and podman keep them: the open file's name is then that of the mount.
    let mut bundle = Bundle::sh("readlink /proc/self/ns/net");
    let place = bundle.path().join("netns");
    fs::write(&place, "").unwrap();
    for namespace in bundle.spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!(place);
        }
    }
    fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
    let script = format!(
        "mount --bind /proc/self/ns/net {}; readlink /proc/self/ns/net; exec {} runtime --root {} run --bundle {} c",
        place.display(),
        ferry_testkit::tools::ferry().display(),
        bundle.state_root().display(),
        bundle.path().display()
    );
    let printed = ferry_testkit::Run::new("unshare")
        .args(["--mount", "--net", "sh", "-ec", &script])
        .ok();
    let (outside, inside) = printed.split_once('\n').unwrap();
    assert_eq!(outside, inside);
}

#[test]
fn root_a_file_is_not_mounted_on_a_directory() {
    Bundle::sh("true")
        .and(
            "mounts",
            json!({ "destination": "/tmp", "type": "bind", "source": "/etc/passwd", "options": ["bind"] }),
        )
        .run()
        .fails(1, "mount /tmp: not a directory");
}

#[test]
fn root_time_namespaces_have_their_offsets() {
    let up = |text: &str| text.split('.').next().unwrap().parse::<u64>().unwrap();
    let host = up(&fs::read_to_string("/proc/uptime").unwrap());
    let bundle = Bundle::sh("cat /proc/uptime")
        .and("linux.namespaces", json!({ "type": "time" }))
        .with(
            "linux.timeOffsets",
            json!({ "boottime": { "secs": 100_000, "nanosecs": 0 }, "monotonic": { "secs": 5 } }),
        );
    let inside = up(&bundle.run().ok());
    assert!((host + 100_000..host + 100_010).contains(&inside), "{host} {inside}");
}

#[test]
fn root_cgroup_namespaces_and_views_are_the_container_s() {
    let text = printed("cat /proc/self/cgroup; ls /sys/fs/cgroup", |bundle| {
        bundle.and("linux.namespaces", json!({ "type": "cgroup" }))
    });
    assert!(text.contains(":/\n") && !text.contains("ferry-test"), "{text}");
}

#[test]
fn root_resources_reach_the_cgroup() {
    let bundle = Bundle::sleeping().with(
        "linux.resources",
        json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 33 }, "cpu": { "shares": 512 },
                "devices": [{ "allow": false, "access": "rwm" }] }),
    );
    bundle.call(&["create", "c"]).ok();
    let read = |names: &[&str]| {
        bundle
            .cgroups()
            .iter()
            .flat_map(|dir| names.iter().map(move |name| dir.join(name)))
            .find_map(|file| fs::read_to_string(file).ok())
    };
    assert_eq!(
        read(&["memory.limit_in_bytes", "memory.max"]).unwrap().trim(),
        "67108864"
    );
    assert_eq!(read(&["pids.max"]).unwrap().trim(), "33");
}

#[test]
fn root_seccomp_filters_the_program_and_every_exec() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }],
    });
    for no_new_privileges in [true, false] {
        let bundle = Bundle::sh("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; sleep 30")
            .with("linux.seccomp", profile.clone())
            .with("process.noNewPrivileges", json!(no_new_privileges));
        bundle.up();
        let text = bundle.exec("mkdir /tmp/y; grep Seccomp: /proc/self/status");
        assert!(text.stderr.contains("File descriptor in bad state"), "{text:?}");
        assert_eq!(text.ok(), "Seccomp:\t2");
        assert!(!bundle.rootfs().join("tmp/x").exists());
    }
}

#[test]
fn root_seccomp_notifications_go_to_the_listener() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "LISTENER", "listenerMetadata": "about",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
    });
    let mut bundle = Bundle::sleeping().with("linux.seccomp", profile);
    let socket = bundle.path().join("agent");
    bundle.set("linux.seccomp.listenerPath", json!(socket));
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        ferry_testkit::bundle::receive_fd(&stream)
    });
    bundle.up();
    let fd = agent.join().unwrap();
    let link = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))).unwrap();
    assert_eq!(link.to_string_lossy(), "anon_inode:seccomp notify");
}

#[test]
fn root_all_six_hooks_run_in_order_with_the_state() {
    let mut bundle = Bundle::sh("echo program >> /log");
    let log = bundle.rootfs().join("log");
    let host = |name: &str| {
        let script = format!("read state; echo {name} $state >> {}", log.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] }])
    };
    let inside =
        |name: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("read s; echo {name} $s >> /log")] }]);
    bundle.set("annotations", json!({ "key": "value" }));
    bundle.set(
        "hooks",
        json!({ "prestart": host("prestart"), "createRuntime": host("createRuntime"),
                "createContainer": host("createContainer"), "startContainer": inside("startContainer"),
                "poststart": host("poststart"), "poststop": host("poststop") }),
    );
    bundle.call(&["create", "c"]).ok();
    let pid = bundle.state("c")["pid"].clone();
    bundle.call(&["start", "c"]).ok();
    bundle.wait_for_status("c", "stopped");
    bundle.call(&["delete", "c"]).ok();
    let text = fs::read_to_string(&log).unwrap();
    let mut names: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    // The program and the hook after its start run side by side.
    names.retain(|name| *name != "program");
    let order = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    assert_eq!(names, order);
    let state = |name: &str| -> serde_json::Value {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()
    };
    for (name, status, pid) in [
        ("createRuntime", "creating", pid.clone()),
        ("createContainer", "creating", json!(1)),
        ("startContainer", "created", json!(1)),
        ("poststart", "running", pid),
        ("poststop", "stopped", json!(0)),
    ] {
        let state = state(name);
        assert_eq!((&state["status"], &state["pid"]), (&json!(status), &pid), "{name}");
        assert_eq!(
            (&state["id"], &state["annotations"]["key"]),
            (&json!("c"), &json!("value"))
        );
    }
}

#[test]
fn root_no_pivot_runs_in_the_root_all_the_same() {
    let bundle = Bundle::sh("ls /; cat /etc/mark");
    fs::write(bundle.rootfs().join("etc/mark"), "mine").unwrap();
    let text = bundle.call(&["run", "--no-pivot", "c"]).ok();
    assert!(text.ends_with("mine") && !text.contains("root\n"), "{text}");
}

#[test]
fn root_links_in_the_image_lead_nowhere_outside() {
    // CVE-2021-30465, CVE-2026-41579, CVE-2025-31133 and their kin.
    let outside = |bundle: &Bundle| bundle.path().join("outside");
    for link in ["dev", "proc", "sys"] {
        let bundle = Bundle::sh("true");
        fs::create_dir(outside(&bundle)).unwrap();
        fs::remove_dir(bundle.rootfs().join(link)).unwrap();
        symlink("../outside", bundle.rootfs().join(link)).unwrap();
        let ended = bundle.run();
        assert_ne!(ended.code, 0, "/{link} is a link");
        assert_eq!(fs::read_dir(outside(&bundle)).unwrap().count(), 0, "/{link}");
    }
    let bundle = Bundle::sh("true").and(
        "mounts",
        json!({ "destination": "/data/x", "type": "tmpfs", "source": "tmpfs" }),
    );
    fs::create_dir(outside(&bundle)).unwrap();
    symlink(outside(&bundle), bundle.rootfs().join("data")).unwrap();
    bundle.run();
    assert_eq!(fs::read_dir(outside(&bundle)).unwrap().count(), 0);
    // CVE-2024-21626
    for fd in 3..12 {
        let bundle = Bundle::sh("true").with("process.cwd", json!(format!("/proc/self/fd/{fd}")));
        assert_ne!(bundle.run().code, 0, "{fd}");
    }
}
