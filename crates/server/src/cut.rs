//! Requests that are still being sent when the engine ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A body whose rest is not waited for once the engine ends: the client may never send it.
#[derive(Debug)]
pub struct Cut<B> {
    inner: B,
    /// Of a body that has something.
    ends: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<B: Body> Cut<B> {
    pub fn new(inner: B, closing: &CancellationToken) -> Self {
        let ends = (!inner.is_end_stream()).then(|| Box::pin(closing.clone().cancelled_owned()));
        Self { inner, ends }
    }
}

impl<B: Body<Data = Bytes, Error: Into<axum::BoxError>> + Unpin> Body for Cut<B> {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.ends.as_mut().map(|ends| ends.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Some(Err(io::Error::other("the engine ends").into()))),
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
