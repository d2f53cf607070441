//! What processes took: processor time and peak memory of a daemon with all that descends from it (proc(5)), and of a command
//! that ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::engine::{cpu_ticks, parent};

/// `USER_HZ`, the unit of times in `/proc/PID/stat`: the same on every Linux Ferry is built for.
const TICKS: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon that this program started; ended when it is dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    pub fn new(child: Child) -> Self {
        Self { child }
    }

    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Processor seconds of it, of those that live below it, and of all that any of them has waited for.
    pub fn cpu(&self) -> f64 {
        let ticks = self.family().into_iter().filter_map(cpu_ticks).sum::<u64>();
        #[allow(clippy::cast_precision_loss, reason = "centuries fit")]
        let ticks = ticks as f64;
        ticks / TICKS
    }

    /// The next peak is that of what comes.
    pub fn forget_peak(&self) -> Result<()> {
        for pid in self.family() {
            let file = format!("/proc/{pid}/clear_refs");
            let written = fs::write(&file, "5").with_context(|| format!("write {file}"));
            // One that ended in the meantime has no peak.
            if Path::new(&format!("/proc/{pid}/exe")).exists() {
                written?;
            }
        }
        Ok(())
    }

    /// The most memory that was resident, in MiB: each process at its own worst moment, together.
    pub fn peak(&self) -> f64 {
        let most = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            field.split_whitespace().next()?.parse::<f64>().ok()
        };
        self.family().into_iter().filter_map(most).sum::<f64>() / 1024.0
    }

    /// The daemon and its descendants.
    fn family(&self) -> Vec<u32> {
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if let (Ok(pid), Some(parent)) = (name.parse(), parent(&name)) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut family = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = family.get(at) {
            family.extend(children.remove(pid).unwrap_or_default());
            at += 1;
        }
        family
    }

    /// Asks it to end, and makes it after a while; the same for what it leaves behind.
    fn end(&mut self) {
        if !self.alive().unwrap_or(true) {
            return;
        }
        let rest = self.family().split_off(1).into_iter().map(|pid| (pid, born(pid)));
        let rest: Vec<_> = rest.collect();
        signal("-TERM", self.child.id());
        let end = Instant::now() + PATIENCE;
        while self.alive().unwrap_or(false) {
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(Duration::from_millis(20));
        }
        for (pid, born_then) in rest {
            if born_then.is_some() && born(pid) == born_then {
                signal("-KILL", pid);
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// When a process started, which its number does not say for long.
fn born(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

fn signal(which: &str, pid: u32) {
    let _ = Command::new("kill").args([which, &pid.to_string()]).status();
}

/// What a command took that has ended.
#[derive(Debug, PartialEq)]
pub struct Spent {
    pub cpu: f64,
    /// Of its largest process, in MiB.
    pub peak: f64,
}

impl Spent {
    /// From what `busybox time -v` writes.
    pub fn parse(report: &str) -> Result<Self> {
        let number = |name: &str| -> Result<f64> {
            let line = report.lines().find_map(|line| line.trim().strip_prefix(name));
            let value = line.with_context(|| format!("`time -v` says no {name:?}: {report}"))?;
            value.trim().parse().with_context(|| format!("{name} {value:?}"))
        };
        Ok(Self {
            cpu: number("User time (seconds):")? + number("System time (seconds):")?,
            peak: number("Maximum resident set size (kbytes):")? / 1024.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Daemon, Spent};

    #[test]
    fn a_report_of_time_is_read() {
        let report = "\tCommand being timed: \"x\"\n\tUser time (seconds): 1.25\n\tSystem time (seconds): 0.50\n\
                      \tMaximum resident set size (kbytes): 20480\n";
        assert_eq!(Spent::parse(report).ok(), Some(Spent { cpu: 1.75, peak: 20.0 }));
        assert!(Spent::parse("sh: not found").is_err());
    }

    #[test]
    fn a_daemon_counts_its_descendants_and_is_ended() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 1000 & sleep 1000 & wait";
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let (pid, daemon) = (child.id(), Daemon::new(child));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while daemon.family().len() < 3 && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let family = daemon.family();
        assert_eq!(family.len(), 3);
        assert!(daemon.cpu() > 0.0 && daemon.peak() > 0.1);
        drop(daemon);
        // Of those that were no children of ours the end cannot be waited for, only seen.
        for pid in family.into_iter().chain([pid]) {
            let exe = format!("/proc/{pid}/exe");
            while std::path::Path::new(&exe).exists() && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(!std::path::Path::new(&exe).exists(), "{pid}");
        }
    }
}
