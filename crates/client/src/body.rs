use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{Result, client::Lease};

/// How much of an upload is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// What a request carries.
pub enum Body {
    Empty,
    Json(Bytes),
    /// Sent in chunks as it is read.
    Reader(Pin<Box<dyn AsyncRead + Send>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Json(_) => "Json",
            Self::Reader(_) => "Reader",
        })
    }
}

impl Body {
    pub fn json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self> {
        Ok(Self::Json(serde_json::to_vec(value)?.into()))
    }

    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::Reader(Box::pin(reader))
    }

    /// The same body again; none for what is read once.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Json(bytes) => Some(Self::Json(bytes.clone())),
            Self::Reader(_) => None,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Json(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Reader(reader) => {
                let mut chunk = BytesMut::zeroed(CHUNK);
                let mut buffer = ReadBuf::new(&mut chunk);
                let result = ready!(reader.as_mut().poll_read(context, &mut buffer));
                let count = buffer.filled().len();
                Poll::Ready(match result {
                    Err(error) => Some(Err(error)),
                    Ok(()) if count == 0 => None,
                    Ok(()) => {
                        chunk.truncate(count);
                        Some(Ok(Frame::data(chunk.freeze())))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Empty => http_body::SizeHint::with_exact(0),
            Self::Json(bytes) => http_body::SizeHint::with_exact(bytes.len() as u64),
            Self::Reader(_) => http_body::SizeHint::default(),
        }
    }
}

/// An answer with a status below 400; its body is still to be read.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub(crate) body: Incoming,
    pub(crate) lease: Lease,
}

impl Response {
    /// The whole body.
    pub async fn bytes(mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    pub async fn json<T: DeserializeOwned>(self) -> Result<T> {
        Ok(serde_json::from_slice(&self.bytes().await?)?)
    }

    /// The next piece as it arrives; none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        self.lease.give_back();
        Ok(None)
    }

    /// The header's text, empty when there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    #[must_use]
    pub fn lines(self) -> Lines {
        Lines {
            response: self,
            buffer: BytesMut::new(),
            scanned: 0,
            ended: false,
        }
    }
}

/// A stream of JSON values, one a line.
#[derive(Debug)]
pub struct Lines {
    response: Response,
    buffer: BytesMut,
    scanned: usize,
    ended: bool,
}

impl Lines {
    /// The next line without its end, skipping empty ones; none at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(found) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(self.scanned + found + 1);
                self.scanned = 0;
                let length = line.trim_ascii_end().len();
                line.truncate(length);
                if !line.is_empty() {
                    return Ok(Some(line.freeze()));
                }
                continue;
            }
            self.scanned = self.buffer.len();
            if self.ended {
                let rest = std::mem::take(&mut self.buffer);
                self.scanned = 0;
                return Ok(Some(rest.freeze()).filter(|rest| !rest.trim_ascii().is_empty()));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => self.ended = true,
            }
        }
    }

    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        match self.next().await? {
            Some(line) => Ok(Some(serde_json::from_slice(&line)?)),
            None => Ok(None),
        }
    }
}
