//! A connection that a handler can take from HTTP without an upgrade.
//!
//! Docker answers an attach or an exec without `Upgrade` by a bare `200`, after which the connection is a stream, and clients write
//! a container's input to it (dockerode, unless told to hijack). hyper gives a connection up only after a `101`; so what it has
//! is a handle, from which the connection goes away.
//!
//! ```text
//! hyper ─▶ Held ─┐
//!                ├─ the stream, until it is taken
//! Takeover ──────┘   (in every request's extensions)
//! ```

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::service::Service;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cut::Cut;
use crate::serve::Connected;

/// Any connection.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// A client's connection.
pub enum Stream {
    Unix(UnixStream),
    /// TCP, with TLS or without.
    Other(Box<dyn Duplex>),
}

type Slot = Arc<Mutex<Option<Stream>>>;

/// What HTTP reads and writes. Once the stream was taken nothing comes, and nothing can be written.
pub struct Held(Slot);

/// The way from a request to its connection.
#[derive(Clone)]
pub struct Takeover {
    slot: Slot,
    taken: Arc<Notify>,
}

pub fn hold(stream: Stream) -> (Held, Takeover) {
    let slot = Arc::new(Mutex::new(Some(stream)));
    let takeover = Takeover {
        slot: Arc::clone(&slot),
        taken: Arc::default(),
    };
    (Held(slot), takeover)
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Stream>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Takeover {
    /// The stream, once. The request's handler ends with it: it must have given the stream to somebody when it next waits.
    pub fn take(&self) -> Option<Stream> {
        let stream = lock(&self.slot).take();
        self.taken.notify_one();
        stream
    }

    /// The process at the other end, if it is on this machine.
    pub fn peer(&self) -> Option<i32> {
        match &*lock(&self.slot) {
            Some(Stream::Unix(stream)) => stream.peer_cred().ok()?.pid(),
            _ => None,
        }
    }

    /// Waits until HTTP has lost the connection.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }
}

impl Held {
    /// `None`: it was taken.
    pub fn into_stream(self) -> Option<Stream> {
        lock(&self.0).take()
    }

    fn with<T>(&self, use_it: impl FnOnce(Pin<&mut dyn Duplex>) -> T) -> Option<T> {
        match lock(&self.0).as_mut()? {
            Stream::Unix(stream) => Some(use_it(Pin::new(stream))),
            Stream::Other(stream) => Some(use_it(Pin::new(stream))),
        }
    }
}

impl AsyncRead for Held {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buffer))
            .unwrap_or(Poll::Pending)
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}

impl AsyncWrite for Held {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes)).unwrap_or_else(gone)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx)).unwrap_or_else(gone)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx)).unwrap_or_else(gone)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write_vectored(cx, pieces))
            .unwrap_or_else(gone)
    }

    fn is_write_vectored(&self) -> bool {
        match lock(&self.0).as_ref() {
            Some(Stream::Unix(stream)) => stream.is_write_vectored(),
            Some(Stream::Other(stream)) => stream.is_write_vectored(),
            None => false,
        }
    }
}

/// Tells every request of a connection how to take it, and holds the connection.
#[derive(Clone)]
pub struct Told<S> {
    pub service: S,
    pub connected: Connected,
    pub takeover: Takeover,
    /// What is still to come of a request is not waited for then.
    pub closing: CancellationToken,
}

impl<S: Service<http::Request<Cut<Incoming>>>> Service<http::Request<Incoming>> for Told<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.takeover.clone());
        request.extensions_mut().insert(self.connected.clone());
        self.service.call(request.map(|body| Cut::new(body, &self.closing)))
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takeover")
    }
}
