//! What the tests need on the machine: Debian packages, cargo-nextest, and below `target/tools` the docker CLI, docker-py (with
//! Prometheus' parser) and two old OCI runtimes. Nothing is installed over what is there, and the CLI and the runtimes are only unpacked.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::shell;
use crate::vm;
use crate::workspace::Workspace;

/// A program the tests call, and the Debian package it comes from.
const PROGRAMS: [(&str, &str); 13] = [
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("curl", "curl"),
    ("dpkg-deb", "dpkg"),
    ("ip", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("python3", "python3"),
    ("ssh-keygen", "openssh-client"),
    ("strace", "strace"),
    ("tmux", "tmux"),
];

/// Runtimes of Debian 12, which lack some mitigations that are younger: `ferry self-test security` has to find that. With the
/// library that is not on every machine.
const OLD_RUNTIMES: [&str; 3] = ["runc", "crun", "libyajl2"];

/// Where docker CLI 28 may come from, best first: Debian 12's own is too old.
const DOCKER_SUITES: [&str; 2] = ["sid", "trixie"];

pub fn run(workspace: &Workspace) -> Result<()> {
    packages()?;
    if !shell::succeeds(shell::cargo().args(["nextest", "--version"])) {
        shell::run(shell::cargo().args(["install", "--locked", "cargo-nextest"]))?;
    }
    let tools = workspace.tools();
    docker_cli(&tools)?;
    docker_py(&tools)?;
    old_runtimes(&tools)?;
    // Whoever needs it says so again, and fails where it must not be missing.
    if let Err(error) = vm::prepare(workspace) {
        println!("no virtual machine: {error:#}");
    }
    Ok(())
}

fn packages() -> Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !shell::exists(program))
        .map(|(_, package)| *package)
        .collect();
    if !is_static_busybox() && !missing.contains(&"busybox-static") {
        missing.push("busybox-static");
    }
    if !shell::succeeds(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        missing.extend(["python3-venv", "python3-pip"]);
    }
    install(&missing)
}

/// Installs Debian packages of the machine's own release.
pub fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root()? {
        bail!("as root: apt-get install {}", missing.join(" "));
    }
    println!("missing, to be installed: {}", missing.join(" "));
    shell::run(Command::new("apt-get").args(["update", "-q"]))?;
    shell::run(
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Plain `busybox` is dynamic and of no use in an image without libraries.
fn is_static_busybox() -> bool {
    let installed = Command::new("dpkg-query")
        .args(["-W", "-f", "${Status}", "busybox-static"])
        .output();
    installed.is_ok_and(|output| output.stdout.ends_with(b"ok installed"))
}

pub fn is_root() -> Result<bool> {
    Ok(shell::output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Unpacks Debian's docker-cli below `tools/docker`.
fn docker_cli(tools: &Path) -> Result<()> {
    if tools.join("docker/usr/bin/docker").is_file() {
        return Ok(());
    }
    let mut tried = Vec::new();
    for suite in DOCKER_SUITES {
        match unpack_docker_cli(tools, suite) {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("no docker CLI: {}", tried.join("; "))
}

fn unpack_docker_cli(tools: &Path, suite: &str) -> Result<()> {
    let lists = tools.join("apt").join(suite);
    let fresh = tools.join("docker.new");
    let _ = fs::remove_dir_all(&fresh);
    Apt::update(&lists, suite)?.unpack("docker-cli", &fresh)?;
    let version = shell::output(Command::new(fresh.join("usr/bin/docker")).arg("--version"))?;
    if !version.contains("version 28.") {
        println!(
            "note: the tests are written against docker CLI 28, this is {}",
            version.trim()
        );
    }
    fs::rename(&fresh, tools.join("docker")).context("put the docker CLI in place")?;
    fs::remove_dir_all(lists).context("remove the package lists")
}

/// Unpacks them below `tools/runtimes`.
fn old_runtimes(tools: &Path) -> Result<()> {
    let place = tools.join("runtimes");
    if place.is_dir() {
        return Ok(());
    }
    let (lists, fresh) = (tools.join("apt/runtimes"), tools.join("runtimes.new"));
    let _ = fs::remove_dir_all(&fresh);
    let apt = Apt::update(&lists, "bookworm")?;
    for package in OLD_RUNTIMES {
        apt.unpack(package, &fresh)?;
    }
    fs::rename(&fresh, &place).context("put the old runtimes in place")?;
    fs::remove_dir_all(lists).context("remove the package lists")
}

fn docker_py(tools: &Path) -> Result<()> {
    let python = tools.join("python/bin/python");
    if shell::succeeds(Command::new(&python).args(["-c", "import docker, prometheus_client"])) {
        return Ok(());
    }
    shell::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(tools.join("python")),
    )?;
    shell::run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "docker", "prometheus-client"]))
}
