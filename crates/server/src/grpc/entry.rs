//! What is told of builds: while they are under way, afterwards, and after the engine has begun anew.
//!
//! ```text
//! <data root>/builds/history/HASH.log      what happened ([`Log`]); without a name while it is written
//!                            HASH.record   a BuildHistoryRecord, written last
//! ```
//! HASH is that of the name which the client gave its build. What cannot be read is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferry_buildkit::control::BuildHistoryRecord;
use ferry_buildkit::{Message as _, RpcStatus};
use ferry_image::Digest;
use ferry_kit::{AtomicFile, Durability};
use jiff::Timestamp;

use super::log::Log;
use super::progress;

/// How many builds are remembered, and how many bytes of logs.
const REMEMBERED: usize = 100;
const MOST_BYTES: u64 = 256 << 20;
/// Of a record. A larger one goes with the engine.
const RECORD_MAX: u64 = 1 << 20;

/// One build.
#[derive(Debug)]
pub struct Entry {
    pub reference: String,
    pub log: Log,
    /// It is a client's own question, and in no history.
    pub is_internal: bool,
    record: Mutex<BuildHistoryRecord>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    pub fn new(record: BuildHistoryRecord, log: Log, is_internal: bool) -> Self {
        Self {
            reference: record.r#ref.clone(),
            log,
            is_internal,
            record: Mutex::new(record),
        }
    }

    pub fn record(&self) -> BuildHistoryRecord {
        lock(&self.record).clone()
    }

    /// What became of it.
    pub fn note(&self, outcome: Result<BTreeMap<String, String>, RpcStatus>) {
        let mut record = lock(&self.record);
        record.completed_at = Some(progress::timestamp(Timestamp::now()));
        match outcome {
            Ok(told) => record.exporter_response = told,
            Err(status) => record.error = Some(status),
        }
    }

    pub fn count(&self, counts: &progress::Counts) {
        counts.note(&mut lock(&self.record));
    }

    fn is_pinned(&self) -> bool {
        lock(&self.record).pinned
    }
}

/// Builds that have ended, the latest at the end.
#[derive(Debug)]
pub struct History {
    /// None: they are forgotten with the engine.
    dir: Option<PathBuf>,
    entries: Mutex<VecDeque<Arc<Entry>>>,
}

impl History {
    /// What earlier engines have left.
    pub fn open(dir: Option<PathBuf>) -> Self {
        let mut entries = match &dir {
            Some(dir) => read_all(dir).unwrap_or_else(|error| {
                tracing::warn!(%error, dir = %dir.display(), "cannot read the history of builds");
                Vec::new()
            }),
            None => Vec::new(),
        };
        let begun = |entry: &Arc<Entry>| entry.record().created_at.map(|time| (time.seconds, time.nanos));
        entries.sort_by_key(begun);
        let history = Self {
            dir,
            entries: Mutex::new(entries.into()),
        };
        history.bound(&mut lock(&history.entries));
        history
    }

    pub fn find(&self, reference: &str) -> Option<Arc<Entry>> {
        let entries = lock(&self.entries);
        entries.iter().find(|entry| entry.reference == reference).cloned()
    }

    pub fn records(&self) -> Vec<BuildHistoryRecord> {
        let entries = lock(&self.entries);
        let told = entries.iter().filter(|entry| !entry.is_internal);
        told.map(|entry| entry.record()).collect()
    }

    /// One that has ended. Another one of its name is forgotten.
    pub fn add(&self, entry: Arc<Entry>) {
        self.forget(&entry.reference);
        let mut entries = lock(&self.entries);
        entries.push_back(entry);
        self.bound(&mut entries);
    }

    /// The oldest go, but those that somebody wants to keep.
    fn bound(&self, entries: &mut VecDeque<Arc<Entry>>) {
        loop {
            let bytes: u64 = entries.iter().map(|entry| entry.log.size()).sum();
            if entries.len() <= REMEMBERED && (bytes <= MOST_BYTES || entries.len() <= 1) {
                return;
            }
            let Some(oldest) = entries.iter().position(|entry| !entry.is_pinned()) else {
                return;
            };
            if let Some(gone) = entries.remove(oldest) {
                self.remove_files(&gone.reference);
            }
        }
    }

    /// Whether there was such a one.
    pub fn forget(&self, reference: &str) -> bool {
        let mut entries = lock(&self.entries);
        let Some(at) = entries.iter().position(|entry| entry.reference == reference) else {
            return false;
        };
        entries.remove(at);
        self.remove_files(reference);
        true
    }

    /// Keeps one from being forgotten, or does so no more. The error: too many are kept.
    pub fn pin(&self, reference: &str, pinned: bool) -> Result<(), String> {
        let entries = lock(&self.entries);
        let kept = entries.iter().filter(|entry| entry.is_pinned()).count();
        if pinned && kept >= REMEMBERED / 2 {
            return Err(format!("{kept} builds are pinned, which is the most: unpin some first"));
        }
        if let Some(entry) = entries.iter().find(|entry| entry.reference == reference) {
            lock(&entry.record).pinned = pinned;
            self.write(entry);
        }
        Ok(())
    }

    /// Writes one down whose log has ended, if it is not forgotten already. Blocks for a moment.
    pub fn store(&self, entry: &Arc<Entry>) {
        let entries = lock(&self.entries);
        if !entry.is_internal && entries.iter().any(|known| Arc::ptr_eq(known, entry)) {
            self.write(entry);
        }
    }

    fn write(&self, entry: &Entry) {
        let Some(dir) = &self.dir else { return };
        let record = entry.record().encode_to_vec();
        if record.len() as u64 > RECORD_MAX {
            return;
        }
        let write = || {
            entry.log.link(&file(dir, &entry.reference, "log"))?;
            let path = file(dir, &entry.reference, "record");
            AtomicFile::replace(path, &record, 0o600, Durability::Process).map_err(io::Error::other)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "cannot keep a build in the history");
        }
    }

    fn remove_files(&self, reference: &str) {
        let Some(dir) = &self.dir else { return };
        for kind in ["record", "log"] {
            let _ = fs::remove_file(file(dir, reference, kind));
        }
    }
}

fn file(dir: &Path, reference: &str, kind: &str) -> PathBuf {
    dir.join(format!("{}.{kind}", Digest::of(reference).encoded()))
}

fn read_all(dir: &Path) -> io::Result<Vec<Arc<Entry>>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let read = match path.extension().is_some_and(|kind| kind == "record") {
            true => read(&path).map(|entry| found.push(Arc::new(entry))),
            // A log without a record.
            false if path.with_extension("record").exists() => continue,
            false => None,
        };
        if read.is_none() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Option<Entry> {
    if fs::metadata(path).ok()?.len() > RECORD_MAX {
        return None;
    }
    let record = BuildHistoryRecord::decode(&*fs::read(path).ok()?).ok()?;
    let log = Log::open(&path.with_extension("log")).ok()?;
    Some(Entry::new(record, log, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferry_buildkit::Timestamp as WireTime;
    use ferry_buildkit::control::{StatusResponse, VertexLog};

    fn entry(dir: &Path, number: i64) -> Arc<Entry> {
        let log = Log::new(dir).unwrap();
        let line = VertexLog {
            msg: vec![b'x'; 100].into(),
            ..VertexLog::default()
        };
        log.add(StatusResponse {
            logs: vec![line],
            ..StatusResponse::default()
        });
        log.end();
        let record = BuildHistoryRecord {
            r#ref: format!("../{number}"),
            created_at: Some(WireTime {
                seconds: number,
                nanos: 0,
            }),
            ..BuildHistoryRecord::default()
        };
        Arc::new(Entry::new(record, log, false))
    }

    fn references(history: &History) -> Vec<String> {
        history.records().into_iter().map(|record| record.r#ref).collect()
    }

    #[tokio::test]
    async fn what_was_is_known_again_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let open = || History::open(Some(dir.path().to_owned()));
        let history = open();
        for number in [2, 1, 3] {
            let entry = entry(dir.path(), number);
            history.add(Arc::clone(&entry));
            history.store(&entry);
        }
        history.pin("../1", true).unwrap();
        assert!(history.forget("../3") && !history.forget("../3"));
        fs::write(dir.path().join("broken.record"), "x").unwrap();
        fs::write(dir.path().join("alone.log"), "x").unwrap();
        let again = open();
        assert_eq!(references(&again), ["../1", "../2"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        assert!(again.find("../1").unwrap().is_pinned());
        let log = &again.find("../2").unwrap().log;
        let mut position = 0;
        assert_eq!(log.next(&mut position).await.unwrap().logs[0].msg.len(), 100);
        assert_eq!(log.next(&mut position).await, None);
    }

    #[test]
    fn the_oldest_go_but_those_that_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(Some(dir.path().to_owned()));
        for number in 0..=101 {
            let entry = entry(dir.path(), number);
            history.add(Arc::clone(&entry));
            history.store(&entry);
            if number == 0 {
                history.pin("../0", true).unwrap();
            }
        }
        assert_eq!(references(&history)[..2], ["../0", "../3"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2 * REMEMBERED);
        for number in 3..52 {
            history.pin(&format!("../{number}"), true).unwrap();
        }
        assert!(history.pin("../60", true).is_err());
        history.pin("../0", false).unwrap();
        history.pin("../60", true).unwrap();
    }

    #[test]
    fn one_that_was_forgotten_is_not_written_down_behind() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::open(Some(dir.path().to_owned()));
        let entry = entry(dir.path(), 1);
        history.add(Arc::clone(&entry));
        history.forget("../1");
        history.store(&entry);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
