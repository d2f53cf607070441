//! Digests of what is written.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use ferry_image::{Digest, Hasher};

/// Bytes that go to the other thread at once, and how many of such pieces may wait for it.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// Hashes and counts what is written.
pub struct Hashing<W> {
    inner: W,
    hash: Hasher,
    size: u64,
}

impl<W: Write> Hashing<W> {
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Hasher::default(),
            size: 0,
        }
    }

    /// Digest and number of the bytes.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.inner.flush()?;
        Ok((self.hash.finish(), self.size))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes and counts what is written, by another thread if it is more than a piece: files are read meanwhile.
#[derive(Default)]
pub struct Aside {
    piece: Vec<u8>,
    other: Option<Other>,
}

struct Other {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Hashing<io::Sink>>,
}

impl Other {
    fn start() -> io::Result<Self> {
        let (full, pieces) = sync_channel::<Vec<u8>>(WAITING);
        let (done, empty) = channel();
        let run = move || {
            let mut hashing = Hashing::new(io::sink());
            for piece in pieces {
                // A sink takes everything.
                let _ = hashing.write_all(&piece);
                let _ = done.send(piece);
            }
            hashing
        };
        let thread = thread::Builder::new().name("ferry-hash".to_owned()).spawn(run)?;
        Ok(Self { full, empty, thread })
    }
}

fn ended<E>(_: E) -> io::Error {
    io::Error::other("the thread that hashes has ended")
}

impl Aside {
    /// Digest and number of the bytes.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        let mut hashing = match self.other.take() {
            None => Hashing::new(io::sink()),
            Some(other) => {
                drop(other.full);
                other.thread.join().map_err(ended)?
            }
        };
        hashing.write_all(&self.piece)?;
        hashing.finish()
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let other = match &mut self.other {
            Some(other) => other,
            none => none.insert(Other::start()?),
        };
        let mut next = other.empty.try_recv().unwrap_or_default();
        next.clear();
        let piece = std::mem::replace(&mut self.piece, next);
        other.full.send(piece).map_err(ended)
    }
}

impl Write for Aside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE {
            self.pass_on()?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_thread_comes_to_the_same_digest() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 20 * PIECE + 7] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            for step in [1000, PIECE, length.max(1)] {
                let mut aside = Aside::default();
                for piece in bytes.chunks(step) {
                    aside.write_all(piece).unwrap();
                }
                let expected = (Digest::of(&bytes), length as u64);
                assert_eq!(aside.finish().unwrap(), expected, "{length} in pieces of {step}");
            }
        }
    }
}
