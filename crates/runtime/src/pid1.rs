//! `--init`: a container's PID 1 that starts the program, passes signals on to it, and reaps what it leaves behind.
//!
//! It is Ferry's own binary, started by descriptor instead of the program, so nothing has to be in the image.

use std::io::{IsTerminal as _, Write as _};

use ferry_sys::SingleThreaded;
use ferry_sys::clone::{self, Options};
use ferry_sys::exec::{self, Signals};
use rustix::process::{Pid, WaitOptions};

use crate::identity;
use crate::program;

/// Runs `args` as a child to its end; the exit code is the child's.
pub fn run(args: &[String], env: &[String]) -> i32 {
    match supervise(args, env) {
        Ok(code) => code,
        Err(message) => {
            // The container's own standard error: it is where its user looks.
            let _ = writeln!(std::io::stderr(), "docker-init: {message}");
            127
        }
    }
}

fn supervise(args: &[String], env: &[String]) -> Result<i32, String> {
    let name = args.first().ok_or("no command specified")?;
    let proof = SingleThreaded::check().map_err(|error| error.to_string())?;
    let path = program::find(name, env).map_err(|failure| failure.message)?;
    let strings = |texts: &[String]| {
        texts
            .iter()
            .map(|text| identity::c_string(text))
            .collect::<Result<Vec<_>, _>>()
    };
    let argv = strings(args).map_err(|failure| failure.message)?;
    let envp = strings(env).map_err(|failure| failure.message)?;
    let signals = Signals::block_all().map_err(|error| error.to_string())?;
    let Some(child) = clone::clone(&proof, &Options::default()).map_err(|error| error.to_string())? else {
        // The program leads a group of its own and has the terminal, so that a shell's job control works.
        let _ = rustix::process::setpgid(None, None);
        if std::io::stdin().is_terminal() {
            let _ = rustix::termios::tcsetpgrp(std::io::stdin(), rustix::process::getpid());
        }
        let _ = exec::reset_signals();
        let error = exec::execve(&path, &argv, &envp);
        let _ = writeln!(
            std::io::stderr(),
            "docker-init: {}",
            program::refusal(&path, &error).message
        );
        clone::exit_now(if error.raw_os_error() == Some(libc::ENOENT) {
            127
        } else {
            126
        });
    };
    loop {
        if let Some(code) = reap(child.pid) {
            return Ok(code);
        }
        match signals.wait() {
            libc::SIGCHLD => {}
            signal => drop(child.signal(signal)),
        }
    }
}

/// Reaps whatever has ended; the code if the program is among it.
fn reap(program: Pid) -> Option<i32> {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == program {
            return Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => 255,
            });
        }
    }
    None
}
