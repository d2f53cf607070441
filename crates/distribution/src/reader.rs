//! A stream, read by a thread that blocks.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::{BlobStream, Descriptor, RangeStream, Repository, Result};

/// A blob's bytes for a thread that blocks, while a task on the runtime fetches ahead.
///
/// At most [`Limits::in_flight`](crate::Limits::in_flight) bytes (and one chunk) wait in between. An end comes only after the
/// last byte the descriptor promises; anything else is an error with the [`Error`](crate::Error) inside. Dropping it ends the
/// task and its connection.
#[derive(Debug)]
pub struct BlobReader {
    arriving: mpsc::Receiver<Result<Bytes>>,
    room: Arc<Semaphore>,
    task: JoinHandle<()>,
    chunk: Bytes,
    /// Permits that the chunk holds.
    held: usize,
    most: usize,
    ended: bool,
}

impl Repository {
    /// The blob's bytes from `offset` on, fetched on `runtime`. Does not block; reading does.
    pub fn reader(&self, blob: &Descriptor, offset: u64, runtime: &Handle) -> BlobReader {
        BlobReader::new(Chunks::One(self.blob(blob, offset)), self.limits().in_flight, runtime)
    }

    /// As [`reader`](Self::reader), over several connections: see [`ranges`](Self::ranges).
    pub fn ranged_reader(&self, blob: &Descriptor, offset: u64, parts: usize, runtime: &Handle) -> BlobReader {
        BlobReader::new(
            Chunks::Many(self.ranges(blob, offset, parts)),
            self.limits().in_flight,
            runtime,
        )
    }
}

enum Chunks {
    One(BlobStream),
    Many(RangeStream),
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::One(stream) => stream.next().await,
            Self::Many(stream) => stream.next().await,
        }
    }
}

impl BlobReader {
    fn new(stream: Chunks, in_flight: u32, runtime: &Handle) -> Self {
        let in_flight = in_flight.max(1);
        let room = Arc::new(Semaphore::new(usize::try_from(in_flight).unwrap_or(usize::MAX)));
        // Bounded by the room, not by the number of chunks.
        let (sender, arriving) = mpsc::channel();
        let task = runtime.spawn(feed(stream, Arc::clone(&room), in_flight, sender));
        Self {
            arriving,
            room,
            task,
            chunk: Bytes::new(),
            held: 0,
            most: usize::try_from(in_flight).unwrap_or(usize::MAX),
            ended: false,
        }
    }
}

async fn feed(mut stream: Chunks, room: Arc<Semaphore>, in_flight: u32, sender: mpsc::Sender<Result<Bytes>>) {
    loop {
        let item = match stream.next().await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => {
                // An empty chunk is the end: a sender that is gone without it was cut off.
                let _ = sender.send(Ok(Bytes::new()));
                return;
            }
            Err(error) => Err(error),
        };
        let failed = item.is_err();
        let size = item.as_ref().map_or(0, |bytes| permits(bytes, in_flight));
        match Arc::clone(&room).acquire_many_owned(size).await {
            Ok(permit) => permit.forget(),
            Err(_) => return,
        }
        if sender.send(item).is_err() || failed {
            return;
        }
    }
}

fn permits(bytes: &Bytes, most: u32) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(most)
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            self.room.add_permits(std::mem::take(&mut self.held));
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            match self.arriving.recv() {
                Ok(Ok(bytes)) if bytes.is_empty() => {
                    self.ended = true;
                    return Ok(0);
                }
                Ok(Ok(bytes)) => {
                    self.held = bytes.len().min(self.most);
                    self.chunk = bytes;
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the transfer was given up"));
                }
            }
        }
        let count = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}
