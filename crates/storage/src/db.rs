//! The state database: versioned JSON documents in one SQLite file.
//!
//! ```text
//! put, delete, commit, all ── bounded channel ──▶ one OS thread with the one connection ── oneshot ──▶ answer
//! ```
//!
//! WAL keeps a commit to one write. [`Durability::Process`] survives the death of the engine (the page cache has it),
//! [`Durability::Power`] a power cut as well (one fsync); a later commit of the second kind covers all earlier ones.
//!
//! A commit that deletes something succeeds on a full disk too: it gets room of the file `reserve` beside the database.
//!
//! A document that does not parse is moved to the table `quarantine` and named in [`Db::quarantined`]; the others are not
//! touched. A document, or a database, of a version this build does not know is an error and nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::reserve::Reserve;
use crate::{Error, Result};

/// The layout of the tables, in `PRAGMA user_version`.
const SCHEMA: u32 = 1;
/// "FRRY": marks the file as Ferry's (`PRAGMA application_id`).
const APPLICATION: u32 = 0x4652_5259;
/// Commits that may wait for the thread.
const QUEUE: usize = 256;
/// How long a commit waits for a reader of another process (an administrator's `sqlite3`), in milliseconds.
const BUSY_MS: u32 = 5000;

/// Something that is stored under a kind and a key.
pub trait Document: Serialize + DeserializeOwned + Send + 'static {
    const KIND: &'static str;
    const VERSION: u32;

    fn key(&self) -> &str;

    /// Brings the body of an older version up to [`VERSION`](Self::VERSION). Fields that were added with a
    /// `#[serde(default)]` need nothing here.
    fn upgrade(_version: u32, body: serde_json::Value) -> serde_json::Value {
        body
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of the engine loses nothing.
    Process,
    /// A power cut loses nothing either.
    Power,
}

/// Several changes that happen together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Put {
        kind: &'static str,
        key: String,
        version: u32,
        body: Vec<u8>,
    },
    Delete {
        kind: &'static str,
        key: String,
    },
}

/// A document that could not be read and was put aside.
#[derive(Clone, Debug)]
pub struct Quarantined {
    pub kind: String,
    pub key: String,
    pub why: String,
}

#[derive(Clone, Debug)]
pub struct Db {
    inner: Arc<Inner>,
}

/// A handle that keeps the database from being closed only while it is used.
#[derive(Clone, Debug)]
pub(crate) struct WeakDb {
    path: PathBuf,
    jobs: Option<mpsc::WeakSender<Job>>,
}

impl WeakDb {
    /// [`Db::commit_blocking`]. Fails with [`Error::Closed`] once the database is closed.
    pub fn commit_blocking(&self, batch: Batch, durability: Durability) -> Result<()> {
        let jobs = self
            .jobs
            .as_ref()
            .and_then(mpsc::WeakSender::upgrade)
            .ok_or(Error::Closed)?;
        ask_blocking(&jobs, &self.path, Work::Commit { batch, durability }).map(drop)
    }
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    quarantined: Mutex<Vec<Quarantined>>,
}

#[derive(Debug)]
struct Job {
    work: Work,
    reply: oneshot::Sender<std::result::Result<Vec<Row>, rusqlite::Error>>,
}

#[derive(Debug)]
enum Work {
    Commit {
        batch: Batch,
        durability: Durability,
    },
    All {
        kind: &'static str,
    },
    Quarantine {
        kind: &'static str,
        key: String,
        why: String,
    },
    Forget(Quarantined),
}

#[derive(Debug)]
struct Row {
    key: String,
    version: u32,
    body: Vec<u8>,
}

impl Batch {
    pub fn put<T: Document>(&mut self, document: &T) -> Result<()> {
        let body = serde_json::to_vec(document)
            .map_err(|error| Error::Invalid(format!("{} {}: {error}", T::KIND, document.key())))?;
        let (key, version) = (document.key().to_owned(), T::VERSION);
        self.changes.push(Change::Put {
            kind: T::KIND,
            key,
            version,
            body,
        });
        Ok(())
    }

    pub fn delete<T: Document>(&mut self, key: &str) {
        self.changes.push(Change::Delete {
            kind: T::KIND,
            key: key.to_owned(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether the disk is emptier afterwards.
    fn frees(&self) -> bool {
        self.changes
            .iter()
            .any(|change| matches!(change, Change::Delete { .. }))
    }
}

impl Db {
    /// Opens or creates the database and starts its thread. Blocks.
    pub fn open(path: &Path) -> Result<Self> {
        let mut reserve = Reserve::new(path.with_file_name("reserve"));
        // Even opening takes some room for the log.
        let connection = loop {
            match connect(path) {
                Err(Error::NoSpace { .. }) if reserve.give() => {}
                connected => break connected?,
            }
        };
        reserve.fill();
        let quarantined = put_aside(&connection).map_err(|source| failed(path, source))?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("ferry-db".to_owned())
            .spawn(move || serve(connection, reserve, queue))
            .map_err(|source| Error::io("start the thread of", path, source))?;
        let inner = Inner {
            path: path.to_owned(),
            jobs: Some(jobs),
            thread: Some(thread),
            quarantined: Mutex::new(quarantined),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub async fn put<T: Document>(&self, document: &T, durability: Durability) -> Result<()> {
        let mut batch = Batch::default();
        batch.put(document)?;
        self.commit(batch, durability).await
    }

    pub async fn delete<T: Document>(&self, key: &str, durability: Durability) -> Result<()> {
        let mut batch = Batch::default();
        batch.delete::<T>(key);
        self.commit(batch, durability).await
    }

    /// Carries out all changes of a batch in one transaction.
    pub async fn commit(&self, batch: Batch, durability: Durability) -> Result<()> {
        self.ask(Work::Commit { batch, durability }).await.map(drop)
    }

    /// Queues a batch: it is written before whatever is asked for after this. The returned future is the outcome; if nobody
    /// waits for it, a failure is logged.
    pub async fn commit_later(&self, batch: Batch) -> impl Future<Output = Result<()>> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let work = Work::Commit {
            batch,
            durability: Durability::Process,
        };
        if let Some(jobs) = &self.inner.jobs {
            // A queue that is closed drops `reply`, which the future tells.
            let _ = jobs.send(Job { work, reply }).await;
        }
        let path = self.inner.path.clone();
        async move {
            let answer = answer.await.map_err(|_| Error::Closed)?;
            answer.map(drop).map_err(|source| failed(&path, source))
        }
    }

    /// All documents of a kind, in the order of their keys.
    pub async fn all<T: Document>(&self) -> Result<Vec<T>> {
        let rows = self.ask(Work::All { kind: T::KIND }).await?;
        let (documents, bad) = parse::<T>(rows)?;
        for (key, why) in bad {
            self.note(T::KIND, &key, &why);
            self.ask(Work::Quarantine {
                kind: T::KIND,
                key,
                why,
            })
            .await?;
        }
        Ok(documents)
    }

    /// [`commit`](Self::commit) for a thread that may block: panics on an asynchronous worker.
    pub fn commit_blocking(&self, batch: Batch, durability: Durability) -> Result<()> {
        self.ask_blocking(Work::Commit { batch, durability }).map(drop)
    }

    /// [`all`](Self::all) for a thread that may block: panics on an asynchronous worker.
    pub fn all_blocking<T: Document>(&self) -> Result<Vec<T>> {
        let rows = self.ask_blocking(Work::All { kind: T::KIND })?;
        let (documents, bad) = parse::<T>(rows)?;
        for (key, why) in bad {
            self.note(T::KIND, &key, &why);
            self.ask_blocking(Work::Quarantine {
                kind: T::KIND,
                key,
                why,
            })?;
        }
        Ok(documents)
    }

    pub(crate) fn downgrade(&self) -> WeakDb {
        WeakDb {
            path: self.inner.path.clone(),
            jobs: self.inner.jobs.as_ref().map(mpsc::Sender::downgrade),
        }
    }

    /// What has been put aside, by this process or an earlier one, and not [forgotten](Self::forget).
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.put_aside().clone()
    }

    /// Deletes what was put aside. Blocks: panics on an asynchronous worker.
    pub(crate) fn forget(&self, bad: &Quarantined) -> Result<()> {
        self.ask_blocking(Work::Forget(bad.clone()))?;
        self.put_aside()
            .retain(|other| (&other.kind, &other.key) != (&bad.kind, &bad.key));
        Ok(())
    }

    fn put_aside(&self) -> std::sync::MutexGuard<'_, Vec<Quarantined>> {
        self.inner.quarantined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kind: &str, key: &str, why: &str) {
        let found = Quarantined {
            kind: kind.to_owned(),
            key: key.to_owned(),
            why: why.to_owned(),
        };
        self.put_aside().push(found);
    }

    async fn ask(&self, work: Work) -> Result<Vec<Row>> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.inner.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(Job { work, reply }).await.map_err(|_| Error::Closed)?;
        answer
            .await
            .map_err(|_| Error::Closed)?
            .map_err(|source| failed(&self.inner.path, source))
    }

    fn ask_blocking(&self, work: Work) -> Result<Vec<Row>> {
        let jobs = self.inner.jobs.as_ref().ok_or(Error::Closed)?;
        ask_blocking(jobs, &self.inner.path, work)
    }
}

fn ask_blocking(jobs: &mpsc::Sender<Job>, path: &Path, work: Work) -> Result<Vec<Row>> {
    let (reply, answer) = oneshot::channel();
    jobs.blocking_send(Job { work, reply }).map_err(|_| Error::Closed)?;
    let answer = answer.blocking_recv().map_err(|_| Error::Closed)?;
    answer.map_err(|source| failed(path, source))
}

impl Drop for Inner {
    /// Everything queued is written and the log folded into the file before the data root can be locked again.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let failed = |source| failed(path, source);
    let connection = Connection::open(path).map_err(failed)?;
    connection
        .busy_timeout(std::time::Duration::from_millis(BUSY_MS.into()))
        .map_err(failed)?;
    let found: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    if found > SCHEMA {
        return Err(Error::Newer {
            what: format!("the database {}", path.display()),
            found,
            supported: SCHEMA,
        });
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(Error::Invalid(format!(
            "{} is on a file system without shared memory",
            path.display()
        )));
    }
    connection
        .pragma_update(None, "synchronous", "NORMAL")
        .map_err(failed)?;
    if found == SCHEMA {
        return Ok(connection);
    }
    connection
        .execute_batch(&format!(
            "BEGIN IMMEDIATE;
             CREATE TABLE IF NOT EXISTS documents (
                 kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
                 PRIMARY KEY (kind, key)) STRICT;
             CREATE TABLE IF NOT EXISTS quarantine (
                 kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
                 why TEXT NOT NULL) STRICT;
             PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = {SCHEMA};
             COMMIT;"
        ))
        .map_err(failed)?;
    Ok(connection)
}

#[allow(clippy::needless_pass_by_value, reason = "the thread owns both")]
fn serve(mut connection: Connection, mut reserve: Reserve, mut queue: mpsc::Receiver<Job>) {
    let mut current = Durability::Process;
    while let Some(Job { work, reply }) = queue.blocking_recv() {
        let answer = match work {
            Work::Commit { batch, durability } => loop {
                match commit(&mut connection, &batch, durability, &mut current) {
                    Err(error) if is_full(&error) && batch.frees() && reserve.give() => {}
                    done => {
                        if done.is_ok() {
                            reserve.fill();
                        }
                        break done;
                    }
                }
            },
            Work::All { kind } => all(&connection, kind),
            Work::Quarantine { kind, key, why } => quarantine(&mut connection, kind, &key, &why),
            Work::Forget(bad) => connection
                .execute(
                    "DELETE FROM quarantine WHERE kind = ?1 AND key = ?2",
                    [bad.kind, bad.key],
                )
                .map(|_| Vec::new()),
        };
        if let Err(Err(error)) = reply.send(answer) {
            tracing::error!(%error, "cannot write a record");
        }
    }
}

fn commit(
    connection: &mut Connection,
    batch: &Batch,
    durability: Durability,
    current: &mut Durability,
) -> rusqlite::Result<Vec<Row>> {
    if durability != *current {
        let level = if durability == Durability::Power {
            "FULL"
        } else {
            "NORMAL"
        };
        connection.pragma_update(None, "synchronous", level)?;
        *current = durability;
    }
    let transaction = connection.transaction()?;
    for change in &batch.changes {
        match change {
            Change::Put {
                kind,
                key,
                version,
                body,
            } => transaction
                .prepare_cached(
                    "INSERT INTO documents (kind, key, version, body) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (kind, key) DO UPDATE SET version = excluded.version, body = excluded.body",
                )?
                .execute(params![kind, key, version, body])?,
            Change::Delete { kind, key } => transaction
                .prepare_cached("DELETE FROM documents WHERE kind = ?1 AND key = ?2")?
                .execute(params![kind, key])?,
        };
    }
    transaction.commit()?;
    Ok(Vec::new())
}

fn all(connection: &Connection, kind: &str) -> rusqlite::Result<Vec<Row>> {
    let mut statement =
        connection.prepare_cached("SELECT key, version, body FROM documents WHERE kind = ?1 ORDER BY key")?;
    let rows = statement.query_map([kind], |row| {
        Ok(Row {
            key: row.get(0)?,
            version: row.get(1)?,
            body: row.get(2)?,
        })
    })?;
    rows.collect()
}

fn quarantine(connection: &mut Connection, kind: &str, key: &str, why: &str) -> rusqlite::Result<Vec<Row>> {
    let transaction = connection.transaction()?;
    let found: Option<i64> = transaction
        .query_row(
            "SELECT 1 FROM documents WHERE kind = ?1 AND key = ?2",
            [kind, key],
            |row| row.get(0),
        )
        .optional()?;
    if found.is_some() {
        transaction.execute(
            "INSERT INTO quarantine SELECT kind, key, version, body, ?3 FROM documents WHERE kind = ?1 AND key = ?2",
            [kind, key, why],
        )?;
        transaction.execute("DELETE FROM documents WHERE kind = ?1 AND key = ?2", [kind, key])?;
    }
    transaction.commit()?;
    Ok(Vec::new())
}

fn put_aside(connection: &Connection) -> rusqlite::Result<Vec<Quarantined>> {
    let mut statement = connection.prepare("SELECT DISTINCT kind, key, why FROM quarantine")?;
    let rows = statement.query_map([], |row| {
        Ok(Quarantined {
            kind: row.get(0)?,
            key: row.get(1)?,
            why: row.get(2)?,
        })
    })?;
    rows.collect()
}

type Bad = Vec<(String, String)>;

fn parse<T: Document>(rows: Vec<Row>) -> Result<(Vec<T>, Bad)> {
    let (mut documents, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        if row.version > T::VERSION {
            let what = format!("the record {} {}", T::KIND, row.key);
            return Err(Error::Newer {
                what,
                found: row.version,
                supported: T::VERSION,
            });
        }
        let document = if row.version == T::VERSION {
            serde_json::from_slice::<T>(&row.body)
        } else {
            serde_json::from_slice(&row.body).and_then(|body| serde_json::from_value(T::upgrade(row.version, body)))
        };
        match document {
            Ok(document) if document.key() == row.key => documents.push(document),
            Ok(document) => bad.push((row.key, format!("holds the key {:?}", document.key()))),
            Err(error) => bad.push((row.key, error.to_string())),
        }
    }
    Ok((documents, bad))
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn failed(path: &Path, source: rusqlite::Error) -> Error {
    if is_full(&source) {
        let source = rustix::io::Errno::NOSPC.into();
        return Error::NoSpace {
            path: path.to_owned(),
            source,
        };
    }
    Error::Database {
        path: path.to_owned(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        name: String,
        size: u32,
    }

    impl Document for Thing {
        const KIND: &'static str = "thing";
        const VERSION: u32 = 2;

        fn key(&self) -> &str {
            &self.name
        }

        fn upgrade(_: u32, mut body: serde_json::Value) -> serde_json::Value {
            body["size"] = body["length"].take();
            body
        }
    }

    fn thing(name: &str, size: u32) -> Thing {
        Thing {
            name: name.to_owned(),
            size,
        }
    }

    fn write(path: &Path, sql: &str) {
        Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }

    #[tokio::test]
    async fn documents_are_there_after_the_next_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.db");
        let db = Db::open(&path).unwrap();
        db.put(&thing("b", 1), Durability::Process).await.unwrap();
        db.put(&thing("a", 1), Durability::Power).await.unwrap();
        db.put(&thing("a", 2), Durability::Process).await.unwrap();
        db.put(&thing("gone", 2), Durability::Process).await.unwrap();
        db.delete::<Thing>("gone", Durability::Power).await.unwrap();
        drop(db);
        let db = Db::open(&path).unwrap();
        assert_eq!(db.all::<Thing>().await.unwrap(), [thing("a", 2), thing("b", 1)]);
    }

    #[tokio::test]
    async fn a_broken_document_is_put_aside_and_named_and_the_others_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.db");
        let db = Db::open(&path).unwrap();
        db.put(&thing("good", 1), Durability::Power).await.unwrap();
        write(
            &path,
            "INSERT INTO documents VALUES ('thing', 'bad', 2, CAST('{\"name\":' AS BLOB)),
                      ('thing', 'other', 2, CAST('{\"name\":\"x\",\"size\":1}' AS BLOB)),
                      ('thing', 'old', 1, CAST('{\"name\":\"old\",\"length\":7}' AS BLOB))",
        );
        assert_eq!(db.all::<Thing>().await.unwrap(), [thing("good", 1), thing("old", 7)]);
        let names: Vec<_> = db.quarantined().into_iter().map(|found| found.key).collect();
        assert_eq!(names, ["bad", "other"]);
        assert_eq!(db.all::<Thing>().await.unwrap().len(), 2);
        let kept: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 2);
    }

    #[tokio::test]
    async fn what_a_newer_version_wrote_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.db");
        let db = Db::open(&path).unwrap();
        write(
            &path,
            "INSERT INTO documents VALUES ('thing', 'x', 3, CAST('{}' AS BLOB))",
        );
        let error = db.all::<Thing>().await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Newer {
                    found: 3,
                    supported: 2,
                    ..
                }
            ),
            "{error}"
        );
        drop(db);
        write(&path, "PRAGMA user_version = 9");
        let error = Db::open(&path).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Newer {
                    found: 9,
                    supported: SCHEMA,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_batch_happens_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.db");
        let db = Db::open(&path).unwrap();
        write(
            &path,
            "CREATE TRIGGER no BEFORE INSERT ON documents WHEN new.key = 'no' BEGIN SELECT RAISE(ABORT, 'no'); END",
        );
        let mut batch = Batch::default();
        batch.put(&thing("first", 1)).unwrap();
        batch.put(&thing("no", 1)).unwrap();
        db.commit(batch, Durability::Power).await.unwrap_err();
        assert!(db.all::<Thing>().await.unwrap().is_empty());
        db.put(&thing("later", 1), Durability::Power).await.unwrap();
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ferry.db");
        std::fs::write(
            &path,
            "not a database, but long enough to be looked at as one".repeat(100),
        )
        .unwrap();
        assert!(matches!(Db::open(&path), Err(Error::Database { .. })));
    }
}
