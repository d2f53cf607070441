//! Becoming another program: `execve(2)`, and what has to be put right before it.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::SingleThreaded;

/// A null-terminated array of C strings, as `execve` wants its arguments and environment.
struct Pointers(Vec<*const libc::c_char>);

impl Pointers {
    fn new(strings: &[CString]) -> Self {
        Self(
            strings
                .iter()
                .map(|string| string.as_ptr())
                .chain([std::ptr::null()])
                .collect(),
        )
    }
}

/// Replaces this process by the program at `path`. Returns only on failure.
pub fn execve(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let (argv, env) = (Pointers::new(argv), Pointers::new(env));
    // SAFETY: `path` is null-terminated; both arrays are null-terminated and point to strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.0.as_ptr(), env.0.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces this process by the program behind a descriptor (`AT_EMPTY_PATH`). Returns only on failure.
pub fn fexecve(program: BorrowedFd<'_>, argv: &[CString], env: &[CString]) -> io::Error {
    let (argv, env) = (Pointers::new(argv), Pointers::new(env));
    // SAFETY: the descriptor is open, the path is the empty string that AT_EMPTY_PATH asks for, and both arrays are
    // null-terminated and point to strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.0.as_ptr(),
            env.0.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Marks every descriptor from `first` on as close-on-exec (`close_range(2)` with `CLOEXEC`, Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: only sets a flag on descriptors; none is closed here, so no owner is invalidated.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `from` on but `keep` (`close_range(2)`, Linux 5.9).
///
/// For a cloned child that holds copies of all its parent had open and ends in `execve` or [`exit_now`]: whoever owned
/// them is on stack frames that it never returns to. What it owns itself belongs in `keep`, or is dropped before.
///
/// [`exit_now`]: crate::clone::exit_now
pub fn close_all_but(_proof: &SingleThreaded, from: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = from;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: takes integers only. The descriptors it closes have no owner that still runs, as said above.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(fd.saturating_add(1));
    }
    Ok(())
}

/// Puts `fd` in the place of descriptor `target` (0, 1 or 2), without close-on-exec.
pub fn place(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // SAFETY: F_SETFD takes an integer and the descriptor is open.
        let result = unsafe { libc::fcntl(target, libc::F_SETFD, 0) };
        return if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        };
    }
    // SAFETY: both are plain numbers; replacing 0..=2 invalidates no `OwnedFd`, since std never owns those.
    let result = unsafe { libc::dup3(fd.as_raw_fd(), target, 0) };
    if result == target {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives every signal its default action and unblocks all: an `execve` keeps what is ignored or blocked.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        // SIGKILL, SIGSTOP and the two that libc keeps for itself refuse; they cannot be ignored either.
        // SAFETY: SIG_DFL is a valid disposition and runs no handler of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero sigset_t is the empty set on Linux; the old set is not asked for.
    let result = unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Lets the signals that end other processes end this one too: the first process of a PID namespace is spared those it
/// has no handler for. Undone by [`reset_signals`].
pub fn end_on_signals() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: _exit(2) is async-signal-safe and does not return.
        unsafe { libc::_exit(128 + signal) }
    }
    let handler: extern "C" fn(libc::c_int) = end;
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGABRT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTERM,
    ] {
        // SAFETY: the handler is a function of the right type that does nothing but end the process.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Ignores a signal (`SIGPIPE`, `SIGHUP`) in this process.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition and runs no handler of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Every signal blocked, to be waited for one at a time.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Blocks all signals for the calling thread, which is the only one.
    pub fn block_all() -> io::Result<Self> {
        let all = full_set();
        // SAFETY: `all` is an initialised set; the old one is not asked for.
        let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
        if result == 0 {
            Ok(Self(()))
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Waits for the next signal.
    pub fn wait(&self) -> i32 {
        let all = full_set();
        loop {
            // SAFETY: `all` is an initialised set; no information is asked for. It fails only with EINTR.
            let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
            if signal > 0 {
                return signal;
            }
        }
    }
}

fn full_set() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is a valid set; sigfillset only writes into it and cannot fail on a valid pointer.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        set
    }
}
