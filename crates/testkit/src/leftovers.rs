//! What a daemon left on the machine, found by its mark; it is reported and removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Shims end, and the kernel frees groups, a moment after the last container is gone.
const GRACE: Duration = Duration::from_secs(5);

/// Ends and removes everything but the directory; returns what should not have been there.
pub fn clean(mark: &str, dir: &Path, holder: Option<u32>) -> Vec<String> {
    let others = || {
        let mut found = processes(mark);
        found.retain(|(pid, _)| Some(*pid) != holder && *pid != std::process::id());
        found
    };
    let end = Instant::now() + GRACE;
    while Instant::now() < end && !(others().is_empty() && groups(mark).iter().all(|group| children(group).is_empty()))
    {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut left = Vec::new();
    // What is frozen takes no signal, and holds up the shim that waits for it.
    groups(mark).iter().for_each(|group| thaw(group));
    for (pid, line) in others() {
        left.push(format!("process {pid}: {line}"));
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let end = Instant::now() + GRACE;
    while !left.is_empty() && !others().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    for group in groups(mark) {
        // The parent is the test's own; what is below it was the daemon's.
        left.extend(
            children(&group)
                .iter()
                .map(|child| format!("control group {}", child.display())),
        );
        remove_group(&group);
    }
    for mount in mounts(mark) {
        left.push(format!("mount {}", mount.display()));
        let _ = Command::new("umount").arg("-l").arg(&mount).status();
    }
    for file in [dir.join("run/ferry.sock"), dir.join("run/ferry.pid")] {
        if file.exists() {
            left.push(format!("file {}", file.display()));
        }
    }
    for kind in ["containers", "run/containers"] {
        let kept = dir.join(kind);
        left.extend(
            children(&kept)
                .iter()
                .map(|child| format!("directory {}", child.display())),
        );
    }
    left
}

/// What is left in a network namespace that should hold nothing but `lo`.
pub fn network(holder: u32) -> Vec<String> {
    let links = inside(holder, &["ip", "-o", "link"]);
    let mut left: Vec<String> = links
        .lines()
        .filter(|line| !line.contains(" lo: "))
        .map(|line| format!("link {line}"))
        .collect();
    let rules = inside(holder, &["nft", "list", "ruleset"]);
    if !rules.trim().is_empty() {
        left.push(format!("nft rules {rules}"));
    }
    let forwarding = inside(holder, &["sh", "-c", "cat /proc/sys/net/ipv4/conf/*/forwarding"]);
    if forwarding.split_whitespace().any(|value| value != "0") {
        left.push("IPv4 forwarding is still on".to_owned());
    }
    left
}

/// What is left of Ferry's in a network namespace that is others', too: links, tables, rules in others' chains.
pub fn of_ferry(holder: u32) -> Vec<String> {
    let links = inside(holder, &["ip", "-o", "link"]);
    let is_ours = |line: &&str| {
        ["ferry0", "fb-", "fe-"]
            .iter()
            .any(|name| line.contains(&format!(": {name}")))
    };
    let links = links.lines().filter(is_ours).map(|line| format!("link {line}"));
    let rules = inside(holder, &["nft", "list", "ruleset"]);
    let rules = rules
        .lines()
        .filter(|line| line.contains("ferry0"))
        .map(|line| format!("nft {line}"));
    links.chain(rules).collect()
}

fn inside(holder: u32, line: &[&str]) -> String {
    let output = Command::new("nsenter")
        .args(["--target", &holder.to_string(), "--net", "--"])
        .args(line)
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Processes with the mark in their command line or in the name of their control group.
pub fn processes(mark: &str) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            (line.contains(mark) || groups.contains(mark)).then_some((pid, line))
        })
        .collect()
}

/// The control groups of that name at the top of each hierarchy.
pub fn groups(mark: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = children(top).into_iter().chain([top.to_owned()]);
    hierarchies
        .map(|dir| dir.join(mark))
        .filter(|dir| dir.is_dir())
        .collect()
}

pub fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

/// On both versions.
pub fn thaw(dir: &Path) {
    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if dir.join(file).exists() {
            let _ = fs::write(dir.join(file), word);
        }
    }
    children(dir).iter().for_each(|child| thaw(child));
}

fn remove_group(dir: &Path) {
    for child in children(dir) {
        remove_group(&child);
    }
    let _ = fs::remove_dir(dir);
}

fn mounts(mark: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lines = table.lines().filter(|line| line.contains(mark));
    let mut found: Vec<PathBuf> = lines
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect();
    found.reverse();
    found
}
