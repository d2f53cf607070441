//! A Ferry daemon of a test's own: network namespace, data root, run directory, control group; nothing is shared.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{Client, Program};
use crate::command::Run;
use crate::engines::Engines;
use crate::namespace::{Kinds, Namespace};
use crate::{http, leftovers, tools};

const START: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(15);

/// How the daemon is to be started.
#[derive(Debug, Default)]
pub struct Builder {
    args: Vec<String>,
    disk_mebibytes: Option<u64>,
    set_up: Option<String>,
    online: bool,
    as_dockerd: bool,
    beside: Option<u32>,
}

impl Builder {
    /// One more argument of `ferry daemon`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// The data root is a file system of its own, of this size: for tests that fill it.
    #[must_use]
    pub fn disk(mut self, mebibytes: u64) -> Self {
        self.disk_mebibytes = Some(mebibytes);
        self
    }

    /// In a mount namespace of its own, in which this shell script runs first; `$DIR` is the test's directory.
    #[must_use]
    pub fn set_up(mut self, script: &str) -> Self {
        self.set_up = Some(script.to_owned());
        self
    }

    /// Started through a symbolic link named `dockerd`, which takes the same arguments without `daemon` before them.
    #[must_use]
    pub fn as_dockerd(mut self) -> Self {
        self.as_dockerd = true;
        self
    }

    /// In the network namespace of that machine, beside the engines on it.
    #[must_use]
    pub fn beside(mut self, engines: &Engines) -> Self {
        self.beside = Some(engines.id());
        self
    }

    #[track_caller]
    pub fn start(self) -> TestDaemon {
        let mut daemon = self.prepare();
        daemon.start_again();
        daemon
    }

    /// Everything but the daemon itself.
    #[track_caller]
    pub fn prepare(self) -> TestDaemon {
        // First, so that nothing has been made yet when there is no binary.
        let mut binary = tools::ferry();
        let mark = mark();
        let dir = PathBuf::from("/var/tmp").join(&mark);
        fs::create_dir_all(dir.join("data")).unwrap();
        if self.as_dockerd {
            let link = dir.join("dockerd");
            std::os::unix::fs::symlink(binary, &link).unwrap();
            binary = link;
        }
        fs::create_dir_all(dir.join("run")).unwrap();
        let namespace = (!self.online).then(|| match (self.disk_mebibytes, &self.set_up) {
            _ if self.beside.is_some() => Namespace::of(self.beside.unwrap()),
            (Some(size), _) => namespace_with_disk(&dir, size),
            (None, Some(script)) => {
                let kinds = Kinds {
                    mount: true,
                    ..Kinds::default()
                };
                Namespace::new(&dir, kinds, &format!("DIR={}\n{script}", dir.display()))
            }
            (None, None) => Namespace::new(&dir, Kinds::default(), ""),
        });
        let mut args = self.args;
        if self.online {
            args.push("--bridge=none".to_owned());
        }
        let client = Client::new(dir.join("run/ferry.sock"), Program::Ferry);
        TestDaemon {
            mark,
            dir,
            namespace,
            args,
            client,
            process: None,
            binary,
            as_dockerd: self.as_dockerd,
            finished: false,
        }
    }
}

/// A network namespace, and a mount namespace in which `data` is a file system of that many mebibytes.
#[track_caller]
fn namespace_with_disk(dir: &Path, size: u64) -> Namespace {
    let disk = dir.join("disk");
    File::create(&disk).and_then(|file| file.set_len(size << 20)).unwrap();
    Run::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0"])
        .args([&disk])
        .output()
        .ok();
    let kinds = Kinds {
        mount: true,
        ..Kinds::default()
    };
    let mount = format!("mount -o loop {} {}", disk.display(), dir.join("data").display());
    Namespace::new(dir, kinds, &mount)
}

/// Unique among all tests of all runs on this machine, and short: socket paths end at 107 bytes.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ferry-test-{:x}-{:x}-{number}", std::process::id(), time / 1000)
}

/// A running daemon. Dereferences to its [`Client`]. Dropped, it is ended and must have left nothing.
#[derive(Debug)]
pub struct TestDaemon {
    mark: String,
    dir: PathBuf,
    namespace: Option<Namespace>,
    args: Vec<String>,
    client: Client,
    process: Option<Child>,
    binary: PathBuf,
    as_dockerd: bool,
    finished: bool,
}

impl Deref for TestDaemon {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestDaemon {
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A daemon in the machine's own network namespace, for tests that download: without a bridge, without any change
    /// to firewall or links. `None`, saying so, where there is no way to Debian's mirror.
    #[track_caller]
    pub fn online() -> Option<Self> {
        let url = "http://deb.debian.org/debian/dists/stable/InRelease";
        if Run::new("curl").args(["-sfI", "-m", "5", url]).output().code != 0 {
            eprintln!("skipped: {url} cannot be reached");
            return None;
        }
        Some(
            Builder {
                online: true,
                ..Builder::default()
            }
            .start(),
        )
    }

    pub fn data_root(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The directory that goes with the test; room for bind mounts and the like.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The control group below which every container of this daemon is, without the leading slash.
    pub fn cgroup_parent(&self) -> &str {
        &self.mark
    }

    /// The daemon's process id.
    #[track_caller]
    pub fn engine_pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    /// The daemon, its shims, and what runs in their containers: all that is in its namespace or carries its mark.
    pub fn processes(&self) -> Vec<String> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let holder = self.namespace.as_ref().map(Namespace::id);
        let own = holder.and_then(namespace);
        let mut found = leftovers::processes("");
        let marked: Vec<u32> = leftovers::processes(&self.mark)
            .into_iter()
            .map(|(pid, _)| pid)
            .collect();
        found.retain(|(pid, _)| {
            let is_inside = own.is_some() && namespace(*pid) == own;
            Some(*pid) != holder && (is_inside || marked.contains(pid))
        });
        found.into_iter().map(|(pid, line)| format!("{pid} {line}")).collect()
    }

    /// The arguments of `ferry` that start this daemon.
    pub fn daemon_args(&self) -> Vec<String> {
        let mut args = vec!["daemon".to_owned()];
        let run = self.run_dir();
        for (option, value) in [
            ("--data-root", self.data_root().display().to_string()),
            ("--exec-root", run.display().to_string()),
            ("--host", self.client.host()),
            ("--pidfile", run.join("ferry.pid").display().to_string()),
            ("--cgroup-parent", format!("/{}", self.mark)),
        ] {
            args.extend([option.to_owned(), value]);
        }
        args.extend(self.args.iter().cloned());
        args
    }

    /// The daemon's network namespace, as a path that leads to it.
    #[track_caller]
    pub fn network(&self) -> PathBuf {
        let namespace = self.namespace.as_ref();
        let id = namespace.expect("not online: it has a namespace of its own").id();
        PathBuf::from(format!("/proc/{id}/ns/net"))
    }

    /// A program in the daemon's network namespace.
    #[track_caller]
    pub fn in_namespace(&self, line: &[&str]) -> Run {
        let namespace = self
            .namespace
            .as_ref()
            .expect("not online: it has a namespace of its own");
        let enter = namespace.enter();
        Run::new(&enter[0]).args(&enter[1..]).args(line)
    }

    /// Starts a daemon on the same data root and in the same namespace as before.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let binary = self.binary.clone();
        let mut command = match &self.namespace {
            Some(namespace) => {
                let enter = namespace.enter();
                let mut command = Command::new(&enter[0]);
                command.args(&enter[1..]).arg(&binary);
                command
            }
            None => Command::new(&binary),
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("daemon.log"))
            .unwrap();
        let args = self.daemon_args();
        command.args(&args[usize::from(self.as_dockerd)..]).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut process = command.spawn().unwrap();
        let end = Instant::now() + START;
        // It answers: a connection alone may be one to the daemon before, whose socket a child held that was about to become a shim.
        while http::request(self.client.socket(), "GET", "/_ping", "", b"").is_err() {
            if let Ok(Some(status)) = process.try_wait() {
                panic!("the daemon ended at once: {status}\n{}", self.log());
            }
            if Instant::now() > end {
                let _ = process.kill();
                let _ = process.wait();
                panic!("the daemon opened no socket in {START:?}\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.process = Some(process);
    }

    /// SIGKILL: no time to say anything to anyone.
    #[track_caller]
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and its end.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        let _ = kill_process(Pid::from_child(&process), Signal::TERM);
        let end = Instant::now() + STOP;
        while let Ok(None) = process.try_wait() {
            if Instant::now() > end {
                let _ = process.kill();
                let _ = process.wait();
                panic!("the daemon did not end in {STOP:?} after SIGTERM\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends it in good order and starts it again; containers run on.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// What the daemon printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("daemon.log")).unwrap_or_default()
    }

    /// Removes every container, ends the daemon, and panics unless nothing of it is left on the machine.
    #[track_caller]
    pub fn finish(mut self) {
        let left = self.end();
        assert!(
            left.is_empty(),
            "left behind by the daemon: {left:#?}\n{}",
            self.log_tail()
        );
    }

    /// What was left behind. Everything is removed, in this order, whatever fails.
    fn end(&mut self) -> Vec<String> {
        if std::mem::replace(&mut self.finished, true) {
            return Vec::new();
        }
        let mut left = Vec::new();
        if self.process.is_none() && !leftovers::processes(&self.mark).is_empty() {
            // It was killed in the test: only a daemon can take its containers away in good order.
            let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.start_again()));
            left.extend(started.err().map(|_| "a daemon that does not start again".to_owned()));
        }
        if self.process.is_some() {
            left.extend(self.remove_containers().err());
            let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stop()));
            left.extend(stopped.err().map(|_| "a daemon that does not stop".to_owned()));
        }
        if let Some(namespace) = &self.namespace {
            left.extend(match namespace.is_borrowed() {
                true => leftovers::of_ferry(namespace.id()),
                false => leftovers::network(namespace.id()),
            });
        }
        let holder = self.namespace.as_ref().map(Namespace::id);
        left.extend(leftovers::clean(&self.mark, &self.dir, holder));
        self.namespace = None;
        if std::thread::panicking() || !left.is_empty() {
            eprintln!("--- the daemon's log\n{}", self.log_tail());
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            left.push(format!("{}: {error}", self.dir.display()));
        }
        left
    }

    fn remove_containers(&self) -> Result<(), String> {
        let ask = |method: &str, path: &str| {
            crate::http::request(self.client.socket(), method, path, "application/json", b"")
                .map_err(|error| format!("{method} {path}: {error}"))
        };
        let list = ask("GET", "/containers/json?all=1")?;
        let list: serde_json::Value = serde_json::from_slice(&list.body).map_err(|error| error.to_string())?;
        for container in list.as_array().into_iter().flatten() {
            let id = container["Id"].as_str().unwrap_or_default();
            let answer = ask("DELETE", &format!("/containers/{id}?force=1"))?;
            // 404 and 409: it goes with --rm, or is on its way.
            if ![204, 404, 409].contains(&answer.status) {
                return Err(format!("removing {id}: {}", String::from_utf8_lossy(&answer.body)));
            }
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        let left = self.end();
        assert!(
            left.is_empty() || std::thread::panicking(),
            "left behind by the daemon: {left:#?}"
        );
    }
}
