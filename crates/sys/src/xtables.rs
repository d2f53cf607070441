//! The tables of the kernel's old packet filter, as `iptables-legacy` and `ip6tables-legacy` show them.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, and the same of `IP6T`.
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
/// `struct ipt_get_entries` before its entries.
const HEAD: usize = 40;
const NAME: usize = 32;
/// The largest table that is looked at.
const MOST: usize = 64 << 20;

/// `struct ipt_getinfo`.
#[repr(C)]
struct Info {
    name: [u8; NAME],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// One table's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// By hook: where in `entries` its chain begins, and where that chain's policy is, its last entry.
    pub begin: [u32; 5],
    pub policy: [u32; 5],
    /// `struct ipt_entry` or `struct ip6t_entry`, one after another.
    pub entries: Vec<u8>,
}

/// The table of the calling thread's network namespace. Makes it there if there is none: see `ip_tables_names` first.
///
/// # Errors
///
/// `WouldBlock` when somebody changed it meanwhile.
pub fn table(v6: bool, name: &str) -> io::Result<Table> {
    let (family, level) = match v6 {
        true => (AddressFamily::INET6, libc::IPPROTO_IPV6),
        false => (AddressFamily::INET, libc::IPPROTO_IP),
    };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut called = [0; NAME];
    // The last byte stays 0.
    let space = called.get_mut(..NAME - 1).and_then(|space| space.get_mut(..name.len()));
    space
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(name.as_bytes());
    let mut info = Info {
        name: called,
        valid_hooks: 0,
        hook_entry: [0; 5],
        underflow: [0; 5],
        num_entries: 0,
        size: 0,
    };
    // SAFETY: `info` is plain data of that size which lives during the call, and any bytes are valid for it.
    unsafe { ask(&socket, level, GET_INFO, (&raw mut info).cast(), size_of::<Info>()) }?;
    let size = info.size as usize;
    if size > MOST {
        return Err(io::Error::other("the table is larger than 64 MiB"));
    }
    let mut answer = vec![0; HEAD + size];
    for (place, byte) in answer.iter_mut().zip(called.iter().chain(&info.size.to_ne_bytes())) {
        *place = *byte;
    }
    // SAFETY: `answer` lives during the call and has that size; any bytes are valid for it.
    let asked = unsafe { ask(&socket, level, GET_ENTRIES, answer.as_mut_ptr().cast(), answer.len()) };
    match asked {
        // It has another size now.
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
        asked => asked?,
    }
    Ok(Table {
        begin: info.hook_entry,
        policy: info.underflow,
        entries: answer.split_off(HEAD),
    })
}

/// # Safety
///
/// `value` points to `length` bytes that may be written, whatever is written.
unsafe fn ask(socket: impl AsFd, level: c_int, option: c_int, value: *mut c_void, length: usize) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the caller's promise; `length` is an int of its own.
    let done = unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, option, value, &raw mut length) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
