//! Writes tar streams: ustar headers, with a PAX header before an entry that needs more.

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
        let mut records = Vec::new();
        if path.len() > 100 || !path.is_ascii() {
            pax::push(&mut records, b"path", &path);
        }
        if link.len() > 100 || !link.is_ascii() {
            pax::push(&mut records, b"linkpath", link);
        }
        if size > OCTAL_12 {
            pax::push(&mut records, b"size", size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
            if u64::from(id) > OCTAL_8 {
                pax::push(&mut records, key, id.to_string().as_bytes());
            }
        }
        let secs = u64::try_from(entry.mtime.secs).ok().filter(|&secs| secs <= OCTAL_12);
        if entry.mtime.nanos != 0 || secs.is_none() {
            pax::push(&mut records, b"mtime", time(entry).as_bytes());
        }
        for (name, value) in &entry.xattrs {
            pax::push(&mut records, &[b"SCHILY.xattr.", name.as_bytes()].concat(), value);
        }
        if !records.is_empty() {
            let mut block = [0; BLOCK];
            copy(&mut block[..100], b"PaxHeaders.0/entry");
            number(&mut block[100..108], 0o644);
            number(&mut block[124..136], records.len() as u64);
            self.block(block, b'x')?;
            self.data(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut block = [0; BLOCK];
        copy(&mut block[..100], &path);
        number(&mut block[100..108], u64::from(entry.mode & 0o7777));
        number(&mut block[108..116], u64::from(entry.uid).min(OCTAL_8));
        number(&mut block[116..124], u64::from(entry.gid).min(OCTAL_8));
        number(&mut block[124..136], size.min(OCTAL_12));
        number(&mut block[136..148], secs.unwrap_or(0));
        copy(&mut block[157..257], link);
        let flag = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Character { .. } => b'3',
            Kind::Block { .. } => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        if let Kind::Character { major, minor } | Kind::Block { major, minor } = entry.kind {
            number(&mut block[329..337], u64::from(major).min(OCTAL_8));
            number(&mut block[337..345], u64::from(minor).min(OCTAL_8));
        }
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

fn time(entry: &Entry) -> String {
    let time = entry.mtime;
    if time.secs < 0 && time.nanos != 0 {
        return format!("-{}.{:09}", -(time.secs + 1), 1_000_000_000 - time.nanos);
    }
    format!("{}.{:09}", time.secs, time.nanos)
}
