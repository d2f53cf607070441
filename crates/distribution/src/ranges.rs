//! A large blob over several connections at once, given in order.
//!
//! ```text
//! connection 1 ─ segment 0 ─┐         ┌─ segment 3 …
//! connection 2 ─ segment 1 ─┼─▶ next ─┤
//! connection 3 ─ segment 2 ─┘         └─ at most `parts` of them, and the one that is being read, in memory
//! ```
//!
//! For networks on which one connection does not fill the line. A server that answers the first range with the whole blob is
//! read as it is, over that one connection.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{BlobStream, Descriptor, Repository, Result};

/// The bytes of a blob from an offset on, as a [`BlobStream`] gives them, fetched by several requests at once.
#[derive(Debug)]
pub struct RangeStream {
    repository: Repository,
    blob: Descriptor,
    parts: usize,
    state: State,
    /// First byte that no request is for.
    ahead: u64,
    arriving: VecDeque<JoinHandle<Result<Segment>>>,
    ready: VecDeque<Bytes>,
    received: u64,
    connections: u32,
}

#[derive(Debug)]
enum State {
    Fresh,
    Ranges,
    /// One connection for everything.
    Single(Box<BlobStream>),
}

#[derive(Debug)]
struct Segment {
    chunks: VecDeque<Bytes>,
    received: u64,
    connections: u32,
}

impl Repository {
    /// As [`blob`](Self::blob), with up to `parts` requests at once, each for [`Limits::segment`](crate::Limits::segment) bytes.
    pub fn ranges(&self, blob: &Descriptor, offset: u64, parts: usize) -> RangeStream {
        RangeStream {
            repository: self.clone(),
            blob: blob.clone(),
            parts: parts.clamp(1, 16),
            state: State::Fresh,
            ahead: offset.min(blob.size),
            arriving: VecDeque::new(),
            ready: VecDeque::new(),
            received: 0,
            connections: 0,
        }
    }
}

impl RangeStream {
    /// The next bytes; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if matches!(self.state, State::Fresh) {
            self.begin().await?;
        }
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Ok(Some(bytes));
            }
            if let State::Single(stream) = &mut self.state {
                return stream.next().await;
            }
            while self.arriving.len() < self.parts && self.ahead < self.blob.size {
                let stream = self.segment();
                self.arriving.push_back(tokio::spawn(whole(stream)));
            }
            let Some(first) = self.arriving.front_mut() else {
                return Ok(None);
            };
            // Left in place while it is waited for: whoever stops waiting loses nothing.
            let joined = first.await;
            self.arriving.pop_front();
            let segment = joined.map_err(|_| crate::Error::Options("the transfer was given up".to_owned()))??;
            self.received += segment.received;
            self.connections += segment.connections;
            self.ready = segment.chunks;
        }
    }

    /// Bytes that came over the network.
    pub fn received(&self) -> u64 {
        match &self.state {
            State::Single(stream) => stream.received(),
            _ => self.received,
        }
    }

    /// Requests that were answered with bytes.
    pub fn connections(&self) -> u32 {
        match &self.state {
            State::Single(stream) => stream.connections(),
            _ => self.connections,
        }
    }

    /// Finds out whether the server knows ranges, by the first of them.
    async fn begin(&mut self) -> Result<()> {
        if self.parts == 1 || self.blob.size - self.ahead <= self.repository.limits().segment {
            self.state = State::Single(Box::new(self.repository.blob(&self.blob, self.ahead)));
            return Ok(());
        }
        let mut stream = self.segment();
        stream.open().await?;
        if stream.is_whole() {
            stream.widen();
            self.state = State::Single(Box::new(stream));
        } else {
            self.state = State::Ranges;
            self.arriving.push_back(tokio::spawn(whole(stream)));
        }
        Ok(())
    }

    fn segment(&mut self) -> BlobStream {
        let start = self.ahead;
        self.ahead = self
            .blob
            .size
            .min(start.saturating_add(self.repository.limits().segment.max(1)));
        self.repository.part(&self.blob, start, self.ahead)
    }
}

impl Drop for RangeStream {
    fn drop(&mut self) {
        for task in &self.arriving {
            task.abort();
        }
    }
}

async fn whole(mut stream: BlobStream) -> Result<Segment> {
    let mut chunks = VecDeque::new();
    while let Some(chunk) = stream.next().await? {
        chunks.push_back(chunk);
    }
    Ok(Segment {
        chunks,
        received: stream.received(),
        connections: stream.connections(),
    })
}
