//! A log file, rotated by size: `x.log` becomes `x.log.N` with a number that grows, so that no name ever changes its content. The
//! engine compresses what was rotated, when it is there (`x.log.N.gz`).

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};

use super::Driver;
use crate::log::{Format, LINE, Line, Step};
use crate::logging::LogFile;

/// How much of a file's end is looked at for a record that is not whole; a multiple of a block.
const END: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct LogWriter {
    spec: LogFile,
    /// As a JSON object, or empty.
    attributes: String,
    file: Option<File>,
    size: u64,
    /// Taken and not written yet; it goes to `size`.
    entry: Vec<u8>,
}

impl LogWriter {
    pub fn open(spec: LogFile) -> io::Result<Self> {
        let attributes = match spec.attributes.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&spec.attributes)?,
        };
        let file = File::options().create(true).append(true).read(true).open(&spec.path)?;
        let size = mend(&file, spec.format)?;
        Ok(Self {
            spec,
            attributes,
            file: Some(file),
            size,
            entry: Vec::new(),
        })
    }

    /// The oldest goes.
    fn rotate(&mut self) {
        self.file = None;
        let Some(name) = LogFile::names(&self.spec.path) else {
            return;
        };
        let next = name.last().map_or(1, |last| last + 1);
        let path = self.spec.numbered(next);
        // A log that stays as it is goes on to grow, which is better than none.
        if std::fs::rename(&self.spec.path, path).is_ok() {
            self.size = 0;
            let keep = self.spec.max_files.saturating_sub(1) as usize;
            let surplus = (name.len() + 1).saturating_sub(keep);
            for number in name.iter().chain([&next]).take(surplus) {
                let _ = std::fs::remove_file(self.spec.numbered(*number));
                let _ = std::fs::remove_file(self.spec.compressed(*number));
            }
        }
    }
}

impl Driver for LogWriter {
    fn take(&mut self, line: &Line<'_>) {
        let format = self.spec.format;
        let before = self.entry.len();
        format.encode(&mut self.entry, self.size + before as u64, line, &self.attributes);
        let size = self.size + self.entry.len() as u64;
        if self.spec.max_size > 0 && size > self.spec.max_size && self.size + before as u64 > 0 {
            self.entry.truncate(before);
            self.flush();
            self.rotate();
            format.encode(&mut self.entry, self.size, line, &self.attributes);
        }
    }

    fn flush(&mut self) {
        if self.entry.is_empty() {
            return;
        }
        if self.file.is_none() {
            self.file = File::options().create(true).append(true).open(&self.spec.path).ok();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.entry) {
                Ok(()) => self.size += self.entry.len() as u64,
                // What went in of it goes out again: the next entry begins where a reader expects one.
                Err(_) => drop(file.set_len(self.size)),
            }
        }
        self.entry.clear();
        self.entry.shrink_to(LINE);
    }
}

/// Removes a record at the end that is not whole: the shim, or the machine, ended while it wrote it. Returns the file's size.
fn mend(mut file: &File, format: Format) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut from = (size.saturating_sub(1) / END) * END;
    if format == Format::Json {
        // A line may have begun in the block before.
        from = from.saturating_sub(END);
    }
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(2 * END).read_to_end(&mut bytes)?;
    let mut at = match format.start(&bytes, from) {
        Some(at) => at,
        None => return Ok(size),
    };
    while let Step::Record { used, .. } | Step::Skip { used, .. } = format.parse(&bytes[at..], from + at as u64) {
        at += used;
    }
    let whole = from + at as u64;
    if whole < size {
        file.set_len(whole)?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::Logging;
    use crate::shim::log::Log;

    fn log(max_size: u64, max_files: u32) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c-json.log");
        let log = Log::open(&Logging {
            file: Some(LogFile {
                path,
                max_size,
                max_files,
                ..LogFile::default()
            }),
            syslog: None,
        })
        .unwrap();
        (dir, log)
    }

    fn entries(dir: &tempfile::TempDir, name: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        let field = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap().to_owned();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .map(|value| (field(&value, "stream"), field(&value, "log")))
            .collect()
    }

    #[test]
    fn lines_are_entries_and_partial_lines_wait() {
        let (dir, mut log) = log(0, 1);
        log.write(0, b"one\ntw");
        log.write(1, b"err <&>\x01\"\\\xff\n");
        log.write(0, b"o\nrest");
        log.finish();
        let expected = [
            ("stdout", "one\n"),
            ("stderr", "err <&>\u{1}\"\\\u{fffd}\n"),
            ("stdout", "two\n"),
            ("stdout", "rest"),
        ];
        let expected = expected.map(|(stream, line)| (stream.to_owned(), line.to_owned()));
        assert_eq!(entries(&dir, "c-json.log"), expected);
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib() {
        let (dir, mut log) = log(0, 1);
        let mut line = vec![b'x'; 40_000];
        line.push(b'\n');
        for part in line.chunks(10_000) {
            log.write(0, part);
        }
        let lengths: Vec<_> = entries(&dir, "c-json.log").iter().map(|(_, line)| line.len()).collect();
        assert_eq!(lengths, [16384, 16384, 7233]);
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let (dir, mut log) = log(200, 3);
        for number in 0..20 {
            log.write(0, format!("line {number}\n").as_bytes());
        }
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(entries(&dir, "c-json.log").last().unwrap().1, "line 19\n");
    }

    #[test]
    fn a_record_that_is_not_whole_is_removed_before_the_next() {
        for format in [Format::Json, Format::Local] {
            let dir = tempfile::tempdir().unwrap();
            let spec = LogFile {
                path: dir.path().join("c.log"),
                format,
                max_files: 1,
                ..LogFile::default()
            };
            let line = |bytes| Line {
                stderr: false,
                at: jiff::Timestamp::UNIX_EPOCH,
                bytes,
            };
            let mut log = LogWriter::open(spec.clone()).unwrap();
            log.take(&line(b"one\n"));
            log.flush();
            let whole = std::fs::read(&spec.path).unwrap();
            log.take(&line(b"two\n"));
            log.flush();
            let size = std::fs::metadata(&spec.path).unwrap().len();
            File::options()
                .write(true)
                .open(&spec.path)
                .unwrap()
                .set_len(size - 3)
                .unwrap();
            LogWriter::open(spec.clone()).unwrap();
            assert_eq!(std::fs::read(&spec.path).unwrap(), whole, "{format:?}");
        }
    }
}
