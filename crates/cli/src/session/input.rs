use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{event::PollFlags, io::Errno};
use tokio::io::{AsyncRead, Interest, ReadBuf, unix::AsyncFd};

use crate::ui;

/// Stdin, read without a thread and without making it non-blocking for whoever shares it.
#[derive(Debug)]
pub struct Input {
    fd: BorrowedFd<'static>,
    /// None for what epoll does not know: files and /dev/null, which never make anybody wait.
    waiter: Option<AsyncFd<BorrowedFd<'static>>>,
}

impl Input {
    #[expect(
        deprecated,
        reason = "a standard stream stays open as long as the process; its successor is unsafe"
    )]
    pub fn new(fd: BorrowedFd<'static>) -> Self {
        Self {
            fd,
            waiter: AsyncFd::with_interest(fd, Interest::READABLE).ok(),
        }
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if let Some(waiter) = &this.waiter {
                let mut guard = ready!(waiter.poll_read_ready(context))?;
                if !ui::ready(this.fd.as_fd(), PollFlags::IN)? {
                    guard.clear_ready();
                    continue;
                }
            }
            match rustix::io::read(this.fd, buffer.initialize_unfilled()) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
