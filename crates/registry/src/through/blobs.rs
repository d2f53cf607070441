//! Blobs from upstream: written to an upload while they come, and read from there by all who want them.
//!
//! The upload's file is the only copy: a client that is slow, or asks for a part, reads it at its own pace, and holds nobody up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use ferry_image::Digest;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::backend::{Append, Backend, Content, Error, Hold, Incoming, Intent};
use crate::failure::{Answer, Code, Failure};
use crate::http::Registry;
use crate::name::{Name, UploadId};

use super::flights::Landing;
use super::manifests::lost;
use super::{HELD, Remote};

/// Written at once, if it comes within [`LINGER`].
const BATCH: usize = 512 << 10;
const LINGER: Duration = Duration::from_millis(50);
/// Chunks in a batch.
const CHUNKS: usize = 512;

/// A blob that is here, or on its way.
#[derive(Clone, Debug)]
pub enum Found {
    /// A copy stays at least until this is dropped.
    Here {
        size: u64,
        _hold: Option<Hold>,
    },
    Coming(Arc<Coming>),
}

/// A blob on its way.
#[derive(Debug)]
pub struct Coming {
    size: u64,
    id: UploadId,
    state: watch::Receiver<State>,
    /// What comes last is read from its place.
    hold: Hold,
}

#[derive(Clone, Debug)]
enum State {
    /// So many bytes can be read.
    Running(u64),
    Done,
    Failed(Arc<str>),
}

impl Found {
    pub fn here(size: u64) -> Self {
        Self::Here { size, _hold: None }
    }

    pub fn size(&self) -> u64 {
        match self {
            Self::Here { size, .. } => *size,
            Self::Coming(coming) => coming.size,
        }
    }
}

impl<B: Backend> Registry<B> {
    /// The size of a blob, without fetching it.
    pub(crate) async fn blob_size_through(&self, name: &Name, digest: &Digest, remote: &Remote) -> Answer<Option<u64>> {
        match self.0.backend.blob(name, digest, Intent::Pull).await? {
            Some(size) => Ok(Some(size)),
            None => Ok(remote.upstream.size(&remote.name, digest).await?),
        }
    }

    /// A blob, which begins to come if it is not here. A small one has come, then.
    pub(crate) async fn blob_through(&self, name: &Name, digest: &Digest, remote: &Remote) -> Answer<Option<Found>> {
        // First, so that what is here is still here when it is opened.
        let hold = self.0.backend.hold(digest);
        if let Some(size) = self.0.backend.blob(name, digest, Intent::Pull).await? {
            self.0.backend.used(name, digest);
            return Ok(Some(Found::Here {
                size,
                _hold: Some(hold),
            }));
        }
        let (registry, of, which, from) = (self.clone(), name.clone(), digest.clone(), remote.clone());
        let key = format!("{name}@{digest}");
        let flight = self
            .0
            .through
            .blobs
            .join(&key, |landing| registry.fetch(of, which, from, landing));
        let found = flight.await.unwrap_or_else(|| Err(lost()))?;
        let Some(Found::Coming(coming)) = &found else {
            return Ok(found);
        };
        if coming.size > HELD {
            return Ok(found);
        }
        let mut state = coming.state.clone();
        let ended = state.wait_for(|state| !matches!(state, State::Running(_))).await;
        match ended.map(|state| state.clone()) {
            Ok(State::Failed(why)) => Err(bad_gateway(&why)),
            Ok(_) => Ok(Some(Found::Here {
                size: coming.size,
                _hold: Some(hold),
            })),
            Err(_) => Err(lost()),
        }
    }

    async fn fetch(
        self,
        name: Name,
        digest: Digest,
        remote: Remote,
        landing: Landing<Answer<Option<Found>>>,
    ) -> Answer<Option<Found>> {
        // Perhaps it has just come. All who wait for this keep it here until they have opened it.
        let hold = self.0.backend.hold(&digest);
        if let Some(size) = self.0.backend.blob(&name, &digest, Intent::Pull).await? {
            return Ok(Some(Found::Here {
                size,
                _hold: Some(hold),
            }));
        }
        let busy = |_| Failure::later("too many blobs are being fetched from upstream: try again later", 5);
        let permit = self.0.through.turns.clone().try_acquire_owned().map_err(busy)?;
        let Some((size, body)) = remote.upstream.blob(&remote.name, &digest).await? else {
            return Ok(None);
        };
        let id = self.0.backend.begin(&name).await?;
        let (say, state) = watch::channel(State::Running(0));
        let filling = Filling {
            registry: self,
            name,
            digest,
            remote,
            id,
            size,
            say,
            _landing: landing,
            _permit: permit,
        };
        tokio::spawn(filling.run(body));
        Ok(Some(Found::Coming(Arc::new(Coming { size, id, state, hold }))))
    }
}

/// Who brings the bytes.
struct Filling<B> {
    registry: Registry<B>,
    name: Name,
    digest: Digest,
    remote: Remote,
    id: UploadId,
    size: u64,
    say: watch::Sender<State>,
    /// Until the blob is in its place, or not going to be.
    _landing: Landing<Answer<Option<Found>>>,
    _permit: OwnedSemaphorePermit,
}

impl<B: Backend> Filling<B> {
    async fn run(self, body: Incoming) {
        let state = match self.fill(body).await {
            Ok(()) => State::Done,
            Err(why) => {
                let why = format!(
                    "blob {} of {} from {} was not fetched: {why}",
                    self.digest,
                    self.remote.name,
                    self.remote.upstream.shown()
                );
                tracing::warn!(repository = %self.name, "{why}");
                match self.registry.0.backend.cancel(&self.name, self.id).await {
                    Err(Error::UploadUnknown) | Ok(()) => {}
                    Err(other) => tracing::warn!(error = %other, "what came of a blob stays until it expires"),
                }
                State::Failed(why.into())
            }
        };
        self.say.send_replace(state);
    }

    async fn fill(&self, mut body: Incoming) -> Result<(), String> {
        let backend = &self.registry.0.backend;
        let mut at = 0;
        loop {
            let chunks = batch(&mut body).await.map_err(|error| error.to_string())?;
            if chunks.is_empty() {
                break;
            }
            let append = Append {
                at: Some(at),
                most: Some(self.size - at),
                algorithm: Some(self.digest.algorithm()),
                body: Box::pin(stream::iter(chunks.into_iter().map(Ok))),
            };
            let before = at;
            at = backend
                .append(&self.name, self.id, append)
                .await
                .map_err(|error| told(&error))?;
            self.registry
                .0
                .metrics
                .fetched(usize::try_from(at - before).unwrap_or(0));
            self.say.send_replace(State::Running(at));
        }
        if at != self.size {
            return Err(format!("{at} of {} bytes came", self.size));
        }
        let kept = backend.keep_blob(&self.name, self.id, &self.digest).await;
        let size = kept.map_err(|error| told(&error))?;
        self.registry.grown(size);
        Ok(())
    }
}

fn told(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What comes until there is enough, or nothing more for a moment. Empty at the end.
async fn batch(body: &mut Incoming) -> io::Result<Vec<Bytes>> {
    let (mut chunks, mut size) = (Vec::new(), 0);
    let mut linger = std::pin::pin!(tokio::time::sleep(LINGER));
    while size < BATCH && chunks.len() < CHUNKS {
        let next = tokio::select! {
            biased;
            next = body.next() => next,
            () = linger.as_mut(), if !chunks.is_empty() => break,
        };
        match next {
            Some(chunk) => {
                let chunk = chunk?;
                if !chunk.is_empty() {
                    size += chunk.len();
                    chunks.push(chunk);
                }
            }
            None => break,
        }
    }
    Ok(chunks)
}

fn bad_gateway(why: &str) -> Box<Failure> {
    Failure::new(Code::Unknown, why).status(http::StatusCode::BAD_GATEWAY)
}

/// The bytes `from..to` of a blob that is coming, as they come.
pub fn body<B: Backend>(
    registry: &Registry<B>,
    name: &Name,
    digest: &Digest,
    coming: &Coming,
    (from, to): (u64, u64),
) -> Body {
    let reading = Reading {
        registry: registry.clone(),
        name: name.clone(),
        digest: digest.clone(),
        size: coming.size,
        id: coming.id,
        state: coming.state.clone(),
        at: from,
        to,
        open: None,
        _hold: coming.hold.clone(),
    };
    Body::from_stream(stream::try_unfold(reading, |mut reading| async move {
        Ok::<_, io::Error>(reading.next().await?.map(|bytes| (bytes, reading)))
    }))
}

struct Reading<B> {
    registry: Registry<B>,
    name: Name,
    digest: Digest,
    size: u64,
    id: UploadId,
    state: watch::Receiver<State>,
    at: u64,
    to: u64,
    open: Option<Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>>,
    _hold: Hold,
}

impl<B: Backend> Reading<B> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.at < self.to {
            if let Some(open) = &mut self.open {
                if let Some(bytes) = open.next().await.transpose()? {
                    self.at += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    return Ok(Some(bytes));
                }
                self.open = None;
                continue;
            }
            self.open().await?;
        }
        Ok(None)
    }

    /// Opens what can be read, when there is something.
    async fn open(&mut self) -> io::Result<()> {
        let (at, shown) = (self.at, self.size.saturating_sub(HELD));
        let ready = |state: &State| !matches!(state, State::Running(count) if (*count).min(shown) <= at);
        let state = self.state.wait_for(ready).await.map(|state| state.clone());
        let gone = |_| io::Error::other("the fetch has ended");
        let content = match state.map_err(gone)? {
            State::Failed(why) => return Err(io::Error::other(why.to_string())),
            State::Done => {
                let read = self
                    .registry
                    .0
                    .backend
                    .read(&self.name, &self.digest, at, self.to)
                    .await;
                let missing = || io::Error::new(io::ErrorKind::NotFound, "the blob has gone");
                read.map_err(io::Error::other)?.ok_or_else(missing)?
            }
            State::Running(count) => {
                let to = count.min(shown).min(self.to);
                match self.registry.0.backend.partial(&self.name, self.id, at, to).await {
                    Ok(content) => content,
                    // It is being put in its place, or given up.
                    Err(Error::UploadUnknown) => return self.state.changed().await.map_err(io::Error::other),
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        };
        self.open = Some(match content {
            Content::Whole(bytes) => Box::pin(stream::iter([Ok(bytes)])),
            Content::Stream(stream) => stream,
        });
        Ok(())
    }
}
