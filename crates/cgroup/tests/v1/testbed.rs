//! A parent group of its own for every test, removed at the end, also when the test fails.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ferry_cgroup::{Cgroup, Hierarchy, Warning};
use oci_spec::runtime::LinuxResources;

pub struct Testbed {
    pub hierarchy: Hierarchy,
    pub parent: String,
    pub cgroup: Cgroup,
    pub warnings: Vec<Warning>,
    children: Vec<Child>,
}

pub fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// `None`, saying so, where this machine has no v1 hierarchies or the test may not write to them.
pub fn testbed(json: &str) -> Option<Testbed> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let hierarchy = Hierarchy::detect().unwrap();
    if hierarchy.version() != 1 || !rustix::process::geteuid().is_root() {
        println!("skipped: needs root and cgroup v1");
        return None;
    }
    let parent = format!(
        "ferry-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let (cgroup, warnings) = hierarchy.create(&format!("{parent}/one"), &resources(json)).unwrap();
    Some(Testbed {
        hierarchy,
        parent,
        cgroup,
        warnings,
        children: Vec::new(),
    })
}

impl Testbed {
    /// A shell inside the group. The thread that spawns it joins by `tasks`, moving only itself.
    pub fn shell(&mut self, script: &str) -> &mut Child {
        let fds = self.cgroup.birth().unwrap().tasks;
        let script = script.to_owned();
        let child = std::thread::spawn(move || {
            for fd in fds {
                assert_eq!(rustix::io::write(&fd, b"0").unwrap(), 1);
            }
            let mut command = Command::new("sh");
            command
                .arg("-c")
                .arg(script)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        });
        self.children.push(child.join().unwrap());
        self.children.last_mut().unwrap()
    }

    pub fn file(&self, controller: &str, name: &str) -> String {
        let path = format!("/sys/fs/cgroup/{controller}/{}/{name}", self.cgroup.path());
        std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{path}: {e}"))
            .trim()
            .to_owned()
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let killed = self.cgroup.kill(9);
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let removed = self.cgroup.remove();
        self.hierarchy.remove_empty(&self.parent).unwrap();
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
        }
    }
}

pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
