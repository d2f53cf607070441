//! What the tests need on the machine: Debian packages, cargo-nextest, and below `target/tools` the docker CLI and
//! docker-py. Nothing is installed over what is there, and the docker CLI is only unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::shell;
use crate::workspace::Workspace;

/// A program the tests call, and the Debian package it comes from.
const PROGRAMS: [(&str, &str); 10] = [
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("curl", "curl"),
    ("dpkg-deb", "dpkg"),
    ("ip", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("python3", "python3"),
    ("tmux", "tmux"),
];

/// Where docker CLI 28 may come from, best first: Debian 12's own is too old.
const DOCKER_SUITES: [&str; 2] = ["sid", "trixie"];

pub fn run(workspace: &Workspace) -> Result<()> {
    packages()?;
    if !shell::succeeds(shell::cargo().args(["nextest", "--version"])) {
        shell::run(shell::cargo().args(["install", "--locked", "cargo-nextest"]))?;
    }
    let tools = workspace.tools();
    docker_cli(&tools)?;
    docker_py(&tools)
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
            .args(&missing)
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
    // An apt of its own: its own sources and lists, nothing of the machine's is read or changed.
    let apt = tools.join("apt").join(suite);
    for dir in ["lists/partial", "cache/archives/partial", "state", "deb"] {
        fs::create_dir_all(apt.join(dir)).with_context(|| format!("create {}", apt.display()))?;
    }
    let source = format!("deb [trusted=yes] {} {suite} main\n", mirror());
    fs::write(apt.join("sources.list"), source)?;
    fs::write(apt.join("state/status"), "")?;
    let options = [
        format!("Dir::Etc::SourceList={}/sources.list", apt.display()),
        "Dir::Etc::SourceParts=-".to_owned(),
        format!("Dir::State={}/state", apt.display()),
        format!("Dir::State::status={}/state/status", apt.display()),
        format!("Dir::State::Lists={}/lists", apt.display()),
        format!("Dir::Cache={}/cache", apt.display()),
        "Acquire::Check-Valid-Until=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ];
    let command = || {
        let mut command = Command::new("apt-get");
        for option in &options {
            command.args(["-o", option]);
        }
        command.arg("-q").current_dir(apt.join("deb"));
        command
    };
    shell::run(command().arg("update"))?;
    shell::run(command().args(["download", "docker-cli"]))?;
    let deb = only_file(&apt.join("deb"))?;
    let fresh = tools.join("docker.new");
    let _ = fs::remove_dir_all(&fresh);
    shell::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&fresh))?;
    let version = shell::output(Command::new(fresh.join("usr/bin/docker")).arg("--version"))?;
    if !version.contains("version 28.") {
        println!(
            "note: the tests are written against docker CLI 28, this is {}",
            version.trim()
        );
    }
    fs::rename(&fresh, tools.join("docker")).context("put the docker CLI in place")?;
    fs::remove_dir_all(tools.join("apt")).context("remove the package lists")
}

/// The mirror this machine uses, or Debian's.
fn mirror() -> String {
    let sources = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let uri = sources
        .lines()
        .find_map(|line| line.strip_prefix("URIs:")?.split_whitespace().next());
    uri.unwrap_or("http://deb.debian.org/debian").to_owned()
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(dir)?
        .next()
        .ok_or_else(|| anyhow!("nothing was downloaded into {}", dir.display()))?;
    Ok(entry?.path())
}

fn docker_py(tools: &Path) -> Result<()> {
    let python = tools.join("python/bin/python");
    if shell::succeeds(Command::new(&python).args(["-c", "import docker"])) {
        return Ok(());
    }
    shell::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(tools.join("python")),
    )?;
    shell::run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "docker"]))
}
