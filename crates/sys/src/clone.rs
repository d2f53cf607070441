//! Making processes in new namespaces: `clone3(2)` with a pidfd, without a stack of its own (that is, like `fork`).
//!
//! Only a single-threaded process may do this and then run arbitrary code in the child: in a threaded one the child
//! would inherit locks whose owners do not exist. [`SingleThreaded`] is the proof, checked once.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus};

/// Proof that this process has one thread. Neither `Send` nor `Sync`, so it stays on that thread.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Checks (`/proc/self/task` has a single entry). The caller's promise: it starts no thread afterwards.
    pub fn check() -> io::Result<Self> {
        let tasks = rustix::fs::stat("/proc/self/task")?.st_nlink;
        if tasks != 3 {
            return Err(io::Error::other(format!(
                "this process has {} threads, not one",
                tasks.saturating_sub(2)
            )));
        }
        Ok(Self(PhantomData))
    }

    /// For tests, whose children run a few system calls and exit: what they inherit of other threads is never used.
    #[cfg(test)]
    pub(crate) fn assume() -> Self {
        Self(PhantomData)
    }
}

/// What the child is created in.
#[derive(Debug, Default, Clone, Copy)]
pub struct Options<'a> {
    /// `CLONE_NEW*` flags.
    pub namespaces: u64,
    /// A cgroup v2 directory the child is born in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The parent is this process's own parent (`CLONE_PARENT`).
    pub sibling: bool,
}

/// A child process, held by pidfd: the number can never come to mean another process.
#[derive(Debug)]
pub struct Child {
    /// As seen from the caller's PID namespace.
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As a shell and Docker report it: the code, or 128 plus the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl Child {
    /// Waits for the child's end and reaps it; at once (`None`) if it still runs and `block` is false.
    pub fn wait(&self, block: bool) -> io::Result<Option<Exit>> {
        let options = if block {
            WaitIdOptions::EXITED
        } else {
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG
        };
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(status) => return Ok(status.as_ref().map(exit_of)),
            }
        }
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        signal_pidfd(self.pidfd.as_fd(), signal)
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(0),
    }
}

/// Sends a signal through a pidfd; `pidfd_send_signal(2)` takes any number, real-time ones included.
pub fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call and the null `siginfo` means "as kill(2) would".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// `None` in the child, the child's handle in the parent.
pub fn clone(_proof: &SingleThreaded, options: &Options<'_>) -> io::Result<Option<Child>> {
    let mut pidfd: libc::c_int = -1;
    let mut flags = libc::CLONE_PIDFD as u64 | options.namespaces;
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    let mut exit_signal = libc::SIGCHLD as u64;
    if options.sibling {
        flags |= libc::CLONE_PARENT as u64;
        exit_signal = 0;
    }
    let args = CloneArgs {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal,
        cgroup: options.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM and with a null stack the child gets a copy of this address space and goes on on its own
    // copy of the stack, as after fork(2); `_proof` says that no other thread's locks are copied with it. `args` and
    // `pidfd` live through the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    let pid = match pid {
        // A filter like Docker's default one hides clone3, so that callers fall back to this.
        -1 if last_errno() == libc::ENOSYS && options.cgroup.is_none() => {
            let flags = args.flags | args.exit_signal;
            // SAFETY: as above: no CLONE_VM, and a null stack; the parent-tid argument receives the pidfd.
            unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) }
        }
        pid => pid,
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or_else(|| io::Error::other("clone3: pid"))?;
            // SAFETY: clone3 succeeded with CLONE_PIDFD, so it stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Child { pid, pidfd }))
        }
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Ends this process at once, running no destructor: the only way out for a cloned child whose `execve` failed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}
