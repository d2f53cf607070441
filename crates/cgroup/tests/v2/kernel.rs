//! Freezing, killing and removing need no controller.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ferry_cgroup::{Cgroup, Error, Hierarchy, Layout};
use oci_spec::runtime::LinuxResources;

struct Testbed {
    root: String,
    hierarchy: Hierarchy,
    parent: String,
    cgroup: Cgroup,
    children: Vec<Child>,
}

fn testbed() -> Option<Testbed> {
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
    fn shell(&mut self, path: &str, script: &str) -> u32 {
        let script = format!("echo $$ > {}/{path}/cgroup.procs; {script}", self.root);
        let mut command = Command::new("sh");
        let child = command
            .arg("-c")
            .arg(script)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
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

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let started = Instant::now();
    while !check() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_frozen_group_makes_no_progress_until_thawed() {
    let Some(mut bed) = testbed() else { return };
    let path = bed.cgroup.path().to_owned();
    bed.shell(&path, "while :; do :; done");
    let usage = |bed: &Testbed| bed.cgroup.stats().unwrap().cpu.total;
    eventually("progress", || usage(&bed) > 1_000_000);
    bed.cgroup.freeze().unwrap();
    let frozen = usage(&bed);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(usage(&bed), frozen);
    bed.cgroup.thaw().unwrap();
    eventually("progress after thaw", || usage(&bed) > frozen);
}

#[test]
fn kill_ends_forking_nested_and_frozen_processes() {
    let Some(mut bed) = testbed() else { return };
    let path = bed.cgroup.path().to_owned();
    let nested = format!("{path}/inner");
    let (inner, _) = bed.hierarchy.create(&nested, &LinuxResources::default()).unwrap();
    bed.shell(&path, "while :; do sleep 0.001 & done");
    let pid = bed.shell(&nested, "sleep 1000 & sleep 1000");
    eventually("the nested processes", || inner.pids().unwrap().len() == 3);
    assert!(bed.cgroup.pids().unwrap().contains(&i32::try_from(pid).unwrap()));
    inner.freeze().unwrap();
    bed.cgroup.kill(9).unwrap();
    assert!(bed.cgroup.pids().unwrap().is_empty());
    bed.cgroup.remove().unwrap();
    assert!(matches!(bed.cgroup.pids(), Err(Error::NotFound(_))));
    bed.cgroup.remove().unwrap();
}

#[test]
fn an_unknown_group_is_not_found_and_a_parent_in_use_stays() {
    let Some(bed) = testbed() else { return };
    assert!(matches!(
        bed.hierarchy.open("ferry-test-nothing"),
        Err(Error::NotFound(_))
    ));
    bed.hierarchy.remove_empty(&bed.parent).unwrap();
    assert!(bed.hierarchy.open(&bed.parent).is_ok());
}
