//! What test runs may have left on the machine: processes, mounts, control groups, links, directories. The names are
//! testkit's (`ferry-test-…`), so an engine that somebody runs here for work is never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// In the name of everything a test makes.
pub const MARK: &str = "ferry-test-";
/// Prints what is left; true when nothing is. With `remove` it is ended, unmounted and deleted.
pub fn run(remove: bool) -> Result<bool> {
    let mut left = Vec::new();
    if remove {
        // What is frozen takes no signal.
        control_groups().iter().for_each(|group| thaw(group));
    }
    for (pid, line) in processes() {
        left.push(format!("process {pid}: {line}"));
        if remove {
            shell::run(Command::new("kill").args(["-9", &pid.to_string()]))?;
        }
    }
    for mount in mounts() {
        left.push(format!("mount {}", mount.display()));
        if remove {
            shell::run(Command::new("umount").arg("-l").arg(&mount))?;
        }
    }
    for group in control_groups() {
        left.push(format!("control group {}", group.display()));
        if remove {
            remove_group(&group);
        }
    }
    for link in links() {
        left.push(format!("network link {link}"));
    }
    for dir in directories() {
        left.push(format!("directory {}", dir.display()));
        if remove {
            fs::remove_dir_all(&dir)?;
        }
    }
    for line in &left {
        println!("left behind: {line}");
    }
    Ok(left.is_empty() || remove)
}

fn processes() -> Vec<(u32, String)> {
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            (line.contains(MARK) || groups.contains(MARK)).then_some((pid, line))
        })
        .collect()
}

fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter(|l| l.contains(MARK))
        .filter_map(|l| l.split(' ').nth(4))
        .map(PathBuf::from)
        .collect();
    found.reverse();
    found
}

/// Groups named by testkit at the top of any hierarchy.
fn control_groups() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    hierarchies
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().contains(MARK))
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.is_symlink())
        .collect()
}

/// Removes the groups of that name from every hierarchy.
pub fn remove_groups(mark: &str) {
    for group in control_groups().iter().filter(|group| group.ends_with(mark)) {
        remove_group(group);
    }
}

fn thaw(dir: &Path) {
    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        if dir.join(file).exists() {
            let _ = fs::write(dir.join(file), word);
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            thaw(&entry.path());
        }
    }
}

fn remove_group(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// Ferry's links in the machine's own network namespace: tests have their own, so there must be none.
fn links() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("ferry-t") || name.starts_with("fe-t"))
        .collect()
}

fn directories() -> Vec<PathBuf> {
    ["/var/tmp", "/run", "/tmp"]
        .into_iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(MARK))
        .map(|entry| entry.path())
        .collect()
}
