//! A group of the unified hierarchy for every test, removed at the end, also when the test fails.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ferry_cgroup::{Cgroup, Hierarchy, Layout};
use oci_spec::runtime::LinuxResources;

pub struct Testbed {
    pub root: String,
    pub hierarchy: Hierarchy,
    pub parent: String,
    pub cgroup: Cgroup,
    children: Vec<Child>,
}

/// `None`, saying so, where there is no cgroup v2 or the test may not write to it.
pub fn testbed() -> Option<Testbed> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = roots
        .into_iter()
        .find(|root| std::fs::exists(format!("{root}/cgroup.controllers")).unwrap());
    let Some(root) = root.filter(|_| rustix::process::geteuid().is_root()) else {
        println!("skipped: needs root and a cgroup v2 hierarchy");
        return None;
    };
    let hierarchy = Hierarchy::try_from(Layout::V2(root.into())).unwrap();
    let parent = format!(
        "ferry-test-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let (cgroup, _) = hierarchy
        .create(&format!("{parent}/one"), &LinuxResources::default())
        .unwrap();
    Some(Testbed {
        root: root.to_owned(),
        hierarchy,
        parent,
        cgroup,
        children: Vec::new(),
    })
}

impl Testbed {
    /// A shell inside the group `path`.
    pub fn shell(&mut self, path: &str, script: &str) -> u32 {
        let child = self.command(path, script).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    /// What a shell inside the group prints on both streams, until it ends.
    pub fn output(&self, path: &str, script: &str) -> String {
        let output = self
            .command(path, script)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    fn command(&self, path: &str, script: &str) -> Command {
        let script = format!("echo $$ > {}/{path}/cgroup.procs; {script}", self.root);
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// What a control file of the group holds.
    pub fn held(&self, file: &str) -> String {
        let path = format!("{}/{}/{file}", self.root, self.cgroup.path());
        std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{path}: {e}"))
            .trim()
            .to_owned()
    }

    /// Whether the controllers are v2's; saying so where they are not.
    pub fn has_controllers(&self) -> bool {
        let text = std::fs::read_to_string(format!("{}/cgroup.controllers", self.root)).unwrap();
        let all = ["cpu", "cpuset", "io", "memory", "pids"]
            .iter()
            .all(|name| text.split_whitespace().any(|held| held == *name));
        if !all {
            println!("skipped: needs the controllers of cgroup v2 (`cargo xtask vm`)");
        }
        all
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
