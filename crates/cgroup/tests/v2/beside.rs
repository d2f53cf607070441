//! Controllers that only v1 has, in hierarchies of their own beside v2: the machine of `cargo xtask vm` has no other v1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ferry_cgroup::{Hierarchy, Layout, V1Mount};
use oci_spec::runtime::LinuxResources;

/// A mounted hierarchy, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`, saying so, where that is not this test's to mount: on a machine whose v1 is in use.
    fn new(controllers: &str) -> Option<Self> {
        let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let known = fs::read_to_string("/proc/cgroups").unwrap();
        let has = |name: &str| known.lines().any(|line| line.starts_with(&format!("{name}\t0\t")));
        if !is_v2 || !rustix::process::geteuid().is_root() || !controllers.split(',').all(has) {
            assert!(
                !Path::new("/vm/tests").exists(),
                "not to be skipped in the virtual machine"
            );
            println!("skipped: needs a machine with cgroup v2 alone (`cargo xtask vm`)");
            return None;
        }
        let path = std::env::temp_dir().join(format!("ferry-test-{controllers}"));
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "cgroup", "-o", controllers, "cgroup"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn root_network_class_and_priorities_are_v1_s_own() {
    let Some(mounted) = Mounted::new("net_cls,net_prio") else {
        return;
    };
    let layout = Layout::V1(vec![V1Mount {
        path: mounted.0.clone(),
        controllers: vec!["net_cls".to_owned(), "net_prio".to_owned()],
    }]);
    let hierarchy = Hierarchy::try_from(layout).unwrap();
    let resources = |json: &str| serde_json::from_str::<LinuxResources>(json).unwrap();
    let json = r#"{"network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 500}]}}"#;
    let (cgroup, warnings) = hierarchy.create("ferry-test/one", &resources(json)).unwrap();
    let held = |file: &str| fs::read_to_string(mounted.0.join("ferry-test/one").join(file)).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(held("net_cls.classid").trim(), "1048577");
    assert!(
        held("net_prio.ifpriomap").contains("lo 500\n"),
        "{}",
        held("net_prio.ifpriomap")
    );
    for name in ["nosuch", "a b", ""] {
        let json = format!(r#"{{"network": {{"priorities": [{{"name": "{name}", "priority": 1}}]}}}}"#);
        let error = hierarchy.create("ferry-test/two", &resources(&json)).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    cgroup.remove().unwrap();
    hierarchy.remove_empty("ferry-test").unwrap();
}
