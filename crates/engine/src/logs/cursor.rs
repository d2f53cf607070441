//! Reading one file of a log, forwards; compressed or not.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ferry_supervise::log::{Format, Record, Step};
use flate2::read::GzDecoder;

/// One read.
const CHUNK: usize = 64 * 1024;
/// Marks the subfield (RFC 1952, 2.3.1.1) that says which inode the file had before it was compressed.
pub(super) const SUBFIELD: [u8; 4] = [b'F', b'y', 8, 0];

/// One file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub path: PathBuf,
    /// `None` if it is compressed: its header tells.
    ino: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Cursor {
    format: Format,
    input: Input,
    name: PathBuf,
    /// What was read and not handed out is from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Of `buffer[start]` in the file's content.
    at: u64,
    /// Of the file before it was compressed.
    pub ino: u64,
}

#[derive(Debug)]
enum Input {
    Plain(File),
    Compressed(Box<GzDecoder<File>>),
}

#[derive(Debug)]
pub(super) enum Item {
    Record(Record),
    /// What cannot be read, and has been passed over.
    Damage(String),
    /// For now.
    End,
}

impl Cursor {
    /// `at`: where to begin, a place where a record begins; 0 in a compressed file. Fails as [`Place::open`].
    pub fn open(place: &Place, format: Format, at: u64) -> io::Result<Self> {
        let mut file = place.open()?;
        let (input, ino) = if let Some(ino) = place.ino {
            file.seek(SeekFrom::Start(at))?;
            (Input::Plain(file), ino)
        } else {
            let input = Box::new(GzDecoder::new(file));
            let ino = input.header().and_then(|header| identity(header.extra()?)).unwrap_or(0);
            (Input::Compressed(input), ino)
        };
        Ok(Self {
            format,
            input,
            name: place.path.clone(),
            buffer: Vec::new(),
            start: 0,
            at,
            ino,
        })
    }

    pub fn next(&mut self) -> io::Result<Item> {
        loop {
            let (used, item) = match self.format.parse(&self.buffer[self.start..], self.at) {
                Step::Record { used, record } => (used, Some(Item::Record(record))),
                Step::Skip { used, damaged: false } => (used, None),
                Step::Skip { used, damaged: true } => (used, Some(self.damage(used, "it is damaged"))),
                Step::More => match self.fill() {
                    Ok(0) => return Ok(Item::End),
                    Ok(_) => continue,
                    // A compressed file that was cut or changed: its rest is lost.
                    Err(error) => match self.input {
                        Input::Compressed(_) => {
                            let item = self.damage(0, &error.to_string());
                            self.input = Input::Plain(File::open("/dev/null")?);
                            self.buffer.truncate(self.start);
                            (0, Some(item))
                        }
                        Input::Plain(_) => return Err(error),
                    },
                },
            };
            self.start += used;
            self.at += used as u64;
            if let Some(item) = item {
                return Ok(item);
            }
        }
    }

    /// What is left at the end of a file to which nothing is added any more: part of a record.
    pub fn rest(&mut self) -> Option<Item> {
        let left = self.buffer.len() - self.start;
        let item = (left > 0).then(|| self.damage(left, "it ends in the middle"));
        self.start = self.buffer.len();
        item
    }

    fn damage(&self, bytes: usize, why: &str) -> Item {
        let name = self.name.file_name().unwrap_or_default().to_string_lossy();
        let what = match bytes {
            0 => "what follows".to_owned(),
            1 => "a byte".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        Item::Damage(format!(
            "ferry: {what} at offset {} of the log file {name} cannot be read: {why}\n",
            self.at
        ))
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        let read = loop {
            let into = &mut self.buffer[before..];
            let read = match &mut self.input {
                Input::Plain(file) => file.read(into),
                Input::Compressed(input) => input.read(into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(before + read.as_ref().map_or(0, |count| *count));
        read
    }
}

/// The inode that a file had before it was compressed.
pub(super) fn identity(extra: &[u8]) -> Option<u64> {
    let number = extra.strip_prefix(&SUBFIELD)?;
    Some(u64::from_le_bytes(number.try_into().ok()?))
}

impl Place {
    fn plain(path: PathBuf) -> Option<Self> {
        let ino = Some(std::fs::metadata(&path).ok()?.ino());
        Some(Self { path, ino })
    }

    pub fn is_compressed(&self) -> bool {
        self.ino.is_none()
    }

    /// [`NotFound`](io::ErrorKind::NotFound) if it was rotated, compressed or deleted since it was listed.
    pub fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        match self.ino {
            Some(ino) if file.metadata()?.ino() != ino => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(file),
        }
    }

    /// The inode of the file before it was compressed.
    pub fn ino(&self) -> Option<u64> {
        self.ino.or_else(|| {
            let input = GzDecoder::new(File::open(&self.path).ok()?);
            identity(input.header()?.extra()?)
        })
    }
}

/// The files of the log at `path`, oldest first, none left out between two of them: the newest is looked at first, so that it is
/// seen twice, not missed, if it is rotated now.
pub(super) fn places(path: &Path) -> Vec<Place> {
    let newest = Place::plain(path.to_owned());
    let numbered = |number: u64, end: &str| {
        let mut name = path.to_owned().into_os_string();
        name.push(format!(".{number}{end}"));
        PathBuf::from(name)
    };
    let numbers = ferry_supervise::LogFile::names(path).unwrap_or_default();
    let place = |number| {
        Place::plain(numbered(number, "")).unwrap_or_else(|| Place {
            path: numbered(number, ".gz"),
            ino: None,
        })
    };
    let mut places: Vec<Place> = numbers.into_iter().map(place).collect();
    places.extend(newest.filter(|newest| places.iter().all(|place| place.ino != newest.ino)));
    places
}
