//! Threads for what blocks, and work that nobody waits for any more: it is given up with its build, however much of it is left.

use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use crate::error::{Error, Result};

thread_local! {
    /// Of what this thread does.
    static CURRENT: RefCell<Stop> = RefCell::default();
}

/// Whether work is to stop. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// Dropped, the work stops.
struct Awaited(Stop);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

impl Stop {
    /// That of the work this thread does.
    pub fn current() -> Self {
        CURRENT.with_borrow(Self::clone)
    }

    /// Does work that looks at this one.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.replace(self.clone());
        let done = work();
        CURRENT.set(before);
        done
    }
}

/// An error when nobody waits for what this thread does. To be asked now and then in anything that may be long.
pub(crate) fn go_on() -> io::Result<()> {
    match CURRENT.with_borrow(|stop| stop.0.load(Ordering::Relaxed)) {
        true => Err(io::Error::other("the build was given up")),
        false => Ok(()),
    }
}

/// A reader that ends with an error when nobody waits for what is read.
pub(crate) struct Awaiting<R>(pub R);

impl<R: Read> Read for Awaiting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        go_on()?;
        self.0.read(buffer)
    }
}

/// Begins work on files, on one of the runtime's threads; `what` is for the error.
pub fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let awaited = Awaited(Stop::default());
    let stop = awaited.0.clone();
    // Boxed, so that a task is compiled once for each type of result.
    let work: Box<dyn FnOnce() -> T + Send> = Box::new(move || stop.within(work));
    let working = tokio::task::spawn_blocking(work);
    async move {
        let _awaited = awaited;
        working.await.map_err(|error| Error::internal(what, &error))
    }
}

/// Begins work on a thread of its own, whose pace a client decides: it may send or take a byte an hour, or none. The runtime's
/// threads are few, and everything else of an engine needs them.
pub fn aside<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T>> + Send {
    let awaited = Awaited(Stop::default());
    let stop = awaited.0.clone();
    let (sender, done) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("client".to_owned());
    let started = thread.spawn(move || {
        let _runtime = runtime.enter();
        let _ = sender.send(stop.within(work));
    });
    async move {
        let _awaited = awaited;
        started.map_err(|error| Error::internal(what, &error))?;
        let fell = |_| Error::internal(what, &io::Error::other("the thread fell"));
        done.await.map_err(fell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_ends_when_nobody_waits() {
        let (sender, mut ended) = oneshot::channel();
        let endless = move || {
            let copied = io::copy(&mut Awaiting(io::repeat(0)), &mut io::sink());
            let _ = sender.send(copied.is_err());
        };
        let working = blocking("work", endless);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(ended.try_recv().is_err());
        drop(working);
        assert_eq!(ended.await, Ok(true));
        assert!(go_on().is_ok());
    }
}
