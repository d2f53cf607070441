//! `process.apparmorProfile`, on a kernel that has AppArmor (`cargo xtask vm`).

use std::fs;
use std::path::Path;

use ferry_testkit::{Bundle, skip_outside_guest, tools};
use serde_json::json;

const SECURITY: &str = "/sys/kernel/security/apparmor";
/// As it is compiled by set-up (xtask/src/vm/apparmor.rs): everything but the file `/secret`.
const PROFILE: &str = "ferry-test-oci";

/// The profiles in the kernel, for as long as this lives: one test at a time, since they are the whole machine's.
pub(crate) struct Loaded(#[expect(dead_code, reason = "held: it is locked")] fs::File);

impl Loaded {
    /// `None`, saying so, where the kernel has no AppArmor.
    pub(crate) fn new() -> Option<Self> {
        let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if !(enabled.starts_with('Y') && Path::new(SECURITY).is_dir() && tools::apparmor_profile().is_some()) {
            skip_outside_guest("it needs AppArmor and a profile");
            return None;
        }
        let lock = fs::File::create(std::env::temp_dir().join("ferry-test-apparmor")).unwrap();
        lock.lock().unwrap();
        let loaded = Self(lock);
        loaded.load();
        Some(loaded)
    }

    pub(crate) fn load(&self) {
        let profiles = fs::read(tools::apparmor_profile().unwrap()).unwrap();
        fs::write(Path::new(SECURITY).join(".replace"), profiles).unwrap();
    }

    pub(crate) fn remove(&self) {
        for profile in [PROFILE, "docker-default"] {
            fs::write(Path::new(SECURITY).join(".remove"), profile).unwrap();
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.remove();
    }
}

#[test]
fn root_an_apparmor_profile_confines_the_program_and_every_exec() {
    let Some(_loaded) = Loaded::new() else { return };
    let script = "cat /proc/self/attr/current /allowed; cat /secret 2>&1; sleep 30";
    for no_new_privileges in [true, false] {
        let bundle = Bundle::sh(script)
            .with("process.apparmorProfile", json!(PROFILE))
            .with("process.noNewPrivileges", json!(no_new_privileges));
        for file in ["secret", "allowed"] {
            fs::write(bundle.rootfs().join(file), "content").unwrap();
        }
        bundle.up();
        let current = bundle.state("c")["pid"].to_string();
        let current = fs::read_to_string(format!("/proc/{current}/attr/apparmor/current")).unwrap();
        assert_eq!(current.trim(), "ferry-test-oci (enforce)");
        let exec = bundle.exec("cat /proc/self/attr/current /allowed");
        assert_eq!(exec.ok(), "ferry-test-oci (enforce)\ncontent");
        let denied = bundle.exec("cat /secret");
        assert!(
            denied.code != 0 && denied.stderr.contains("Permission denied"),
            "{denied:?}"
        );
        // Of a process that is not the container's own.
        let other = bundle.call(&["exec", "--apparmor", "ferry-test-nosuch", "c", "true"]);
        assert!(
            other.code == 255 && other.stderr.contains("ferry-test-nosuch"),
            "{other:?}"
        );
    }
    let plain = Bundle::sh("cat /proc/self/attr/current");
    assert_eq!(plain.run().ok(), "unconfined");
    let unknown = Bundle::sh("true").with("process.apparmorProfile", json!("ferry-test-nosuch"));
    unknown.call(&["create", "c"]).fails(1, "ferry-test-nosuch");
}

#[test]
fn root_without_apparmor_a_profile_is_refused() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if enabled.starts_with('Y') {
        println!("skipped: this kernel has AppArmor");
        return;
    }
    let bundle = Bundle::sh("true").with("process.apparmorProfile", json!(PROFILE));
    bundle.run().fails(1, "apparmor");
}
