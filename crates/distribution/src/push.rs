//! Uploads of blobs: skipped, mounted, or sent in as few requests as the registry and the network let through.
//!
//! ```text
//! HEAD blob ─ there ─▶ done
//!    │
//! POST uploads/ ─▶ 202 Location ─ PATCH rest ─▶ 202 ─ PUT ?digest= ─▶ 201
//!                     ▲             │ broken
//!                     │             ▼
//!                     │        GET Location: how much arrived? ─ it knows ─▶ PATCH from there
//!                     └──────── it does not: anew, in smaller chunks ◀──────┘
//! ```
//!
//! The CNCF registry 2.8 forgets an upload whose PATCH was cut; there, chunks that get through are all there is. A registry that
//! takes no PATCH gets one PUT.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ferry_image::Digest;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use reqwest::Response;
use tokio::sync::mpsc;
use url::Url;

use crate::auth::Scope;
use crate::endpoint::Endpoint;
use crate::manifest::digest_of;
use crate::retry::{Retry, is_passing};
use crate::transport::{Body, Call};
use crate::{Descriptor, Error, Repository, Result};

/// Read at once from a source.
const READ: usize = 256 << 10;
/// Reads that wait for the network.
const WAITING: usize = 4;
/// A chunk after the first failure; halved at each further one.
const CHUNK: u64 = 4 << 20;
const LEAST_CHUNK: u64 = 256 << 10;
/// Less than this between two failures is no progress.
const PROGRESS: u64 = 32 << 10;
/// Times the usual time that the end of an upload may take: registries hash, or copy, all of it.
const END: u32 = 10;
/// Answers in a row that say so of what a broken connection had sent, and the registry took in only then.
const LATE: u32 = 5;

/// What is to be pushed: can be read from any offset, several times.
pub trait Source: Send + Sync + 'static {
    /// Blocks.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl Source for Bytes {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(io::Cursor::new(self.slice(from..))))
    }
}

impl Source for std::path::PathBuf {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        use std::io::Seek as _;
        let mut file = std::fs::File::open(self)?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

/// How a blob came to be where it was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Existed,
    Mounted,
    Uploaded {
        /// Bytes that were sent, those included that had to be sent again.
        sent: u64,
    },
}

/// An upload that the registry has begun.
struct Upload {
    location: Url,
    /// Bytes the registry has.
    at: u64,
}

/// What is known of a blob's way to its registry.
struct Way<'a> {
    blob: &'a Descriptor,
    source: Arc<dyn Source>,
    /// Largest body of a PATCH.
    chunk: u64,
    /// The registry takes no PATCH.
    whole: bool,
    /// What the registry had when there was progress last: only [`PROGRESS`] more is some.
    best: u64,
    /// How often the registry may still turn out to have more than it said, since a connection broke.
    late: u32,
    sent: Arc<AtomicU64>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Repository {
    /// Whether the registry has the blob in this repository.
    pub fn has_blob<'a>(&'a self, blob: &'a Descriptor) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let mut tries = self.tries(self.own());
            loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.has_blob_at(&endpoint, blob).await) {
                    return done;
                }
            }
        })
    }

    async fn has_blob_at(&self, endpoint: &Endpoint, blob: &Descriptor) -> Result<bool> {
        let call = self.call(endpoint, Method::HEAD, &format!("blobs/{}", blob.digest), &[])?;
        match self
            .ask(endpoint, &self.scope("pull,push"), &call, &[200, 404])
            .await?
            .status()
        {
            StatusCode::OK => Ok(true),
            _ => Ok(false),
        }
    }

    /// Takes the blob over from another repository of the same registry, named by its path. `false` when the registry would
    /// rather have it sent.
    pub fn mount_blob<'a>(&'a self, blob: &'a Descriptor, from: &'a str) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let mut tries = self.tries(self.own());
            loop {
                let endpoint = tries.next()?;
                let outcome = self.begin(&endpoint, Some((blob, from))).await;
                if let Some(done) = tries.settle(&endpoint, outcome) {
                    return match done? {
                        None => Ok(true),
                        Some(upload) => {
                            self.cancel(&endpoint, &upload).await;
                            Ok(false)
                        }
                    };
                }
            }
        })
    }

    /// Sends a blob, if it is not there. `from` are paths of other repositories of the registry that may have it; `progress`
    /// hears how many bytes of it are over there, which can become fewer.
    pub fn push_blob<'a>(
        &'a self,
        blob: &'a Descriptor,
        source: Arc<dyn Source>,
        from: &'a [&'a str],
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> BoxFuture<'a, Result<Pushed>> {
        Box::pin(async move {
            let mut way = Way {
                blob,
                source,
                chunk: u64::MAX,
                whole: false,
                best: 0,
                late: 0,
                sent: Arc::default(),
                progress: Arc::new(progress),
            };
            let mut tries = self.tries(self.own());
            loop {
                let endpoint = tries.next()?;
                let outcome = self.push_at(&endpoint, &mut way, from).await;
                if let Some(done) = tries.settle(&endpoint, outcome) {
                    return done;
                }
            }
        })
    }

    async fn push_at(&self, endpoint: &Endpoint, way: &mut Way<'_>, from: &[&str]) -> Result<Pushed> {
        if self.has_blob_at(endpoint, way.blob).await? {
            return Ok(Pushed::Existed);
        }
        let mut upload = None;
        for from in from {
            // A repository that we may not read is no reason to fail.
            match self.begin(endpoint, Some((way.blob, from))).await {
                Ok(None) => return Ok(Pushed::Mounted),
                Ok(begun) => {
                    upload = begun;
                    break;
                }
                Err(error) if error.answer().is_some() => tracing::debug!(%error, from, "no mount"),
                Err(error) => return Err(error),
            }
        }
        let mut retry = Retry::new(self.limits());
        loop {
            let error = match self.transfer(endpoint, way, &mut upload, &mut retry).await {
                Ok(()) => {
                    return Ok(Pushed::Uploaded {
                        sent: way.sent.load(Ordering::Relaxed),
                    });
                }
                Err(error) => error,
            };
            let is_late = way.late > 0 && is_out_of_step(&error);
            match &error {
                Error::Network { .. } => way.late = LATE,
                _ => way.late = way.late.saturating_sub(1),
            }
            if let Some(begun) = upload.take_if(|_| !is_late && !matches!(error, Error::Network { .. })) {
                self.cancel(endpoint, &begun).await;
            }
            if !is_late {
                retry.after(error).await?;
            }
            if let Some(begun) = &mut upload {
                match self.status(endpoint, begun).await {
                    Ok(true) if begun.at >= way.best + PROGRESS => {
                        way.best = begun.at;
                        retry.progressed();
                    }
                    Ok(true) => way.chunk = smaller(way.chunk),
                    // Forgotten: anew.
                    Ok(false) | Err(_) => {
                        way.chunk = smaller(way.chunk);
                        upload = None;
                    }
                }
            }
        }
    }

    /// Sends what is missing, and ends the upload.
    async fn transfer(
        &self,
        endpoint: &Endpoint,
        way: &mut Way<'_>,
        upload: &mut Option<Upload>,
        retry: &mut Retry,
    ) -> Result<()> {
        if upload.is_none() {
            *upload = self.begin(endpoint, None).await?;
        }
        let Some(upload) = upload else { return Ok(()) };
        let size = way.blob.size;
        if way.whole {
            upload.at = 0;
        }
        while upload.at < size && !way.whole {
            let end = size.min(upload.at.saturating_add(way.chunk));
            let mut call = Call::new(Method::PATCH, upload.location.clone())
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_RANGE, &format!("{}-{}", upload.at, end - 1));
            if way.chunk != u64::MAX {
                // What cuts connections cuts them in the middle of a chunk, if several go over one.
                call = call.header(header::CONNECTION, "close");
            }
            let response = self.send(endpoint, way, call, upload.at, end).await?;
            match response.status().as_u16() {
                202 | 204 | 201 => {
                    self.moved(endpoint, upload, &response)?;
                    // The spec's Range is what the registry has; some send none.
                    upload.at = range_end(&response).filter(|at| *at <= size).unwrap_or(end);
                    if upload.at >= way.best + PROGRESS {
                        way.best = upload.at;
                        retry.progressed();
                    }
                    (way.progress)(upload.at);
                }
                // Not this way.
                404 | 405 | 501 if upload.at == 0 && !way.whole && response.status() != StatusCode::NOT_FOUND => {
                    way.whole = true;
                }
                _ => return Err(self.shared.transport.refusal(&Method::PATCH, response, endpoint).await),
            }
        }
        let mut location = upload.location.clone();
        location
            .query_pairs_mut()
            .append_pair("digest", &way.blob.digest.to_string());
        let mut call = Call::new(Method::PUT, location).header(header::CONTENT_TYPE, "application/octet-stream");
        call.patience = END;
        let response = if way.whole {
            self.send(endpoint, way, call, 0, size).await?
        } else {
            self.raw(endpoint, &self.scope("pull,push"), &call).await?
        };
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => {}
            // The answer to an earlier attempt may have been lost.
            StatusCode::NOT_FOUND if self.has_blob_at(endpoint, way.blob).await.unwrap_or(false) => return Ok(()),
            _ => return Err(self.shared.transport.refusal(&Method::PUT, response, endpoint).await),
        }
        match digest_of(response.headers()) {
            // It may name it by an algorithm of its own.
            Some(Ok(digest)) if digest.algorithm() == way.blob.digest.algorithm() && digest != way.blob.digest => {
                Err(Error::Digest {
                    registry: endpoint.registry.clone(),
                    subject: format!("the pushed blob {}@{}", self.path(), way.blob.digest),
                    expected: way.blob.digest.clone(),
                    actual: digest,
                })
            }
            _ => Ok(()),
        }
    }

    /// Sends the source's bytes from `start` to before `end`.
    async fn send(&self, endpoint: &Endpoint, way: &Way<'_>, mut call: Call, start: u64, end: u64) -> Result<Response> {
        let failed: Arc<std::sync::Mutex<Option<io::Error>>> = Arc::default();
        let moved = Arc::new(tokio::sync::Notify::new());
        let (source, sent, progress) = (
            Arc::clone(&way.source),
            Arc::clone(&way.sent),
            Arc::clone(&way.progress),
        );
        let (told, alive) = (Arc::clone(&failed), Arc::clone(&moved));
        let make = move || {
            let (sender, receiver) = mpsc::channel(WAITING);
            let (source, told) = (Arc::clone(&source), Arc::clone(&told));
            // Ends when nobody receives any more.
            drop(tokio::task::spawn_blocking(move || {
                feed(&*source, start, end, &sender, &told);
            }));
            let (sent, progress, alive) = (Arc::clone(&sent), Arc::clone(&progress), Arc::clone(&alive));
            let stream = futures_util::stream::unfold((receiver, start), move |(mut receiver, at)| {
                let (sent, progress, alive) = (Arc::clone(&sent), Arc::clone(&progress), Arc::clone(&alive));
                async move {
                    let item: io::Result<Bytes> = receiver.recv().await?;
                    let at = at + item.as_ref().map_or(0, |bytes| bytes.len() as u64);
                    sent.fetch_add(item.as_ref().map_or(0, |bytes| bytes.len() as u64), Ordering::Relaxed);
                    progress(at);
                    alive.notify_one();
                    Some((item, (receiver, at)))
                }
            });
            reqwest::Body::wrap_stream(stream)
        };
        call.body = Body::Stream(end - start, Arc::new(make));
        let (method, url) = (
            crate::transport::title(&call.method),
            crate::transport::shown_url(&call.url),
        );
        let scope = self.scope("pull,push");
        let answer = self.raw(endpoint, &scope, &call);
        let mut answer = std::pin::pin!(answer);
        // While bytes go, and then for the answer, which may take long.
        let most = self.limits().stall.max(self.limits().answer.saturating_mul(END));
        let response = loop {
            tokio::select! {
                response = answer.as_mut() => break response,
                () = moved.notified() => {}
                () = tokio::time::sleep(most) => break Err(Error::Network {
                    method,
                    url,
                    cause: format!("the upload stalled for {} s", most.as_secs()),
                    unreachable: false,
                }),
            }
        };
        let source = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match source {
            None => response,
            Some(source) => Err(Error::Source {
                what: way.blob.digest.to_string(),
                source,
            }),
        }
    }

    async fn raw(&self, endpoint: &Endpoint, scope: &Scope, call: &Call) -> Result<Response> {
        self.shared
            .transport
            .send(&self.shared.authorizer, endpoint, scope, call)
            .await
    }

    /// Begins an upload; `None` when the blob was mounted instead.
    async fn begin(&self, endpoint: &Endpoint, mount: Option<(&Descriptor, &str)>) -> Result<Option<Upload>> {
        let (call, scope) = match mount {
            None => (
                self.call(endpoint, Method::POST, "blobs/uploads/", &[])?,
                self.scope("pull,push"),
            ),
            Some((blob, from)) => {
                let query = [("mount", &*blob.digest.to_string()), ("from", from)];
                let call = self.call(endpoint, Method::POST, "blobs/uploads/", &query)?;
                (call, self.scope("pull,push").and(from, "pull"))
            }
        };
        let response = self.ask(endpoint, &scope, &call, &[201, 202]).await?;
        if response.status() == StatusCode::CREATED {
            if mount.is_some() {
                return Ok(None);
            }
            return Err(self.wrong(endpoint, "it says that an upload that was just begun is over"));
        }
        let mut upload = Upload {
            location: call.url.clone(),
            at: 0,
        };
        if response.headers().get(header::LOCATION).is_none() {
            return Err(self.wrong(endpoint, "it begins an upload without saying where"));
        }
        self.moved(endpoint, &mut upload, &response)?;
        Ok(Some(upload))
    }

    /// Asks how much has arrived. `false` when the upload is unknown.
    async fn status(&self, endpoint: &Endpoint, upload: &mut Upload) -> Result<bool> {
        let call = Call::new(Method::GET, upload.location.clone());
        // The registry may still be busy with the connection that broke.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let response = self.raw(endpoint, &self.scope("pull,push"), &call).await?;
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {
                self.moved(endpoint, upload, &response)?;
                upload.at = range_end(&response).unwrap_or_default();
                Ok(true)
            }
            status if is_passing(status) => Err(self.shared.transport.refusal(&Method::GET, response, endpoint).await),
            _ => Ok(false),
        }
    }

    /// The upload's new place. Only its path and query: it stays with the registry, to which our credentials go.
    fn moved(&self, endpoint: &Endpoint, upload: &mut Upload, response: &Response) -> Result<()> {
        let Some(location) = response.headers().get(header::LOCATION) else {
            return Ok(());
        };
        let next = location
            .to_str()
            .ok()
            .and_then(|location| upload.location.join(location).ok());
        let next = next.filter(|next| matches!(next.scheme(), "http" | "https") && next.has_host());
        let Some(next) = next else {
            return Err(self.wrong(endpoint, "it moves an upload to nowhere"));
        };
        if upload.location.scheme() == "https" && next.scheme() == "http" {
            return Err(self.wrong(
                endpoint,
                &format!(
                    "it moves an upload from https to {}: refused (is X-Forwarded-Proto missing?)",
                    next.origin().ascii_serialization()
                ),
            ));
        }
        upload.location = next;
        Ok(())
    }

    async fn cancel(&self, endpoint: &Endpoint, upload: &Upload) {
        let call = Call::new(Method::DELETE, upload.location.clone());
        if let Err(error) = self.raw(endpoint, &self.scope("pull,push"), &call).await {
            tracing::debug!(%error, "an upload was not cancelled");
        }
    }

    pub(crate) fn wrong(&self, endpoint: &Endpoint, reason: &str) -> Error {
        Error::Answer {
            registry: endpoint.registry.clone(),
            subject: format!("the repository {}", self.path()),
            reason: reason.to_owned(),
        }
    }

    /// Takes away a blob. Not every registry lets one.
    pub fn delete_blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.delete(&format!("blobs/{digest}")).await })
    }
}

/// Whether the registry has more, or less, of an upload than was thought.
fn is_out_of_step(error: &Error) -> bool {
    error
        .answer()
        .is_some_and(|answer| answer.status == StatusCode::RANGE_NOT_SATISFIABLE)
}

fn smaller(chunk: u64) -> u64 {
    if chunk > CHUNK {
        CHUNK
    } else {
        (chunk / 2).max(LEAST_CHUNK)
    }
}

/// `Range: 0-99` (or `bytes=0-99`) says that 100 bytes are there. `0-0` is none with the CNCF registry, and one with others: for
/// one byte it does not matter, for it is sent anyway.
fn range_end(response: &Response) -> Option<u64> {
    let text = response.headers().get(header::RANGE)?.to_str().ok()?.trim();
    let (_, end) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    match end.parse::<u64>().ok()? {
        0 => Some(0),
        end => end.checked_add(1),
    }
}

/// Reads on a thread that blocks.
fn feed(
    source: &dyn Source,
    start: u64,
    end: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    failed: &std::sync::Mutex<Option<io::Error>>,
) {
    let fail = |error: io::Error| {
        let kind = error.kind();
        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
        let _ = sender.blocking_send(Err(io::Error::new(kind, "the source failed")));
    };
    let mut reader = match source.open(start) {
        Ok(reader) => reader,
        Err(error) => return fail(error),
    };
    let mut left = end - start;
    while left > 0 {
        let mut buffer = vec![0; READ.min(usize::try_from(left).unwrap_or(READ))];
        let count = match reader.read(&mut buffer) {
            Ok(0) => {
                let text = format!("it ends {left} bytes early");
                return fail(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return fail(error),
        };
        buffer.truncate(count);
        left -= count as u64;
        if sender.blocking_send(Ok(buffer.into())).is_err() {
            return;
        }
    }
}
