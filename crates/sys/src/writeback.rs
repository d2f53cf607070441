//! Writing to disk while there is more to come.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Bytes that are written to a file before their way to the disk begins.
const EVERY: u64 = 8 << 20;

/// Starts the writing of what a file has got, now and then, so that little is left when it has to be on disk. It waits for
/// nothing (unless the disk's queue is full) and promises nothing: who wants durability syncs.
#[derive(Debug, Default)]
pub struct Writeback {
    waiting: u64,
}

impl Writeback {
    /// So many bytes more are in the file. A file system that does not know how is no error.
    pub fn wrote(&mut self, file: impl AsFd, count: u64) {
        self.waiting = self.waiting.saturating_add(count);
        if self.waiting >= EVERY {
            self.waiting = 0;
            let _ = start(file);
        }
    }
}

/// sync_file_range(2) of the whole file, with `SYNC_FILE_RANGE_WRITE` alone.
fn start(file: impl AsFd) -> io::Result<()> {
    // SAFETY: takes numbers and no pointer.
    let result = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
