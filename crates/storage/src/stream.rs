//! Readers that watch what passes through them.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use ferry_image::{Algorithm, Digest, Hasher};

/// Hashes and counts what is read.
pub struct Hashed<R> {
    inner: R,
    hash: Hasher,
    size: u64,
}

impl<R> Hashed<R> {
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Hasher::default(),
            size: 0,
        }
    }

    pub fn with(inner: R, algorithm: Algorithm) -> Self {
        Self {
            inner,
            hash: Hasher::new(algorithm),
            size: 0,
        }
    }

    /// The digest and the number of the bytes read.
    pub fn finish(self) -> (Digest, u64) {
        (self.hash.finish(), self.size)
    }

    pub fn into_parts(self) -> (R, Digest, u64) {
        (self.inner, self.hash.finish(), self.size)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

/// Counts what is read, for a [`Bounded`] further down.
pub struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Counted<R> {
    pub fn new(inner: R) -> (Self, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        (
            Self {
                inner,
                count: Arc::clone(&count),
            },
            count,
        )
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Ends a stream that decompresses to far more than real content does.
pub struct Bounded<R> {
    inner: R,
    compressed: Arc<AtomicU64>,
    size: u64,
    bounds: Expansion,
}

/// How far a stream may expand: `free` bytes whatever it was compressed to, and `ratio` times its size beyond that.
#[derive(Clone, Copy, Debug)]
pub struct Expansion {
    pub free: u64,
    pub ratio: u64,
}

impl Default for Expansion {
    fn default() -> Self {
        // Text compresses 10:1, an empty disk image 1000:1; a gigabyte of zeros is let through.
        Self {
            free: 1 << 30,
            ratio: 256,
        }
    }
}

impl<R> Bounded<R> {
    pub fn new(inner: R, compressed: Arc<AtomicU64>, bounds: Expansion) -> Self {
        Self {
            inner,
            compressed,
            size: 0,
            bounds,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.size += count as u64;
        if self.size > self.bounds.free && self.size / self.bounds.ratio > self.compressed.load(Ordering::Relaxed) {
            let what = format!("decompresses to more than {} times its size", self.bounds.ratio);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(count)
    }
}

/// What [`piped`] hands to its consumer.
pub struct Piped {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

/// Bytes of one piece, and how many pieces wait between the two threads.
const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

/// Reads `reader` on a thread of its own while `consume` works on what was read, and gives the reader back: inflating and
/// hashing take as long as writing files, and there are two cores.
///
/// What the consumer does not read stays unread, up to the pieces that were on their way.
pub fn piped<R: Read + Send, T>(mut reader: R, consume: impl FnOnce(Piped) -> T) -> (T, R) {
    let (send_full, full) = sync_channel(PIECES);
    let (empty, take_empty) = sync_channel(PIECES);
    std::thread::scope(|scope| {
        let pump = scope.spawn(move || {
            loop {
                let mut piece = take_empty.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
                piece.resize(PIECE, 0);
                let read = fill(&mut reader, &mut piece);
                let last = !matches!(read, Ok(PIECE));
                let sent = send_full.send(read.map(|count| {
                    piece.truncate(count);
                    piece
                }));
                if last || sent.is_err() {
                    return reader;
                }
            }
        });
        let consumed = consume(Piped {
            full,
            empty,
            current: Vec::new(),
            at: 0,
        });
        match pump.join() {
            Ok(reader) => (consumed, reader),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Fills a buffer unless the stream ends before.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            // A closed channel is the end: the last piece has been taken.
            let Ok(piece) = self.full.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.current, piece?);
            let _ = self.empty.try_send(used);
            self.at = 0;
        }
        let count = buffer.len().min(self.current.len() - self.at);
        buffer[..count].copy_from_slice(&self.current[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_piped_arrives_whole_and_errors_where_they_are() {
        for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 20 * PIECE + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let (read, hashed) = piped(Hashed::new(&bytes[..]), |mut pipe| {
                let mut read = Vec::new();
                pipe.read_to_end(&mut read).unwrap();
                read
            });
            assert!(read == bytes, "{size}");
            assert_eq!(hashed.finish(), (Digest::of(&bytes), size as u64));
        }
        struct Broken(u32);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 3 {
                    Err(io::ErrorKind::ConnectionReset.into())
                } else {
                    Ok(buffer.len().min(1 << 18))
                }
            }
        }
        let (result, _) = piped(Broken(0), |mut pipe| io::copy(&mut pipe, &mut io::sink()));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        // A consumer that loses interest ends the pump of an endless stream.
        let (first, _) = piped(io::repeat(7), |mut pipe| {
            let mut byte = [0];
            pipe.read_exact(&mut byte).unwrap();
            byte
        });
        assert_eq!(first, [7]);
    }
}
