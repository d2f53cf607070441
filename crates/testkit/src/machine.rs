//! A machine of a test's own as far as Ferry's usual places go: for what needs the default socket and data root.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::command::Run;
use crate::daemon::mark;
use crate::namespace::{Kinds, Namespace};
use crate::{leftovers, tools, wait_within};

/// Namespaces of its own for network, mounts and processes, in which `/run`, `/var/lib` and `/etc` are private.
///
/// Dropped, every process in it is killed; a control group that is still there fails the test.
#[derive(Debug)]
pub struct Machine {
    mark: String,
    dir: PathBuf,
    /// `None` once it is ended.
    namespace: Option<Namespace>,
}

impl Machine {
    /// `settings` go into `/etc/ferry/daemon.json`, with a control group of the machine's own.
    #[track_caller]
    pub fn start(mut settings: Value) -> Self {
        tools::ferry();
        let mark = mark();
        let dir = PathBuf::from("/var/tmp").join(&mark);
        for name in ["lib", "etc/ferry", "work"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        settings["cgroup-parent"] = format!("/{mark}").into();
        fs::write(dir.join("etc/ferry/daemon.json"), settings.to_string()).unwrap();
        let script = format!(
            "mount -t tmpfs -o mode=755 tmpfs /run\n\
             mount -t overlay -o lowerdir=/etc,upperdir={0}/etc,workdir={0}/work overlay /etc\n\
             mount --bind {0}/lib /var/lib",
            dir.display()
        );
        let kinds = Kinds {
            mount: true,
            pid: true,
            names: false,
        };
        let namespace = Some(Namespace::new(&dir, kinds, &script));
        Self { mark, dir, namespace }
    }

    /// The directory that goes with the test; it is the same one inside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program inside.
    #[track_caller]
    pub fn run(&self, program: impl AsRef<OsStr>) -> Run {
        let enter = self.namespace.as_ref().expect("not ended").enter();
        Run::new(&enter[0])
            .args(&enter[1..])
            .args([program])
            .env("DOCKER_HOST", "")
            .env("DOCKER_CONFIG", &self.dir)
            .env("LC_ALL", "C.UTF-8")
    }

    /// Ferry's command line inside, told nothing of where an engine is.
    #[track_caller]
    pub fn ferry(&self) -> Run {
        self.run(tools::ferry())
    }

    /// A shell command inside that succeeds.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.run("sh").args(["-ec", script]).ok()
    }

    /// Process numbers, as this machine sees them, of the engines that run inside.
    pub fn engines(&self) -> Vec<u32> {
        let Some(namespace) = &self.namespace else {
            return Vec::new();
        };
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let inside = of(namespace.id());
        let mut found = leftovers::processes("daemon");
        found.retain(|(pid, line)| of(*pid) == inside && line.split(' ').nth(1) == Some("daemon"));
        found.into_iter().map(|(pid, _)| pid).collect()
    }

    /// Waits until no engine runs inside: it has ended itself, and nothing of it may be left.
    #[track_caller]
    pub fn wait_for_end(&self, time: Duration) {
        wait_within(time, "the engine ends itself", || self.engines().is_empty());
        let links = self.run("ip").args(["-o", "link"]).ok();
        assert_eq!(links.lines().count(), 1, "the engine left links: {links}");
    }

    /// What the engine printed.
    pub fn log(&self) -> String {
        self.run("cat").args(["/run/ferry/daemon.log"]).output().stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let log = self.log();
        let holder = self.namespace.as_ref().map(Namespace::id);
        self.namespace = None;
        let left = leftovers::clean(&self.mark, &self.dir, holder);
        if std::thread::panicking() || !left.is_empty() {
            eprintln!("--- the engine's log\n{log}");
        }
        // Whatever of it stays is in the way of nobody, and `cargo xtask sweep` finds it.
        let _ = fs::remove_dir_all(&self.dir);
        assert!(
            left.is_empty() || std::thread::panicking(),
            "left behind by the machine: {left:#?}"
        );
    }
}
