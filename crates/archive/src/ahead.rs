//! Files of directories that have many: opened and read by other threads than the one that writes the stream.
//!
//! ```text
//! names of files, one after the other ── chunks in turn ──▶ two threads: look, open, read ── in order ──▶ the stream
//! ```

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Scope};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::create::failed;
use crate::diff::look;
use crate::reader::Kind;
use crate::{Result, tree};

const THREADS: usize = 2;
/// Files that a thread takes at a time, and how many such chunks may wait to be written.
const CHUNK: usize = 16;
const WAITING: usize = 2;
/// Files one after the other that are worth it.
const FEWEST: usize = 2 * CHUNK;
/// A larger file is read by the one that writes.
const SMALL: u64 = 64 << 10;

/// A regular file that was opened, and read if it is small.
pub struct Loaded {
    pub stat: Stat,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    pub content: Content,
}

pub enum Content {
    /// All of it.
    Here(Vec<u8>),
    Open(File),
}

/// What a name is, and its file if it is one; `None` if it is gone.
pub type Found = Result<Option<(Stat, Option<Loaded>)>>;

/// Opens what was seen to be a regular file. `None`: it is gone, or something else by now.
pub fn load(dir: BorrowedFd<'_>, name: &std::ffi::CStr, seen: &Stat, path: &Path) -> Result<Option<Loaded>> {
    let wrong = |source: io::Error| failed(path, source);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |more| rustix::fs::openat(dir, name, flags | more, Mode::empty());
    let opened = match open(OFlags::NOATIME) {
        // It is somebody else's.
        Err(Errno::PERM) => open(OFlags::empty()),
        opened => opened,
    };
    let fd = match opened {
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        fd => fd.map_err(|source| wrong(source.into()))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(|source| wrong(source.into()))?;
    if (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino) || tree::kind(&stat) != Some(Kind::File) {
        return Ok(None);
    }
    let xattrs = tree::xattrs(fd.as_fd()).map_err(wrong)?;
    let mut file = File::from(fd);
    let content = match u64::try_from(stat.st_size) {
        Ok(size @ ..=SMALL) => Content::Here(whole(&mut file, size).map_err(wrong)?),
        _ => Content::Open(file),
    };
    Ok(Some(Loaded { stat, xattrs, content }))
}

/// So many bytes: what is missing of them is zeros.
fn whole(file: &mut File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let mut done = 0;
    while done < bytes.len() {
        match file.read(&mut bytes[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// The threads, and what they read.
pub struct Ahead<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    is_worth_it: bool,
    threads: Vec<Sender<Job>>,
    /// Chunks that are still to come, in turn.
    outs: Vec<Receiver<Vec<Found>>>,
    next: usize,
    chunk: std::vec::IntoIter<Found>,
    left: usize,
}

/// Files of one directory.
struct Job {
    dir: Arc<OwnedFd>,
    path: Arc<Path>,
    names: Arc<[CString]>,
    /// The first chunk of this thread.
    first: usize,
    out: SyncSender<Vec<Found>>,
}

impl Job {
    /// Ends when nobody wants more.
    fn run(&self) {
        for names in self.names.chunks(CHUNK).skip(self.first).step_by(THREADS) {
            let chunk = names.iter().map(|name| self.find(name)).collect();
            if self.out.send(chunk).is_err() {
                return;
            }
        }
    }

    fn find(&self, name: &CString) -> Found {
        let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
        let Some(stat) = look(self.dir.as_fd(), name, &path)? else {
            return Ok(None);
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let loaded = load(self.dir.as_fd(), name, &stat, &path)?;
                Ok(loaded.map(|loaded| (stat, Some(loaded))))
            }
            // It was listed as a file: whoever made it a directory since then is too late.
            FileType::Directory => Ok(None),
            _ => Ok(Some((stat, None))),
        }
    }
}

impl<'scope, 'env> Ahead<'scope, 'env> {
    pub fn new(scope: &'scope Scope<'scope, 'env>) -> Self {
        Self {
            scope,
            is_worth_it: thread::available_parallelism().is_ok_and(|count| count > NonZero::<usize>::MIN),
            threads: Vec::new(),
            outs: Vec::new(),
            next: 0,
            chunk: Vec::new().into_iter(),
            left: 0,
        }
    }

    /// Whether others can be begun, if there is more than one processor.
    pub fn is_idle(&self) -> bool {
        self.left == 0 && self.is_worth_it
    }

    /// Whether so many files one after the other are enough.
    pub fn wants(files: usize) -> bool {
        files >= FEWEST
    }

    /// Begins to read files of one directory. All of them are to be asked for before others are begun.
    pub fn begin(&mut self, dir: BorrowedFd<'_>, path: &Path, names: Vec<CString>) -> io::Result<()> {
        while self.threads.len() < THREADS {
            let (sender, jobs) = channel::<Job>();
            let thread = thread::Builder::new().name("ferry-ahead".to_owned());
            thread.spawn_scoped(self.scope, move || jobs.iter().for_each(|job| job.run()))?;
            self.threads.push(sender);
        }
        let dir = Arc::new(rustix::io::fcntl_dupfd_cloexec(dir, 0)?);
        let (path, names): (Arc<Path>, Arc<[CString]>) = (path.into(), names.into());
        self.outs.clear();
        for (first, thread) in self.threads.iter().enumerate() {
            let (out, receiver) = sync_channel(WAITING);
            let (dir, path, names) = (Arc::clone(&dir), Arc::clone(&path), Arc::clone(&names));
            let job = Job {
                dir,
                path,
                names,
                first,
                out,
            };
            thread.send(job).map_err(|_| lost())?;
            self.outs.push(receiver);
        }
        (self.next, self.left) = (0, names.len());
        Ok(())
    }

    /// What the next of the names is.
    pub fn next(&mut self) -> Option<Found> {
        self.left = self.left.checked_sub(1)?;
        if self.chunk.len() == 0 {
            let Ok(chunk) = self.outs[self.next % THREADS].recv() else {
                return Some(Err(crate::create::sink(lost())));
            };
            self.next += 1;
            self.chunk = chunk.into_iter();
        }
        self.chunk.next()
    }
}

fn lost() -> io::Error {
    io::Error::other("a thread that reads files has ended")
}
