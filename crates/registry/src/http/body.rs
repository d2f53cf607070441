//! Request bodies: never waited for without an end, never larger than allowed.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::backend::Incoming;
use crate::failure::{Answer, Code, Failure};

/// Three hundred bytes a second, with the usual [`Patience`]: no link is so slow.
const LEAST: usize = 16 << 10;
/// Bytes of small bodies that are in memory at once.
const MEMORY: usize = 64 << 20;
const UNIT: usize = 1 << 10;

/// For how long bodies are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Before a body has brought 16 KiB more.
    pub stall: Duration,
    /// All of a small body: a manifest, a form.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            whole: Duration::from_secs(300),
        }
    }
}

/// A body, and how it is getting on.
struct Watched {
    body: BodyDataStream,
    stall: Duration,
    /// Only the time in which the client is waited for counts.
    waited: Duration,
    brought: usize,
}

impl Watched {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let begin = Instant::now();
        let next = tokio::time::timeout(self.stall.saturating_sub(self.waited), self.body.next()).await;
        self.waited += begin.elapsed();
        let next = match next {
            Ok(next) => next?.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client is too slow")),
        };
        self.brought += next.as_ref().map_or(0, Bytes::len);
        if self.brought >= LEAST {
            (self.waited, self.brought) = (Duration::ZERO, 0);
        }
        Some(next)
    }
}

pub fn incoming(body: Body, patience: Patience) -> Incoming {
    let watched = Watched {
        body: body.into_data_stream(),
        stall: patience.stall,
        waited: Duration::ZERO,
        brought: 0,
    };
    Box::pin(stream::unfold(Some(watched), |watched| async move {
        let mut watched = watched?;
        let next = watched.next().await?;
        let rest = next.is_ok().then_some(watched);
        Some((next, rest))
    }))
}

/// What `Content-Length` says.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The room in memory that small bodies have together.
#[derive(Debug)]
pub struct Memory(Semaphore);

impl Default for Memory {
    fn default() -> Self {
        Self(Semaphore::new(MEMORY / UNIT))
    }
}

/// A small body, and its room.
#[derive(Debug)]
pub struct Whole<'a> {
    pub content: Bytes,
    _room: SemaphorePermit<'a>,
}

/// All of a small body of at most `most` bytes; else what `refused` says.
pub async fn whole<'a>(
    memory: &'a Memory,
    headers: &HeaderMap,
    body: Body,
    patience: Patience,
    most: usize,
    refused: impl Fn() -> Box<Failure>,
) -> Answer<Whole<'a>> {
    if length(headers).is_some_and(|length| length > u64::try_from(most).unwrap_or(u64::MAX)) {
        return Err(refused());
    }
    let (mut body, mut all) = (incoming(body, patience), BytesMut::new());
    let busy = |_| Failure::later("too many manifests are being sent: try again later", 5);
    let mut room = memory.0.try_acquire_many(0).map_err(busy)?;
    let read = async {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| ended_early(&error))?;
            if all.len() + chunk.len() > most {
                return Err(refused());
            }
            let units = (all.len() + chunk.len()).div_ceil(UNIT) - all.len().div_ceil(UNIT);
            room.merge(
                memory
                    .0
                    .try_acquire_many(u32::try_from(units).unwrap_or(u32::MAX))
                    .map_err(busy)?,
            );
            all.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let read = tokio::time::timeout(patience.whole, read).await;
    read.unwrap_or_else(|_| Err(ended_early(&"the client is too slow")))?;
    Ok(Whole {
        content: all.freeze(),
        _room: room,
    })
}

fn ended_early(why: &dyn std::fmt::Display) -> Box<Failure> {
    Failure::new(Code::SizeInvalid, format!("the request's body ended early: {why}"))
}
