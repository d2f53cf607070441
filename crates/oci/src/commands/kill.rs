//! `kill`: a signal to the first process, or to all.

use std::os::fd::AsFd as _;

use ferry_runtime::namespace::CLONE_NEWPID;

use super::id;
use crate::command_line::Context;
use crate::error::{Error, Result, reason};
use crate::flags::Parsed;
use crate::state::Status;

pub(super) fn kill(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let (directory, record) = context.root.load(id(parsed))?;
    let text = parsed.positional.get(1).map_or("SIGTERM", String::as_str);
    let signal = signal(text).ok_or_else(|| Error::Invalid(format!("unknown signal {text:?}")))?;
    let all = parsed.is_set("all");
    let status = record.status(&directory);
    let own_pids = record.namespaces.create & CLONE_NEWPID != 0;
    let cgroup = record.cgroup()?;
    // Without a PID namespace of its own a container's processes outlive the first one.
    if all && signal == 0 {
        return Ok(0);
    }
    if all || (signal == libc::SIGKILL && !own_pids) {
        return match cgroup {
            Some(cgroup) => {
                cgroup.kill(signal)?;
                Ok(0)
            }
            None if all && status == Status::Stopped => Ok(0),
            None => Err(Error::State("container not running".to_owned())),
        };
    }
    let process = match status {
        Status::Stopped | Status::Creating => None,
        _ => record.process(),
    };
    let Some(process) = process else {
        return Err(Error::State("container not running".to_owned()));
    };
    ferry_sys::clone::signal_pidfd(process.as_fd(), signal)
        .map_err(|error| Error::State(format!("unable to signal init: {}", reason(&error))))?;
    // A paused process dies only when it goes on.
    if let (libc::SIGKILL, Status::Paused, Some(cgroup)) = (signal, status, cgroup) {
        cgroup.thaw()?;
    }
    Ok(0)
}

/// Signals by name, with or without `SIG`, in any case (signal(7)).
const NAMES: [(&str, i32); 35] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGPOLL),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("UNUSED", libc::SIGSYS),
];

fn signal(text: &str) -> Option<i32> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if let Ok(number) = digits.parse::<i32>() {
        return Some(number);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // Real-time signals as glibc numbers them: 32 and 33 are its own.
    let real_time = |rest: &str, base: i32, sign: i32| match rest {
        "" => Some(base),
        rest => {
            let offset: i32 = rest.get(1..)?.parse().ok()?;
            Some(base + sign * offset).filter(|number| (34..=64).contains(number))
        }
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, 34, 1);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, 64, -1);
    }
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn signals_are_read_as_runc_reads_them() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("-9", 9),
        ] {
            assert_eq!(signal(text), Some(number), "{text}");
        }
        for text in ["", "BOGUS", "SIGRTMIN+99", "9x"] {
            assert_eq!(signal(text), None, "{text}");
        }
    }
}
