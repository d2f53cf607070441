//! `cargo xtask vm`: tests in a virtual machine with cgroup v2 alone and Debian 12's kernel (6.1), by software emulation. It
//! boots twice: with AppArmor, and for the few tests about SELinux with that and cgroup v1.
//!
//! ```text
//! kernel.rs  Debian's package ─▶ vmlinuz, modules ─▶ initramfs (cpio.rs)  ┐
//! tests.rs   cargo's test programs, the chosen tests ┐                    ├─▶ qemu ── serial 1 ─▶ console.log
//! disk.rs    ferry, the programs tests call ─────────┴─▶ ext4 image       ┘      └─── serial 2 ─▶ the report (guest.rs)
//! ```
//! The guest is switched off when its list is done; its report ends with `done`. Anything else that ends it, a panic of
//! its kernel or the deadline, leaves that word out, which fails the run.

mod apparmor;
mod cpio;
mod disk;
mod guest;
mod kernel;
mod selection;
mod selinux;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::setup;
use crate::shell::{self, step};
use crate::workspace::Workspace;
use disk::Disk;
use kernel::Kernel;
use selection::{Boot, Program};

pub use guest::run as run_guest;

const QEMU: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// In the guest: a line a test, `boot TAB program TAB package TAB name`.
const LIST: &str = "/vm/tests";
const REPORT: &str = "write the report";
/// Of the whole run: an emulated machine that hangs is ended.
const DEADLINE: Duration = Duration::from_secs(540);
const SLOWEST: usize = 5;

/// What the guest said.
#[derive(Default)]
struct Report {
    passed: Vec<(f64, String)>,
    failed: Vec<String>,
    errors: Vec<String>,
    done: bool,
}

/// Installs qemu if it is missing, and unpacks the kernel and what else is for the guest.
pub fn prepare(workspace: &Workspace) -> Result<Kernel> {
    if !shell::exists(QEMU) {
        setup::install(&[QEMU_PACKAGE])?;
    }
    apparmor::profile(&workspace.tools())?;
    selinux::policy(&workspace.tools())?;
    Kernel::fetch(&workspace.tools())
}

/// The task: a few tests by name, or all chosen ones. Every one is printed.
pub fn run(workspace: &Workspace, filter: &[String]) -> Result<bool> {
    let kernel = prepare(workspace)?;
    let report = test(workspace, &kernel, filter, true)?;
    Ok(report.failed.is_empty() && report.errors.is_empty())
}

/// The lane of `cargo xtask test`: prints failures only. Where there is no machine, it is left out, but not in CI.
pub fn lane(workspace: &Workspace, ci: bool) -> Result<()> {
    let kernel = match prepare(workspace) {
        Ok(kernel) => kernel,
        Err(error) if ci => return Err(error.context("no virtual machine, so nothing is tested on cgroup v2")),
        Err(error) => {
            println!("skipped: no virtual machine, so nothing is tested on cgroup v2: {error:#}");
            return Ok(());
        }
    };
    let report = test(workspace, &kernel, &[], false)?;
    match report.failed.len() + report.errors.len() {
        0 => Ok(()),
        _ => bail!(
            "failed on cgroup v2: {}",
            [report.failed, report.errors].concat().join(", ")
        ),
    }
}

fn test(workspace: &Workspace, kernel: &Kernel, filter: &[String], verbose: bool) -> Result<Report> {
    let dir = workspace.target.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let (initramfs, image) = (dir.join("initramfs"), dir.join("disk.img"));
    // Nothing is left to build, or something the tests did has made cargo think so.
    let programs = step("the test programs", || selection::find(filter))?;
    step("the guest's disk", || {
        fs::write(&initramfs, kernel.initramfs()?).context("write the initramfs")?;
        make_disk(workspace, &programs, &dir.join("root"), &image)
    })?;
    let mut all = Report::default();
    for boot in Boot::ALL {
        let tests = programs.iter().flat_map(|program| &program.tests);
        let count = tests.filter(|test| boot.takes(test)).count();
        if count == 0 {
            continue;
        }
        let name = boot.name();
        let console = dir.join(format!("console-{name}.log"));
        println!("{count} tests on Linux {} with {name}", kernel.version());
        let started = Instant::now();
        let report = watch(&mut machine(kernel, boot, &initramfs, &image, &console), verbose)?;
        summarise(&report, count, &console, started.elapsed());
        if !report.done {
            bail!("the virtual machine ended early");
        }
        all.passed.extend(report.passed);
        all.failed.extend(report.failed);
        all.errors.extend(report.errors);
    }
    Ok(all)
}

fn machine(kernel: &Kernel, boot: Boot, initramfs: &Path, image: &Path, console: &Path) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args([
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2048",
    ]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    // A kernel that panics reboots, which ends this machine.
    let words = format!("console=ttyS0 quiet panic=-1 {}", boot.words());
    qemu.args(["-append", &words]);
    let drive = format!("file={},if=none,id=disk,format=raw,cache=unsafe", image.display());
    qemu.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    qemu.args(["-serial", &format!("file:{}", console.display()), "-serial", "stdio"]);
    qemu
}

fn make_disk(workspace: &Workspace, programs: &[Program], root: &Path, image: &Path) -> Result<()> {
    let disk = Disk::new(root)?;
    // Tests look for the engine, and for the target directory, by their own place in it.
    let release = format!("target/{}/release", workspace.triple);
    disk.add(&workspace.binary("release"), &format!("{release}/ferry"))?;
    disk.add(&std::env::current_exe()?, "vm/guest")?;
    let docker = workspace.tools().join("docker/usr/bin/docker");
    if docker.is_file() {
        disk.add_with_libraries(&docker, "target/tools/docker/usr/bin/docker")?;
    }
    disk.copy(&apparmor::profile(&workspace.tools())?, "target/tools/apparmor/profile")?;
    disk.copy(&selinux::policy(&workspace.tools())?, "target/tools/selinux/policy")?;
    let mut list = String::new();
    for program in programs {
        let name = program.path.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("{release}/deps/{name}");
        disk.add(&program.path, &place)?;
        for test in &program.tests {
            let boot = Boot::of(test).name();
            list.push_str(&format!("{boot}\t/{place}\t{}\t{test}\n", program.package));
        }
    }
    disk.write(LIST.trim_start_matches('/'), &list)?;
    disk.finish(image)
}

/// Runs the machine to its end, or to the deadline.
fn watch(qemu: &mut Command, verbose: bool) -> Result<Report> {
    let started = Instant::now();
    let mut machine = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {QEMU}"))?;
    let output = machine.stdout.take().ok_or_else(|| anyhow!("{QEMU} has no output"))?;
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender
                .send(String::from_utf8_lossy(&line).trim_end().to_owned())
                .is_err()
            {
                break;
            }
        }
    });
    let mut report = Report::default();
    loop {
        match lines.recv_timeout(DEADLINE.saturating_sub(started.elapsed())) {
            Ok(line) => report.take(&line, verbose),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                report.errors.push(format!("not done in {} s", DEADLINE.as_secs()));
                machine.kill()?;
                break;
            }
        }
    }
    machine.wait()?;
    drop(lines);
    reader.join().map_err(|_| anyhow!("reading the report panicked"))?;
    Ok(report)
}

impl Report {
    fn take(&mut self, line: &str, verbose: bool) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "pass" => {
                let (seconds, name) = rest.split_once(' ').unwrap_or(("0", rest));
                self.passed.push((seconds.parse().unwrap_or_default(), name.to_owned()));
                if verbose {
                    println!("    PASS [{seconds:>7} s] {name}");
                }
            }
            "fail" => {
                let (seconds, name) = rest.split_once(' ').unwrap_or(("0", rest));
                self.failed.push(name.to_owned());
                println!("    FAIL [{seconds:>7} s] {name}");
            }
            "|" => println!("      {rest}"),
            "boot" => println!("booted: {rest}"),
            "done" => self.done = true,
            _ => {
                self.errors.push(line.to_owned());
                println!("    {line}");
            }
        }
    }
}

fn summarise(report: &Report, count: usize, console: &Path, time: Duration) {
    let mut slowest: Vec<_> = report.passed.iter().collect();
    slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (seconds, name) in slowest.into_iter().take(SLOWEST) {
        println!("    slow [{seconds:>7.2} s] {name}");
    }
    let (passed, failed) = (report.passed.len(), report.failed.len());
    println!(
        "in the virtual machine: {passed} passed, {failed} failed, {} not run, {:.0} s",
        count - passed - failed,
        time.as_secs_f64()
    );
    if !report.done {
        let text = fs::read(console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        println!("the last words of its kernel ({}):", console.display());
        for line in lines.get(lines.len().saturating_sub(30)..).unwrap_or_default() {
            println!("      {}", line.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_report_without_done_is_not_done() {
        let mut report = Report::default();
        for line in [
            "boot Linux 6.1",
            "pass 1.25 ferry-sys a::b",
            "fail 2 ferry-e2e c",
            "| why",
        ] {
            report.take(line, false);
        }
        assert_eq!(report.passed, [(1.25, "ferry-sys a::b".to_owned())]);
        assert_eq!(report.failed, ["ferry-e2e c"]);
        assert!(!report.done);
        report.take("done", false);
        assert!(report.done);
        report.take("error mount failed", false);
        assert_eq!(report.errors.len(), 1);
    }
}
