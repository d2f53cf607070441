//! The entries of a tar stream, one after the other.
//!
//! State: `remaining` and `padding` say what of the current entry is still in the stream; [`Reader::next_entry`] skips that
//! first. Extended headers collect in a `Pending` until the entry they belong to, which is the next one that is not an
//! extended header itself, whatever stands in between. The size of an entry is settled once, after PAX records and GNU
//! names are merged; nothing is skipped or read by the size of the ustar header when a record says otherwise.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::header::{BLOCK, Block};
use crate::sparse::Segment;
use crate::{Error, Limits, Result, header, pax, sparse};

/// A moment: seconds since 1970, which may be negative, and nanoseconds after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub secs: i64,
    pub nanos: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    Fifo,
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// One entry as the archive has it: the name is not cleaned, nothing is checked against a file system.
#[derive(Clone, Debug)]
pub struct Entry {
    pub path: PathBuf,
    pub kind: Kind,
    /// The target of a symbolic or hard link, else empty.
    pub link: OsString,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of the file once unpacked, holes included.
    pub size: u64,
    pub mtime: Time,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// For a sparse file: where the stored data goes.
    pub segments: Option<Vec<Segment>>,
    /// Position of the header in the stream, in bytes.
    pub offset: u64,
}

impl Entry {
    /// Empty, root's, of no time and no mode: a base for struct updates.
    pub fn blank(path: impl Into<PathBuf>, kind: Kind) -> Self {
        Self {
            path: path.into(),
            kind,
            link: OsString::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
            segments: None,
            offset: 0,
        }
    }
}

#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    offset: u64,
    remaining: u64,
    padding: u64,
    entries: u64,
    total: u64,
    ended: bool,
}

#[derive(Default)]
struct Pending {
    pax: Option<pax::Records>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// Uids and gids the kernel can hold; the last one means "leave as is".
const LAST_ID: i64 = 0xffff_fffe;

impl<R: Read> Reader<R> {
    pub fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            offset: 0,
            remaining: 0,
            padding: 0,
            entries: 0,
            total: 0,
            ended: false,
        }
    }

    /// The next entry, or `None` at the end: two zero blocks, or the end of the stream where a header could stand.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let mut pending = Pending::default();
        let mut extended = 0;
        while !self.ended {
            let offset = self.offset;
            let malformed = |what| Error::Malformed { offset, what };
            let Some(block) = self.header()? else { break };
            if !block.checksum_holds() {
                return Err(malformed("a header whose checksum is wrong"));
            }
            let size = block
                .size()
                .and_then(|size| u64::try_from(size).ok())
                .ok_or(malformed("a bad size"))?;
            extended += 1;
            if extended > 16 {
                return Err(malformed("a long row of extended headers"));
            }
            match block.typeflag() {
                b'x' => {
                    let records = self.extension(size, self.limits.pax_bytes)?;
                    pending.pax = Some(pax::parse(&records, offset, &self.limits)?);
                }
                b'g' if pending.is_empty() => {
                    // As Docker does: a global header (git archive writes one with a comment) changes nothing.
                    let records = self.extension(size, self.limits.pax_bytes)?;
                    pax::parse(&records, offset, &self.limits)?;
                }
                b'g' => return Err(malformed("an extended header that belongs to no entry")),
                b'L' => pending.path = Some(self.long_name(size)?),
                b'K' => pending.link = Some(self.long_name(size)?),
                _ => return self.entry(&block, size, pending, offset).map(Some),
            }
        }
        if pending.is_empty() {
            Ok(None)
        } else {
            Err(Error::Truncated)
        }
    }

    /// The stream below, where it stands.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Reads on to the end of the stream, past the end of the archive, so that whoever hashes it sees every byte.
    pub fn drain(&mut self) -> Result<()> {
        self.ended = true;
        io::copy(&mut self.inner, &mut io::sink()).map_err(read_error)?;
        Ok(())
    }

    fn header(&mut self) -> Result<Option<Block>> {
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if !block.is_zero() {
            return Ok(Some(block));
        }
        let offset = self.offset;
        self.ended = true;
        match self.block()? {
            Some(block) if !block.is_zero() => Err(Error::Malformed {
                offset,
                what: "a single zero block",
            }),
            _ => Ok(None),
        }
    }

    /// A block, or `None` where the stream ends before it.
    fn block(&mut self) -> Result<Option<Block>> {
        let mut block = Block([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block.0[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink()).map_err(read_error)?;
        self.offset += skipped;
        // Missing padding after the last entry is forgiven, as Go does; missing data is not.
        if skipped < bytes.saturating_sub(self.padding) {
            return Err(Error::Truncated);
        }
        Ok(())
    }

    /// The content of an extended header, with its padding.
    fn extension(&mut self, size: u64, limit: u64) -> Result<Vec<u8>> {
        if size > limit {
            return Err(Error::TooLarge {
                what: "bytes of extended header",
                limit,
            });
        }
        let mut content = Vec::new();
        self.inner
            .by_ref()
            .take(size)
            .read_to_end(&mut content)
            .map_err(read_error)?;
        if (content.len() as u64) < size {
            return Err(Error::Truncated);
        }
        self.offset += size;
        self.skip(padding(size))?;
        Ok(content)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        let limit = self.limits.path_bytes as u64;
        if size > limit + BLOCK as u64 {
            return Err(Error::TooLarge {
                what: "bytes of name",
                limit,
            });
        }
        Ok(header::text(&self.extension(size, u64::MAX)?).to_vec())
    }

    fn entry(&mut self, block: &Block, size: u64, pending: Pending, offset: u64) -> Result<Entry> {
        let malformed = |what| Error::Malformed { offset, what };
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::TooLarge {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        let pax = pending.pax.unwrap_or_default();
        let path = pending
            .path
            .or(pax.sparse.name.clone())
            .or(pax.path)
            .unwrap_or_else(|| block.name());
        let link = pending.link.or(pax.link).unwrap_or_else(|| block.link().to_vec());
        let long = path.len().max(link.len());
        if long > self.limits.path_bytes {
            return Err(Error::TooLarge {
                what: "bytes of name",
                limit: self.limits.path_bytes as u64,
            });
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(malformed("a NUL in a name"));
        }
        let id = |id: Option<i64>| {
            let id = id
                .filter(|id| (0..=LAST_ID).contains(id))
                .and_then(|id| u32::try_from(id).ok());
            id.ok_or(malformed("a uid or gid out of range"))
        };
        let kind = self.kind(block, &path, offset)?;
        let size = match pax.size {
            Some(size) => u64::try_from(size).map_err(|_| malformed("a bad size"))?,
            None => size,
        };
        let stored = if kind == Kind::File { size } else { 0 };
        self.total = self.total.saturating_add(stored);
        if let Some(limit) = self.limits.total_bytes.filter(|&limit| self.total > limit) {
            return Err(Error::TooLarge {
                what: "bytes of content",
                limit,
            });
        }
        // The last block ends below 2^63: the sum of data and padding cannot overflow.
        (self.remaining, self.padding) = (stored, padding(stored));
        let (size, segments) = self
            .sparse(block, kind, &pax.sparse, offset)?
            .map_or((stored, None), |(s, m)| (s, Some(m)));
        let mode = block.mode().ok_or(malformed("a bad mode"))?;
        let mtime = block.mtime().ok_or(malformed("a bad time"))?;
        Ok(Entry {
            path: OsString::from_vec(path).into(),
            kind,
            link: match kind {
                Kind::Symlink | Kind::HardLink => OsString::from_vec(link),
                _ => OsString::new(),
            },
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            uid: id(pax.uid.or_else(|| block.uid()))?,
            gid: id(pax.gid.or_else(|| block.gid()))?,
            size,
            mtime: pax.mtime.unwrap_or(Time { secs: mtime, nanos: 0 }),
            xattrs: pax
                .xattrs
                .into_iter()
                .map(|(name, value)| (OsString::from_vec(name), value))
                .collect(),
            segments,
            offset,
        })
    }

    fn kind(&self, block: &Block, path: &[u8], offset: u64) -> Result<Kind> {
        let device = || {
            let (major, minor) = block.device()?;
            Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
        };
        let bad_device = Error::Malformed {
            offset,
            what: "a bad device number",
        };
        Ok(match block.typeflag() {
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device()
                .map(|(major, minor)| Kind::Character { major, minor })
                .ok_or(bad_device)?,
            b'4' => device()
                .map(|(major, minor)| Kind::Block { major, minor })
                .ok_or(bad_device)?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => {
                let path = OsString::from_vec(path.to_vec()).into();
                return Err(Error::Unsupported {
                    path,
                    what: format!("unknown entry type {flag:#04x}"),
                });
            }
        })
    }

    /// The size and the segments of a sparse file, in whichever of the four ways it is written.
    fn sparse(
        &mut self,
        block: &Block,
        kind: Kind,
        pax: &pax::Sparse,
        offset: u64,
    ) -> Result<Option<(u64, Vec<Segment>)>> {
        let malformed = || Error::Malformed {
            offset,
            what: "a bad map of a sparse file",
        };
        if kind != Kind::File {
            return Ok(None);
        }
        let (size, numbers) = if block.typeflag() == b'S' {
            let size = header::number(&block.0[483..495]).ok_or_else(malformed)?;
            (Some(size), self.old_gnu_map(block, offset)?)
        } else {
            match (pax.major.as_deref(), pax.minor.as_deref()) {
                (Some(b"1"), Some(b"0")) => (pax.size, self.embedded_map(offset)?),
                (None, None) | (Some(b"0"), Some(b"0" | b"1")) if !pax.map.is_empty() => (pax.size, pax.map.clone()),
                (None, None) | (Some(b"0"), Some(b"0" | b"1")) => return Ok(None),
                _ => return Err(malformed()),
            }
        };
        if numbers.len() / 2 > self.limits.sparse_segments {
            return Err(Error::TooLarge {
                what: "segments of a sparse file",
                limit: self.limits.sparse_segments as u64,
            });
        }
        let size = size.and_then(|size| u64::try_from(size).ok()).ok_or_else(malformed)?;
        let segments = sparse::check(&numbers, size, self.remaining).ok_or_else(malformed)?;
        Ok(Some((size, segments)))
    }

    fn old_gnu_map(&mut self, block: &Block, offset: u64) -> Result<Vec<i64>> {
        let malformed = || Error::Malformed {
            offset,
            what: "a bad map of a sparse file",
        };
        let (mut numbers, mut more) = sparse::old_gnu(block, false).ok_or_else(malformed)?;
        while more {
            let block = self.block()?.ok_or(Error::Truncated)?;
            let (further, again) = sparse::old_gnu(&block, true).ok_or_else(malformed)?;
            numbers.extend(further);
            if numbers.len() / 2 > self.limits.sparse_segments {
                break;
            }
            more = again;
        }
        Ok(numbers)
    }

    /// Format 1.0: decimal lines at the start of the data, the count first, padded to a block.
    fn embedded_map(&mut self, offset: u64) -> Result<Vec<i64>> {
        let malformed = || Error::Malformed {
            offset,
            what: "a bad map of a sparse file",
        };
        let mut numbers = Vec::new();
        let mut expected = None;
        let mut line = Vec::new();
        while expected != Some(numbers.len()) {
            self.remaining = self.remaining.checked_sub(BLOCK as u64).ok_or_else(malformed)?;
            let block = self.block()?.ok_or(Error::Truncated)?;
            for &byte in &block.0 {
                if byte != b'\n' {
                    line.push(byte);
                    if line.len() > 20 {
                        return Err(malformed());
                    }
                    continue;
                }
                let number = pax::decimal(&line).ok_or_else(malformed)?;
                line.clear();
                match expected {
                    None => {
                        let count = usize::try_from(number).map_err(|_| malformed())?;
                        if count > self.limits.sparse_segments {
                            let limit = self.limits.sparse_segments as u64;
                            return Err(Error::TooLarge {
                                what: "segments of a sparse file",
                                limit,
                            });
                        }
                        expected = Some(count * 2);
                    }
                    Some(_) => numbers.push(number),
                }
                if expected == Some(numbers.len()) {
                    break;
                }
            }
        }
        Ok(numbers)
    }
}

/// The stored data of the current entry; for a sparse file its segments without the holes.
impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.path.is_none() && self.link.is_none()
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

pub(crate) fn read_error(source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        Error::Truncated
    } else {
        Error::Read { source }
    }
}
