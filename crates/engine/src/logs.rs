//! Reading a container's log: Docker's json-file format, over its rotated files, from the end or since a time, and on.
//!
//! A follower is woken when its directory changes (inotify), and when the container's state does.

mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferry_api::Timestamp;
use ferry_supervise::LogFile;
use serde::Deserialize;
use tokio::sync::watch::Receiver;

use self::watch::Watch;
use crate::container::{Handle, Record, Snapshot};
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// Per file, unless `--log-opt max-size` says otherwise.
const MAX_SIZE: u64 = 20 * 1024 * 1024;
/// Files altogether, unless `--log-opt max-file` says otherwise.
const MAX_FILES: u32 = 5;
/// How often a follower looks for more where nothing wakes it: before there is a log, and without inotify.
const LOOK: Duration = Duration::from_millis(50);
/// Entries that are handed out at a time.
const BATCH: usize = 256;

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
    pub line: String,
}

/// An open log.
#[derive(Debug)]
pub struct Logs {
    /// The container has a terminal: lines go out as they are, not framed.
    pub tty: bool,
    path: PathBuf,
    query: Query,
    reader: Option<BufReader<File>>,
    ready: VecDeque<Entry>,
    published: Receiver<Arc<Snapshot>>,
    /// Of a follower, once it has come to the end.
    watch: Option<Watch>,
    /// The file being read has got a successor: what it holds now is all.
    rotated: bool,
    done: bool,
    partial: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    log: String,
    #[serde(borrow, default)]
    stream: std::borrow::Cow<'a, str>,
    time: Timestamp,
}

/// Where a container's log goes, and how it is rotated. `None` for `--log-driver none`.
pub(crate) fn file_of(record: &Record, world: &World) -> Result<Option<LogFile>> {
    let config = &record.host_config.log_config;
    if config.r#type == "none" {
        return Ok(None);
    }
    let option = |key: &str| config.config.as_ref().and_then(|options| options.get(key));
    let max_size = match option("max-size").map(String::as_str) {
        None => MAX_SIZE,
        Some("-1") => 0,
        Some(text) => ferry_kit::units::ram_in_bytes(text)
            .ok()
            .and_then(|size| u64::try_from(size).ok())
            .filter(|size| *size > 0)
            .ok_or_else(|| Error::invalid(format!("invalid value for max-size: {text:?}")))?,
    };
    let max_files = match option("max-file") {
        None => MAX_FILES,
        Some(text) => text
            .parse()
            .ok()
            .filter(|files| *files > 0)
            .ok_or_else(|| Error::invalid(format!("invalid value for max-file: {text:?}")))?,
    };
    Ok(Some(LogFile {
        path: path_of(record, world),
        max_size,
        max_files,
    }))
}

pub(crate) fn path_of(record: &Record, world: &World) -> PathBuf {
    world
        .container_dir(&record.id)
        .join("log")
        .join(format!("{}-json.log", record.id))
}

/// What a log is called after so many rotations: `x.log`, `x.log.1`, …
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    if number > 0 {
        name.push(format!(".{number}"));
    }
    name.into()
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

impl Logs {
    pub(crate) async fn open(world: &Arc<World>, handle: &Handle, query: Query) -> Result<Self> {
        if !query.stdout && !query.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let snapshot = handle.snapshot();
        let record = &snapshot.record;
        if record.host_config.log_config.r#type == "none" {
            return Err(Error::new(
                Kind::Unsupported,
                "configured logging driver does not support reading",
            ));
        }
        let (path, tty) = (path_of(record, world), record.config.tty);
        let published = handle.watch();
        let logs = tokio::task::spawn_blocking(move || Self::start(path, tty, query, published)).await;
        let failed = |error: &(dyn std::error::Error + 'static)| Error::internal("read the container's log", error);
        logs.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    fn start(path: PathBuf, tty: bool, query: Query, published: Receiver<Arc<Snapshot>>) -> io::Result<Self> {
        let mut logs = Self {
            tty,
            path,
            query,
            reader: None,
            ready: VecDeque::new(),
            published,
            watch: None,
            rotated: false,
            done: false,
            partial: String::new(),
        };
        if let Some(tail) = logs.query.tail {
            logs.seek_tail(tail)?;
        }
        Ok(logs)
    }

    /// Positions the reader so that about `tail` lines follow: blocks are read from the end, newest file first.
    fn seek_tail(&mut self, tail: usize) -> io::Result<()> {
        let mut seen = BTreeSet::new();
        let mut wanted: VecDeque<Entry> = VecDeque::new();
        let mut newest = None;
        for number in 0.. {
            let mut file = match File::open(numbered(&self.path, number)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            };
            // Seen under the name it had before a rotation.
            if !seen.insert(file.metadata()?.ino()) {
                continue;
            }
            let end = file.seek(SeekFrom::End(0))?;
            let mut block = 64 * 1024_u64;
            let entries = loop {
                let from = end.saturating_sub(block);
                file.seek(SeekFrom::Start(from))?;
                let mut bytes = Vec::new();
                (&file).take(end - from).read_to_end(&mut bytes)?;
                let entries = self.parse_block(&bytes, from > 0);
                if from == 0 || entries.len() + wanted.len() >= tail {
                    break entries;
                }
                block *= 4;
            };
            for entry in entries.into_iter().rev() {
                if wanted.len() == tail {
                    break;
                }
                wanted.push_front(entry);
            }
            if newest.is_none() {
                file.seek(SeekFrom::Start(end))?;
                newest = Some(BufReader::new(file));
            }
            if wanted.len() == tail {
                break;
            }
        }
        self.ready = wanted;
        self.reader = newest;
        Ok(())
    }

    fn parse_block(&self, bytes: &[u8], skip_first: bool) -> Vec<Entry> {
        let text = String::from_utf8_lossy(bytes);
        text.split_inclusive('\n')
            .skip(usize::from(skip_first))
            .filter(|line| line.ends_with('\n'))
            .filter_map(|line| self.entry(line))
            .collect()
    }

    /// The next entries; `None` at the end. Cancel-safe between batches.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Entry>>> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(self.ready.drain(..).collect()));
            }
            if self.done {
                return Ok(None);
            }
            // Looked at before reading: what it wrote last is then read below.
            let over = !self.query.follow || !self.may_write();
            let read = self.read_batch()?;
            if read || !self.ready.is_empty() {
                continue;
            }
            if over {
                self.done = true;
                continue;
            }
            if self.watch.is_none() {
                self.watch = self.path.parent().and_then(|dir| Watch::of(dir).ok());
                if self.watch.is_some() {
                    // What came before it was there wakes nobody.
                    continue;
                }
            }
            self.wait_for_more().await;
        }
    }

    /// Whether the container can still write. One that was only created may yet run; one that is to restart, too.
    fn may_write(&self) -> bool {
        let snapshot = self.published.borrow();
        let status = snapshot.record.run.status;
        !snapshot.removed && (status.is_live() || status == crate::container::Status::Restarting)
    }

    async fn wait_for_more(&mut self) {
        let mut published = self.published.clone();
        published.mark_unchanged();
        let grown = async {
            match &self.watch {
                Some(watch) => watch.changed().await,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        tokio::select! {
            _ = published.changed() => {}
            () = grown => {}
        }
    }

    /// Reads what is there, up to a batch; false if there was nothing.
    fn read_batch(&mut self) -> io::Result<bool> {
        let mut any = false;
        while self.ready.len() < BATCH {
            if self.reader.is_none() {
                let exists = |number: &u32| numbered(&self.path, *number).exists();
                let oldest = (1..).take_while(exists).last().unwrap_or(0);
                match File::open(numbered(&self.path, oldest)) {
                    Ok(file) => self.reader = Some(BufReader::new(file)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(any),
                    Err(error) => return Err(error),
                }
            }
            let Some(reader) = &mut self.reader else { break };
            let length = reader
                .read_line(&mut self.partial)
                .or_else(|error| match error.kind() {
                    // A line that is no UTF-8 was not written by a shim; it is passed over.
                    io::ErrorKind::InvalidData => Ok(1),
                    _ => Err(error),
                })?;
            if length > 0 {
                any = true;
                if self.partial.ends_with('\n') {
                    let line = std::mem::take(&mut self.partial);
                    self.ready.extend(self.entry(&line));
                    self.partial = line;
                    self.partial.clear();
                }
                continue;
            }
            if !self.next_file()? {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// At the end of a file: on to the one that came after it, if there is one.
    fn next_file(&mut self) -> io::Result<bool> {
        let Some(reader) = &self.reader else { return Ok(false) };
        let open = reader.get_ref().metadata()?.ino();
        if inode(&self.path).is_none_or(|named| named == open) {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.rotated, true) {
            // What was written between the read that found nothing and the rotation.
            return Ok(true);
        }
        let mut numbers = (1..).map_while(|number| Some((number, inode(&numbered(&self.path, number))?)));
        // Deleted already: what is the oldest now comes next.
        self.reader = match numbers.find(|(_, named)| *named == open) {
            Some((number, _)) => {
                let next = File::open(numbered(&self.path, number - 1));
                let stayed = inode(&numbered(&self.path, number)) == Some(open);
                match next {
                    Ok(file) if stayed => Some(BufReader::new(file)),
                    // It is being rotated right now, so more is to come.
                    Ok(_) => return Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            None => None,
        };
        self.rotated = false;
        self.partial.clear();
        Ok(true)
    }

    /// The entry of one line, if it is wanted.
    fn entry(&self, line: &str) -> Option<Entry> {
        let line: Line<'_> = serde_json::from_str(line).ok()?;
        let stderr = line.stream == "stderr";
        let wanted = if stderr { self.query.stderr } else { self.query.stdout };
        let early = self.query.since.is_some_and(|since| line.time < since);
        let late = self.query.until.is_some_and(|until| line.time > until);
        (wanted && !early && !late).then_some(Entry {
            stderr,
            at: line.time,
            line: line.log,
        })
    }
}
