//! The real Docker Engine beside Ferry, through the project's `peers` script (not part of this repository).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::shell;
use crate::workspace::Workspace;

/// The peer that tests share: testkit starts it, the end of a test run stops it.
pub const SHARED_PEER: &str = "ferry-e2e";

pub struct Peer {
    script: PathBuf,
    run_dir: PathBuf,
    name: String,
    /// Its Debian, as the host sees it.
    pub root: PathBuf,
    /// The host's side of `/host`.
    pub share: PathBuf,
}

impl Peer {
    fn find(workspace: &Workspace, name: &str) -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let script = variable("FERRY_PEERS").unwrap_or_else(|| workspace.root.join("../shared/peers/peers"));
        let home = variable("HOME").unwrap_or_default();
        let root = variable("PEERS_ROOT").unwrap_or_else(|| home.join(".cache/ferry-peers/root"));
        let share = variable("PEERS_SHARE").unwrap_or_else(|| home.join(".cache/ferry-peers/host"));
        let run_dir = variable("PEERS_RUN").unwrap_or_else(|| PathBuf::from("/run/ferry-peers"));
        let ready = script.is_file() && root.join("usr/sbin/dockerd").is_file();
        ready.then(|| Self {
            script,
            run_dir,
            name: name.to_owned(),
            root,
            share,
        })
    }

    /// A peer somebody started under that name.
    pub fn running(workspace: &Workspace, name: &str) -> Option<Self> {
        Self::find(workspace, name).filter(|peer| peer.holder().is_some())
    }

    /// Starts a Docker Engine; `None` where the peers are not set up.
    pub fn start(workspace: &Workspace, name: &str) -> Result<Option<Self>> {
        let Some(peer) = Self::find(workspace, name) else {
            return Ok(None);
        };
        shell::run(Command::new(&peer.script).args(["up", name, "dockerd"]))?;
        Ok(Some(peer))
    }

    /// Opens the namespaces and starts nothing in them; `None` where the peers are not set up.
    pub fn open(workspace: &Workspace, name: &str) -> Result<Option<Self>> {
        let Some(peer) = Self::find(workspace, name) else {
            return Ok(None);
        };
        shell::run(Command::new(&peer.script).args(["up", name]))?;
        Ok(Some(peer))
    }

    /// A path by which this host reaches its socket.
    pub fn socket(&self) -> String {
        format!("/proc/{}/root/run/docker.sock", self.holder().unwrap_or_default())
    }

    /// A command inside the peer's namespaces.
    pub fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder().unwrap_or_default();
        command.args(["-t", &holder, "-m", "-n", "-i", "-u", "-r", "-w", "--"]);
        command
    }

    /// A command of this host in the peer's network.
    pub fn on_its_network(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder().unwrap_or_default(), "-n", "--"]);
        command
    }

    /// The process id of its dockerd.
    pub fn engine_pid(&self) -> Option<u32> {
        fs::read_to_string(self.run_dir.join(format!("{}.dockerd.pid", self.name)))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// The command by which its dockerd is started again, in its place and with what it has; its containers outlive it.
    pub fn engine_again(&self) -> Command {
        let mut command = self.command();
        let data = format!("/var/lib/docker-{}", self.name);
        command.args(["dockerd", "--live-restore", "--data-root", &data]);
        command
    }

    /// This is its dockerd now.
    pub fn is_engine(&self, pid: u32) -> Result<()> {
        let file = self.run_dir.join(format!("{}.dockerd.pid", self.name));
        fs::write(file, pid.to_string()).context("note dockerd's process")
    }

    /// Ends it and removes what it stored.
    pub fn stop(self) -> Result<()> {
        let inside = |script: &str| self.command().args(["sh", "-c", script]).output().map(drop);
        inside("docker ps -aq | xargs -r docker rm -f").context("remove the peer's containers")?;
        if let Some(pid) = self.engine_pid() {
            let _ = Command::new("kill").arg(pid.to_string()).status();
            let process = format!("/proc/{pid}");
            for _ in 0..100 {
                if !Path::new(&process).exists() {
                    break;
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        let name = &self.name;
        inside(&format!("rm -rf /var/lib/docker-{name} /var/log/dockerd-{name}.log")).context("remove its data")?;
        shell::run(Command::new(&self.script).args(["down", name]))
    }

    fn holder(&self) -> Option<String> {
        let pid = fs::read_to_string(self.run_dir.join(format!("{}.pid", self.name)))
            .ok()?
            .trim()
            .to_owned();
        Path::new("/proc").join(&pid).exists().then_some(pid)
    }
}
