//! Device programs of cgroup v2: `bpf(2)` as far as `BPF_PROG_TYPE_CGROUP_DEVICE` needs it (Linux 4.15).
//!
//! A program is held by its descriptor and by each group it is attached to, and is gone when the last of them is: removing
//! a group needs no detaching. Programs are attached with `BPF_F_ALLOW_MULTI`, as runc and systemd do: every program of the
//! group and of the groups above it must allow an access. Loading takes `CAP_BPF`, or `CAP_SYS_ADMIN`, in the
//! initial user namespace, and attaching `CAP_NET_ADMIN` beside it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 1 << 1;
/// Linux 5.6
const F_REPLACE: u32 = 1 << 2;

/// As `bpftool` lists it; letters, digits, `_` and `.`.
const NAME: [u8; 16] = *b"ferry_devices\0\0\0";
const LOG: usize = 64 * 1024;
/// More than the kernel attaches to one group (`BPF_CGROUP_MAX_PROGS`).
const MOST: usize = 64;

/// Loads a program of `struct bpf_insn` in native byte order. A refusal carries the last lines of the verifier's log.
pub fn load_device_program(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    match load(instructions, &mut []) {
        Ok(program) => Ok(program),
        // The log slows a load down: it is written only to say why there was none.
        Err(error) => {
            let mut log = vec![0; LOG];
            match load(instructions, &mut log) {
                Ok(program) => Ok(program),
                Err(_) => Err(with_log(error, &log)),
            }
        }
    }
}

fn load(instructions: &[[u8; 8]], log: &mut [u8]) -> io::Result<OwnedFd> {
    let size = |length: usize| u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mut attr = LoadAttr {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: size(instructions.len())?,
        insns: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: size(log.len())?,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kern_version: 0,
        prog_flags: 0,
        prog_name: NAME,
    };
    // SAFETY: the pointers are to `insn_cnt` instructions, to a C string and to `log_size` writable bytes, all of which
    // outlive the call.
    let fd = unsafe { call(PROG_LOAD, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The ids of the device programs attached to the very group that `group`, its directory, is open on.
pub fn device_programs(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MOST];
    let mut attr = QueryAttr {
        target_fd: group.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MOST as u32,
        padding: 0,
    };
    // SAFETY: `prog_ids` is room for `prog_cnt` ids, and outlives the call.
    unsafe { call(PROG_QUERY, &mut attr) }?;
    let count = usize::try_from(attr.prog_cnt).map_err(io::Error::other)?;
    Ok(ids.get(..count).ok_or(io::ErrorKind::InvalidData)?.to_vec())
}

/// A loaded program by its id; `NotFound` when it is gone.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr {
        prog_id: id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: `attr` holds plain numbers.
    let fd = unsafe { call(PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a group, in the place of `instead_of` (at once: there is no moment without rules) or beside
/// what is attached already.
pub fn attach(group: BorrowedFd<'_>, program: BorrowedFd<'_>, instead_of: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: group.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if instead_of.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: instead_of.map_or(0, |old| old.as_raw_fd()),
    };
    // SAFETY: `attr` holds plain numbers.
    unsafe { call(PROG_ATTACH, &mut attr) }.map(drop)
}

/// Takes a device program off a group.
pub fn detach(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: group.as_raw_fd(),
        attach_bpf_fd: program.as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        attach_flags: 0,
        replace_bpf_fd: 0,
    };
    // SAFETY: `attr` holds plain numbers.
    unsafe { call(PROG_DETACH, &mut attr) }.map(drop)
}

/// `bpf(2)`; a signal may interrupt the verifier.
///
/// # Safety
///
/// `attr` is what `command` takes (a prefix of `union bpf_attr`; the kernel takes the rest as zeros), and its pointers
/// are valid for what the command reads and writes.
unsafe fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<RawFd> {
    loop {
        // SAFETY: `attr` is a live, exclusively borrowed value of the size passed beside it; the rest is the caller's word.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
        if result >= 0 {
            return RawFd::try_from(result).map_err(io::Error::other);
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Err(error);
        }
    }
}

/// The verifier says what is wrong in its last lines; without a word from it the error stays as it is.
fn with_log(error: io::Error, log: &[u8]) -> io::Error {
    let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(log.get(..length).unwrap_or_default());
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("processed ") && !line.is_empty())
        .collect();
    match lines.get(lines.len().saturating_sub(3)..) {
        None | Some([]) => error,
        Some(last) => io::Error::new(error.kind(), format!("{error}: {}", last.join("; "))),
    }
}

/// `union bpf_attr` of linux/bpf.h, for each command as far as it is used.
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct AttachAttr {
    target_fd: RawFd,
    attach_bpf_fd: RawFd,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: RawFd,
}

#[repr(C)]
struct QueryAttr {
    target_fd: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    /// The kernel wants no byte of the structure unset.
    padding: u32,
}

#[repr(C)]
struct IdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::path::PathBuf;

    use super::*;

    /// `r0 = answer; exit`
    fn always(answer: u8) -> [[u8; 8]; 2] {
        [[0xb4, 0, 0, 0, answer, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]]
    }

    /// A fresh group of cgroup v2, which needs no controllers; `None`, saying so, where there is no v2 or no root.
    struct Group(PathBuf);

    impl Group {
        fn new() -> Option<Self> {
            let mut roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].iter().map(PathBuf::from);
            let root = roots.find(|root| root.join("cgroup.controllers").exists());
            let Some(root) = root.filter(|_| rustix::process::geteuid().is_root()) else {
                println!("skipped: needs root and cgroup v2");
                return None;
            };
            let dir = root.join(format!("ferry-test-bpf-{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            Some(Self(dir))
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            std::fs::remove_dir(&self.0).unwrap();
        }
    }

    #[test]
    fn root_a_program_is_attached_replaced_and_detached() {
        let Some(group) = Group::new() else { return };
        let dir = std::fs::File::open(&group.0).unwrap();
        let [first, second] = [0, 1].map(|answer| load_device_program(&always(answer)).unwrap());
        assert_eq!(device_programs(dir.as_fd()).unwrap(), []);
        attach(dir.as_fd(), first.as_fd(), None).unwrap();
        let held = device_programs(dir.as_fd()).unwrap();
        assert_eq!(held.len(), 1);
        let old = program(held[0]).unwrap();
        attach(dir.as_fd(), second.as_fd(), Some(old.as_fd())).unwrap();
        let now = device_programs(dir.as_fd()).unwrap();
        assert_eq!(now.len(), 1);
        assert_ne!(now, held);
        detach(dir.as_fd(), second.as_fd()).unwrap();
        assert_eq!(device_programs(dir.as_fd()).unwrap(), []);
        assert_eq!(program(u32::MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn root_what_the_verifier_refuses_is_told_in_its_words() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // An exit without an answer in r0.
        let error = load_device_program(&[[0x95, 0, 0, 0, 0, 0, 0, 0]])
            .unwrap_err()
            .to_string();
        assert!(error.contains("R0 !read_ok"), "{error}");
    }
}
