//! Calling the runtime, with a time to do it in.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{During as _, Error, Result};
use crate::lab::Lab;

/// A command that takes longer is killed, and counts as one that hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a message.
const MOST: usize = 300;

/// How a command of the runtime ended. The container's output is among its own.
#[derive(Debug)]
pub(crate) struct Ended {
    /// 128 and the signal if one ended it.
    pub code: i32,
    pub stdout: String,
    stderr: String,
    pub time: Duration,
    /// It was killed after five seconds.
    pub hung: bool,
}

impl Ended {
    /// Whether the probe began in the container, and so the runtime has let it through.
    pub fn ran(&self) -> bool {
        self.stdout.contains(crate::probe::UP)
    }

    /// What the probe printed for a step.
    pub fn of(&self, step: &str) -> Option<&str> {
        self.stdout
            .lines()
            .find_map(|line| line.strip_prefix(step)?.strip_prefix(": "))
    }

    /// An error unless the probe ran.
    pub fn must(self) -> Result<Self> {
        if self.ran() {
            Ok(self)
        } else {
            Err(Error::NotRun { said: self.said() })
        }
    }

    /// The end of what the runtime said, on one line.
    pub fn said(&self) -> String {
        let text = self.stderr.trim();
        let text = if text.is_empty() { self.stdout.trim() } else { text };
        let line = text.lines().last().unwrap_or_default();
        let line: String = line.chars().take(MOST).collect();
        match (self.hung, line.is_empty()) {
            (true, _) => format!("nothing for {} s", PATIENCE.as_secs()),
            (false, true) => format!("exit status {}", self.code),
            (false, false) => line,
        }
    }
}

/// Runs a command of the runtime under attack.
pub(crate) fn runtime(lab: &Lab, args: &[&str]) -> Result<Ended> {
    // Some row may have made a runtime remove it.
    fs::create_dir_all(lab.state()).during(|| "make the state directory")?;
    run(lab, &runtime_line(lab, args))
}

/// A command line of the runtime, to be run by something else.
pub(crate) fn runtime_line<'a>(lab: &'a Lab, args: &'a [&'a str]) -> Vec<&'a OsStr> {
    let mut line: Vec<&OsStr> = lab.runtime.iter().map(AsRef::as_ref).collect();
    line.push("--root".as_ref());
    line.push(lab.state());
    line.extend(args.iter().map(OsStr::new));
    line
}

/// Runs a command in a process group of its own.
pub(crate) fn run(lab: &Lab, line: &[&OsStr]) -> Result<Ended> {
    let what = || "call the runtime";
    let Some((program, args)) = line.split_first() else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput)).during(what);
    };
    // Files and not pipes: the container holds on to them when the command is long gone.
    let file = |name: &str| -> Result<fs::File> {
        let path = lab.dir.join(lab.fresh(name));
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.during(what)?;
        let _ = fs::remove_file(path);
        Ok(file)
    };
    let (stdout, stderr) = (file("out")?, file("err")?);
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .current_dir(&lab.dir)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().during(what)?)
        .stderr(stderr.try_clone().during(what)?)
        .process_group(0)
        .spawn()
        .during(what)?;
    let hung = !ends_within(child.id(), PATIENCE)?;
    if hung && let Some(group) = pid(child.id()) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = child.kill();
    }
    let status = child.wait().during(what)?;
    Ok(Ended {
        code: status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        stdout: content(&stdout)?,
        stderr: content(&stderr)?,
        time: begun.elapsed(),
        hung,
    })
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

fn ends_within(number: u32, time: Duration) -> Result<bool> {
    let what = || "wait for the runtime";
    let Some(pid) = pid(number) else { return Ok(true) };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).during(what)?;
    let time = rustix::time::Timespec::try_from(time).unwrap_or_default();
    let mut ends = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    Ok(rustix::event::poll(&mut ends, Some(&time)).during(what)? > 0)
}

/// At most a mebibyte of what a command wrote.
fn content(file: &fs::File) -> Result<String> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; 1 << 20];
    let length = file.read_at(&mut bytes, 0).during(|| "read what the runtime said")?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
