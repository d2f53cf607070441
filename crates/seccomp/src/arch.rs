//! Architectures: what the kernel calls them, how wide their arguments are, and their numbers.
//!
//! Another architecture is a column in `table`, a variant here, and nothing elsewhere.

use crate::table::{CALLS, NO};

/// A system call ABI. x86 and x32 are second ABIs of x86_64 kernels, arm of aarch64 ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    X86_64,
    X86,
    /// Shares its token with x86_64; its numbers have bit 30 set.
    X32,
    Aarch64,
    Arm,
}

/// `__X32_SYSCALL_BIT`
pub(crate) const X32_BIT: u32 = 1 << 30;

/// `socketcall`'s first argument (linux/net.h).
const SOCKETCALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
/// `ipc`'s first argument (linux/ipc.h).
const IPC: [(&str, u32); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

impl Arch {
    /// The architecture this program was built for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// The architecture this program was built for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;

    /// `None` for architectures without a table here: their calls never reach a kernel of one that has.
    pub fn from_oci(arch: oci_spec::runtime::Arch) -> Option<Self> {
        use oci_spec::runtime::Arch as Oci;
        Some(match arch {
            Oci::ScmpArchNative => Self::NATIVE,
            Oci::ScmpArchX86_64 => Self::X86_64,
            Oci::ScmpArchX86 => Self::X86,
            Oci::ScmpArchX32 => Self::X32,
            Oci::ScmpArchAarch64 => Self::Aarch64,
            Oci::ScmpArchArm => Self::Arm,
            _ => return None,
        })
    }

    pub(crate) fn to_oci(self) -> oci_spec::runtime::Arch {
        use oci_spec::runtime::Arch as Oci;
        match self {
            Self::X86_64 => Oci::ScmpArchX86_64,
            Self::X86 => Oci::ScmpArchX86,
            Self::X32 => Oci::ScmpArchX32,
            Self::Aarch64 => Oci::ScmpArchAarch64,
            Self::Arm => Oci::ScmpArchArm,
        }
    }

    /// The name in `includes.arches` of Docker's profiles: Go's, but for x86.
    pub(crate) fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// `AUDIT_ARCH_*` (linux/audit.h), which is `seccomp_data.arch`.
    pub(crate) fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments are compared as 64 bits. For x32 libseccomp compares 32.
    pub(crate) fn is_wide(self) -> bool {
        matches!(self, Self::X86_64 | Self::Aarch64)
    }

    /// The number of a system call, as it is in `seccomp_data.nr`.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let row = CALLS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
        let (_, [x86_64, x86, x32, aarch64, arm]) = CALLS.get(row)?;
        let number = match self {
            Self::X86_64 => *x86_64,
            Self::X86 => *x86,
            Self::X32 => *x32,
            Self::Aarch64 => *aarch64,
            Self::Arm => *arm,
        };
        let bit = if self == Self::X32 { X32_BIT } else { 0 };
        (number != NO).then_some(number | bit)
    }

    /// For calls that also go through a multiplexer: its number and its first argument.
    pub(crate) fn multiplexed(self, name: &str) -> Option<(u32, u32)> {
        if self != Self::X86 {
            return None;
        }
        let socket = SOCKETCALLS
            .iter()
            .zip(1..)
            .find(|(known, _)| **known == name)
            .map(|(_, sub)| ("socketcall", sub));
        let ipc = || {
            IPC.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, sub)| ("ipc", *sub))
        };
        let (multiplexer, sub) = socket.or_else(ipc)?;
        Some((self.number(multiplexer)?, sub))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_known_numbers_are_right() {
        assert!(CALLS.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(Arch::X86_64.number("read"), Some(0));
        assert_eq!(Arch::X86.number("socketcall"), Some(102));
        assert_eq!(Arch::X32.number("execve"), Some(520 | X32_BIT));
        assert_eq!(Arch::Aarch64.number("openat"), Some(56));
        assert_eq!(Arch::Arm.number("set_tls"), Some(0x0f_0005));
        assert_eq!(Arch::X86_64.number("uretprobe"), Some(335));
        assert_eq!(Arch::Aarch64.number("file_setattr"), Some(469));
        assert_eq!(Arch::X86_64.number("chown32"), None);
        assert_eq!(Arch::X86_64.number("no such call"), None);
    }

    #[test]
    fn multiplexers_are_x86_only() {
        assert_eq!(Arch::X86.multiplexed("accept4"), Some((102, 18)));
        assert_eq!(Arch::X86.multiplexed("shmctl"), Some((117, 24)));
        assert_eq!(Arch::X86.multiplexed("read"), None);
        assert_eq!(Arch::X86_64.multiplexed("accept4"), None);
    }
}
