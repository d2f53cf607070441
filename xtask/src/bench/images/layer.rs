//! One layer, as Docker writes it: ustar, with PAX records for what does not fit.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Read};
use std::path::Path;

use anyhow::{Context, Result};
use tar::{EntryType, Header};

use super::blob::{Blob, Compressor};

/// The largest number that fits an owner's field in octal.
const MOST_OWNER: u64 = 0o777_7777;
const NAME: usize = 100;

/// What an entry is, and what belongs to that kind alone.
pub enum Kind<'a> {
    File(&'a [u8]),
    /// So many zeros, and these bytes: what Docker makes of a sparse file.
    Zeros(u64, &'a [u8]),
    /// So much of a stream.
    Stream(&'a mut dyn Read, u64),
    Directory,
    Symlink(&'a [u8]),
    /// To an entry of the same layer.
    Hardlink(&'a [u8]),
    Device(EntryType, u32, u32),
    Fifo,
}

/// An entry's metadata; `Meta::default()` is a file of root's from the year 2001.
pub struct Meta<'a> {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds and nanoseconds.
    pub time: (i64, u32),
    pub xattrs: &'a [(&'a str, &'a [u8])],
}

impl Default for Meta<'_> {
    fn default() -> Self {
        Self {
            mode: 0o644,
            uid: 0,
            gid: 0,
            time: (1_000_000_000, 0),
            xattrs: &[],
        }
    }
}

pub struct Layer {
    tar: tar::Builder<BufWriter<Compressor>>,
    directories: BTreeSet<Vec<u8>>,
    pub entries: u64,
}

impl Layer {
    /// `effort` is gzip's level.
    pub fn begin(blobs: &Path, effort: u8) -> Result<Self> {
        let compressor = Compressor::begin(blobs, effort)?;
        Ok(Self {
            tar: tar::Builder::new(BufWriter::with_capacity(1 << 20, compressor)),
            directories: BTreeSet::new(),
            entries: 0,
        })
    }

    /// Bytes of tar so far, but for what is buffered.
    pub fn bytes(&self) -> u64 {
        self.tar.get_ref().get_ref().bytes
    }

    /// Adds an entry, and the directories above it that were not added yet.
    pub fn add(&mut self, path: &[u8], meta: &Meta, kind: Kind) -> Result<()> {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let above = &path[..at];
            if !self.directories.contains(above) {
                let meta = Meta {
                    mode: 0o755,
                    ..Meta::default()
                };
                self.append(above, &meta, Kind::Directory)?;
            }
        }
        self.append(path, meta, kind)
            .with_context(|| format!("add {}", String::from_utf8_lossy(path)))
    }

    fn append(&mut self, path: &[u8], meta: &Meta, kind: Kind) -> Result<()> {
        let mut header = Header::new_ustar();
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let mut name = path.to_vec();
        header.set_mode(meta.mode);
        header.set_size(0);
        // Not the NUL of old archives: with that, a name that is cut after a slash is a directory.
        header.set_entry_type(EntryType::Regular);
        let mut link: &[u8] = &[];
        match &kind {
            Kind::File(data) => header.set_size(data.len() as u64),
            Kind::Zeros(count, end) => header.set_size(count + end.len() as u64),
            Kind::Stream(_, size) => header.set_size(*size),
            Kind::Directory => {
                header.set_entry_type(EntryType::Directory);
                self.directories.insert(path.to_vec());
                name.push(b'/');
            }
            Kind::Symlink(to) => {
                header.set_entry_type(EntryType::Symlink);
                link = to;
            }
            Kind::Hardlink(to) => {
                header.set_entry_type(EntryType::Link);
                link = to;
            }
            Kind::Device(which, major, minor) => {
                header.set_entry_type(*which);
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
            }
            Kind::Fifo => header.set_entry_type(EntryType::Fifo),
        }
        for (field, number) in [("uid", meta.uid), ("gid", meta.gid)] {
            let fits = number <= MOST_OWNER;
            if !fits {
                records.push((field.to_owned(), number.to_string().into_bytes()));
            }
            let value = if fits { number } else { 0 };
            if field == "uid" {
                header.set_uid(value);
            } else {
                header.set_gid(value);
            }
        }
        let (seconds, nanoseconds) = meta.time;
        match u64::try_from(seconds) {
            Ok(seconds) if nanoseconds == 0 => header.set_mtime(seconds),
            _ => records.push(("mtime".to_owned(), timestamp(seconds, nanoseconds).into_bytes())),
        }
        for (attribute, value) in meta.xattrs {
            records.push((format!("SCHILY.xattr.{attribute}"), value.to_vec()));
        }
        let short = |field: &str, value: &[u8], records: &mut Vec<(String, Vec<u8>)>| {
            let mut short = [0; NAME];
            let length = value.len().min(NAME);
            short[..length].copy_from_slice(&value[..length]);
            if value.len() > NAME {
                records.push((field.to_owned(), value.to_vec()));
            }
            short
        };
        let (name, link) = (
            short("path", &name, &mut records),
            short("linkpath", link, &mut records),
        );
        header.as_old_mut().name = name;
        header.as_old_mut().linkname = link;
        header.set_cksum();
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(records)?;
        match kind {
            Kind::File(data) => self.tar.append(&header, data)?,
            Kind::Zeros(count, end) => self.tar.append(&header, io::repeat(0).take(count).chain(end))?,
            Kind::Stream(from, size) => self.tar.append(&header, from.take(size))?,
            _ => self.tar.append(&header, io::empty())?,
        }
        self.entries += 1;
        Ok(())
    }

    /// Closes the archive; the blob gets the name of its digest.
    pub fn finish(self) -> Result<Blob> {
        let buffer = self.tar.into_inner().context("end the archive")?;
        let compressor = buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
        compressor.finish(self.entries)
    }
}

/// A PAX time: decimal, the fraction towards the future also before 1970.
fn timestamp(seconds: i64, nanoseconds: u32) -> String {
    let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (whole, rest) = (nanoseconds.abs() / 1_000_000_000, nanoseconds.abs() % 1_000_000_000);
    if rest == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{rest:09}")
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tar::EntryType;

    use super::{Kind, Layer, Meta, timestamp};

    #[test]
    fn a_layer_reads_as_it_was_written() {
        let dir = std::env::temp_dir().join(format!("ferry-test-layer-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut layer = Layer::begin(&dir, 1).unwrap();
        // Its first hundred bytes end in a slash.
        let cut = format!("{}/file", "d".repeat(99));
        let meta = Meta {
            uid: 12_345_678,
            xattrs: &[("user.thing", b"a\0c=1")],
            ..Meta::default()
        };
        layer.add(cut.as_bytes(), &meta, Kind::File(b"text")).unwrap();
        layer.add(b"x\xff", &Meta::default(), Kind::Zeros(5, b"end")).unwrap();
        layer
            .add(b"link", &Meta::default(), Kind::Hardlink(cut.as_bytes()))
            .unwrap();
        let blob = layer.finish().unwrap();
        assert_eq!(blob.entries, 4);

        let tar = Command::new("gzip")
            .arg("-dc")
            .arg(dir.join(&blob.digest))
            .output()
            .unwrap()
            .stdout;
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(tar.len() as u64, blob.tar);
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut seen = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            (entry.path_bytes().to_vec(), header.entry_type(), header.size().unwrap())
        });
        let directory = format!("{}/", "d".repeat(99));
        assert_eq!(seen.next().unwrap(), (directory.into_bytes(), EntryType::Directory, 0));
        assert_eq!(seen.next().unwrap(), (cut.into_bytes(), EntryType::Regular, 4));
        assert_eq!(seen.next().unwrap(), (b"x\xff".to_vec(), EntryType::Regular, 8));
        assert_eq!(seen.next().unwrap(), (b"link".to_vec(), EntryType::Link, 0));
        assert!(seen.next().is_none());
    }

    #[test]
    fn times_before_1970_have_one_sign_and_their_fraction() {
        assert_eq!(timestamp(5, 0), "5");
        assert_eq!(timestamp(5, 1), "5.000000001");
        assert_eq!(timestamp(-5, 0), "-5");
        assert_eq!(timestamp(-5, 250_000_000), "-4.750000000");
    }
}
