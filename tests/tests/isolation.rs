//! What is inside differs from outside: each namespace, privileges, seccomp, masked paths.

use std::collections::BTreeMap;

use ferry_testkit::images::{self, BUSYBOX, Layer};
use ferry_testkit::{Engine, Kind, Run, peer};

/// `/proc/self/ns/*` inside a container with these options, by name.
fn inside(engine: &Engine, options: &[&str]) -> BTreeMap<String, String> {
    let text = engine.sh(
        options,
        "for n in cgroup ipc mnt net pid user uts; do echo $n $(readlink /proc/self/ns/$n); done",
    );
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

/// The same of the engine's own process.
fn outside(engine: &Engine) -> BTreeMap<String, String> {
    let script = "for n in cgroup ipc mnt net pid user uts; do echo $n $(readlink /proc/self/ns/$n); done";
    let text = engine.in_namespace(&["sh", "-c", script]).ok();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, id)| (name.to_owned(), id.to_owned()))
        .collect()
}

fn same(engine: &Engine, options: &[&str]) -> Vec<String> {
    let (inside, outside) = (inside(engine, options), outside(engine));
    assert_eq!(inside.len(), 7, "{inside:?}");
    inside
        .iter()
        .filter(|(name, id)| outside.get(*name) == Some(*id))
        .map(|(name, _)| name.clone())
        .collect()
}

#[test]
fn every_namespace_but_the_user_s_is_new() {
    let engine = Engine::start();
    // On cgroup v1 the default is the host's cgroup namespace.
    let v2 = engine.cli(["info", "--format", "{{.CgroupVersion}}"]).ok() == "2";
    let shared: &[&str] = if v2 { &["user"] } else { &["cgroup", "user"] };
    assert_eq!(same(&engine, &[]), shared);
    assert_eq!(same(&engine, &["--cgroupns", "host"]), ["cgroup", "user"]);
    assert_eq!(same(&engine, &["--cgroupns", "private"]), ["user"]);
    let two = [inside(&engine, &[]), inside(&engine, &[])];
    assert!(
        ["ipc", "mnt", "net", "pid", "uts"]
            .iter()
            .all(|name| !two[0][*name].is_empty())
    );
}

#[test]
fn host_namespaces_are_shared_when_asked_for() {
    let engine = Engine::start();
    for (option, name) in [
        ("--pid", "pid"),
        ("--ipc", "ipc"),
        ("--uts", "uts"),
        ("--network", "net"),
    ] {
        assert!(
            same(&engine, &[option, "host"]).contains(&name.to_owned()),
            "{option} host"
        );
    }
}

#[test]
fn processes_see_only_their_own() {
    let engine = Engine::start();
    assert_eq!(
        engine.sh(&[], "echo $$; set -- /proc/[0-9]*; echo $#; cat /proc/1/comm; true"),
        "1\n1\nsh"
    );
    let all = engine.sh(&["--pid", "host"], "ls -d /proc/[0-9]* | wc -l");
    assert!(all.parse::<u32>().unwrap() > 10, "{all}");
    engine.sleeper("c1", &[]);
    let joined = engine.sh(&["--pid", "container:c1"], "cat /proc/1/cmdline | tr '\\0' ' '");
    assert_eq!(joined, "sleep 1000");
}

#[test]
fn the_host_name_can_be_changed_only_with_the_privilege() {
    let engine = Engine::start();
    let before = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(
        engine
            .try_sh(&[], "hostname other")
            .fails(1)
            .contains("Operation not permitted")
    );
    assert_eq!(
        engine.sh(&["--cap-add", "SYS_ADMIN"], "hostname other; hostname"),
        "other"
    );
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn shared_memory_and_queues_are_private() {
    let engine = Engine::start();
    let mounts = engine.sh(
        &[],
        "grep -E ' /dev/(shm|mqueue) ' /proc/mounts; ls -A /dev/shm | wc -l",
    );
    assert!(
        mounts.contains("shm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k"),
        "{mounts}"
    );
    assert!(
        mounts.contains("mqueue /dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime"),
        "{mounts}"
    );
    assert!(mounts.ends_with("\n0"), "{mounts}");
    assert_eq!(
        engine.sh(&["--shm-size", "8m"], "df -k /dev/shm | tail -1 | awk '{print $2}'"),
        "8192"
    );
}

#[test]
fn capabilities_are_docker_s_defaults() {
    let engine = Engine::start();
    let caps = |options: &[&str]| {
        let text = engine.sh(options, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
        text.lines()
            .filter_map(|line| line.split_once(":\t"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let sets = |prm: &str, bnd: &str, seccomp: u8| {
        format!(
            "CapInh=0000000000000000 CapPrm={prm} CapEff={prm} CapBnd={bnd} CapAmb=0000000000000000 NoNewPrivs=0 Seccomp={seccomp}"
        )
    };
    let (default, none) = ("00000000a80425fb", "0000000000000000");
    assert_eq!(caps(&[]), sets(default, default, 2));
    assert_eq!(caps(&["-u", "1000"]), sets(none, default, 2));
    assert_eq!(caps(&["--cap-drop", "ALL"]), sets(none, none, 2));
    assert_eq!(
        caps(&["--cap-drop", "all", "--cap-add", "net_bind_service"]),
        sets("0000000000000400", "0000000000000400", 2)
    );
    assert_eq!(
        caps(&["--cap-add", "CAP_SYS_PTRACE"]),
        sets("00000000a80c25fb", "00000000a80c25fb", 2)
    );
    assert_eq!(
        caps(&["--security-opt", "seccomp=unconfined"]),
        sets(default, default, 0)
    );
    let strict = caps(&["--security-opt", "no-new-privileges"]);
    assert!(strict.contains("NoNewPrivs=1"), "{strict}");
    let privileged = caps(&["--privileged"]);
    assert!(
        privileged.ends_with("Seccomp=0") && !privileged.contains("CapEff=00000000a80425fb"),
        "{privileged}"
    );
}

#[test]
fn masked_and_read_only_paths_are_as_docker_has_them() {
    let engine = Engine::start();
    let script = "for p in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sysrq-trigger; do [ -e $p ] && head -c 1 $p 2>/dev/null | wc -c; done | sort -u; ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -c .";
    let output = engine.try_sh(&[], script);
    assert_eq!(output.stdout.trim(), "0\n0", "{output:?}");
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/sys/vm/swappiness",
        "/sys/kernel/profiling",
    ] {
        let output = engine.try_sh(&[], &format!("[ -e {path} ] || exit 1; echo x > {path}"));
        assert_ne!(output.code, 0, "{path} can be written");
    }
    assert_eq!(engine.try_sh(&[], "mkdir /sys/fs/cgroup/x /sys/x 2>/dev/null").code, 1);
    let options = engine.sh(&[], "awk '$2 ~ /^\\/(sys|proc)$/ {print $2, $3, $4}' /proc/mounts");
    assert_eq!(
        options,
        "/proc proc rw,nosuid,nodev,noexec,relatime\n/sys sysfs ro,nosuid,nodev,noexec,relatime"
    );
}

#[test]
fn the_devices_are_the_harmless_ones() {
    let engine = Engine::start();
    let listed = engine.sh(
        &[],
        // `core` is there where the kernel has a /proc/kcore for it to point at.
        "ls /dev | grep -v '^core$' | tr '\\n' ' '; ls -l /dev/ptmx /dev/fd | sed 's/.* -> //'",
    );
    assert_eq!(
        listed,
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero /proc/self/fd\npts/ptmx"
    );
    let denied = engine.try_sh(&["--cap-add", "MKNOD"], "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem");
    assert!(denied.stderr.contains("Operation not permitted"), "{denied:?}");
    assert_eq!(engine.sh(&[], "mknod /tmp/n c 1 3 && echo x > /tmp/n; echo $?"), "0");
}

#[test]
fn no_descriptor_of_the_engine_comes_along() {
    let engine = Engine::start();
    let listed = engine.sh(&[], "ls /proc/self/fd | tr '\\n' ' '");
    assert_eq!(listed, "0 1 2 3", "3 is ls reading the directory");
    engine.sleeper("c1", &[]);
    assert_eq!(engine.cli(["exec", "c1", "ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    assert_eq!(engine.cli(["exec", "c1", "ls", "/proc/1/fd"]).ok(), "0\n1\n2");
}

#[test]
fn the_working_directory_cannot_be_a_descriptor() {
    // CVE-2024-21626
    let engine = Engine::start();
    for n in 3..20 {
        let output = engine.try_sh(&["-w", &format!("/proc/self/fd/{n}")], "cat ../../../etc/shadow; ls ..");
        assert_ne!(output.code, 0, "descriptor {n}: {output:?}");
    }
}

#[test]
fn the_root_is_all_there_is() {
    let engine = Engine::start();
    let mounts = engine.sh(
        &[],
        "cut -d' ' -f2,3 /proc/mounts | head -1; ls -d /.old* /.pivot* 2>/dev/null | wc -l",
    );
    assert!(mounts.starts_with("/ overlay\n"), "{mounts}");
    assert!(
        engine
            .try_sh(&[], "chroot / true; umount / 2>/dev/null; mount -t tmpfs x /tmp")
            .code
            != 0
    );
}

#[test]
fn the_host_s_files_cannot_be_reached_by_links_of_the_image() {
    let engine = Engine::start();
    let layer = Layer::new()
        .symlink("etc/hosts", "/proc/1/root/etc/hostname")
        .symlink("etc/resolv.conf", "../../../../../../etc/passwd")
        .symlink("dev-link", "/dev");
    engine.load(&images::docker_archive(&[images::above_busybox("links:1", layer)]));
    let output = engine.cli(["run", "--rm", "links:1", "sh", "-c", "cat /etc/passwd | head -1"]);
    if output.code == 0 {
        assert_eq!(output.stdout, "root:x:0:0:root:/root:/bin/sh\n");
    }
}

#[test]
fn a_proc_or_dev_that_is_a_link_is_not_followed() {
    let engine = Engine::start();
    for (name, path) in [("proclink:1", "proc"), ("devlink:1", "dev"), ("syslink:1", "sys")] {
        let mut layer = Layer::new().dir("elsewhere", 0o755);
        layer = layer.file(&format!(".wh.{path}"), b"", 0o644);
        let mid = layer.finish();
        let top = Layer::new().symlink(path, "/elsewhere").finish();
        let image = images::Image::new(name, vec![images::busybox_tar(), mid, top]);
        engine.load(&images::docker_archive(&[image]));
        let output = engine.cli(["run", "--rm", name, "ls", "/elsewhere"]);
        // runc refuses /proc and /sys that are links and mounts /dev where the link leads, inside the root.
        assert!(
            output.code == 0 || [125, 126, 127, 128].contains(&output.code),
            "{name}: {output:?}"
        );
    }
}

/// Every system call of x86_64 with arguments that make no sense: which does the filter refuse, and how?
const PROBE: &str = include_str!("../probes/syscalls.c");

fn load_probe(engine: &Engine) {
    let dir = engine.share("probe").0;
    let (source, binary) = (dir.join("syscalls.c"), dir.join("probe"));
    std::fs::write(&source, PROBE).unwrap();
    Run::new("cc")
        .args(["-static", "-O1", "-o"])
        .args([&binary, &source])
        .output()
        .ok();
    let layer = Layer::new().file("probe", &std::fs::read(&binary).unwrap(), 0o755);
    engine.load(&images::docker_archive(&[images::above_busybox("probe:1", layer)]));
}

#[test]
fn the_filter_refuses_what_docker_s_refuses() {
    let engine = Engine::start();
    load_probe(&engine);
    let probe = |engine: &Engine, options: &[&str]| {
        let args = ["run", "--rm"].iter().chain(options).chain(&["probe:1", "/probe"]);
        engine.run(args).time(std::time::Duration::from_secs(120)).ok()
    };
    let found = probe(&engine, &[]);
    for line in [
        "clone3 ENOSYS",
        "keyctl EPERM",
        "bpf EPERM",
        "unshare-user EPERM",
        "mount EPERM",
        "kexec_load EPERM",
        "getpid open",
        "ptrace open",
    ] {
        assert!(found.lines().any(|found| found == line), "{line} not in:\n{found}");
    }
    if engine.kind() == Kind::Docker {
        return;
    }
    let Some(docker) = peer::Docker::get() else { return };
    let docker = Engine::Docker(docker);
    load_probe(&docker);
    for options in [
        &[][..],
        &["--cap-add", "SYS_ADMIN"],
        &["--cap-drop", "ALL"],
        &["--privileged"],
        &["-u", "1000"],
    ] {
        let ours = probe(&engine, options);
        let theirs = match options {
            ["--privileged"] => probe(&docker, options),
            // Docker's profile has it since 29.4.2 (CVE-2026-31431); the one beside is older.
            _ => probe(&docker, options).replace("socket-alg open", "socket-alg EPERM"),
        };
        assert_eq!(ours, theirs, "with {options:?}");
    }
}

#[test]
fn a_filter_of_one_s_own_is_used() {
    let engine = Engine::start();
    let file = engine.share("profile").0.join("profile.json");
    let profile = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
    });
    std::fs::write(&file, profile.to_string()).unwrap();
    let option = format!("seccomp={}", file.display());
    let output = engine.try_sh(&["--security-opt", &option], "mkdir /x");
    assert!(output.stderr.contains("No space left on device"), "{output:?}");
    std::fs::write(&file, "{ no json").unwrap();
    let message = engine.try_sh(&["--security-opt", &option], "true").fails(125);
    assert!(message.contains("seccomp"), "{message}");
}

#[test]
fn privileged_can_do_nearly_everything() {
    let engine = Engine::start();
    let seen = engine.sh(&["--privileged"], "mount -t tmpfs x /mnt 2>/dev/null || mkdir /mnt && mount -t tmpfs x /mnt && grep -c ' /mnt ' /proc/mounts; ls /dev | wc -l; touch /sys/fs/cgroup 2>/dev/null; awk '$2==\"/sys\" {print substr($4,1,2)}' /proc/mounts");
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!((lines[0], lines[2]), ("1", "rw"), "{seen}");
    assert!(lines[1].parse::<u32>().unwrap() > 20, "{seen}");
}

#[test]
fn the_executable_of_the_engine_cannot_be_written_from_inside() {
    // CVE-2019-5736: the entry point is the runtime itself, by way of /proc/self/exe.
    let engine = Engine::start();
    let before = Run::new("sha256sum")
        .args([ferry_testkit::tools::ferry()])
        .output()
        .stdout;
    let layer = Layer::new().file("self", b"#!/proc/self/exe\n", 0o755);
    engine.load(&images::docker_archive(&[images::above_busybox("self:1", layer)]));
    let _ = engine.cli(["run", "--rm", "--privileged", "self:1", "/self"]);
    engine.sleeper("c1", &["--privileged"]);
    let writer = engine.run(["exec", "c1", "sh", "-c", "for i in $(seq 2000); do for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; done 2>/dev/null; true"]).spawn();
    for _ in 0..20 {
        engine.cli(["exec", "c1", "true"]).ok();
    }
    drop(writer);
    assert_eq!(
        Run::new("sha256sum")
            .args([ferry_testkit::tools::ferry()])
            .output()
            .stdout,
        before
    );
    assert_eq!(engine.cli(["run", "--rm", BUSYBOX, "echo", "alive"]).ok(), "alive");
}

#[test]
fn nothing_is_mounted_on_or_inside_proc() {
    let engine = Engine::start();
    engine.busybox();
    for options in [
        ["-v", "/tmp:/proc"],
        ["-v", "/tmp:/proc/sys"],
        ["-v", "/etc/hostname:/proc/self/attr/exec"],
        ["--tmpfs", "/proc/1"],
        ["--mount", "type=bind,source=/tmp,target=/proc/1/attr"],
    ] {
        let output = engine.cli([&["run", "--rm"], &options[..], &["busybox:latest", "true"]].concat());
        assert_ne!(output.code, 0, "{options:?}: {output:?}");
        assert!(output.stderr.contains("proc"), "{options:?}: {output:?}");
    }
}
