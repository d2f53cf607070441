//! The real Docker Engine, through the project's `peers` script, which is not part of this repository: where it is not
//! set up, what compares with it is skipped. One engine is shared by all tests of a run, one test at a time; `cargo
//! xtask test` ends it.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::client::{Client, Program};
use crate::command::Run;

const NAME: &str = "ferry-e2e";

/// Runs its arguments with nothing but the standard streams: the engine outlives this test, and would hold what the test's
/// own parents have open, a lock for instance.
const WITHOUT_DESCRIPTORS: &str = r#"
for fd in /proc/self/fd/*; do fd=${fd##*/}; if ((fd > 2 && fd != 255)); then exec {fd}>&-; fi; done
exec "$@""#;

/// Exclusive use of the shared engine. Dropped, its containers are removed; it runs on for the next test.
#[derive(Debug)]
pub struct Docker {
    client: Client,
    holder: String,
    share: PathBuf,
    _lock: File,
}

/// Where the peers are.
#[derive(Debug)]
pub(crate) struct Place {
    script: PathBuf,
    pub root: PathBuf,
    share: PathBuf,
    run: PathBuf,
}

impl Place {
    /// `None`, saying so, where the peers are not set up.
    pub fn find() -> Option<Self> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = variable("HOME").unwrap_or_default();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let place = Self {
            script: variable("FERRY_PEERS").unwrap_or_else(|| workspace.join("../shared/peers/peers")),
            root: variable("PEERS_ROOT").unwrap_or_else(|| home.join(".cache/ferry-peers/root")),
            share: variable("PEERS_SHARE").unwrap_or_else(|| home.join(".cache/ferry-peers/host")),
            run: variable("PEERS_RUN").unwrap_or_else(|| PathBuf::from("/run/ferry-peers")),
        };
        if !place.script.is_file() || !place.root.join("usr/sbin/dockerd").is_file() {
            eprintln!(
                "skipped: no real engines here (`{} setup` makes them)",
                place.script.display()
            );
            return None;
        }
        Some(place)
    }
}

/// Where the real engines' programs are, to be run with chroot. `None`, saying so, where the peers are not set up.
pub fn root() -> Option<PathBuf> {
    Place::find().map(|place| place.root)
}

/// The real Docker Compose. `None`, saying so, where the peers are not set up.
pub fn compose() -> Option<PathBuf> {
    plugin("docker-compose")
}

/// A real plugin of Docker's command line. `None`, saying so, where the peers are not set up.
pub fn plugin(name: &str) -> Option<PathBuf> {
    let program = Place::find()?.root.join("usr/libexec/docker/cli-plugins").join(name);
    program.is_file().then_some(program)
}

/// Links real plugins to where Docker's command line finds them that has its settings in `home`. `None`, saying so, where the
/// peers are not set up.
pub fn link_plugins(home: &Path, names: &[&str]) -> Option<()> {
    let dir = home.join("cli-plugins");
    fs::create_dir(&dir).unwrap();
    for name in names {
        std::os::unix::fs::symlink(plugin(name)?, dir.join(name)).unwrap();
    }
    Some(())
}

impl Deref for Docker {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Docker {
    /// `None`, saying so, where the peers are not set up.
    #[track_caller]
    pub fn get() -> Option<Self> {
        let Place { script, share, run, .. } = Place::find()?;
        fs::create_dir_all(&run).unwrap();
        let lock = File::create(run.join(format!("{NAME}.lock"))).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let pid_file = run.join(format!("{NAME}.pid"));
        let holder = || {
            let pid = fs::read_to_string(&pid_file).ok()?.trim().to_owned();
            Path::new("/proc")
                .join(&pid)
                .join("root/run/docker.sock")
                .exists()
                .then_some(pid)
        };
        if holder().is_none() {
            let up = Run::new("bash")
                .args(["-c", WITHOUT_DESCRIPTORS, "bash"])
                .args([&script]);
            up.args(["up", NAME, "dockerd"]).output().ok();
        }
        let holder = holder().expect("peers up makes one");
        let socket = format!("/proc/{holder}/root/run/docker.sock");
        let docker = Self {
            client: Client::new(socket, Program::Docker),
            holder,
            share,
            _lock: lock,
        };
        docker.clear();
        Some(docker)
    }

    /// A fresh directory on this host, and the path by which the engine knows it.
    pub fn share(&self, name: &str) -> (PathBuf, String) {
        let dir = self.share.join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        (dir, format!("/host/{name}"))
    }

    #[track_caller]
    pub fn in_namespace(&self, line: &[&str]) -> Run {
        Run::new("nsenter")
            .args(["-t", &self.holder, "-m", "-n", "-i", "-u", "-r", "-w", "--"])
            .args(line)
    }

    /// Removes all containers, and all images but busybox.
    fn clear(&self) {
        let ids = |args: &[&str]| self.client.docker(args).stdout;
        for id in ids(&["ps", "-aq"]).split_whitespace() {
            self.client.docker(["rm", "-f", id]);
        }
        for line in ids(&["images", "--all", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).lines() {
            let (reference, id) = line.split_once(' ').unwrap_or_default();
            if reference != crate::images::BUSYBOX {
                let target = if reference.contains("<none>") { id } else { reference };
                self.client.docker(["rmi", "-f", target]);
            }
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // A test that fails is already unwinding: a second panic must not leave this drop.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clear()));
    }
}
