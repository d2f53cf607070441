//! What is remembered of a container between two commands: `<root>/<id>/state.json`.
//!
//! ```text
//! <root>/<id>/            0700; locked (flock) by `create` while it works
//!   state.json            written twice by create: before the first process is born, so that its cgroup can be found
//!                         whatever happens, and when it waits to be started
//!   start                 the socket the first process waits on; gone once it was started
//!   seccomp               the compiled filter, for exec
//! ```
//! The kernel decides what state a container is in: its first process by pid, start time and boot, its freezer, and the
//! socket.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_cgroup::{Cgroup, Hierarchy, Layout};
use ferry_runtime::hooks::{self, Hook};
use ferry_runtime::plan::Namespaces;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::error::{During as _, Error, Result};
use crate::resctrl;

/// The version of the specification that `state` and `features` report.
pub(crate) const VERSION: &str = "1.3.0";
pub(crate) const SOCKET: &str = "start";
const RECORD: &str = "state.json";
const SECCOMP: &str = "seccomp";
const LIMIT: u64 = 16 << 20;

/// A container as it was created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Of this document.
    pub version: u32,
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub owner: u32,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Of the first process; 0 until it is ready.
    pub pid: i32,
    /// When it started, in clock ticks since the boot.
    pub start_time: u64,
    pub boot: String,
    /// The container's cgroup and the hierarchies it is in; none for a rootless container without one.
    pub cgroup: Option<String>,
    pub layout: Option<Layout>,
    pub namespaces: Namespaces,
    #[serde(default)]
    pub poststart: Vec<Hook>,
    #[serde(default)]
    pub poststop: Vec<Hook>,
    pub seccomp: Option<Seccomp>,
    pub no_new_privileges: bool,
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
    pub oom_score_adj: Option<i32>,
    #[serde(default)]
    pub personality: Option<u64>,
    #[serde(default)]
    pub memory_policy: Option<(u32, Vec<u64>)>,
    /// It was created with the caller's session keyring.
    #[serde(default)]
    pub keep_keyring: bool,
    /// The class of service of Intel RDT.
    #[serde(default)]
    pub class: Option<resctrl::Class>,
    /// The number of the mount on `rootfs`, where it is the host's too.
    #[serde(default)]
    pub mount: Option<u64>,
}

/// How the filter beside the record is loaded, and who answers its notifications.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seccomp {
    pub flags: u32,
    pub listener: Option<PathBuf>,
    #[serde(default)]
    pub metadata: String,
}

/// Runtime.md, "State".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// `{"ociVersion":…}` as `state` prints it and hooks read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: &'a str,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    pub owner: String,
}

/// As the specification has it, for hooks and seccomp agents.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    pid: i32,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// The directory with all containers' directories.
#[derive(Debug, Clone)]
pub(crate) struct Root(pub PathBuf);

/// One container's directory, open.
#[derive(Debug)]
pub(crate) struct Directory {
    pub path: PathBuf,
    pub fd: OwnedFd,
}

/// runc's rule: letters, digits, `_`, `+`, `-`, `.`, and no name of a directory; with a bound, as it becomes one.
pub(crate) fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Error::EmptyId);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if matches!(id, "." | "..") || id.len() > 255 || !id.bytes().all(allowed) {
        return Err(Error::InvalidId);
    }
    Ok(())
}

impl Root {
    /// Makes the container's directory; somebody else's with that name is an error.
    pub fn make(&self, id: &str) -> Result<Directory> {
        check_id(id)?;
        let path = self.0.join(id);
        let make = || rustix::fs::mkdir(&path, Mode::from(0o700));
        match make() {
            Err(rustix::io::Errno::NOENT) => {
                std::fs::create_dir_all(&self.0).during(|| format!("mkdir {}", self.0.display()))?;
                make()
            }
            done => done,
        }
        .map_err(|error| match error {
            rustix::io::Errno::EXIST => Error::Exists,
            error => Error::Io {
                what: format!("mkdir {}", path.display()),
                source: error.into(),
            },
        })?;
        let directory = Directory::open(path)?;
        directory.lock()?;
        Ok(directory)
    }

    pub fn find(&self, id: &str) -> Result<Directory> {
        check_id(id)?;
        match Directory::open(self.0.join(id)) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Err(Error::NotFound),
            done => done,
        }
    }

    /// The container and what is recorded of it.
    pub fn load(&self, id: &str) -> Result<(Directory, Record)> {
        let directory = self.find(id)?;
        let record = directory.load(id)?;
        Ok((directory, record))
    }

    /// Names of all containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            done => done.during(|| format!("read {}", self.0.display()))?,
        };
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

impl Directory {
    fn open(path: PathBuf) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).during(|| format!("open {}", path.display()))?;
        Ok(Self { path, fd })
    }

    /// Held until this process lets go of the directory.
    fn lock(&self) -> Result<()> {
        let what = || format!("lock {}", self.path.display());
        rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive).during(what)
    }

    /// Whether a `create` is at work here.
    pub fn is_busy(&self) -> bool {
        self.lock().is_err()
    }

    pub fn load(&self, id: &str) -> Result<Record> {
        let damaged = |problem: String| Error::Damaged {
            id: id.to_owned(),
            problem,
        };
        let text = match self.read(RECORD) {
            // Whoever makes it has not got that far, or never did.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Error::NotFound),
            done => done.map_err(|error| damaged(error.to_string()))?,
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if record.version != 1 || record.id != id {
            return Err(damaged("it is not of this runtime's making".to_owned()));
        }
        Ok(record)
    }

    fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = std::fs::File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?);
        let mut text = Vec::new();
        file.take(LIMIT).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Written beside and renamed into place; no fsync: it does not outlive the boot.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        use std::io::Write as _;
        let what = || format!("write {}", self.path.join(name).display());
        let beside = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, &beside, flags, Mode::from(0o600)).during(what)?;
        std::fs::File::from(fd).write_all(bytes).during(what)?;
        rustix::fs::renameat(&self.fd, &beside, &self.fd, name).during(what)
    }

    pub fn save(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::Invalid(error.to_string()))?;
        self.write(RECORD, &text)
    }

    pub fn save_filter(&self, filter: &[u8]) -> Result<()> {
        self.write(SECCOMP, filter)
    }

    pub fn filter(&self) -> Result<Vec<u8>> {
        self.read(SECCOMP).during(|| "read the container's seccomp filter")
    }

    /// A path by which the socket is reached whatever the length of the directory's own (108 bytes are a socket's).
    pub fn socket(&self) -> String {
        format!("/proc/self/fd/{}/{SOCKET}", self.fd.as_raw_fd())
    }

    pub fn is_unstarted(&self) -> bool {
        rustix::fs::statat(&self.fd, SOCKET, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub fn forget_socket(&self) {
        let _ = rustix::fs::unlinkat(&self.fd, SOCKET, rustix::fs::AtFlags::empty());
    }

    /// Removes the directory and its files.
    pub fn remove(&self) -> Result<()> {
        for name in [SOCKET, SECCOMP, RECORD] {
            let _ = rustix::fs::unlinkat(&self.fd, name, rustix::fs::AtFlags::empty());
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            // Something that a killed create left half-written.
            Err(_) => std::fs::remove_dir_all(&self.path).during(|| format!("remove {}", self.path.display())),
        }
    }
}

impl Record {
    /// The first process, pinned: not the one that may have its number by now.
    pub fn process(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after it was pinned, so the answer is about this very process.
        is_alive(self.pid, self.start_time)
            .then_some(pidfd)
            .filter(|_| boot() == self.boot)
    }

    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        let (Some(path), Some(layout)) = (&self.cgroup, &self.layout) else {
            return Ok(None);
        };
        let hierarchy: Hierarchy = layout.clone().try_into()?;
        match hierarchy.open(path) {
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(ferry_cgroup::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn status(&self, directory: &Directory) -> Status {
        if self.pid == 0 {
            return if directory.is_busy() {
                Status::Creating
            } else {
                Status::Stopped
            };
        }
        if self.process().is_none() {
            return Status::Stopped;
        }
        if self.is_frozen() {
            return Status::Paused;
        }
        if directory.is_unstarted() {
            Status::Created
        } else {
            Status::Running
        }
    }

    fn is_frozen(&self) -> bool {
        let (Some(path), Some(layout)) = (&self.cgroup, &self.layout) else {
            return false;
        };
        crate::cgroups::is_frozen(layout, path)
    }

    pub fn report<'a>(&'a self, status: Status, owner: String) -> Report<'a> {
        Report {
            oci_version: &self.oci_version,
            id: &self.id,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status: status.name(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: &self.created,
            annotations: &self.annotations,
            owner,
        }
    }

    /// The state as hooks read it, but for the pid.
    pub fn told(&self, status: Status) -> hooks::State {
        const MARK: i32 = i32::MIN;
        let told = Told {
            oci_version: &self.oci_version,
            id: &self.id,
            status: status.name(),
            pid: MARK,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        let text = serde_json::to_string(&told).unwrap_or_default();
        // Before the bundle and annotations, which are somebody else's text; the id cannot hold a quote.
        match text.split_once(&format!("\"pid\":{MARK}")) {
            Some((before, after)) => hooks::State {
                before: format!("{before}\"pid\":"),
                after: after.to_owned(),
            },
            None => hooks::State::default(),
        }
    }
}

/// This boot's name.
pub(crate) fn boot() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// When a process started, in ticks since the boot; `None` if it is gone or a zombie (proc_pid_stat(5)).
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    (!matches!(state, "Z" | "X" | "x")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

fn is_alive(pid: i32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let me = i32::try_from(std::process::id()).unwrap();
        Record {
            version: 1,
            oci_version: VERSION.into(),
            id: "c".into(),
            bundle: "/b\"undle".into(),
            rootfs: "/b/rootfs".into(),
            created: String::new(),
            owner: 0,
            annotations: BTreeMap::from([("\"pid\":-2147483648".to_owned(), "x".to_owned())]),
            pid: me,
            start_time: start_time(me).unwrap(),
            boot: boot(),
            cgroup: None,
            layout: None,
            namespaces: Namespaces::default(),
            poststart: Vec::new(),
            poststop: Vec::new(),
            seccomp: None,
            no_new_privileges: false,
            apparmor: None,
            selinux: None,
            oom_score_adj: None,
            personality: None,
            memory_policy: None,
            keep_keyring: false,
            class: None,
            mount: None,
        }
    }

    #[test]
    fn ids_are_names_and_not_paths() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\0", "ä", &"x".repeat(256)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a.b_c+d-e", "...", &"x".repeat(255)] {
            check_id(good).unwrap();
        }
    }

    #[test]
    fn a_process_of_that_number_from_another_time_or_boot_is_another_process() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Directory::open(directory.path().to_owned()).unwrap();
        assert_eq!(record().status(&directory), Status::Running);
        let later = Record {
            start_time: record().start_time + 1,
            ..record()
        };
        assert_eq!(later.status(&directory), Status::Stopped);
        let elsewhen = Record {
            boot: "other".into(),
            ..record()
        };
        assert_eq!(elsewhen.status(&directory), Status::Stopped);
    }

    #[test]
    fn a_damaged_record_is_said_to_be_one() {
        let root = tempfile::tempdir().unwrap();
        let root = Root(root.path().to_owned());
        let directory = root.make("c").unwrap();
        assert!(matches!(root.make("c"), Err(Error::Exists)));
        assert!(matches!(root.load("c"), Err(Error::NotFound)));
        directory.save(&record()).unwrap();
        assert_eq!(root.load("c").unwrap().1.pid, record().pid);
        std::fs::write(directory.path.join(RECORD), "{\"version\":1,").unwrap();
        assert!(matches!(root.load("c"), Err(Error::Damaged { .. })));
        directory.remove().unwrap();
        assert!(matches!(root.load("c"), Err(Error::NotFound)));
    }

    #[test]
    fn hooks_are_told_the_pid_whatever_the_annotations_say() {
        let told = record().told(Status::Creating).with_pid(42);
        let value: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&value["pid"], &value["status"]), (&42.into(), &"creating".into()));
    }
}
