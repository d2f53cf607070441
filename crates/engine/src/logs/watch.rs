//! Waiting for a log to grow: inotify (inotify(7)) on the directory it is in, since the file gives its name away when it is
//! rotated.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What happens in a directory from its creation on.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Fails when the directory is not there, or when the user has no more inotify instances.
    #[expect(
        deprecated,
        reason = "the descriptor is its own and stays open; its successor is unsafe"
    )]
    pub fn of(dir: &Path) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        add_watch(&inotify, dir, flags)?;
        Ok(Self(AsyncFd::with_interest(inotify, Interest::READABLE)?))
    }

    /// Waits until something has happened that no earlier call has told. Cancel-safe.
    pub async fn changed(&self) {
        // Only an executor that is being shut down fails here.
        let Ok(mut ready) = self.0.readable().await else { return };
        // What it was does not matter, that it is taken does: the kernel puts equal events in a row into one.
        let mut events = [0u8; 4096];
        while let Ok(Ok(1..)) = ready.try_io(|inotify| Ok(rustix::io::read(inotify, &mut events[..])?)) {}
    }
}
