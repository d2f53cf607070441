//! The sysctls below /proc/sys/net, of the network namespace the calling thread is in.
//!
//! Keys are paths below /proc/sys/net (`ipv4/ip_forward`): a dotted name is ambiguous, links have dots in theirs.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::{Error, Result};

/// The longest value read; those Ferry reads are numbers.
const LONGEST: u64 = 256;

/// /proc/sys/net. The kernel resolves each name below it for the namespace of the thread that asks.
#[derive(Debug)]
pub struct Sysctls {
    directory: OwnedFd,
}

impl Sysctls {
    pub fn open() -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open("/proc/sys/net", flags, Mode::empty()).map_err(|errno| Error::Sysctl {
            operation: "open",
            key: "/proc/sys/net".to_owned(),
            source: errno.into(),
        })?;
        Ok(Self { directory })
    }

    /// The value without its newline; `None` where the kernel has no such sysctl (no IPv6, no such link).
    pub fn read(&self, key: &str) -> Result<Option<String>> {
        let read = || -> io::Result<String> {
            let file = rustix::fs::openat(&self.directory, key, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let mut text = String::new();
            std::fs::File::from(file).take(LONGEST).read_to_string(&mut text)?;
            Ok(text.trim_end().to_owned())
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Sysctl {
                operation: "read",
                key: format!("net.{}", key.replace('/', ".")),
                source,
            }),
        }
    }

    /// Writes the value. False where the kernel has no such sysctl.
    pub fn write(&self, key: &str, value: &str) -> Result<bool> {
        let write = || -> io::Result<()> {
            let file = rustix::fs::openat(&self.directory, key, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            std::fs::File::from(file).write_all(value.as_bytes())
        };
        match write() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Sysctl {
                operation: "write",
                key: format!("net.{}", key.replace('/', ".")),
                source,
            }),
        }
    }
}
