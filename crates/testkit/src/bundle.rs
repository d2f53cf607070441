//! OCI bundles for the runtime's tests: a root file system with busybox, a configuration, a state root and a control group
//! of its own.
//!
//! `FERRY_TEST_RUNTIME` names another runtime (runc, crun) to hold an expectation against: one that fails there is wrong.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::tools;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Every applet the tests call.
const APPLETS: [&str; 25] = [
    "sh", "cat", "cut", "echo", "env", "grep", "head", "hostname", "id", "ls", "mkdir", "mount", "pwd", "readlink",
    "sed", "sleep", "sort", "stat", "test", "touch", "trap", "true", "tty", "umask", "wc",
];

/// A bundle, and all containers that are made of it.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    cgroup: String,
    /// The configuration; written before every command.
    pub spec: Value,
}

/// How a command of the runtime ended. The container's output is among its own.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The standard output, trimmed; panics unless the command succeeded.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout.trim().to_owned()
    }

    /// Panics unless it failed with `code` and a text that has `text` in it.
    #[track_caller]
    pub fn fails(&self, code: i32, text: &str) {
        // In the log's text format quotes are escaped.
        let stderr = self.stderr.replace("\\\"", "\"");
        assert!(self.code == code && stderr.contains(text), "{code} {text:?}: {self:?}");
    }
}

impl Bundle {
    /// A bundle whose program is `script`, run by busybox's sh.
    pub fn sh(script: &str) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("ferry-test-oci-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&mark);
        let bin = dir.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        for directory in ["etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir(dir.join("rootfs").join(directory)).unwrap();
        }
        fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        let made = Command::new(tools::ferry())
            .args(["runtime", "spec", "--bundle"])
            .arg(&dir)
            .status()
            .unwrap();
        assert!(made.success());
        let mut spec: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(format!("/{mark}/c"));
        Self {
            dir,
            cgroup: mark,
            spec,
        }
    }

    /// One that runs until it is killed.
    pub fn sleeping() -> Self {
        Self::sh("trap 'exit 0' TERM; while :; do sleep 0.05; done")
    }

    /// Replaces a value of the configuration; missing members are made.
    #[must_use]
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        self.set(pointer, value);
        self
    }

    pub fn set(&mut self, pointer: &str, value: Value) {
        let mut place = &mut self.spec;
        for key in pointer.split('.') {
            place = match key.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[key],
            };
        }
        *place = value;
    }

    /// Adds an element to a list of the configuration.
    #[must_use]
    pub fn and(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.spec;
        for key in pointer.split('.') {
            place = &mut place[key];
        }
        match place.as_array_mut() {
            Some(list) => list.push(value),
            None => *place = json!([value]),
        }
        self
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Where the runtime keeps its state.
    pub fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The container's directory in each hierarchy it is in.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path().join(&self.cgroup).join("c")))
            .collect();
        found.push(Path::new("/sys/fs/cgroup").join(&self.cgroup).join("c"));
        found.retain(|path| path.is_dir());
        found
    }

    /// Runs a command of the runtime, in the bundle.
    pub fn call(&self, args: &[&str]) -> Ended {
        self.call_with(args, |_| {})
    }

    pub fn call_with(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Ended {
        fs::write(self.dir.join("config.json"), self.spec.to_string()).unwrap();
        self.call_as_it_is(args, change)
    }

    /// With whatever lies at `config.json`.
    pub fn call_as_it_is(&self, args: &[&str], change: impl FnOnce(&mut Command)) -> Ended {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| self.dir.join(format!("{name}-{number}"));
        let mut command = match std::env::var_os("FERRY_TEST_RUNTIME") {
            Some(runtime) => Command::new(runtime),
            None => {
                let mut command = Command::new(tools::ferry());
                command.arg("runtime");
                command
            }
        };
        // Files and not pipes: the container holds on to them when the command is long gone.
        command
            .arg("--root")
            .arg(self.state_root())
            .args(args)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(fs::File::create(file("out")).unwrap())
            .stderr(fs::File::create(file("err")).unwrap());
        change(&mut command);
        let status = command.status().unwrap();
        let read = |name: &str| String::from_utf8_lossy(&fs::read(file(name)).unwrap()).into_owned();
        Ended {
            code: status.code().unwrap_or(-1),
            stdout: read("out"),
            stderr: read("err"),
        }
    }

    /// `run` in the foreground: the program's output and exit code.
    pub fn run(&self) -> Ended {
        self.call(&["run", "c"])
    }

    /// Creates and starts the container `c`.
    pub fn up(&self) -> &Self {
        self.call(&["create", "c"]).ok();
        self.call(&["start", "c"]).ok();
        self
    }

    /// Another process in the container `c`, by busybox's sh.
    pub fn exec(&self, script: &str) -> Ended {
        self.call(&["exec", "c", "/bin/sh", "-c", script])
    }

    /// What `state` says.
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.call(&["state", id]).ok()).unwrap()
    }

    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn wait_for_status(&self, id: &str, status: &str) {
        crate::wait_until(&format!("{id} is {status}"), || self.status(id) == status);
    }

    /// What should not be there when no container is.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .cgroups()
            .iter()
            .map(|path| format!("cgroup {}", path.display()))
            .collect();
        if let Ok(entries) = fs::read_dir(self.state_root()) {
            left.extend(entries.filter_map(|entry| Some(format!("state {}", entry.ok()?.path().display()))));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.display().to_string();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&dir))
                .map(|line| format!("mount {line}")),
        );
        left
    }
}

/// One descriptor from a stream socket (`SCM_RIGHTS`).
pub fn receive_fd(stream: &std::os::unix::net::UnixStream) -> std::os::fd::OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    fd.unwrap()
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let ids: Vec<String> = fs::read_dir(self.state_root())
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        for id in &ids {
            self.call_as_it_is(&["delete", "--force", id], |_| {});
        }
        let end = Instant::now() + Duration::from_secs(2);
        while !self.leftovers().is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let left = self.leftovers();
        for group in self.cgroups() {
            let _ = fs::remove_dir(group);
        }
        for entry in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path().join(&self.cgroup));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.cgroup));
        let _ = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:#?}");
        }
    }
}
