//! An engine on demand: when nobody answers on the default socket, root's command line starts one that ends itself when idle;
//! one of another build is replaced. Containers do not notice: they live in their shims.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::build;

pub const SOCKET: &str = "/run/ferry/ferry.sock";
const DIRECTORY: &str = "/run/ferry";
const LOG: &str = "/run/ferry/daemon.log";
/// For a new engine to listen, and for an old one to end.
const START: Duration = Duration::from_secs(10);
const END: Duration = Duration::from_secs(20);
/// For an engine that hangs up to be gone, and how long to wait before it is asked again.
const ENDING: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(10);
/// For an engine to say which build it is.
const PING: Duration = Duration::from_secs(2);
/// More than the head of any ping's answer.
const HEAD_MAX: u64 = 8192;

/// Whether this command line speaks to the default socket, as root.
pub fn is_wanted(args: &[OsString], variables: &BTreeMap<String, String>) -> bool {
    let set = |name: &str| variables.get(name).is_some_and(|value| !value.is_empty());
    let elsewhere = ["DOCKER_HOST", "DOCKER_TLS", "DOCKER_TLS_VERIFY"].into_iter().any(set)
        || variables.get("DOCKER_CONTEXT").is_some_and(|name| name != "default");
    !elsewhere && rustix::process::geteuid().is_root() && asks_the_engine(args)
}

/// Whether there is a command, no host of the user's own, and no request for help. Without a full parse: what is taken for a
/// command too much only starts an engine that ends itself.
fn asks_the_engine(args: &[OsString]) -> bool {
    let mut words = args.iter().map(|word| word.to_str().unwrap_or_default());
    let command = loop {
        match words.next() {
            None => return false,
            Some("-D" | "--debug") => {}
            Some("-l" | "--log-level" | "--config") => drop(words.next()),
            Some(word) if word.starts_with("--log-level=") || word.starts_with("--config=") => {}
            // A host, TLS, a context, a version, help: nothing for the default engine.
            Some(word) if word.starts_with('-') => return false,
            Some(word) => break word,
        }
    };
    let help = words
        .take_while(|word| word.starts_with('-'))
        .any(|word| word == "--help");
    !help
        && !matches!(
            command,
            "help" | "completion" | "__complete" | "__completeNoDesc" | "context" | "daemon" | "man" | "manifest"
        )
}

/// Makes sure that an engine of this build, or one that somebody else takes care of, answers.
pub fn ensure() -> Result<()> {
    let ending = Instant::now() + ENDING;
    loop {
        match UnixStream::connect(SOCKET) {
            Ok(stream) => match probe(&stream) {
                Ok(head) if is_outdated(&head, &build::id()) => end(&stream)?,
                // An engine that ends, or was killed: its socket goes last.
                answer if hung_up(&answer) && Instant::now() < ending => {
                    std::thread::sleep(AGAIN);
                    continue;
                }
                // It answers, or is too busy to: the command will see.
                _ => return Ok(()),
            },
            // Somebody is behind it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {}
        }
        break;
    }
    let engine = start().context("cannot start the engine")?;
    wait(engine)?;
    let _ = writeln!(io::stderr(), "ferry: started the engine (it ends itself when idle)");
    Ok(())
}

fn hung_up(answer: &io::Result<String>) -> bool {
    match answer {
        Ok(head) => head.is_empty(),
        Err(error) => matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
    }
}

/// The head of the answer to a ping.
fn probe(mut stream: &UnixStream) -> io::Result<String> {
    stream.set_read_timeout(Some(PING))?;
    stream.set_write_timeout(Some(PING))?;
    stream.write_all(b"HEAD /_ping HTTP/1.1\r\nHost: ferry\r\nConnection: close\r\n\r\n")?;
    let mut head = Vec::new();
    stream.take(HEAD_MAX).read_to_end(&mut head)?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// An engine that was started on demand, by another build.
fn is_outdated(head: &str, build: &str) -> bool {
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    header(ferry_server::IDLE_EXIT_HEADER) == Some("true") && header(ferry_server::BUILD_HEADER) != Some(build)
}

/// Ends the engine at the other end and waits until it is gone.
fn end(stream: &UnixStream) -> Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(stream).context("ask who answers")?;
    let process = pidfd_open(peer.pid, PidfdFlags::empty()).context("find the engine of another build")?;
    pidfd_send_signal(&process, Signal::TERM).context("end the engine of another build")?;
    let limit = Timespec {
        tv_sec: END.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let gone = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).context("wait for the engine's end")?;
    if gone == 0 {
        bail!(
            "the engine of another build (process {}) does not end",
            peer.pid.as_raw_nonzero()
        );
    }
    Ok(())
}

fn start() -> Result<Child> {
    ferry_server::make_directory(Path::new(DIRECTORY))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(LOG)
        .context("open its log")?;
    let exe = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(exe);
    // It leaves the terminal's session itself, first thing. A copy of the binary that is called docker would take `daemon` for
    // a command of its command line, which starts an engine, and so on.
    command
        .arg0("ferry")
        .args(["daemon", "--idle-exit"])
        .current_dir("/")
        .stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Ok(command.spawn()?)
}

/// Waits until the socket answers. Another command may have started an engine at the same time: one of them is enough.
fn wait(mut engine: Child) -> Result<()> {
    let begun = Instant::now();
    let mut ended = None;
    while begun.elapsed() < START {
        if UnixStream::connect(SOCKET).is_ok() {
            return Ok(());
        }
        if ended.is_none()
            && let Some(status) = engine.try_wait()?
        {
            ended = Some((status, Instant::now()));
        }
        if let Some((status, at)) = ended
            && at.elapsed() > Duration::from_millis(500)
        {
            bail!("the engine did not start ({status}): {}", last_words());
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    bail!(
        "the engine does not answer after {} seconds: see {LOG}",
        START.as_secs()
    )
}

/// The last line of the engine's log.
fn last_words() -> String {
    let text = std::fs::read_to_string(LOG).unwrap_or_default();
    text.lines().last().map_or_else(|| format!("see {LOG}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_for_the_default_engine_start_one() {
        let asks = |line: &str| {
            let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            asks_the_engine(&args)
        };
        for line in [
            "ps",
            "run --rm x sh --help",
            "-D ps",
            "--log-level debug ps",
            "run -h name x",
            "--config=/x images",
        ] {
            assert!(asks(line), "{line}");
        }
        for line in [
            "",
            "--help",
            "--version",
            "-v",
            "run --help",
            "ps -a --help",
            "-H unix:///x ps",
            "--host=x ps",
            "-c y ps",
            "--tlsverify ps",
            "help run",
            "daemon --idle-exit",
            "manifest inspect x",
            "man man1",
            "completion bash",
            "__complete rm x",
            "context ls",
        ] {
            assert!(!asks(line), "{line}");
        }
    }

    #[test]
    fn only_an_engine_on_demand_of_another_build_is_outdated() {
        let head = |more: &str| format!("HTTP/1.1 200 OK\r\nServer: Ferry/0.1.0 (linux)\r\n{more}\r\n");
        assert!(is_outdated(
            &head("Ferry-Build: old\r\nFerry-Idle-Exit: true\r\n"),
            "new"
        ));
        assert!(is_outdated(&head("Ferry-Idle-Exit: true\r\n"), "new"));
        assert!(!is_outdated(
            &head("Ferry-Build: new\r\nFerry-Idle-Exit: true\r\n"),
            "new"
        ));
        assert!(!is_outdated(&head("Ferry-Build: old\r\n"), "new"));
        assert!(!is_outdated("", "new"));
    }
}
