//! Namespaces of a test's own, kept open by a sleeping process.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait_within;

const START: Duration = Duration::from_secs(15);

/// What the sleeping process does to the end.
const SLEEP: &str = "exec sleep infinity";
/// As the first process of a PID namespace it also reaps whoever is left to it, which a shell does.
const SLEEP_AND_REAP: &str = "while :; do sleep 1; done";

/// Which namespaces there are besides the network's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub mount: bool,
    /// With a `/proc` of its own, so it needs `mount`.
    pub pid: bool,
    /// IPC and UTS: what engines change of a machine beside the rest.
    pub names: bool,
}

/// Open namespaces. Dropped, the process that holds them ends, and with a PID namespace all others in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// `None` where somebody else's are entered.
    holder: Option<Child>,
    /// The sleeping process itself: with a PID namespace that is `holder`'s child.
    target: u32,
    kinds: Kinds,
}

impl Namespace {
    /// Makes them and runs `script` in them, to its end. Logs go into `dir`.
    #[track_caller]
    pub fn new(dir: &Path, kinds: Kinds, script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net");
        if kinds.mount {
            command.args(["--mount", "--propagation", "private"]);
        }
        if kinds.pid {
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        }
        if kinds.names {
            command.args(["--ipc", "--uts"]);
        }
        let sleep = if kinds.pid { SLEEP_AND_REAP } else { SLEEP };
        let script = format!("ip link set lo up\n{script}\necho ready\n{sleep}");
        let log = dir.join("namespace.log");
        command.args(["--", "sh", "-ec", &script]).stdin(Stdio::null());
        command.stdout(File::create(&log).unwrap()).stderr(Stdio::inherit());
        let mut holder = command.spawn().expect("unshare is there and this is root");
        wait_within(START, "a network namespace", || {
            assert!(
                matches!(holder.try_wait(), Ok(None)),
                "no network namespace could be made (are you root?)"
            );
            fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"))
        });
        let id = holder.id();
        let target = if kinds.pid { only_child(id) } else { id };
        Self {
            holder: Some(holder),
            target,
            kinds,
        }
    }

    /// The network namespace of a process, which holds it.
    pub fn of(process: u32) -> Self {
        Self {
            holder: None,
            target: process,
            kinds: Kinds::default(),
        }
    }

    /// It is somebody else's, and what is in it, too.
    pub fn is_borrowed(&self) -> bool {
        self.holder.is_none()
    }

    /// The process whose namespaces these are, as this process sees it.
    pub fn id(&self) -> u32 {
        self.target
    }

    /// The start of a command line that runs inside: `nsenter … --`.
    pub fn enter(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = ["nsenter", "--target", &self.target.to_string(), "--net"]
            .map(OsString::from)
            .to_vec();
        if self.kinds.mount {
            line.push("--mount".into());
        }
        if self.kinds.pid {
            line.push("--pid".into());
        }
        if self.kinds.names {
            line.extend(["--ipc".into(), "--uts".into()]);
        }
        line.push("--".into());
        line
    }
}

fn only_child(parent: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.trim().parse().expect("unshare --fork has one child")
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}
