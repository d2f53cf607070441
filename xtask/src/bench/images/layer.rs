//! One layer on its way to an OCI layout: a tar as Docker writes it (ustar, with PAX records for what does not fit), compressed
//! by `gzip` and hashed by `sha256sum`, which are quicker than anything that is built without optimisation.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use tar::{EntryType, Header};

use crate::shell;

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
    tar: tar::Builder<BufWriter<Sinks>>,
    gzip: Child,
    hash: Child,
    blobs: PathBuf,
    directories: BTreeSet<Vec<u8>>,
    pub entries: u64,
}

/// A layer that is in the layout.
pub struct Blob {
    /// Of the compressed bytes, in hexadecimal digits.
    pub digest: String,
    pub diff_id: String,
    pub size: u64,
    pub tar: u64,
    pub entries: u64,
}

impl Layer {
    /// `effort` is gzip's level.
    pub fn begin(blobs: &Path, effort: u8) -> Result<Self> {
        let file = File::create(blobs.join("part")).context("create a blob")?;
        let child = |program: &str, args: &[&str], to: Stdio| {
            let mut command = Command::new(program);
            let spawned = command.args(args).stdin(Stdio::piped()).stdout(to).spawn();
            spawned.with_context(|| format!("start {program}"))
        };
        let mut gzip = child("gzip", &["-n", "-c", &format!("-{effort}")], Stdio::from(file))?;
        let mut hash = child("sha256sum", &[], Stdio::piped())?;
        let input = |child: &mut Child| child.stdin.take().ok_or_else(|| anyhow!("a pipe is missing"));
        let sinks = Sinks {
            gzip: input(&mut gzip)?,
            hash: input(&mut hash)?,
            bytes: 0,
        };
        Ok(Self {
            tar: tar::Builder::new(BufWriter::with_capacity(1 << 20, sinks)),
            gzip,
            hash,
            blobs: blobs.to_owned(),
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
        let (mut gzip, hash) = (self.gzip, self.hash);
        let buffer = self.tar.into_inner().context("end the archive")?;
        let sinks = buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
        let tar = sinks.bytes;
        drop(sinks);
        if !gzip.wait()?.success() {
            bail!("gzip failed");
        }
        let diff_id = first_word(&hash.wait_with_output()?.stdout)?;
        let part = self.blobs.join("part");
        let size = fs::metadata(&part)?.len();
        let digest = first_word(shell::output(Command::new("sha256sum").arg(&part))?.as_bytes())?;
        fs::rename(&part, self.blobs.join(&digest)).context("name a blob")?;
        Ok(Blob {
            digest,
            diff_id,
            size,
            tar,
            entries: self.entries,
        })
    }
}

/// Where the bytes of the tar go.
struct Sinks {
    gzip: ChildStdin,
    hash: ChildStdin,
    bytes: u64,
}

impl Write for Sinks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.gzip.write_all(data)?;
        self.hash.write_all(data)?;
        self.bytes += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The sum that `sha256sum` prints.
pub fn first_word(text: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(text);
    let word = text.split_whitespace().next().unwrap_or_default();
    if word.len() != 64 {
        bail!("sha256sum says {text:?}");
    }
    Ok(word.to_owned())
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
    use super::timestamp;

    #[test]
    fn times_before_1970_have_one_sign_and_their_fraction() {
        assert_eq!(timestamp(5, 0), "5");
        assert_eq!(timestamp(5, 1), "5.000000001");
        assert_eq!(timestamp(-5, 0), "-5");
        assert_eq!(timestamp(-5, 250_000_000), "-4.750000000");
    }
}
