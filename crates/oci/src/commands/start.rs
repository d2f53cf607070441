//! `start`: lets the first process go on.

use std::os::fd::{AsFd as _, OwnedFd};

use ferry_runtime::{Failure, Kind, gate, hooks};
use ferry_sys::SingleThreaded;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use serde_json::json;

use super::id;
use crate::command_line::Context;
use crate::console;
use crate::error::{During as _, Error, Result};
use crate::flags::Parsed;
use crate::state::{Directory, Record, Seccomp, Status};

pub(super) fn start(context: &mut Context<'_>, parsed: &Parsed) -> Result<u8> {
    let (directory, record) = context.root.load(id(parsed))?;
    match record.status(&directory) {
        Status::Created => {}
        Status::Stopped => return Err(Error::State("cannot start a container that has stopped".to_owned())),
        Status::Running => return Err(Error::State("cannot start an already running container".to_owned())),
        status => {
            let text = format!("cannot start a container in the {} state", status.name());
            return Err(Error::State(text));
        }
    }
    open_gate(context, &directory, &record)?;
    Ok(0)
}

/// Starts the program and runs the poststart hooks; when one of them fails the container is killed, as with runc.
pub(super) fn open_gate(context: &mut Context<'_>, directory: &Directory, record: &Record) -> Result<()> {
    let gone = || Error::State("cannot start a container that has stopped".to_owned());
    let pidfd = record.process().ok_or_else(gone)?;
    let what = || "reach the container's process";
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .during(what)?;
    let address = SocketAddrUnix::new(directory.socket()).during(what)?;
    rustix::net::connect(&socket, &address).map_err(|error| match error {
        rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOENT => {
            Error::State("cannot start an already running container".to_owned())
        }
        error => Error::Io {
            what: what().to_owned(),
            source: error.into(),
        },
    })?;
    let opened = gate::open(&socket).map_err(Error::Start);
    directory.forget_socket();
    opened?;
    if record.poststart.is_empty() {
        return Ok(());
    }
    let proof = SingleThreaded::check().during(|| "check the number of threads")?;
    let state = record.told(Status::Running).with_pid(record.pid);
    let env = context.c_environment()?;
    if let Err(failure) = hooks::run(&proof, "poststart", &record.poststart, &state, &env) {
        context.log.debug("a poststart hook failed: killing the container");
        let _ = ferry_sys::clone::signal_pidfd(pidfd.as_fd(), libc::SIGKILL);
        return Err(Error::Invalid(failure.message));
    }
    Ok(())
}

/// Gives the seccomp agent the descriptor for process `pid` of the container whose first process is `first`, with the
/// state (config-linux.md, "The Container Process State").
pub(super) fn hand_over(
    record: &Record,
    first: Pid,
    pid: Pid,
    listener: &OwnedFd,
    status: Status,
) -> std::result::Result<(), Failure> {
    let failed = |text: String| Failure::new(Kind::Setup, text);
    let Some(Seccomp {
        listener: Some(path),
        metadata,
        ..
    }) = &record.seccomp
    else {
        return Err(failed("the seccomp profile has no listener".to_owned()));
    };
    let state = record.told(status).with_pid(first.as_raw_pid());
    let state: serde_json::Value = serde_json::from_str(&state).unwrap_or_default();
    let message = json!({
        "ociVersion": record.oci_version,
        "fds": ["seccompFd"],
        "pid": pid.as_raw_pid(),
        "metadata": metadata,
        "state": state,
    });
    let socket = console::connect(path)
        .map_err(|error| failed(format!("failed to connect with seccomp agent: {}", error.text())))?;
    console::send_fd(&socket, message.to_string().as_bytes(), listener.as_fd())
        .map_err(|error| Failure::setup("send the seccomp listener", &error))
}
