//! The container's pseudo-terminal, from its own devpts instance.
//!
//! The slave is opened through the master (`TIOCGPTPEER`), never by a path that somebody in the container could have
//! replaced (CVE-2025-52565).

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize};

use ferry_sys::Root;

/// A master and its slave.
pub(crate) struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Makes a terminal of the devpts that is mounted at `/dev/pts` below `root`; a `plain` one makes no carriage returns.
pub(crate) fn open(root: &Root, size: Option<(u16, u16)>, plain: bool) -> io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root.resolve_no_links("dev/pts/ptmx", flags)?;
    let stat = rustix::fs::fstatfs(&master)?;
    if stat.f_type != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other("/dev/pts in the container is not a devpts"));
    }
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if let Some((rows, columns)) = size {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&slave, size)?;
    }
    if plain {
        let mut modes = rustix::termios::tcgetattr(&slave)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes)?;
    }
    Ok(Terminal { master, slave })
}

/// linux/magic.h
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
