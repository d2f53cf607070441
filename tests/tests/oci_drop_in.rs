//! `ferry runtime`: what callers of runc rely on and the specification does not say.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use ferry_testkit::{Bundle, tools};
use serde_json::{Value, json};

const MAPS: &str = r#"[{"containerID":0,"hostID":100000,"size":65536}]"#;

/// With a user namespace of its own, and without what such a one may not mount.
fn in_user_namespace(mut bundle: Bundle) -> Bundle {
    let maps: Value = serde_json::from_str(MAPS).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "cgroup");
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
    bundle
        .and("linux.namespaces", json!({ "type": "user" }))
        .with("linux.uidMappings", maps.clone())
        .with("linux.gidMappings", maps)
}

fn bind(source: impl AsRef<Path>, target: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
    json!({ "destination": target, "source": source.as_ref(), "type": "bind", "options": options })
}

#[test]
fn root_a_created_container_has_nothing_of_the_host_open() {
    let bundle = Bundle::sh("true");
    bundle.call(&["create", "c"]).ok();
    let pid = bundle.state("c")["pid"].to_string();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<String> = descriptors
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    let dir = bundle.path().display().to_string();
    // Its streams, and the two sockets it waits on.
    let strange: Vec<&String> = open
        .iter()
        .filter(|target| !target.starts_with("socket:") && *target != "/dev/null" && !target.starts_with(&dir))
        .collect();
    assert!(strange.is_empty() && open.len() == 5, "{open:?}");
}

/// systemd tells by its own hierarchy, or by v2 beside v1, whose a process is, and ends what a stopped service leaves.
#[test]
fn root_a_container_leaves_its_caller_s_group_in_hierarchies_without_controllers() {
    let bundle = Bundle::sleeping();
    bundle.call(&["create", "c"]).ok();
    bundle.call(&["start", "c"]).ok();
    let pid = bundle.state("c")["pid"].to_string();
    let ended = bundle.call(&["exec", "c", "cat", "/proc/self/cgroup"]).ok();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for (list, directory) in [("name=systemd", "systemd"), ("", "unified")] {
        if !bundle
            .cgroups()
            .iter()
            .any(|group| group.starts_with(format!("/sys/fs/cgroup/{directory}")))
        {
            continue;
        }
        let of = |text: &str| {
            let line = text.lines().find(|line| line.split(':').nth(1) == Some(list));
            line.map(|line| line.rsplit(':').next().unwrap_or_default().to_owned())
        };
        assert!(of(&own).unwrap().ends_with("/c"), "{own}");
        assert_eq!(of(&own), of(&ended), "{ended}");
    }
}

#[test]
fn root_a_created_container_ends_on_a_signal() {
    let bundle = Bundle::sh("true");
    bundle.call(&["create", "c"]).ok();
    bundle.call(&["kill", "c", "TERM"]).ok();
    bundle.wait_for_status("c", "stopped");
    bundle.call(&["kill", "--all", "c", "0"]).ok();
}

#[test]
fn root_delete_waits_for_a_program_that_is_about_to_end() {
    // A machine that is busy enough lets no program end in time: most of them have to, not each.
    let refused = (0..10).filter(|_| {
        let bundle = Bundle::sh("true");
        bundle.call(&["create", "c"]).ok();
        bundle.call(&["start", "c"]).ok();
        bundle.call(&["delete", "c"]).code != 0
    });
    assert!(refused.count() <= 2);
}

#[test]
fn root_filters_that_know_less_than_this_runtime_start_all_the_same() {
    // As profiles from before 2020: no faccessat2, no close_range, no clone3, no openat2.
    let denied = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        { "names": ["faccessat2", "close_range", "clone3", "openat2"], "action": "SCMP_ACT_ERRNO" }] });
    for no_new_privileges in [true, false] {
        let bundle = Bundle::sh("echo up")
            .with("linux.seccomp", denied.clone())
            .with("process.noNewPrivileges", json!(no_new_privileges));
        assert_eq!(bundle.run().ok(), "up");
    }
}

#[test]
fn root_hooks_of_the_host_find_the_root_where_it_is() {
    let bundle = Bundle::sh("test -e /tmp/passwd && echo seen");
    let rootfs = bundle.rootfs().display().to_string();
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); \
         nsenter -m -t $pid sh -c 'mount --bind /etc {rootfs}/tmp && test -e {rootfs}/dev/null'"
    );
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let bundle = bundle.with("hooks.createRuntime", hook);
    assert_eq!(bundle.run().ok(), "seen");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_bind_mounts_see_what_earlier_ones_made() {
    for user in [false, true] {
        let bundle = Bundle::sh("cat /final/inner/file");
        let (dir, rootfs) = (bundle.path().to_owned(), bundle.rootfs());
        fs::create_dir_all(dir.join("private/data/inner")).unwrap();
        fs::write(dir.join("private/data/inner/file"), "deep").unwrap();
        // Root of a user namespace may not make them.
        for place in ["mnt", "final"] {
            fs::create_dir(rootfs.join(place)).unwrap();
        }
        // Root of the user namespace may not get there.
        fs::set_permissions(dir.join("private"), fs::Permissions::from_mode(0o750)).unwrap();
        let bundle = bundle
            .and("mounts", bind(dir.join("private/data"), "/mnt", &["rbind", "rprivate"]))
            .and(
                "mounts",
                bind(
                    rootfs.join("mnt"),
                    &rootfs.join("final").display().to_string(),
                    &["rbind"],
                ),
            );
        let bundle = if user { in_user_namespace(bundle) } else { bundle };
        assert_eq!(bundle.run().ok(), "deep", "user namespace: {user}");
    }
}

#[test]
fn root_bind_mounts_have_the_attributes_that_are_named_and_no_others() {
    let script = "grep ' /data ' /proc/self/mounts | cut -d ' ' -f 4";
    let run = |source: &str, options: &[&str], user: bool| {
        let bundle = Bundle::sh(script);
        let dir = bundle.path().join("data");
        fs::create_dir(&dir).unwrap();
        fs::create_dir(bundle.rootfs().join("data")).unwrap();
        let bundle = bundle.and("mounts", bind(&dir, "/data", options));
        let bundle = if user { in_user_namespace(bundle) } else { bundle };
        fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
        // The source's own attributes, in a mount namespace of the caller's.
        let script = format!(
            "mount --bind data data && mount -o remount,bind,{source} data && exec \"$0\" runtime --root state run c"
        );
        let ended = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(tools::ferry())
            .current_dir(bundle.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        let error = String::from_utf8_lossy(&ended.stderr).into_owned();
        if ended.status.success() { Ok(text) } else { Err(error) }
    };
    let has = |text: &Result<String, String>, flag: &str| text.as_ref().unwrap().split(',').any(|found| found == flag);
    for user in [false, true] {
        // Nothing named: all stay. Something named: only that, but not against the host in a user namespace.
        let kept = run("ro,noexec", &["rprivate"], user);
        assert!(has(&kept, "ro") && has(&kept, "noexec"), "{kept:?}");
        let named = run("ro,noexec", &["nosuid"], user);
        assert!(
            has(&named, "nosuid") && has(&named, "ro") == user && has(&named, "noexec") == user,
            "{named:?}"
        );
    }
    assert!(has(&run("ro", &["rw"], false), "rw"));
    let refused = run("ro", &["rw"], true).unwrap_err();
    assert!(
        refused.contains("error mounting") && refused.contains("operation not permitted"),
        "{refused}"
    );
}

#[test]
fn root_links_that_lead_nowhere_yet_are_mount_points_inside_the_root() {
    let bundle = Bundle::sh("cat /etc/hosts; ls /tmp/foo/bar/baz");
    symlink("/tmp/foo/bar", bundle.rootfs().join("jump")).unwrap();
    symlink("/jump/baz/hosts", bundle.rootfs().join("etc/hosts")).unwrap();
    fs::write(bundle.path().join("hosts"), "mounted\n").unwrap();
    let source = bundle.path().join("hosts");
    assert_eq!(
        bundle.and("mounts", bind(source, "/etc/hosts", &[])).run().ok(),
        "mounted\nhosts"
    );
    assert!(!Path::new("/tmp/foo/bar/baz").exists());
}

#[test]
fn root_a_tmpfs_has_the_mode_of_what_it_covers_or_its_own() {
    let tmpfs = |target: &str| json!({ "destination": target, "type": "tmpfs", "source": "tmpfs" });
    let bundle = Bundle::sh("stat -c %a /there /new/dir");
    fs::create_dir(bundle.rootfs().join("there")).unwrap();
    fs::set_permissions(bundle.rootfs().join("there"), fs::Permissions::from_mode(0o710)).unwrap();
    let bundle = bundle.and("mounts", tmpfs("/there")).and("mounts", tmpfs("/new/dir"));
    assert_eq!(bundle.run().ok(), "710\n1777");
}

#[test]
fn root_a_container_without_a_mount_namespace_shares_the_caller_s() {
    let mut bundle = Bundle::sh("ls /; readlink /proc/self/ns/mnt")
        .with("linux.maskedPaths", json!([]))
        .with("linux.readonlyPaths", json!([]));
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    let text = bundle.run().ok();
    let own = fs::read_link("/proc/self/ns/mnt").unwrap().display().to_string();
    assert!(text.contains(&own) && !text.contains("boot"), "{text}");
    assert_eq!(bundle.leftovers(), [""; 0]);
    let masked = bundle.with("linux.maskedPaths", json!(["/proc/kcore"]));
    masked
        .run()
        .fails(1, "unable to restrict sys entries without a private MNT namespace");
}

#[test]
fn root_a_time_namespace_belongs_to_the_container_s_user_namespace() {
    let bundle = in_user_namespace(Bundle::sleeping())
        .and("linux.namespaces", json!({ "type": "time" }))
        .with("linux.timeOffsets", json!({ "boottime": { "secs": 100_000 } }));
    bundle.up();
    let pid = bundle.state("c")["pid"].to_string();
    // Who may join it is who owns it: root of that user namespace.
    let ended = Command::new("nsenter")
        .args(["--user", "--time", "--target", &pid, "cat", "/proc/uptime"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(
        text.split('.').next().unwrap().parse::<u64>().unwrap() > 100_000,
        "{ended:?}"
    );
}

#[test]
fn root_the_caller_s_cpus_are_not_the_container_s() {
    let script = "sed -n 's/Cpus_allowed_list:\t//p' /proc/self/status";
    let all = fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.effective_cpus")
        .or_else(|_| fs::read_to_string("/sys/fs/cgroup/cpuset.cpus.effective"))
        .or_else(|_| fs::read_to_string("/sys/devices/system/cpu/online"))
        .unwrap();
    let bundle = Bundle::sh(script);
    fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
    let ended = Command::new("taskset")
        .args(["-c", "0"])
        .arg(tools::ferry())
        .args(["runtime", "--root", "state", "run", "c"])
        .current_dir(bundle.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout).trim(), all.trim(), "{ended:?}");
}

#[test]
fn root_what_a_terminal_prints_into_a_file_has_plain_lines() {
    let bundle = Bundle::sh("echo a; echo b; tty").with("process.terminal", json!(true));
    assert_eq!(bundle.run().stdout, "a\nb\n/dev/pts/0\n");
    let bundle = Bundle::sleeping();
    bundle.up();
    let exec = bundle.call(&["exec", "--tty", "c", "/bin/sh", "-c", "echo a; echo b"]);
    assert_eq!(exec.stdout, "a\nb\n");
}

#[test]
fn root_without_pivot_the_host_s_proc_is_out_of_reach() {
    // As long as one procfs is there without masks, a user namespace may mount another such.
    let script = "unshare -mrpf sh -euc 'mount -t proc none /proc && echo mounted' 2>&1 || true";
    for flags in [&["run", "c"][..], &["run", "--no-pivot", "c"]] {
        let mut bundle = Bundle::sh(script).with("linux.seccomp", Value::Null);
        symlink("busybox", bundle.rootfs().join("bin/unshare")).unwrap();
        for set in ["bounding", "effective", "permitted"] {
            let caps = bundle.spec["process"]["capabilities"][set].as_array_mut().unwrap();
            caps.extend([json!("CAP_SYS_ADMIN"), json!("CAP_SETFCAP")]);
        }
        let text = bundle.call(flags).ok();
        assert!(
            !text.contains("mounted") && text.contains("mount:"),
            "{flags:?}: {text}"
        );
    }
}

#[test]
fn root_start_container_hooks_are_the_container_s() {
    let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    let bundle = Bundle::sh("true")
        .with("process.env", json!(["ONE=two", "PATH=/bin"]))
        .with("hooks.startContainer", hook("test $ONE = two && test -n \"$HOME\""));
    bundle.run().ok();
    for no_new_privileges in [true, false] {
        let filtered = Bundle::sh("true")
            .with("process.noNewPrivileges", json!(no_new_privileges))
            .with("hooks.startContainer", hook("mkdir /dev/shm/foo"))
            .with(
                "linux.seccomp",
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL" }] }),
            );
        filtered.run().fails(1, "bad system call");
    }
}

#[test]
fn root_seccomp_agents_hear_of_the_container_at_create() {
    let bundle = Bundle::sh("true");
    let path = bundle.path().join("agent");
    let agent = UnixListener::bind(&path).unwrap();
    let bundle = bundle.with(
        "linux.seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "listenerPath": path,
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }] }),
    );
    bundle.call(&["create", "c"]).ok();
    agent.set_nonblocking(true).unwrap();
    let (stream, _) = agent.accept().expect("it was told before create ended");
    drop(ferry_testkit::bundle::receive_fd(&stream));
}

#[test]
fn root_exec_takes_its_process_from_a_pipe_and_capabilities_as_the_container_has_them() {
    let bundle = Bundle::sleeping().with("process.capabilities.inheritable", json!(["CAP_KILL"]));
    bundle.up();
    let process = json!({ "args": ["/bin/echo", "piped"], "cwd": "/" }).to_string();
    let script = format!("exec \"$0\" runtime --root state exec --process <(echo '{process}') c");
    let ended = Command::new("bash")
        .args(["-c", &script])
        .arg(tools::ferry())
        .current_dir(bundle.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "piped\n", "{ended:?}");
    // Ambient only with what is inheritable in the configuration.
    let ambient = |cap: &str| {
        let text = bundle
            .call(&["exec", "--cap", cap, "c", "/bin/grep", "CapAmb", "/proc/self/status"])
            .ok();
        u64::from_str_radix(text.rsplit('\t').next().unwrap(), 16).unwrap()
    };
    assert_eq!((ambient("CAP_KILL") >> 5 & 1, ambient("CAP_NET_RAW") >> 13 & 1), (1, 0));
}

#[test]
fn root_ambient_capabilities_that_cannot_be_raised_are_said() {
    let ended = Bundle::sh("grep CapAmb /proc/self/status")
        .with("process.capabilities.inheritable", json!([]))
        .with("process.capabilities.ambient", json!(["CAP_CHOWN"]))
        .run();
    assert_eq!(ended.ok(), "CapAmb:\t0000000000000000");
    assert!(
        ended.stderr.contains("can't raise ambient capability CAP_CHOWN"),
        "{ended:?}"
    );
}

#[test]
fn root_namespaces_of_the_host_are_joined_by_a_container_with_a_user_namespace() {
    let mut bundle = in_user_namespace(Bundle::sh("readlink /proc/self/ns/net"));
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    for namespace in bundle.spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "network" {
            namespace["path"] = json!("/proc/self/ns/net");
        }
    }
    // Without rights over the network there is no sysfs.
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "sysfs" {
            *mount = json!({ "destination": "/sys", "source": "/sys", "options": ["rbind"] });
        }
    }
    assert_eq!(bundle.run().ok(), own);
}

#[test]
fn root_a_resolved_link_is_the_runtime_all_the_same() {
    let bundle = Bundle::sleeping();
    bundle.up();
    let state = bundle.state_root();
    let ended = Command::new(tools::ferry())
        .arg("--root")
        .arg(state)
        .args(["list", "-q"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "c\n", "{ended:?}");
}
