//! Where the engines run: a peer of the benchmark's own, a disk that is made anew for each life of an engine, and registries
//! that keep what they have in memory. All of it goes when the stage is dropped, also after a failure.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::process::{Daemon, Spent};
use crate::peer::Peer;
use crate::shell;
use crate::workspace::Workspace;

const NAME: &str = "ferry-bench-images";
/// Where the fresh file system is mounted in the peer: stores and what is saved.
pub const STORE: &str = "/var/tmp/ferry-bench-images";
/// Sockets and run directories: a tmpfs of the peer's.
pub const RUN: &str = "/run/ferry-bench-images";
/// What the registries hold, and archives to load: another tmpfs.
pub const MEMORY: &str = "/tmp/ferry-bench-images";
/// The share, in the peer.
pub const HERE: &str = "/host/ferry-bench-images";
const DISK_SIZE: u64 = 12 << 30;
const PATIENCE: Duration = Duration::from_secs(60);

/// Inodes and bytes that a file system has given away.
pub struct Usage {
    pub files: u64,
    pub bytes: u64,
}

pub struct Stage {
    /// `None` once it is taken down.
    peer: Option<Peer>,
    /// The host's side of [`HERE`], and in it the image of the disk.
    share: PathBuf,
    disk: PathBuf,
    /// Ended before the peer is.
    registries: Vec<Daemon>,
    /// Held for as long as the stage stands: two of them would take each other down.
    _lock: File,
}

impl Stage {
    /// `None` where the peers are not set up.
    pub fn set_up(workspace: &Workspace) -> Result<Option<Self>> {
        let lock = Path::new("/run").join(format!("{NAME}.lock"));
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        if lock.try_lock().is_err() {
            bail!("another `bench --images` runs on this machine");
        }
        if let Some(left) = Peer::running(workspace, NAME) {
            println!("a peer {NAME} is there: of a run that was killed");
            left.stop()?;
        }
        let Some(peer) = Peer::open(workspace, NAME)? else {
            return Ok(None);
        };
        let share = peer.share.join(NAME);
        let stage = Self {
            disk: share.join("disk"),
            share,
            peer: Some(peer),
            registries: Vec::new(),
            _lock: lock,
        };
        let _ = fs::remove_dir_all(&stage.share);
        fs::create_dir_all(&stage.share).with_context(|| format!("create {}", stage.share.display()))?;
        stage.shell(&format!("mkdir -p {STORE} {RUN} {MEMORY}"))?;
        Ok(Some(stage))
    }

    pub fn peer(&self) -> Result<&Peer> {
        self.peer.as_ref().context("the peer is gone")
    }

    /// Puts a file or directory of the host's where the peer sees it: below [`HERE`], without a copy where one disk holds both.
    pub fn show(&self, from: &Path, name: &str) -> Result<()> {
        let copy = |how: &str| {
            let _ = fs::remove_dir_all(self.share.join(name)).or_else(|_| fs::remove_file(self.share.join(name)));
            let mut command = Command::new("cp");
            shell::succeeds(command.arg(how).arg(from).arg(self.share.join(name)))
        };
        if !copy("-al") && !copy("-a") {
            bail!("cannot copy {} to {}", from.display(), self.share.display());
        }
        Ok(())
    }

    fn command(&self, program: &[&str]) -> Result<Command> {
        let mut command = self.peer()?.command();
        command.args(program).stdin(Stdio::null());
        Ok(command)
    }

    /// What a script prints in the peer; it must succeed.
    pub fn shell(&self, script: &str) -> Result<String> {
        shell::output(&mut self.command(&["sh", "-c", script])?)
    }

    fn succeeds(&self, script: &str) -> Result<bool> {
        Ok(shell::succeeds(&mut self.command(&["sh", "-c", script])?))
    }

    /// Starts a program that stays, and waits until `ready` succeeds.
    pub fn start(&self, name: &str, program: &str, ready: &str) -> Result<Daemon> {
        let log = self.share.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let inside = self.command(&["sh", "-c", &format!("exec {program}")])?;
        // It shall not outlive this program, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(inside.get_program());
        command.args(inside.get_args()).stdin(Stdio::null());
        let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
        let mut daemon = Daemon::new(child);
        let end = Instant::now() + PATIENCE;
        loop {
            let ready = self.succeeds(ready)?;
            let alive = daemon.alive()?;
            if ready && alive {
                return Ok(daemon);
            }
            if !alive || Instant::now() > end {
                let log = fs::read_to_string(&log).unwrap_or_default();
                bail!("{name} does not come up: {}", tail(&log));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command of an engine, and what its processes took.
    pub fn spend(&self, program: &str) -> Result<(Duration, Spent)> {
        let report = format!("{RUN}/time");
        let script = format!("exec {program}");
        let mut command = self.command(&["busybox", "time", "-v", "-o", &report, "sh", "-c", &script])?;
        let started = Instant::now();
        let output = command.output().with_context(|| format!("start {program}"))?;
        let wall = started.elapsed();
        if !output.status.success() {
            bail!(
                "`{program}` failed: {}: {}",
                output.status,
                tail(&String::from_utf8_lossy(&output.stderr))
            );
        }
        Ok((wall, Spent::parse(&self.shell(&format!("cat {report}"))?)?))
    }

    /// A registry without content, in memory.
    pub fn registry(&self, name: &str, port: u16) -> Result<Daemon> {
        let root = format!("{MEMORY}/{name}");
        let configuration = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {root}}}, cache: {{blobdescriptor: inmemory}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n"
        );
        fs::write(self.share.join(format!("{name}.yml")), configuration)
            .context("write the registry's configuration")?;
        self.shell(&format!("rm -rf {root}; mkdir -p {root}"))?;
        let program = format!("docker-registry serve {HERE}/{name}.yml");
        self.start(name, &program, &format!("curl -sf http://127.0.0.1:{port}/v2/"))
    }

    /// Keeps a registry for as long as the stage stands.
    pub fn keep(&mut self, registry: Daemon) {
        self.registries.push(registry);
    }

    /// A new file system, without anything in it, on the real disk.
    pub fn fresh_disk(&self) -> Result<()> {
        self.strike_disk()?;
        let file = File::create(&self.disk).with_context(|| format!("create {}", self.disk.display()))?;
        file.set_len(DISK_SIZE).context("set the disk's size")?;
        // Without the kernel thread that would write the inode tables in the background of the first runs.
        let mut make = Command::new(shell::find("mkfs.ext4").context("no mkfs.ext4: install e2fsprogs")?);
        make.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]);
        shell::output(make.arg(&self.disk))?;
        self.shell(&format!("mount -o loop {HERE}/disk {STORE}")).map(drop)
    }

    /// Unmounts the disk and removes it. What an engine had mounted in it goes with it.
    fn strike_disk(&self) -> Result<()> {
        self.succeeds(&format!("umount -l {STORE}"))?;
        let end = Instant::now() + PATIENCE;
        while !shell::output(Command::new("losetup").arg("-j").arg(&self.disk))?.is_empty() {
            if Instant::now() > end {
                bail!("{} is still in use as a loop device", self.disk.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        if self.disk.exists() {
            fs::remove_file(&self.disk).context("remove the disk")?;
        }
        Ok(())
    }

    /// Writes back what the file system holds.
    pub fn sync(&self) -> Result<()> {
        self.shell(&format!("sync -f {STORE}")).map(drop)
    }

    /// What the file system holds.
    pub fn usage(&self) -> Result<Usage> {
        let text = self.shell(&format!("stat -f -c '%c %d %b %f %S' {STORE}"))?;
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers[..] {
            [files, files_free, blocks, blocks_free, size] => Ok(Usage {
                files: files - files_free,
                bytes: (blocks - blocks_free) * size,
            }),
            _ => bail!("`stat -f` says {text:?}"),
        }
    }

    /// Waits until no more than so many files are left.
    pub fn wait_for_files(&self, most: u64) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let files = self.usage()?.files;
            if files <= most {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("{files} files are left where {most} may be");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes everything down; a second time it has nothing to do.
    pub fn strike(&mut self) -> Result<()> {
        self.registries.clear();
        if self.peer.is_none() {
            return Ok(());
        }
        let struck = self.strike_disk();
        let empty = self.succeeds(&format!("rmdir {STORE}; rm -rf {RUN} {MEMORY}"));
        let removed = fs::remove_dir_all(&self.share);
        self.peer.take().map_or(Ok(()), Peer::stop)?;
        struck?;
        empty?;
        removed.with_context(|| format!("remove {}", self.share.display()))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Err(error) = self.strike() {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// The end of what a program said, which has the reason.
fn tail(text: &str) -> &str {
    let text = text.trim();
    let from = text.len().saturating_sub(2000);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[from..]
}
