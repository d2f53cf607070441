//! Threads for work whose pace a client decides: it may send or take a byte an hour, or none. The runtime's threads for what blocks
//! are few, and everything else of an engine needs them.

use std::io;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Does `work` on a thread of its own; `what` is for the error. The thread goes on if nobody waits any more.
pub async fn aside<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("client".to_owned());
    let started = thread.spawn(move || {
        let _ = sender.send(work());
    });
    started.map_err(|error| Error::internal(what, &error))?;
    let fell = |_| Error::internal(what, &io::Error::other("the thread fell"));
    done.await.map_err(fell)
}
