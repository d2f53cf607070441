//! A few namespaces made ahead, so that a start need not wait for one.
//!
//! ```text
//!   take() ── one is ready ──▶ hand it out, wake the filler
//!          └─ none is ───────▶ make one now, on a thread of its own
//!   filler: sleep until below size ▶ wait until nobody has taken one for a while ▶ make one, go home ▶ again
//! ```
//!
//! The filler always returns to the namespace it came from: a thread that stayed would keep a container's namespace
//! alive after the container. It holds the shared state weakly, and ends when the pool is dropped.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::namespace::{self, Namespace};
use crate::{Error, Result};

/// The filler leaves the processor to the start that has just taken a namespace.
const SETTLE: Duration = Duration::from_millis(5);
/// How long the filler rests after it failed to make one.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// The filler's `nice` value.
const NICE: i32 = 10;

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Namespace>,
    size: usize,
    taken: u64,
    closed: bool,
}

impl Pool {
    /// A pool that keeps `size` namespaces ready; with 0 it has no thread and makes each on demand.
    pub fn new(size: usize) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().size = size;
        if size > 0 {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("ferry-netns-pool".to_owned())
                .stack_size(128 * 1024)
                .spawn(move || shared.fill())
                .map_err(|source| Error::Namespace {
                    operation: "start a thread for",
                    source,
                })?;
        }
        Ok(Self { shared })
    }

    /// A ready namespace, or else a new one: never waits for the filler.
    pub fn take(&self) -> Result<Namespace> {
        let ready = {
            let mut state = self.shared.lock();
            state.taken = state.taken.wrapping_add(1);
            state.ready.pop_front()
        };
        self.shared.changed.notify_all();
        match ready {
            Some(namespace) => Ok(namespace),
            None => Namespace::create(),
        }
    }

    /// How many are ready now.
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.ready.clear();
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self) {
        // A namespace for the next container must not take time from the one that is starting. Of this thread only.
        let _ = rustix::process::setpriority_process(None, NICE);
        let Ok(home) = namespace::current() else { return };
        while self.wait_until_wanted() {
            let made = Namespace::become_new();
            if namespace::enter(home.as_fd()).is_err() {
                return;
            }
            match made {
                Ok(namespace) => {
                    let mut state = self.lock();
                    if !state.closed {
                        state.ready.push_back(namespace);
                    }
                }
                Err(_) => {
                    let state = self.lock();
                    let _ = self.changed.wait_timeout_while(state, RETRY, |state| !state.closed);
                }
            }
        }
    }

    /// Returns true when one is to be made, false when the pool is gone.
    fn wait_until_wanted(&self) -> bool {
        let mut state = self.lock();
        while !state.closed {
            if state.ready.len() >= state.size {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let taken = state.taken;
            let (next, quiet) = self
                .changed
                .wait_timeout_while(state, SETTLE, |state| !state.closed && state.taken == taken)
                .unwrap_or_else(PoisonError::into_inner);
            if quiet.timed_out() {
                return !next.closed;
            }
            state = next;
        }
        false
    }
}
