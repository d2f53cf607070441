//! Work on many files by a few threads.

use std::collections::HashMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::entry::Entry;
use crate::aside::Stop;
use crate::error::{Error, Result};

/// More threads wait for the same disk.
const MOST_THREADS: usize = 4;
/// Files of one directory that one thread does at once.
const BATCH: usize = 128;

/// Entries of one directory, by their places.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    /// In the part.
    pub parent: &'a Path,
    pub entries: Vec<usize>,
}

/// Those entries that `is_wanted`, by directory.
pub(super) fn batches(entries: &[Entry], is_wanted: impl Fn(usize, &Entry) -> bool) -> Vec<Batch<'_>> {
    let mut found: Vec<Batch<'_>> = Vec::new();
    let mut open: HashMap<&Path, usize> = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if !is_wanted(at, entry) {
            continue;
        }
        let parent = entry.path.parent().unwrap_or(Path::new(""));
        let batch = *open.entry(parent).or_insert(usize::MAX);
        match found.get_mut(batch).filter(|batch| batch.entries.len() < BATCH) {
            Some(batch) => batch.entries.push(at),
            None => {
                open.insert(parent, found.len());
                let entries = vec![at];
                found.push(Batch { parent, entries });
            }
        }
    }
    found
}

/// What `work` makes of each job, in no order. Ends early when one fails.
pub(super) fn map<T: Sync, R: Send>(jobs: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(MOST_THREADS).min(jobs.len());
    if threads < 2 {
        return jobs.iter().map(work).collect();
    }
    let (next, stop) = (AtomicUsize::new(0), Stop::current());
    let worker = || {
        let mut done = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            match work(job) {
                Ok(result) => done.push(result),
                Err(error) => {
                    next.store(jobs.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| stop.within(worker))).collect();
        let mut all = worker();
        for other in others {
            let done = other
                .join()
                .unwrap_or_else(|_| Err(Error::Internal("a thread panicked".into())));
            match (&mut all, done) {
                (Ok(all), Ok(done)) => all.extend(done),
                (Ok(_), Err(error)) => all = Err(error),
                (Err(_), _) => {}
            }
        }
        all
    })
}
