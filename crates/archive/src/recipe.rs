//! What it takes to write a tar again, byte for byte, that was applied to a directory: everything but the contents of its
//! files, which lie in that directory.
//!
//! ```text
//! stream ─▶ Recorder::watch ─▶ apply ─▶ fs/ ┐
//!                │                          ├─▶ rebuild ─▶ the same stream
//!                └─▶ recipe (zstd) ─────────┘
//! ```
//!
//! A recipe is a zstd stream of items; numbers are LEB128:
//!
//! ```text
//! item    = 0 len bytes               headers, padding, names of PAX, whatever comes before, between and after contents
//!         | 1 path offset len         a file's content: `len` bytes at `offset`; an empty path is that of the item before
//!         | 2 path number             from here on what was at `path` is `attic/<number>`
//!         | 3                         the end
//! path    = len bytes
//! ```
//!
//! The paths are the real ones, without links: what an entry's name means can change in the middle of an archive. When an
//! archive replaces an entry by another one, the old one is moved to the *attic*, a directory beside the tree, and not
//! deleted. A content that has no name short enough is in the recipe itself.
//!
//! Whoever rebuilds must check the digest of what comes out: files on disk can be changed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ferry_sys::Root;
use ferry_sys::handle::path_of;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

const RAW: u8 = 0;
const CONTENT: u8 = 1;
const MOVED: u8 = 2;
const END: u8 = 3;

/// Headers repeat each other so much that more effort saves little.
const LEVEL: i32 = 1;
/// Bytes between contents that are kept back to make one item.
const PIECE: usize = 64 << 10;
/// Longest path: the kernel's `PATH_MAX`, which is also what can be found out about one.
const PATH: u64 = 4096;
/// Bytes of the paths that were moved to the attic: they are in memory when the tar is made again.
const MOVED_BYTES: u64 = 32 << 20;

/// Writes a recipe while an archive is applied. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Recorder {
    state: Rc<RefCell<State>>,
}

struct State {
    out: Option<BufWriter<zstd::Encoder<'static, File>>>,
    /// Where the attic is made when something has to go there.
    beside: PathBuf,
    attic: Option<OwnedFd>,
    /// The directory that is applied to, as the kernel names it.
    top: Option<PathBuf>,
    raw: Vec<u8>,
    /// Bytes of content still to come that are not to be recorded.
    skip: u64,
    last: PathBuf,
    moved: u64,
    moved_bytes: u64,
    size: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("beside", &self.beside)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// A stream whose bytes are recorded as they are read.
#[derive(Debug)]
pub struct Watched<R> {
    inner: R,
    recorder: Recorder,
}

impl Recorder {
    /// Makes `recipe` in the directory `beside`, which is the engine's own, and an `attic` there when one is needed. `root` is
    /// what the archive will be applied to.
    pub fn create(beside: &Path, root: &Root) -> io::Result<Self> {
        let file = File::create_new(beside.join("recipe"))?;
        let out = BufWriter::with_capacity(PIECE, zstd::Encoder::new(file, LEVEL)?);
        let state = State {
            out: Some(out),
            beside: beside.to_owned(),
            attic: None,
            top: real(root.as_fd()),
            raw: Vec::new(),
            skip: 0,
            last: PathBuf::new(),
            moved: 0,
            moved_bytes: 0,
            size: 0,
        };
        Ok(Self {
            state: Rc::new(RefCell::new(state)),
        })
    }

    /// The stream to apply.
    pub fn watch<R: Read>(&self, stream: R) -> Watched<R> {
        Watched {
            inner: stream,
            recorder: self.clone(),
        }
    }

    /// The stream that an archive is written to.
    pub fn record<W: Write>(&self, stream: W) -> Recorded<W> {
        Recorded {
            inner: stream,
            recorder: self.clone(),
        }
    }

    /// Ends the recipe; the number of bytes it makes. It is in the page cache, not synced.
    pub fn finish(self) -> io::Result<u64> {
        let mut state = self.state.borrow_mut();
        state.flush()?;
        let Some(mut out) = state.out.take() else {
            return Ok(state.size);
        };
        out.write_all(&[END])?;
        let encoder = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        encoder.finish()?;
        Ok(state.size)
    }

    /// Where a directory is, relative to the top; `None` if it has no name that the kernel can tell.
    pub(crate) fn place(&self, dir: BorrowedFd<'_>) -> Option<PathBuf> {
        let state = self.state.borrow();
        let place = real(dir)?.strip_prefix(state.top.as_ref()?).ok()?.to_owned();
        Some(place)
    }

    /// The next `len` bytes of the stream are those at `offset` of the file `path`.
    pub(crate) fn content(&self, path: &Path, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 || path.as_os_str().len() as u64 > PATH {
            return Ok(());
        }
        let mut state = self.state.borrow_mut();
        state.flush()?;
        let same = state.last == path;
        state.item(CONTENT, if same { Path::new("") } else { path }, &[offset, len])?;
        if !same {
            state.last = path.to_owned();
        }
        state.skip = len;
        Ok(())
    }

    /// Notes the content of a whole file that is not read through [`watch`](Self::watch): it comes next in the archive.
    pub fn unread(&self, path: &Path, len: u64) -> io::Result<()> {
        self.content(path, 0, len)?;
        let mut state = self.state.borrow_mut();
        state.size += len;
        state.skip = 0;
        Ok(())
    }

    /// Takes a file or a directory that is about to be replaced out of the way. Anything else stays: it has no content.
    pub(crate) fn retire(&self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<bool> {
        let failed = |source: io::Error| Error::Write {
            path: path.to_owned(),
            action: "set aside",
            source,
        };
        let stat = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|source| failed(source.into()))?;
        let holds = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => stat.st_size > 0,
            kind => kind == FileType::Directory,
        };
        if !holds || path.as_os_str().len() as u64 > PATH {
            return Ok(false);
        }
        let mut state = self.state.borrow_mut();
        state.moved_bytes += path.as_os_str().len() as u64 + 64;
        if state.moved_bytes > MOVED_BYTES {
            return Err(Error::TooLarge {
                what: "bytes of names of entries that are replaced",
                limit: MOVED_BYTES,
            });
        }
        let number = state.moved;
        let attic = state.attic().map_err(failed)?;
        let aside = number.to_string();
        let kept = match FileType::from_raw_mode(stat.st_mode) {
            // Another name of it stays in the tree, where it must not count one link more.
            FileType::RegularFile if stat.st_nlink > 1 => copy_aside(dir, name, attic, &aside),
            _ => rustix::fs::renameat(dir, name, attic, aside).map_err(io::Error::from),
        };
        kept.map_err(failed)?;
        state.moved += 1;
        state
            .flush()
            .and_then(|()| state.item(MOVED, path, &[number]))
            .map_err(failed)?;
        // What comes next under this name is another file.
        state.last = PathBuf::new();
        Ok(true)
    }
}

impl State {
    fn saw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        self.raw.extend_from_slice(&bytes[skipped..]);
        if self.raw.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(out) = self.out.as_mut().filter(|_| !self.raw.is_empty()) else {
            return Ok(());
        };
        out.write_all(&[RAW])?;
        write_number(out, self.raw.len() as u64)?;
        out.write_all(&self.raw)?;
        self.raw.clear();
        Ok(())
    }

    fn item(&mut self, tag: u8, path: &Path, numbers: &[u64]) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(&[tag])?;
        write_number(out, path.as_os_str().len() as u64)?;
        out.write_all(path.as_os_str().as_bytes())?;
        numbers.iter().try_for_each(|&number| write_number(out, number))
    }

    fn attic(&mut self) -> io::Result<BorrowedFd<'_>> {
        let attic = match self.attic.take() {
            Some(attic) => attic,
            None => {
                let path = self.beside.join("attic");
                rustix::fs::mkdir(&path, Mode::from(0o700))?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(&path, flags, Mode::empty())?
            }
        };
        let attic: &OwnedFd = self.attic.insert(attic);
        Ok(attic.as_fd())
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.recorder.state.borrow_mut().saw(&buffer[..count])?;
        Ok(count)
    }
}

/// A stream whose bytes are recorded as they are written.
#[derive(Debug)]
pub struct Recorded<W> {
    inner: W,
    recorder: Recorder,
}

impl<W> Recorded<W> {
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for Recorded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.recorder.state.borrow_mut().saw(&bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Gives the attic a file of its own with the content, and takes the name away.
fn copy_aside(dir: BorrowedFd<'_>, name: &OsStr, attic: BorrowedFd<'_>, aside: &str) -> io::Result<()> {
    let from = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut from = File::from(rustix::fs::openat(dir, name, from, Mode::empty())?);
    let mut to = File::from(rustix::fs::openat(attic, aside, to, Mode::from(0o600))?);
    io::copy(&mut from, &mut to)?;
    Ok(rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty())?)
}

/// Where an open directory is. Longer than `PATH_MAX` it has no answer.
fn real(dir: BorrowedFd<'_>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let path = rustix::fs::readlink(path_of(dir), Vec::new()).ok()?.into_bytes();
    let path = PathBuf::from(std::ffi::OsString::from_vec(path));
    path.is_absolute().then_some(path)
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    while number >= 0x80 {
        out.write_all(&[number.to_le_bytes()[0] | 0x80])?;
        number >>= 7;
    }
    out.write_all(&number.to_le_bytes()[..1])
}

/// Writes the archive of a recipe again. `beside` is the directory that [`Recorder::create`] was given, `root` what the
/// archive was applied to.
///
/// Fails with [`Error::Changed`] where something is not as the recipe says, with [`Error::Read`] where `out` fails.
pub fn rebuild(beside: &Path, root: &Root, out: &mut impl Write) -> Result<()> {
    let moved = Moved::read(beside)?;
    let mut contents = Contents {
        root,
        moved,
        parent: None,
        file: None,
        buffer: vec![0; 256 << 10],
    };
    let mut recipe = open(beside)?;
    let mut path = PathBuf::new();
    let mut number = 0_u64;
    loop {
        match item(&mut recipe)? {
            Item::Raw(mut left) => {
                while left > 0 {
                    let bytes = recipe.fill_buf().map_err(damaged)?;
                    if bytes.is_empty() {
                        return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
                    }
                    let count = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    out.write_all(&bytes[..count])
                        .map_err(|source| Error::Read { source })?;
                    recipe.consume(count);
                    left -= count as u64;
                }
            }
            Item::Content { path: new, offset, len } => {
                if !new.as_os_str().is_empty() {
                    path = new;
                    contents.open(&path, number)?;
                }
                contents.copy(&path, offset, len, out)?;
            }
            Item::Moved { .. } => {}
            Item::End => return Ok(()),
        }
        number += 1;
    }
}

enum Item {
    /// That many bytes follow.
    Raw(u64),
    Content {
        path: PathBuf,
        offset: u64,
        len: u64,
    },
    Moved {
        path: PathBuf,
        number: u64,
    },
    End,
}

fn open(beside: &Path) -> Result<impl BufRead + use<>> {
    let path = beside.join("recipe");
    let file = File::open(&path).map_err(|source| Error::Changed { path, source })?;
    let decoder = zstd::Decoder::new(file).map_err(damaged)?;
    Ok(BufReader::with_capacity(128 << 10, decoder))
}

fn damaged(source: io::Error) -> Error {
    Error::Changed {
        path: PathBuf::from("recipe"),
        source,
    }
}

fn item(recipe: &mut impl Read) -> Result<Item> {
    let mut tag = [0];
    recipe.read_exact(&mut tag).map_err(damaged)?;
    Ok(match tag[0] {
        RAW => Item::Raw(read_number(recipe)?),
        CONTENT => Item::Content {
            path: read_path(recipe)?,
            offset: read_number(recipe)?,
            len: read_number(recipe)?,
        },
        MOVED => Item::Moved {
            path: read_path(recipe)?,
            number: read_number(recipe)?,
        },
        END => Item::End,
        _ => return Err(damaged(io::ErrorKind::InvalidData.into())),
    })
}

fn read_number(recipe: &mut impl Read) -> Result<u64> {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let mut byte = [0];
        recipe.read_exact(&mut byte).map_err(damaged)?;
        if shift > 63 {
            return Err(damaged(io::ErrorKind::InvalidData.into()));
        }
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(number);
        }
        shift += 7;
    }
}

fn read_path(recipe: &mut impl Read) -> Result<PathBuf> {
    let len = usize::try_from(read_number(recipe)?.min(PATH + 1)).unwrap_or(usize::MAX);
    if len as u64 > PATH {
        return Err(damaged(io::ErrorKind::InvalidData.into()));
    }
    let mut bytes = vec![0; len];
    recipe.read_exact(&mut bytes).map_err(damaged)?;
    Ok(OsStr::from_bytes(&bytes).into())
}

/// What went to the attic: at which item of the recipe, and its number there.
struct Moved {
    by_path: HashMap<PathBuf, Vec<(u64, u64)>>,
    attic: Option<Root>,
}

impl Moved {
    fn read(beside: &Path) -> Result<Self> {
        let mut moved = Self {
            by_path: HashMap::new(),
            attic: None,
        };
        let path = beside.join("attic");
        match Root::open(&path) {
            Ok(attic) => moved.attic = Some(attic),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(moved),
            Err(source) => return Err(Error::Changed { path, source }),
        }
        let mut recipe = open(beside)?;
        let (mut at, mut bytes) = (0, 0);
        loop {
            match item(&mut recipe)? {
                Item::Raw(len) => {
                    let skipped = io::copy(&mut (&mut recipe).take(len), &mut io::sink()).map_err(damaged)?;
                    if skipped < len {
                        return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
                Item::Content { .. } => {}
                Item::Moved { path, number } => {
                    bytes += path.as_os_str().len() as u64 + 64;
                    if bytes > MOVED_BYTES {
                        return Err(damaged(io::ErrorKind::InvalidData.into()));
                    }
                    moved.by_path.entry(path).or_default().push((at, number));
                }
                Item::End => return Ok(moved),
            }
            at += 1;
        }
    }

    /// Where the file is that was `path` at this item of the recipe: the first move after it of itself, or of a directory that
    /// it is in.
    fn find(&self, path: &Path, item: u64) -> Option<PathBuf> {
        let first = |above: &Path| {
            let moves = self.by_path.get(above)?;
            let (at, number) = moves.get(moves.partition_point(|&(at, _)| at <= item))?;
            Some((*at, *number, path.strip_prefix(above).ok()?.to_owned()))
        };
        let (_, number, rest) = path.ancestors().filter_map(first).min_by_key(|(at, ..)| *at)?;
        let attic = PathBuf::from(number.to_string());
        Some(if rest.as_os_str().is_empty() {
            attic
        } else {
            attic.join(rest)
        })
    }
}

/// The files of a tree, opened one after the other.
struct Contents<'a> {
    root: &'a Root,
    moved: Moved,
    /// The directory of the last file, which is most likely that of the next.
    parent: Option<(PathBuf, OwnedFd)>,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Contents<'_> {
    fn open(&mut self, path: &Path, item: u64) -> Result<()> {
        let changed = |source: io::Error| Error::Changed {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let moved = self.moved.find(path, item);
        let fd = match (&self.moved.attic, moved) {
            (Some(attic), Some(moved)) => attic.resolve_no_links(moved, flags).map_err(changed)?,
            _ => {
                let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
                let name = name.ok_or_else(|| changed(Errno::INVAL.into()))?;
                let dir = match self.parent.take() {
                    Some((known, dir)) if known == parent => dir,
                    _ => self
                        .root
                        .resolve_no_links(parent, OFlags::PATH | OFlags::DIRECTORY)
                        .map_err(changed)?,
                };
                let fd = rustix::fs::openat(&dir, name, flags, Mode::empty());
                self.parent = Some((parent.to_owned(), dir));
                fd.map_err(|source| changed(source.into()))?
            }
        };
        let stat = rustix::fs::fstat(&fd).map_err(|source| changed(source.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(changed(Errno::INVAL.into()));
        }
        self.file = Some(File::from(fd));
        Ok(())
    }

    fn copy(&mut self, path: &Path, mut offset: u64, mut left: u64, out: &mut impl Write) -> Result<()> {
        let changed = |source: io::Error| Error::Changed {
            path: path.to_owned(),
            source,
        };
        let Some(file) = &self.file else {
            return Err(changed(io::ErrorKind::InvalidData.into()));
        };
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = match file.read_at(&mut self.buffer[..most], offset) {
                Ok(0) => return Err(changed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(changed(error)),
            };
            out.write_all(&self.buffer[..count])
                .map_err(|source| Error::Read { source })?;
            offset += count as u64;
            left -= count as u64;
        }
        Ok(())
    }
}
