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

/// Any number, 0 too, which is for asking alone; or a name.
fn signal(text: &str) -> Option<i32> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if let Ok(number) = digits.parse::<i32>() {
        return Some(number);
    }
    match text.to_uppercase().as_str() {
        "UNUSED" | "SIGUNUSED" => Some(libc::SIGSYS),
        _ => ferry_kit::signal::parse(text),
    }
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
