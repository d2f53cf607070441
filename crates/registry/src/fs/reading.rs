//! Blobs on their way out: large reads into buffers that are used again.
//!
//! What the page cache has is read on the spot (`RWF_NOWAIT`, preadv2(2)), which costs a copy and no thread; what it has not is
//! read on a blocking thread.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

/// What is read at once. Larger ones fall out of the processor's cache before they are written to the socket.
const BUFFER: usize = 256 << 10;
/// Buffers that wait to be used again, 8 MiB.
const SPARE: usize = 32;

/// Buffers that come back when what was read into them has been sent.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Vec<u8>>>);

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    fn take(self: &Arc<Self>) -> Lease {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Lease {
            buffer: spare.unwrap_or_else(|| vec![0; BUFFER]),
            used: 0,
            pool: self.clone(),
        }
    }
}

struct Lease {
    buffer: Vec<u8>,
    used: usize,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut spare = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// Part of a file. It ends with an error when the file is shorter.
pub struct Reading {
    file: Arc<File>,
    at: u64,
    end: u64,
    pool: Arc<Pool>,
    waiting: Option<JoinHandle<io::Result<Lease>>>,
}

impl Reading {
    pub fn new(file: File, from: u64, to: u64, pool: Arc<Pool>) -> Self {
        Self {
            file: Arc::new(file),
            at: from,
            end: to,
            pool,
            waiting: None,
        }
    }

    fn passed(&mut self, lease: Lease) -> io::Result<Bytes> {
        if lease.used == 0 {
            self.at = self.end;
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the blob's file is shorter than the blob",
            ));
        }
        self.at += u64::try_from(lease.used).unwrap_or(u64::MAX);
        Ok(Bytes::from_owner(lease))
    }
}

impl Stream for Reading {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(waiting) = &mut this.waiting {
            let read = ready!(Pin::new(waiting).poll(cx));
            this.waiting = None;
            let passed = read
                .map_err(io::Error::other)
                .flatten()
                .and_then(|lease| this.passed(lease));
            return Poll::Ready(Some(passed));
        }
        if this.at >= this.end {
            return Poll::Ready(None);
        }
        let mut lease = this.pool.take();
        let want = usize::try_from(this.end - this.at).unwrap_or(BUFFER).min(BUFFER);
        let mut slices = [IoSliceMut::new(&mut lease.buffer[..want])];
        match rustix::io::preadv2(&*this.file, &mut slices, this.at, ReadWriteFlags::NOWAIT) {
            Ok(count) if count > 0 => {
                lease.used = count;
                return Poll::Ready(Some(this.passed(lease)));
            }
            // Not in memory, or a file system that cannot say.
            _ => {}
        }
        let (file, at) = (this.file.clone(), this.at);
        this.waiting = Some(tokio::task::spawn_blocking(move || {
            lease.used = file.read_at(&mut lease.buffer[..want], at)?;
            Ok(lease)
        }));
        self.poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_part_is_read_whole_and_buffers_come_back() {
        let content: Vec<u8> = (0..u32::try_from(3 * BUFFER).unwrap())
            .map(|number| (number % 251) as u8)
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, &content).unwrap();
        let pool = Arc::new(Pool::default());
        for (from, to) in [(0, content.len()), (5, 6), (7, BUFFER + 9), (4, 4)] {
            let file = File::open(&path).unwrap();
            let mut reading = Reading::new(file, from as u64, to as u64, pool.clone());
            let mut read = Vec::new();
            while let Some(chunk) = reading.next().await {
                read.extend_from_slice(&chunk.unwrap());
            }
            assert_eq!(read, content[from..to]);
        }
        assert_eq!(pool.0.lock().unwrap().len(), 1);
        let mut short = Reading::new(File::open(&path).unwrap(), content.len() as u64, u64::MAX, pool);
        assert!(short.next().await.unwrap().is_err());
        assert!(short.next().await.is_none());
    }
}
