//! What a client still sends of a request that has been refused.
//!
//! hyper closes a connection whose request was not read whole, and a client in the midst of writing it then has a broken pipe
//! instead of the answer. So what is left is read before the answer goes, as Go's server does, but not forever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use http::header;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

/// How long a client may go on sending.
const PATIENCE: Duration = Duration::from_secs(2);
/// A client that is silent for so long waits for its answer.
const SILENCE: Duration = Duration::from_millis(250);
/// More than any context or archive that somebody sends without looking whether there is an answer.
const MOST: usize = 64 << 20;

/// A body that its handler reads, and somebody else what the handler left.
#[derive(Clone)]
pub struct Leftover(Arc<Mutex<Body>>);

impl Leftover {
    /// `None` for a request without a body, and for one whose client waits to be told to send it.
    pub fn of(request: &mut Request) -> Option<Self> {
        if request.body().is_end_stream() || request.headers().contains_key(header::EXPECT) {
            return None;
        }
        let body = std::mem::take(request.body_mut());
        let shared = Self(Arc::new(Mutex::new(body)));
        *request.body_mut() = Body::new(shared.clone());
        Some(shared)
    }

    /// Reads it to its end, or until the client has had its time.
    pub async fn drain(mut self) {
        let rest = async {
            let mut read = 0;
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, self.frame()).await {
                read += frame.data_ref().map_or(0, Bytes::len);
                if read > MOST {
                    return;
                }
            }
        };
        // Too long or too much: the connection is closed.
        let _ = tokio::time::timeout(PATIENCE, rest).await;
    }

    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Leftover {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test]
    async fn what_a_handler_left_is_read_and_a_silent_client_is_not_waited_for() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(4);
        let mut request = Request::new(Body::from_stream(ReceiverStream::new(receiver)));
        let leftover = Leftover::of(&mut request).unwrap();
        sender.send(Ok(Bytes::from_static(b"one"))).await.unwrap();
        let mut body = request.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        drop(body);
        sender.send(Ok(Bytes::from_static(b"two"))).await.unwrap();
        let begin = tokio::time::Instant::now();
        leftover.drain().await;
        assert!(begin.elapsed() >= SILENCE && begin.elapsed() < PATIENCE);
        assert!(sender.capacity() == 4 && sender.is_closed());
        assert!(Leftover::of(&mut Request::new(Body::empty())).is_none());
    }
}
