//! Programs of the host's that a single-threaded process runs for itself: hooks, and the commands of other runtimes.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use ferry_sys::clone::{self, Exit, Options};
use ferry_sys::{Child, SingleThreaded, exec, packet};
use rustix::event::{PollFd, PollFlags, poll};

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Not looked for in `PATH`.
    pub path: &'a CStr,
    /// With the program's name first.
    pub args: &'a [CString],
    pub env: &'a [CString],
    /// Where it runs, if not where its caller is.
    pub directory: Option<&'a Path>,
}

/// Starts a program in a process group of its own, with every signal as it is by default and nothing open but `streams`.
/// Returns when it runs, or why it does not.
pub fn start(proof: &SingleThreaded, program: Program<'_>, streams: [BorrowedFd<'_>; 3]) -> io::Result<Child> {
    let (ours, theirs) = packet::pair()?;
    let Some(child) = clone::clone(proof, &Options::default())? else {
        let error = become_program(program, streams);
        let _ = packet::send(&theirs, &error.raw_os_error().unwrap_or(0).to_ne_bytes(), &[]);
        clone::exit_now(127);
    };
    drop(theirs);
    let mut code = [0; 4];
    if let Ok((4, _)) = packet::receive(&ours, &mut code) {
        child.wait(true)?;
        return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)));
    }
    Ok(child)
}

fn become_program(program: Program<'_>, streams: [BorrowedFd<'_>; 3]) -> io::Error {
    let prepare = || -> io::Result<()> {
        // A group of its own, to be killed as one.
        rustix::process::setpgid(None, None)?;
        if let Some(directory) = program.directory {
            rustix::process::chdir(directory)?;
        }
        for (target, stream) in (0..).zip(streams) {
            exec::place(stream, target)?;
        }
        exec::close_on_exec_from(3)?;
        exec::reset_signals()
    };
    match prepare() {
        Ok(()) => exec::execve(program.path, program.args, program.env),
        Err(error) => error,
    }
}

/// Waits for a program's end, for so long at most if there is a limit. `None`: it ran longer, and was killed with its group.
pub fn end(child: &Child, limit: Option<Duration>) -> io::Result<Option<Exit>> {
    if let Some(limit) = limit.and_then(|limit| limit.try_into().ok()) {
        let mut fds = [PollFd::from_borrowed_fd(child.pidfd.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&limit))? == 0 {
            kill(child)?;
            return Ok(None);
        }
    }
    child.wait(true)
}

/// Ends a program that nobody waits for any longer, with its process group.
pub fn kill(child: &Child) -> io::Result<()> {
    let _ = rustix::process::kill_process_group(child.pid, rustix::process::Signal::KILL);
    child.signal(libc::SIGKILL)?;
    child.wait(true).map(drop)
}
