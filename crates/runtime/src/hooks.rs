//! Hooks (config.md, "POSIX-platform Hooks"): programs that are told about a container at set points of its life.
//!
//! A hook gets the container's state on its standard input and has its output kept for the error message. It is waited
//! for as long as its time-out allows, by its own end and not by that of its streams: a hook that leaves a process behind
//! delays nobody. One that runs too long is killed with its process group.

use std::ffi::CString;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ferry_sys::clone::Exit;
use ferry_sys::{Child, SingleThreaded};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::errand::{self, Program};
use crate::failure::{During as _, Failure, Kind, reason};
use crate::identity::c_string;

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the program's name first; empty: only the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// None: the environment of whoever runs it, as with runc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// The container's state as JSON, but for the pid, which differs with who asks: the text before and after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub before: String,
    pub after: String,
}

impl State {
    pub fn with_pid(&self, pid: i32) -> String {
        format!("{}{pid}{}", self.before, self.after)
    }
}

/// The most of a hook's output that is kept.
const OUTPUT: u64 = 64 * 1024;

/// Runs `hooks` one after the other; the first that fails ends it. `kind` is their name in the specification, `env` the
/// environment of those that have none of their own.
pub fn run(proof: &SingleThreaded, kind: &str, hooks: &[Hook], state: &str, env: &[CString]) -> Result<(), Failure> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(proof, hook, state, env).map_err(|failure| {
            let message = failure.message;
            Failure::new(Kind::Setup, format!("error running {kind} hook #{index}: {message}"))
        })?;
    }
    Ok(())
}

fn run_one(proof: &SingleThreaded, hook: &Hook, state: &str, env: &[CString]) -> Result<(), Failure> {
    let what = || "prepare the hook";
    let path = CString::new(hook.path.as_os_str().as_bytes())
        .map_err(|_| Failure::new(Kind::Setup, "the path has a null byte in it"))?;
    let strings = |texts: &[String]| texts.iter().map(|text| c_string(text)).collect::<Result<Vec<_>, _>>();
    let args = match hook.args.as_slice() {
        [] => vec![path.clone()],
        args => strings(args)?,
    };
    let own = hook.env.as_ref().map(|env| strings(env)).transpose()?;
    let env = own.as_deref().unwrap_or(env);
    // Files, not pipes: nobody has to read while the hook writes, and what it leaves behind holds nothing open.
    let mut input = memory("hook state").during(what)?;
    input
        .write_all(state.as_bytes())
        .and_then(|()| input.rewind())
        .during(what)?;
    let mut output = memory("hook stdout").during(what)?;
    let mut errors = memory("hook stderr").during(what)?;
    let program = Program {
        path: &path,
        args: &args,
        env,
        directory: None,
    };
    let child = errand::start(proof, program, [input.as_fd(), output.as_fd(), errors.as_fd()]).map_err(|error| {
        let text = format!("fork/exec {}: {}", hook.path.display(), reason(&error));
        Failure::new(Kind::Setup, text)
    })?;
    let exit = wait(&child, hook.timeout)?;
    let status = match exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(code) => format!("exit status {code}"),
        Exit::Signal(signal) => format!("signal: {}", signal_name(signal)),
    };
    let (stdout, stderr) = (text(&mut output), text(&mut errors));
    Err(Failure::new(
        Kind::Setup,
        format!("{status}, stdout: {stdout}, stderr: {stderr}"),
    ))
}

fn wait(child: &Child, timeout: Option<i64>) -> Result<Exit, Failure> {
    let seconds = timeout.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    let limit = (seconds > 0).then(|| Duration::from_secs(seconds));
    let exit = errand::end(child, limit).during(|| "wait for the hook")?;
    exit.ok_or_else(|| {
        let text = format!("hook ran past specified timeout of {seconds}.0s");
        Failure::new(Kind::Setup, text)
    })
}

/// As Go prints signals, which is what users know from runc.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        libc::SIGXCPU => "CPU time limit exceeded",
        libc::SIGXFSZ => "file size limit exceeded",
        libc::SIGSYS => "bad system call",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

fn memory(name: &str) -> Result<std::fs::File, rustix::io::Errno> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

fn text(file: &mut std::fs::File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is only missing from a message.
    let _ = file.rewind().and_then(|()| file.take(OUTPUT).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
