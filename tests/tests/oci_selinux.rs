//! `process.selinuxLabel` and `linux.mountLabel`, on a kernel that runs SELinux (`cargo xtask vm`), by a policy that has just
//! what is looked for here (xtask/src/vm/selinux.rs).

use std::fs;
use std::path::Path;

use ferry_testkit::{Bundle, skip_outside_guest, tools};
use rustix::fs::FlockOperation;
use serde_json::json;

const SECURITY: &str = "/sys/fs/selinux";
/// May read what is not of `secret_t`, and see keys with its own label.
const PROCESS: &str = "system_u:system_r:container_t:s0:c0,c1";
/// As much, of another type.
const OTHER: &str = "system_u:system_r:container_exec_t:s0:c0";
const SECRET: &str = "system_u:object_r:secret_t:s0";
const MOUNT: &str = "system_u:object_r:container_file_t:s0:c0,c1";
/// Not of the policy.
const UNKNOWN: &str = "system_u:system_r:nosuch_t:s0";
/// Whether its own session keyring is among the keys it may see.
const KEYS: &str = "grep -q ' _ses' /proc/keys && echo seen || echo hidden";

fn runs_selinux() -> bool {
    Path::new(SECURITY).join("load").exists()
}

/// Loads the policy unless it is; false, saying so, where the kernel does not run SELinux. Before there is a policy every label
/// is refused.
fn enforcing() -> bool {
    let policy = tools::selinux_policy();
    let (true, Some(policy)) = (runs_selinux(), policy) else {
        skip_outside_guest("it needs a kernel that runs SELinux, and a policy");
        return false;
    };
    let lock = fs::File::create("/tmp/ferry-test-selinux").unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let current = fs::read_to_string("/proc/self/attr/current").unwrap();
    if current.trim_end_matches('\0') == "kernel" {
        labels_are_refused();
        fs::write(Path::new(SECURITY).join("load"), fs::read(policy).unwrap()).unwrap();
    }
    assert_eq!(fs::read_to_string(Path::new(SECURITY).join("enforce")).unwrap(), "1");
    true
}

/// By `create`, which leaves nothing.
fn labels_are_refused() {
    for (field, label) in [("process.selinuxLabel", PROCESS), ("linux.mountLabel", MOUNT)] {
        let bundle = Bundle::sh("true").with(field, json!(label));
        bundle
            .call(&["create", "c"])
            .fails(1, "selinux is disabled or not supported");
        assert_eq!(bundle.leftovers(), [""; 0]);
    }
    let bundle = Bundle::sleeping();
    bundle.up();
    let exec = bundle.call(&["exec", "--process-label", PROCESS, "c", "true"]);
    exec.fails(255, "selinux is disabled or not supported");
}

#[test]
fn root_without_selinux_labels_are_refused() {
    if runs_selinux() {
        println!("skipped: this kernel runs SELinux");
        return;
    }
    labels_are_refused();
}

#[test]
fn root_a_selinux_label_confines_the_program_and_every_exec() {
    if !enforcing() {
        return;
    }
    for no_new_privileges in [true, false] {
        let bundle = Bundle::sh("sleep 60")
            .with("process.selinuxLabel", json!(PROCESS))
            .with("process.noNewPrivileges", json!(no_new_privileges));
        for file in ["secret", "allowed"] {
            fs::write(bundle.rootfs().join(file), "content").unwrap();
        }
        set_label(&bundle.rootfs().join("secret"), SECRET);
        bundle.call(&["create", "c"]).ok();
        let label = || label_of_process(&bundle);
        assert_eq!(label(), "system_u:system_r:kernel_t:s0-s0:c0,c1");
        bundle.call(&["start", "c"]).ok();
        assert_eq!(label(), PROCESS);
        let show = "cat /proc/self/attr/current /allowed";
        assert_eq!(bundle.exec(show).ok().replace('\0', " "), format!("{PROCESS} content"));
        let denied = bundle.exec("cat /secret");
        assert!(
            denied.code != 0 && denied.stderr.contains("Permission denied"),
            "{denied:?}"
        );
        let other = bundle.call(&["exec", "--process-label", OTHER, "c", "cat", "/proc/self/attr/current"]);
        assert_eq!(other.ok().trim_end_matches('\0'), OTHER);
        let process = json!({ "args": ["cat", "/proc/self/attr/current"], "cwd": "/", "selinuxLabel": OTHER,
            "env": ["PATH=/bin"], "noNewPrivileges": no_new_privileges });
        fs::write(bundle.path().join("process.json"), process.to_string()).unwrap();
        let other = bundle.call(&["exec", "--process", "process.json", "c"]);
        assert_eq!(other.ok().trim_end_matches('\0'), OTHER);
        let unknown = bundle.call(&["exec", "--process-label", UNKNOWN, "c", "true"]);
        unknown.fails(255, UNKNOWN);
    }
}

#[test]
fn root_a_label_that_the_policy_does_not_know_is_refused_by_create() {
    if !enforcing() {
        return;
    }
    for options in [&["create", "c"][..], &["create", "--no-new-keyring", "c"]] {
        for no_new_privileges in [true, false] {
            let bundle = Bundle::sh("true")
                .with("process.selinuxLabel", json!(UNKNOWN))
                .with("process.noNewPrivileges", json!(no_new_privileges));
            bundle.call(options).fails(1, UNKNOWN);
            assert_eq!(bundle.leftovers(), [""; 0]);
        }
    }
    let bundle = Bundle::sh("true").with("linux.mountLabel", json!("system_u:object_r:nosuch_t:s0"));
    bundle.call(&["create", "c"]).fails(1, "error mounting");
    assert_eq!(bundle.leftovers(), [""; 0]);
}

#[test]
fn root_a_session_keyring_has_the_label_of_its_process() {
    if !enforcing() {
        return;
    }
    let bundle = Bundle::sh(&format!("({KEYS}) >/seen; sleep 60"))
        .with("linux.maskedPaths", json!([]))
        .with("process.selinuxLabel", json!(PROCESS));
    bundle.up();
    let seen = || fs::read_to_string(bundle.rootfs().join("seen")).unwrap_or_default();
    ferry_testkit::wait_until("it has looked", || !seen().is_empty());
    assert_eq!(seen(), "seen\n");
    assert_eq!(bundle.exec(KEYS).ok(), "seen");
    let exec = ["exec", "--process-label", OTHER, "c", "sh", "-c", KEYS];
    assert_eq!(bundle.call(&exec).ok(), "seen");
    // In a user namespace it is made twice.
    let maps = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    let mapped = Bundle::sh(KEYS)
        .with("linux.maskedPaths", json!([]))
        .with("process.selinuxLabel", json!(PROCESS))
        .with("linux.uidMappings", maps.clone())
        .with("linux.gidMappings", maps)
        .and("linux.namespaces", json!({ "type": "user" }));
    assert_eq!(mapped.run().ok(), "seen");
}

#[test]
fn root_the_mount_label_is_that_of_the_container_s_own_file_systems() {
    if !enforcing() {
        return;
    }
    let bundle = Bundle::sleeping()
        .with("process.selinuxLabel", json!(PROCESS))
        .with("linux.mountLabel", json!(MOUNT))
        .with("linux.maskedPaths", json!(["/masked"]))
        .and(
            "mounts",
            json!({ "destination": "/tmpfs", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }),
        )
        .and(
            "mounts",
            json!({ "destination": "/bound", "type": "bind", "source": "/etc", "options": ["bind", "ro"] }),
        );
    fs::create_dir(bundle.rootfs().join("masked")).unwrap();
    bundle.up();
    let pid = bundle.state("c")["pid"].to_string();
    let label = |path: &str| label_of_file(&Path::new("/proc").join(&pid).join("root").join(path));
    let labelled = [
        "dev",
        "dev/null",
        "dev/pts",
        "dev/shm",
        "dev/mqueue",
        "tmpfs",
        "masked",
        // Of cgroup v1, which this boot has.
        "sys/fs/cgroup",
    ];
    for path in labelled {
        assert_eq!(label(path), MOUNT, "{path}");
    }
    // The kernel's have their own, and what is the host's or the image's keeps its.
    for path in ["", "sys", "proc/sys", "bound", "sys/fs/cgroup/pids"] {
        assert_eq!(label(path), "system_u:object_r:file_t:s0", "{path}");
    }
    bundle.exec("echo x >/tmpfs/x; echo x >/dev/shm/x").ok();
    assert_eq!(label("tmpfs/x"), MOUNT);
}

fn set_label(path: &Path, label: &str) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path, "security.selinux", label.as_bytes(), flags).unwrap();
}

fn label_of_file(path: &Path) -> String {
    let mut label = vec![0; 256];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut label[..]).unwrap();
    label.truncate(length);
    String::from_utf8(label).unwrap().trim_end_matches('\0').to_owned()
}

fn label_of_process(bundle: &Bundle) -> String {
    let pid = bundle.state("c")["pid"].to_string();
    let label = fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    label.trim_end_matches(['\0', '\n']).to_owned()
}
