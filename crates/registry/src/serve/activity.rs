//! Whether a connection is used: a request that is answered, up to the last byte of its answer, and how long ago the last one
//! was. It counts for both versions of HTTP, and for a client that has sent nothing yet.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

#[derive(Debug)]
pub struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    running: usize,
    /// Since when nothing runs.
    since: Instant,
}

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            running: 0,
            since: Instant::now(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(self: &Arc<Self>) -> Running {
        self.state().running += 1;
        Running(self.clone())
    }

    /// Returns when nothing ran for so long.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let end = match &*self.state() {
                State { running: 0, since } => *since + limit,
                _ => Instant::now() + limit,
            };
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A request that runs until this goes.
#[derive(Debug)]
pub struct Running(Arc<Activity>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.running -= 1;
        state.since = Instant::now();
    }
}

/// An answer's body, with the request that it ends.
#[derive(Debug)]
pub struct Answering {
    body: Body,
    _running: Running,
}

impl Answering {
    pub fn new(response: Response, running: Running) -> http::Response<Self> {
        response.map(|body| Self {
            body,
            _running: running,
        })
    }
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_after_its_last_answer_and_not_during_one() {
        const LIMIT: Duration = Duration::from_millis(50);
        let activity = Activity::new();
        let running = activity.begin();
        assert!(tokio::time::timeout(LIMIT * 5, activity.idle(LIMIT)).await.is_err());
        drop(running);
        let begin = Instant::now();
        activity.idle(LIMIT).await;
        assert!(begin.elapsed() >= LIMIT);
    }
}
