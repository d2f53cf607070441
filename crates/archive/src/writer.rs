//! Writes tar streams: ustar headers, with a PAX header before an entry that needs more.
//!
//! Byte for byte what Go's `archive/tar` writes (1.24, `Writer.WriteHeader` without a format): a layer that is made here of
//! the same files has the same digest as Docker's.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;

use crate::header::BLOCK;
use crate::pax;
use crate::reader::{Entry, Kind};

#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
}

impl<W: Write> Writer<W> {
    pub fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes the header of an entry; [`Kind::File`] must be followed by exactly `entry.size` bytes through [`Writer::data`].
    ///
    /// `entry.segments` and `entry.offset` are not looked at: holes are written as zeros.
    pub fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut path = entry.path.as_os_str().as_bytes().to_vec();
        if entry.kind == Kind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let link = entry.link.as_bytes();
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let secs = u64::try_from(entry.mtime.secs).ok().filter(|&secs| secs <= OCTAL_12);
        let records = records(entry, &path, link, size, secs.is_some());
        let mut prefix = &b""[..];
        let mut name = &path[..];
        if records.is_empty() {
            (prefix, name) = split(&path).unwrap_or((prefix, name));
        } else {
            let mut block = [0; BLOCK];
            copy(&mut block[..100], &extended_name(&path));
            for field in [100..108, 108..116, 116..124] {
                number(&mut block[field], 0);
            }
            number(&mut block[124..136], records.len() as u64);
            number(&mut block[136..148], 0);
            self.block(block, b'x')?;
            self.data(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut block = [0; BLOCK];
        copy_name(&mut block[..100], &ascii(name));
        number(&mut block[100..108], u64::from(entry.mode & 0o7777));
        number(&mut block[108..116], fitting(u64::from(entry.uid), OCTAL_8));
        number(&mut block[116..124], fitting(u64::from(entry.gid), OCTAL_8));
        number(&mut block[124..136], fitting(size, OCTAL_12));
        number(&mut block[136..148], secs.unwrap_or(0));
        copy_name(&mut block[157..257], &ascii(link));
        copy(&mut block[345..500], prefix);
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Character { .. } => b'3',
            Kind::Block { .. } => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        let (major, minor) = match entry.kind {
            Kind::Character { major, minor } | Kind::Block { major, minor } => (major, minor),
            _ => (0, 0),
        };
        number(&mut block[329..337], fitting(u64::from(major), OCTAL_8));
        number(&mut block[337..345], fitting(u64::from(minor), OCTAL_8));
        self.block(block, flag)
    }

    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)
    }

    /// Fills the last block of a content of `size` bytes.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.inner.write_all(&[0; BLOCK][..rest])
    }

    /// A whole small file in one go.
    pub fn file(&mut self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        self.header(&Entry {
            size: content.len() as u64,
            ..entry.clone()
        })?;
        self.data(content)?;
        self.pad(content.len() as u64)
    }

    /// The stream, without an archive's end.
    pub fn into_inner(self) -> W {
        self.inner
    }

    /// Writes the two zero blocks that end an archive and gives back the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    fn block(&mut self, mut block: [u8; BLOCK], flag: u8) -> io::Result<()> {
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        number(&mut block[148..155], sum);
        block[154] = 0;
        self.inner.write_all(&block)
    }
}

/// The largest numbers of an 8 and a 12 byte field, each with a NUL at its end.
const OCTAL_8: u64 = 0o7_777_777;
const OCTAL_12: u64 = 0o77_777_777_777;

fn number(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    copy(&mut field[..width], format!("{value:0width$o}").as_bytes());
}

fn copy(field: &mut [u8], bytes: &[u8]) {
    let count = bytes.len().min(field.len());
    field[..count].copy_from_slice(&bytes[..count]);
}

/// What does not fit is in a record; the field then says nothing.
fn fitting(value: u64, most: u64) -> u64 {
    if value <= most { value } else { 0 }
}

/// The PAX records of an entry, sorted by key; none if the ustar header alone can say it all.
fn records(entry: &Entry, path: &[u8], link: &[u8], size: u64, plain_time: bool) -> Vec<u8> {
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.push((key.to_vec(), value.to_vec()));
    for (key, id) in [(&b"gid"[..], entry.gid), (b"uid", entry.uid)] {
        if u64::from(id) > OCTAL_8 {
            add(key, id.to_string().as_bytes());
        }
    }
    if link.len() > 100 || !is_ascii(link) {
        add(b"linkpath", link);
    }
    if entry.mtime.nanos != 0 || !plain_time {
        add(b"mtime", time(entry).as_bytes());
    }
    if size > OCTAL_12 {
        add(b"size", size.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_bytes()].concat(), value);
    }
    let long = path.len() > 100;
    if !is_ascii(path) || (long && (!records.is_empty() || split(path).is_none())) {
        records.push((b"path".to_vec(), path.to_vec()));
    }
    records.sort_unstable();
    let mut text = Vec::new();
    for (key, value) in &records {
        pax::push(&mut text, key, value);
    }
    text
}

/// Prefix and name of a path that is too long for the name's field, as Go divides it.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 || !is_ascii(path) {
        return None;
    }
    let mut searched = path.len().min(156);
    if path.len() <= 156 && path.ends_with(b"/") {
        searched -= 1;
    }
    let at = path[..searched].iter().rposition(|&byte| byte == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (at > 0 && !name.is_empty() && name.len() <= 100).then_some((prefix, name))
}

/// What the header of the records is called: nobody looks at it.
fn extended_name(path: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let mut name = path[..at].to_vec();
    name.extend_from_slice(b"PaxHeaders.0/");
    name.extend_from_slice(&path[at..]);
    let mut name = ascii(&name);
    name.truncate(100);
    while name.ends_with(b"/") {
        name.pop();
    }
    name
}

fn is_ascii(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte != 0 && byte < 0x80)
}

fn ascii(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|&byte| byte != 0 && byte < 0x80).collect()
}

/// A name that is cut must not end in a slash: some readers would take the entry for a directory.
fn copy_name(field: &mut [u8], bytes: &[u8]) {
    copy(field, bytes);
    let last = field.len() - 1;
    if bytes.len() > field.len() && field[last] == b'/' {
        let end = field.iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
        field[end] = 0;
    }
}

/// Seconds with as many digits after the point as are not zero.
fn time(entry: &Entry) -> String {
    let time = entry.mtime;
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let text = if time.secs < 0 {
        format!("-{}.{:09}", -(time.secs + 1), 1_000_000_000 - time.nanos)
    } else {
        format!("{}.{:09}", time.secs, time.nanos)
    };
    text.trim_end_matches('0').to_owned()
}
