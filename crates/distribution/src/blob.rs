//! Blobs: streams that mend themselves.

use bytes::Bytes;
use ferry_image::{Digest, Hasher};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Response;

use crate::endpoint::Endpoint;
use crate::retry::Retry;
use crate::transport::Pace;
use crate::{Descriptor, Error, Repository, Result};

/// So much between two failures is progress. A server that gives a byte a connection makes none.
const PROGRESS: u64 = 32 << 10;

/// The bytes of a blob from an offset on. When the connection breaks, the next one goes on where it was.
///
/// Never more bytes than the descriptor's size, and an end only when all of them have come. They are not verified: see
/// [`Verified`](crate::Verified).
#[derive(Debug)]
pub struct BlobStream {
    repository: Repository,
    blob: Descriptor,
    /// The first answer says how many bytes there are.
    unsized_yet: bool,
    at: u64,
    end: u64,
    open: Option<Open>,
    retry: Retry,
    /// Where `at` was when the last connection broke.
    broke_at: u64,
    /// Nothing has come yet.
    fresh: bool,
    /// Bytes of bodies that have come, those that were skipped included.
    received: u64,
    connections: u32,
    ignores_range: bool,
    /// The last answer was the whole blob, though a part was asked for.
    whole: bool,
}

#[derive(Debug)]
struct Open {
    response: Response,
    pace: Pace,
    /// Bytes before `at`.
    skip: u64,
}

impl Repository {
    /// The blob's bytes from `offset` on. Nothing happens before the first [`BlobStream::next`].
    pub fn blob(&self, blob: &Descriptor, offset: u64) -> BlobStream {
        self.part(blob, offset, blob.size)
    }

    /// Its bytes from `offset` to before `end`.
    pub(crate) fn part(&self, blob: &Descriptor, offset: u64, end: u64) -> BlobStream {
        let end = end.min(blob.size);
        let at = offset.min(end);
        BlobStream {
            repository: self.clone(),
            blob: blob.clone(),
            unsized_yet: false,
            at,
            end,
            open: None,
            retry: Retry::new(self.limits()),
            broke_at: at,
            fresh: true,
            received: 0,
            connections: 0,
            ignores_range: false,
            whole: false,
        }
    }

    /// A blob of which nobody knows the size but the registry: connects, and takes its word for that. The stream ends after so many
    /// bytes or with an error.
    pub fn blob_of<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobStream>> {
        Box::pin(async move {
            let mut stream = self.blob(&Descriptor::new("", digest.clone(), u64::MAX), 0);
            stream.unsized_yet = true;
            stream.open().await?;
            Ok(stream)
        })
    }

    /// The size of a blob, by HEAD. `None` when the registry has it and does not say.
    pub fn blob_size<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(async move {
            let mut tries = self.tries(self.sources());
            let asked = self.blob(&Descriptor::new("", digest.clone(), u64::MAX), 0);
            loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.blob_size_at(&endpoint, digest).await) {
                    return done.map_err(|error| asked.explain(error));
                }
            }
        })
    }

    async fn blob_size_at(&self, endpoint: &Endpoint, digest: &Digest) -> Result<Option<u64>> {
        let call = self.call(endpoint, Method::HEAD, &format!("blobs/{digest}"), &[])?;
        let response = self.ask(endpoint, &self.scope("pull"), &call, &[200]).await?;
        let length = response.headers().get(header::CONTENT_LENGTH);
        Ok(length.and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// A blob of at most `limit` bytes, whole and verified: a configuration.
    pub fn small_blob<'a>(&'a self, blob: &'a Descriptor, limit: u64) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let registry = || self.name().domain().to_owned();
            let subject = || format!("the blob {}@{}", self.path(), blob.digest);
            if blob.size > limit {
                return Err(Error::TooLarge {
                    registry: registry(),
                    subject: subject(),
                    limit,
                });
            }
            let mut stream = self.blob(blob, 0);
            let mut bytes = bytes::BytesMut::new();
            while let Some(chunk) = stream.next().await? {
                bytes.extend_from_slice(&chunk);
            }
            let mut hasher = Hasher::new(blob.digest.algorithm());
            hasher.update(&bytes);
            match hasher.finish() {
                actual if actual == blob.digest => Ok(bytes.freeze()),
                actual => Err(Error::Digest {
                    registry: registry(),
                    subject: subject(),
                    expected: blob.digest.clone(),
                    actual,
                }),
            }
        })
    }
}

impl BlobStream {
    /// The next bytes; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.at == self.end {
                self.open = None;
                return Ok(None);
            }
            self.open().await?;
            let Some(open) = &mut self.open else { continue };
            let error = match open.pace.chunk(&mut open.response).await {
                Ok(Some(chunk)) => {
                    self.received += chunk.len() as u64;
                    if let Some(bytes) = self.take(chunk) {
                        return Ok(Some(bytes));
                    }
                    continue;
                }
                Ok(None) => self.network("unexpected EOF"),
                Err(error) => error,
            };
            self.broken(error).await?;
        }
    }

    /// Connects, if there is anything to come and no connection.
    pub(crate) fn open(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.open.is_none() && self.at < self.end {
                if let Err(error) = self.connect().await {
                    self.broken(error).await?;
                }
            }
            Ok(())
        })
    }

    /// The server sends all of the blob, whatever is asked for.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Goes on to the end of the blob.
    pub(crate) fn widen(&mut self) {
        self.end = self.blob.size;
    }

    /// As a stream of the `futures` crates.
    pub fn into_stream(self) -> impl futures_util::Stream<Item = Result<Bytes>> {
        futures_util::stream::try_unfold(self, async |mut stream| {
            Ok(stream.next().await?.map(|bytes| (bytes, stream)))
        })
    }

    /// Of the whole blob.
    pub fn size(&self) -> u64 {
        self.blob.size
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Bytes that came over the network, also those that were not wanted.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Requests that were answered with bytes.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// The server sent the whole blob when it was asked for a part: what was known came again.
    pub fn ignores_range(&self) -> bool {
        self.ignores_range
    }

    /// What is new in a chunk.
    fn take(&mut self, mut chunk: Bytes) -> Option<Bytes> {
        let open = self.open.as_mut()?;
        let skipped = usize::try_from(open.skip).unwrap_or(usize::MAX).min(chunk.len());
        open.skip -= skipped as u64;
        let _ = chunk.split_to(skipped);
        let wanted = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        chunk.truncate(wanted);
        if chunk.is_empty() {
            return None;
        }
        self.fresh = false;
        self.at += chunk.len() as u64;
        Some(chunk)
    }

    /// Waits before the next connection, or gives up.
    async fn broken(&mut self, error: Error) -> Result<()> {
        self.open = None;
        if self.at - self.broke_at >= PROGRESS {
            self.broke_at = self.at;
            self.retry.progressed();
        }
        let at_first = self.fresh && matches!(error, Error::Network { unreachable: true, .. });
        if at_first {
            return Err(error);
        }
        let (ignores_range, at) = (self.ignores_range, self.at);
        self.retry.after(error).await.map_err(|error| match error {
            Error::Network {
                method,
                url,
                cause,
                unreachable,
            } if at > 0 => {
                let hint = if ignores_range {
                    "; the server does not support Range, so it began anew each time"
                } else {
                    ""
                };
                let cause = format!("{cause} (after {at} of {} bytes{hint})", self.blob.size);
                Error::Network {
                    method,
                    url,
                    cause,
                    unreachable,
                }
            }
            error => error,
        })
    }

    async fn connect(&mut self) -> Result<()> {
        let repository = self.repository.clone();
        let mut tries = repository.tries(repository.sources());
        let (response, start) = loop {
            let endpoint = tries.next().map_err(|error| self.explain(error))?;
            if let Some(done) = tries.settle(&endpoint, self.request(&endpoint).await) {
                break done.map_err(|error| self.explain(error))?;
            }
        };
        if self.unsized_yet {
            // `request` has looked that it is there.
            self.blob.size = response.content_length().unwrap_or_default();
            self.end = self.blob.size;
            self.unsized_yet = false;
        }
        self.connections += 1;
        self.ignores_range |= start < self.at;
        self.whole = response.status() == StatusCode::OK && self.end < self.blob.size;
        self.open = Some(Open {
            response,
            pace: Pace::new(repository.limits().stall, repository.limits().least),
            skip: self.at - start,
        });
        Ok(())
    }

    /// An answer with the blob's bytes, and which is its first.
    async fn request(&self, endpoint: &Endpoint) -> Result<(Response, u64)> {
        let repository = &self.repository;
        let mut call = repository.get(endpoint, &format!("blobs/{}", self.blob.digest))?;
        let whole = self.at == 0 && self.end == self.blob.size;
        if !whole {
            // By digest there is only one content: no If-Range is needed for parts to fit together.
            let range = if self.end == self.blob.size {
                format!("bytes={}-", self.at)
            } else {
                format!("bytes={}-{}", self.at, self.end - 1)
            };
            call = call.header(header::RANGE, &range);
        }
        // Parts of encoded bodies would not fit.
        call = call.header(header::ACCEPT_ENCODING, "identity");
        let shared = &repository.shared;
        let response = shared
            .transport
            .send(&shared.authorizer, endpoint, &repository.scope("pull"), &call)
            .await?;
        let status = response.status();
        let wrong = |reason: String| Error::Answer {
            registry: endpoint.registry.clone(),
            subject: format!("the blob {}@{}", repository.path(), self.blob.digest),
            reason,
        };
        let size = self.blob.size;
        match status {
            StatusCode::OK => match response.content_length() {
                None if self.unsized_yet => Err(wrong("it does not say how many bytes it has".to_owned())),
                Some(length) if !self.unsized_yet && length != size => {
                    Err(wrong(format!("it has {length} bytes, its descriptor says {size}")))
                }
                _ => Ok((response, 0)),
            },
            StatusCode::PARTIAL_CONTENT => match content_range(response.headers()) {
                Some((start, total)) if start <= self.at && total.is_none_or(|total| total == size) => {
                    Ok((response, start))
                }
                Some((_, Some(total))) if total != size => {
                    Err(wrong(format!("it has {total} bytes, its descriptor says {size}")))
                }
                Some((start, _)) => Err(wrong(format!(
                    "asked for bytes from {} on, it gave them from {start} on",
                    self.at
                ))),
                None => Err(wrong("it sent a part without saying which".to_owned())),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => {
                Err(wrong(format!("it has no byte {}, its descriptor says {size}", self.at)))
            }
            _ => Err(shared.transport.refusal(&call.method, response, endpoint).await),
        }
    }

    fn explain(&self, error: Error) -> Error {
        match error {
            Error::Refused { answer, .. } if answer.is_unknown() => Error::BlobUnknown {
                registry: self.repository.name().domain().to_owned(),
                repository: self.repository.path().to_owned(),
                digest: self.blob.digest.clone(),
                answer,
            },
            error => self.repository.pull_error(error, self.repository.name()),
        }
    }

    fn network(&self, cause: &str) -> Error {
        let url = self
            .open
            .as_ref()
            .map(|open| crate::transport::shown_url(open.response.url()));
        Error::Network {
            method: "Get",
            url: url.unwrap_or_default(),
            cause: cause.to_owned(),
            unreachable: false,
        }
    }
}

/// First byte, and the size of the whole where it is said (RFC 9110 section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((start.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_where_they_begin() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(of("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(of("bytes 0-9/*"), Some((0, None)));
        for text in [
            "bytes */10",
            "items 0-1/2",
            "bytes 0-1",
            "bytes 99999999999999999999-1/2",
            "bytes a-1/2",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
