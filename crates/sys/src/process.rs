//! What the kernel keeps with a process and rustix has no call for: scheduling, I/O priority, memory policy, personality,
//! keyring, the memory of children.

use std::io;

/// `struct sched_attr` of linux/sched/types.h, version 0 (48 bytes, Linux 3.14).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedulerAttributes {
    /// Filled in by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the calling thread's scheduling policy (sched_setattr(2)).
pub fn set_scheduler(attributes: SchedulerAttributes) -> io::Result<()> {
    let attributes = SchedulerAttributes {
        size: u32::try_from(size_of::<SchedulerAttributes>()).map_err(io::Error::other)?,
        ..attributes
    };
    // SAFETY: `attributes` has the size it states and is only read; 0 is the calling thread.
    result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Sets the calling thread's I/O priority (ioprio_set(2)): `class` 1 to 3, `priority` 0 to 7.
pub fn set_io_priority(class: u32, priority: u32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    // SAFETY: takes three integers and no pointer.
    result(unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            class << CLASS_SHIFT | priority,
        )
    })
}

/// Gives memory that was freed back to the kernel (malloc_trim(3)). Takes milliseconds where much was.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer, and the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sets the execution domain (personality(2)), `PER_LINUX` or `PER_LINUX32`.
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: takes an integer and no pointer.
    result(unsafe { libc::syscall(libc::SYS_personality, domain) })
}

/// Sets the calling thread's memory policy (set_mempolicy(2)): `MPOL_*` with its flags, and the nodes as a bit mask.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: `mask` is null, of which no bit is read, or points to `nodes`, which has the bits stated and is only read.
    result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// Replaces the calling thread's session keyring by a new, empty one without a name, which its children have too (keyctl(2)).
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name nothing is read.
    result(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) })
}

/// The most memory a child that was waited for, or one of its own that it waited for, has had resident, in bytes
/// (getrusage(2), `RUSAGE_CHILDREN`).
pub fn largest_child() -> io::Result<u64> {
    // SAFETY: an all-zero `rusage` is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in the struct, which lives through the call.
    result(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }.into())?;
    // Kibibytes on Linux.
    u64::try_from(usage.ru_maxrss)
        .map(|size| size * 1024)
        .map_err(io::Error::other)
}

fn result(value: libc::c_long) -> io::Result<()> {
    if value < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        let attributes = SchedulerAttributes {
            policy: 99,
            ..SchedulerAttributes::default()
        };
        assert_eq!(
            set_scheduler(attributes).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        assert_eq!(
            set_memory_policy(99, &[1]).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        assert_eq!(set_io_priority(7, 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_child_counts_once_it_was_waited_for() {
        std::process::Command::new("true").status().unwrap();
        assert!(largest_child().unwrap() > 100 << 10);
    }

    #[test]
    fn a_thread_can_be_scheduled_and_sorted() {
        std::thread::spawn(|| {
            let batch = SchedulerAttributes {
                policy: libc::SCHED_BATCH as u32,
                ..SchedulerAttributes::default()
            };
            set_scheduler(batch).unwrap();
            set_io_priority(2, 7).unwrap();
            set_personality(0).unwrap();
            // MPOL_BIND to node 0, and back.
            set_memory_policy(2, &[1]).unwrap();
            set_memory_policy(0, &[]).unwrap();
        })
        .join()
        .unwrap();
    }
}
