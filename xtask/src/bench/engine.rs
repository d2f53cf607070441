//! The two engines under measurement, and the few commands a measurement needs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::peer::Peer;
use crate::shell;
use crate::sweep;
use crate::workspace::Workspace;

pub const IMAGE: &str = "bench:latest";

pub struct Engine {
    pub name: &'static str,
    /// Process ids of the engine itself: Docker's is two processes.
    pub processes: Vec<u32>,
    cli: PathBuf,
    host: String,
    owned: Owned,
}

enum Owned {
    Ferry {
        daemon: Child,
        holder: Child,
        dir: PathBuf,
    },
    Docker {
        peer: Peer,
        /// The dockerd that was started again.
        again: Option<Child>,
    },
}

impl Engine {
    /// A daemon in namespaces of its own, as the peer has them.
    pub fn ferry(binary: &Path) -> Result<Self> {
        let mark = format!("{}bench-{}", sweep::MARK, std::process::id());
        let dir = Path::new("/var/tmp").join(&mark);
        fs::create_dir_all(&dir)?;
        let script = "mount --make-rprivate /; ip link set lo up; exec sleep infinity";
        let holder = Command::new("unshare")
            .args(["-m", "-n", "-i", "-u", "--", "sh", "-ec", script])
            .stdin(Stdio::null())
            .spawn()
            .context("unshare")?;
        thread::sleep(Duration::from_millis(500));
        let socket = dir.join("ferry.sock");
        let host = format!("unix://{}", socket.display());
        let log = fs::File::create(dir.join("log"))?;
        let mut daemon = Self::ferry_command(binary, &holder, &dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start the daemon")?;
        let end = Instant::now() + Duration::from_secs(15);
        while UnixStream::connect(&socket).is_err() {
            if daemon.try_wait()?.is_some() || Instant::now() > end {
                bail!(
                    "the daemon does not come up: {}",
                    fs::read_to_string(dir.join("log")).unwrap_or_default()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        let processes = vec![daemon.id()];
        Ok(Self {
            name: "Ferry",
            processes,
            cli: binary.to_owned(),
            host,
            owned: Owned::Ferry { daemon, holder, dir },
        })
    }

    fn ferry_command(binary: &Path, holder: &Child, dir: &Path) -> Command {
        let mark = dir.file_name().unwrap_or_default().to_string_lossy();
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &holder.id().to_string(), "-m", "-n", "-i", "-u", "--"])
            .arg(binary)
            .args([
                "daemon",
                "--host",
                &format!("unix://{}", dir.join("ferry.sock").display()),
            ])
            .args(["--cgroup-parent", &format!("/{mark}")]);
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "run"), ("--pidfile", "pid")] {
            command.arg(flag).arg(dir.join(name));
        }
        command
    }

    /// Kills the engine and starts it again in the same place, Docker's so that its containers live on. How long it takes until
    /// it answers at all, and until it has listed its containers.
    pub fn restart(&mut self) -> Result<(Duration, Duration)> {
        for pid in &self.processes {
            shell::run(Command::new("kill").args(["-9", &pid.to_string()]))?;
        }
        let mut command = match &mut self.owned {
            Owned::Ferry { daemon, holder, dir } => {
                daemon.wait()?;
                Self::ferry_command(&self.cli, holder, dir)
            }
            Owned::Docker { peer, again } => {
                if let Some(again) = again {
                    again.wait()?;
                }
                peer.engine_again()
            }
        };
        for pid in &self.processes {
            while Path::new(&format!("/proc/{pid}")).exists() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start the engine again")?;
        let socket = PathBuf::from(self.host.trim_start_matches("unix://"));
        let end = started + Duration::from_secs(120);
        while !answers(&socket) {
            if Instant::now() > end {
                bail!("{} does not come up again", self.name);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let pinged = started.elapsed();
        self.time(&["ps", "-aq"])?;
        let listed = started.elapsed();
        self.processes = vec![child.id()];
        match &mut self.owned {
            Owned::Ferry { daemon, .. } => *daemon = child,
            Owned::Docker { peer, again } => {
                self.processes.extend(children(child.id(), "containerd"));
                peer.is_engine(child.id())?;
                *again = Some(child);
            }
        }
        Ok((pinged, listed))
    }

    pub fn docker(workspace: &Workspace, peer: Peer) -> Result<Self> {
        let cli = workspace.tools().join("docker/usr/bin/docker");
        if !cli.is_file() {
            bail!("no docker CLI: run `cargo xtask setup`");
        }
        let engine = peer.engine_pid().ok_or_else(|| anyhow!("the peer has no dockerd"))?;
        let host = format!("unix://{}", peer.socket());
        let mut processes = vec![engine];
        processes.extend(children(engine, "containerd"));
        Ok(Self {
            name: "Docker Engine",
            processes,
            cli,
            host,
            owned: Owned::Docker { peer, again: None },
        })
    }

    pub fn cli(&self) -> &Path {
        &self.cli
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// MB of all that it stores.
    pub fn disk(&self) -> Result<f64> {
        let mut command = match &self.owned {
            Owned::Ferry { dir, .. } => {
                let mut command = Command::new("du");
                command.args(["-sk"]).arg(dir.join("data"));
                command
            }
            Owned::Docker { peer, .. } => {
                let mut command = peer.command();
                command.args(["sh", "-c", "du -skc /var/lib/docker-* | tail -n 1"]);
                command
            }
        };
        let said = shell::output(&mut command)?;
        let kib = said.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("du said {said:?}"))? * 1024.0 / 1e6)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cli);
        command
            .args(args)
            .env("DOCKER_HOST", &self.host)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// How long one command takes; it must succeed.
    pub fn time(&self, args: &[&str]) -> Result<Duration> {
        let mut command = self.command(args);
        let started = Instant::now();
        let status = command
            .status()
            .with_context(|| format!("start {}", self.cli.display()))?;
        let time = started.elapsed();
        if !status.success() {
            bail!("{}: `{}` failed: {status}", self.name, args.join(" "));
        }
        Ok(time)
    }

    pub fn output(&self, args: &[&str]) -> Result<String> {
        shell::output(self.command(args).stdout(Stdio::piped()))
    }

    /// A root of one static busybox, the same for both.
    pub fn import_image(&self) -> Result<()> {
        let script = "d=$(mktemp -d); mkdir $d/bin; cp /bin/busybox $d/bin; \
                      for a in sh true sleep; do ln -s busybox $d/bin/$a; done; \
                      tar -C $d --sort=name --mtime=@0 -c bin; rm -r $d";
        let tar = Command::new("sh")
            .args(["-ec", script])
            .output()
            .context("make a root")?
            .stdout;
        let file = std::env::temp_dir().join(format!("{}bench-{}.tar", sweep::MARK, std::process::id()));
        fs::write(&file, tar)?;
        let done = self.import(&file, IMAGE);
        fs::remove_file(&file)?;
        done
    }

    /// A tar as an image of that name.
    pub fn import(&self, tar: &Path, name: &str) -> Result<()> {
        self.time(&["import", &tar.to_string_lossy(), name]).map(drop)
    }

    /// A command a number of times, so many at once.
    pub fn many(&self, count: usize, at_once: usize, args: &[&str]) -> Result<()> {
        let left = Mutex::new(count);
        let next = || {
            left.lock()
                .is_ok_and(|mut left| left.checked_sub(1).map(|fewer| *left = fewer).is_some())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once)
                .map(|_| {
                    scope.spawn(|| {
                        while next() {
                            self.time(args)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
        })
    }

    /// Waits until it is at rest and the disks are written: what it does behind an answer is no part of what is measured next.
    pub fn settle(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        let ticks = || self.processes.iter().filter_map(|pid| cpu_ticks(*pid)).sum::<u64>();
        let mut before = ticks();
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = ticks();
            if now <= before + 1 {
                return shell::run(&mut Command::new("sync"));
            }
            before = now;
            if Instant::now() > end {
                bail!("{} does not come to rest", self.name);
            }
        }
    }

    pub fn containers(&self) -> Result<Vec<String>> {
        Ok(self
            .output(&["ps", "-aq"])?
            .split_whitespace()
            .map(str::to_owned)
            .collect())
    }

    pub fn remove_all(&self) -> Result<()> {
        let ids = self.containers()?;
        let args: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        if !ids.is_empty() {
            self.time(&args)?;
        }
        Ok(())
    }

    /// The parents of the containers' first processes: their shims.
    pub fn shims(&self) -> Result<Vec<u32>> {
        let ids = self.containers()?;
        let args: Vec<&str> = ["inspect", "-f", "{{.State.Pid}}"]
            .into_iter()
            .chain(ids.iter().map(String::as_str))
            .collect();
        let pids = self.output(&args)?;
        let mut shims: Vec<u32> = pids.split_whitespace().filter_map(parent).collect();
        shims.sort_unstable();
        shims.dedup();
        Ok(shims)
    }

    pub fn stop(self) -> Result<()> {
        self.remove_all()?;
        match self.owned {
            Owned::Docker { peer, again } => {
                peer.stop()?;
                again.map_or(Ok(()), |mut again| again.wait().map(drop).context("wait for dockerd"))
            }
            Owned::Ferry {
                mut daemon,
                mut holder,
                dir,
            } => {
                shell::run(Command::new("kill").arg(daemon.id().to_string()))?;
                daemon.wait()?;
                holder.kill()?;
                holder.wait()?;
                sweep::remove_groups(&dir.file_name().unwrap_or_default().to_string_lossy());
                fs::remove_dir_all(&dir).context("remove the data root")
            }
        }
    }
}

/// Processor time of a process and of those it has waited for, in ticks (proc_pid_stat(5)).
pub fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything. After it: state, then ten fields, then utime stime cutime cstime.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    Some(fields.filter_map(|field| field.parse::<u64>().ok()).sum())
}

/// Whether `/_ping` is answered with 200.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

pub fn parent(pid: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Children of a process by that name.
fn children(of: u32, name: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| parent(pid) == Some(of))
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
