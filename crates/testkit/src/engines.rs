//! The real engines with Ferry as their runtime, on a machine of a test's own.
//!
//! Its root is the peers' root, read-only below a tmpfs, so that a test may change anything and nothing stays. The only
//! `runc` in `PATH` there is Ferry; runc itself is at [`Engines::RUNC`], where nobody finds it who is not told, to hold
//! Ferry against it. It is a copy and no bind mount, under which runc cannot start itself: so with `FERRY_BIN` naming the
//! real runc every engine works, and what proves that Ferry ran is seen to fail. All processes are in one PID namespace and end with it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::command::Run;
use crate::daemon::mark;
use crate::namespace::{Kinds, Namespace};
use crate::peer::Place;
use crate::{images, leftovers, tools, wait_within};

const PATH: &str = "/run/ferry:/usr/sbin:/usr/bin:/sbin:/bin";
const START: Duration = Duration::from_secs(20);
const DOCKER_LOG: &str = "/run/dockerd.log";
const CONTAINERD_LOG: &str = "/run/containerd.log";

/// Podman as it is on a machine without systemd, with everything it keeps on this one.
const PODMAN: &str = "--cgroup-manager=cgroupfs --root=/data/podman --runroot=/run/podman --tmpdir=/run/libpod";
/// What says that a container is there, whichever engine and runtime it is of.
const STATES: &str = "find /run -xdev -name state.json";

/// A machine with the engines. Dropped, all their containers are removed and everything on it ends; a container's state or
/// control group that is still there then fails the test.
#[derive(Debug)]
pub struct Engines {
    mark: String,
    dir: PathBuf,
    namespace: Option<Namespace>,
    docker: AtomicBool,
    podman: AtomicBool,
}

impl Engines {
    /// Ferry, by its name as an OCI runtime.
    pub const FERRY: &'static str = "/run/ferry/runc";
    /// The real one.
    pub const RUNC: &'static str = "/run/real/runc";

    /// `None`, saying so, where the peers are not set up.
    #[track_caller]
    pub fn start() -> Option<Self> {
        let place = Place::find()?;
        let mark = mark();
        let dir = PathBuf::from("/var/tmp").join(&mark);
        fs::create_dir_all(&dir).unwrap();
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs {dir}\n\
             cd {dir}; mkdir upper work root data\n\
             mount -t overlay -o lowerdir={root},upperdir=upper,workdir=work overlay root\n\
             cd root; mkdir -p data old; mount --bind ../data data\n\
             mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev\n\
             mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp\n\
             mkdir run/ferry run/real; cp {binary} .{ferry}\n\
             mv usr/sbin/runc run/real/runc; rm usr/bin/runc usr/bin/crun\n\
             pivot_root . old; umount -l /old",
            dir = dir.display(),
            root = place.root.display(),
            binary = tools::ferry().display(),
            ferry = Self::FERRY,
        );
        let kinds = Kinds {
            mount: true,
            pid: true,
            names: true,
        };
        let namespace = Some(Namespace::new(&dir, kinds, &script));
        Some(Self {
            mark,
            dir,
            namespace,
            docker: AtomicBool::new(false),
            podman: AtomicBool::new(false),
        })
    }

    /// With dockerd.
    #[track_caller]
    pub fn with_docker() -> Option<Self> {
        let engines = Self::start()?;
        engines.start_docker(&[]);
        Some(engines)
    }

    /// The process whose namespaces are the machine's.
    pub(crate) fn id(&self) -> u32 {
        self.namespace.as_ref().expect("not ended").id()
    }

    /// The parent of all control groups on this machine.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.mark)
    }

    /// A program on the machine.
    #[track_caller]
    pub fn run(&self, program: impl AsRef<OsStr>) -> Run {
        let enter = self.namespace.as_ref().expect("not ended").enter();
        Run::new(&enter[0])
            .args(&enter[1..])
            .args([program])
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("DOCKER_HOST", "")
            .env("DOCKER_CONFIG", "/run/docker-cli")
            .env("BUILDKIT_PROGRESS", "plain")
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .env("LC_ALL", "C.UTF-8")
    }

    /// A shell command there that succeeds.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run("sh").args(["-ec", script]).ok()
    }

    /// A file of the machine, as this one reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        let holder = self.namespace.as_ref().expect("not ended").id();
        PathBuf::from(format!("/proc/{holder}/root{path}"))
    }

    /// Starts dockerd, with Ferry as its default runtime and `real` the other, and loads busybox.
    #[track_caller]
    pub fn start_docker(&self, options: &[&str]) {
        let line = format!(
            "exec setsid dockerd --data-root /data/docker --cgroup-parent={} --default-runtime ferry --add-runtime ferry={} \
             --add-runtime real={} {} >>{DOCKER_LOG} 2>&1 </dev/null &",
            self.cgroup(),
            Self::FERRY,
            Self::RUNC,
            options.join(" ")
        );
        self.sh(&line);
        self.docker.store(true, Ordering::Relaxed);
        wait_within(START, "dockerd answers", || self.docker(["version"]).output().code == 0);
        self.docker(["load"]).input(images::busybox_archive()).ok();
    }

    #[track_caller]
    pub fn docker<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        self.run("docker").args(args)
    }

    /// podman with `runtime`.
    #[track_caller]
    pub fn podman<A: AsRef<OsStr>>(&self, runtime: &str, args: impl IntoIterator<Item = A>) -> Run {
        self.podman.store(true, Ordering::Relaxed);
        self.run("podman")
            .args(["--runtime", runtime])
            .args(PODMAN.split(' '))
            .args(args)
    }

    #[track_caller]
    pub fn start_containerd(&self) {
        self.sh(&format!(
            "exec setsid containerd --root /data/containerd --state /run/containerd --address /run/containerd.sock \
             >{CONTAINERD_LOG} 2>&1 </dev/null &"
        ));
        wait_within(START, "containerd answers", || self.ctr(["version"]).output().code == 0);
    }

    #[track_caller]
    pub fn ctr<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        self.run("ctr").args(["--address", "/run/containerd.sock"]).args(args)
    }

    /// Every container's state on the machine: its id, and whether it was written by Ferry.
    pub fn states(&self) -> Vec<(String, bool)> {
        let paths = self.run("sh").args(["-c", STATES]).output().stdout;
        paths.lines().filter_map(|path| self.state(path)).collect()
    }

    fn state(&self, path: &str) -> Option<(String, bool)> {
        let state: Value = serde_json::from_slice(&fs::read(self.path(path)).ok()?).ok()?;
        let by_ferry = state["version"] == 1 && state["oci_version"].is_string();
        Some((state["id"].as_str()?.to_owned(), by_ferry))
    }

    /// Panics unless the container's state is Ferry's: that is what proves which runtime it was.
    #[track_caller]
    pub fn assert_ferry_runs(&self, id: &str) {
        let states = self.states();
        let ours = states.iter().any(|(known, by_ferry)| *by_ferry && known == id);
        assert!(ours, "{id} is not run by Ferry; the states are {states:?}");
    }

    /// For a test whose own containers are gone too soon to be looked at: one of dockerd's runtime `ferry` that stays.
    #[track_caller]
    pub fn assert_docker_uses_ferry(&self) {
        let line = [
            "run",
            "-d",
            "--runtime",
            "ferry",
            "--network",
            "none",
            "busybox",
            "sleep",
            "1000",
        ];
        let id = self.docker(line).ok();
        self.assert_ferry_runs(&id);
        self.docker(["rm", "-f", &id]).ok();
    }

    /// What a file of a container's control group says: `memory.limit_in_bytes` of `memory`, say.
    #[track_caller]
    pub fn limit(&self, id: &str, controller: &str, file: &str) -> String {
        let group = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(&self.mark)
            .join(id)
            .join(file);
        match fs::read_to_string(&group) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => panic!("read {}: {error}", group.display()),
        }
    }

    fn remove_containers(&self) -> Vec<String> {
        let quiet = |run: Run| drop(run.time(START).output());
        if self.docker.load(Ordering::Relaxed) {
            quiet(self.run("sh").args(["-c", "docker ps -aq | xargs -r docker rm -fv"]));
        }
        if self.podman.load(Ordering::Relaxed) {
            quiet(self.podman(Self::FERRY, ["pod", "rm", "-fa", "-t", "0"]));
            quiet(self.podman(Self::FERRY, ["rm", "-fa", "-t", "0"]));
        }
        // Groups that the engines make themselves, for builds and for what watches podman's containers.
        for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for own in ["buildkit", "conmon"] {
                let _ = fs::remove_dir(entry.path().join(&self.mark).join(own));
            }
        }
        let states = self.states();
        states.into_iter().map(|(id, _)| format!("state of {id}")).collect()
    }
}

impl Drop for Engines {
    fn drop(&mut self) {
        // A test that fails is already unwinding: a second panic must not leave this drop.
        let removed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.remove_containers()));
        let mut left = removed.unwrap_or_else(|_| vec!["containers that cannot be removed".to_owned()]);
        if std::thread::panicking() || !left.is_empty() {
            for log in [DOCKER_LOG, CONTAINERD_LOG] {
                let text = fs::read_to_string(self.path(log)).unwrap_or_default();
                let last: Vec<&str> = text.lines().rev().take(20).collect();
                for line in last.iter().rev() {
                    eprintln!("{log}: {line}");
                }
            }
        }
        let holder = self.namespace.as_ref().map(Namespace::id);
        self.namespace = None;
        left.extend(leftovers::clean(&self.mark, &self.dir, holder));
        // Whatever of it stays is in the way of nobody, and `cargo xtask sweep` finds it.
        let _ = fs::remove_dir_all(&self.dir);
        assert!(
            left.is_empty() || std::thread::panicking(),
            "left behind by the engines: {left:#?}"
        );
    }
}
