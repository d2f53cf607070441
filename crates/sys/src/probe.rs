//! System calls that a container's filter has to refuse, made to see whether it does.
//!
//! Safe to call, because the table is fixed: every argument is a number or null, and no call
//! in it can succeed in a way that touches this process's memory. What succeeds at most makes a descriptor that nobody
//! uses, or moves the caller to another namespace: the caller makes each call in a child of its own.

use std::io;

/// How a call gets into the kernel. A filter sees the architecture with the number, and has to know every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Native,
    /// x86_64's second set of numbers.
    #[cfg(target_arch = "x86_64")]
    X32,
    /// The 32-bit entry that every x86_64 process can use too.
    #[cfg(target_arch = "x86_64")]
    I386,
}

/// One call of the table.
#[derive(Debug)]
pub struct Call {
    pub name: &'static str,
    entry: Entry,
    number: libc::c_long,
    args: [i64; 5],
}

const AF_ALG: i64 = 38;
const AF_VSOCK: i64 = 40;
const SOCK_STREAM: i64 = 1;
const SOCK_SEQPACKET: i64 = 5;
const NEW_USER: i64 = 0x1000_0000;

const fn native(name: &'static str, number: libc::c_long, args: [i64; 5]) -> Call {
    Call {
        name,
        entry: Entry::Native,
        number,
        args,
    }
}

/// Everything that is tried. Not `socketcall`, the 32-bit entry to sockets: its arguments are behind a pointer, where no filter
/// sees them, so Docker's profile leaves it open.
pub const CALLS: &[Call] = &[
    native("socket(AF_ALG)", libc::SYS_socket, [AF_ALG, SOCK_SEQPACKET, 0, 0, 0]),
    native("socket(AF_VSOCK)", libc::SYS_socket, [AF_VSOCK, SOCK_STREAM, 0, 0, 0]),
    native("unshare(CLONE_NEWUSER)", libc::SYS_unshare, [NEW_USER, 0, 0, 0, 0]),
    native("clone3", libc::SYS_clone3, [0; 5]),
    native("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
    native("mount", libc::SYS_mount, [0; 5]),
    native("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0]),
    native("add_key", libc::SYS_add_key, [0, 0, 0, 0, -3]),
    native("request_key", libc::SYS_request_key, [0; 5]),
    native("bpf", libc::SYS_bpf, [0; 5]),
    native("io_uring_setup", libc::SYS_io_uring_setup, [0; 5]),
    native("userfaultfd", libc::SYS_userfaultfd, [-1, 0, 0, 0, 0]),
    native("perf_event_open", libc::SYS_perf_event_open, [0, 0, -1, -1, 0]),
    native("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
    native("kexec_load", libc::SYS_kexec_load, [0, 0, 0, -1, 0]),
    native("init_module", libc::SYS_init_module, [0; 5]),
    #[cfg(target_arch = "x86_64")]
    other("x32 unshare(CLONE_NEWUSER)", Entry::X32, 272, [NEW_USER, 0, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    other("x32 keyctl", Entry::X32, 250, [0, -3, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    other("x32 bpf", Entry::X32, 321, [0; 5]),
    #[cfg(target_arch = "x86_64")]
    other("x32 socket(AF_ALG)", Entry::X32, 41, [AF_ALG, SOCK_SEQPACKET, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    other("int80 unshare(CLONE_NEWUSER)", Entry::I386, 310, [NEW_USER, 0, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    other("int80 keyctl", Entry::I386, 288, [0, -3, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    other("int80 bpf", Entry::I386, 357, [0; 5]),
    #[cfg(target_arch = "x86_64")]
    other("int80 io_uring_setup", Entry::I386, 425, [0; 5]),
    #[cfg(target_arch = "x86_64")]
    other("int80 userfaultfd", Entry::I386, 374, [-1, 0, 0, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    other(
        "int80 socket(AF_VSOCK)",
        Entry::I386,
        359,
        [AF_VSOCK, SOCK_STREAM, 0, 0, 0],
    ),
    #[cfg(target_arch = "x86_64")]
    other(
        "int80 socket(AF_ALG)",
        Entry::I386,
        359,
        [AF_ALG, SOCK_SEQPACKET, 0, 0, 0],
    ),
];

#[cfg(target_arch = "x86_64")]
const fn other(name: &'static str, entry: Entry, number: libc::c_long, args: [i64; 5]) -> Call {
    Call {
        name,
        entry,
        number,
        args,
    }
}

/// Makes the call. `Ok`: it got through the filter and the kernel did it.
///
/// Where the kernel has no 32-bit entry the caller is killed by SIGSEGV, and where a filter says so by SIGSYS.
pub fn attempt(call: &Call) -> io::Result<()> {
    let [a, b, c, d, e] = call.args;
    let native = |number: libc::c_long| {
        // SAFETY: `call` is from `CALLS`, nothing else can make one: its arguments are numbers and null pointers, and none
        // of these calls writes to the memory of the caller without a pointer.
        match unsafe { libc::syscall(number, a, b, c, d, e) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    match call.entry {
        Entry::Native => native(call.number),
        #[cfg(target_arch = "x86_64")]
        Entry::X32 => native(call.number | 0x4000_0000),
        #[cfg(target_arch = "x86_64")]
        Entry::I386 => i386::call(call.number, [a, b, c]),
    }
}

#[cfg(target_arch = "x86_64")]
mod i386 {
    use std::io;

    /// The kernel reads the lower halves only.
    pub fn call(number: libc::c_long, [a, b, c]: [i64; 3]) -> io::Result<()> {
        let result: i64;
        // SAFETY: only calls of the table come here; their arguments are numbers and null pointers. `int 0x80` preserves every register but rax and, on old kernels, r8 to r11. rbx, which LLVM keeps for
        // itself, is put back.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {a}",
                "int 0x80",
                "xchg rbx, {a}",
                a = inout(reg) a => _,
                inlateout("rax") number => result,
                in("rcx") b,
                in("rdx") c,
                in("rsi") 0i64,
                in("rdi") 0i64,
                lateout("r8") _,
                lateout("r9") _,
                lateout("r10") _,
                lateout("r11") _,
            );
        }
        // The kernel answers in 32 bits.
        let errno = -(result as i32);
        if (1..4096).contains(&errno) {
            Err(io::Error::from_raw_os_error(errno))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::clone::{Exit, Options, SingleThreaded, clone, exit_now};

    #[test]
    fn every_call_comes_back_or_kills_its_child_only() {
        for call in super::CALLS {
            match clone(&SingleThreaded::assume(), &Options::default()).unwrap() {
                None => exit_now(super::attempt(call).err().and_then(|e| e.raw_os_error()).unwrap_or(0)),
                Some(child) => {
                    let exit = child.wait(true).unwrap().unwrap();
                    let odd = matches!(exit, Exit::Signal(signal) if signal != libc::SIGSYS && signal != libc::SIGSEGV);
                    assert!(!odd, "{}: {exit:?}", call.name);
                    if call.name.ends_with("socket(AF_VSOCK)") {
                        assert_ne!(exit, Exit::Code(libc::ENOSYS), "{}: {exit:?}", call.name);
                    }
                }
            }
        }
    }
}
