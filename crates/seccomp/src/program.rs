//! The result: instructions as the kernel takes them.

/// `struct sock_filter` (linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A filter and how it wants to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub filter: Vec<SockFilter>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2); with NEW_LISTENER the call gives the notification descriptor.
    pub flags: u32,
}

/// seccomp(2), linux/seccomp.h.
pub(crate) const FLAG_LOG: u32 = 1 << 1;
pub(crate) const FLAG_SPEC_ALLOW: u32 = 1 << 2;
pub(crate) const FLAG_NEW_LISTENER: u32 = 1 << 3;
pub(crate) const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

impl Program {
    /// The filter as an array of `struct sock_filter` in memory, 8 bytes each, native byte order.
    pub fn bytes(&self) -> Vec<u8> {
        let instruction = |i: &SockFilter| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        };
        self.filter.iter().flat_map(instruction).collect()
    }
}
