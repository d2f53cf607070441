//! The files of an archive, by name, on disk.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use ferry_archive::{Kind, Limits, Reader};
use ferry_image::Digest;

use crate::error::Context as _;
use crate::layout::{Layout, Staging};
use crate::stream::Hashed;
use crate::{Error, Result, images};

/// A file of the archive. Its digest is that of the bytes as they are stored.
#[derive(Clone, Debug)]
pub struct Spooled {
    pub path: PathBuf,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

pub struct Spool {
    staging: Staging,
    files: HashMap<PathBuf, Spooled>,
    links: HashMap<PathBuf, PathBuf>,
    written: Cell<u64>,
}

/// Files in one archive: more than any image has layers, by far.
const ENTRIES: u64 = 100_000;
/// Links that lead to links.
const HOPS: usize = 16;

impl Spool {
    /// Reads a tar stream to its end. `progress` is called after every file.
    pub fn fill(layout: &Layout, stream: impl Read, mut progress: impl FnMut(u64)) -> Result<Self> {
        let staging = Staging::new(layout)?;
        let mut spool = Self {
            staging,
            files: HashMap::new(),
            links: HashMap::new(),
            written: Cell::new(0),
        };
        let limits = Limits {
            entries: ENTRIES,
            ..Limits::default()
        };
        let mut reader = Reader::new(stream, limits);
        let wrong = |source| Error::archive("the archive", &layout.root, source);
        while let Some(entry) = reader.next_entry().map_err(wrong)? {
            let name = clean(&entry.path, Path::new(""))?;
            match entry.kind {
                Kind::Directory => {}
                Kind::File if entry.segments.is_none() => {
                    let file = spool.store(&mut reader)?;
                    if let Some(old) = spool.files.insert(name.clone(), file) {
                        let _ = std::fs::remove_file(old.path);
                    }
                    spool.links.remove(&name);
                    progress(entry.size);
                }
                Kind::Symlink => {
                    let target = clean(Path::new(&entry.link), name.parent().unwrap_or(Path::new("")))?;
                    spool.files.remove(&name);
                    spool.links.insert(name, target);
                }
                Kind::HardLink => {
                    let target = clean(Path::new(&entry.link), Path::new(""))?;
                    if target != name {
                        spool.files.remove(&name);
                        spool.links.insert(name, target);
                    }
                }
                _ => {
                    return Err(Error::Invalid(format!(
                        "unexpected entry {} in the archive",
                        entry.path.display()
                    )));
                }
            }
        }
        reader.drain().map_err(wrong)?;
        Ok(spool)
    }

    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_ok_and(|file| file.is_some())
    }

    /// The file of that name, through links.
    pub fn find(&self, name: &str) -> Result<Option<Spooled>> {
        let mut name = clean(Path::new(name), Path::new(""))?;
        for _ in 0..HOPS {
            if let Some(file) = self.files.get(&name) {
                return Ok(Some(file.clone()));
            }
            match self.links.get(&name) {
                Some(target) => name.clone_from(target),
                None => return Ok(None),
            }
        }
        Err(Error::Invalid(format!(
            "too many links at {} in the archive",
            name.display()
        )))
    }

    pub fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let file = self
            .find(name)?
            .ok_or_else(|| Error::Invalid(format!("the archive holds no {name}")))?;
        images::read(&file.path, name, limit)
    }

    /// A new file with this content.
    pub fn write(&self, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.fresh();
        std::fs::write(&path, bytes).at("write", &path)?;
        Ok(path)
    }

    fn store(&self, content: impl Read) -> Result<Spooled> {
        let path = self.fresh();
        let mut file = File::create_new(&path).at("create", &path)?;
        let mut hashed = Hashed::new(content);
        io::copy(
            &mut Buffered(&mut hashed),
            &mut Sink {
                file: &mut file,
                path: &path,
            },
        )
        .map_err(|error| {
            error.downcast::<Error>().unwrap_or_else(|source| {
                let source = match source.kind() {
                    io::ErrorKind::UnexpectedEof => ferry_archive::Error::Truncated,
                    _ => ferry_archive::Error::Read { source },
                };
                Error::archive("the archive", &path, source)
            })
        })?;
        let (digest, size) = hashed.finish();
        Ok(Spooled { path, digest, size })
    }

    fn fresh(&self) -> PathBuf {
        self.written.set(self.written.get() + 1);
        self.staging.path.join(self.written.get().to_string())
    }
}

impl Spooled {
    /// What the file is compressed with, by its first bytes; `None` if it is not.
    pub fn compression(&self) -> Result<Option<&'static str>> {
        let file = File::open(&self.path).at("open", &self.path)?;
        let decoder =
            ferry_archive::decompress(file).map_err(|source| Error::archive("a layer", &self.path, source))?;
        match decoder.compression() {
            ferry_archive::Compression::None => Ok(None),
            other => Ok(Some(other.name())),
        }
    }
}

/// A writer whose errors say that it was the disk and not the stream.
struct Sink<'a> {
    file: &'a mut File,
    path: &'a Path,
}

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file
            .write(bytes)
            .map_err(|source| io::Error::other(Error::io("write", self.path, source)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps `io::copy` from its 8 KiB pieces.
struct Buffered<R>(R);

impl<R: Read> Read for Buffered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// A name relative to the top of the archive; one that leads out of it is refused.
fn clean(name: &Path, from: &Path) -> Result<PathBuf> {
    let mut cleaned = if name.has_root() {
        PathBuf::new()
    } else {
        from.to_owned()
    };
    for component in name.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir if !cleaned.pop() => {
                return Err(Error::Invalid(format!("{} leads out of the archive", name.display())));
            }
            _ => {}
        }
    }
    Ok(cleaned)
}
