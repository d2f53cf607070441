//! The second step of a start in two: the first process waits behind a socket, and another process opens it later.
//!
//! ```text
//! start (OCI "create")        first process                         open (OCI "start")
//!   clone ────────────────▶ mounts, identity …
//!   returns  ◀──── ready ── accept ◀───────────────────────────── connect
//!                           "accepted" ──────────────────────────▶ send a byte
//!                           hooks, execve (closes it) ──▶ end of file: it runs; or the reason why not
//! ```
//! A socket and not a FIFO: whoever starts learns whether the program runs, and a first process that is gone refuses the
//! connection. What connects and says nothing starts nothing.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use ferry_sys::packet;
use rustix::net::SocketFlags;

use crate::failure::{During as _, Failure, Kind};
use crate::start::{Answers, outcome};

const ACCEPTED: u8 = b'a';
const GO: u8 = b's';

/// In the first process: waits until it is asked to go on.
pub(crate) fn wait(listener: &OwnedFd) -> Result<OwnedFd, Failure> {
    loop {
        let connection = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
            done => done.during(|| "wait to be started")?,
        };
        let mut byte = [0; 1];
        if packet::send(&connection, &[ACCEPTED], &[]).is_ok()
            && matches!(packet::receive(&connection, &mut byte), Ok((1, _)) if byte == [GO])
        {
            return Ok(connection);
        }
    }
}

/// Lets the first process behind `connection`, a socket connected to its listener, go on. Returns when its program runs.
pub fn open(connection: &OwnedFd) -> Result<(), Failure> {
    let gone = || Failure::new(Kind::Setup, "the container's process is gone, or was started already");
    let mut byte = [0; 1];
    match packet::receive(connection, &mut byte) {
        Ok((1, _)) if byte == [ACCEPTED] => {}
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => {
            return Err(Failure::setup("hear from the container's process", &error));
        }
        _ => return Err(gone()),
    }
    packet::send(connection, &[GO], &[]).map_err(|_| gone())?;
    outcome(connection.as_fd(), Answers::default()).map(drop)
}
