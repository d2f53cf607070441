//! Reading a container's log, over its rotated files, from the end or since a time, and on.
//!
//! ```text
//! seek ─▶ a spot in one file ─▶ cursor: records ─▶ wanted ones, in batches ─▶ the file after it … and at the end: wait
//! ```
//! A follower is woken when its directory changes (inotify), and when the container's state does.

mod cursor;
pub(crate) mod keeper;
pub(crate) mod options;
mod seek;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferry_api::Timestamp;
use ferry_supervise::log::{Format, Record as Said};
use tokio::sync::watch::Receiver;

use self::cursor::{Cursor, Item, places};
pub use self::options::check as check_options;
use self::watch::Watch;
use crate::container::{Handle, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// How often a follower looks for more where nothing wakes it: before there is a log, and without inotify.
const LOOK: Duration = Duration::from_millis(50);
/// For what a program says first. Scripts ask for it as soon as it was started, and Docker starts so slowly that it is there.
const FIRST: Duration = Duration::from_millis(100);
/// Entries that are handed out at a time.
const BATCH: usize = 256;
/// Records that are looked at before others get their turn.
const TURN: usize = 4096;

/// What is wanted of a log.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last so many lines; `None` for all.
    pub tail: Option<usize>,
}

/// One line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stderr: bool,
    pub at: Timestamp,
    /// With its newline, if it is whole.
    pub line: Vec<u8>,
    /// `--log-opt labels`, `env` and `tag`.
    pub attributes: BTreeMap<String, String>,
}

/// An open log.
#[derive(Debug)]
pub struct Logs {
    /// The container has a terminal: lines go out as they are, not framed.
    pub tty: bool,
    path: PathBuf,
    format: Format,
    query: Query,
    cursor: Option<Cursor>,
    /// Wanted entries that are to be passed over.
    skip: usize,
    ready: VecDeque<Entry>,
    /// Something was handed out.
    begun: bool,
    published: Receiver<Arc<Snapshot>>,
    /// Of a follower, once it has come to the end.
    watch: Option<Watch>,
    /// The file being read has got a successor: what it holds now is all.
    rotated: bool,
    done: bool,
}

impl Query {
    fn wants(&self, said: &Said) -> bool {
        let stream = if said.stderr { self.stderr } else { self.stdout };
        stream && self.since.is_none_or(|since| Timestamp(said.at) >= since) && !self.is_over(said)
    }

    fn is_over(&self, said: &Said) -> bool {
        self.until.is_some_and(|until| Timestamp(said.at) > until)
    }
}

#[cfg(test)]
fn numbered(path: &std::path::Path, number: u32) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{number}"));
    name.into()
}

impl Logs {
    pub(crate) async fn open(world: &Arc<World>, handle: &Handle, query: Query) -> Result<Self> {
        if !query.stdout && !query.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let snapshot = handle.snapshot();
        let record = &snapshot.record;
        let Some(file) = options::file(record, world)? else {
            return Err(Error::new(
                Kind::Unsupported,
                "configured logging driver does not support reading",
            ));
        };
        let (tty, published) = (record.config.tty, handle.watch());
        let (path, format, wanted) = (file.path.clone(), file.format, query.clone());
        let found = tokio::task::spawn_blocking(move || seek::spot(&path, format, &wanted)).await;
        let failed = |error: &(dyn std::error::Error + 'static)| Error::internal("read the container's log", error);
        let found = found.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let (cursor, skip) = found.map_or((None, 0), |spot| (Some(spot.cursor), spot.skip));
        Ok(Self {
            tty,
            path: file.path,
            format,
            query,
            cursor,
            skip,
            ready: VecDeque::new(),
            begun: false,
            published,
            watch: None,
            rotated: false,
            done: false,
        })
    }

    /// The next entries; `None` at the end. Cancel-safe between batches.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Entry>>> {
        loop {
            if !self.ready.is_empty() {
                self.begun = true;
                return Ok(Some(self.ready.drain(..).collect()));
            }
            if self.done {
                return Ok(None);
            }
            // An end that comes from here on wakes who waits below.
            let mut published = self.published.clone();
            published.mark_unchanged();
            // Looked at before reading: what it wrote last is then read below.
            let patience = self.patience();
            let over = patience.is_zero() || !self.may_write() || self.is_late();
            let read = self.read_batch()?;
            if !self.ready.is_empty() {
                continue;
            }
            if read {
                tokio::task::yield_now().await;
                continue;
            }
            if over {
                self.done = true;
                if !self.may_write()
                    && let Some(Item::Damage(text)) = self.cursor.as_mut().and_then(Cursor::rest)
                {
                    self.tell(text);
                }
                continue;
            }
            if self.watch.is_none() {
                self.watch = self.path.parent().and_then(|dir| Watch::of(dir).ok());
                if self.watch.is_some() {
                    // What came before it was there wakes nobody.
                    continue;
                }
            }
            let _ = tokio::time::timeout(patience, self.wait_for_more(published)).await;
        }
    }

    /// How long more is waited for: as long as it takes, or for a program's first words.
    fn patience(&self) -> Duration {
        if self.query.follow {
            return Duration::MAX;
        }
        let begun_at = self.published.borrow().record.run.started_at;
        let age = begun_at.map(|at| Duration::try_from(jiff::Timestamp::now().duration_since(at)));
        match age {
            Some(Ok(age)) if !self.begun && self.query.tail != Some(0) => FIRST.saturating_sub(age),
            _ => Duration::ZERO,
        }
    }

    /// Whether the container can still write. One that was only created may yet run; one that is to restart, too.
    fn may_write(&self) -> bool {
        let snapshot = self.published.borrow();
        let status = snapshot.record.run.status;
        !snapshot.removed && (status.is_live() || status == crate::container::Status::Restarting)
    }

    /// Whether nothing that is wanted can come any more.
    fn is_late(&self) -> bool {
        self.query.until.is_some_and(|until| until.0 < jiff::Timestamp::now())
    }

    async fn wait_for_more(&mut self, mut published: Receiver<Arc<Snapshot>>) {
        let grown = async {
            match &self.watch {
                Some(watch) => watch.changed().await,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        let until = self
            .query
            .until
            .map(|until| until.0.duration_since(jiff::Timestamp::now()));
        let late = async {
            match until.map(Duration::try_from) {
                None => std::future::pending().await,
                Some(left) => tokio::time::sleep(left.unwrap_or_default() + LOOK).await,
            }
        };
        tokio::select! {
            _ = published.changed() => {}
            () = grown => {}
            () = late => {}
        }
    }

    /// Reads what is there, up to a batch; false if there was nothing.
    fn read_batch(&mut self) -> io::Result<bool> {
        let mut any = false;
        for _ in 0..TURN {
            if self.ready.len() >= BATCH || self.done {
                break;
            }
            let Some(cursor) = &mut self.cursor else {
                let Some(oldest) = places(&self.path).into_iter().next() else {
                    return Ok(any);
                };
                match Cursor::open(&oldest, self.format, 0) {
                    Ok(cursor) => self.cursor = Some(cursor),
                    // Deleted or compressed at this moment.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
                any = true;
                continue;
            };
            match cursor.next()? {
                Item::Record(said) => {
                    // Times ascend: what follows is later still.
                    self.done |= self.query.is_over(&said);
                    self.take(said);
                }
                Item::Damage(text) => self.tell(text),
                Item::End if self.next_file()? => {}
                Item::End => return Ok(any),
            }
            any = true;
        }
        Ok(any)
    }

    fn take(&mut self, said: Said) {
        if !self.query.wants(&said) {
            return;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.ready.push_back(Entry {
            stderr: said.stderr,
            at: Timestamp(said.at),
            line: said.line,
            attributes: said.attributes,
        });
    }

    /// Something of the engine's, among what the container said.
    fn tell(&mut self, text: String) {
        self.ready.push_back(Entry {
            stderr: true,
            at: Timestamp(jiff::Timestamp::now()),
            line: text.into_bytes(),
            attributes: BTreeMap::new(),
        });
    }

    /// At the end of a file: on to the one that came after it, if there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(cursor) = &self.cursor else { return Ok(false) };
        let open = cursor.ino;
        if std::fs::metadata(&self.path).is_ok_and(|newest| newest.ino() == open) {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.rotated, true) {
            // What was written between the read that found nothing and the rotation.
            return Ok(true);
        }
        let places = places(&self.path);
        // The newest of that inode: an older one's may be in use again.
        let here = places.iter().rposition(|place| place.ino() == Some(open));
        let next = match here {
            Some(here) => match places.get(here + 1) {
                Some(next) => Some(next),
                // It is being rotated right now, so more is to come.
                None => return Ok(false),
            },
            // Deleted already: what is the oldest now comes next.
            None => places.first(),
        };
        let opened = next.map(|next| Cursor::open(next, self.format, 0)).transpose();
        let rest = self.cursor.as_mut().and_then(Cursor::rest);
        self.cursor = match opened {
            Ok(cursor) => cursor,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        self.rotated = false;
        if let Some(Item::Damage(text)) = rest {
            self.tell(text);
        }
        Ok(true)
    }
}
