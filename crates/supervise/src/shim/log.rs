//! The container's log, in Docker's json-file format, rotated by size.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678Z"}`. A line longer than
//! 16 KiB is cut into several objects, of which only the last ends in a newline, as Docker does. A log that cannot be
//! written (a full disk) costs lines, never the container.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::launch::LogFile;

/// The most of a line that goes into one entry.
const LINE: usize = 16 * 1024;

pub(super) struct Log {
    spec: LogFile,
    file: Option<File>,
    size: u64,
    /// Unfinished lines of stdout and stderr.
    partial: [Vec<u8>; 2],
    entry: Vec<u8>,
}

impl Log {
    pub fn open(spec: LogFile) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&spec.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            spec,
            file: Some(file),
            size,
            partial: [Vec::new(), Vec::new()],
            entry: Vec::new(),
        })
    }

    /// Takes what `stream` (0: stdout, 1: stderr) said; whole lines are written at once.
    pub fn write(&mut self, stream: usize, mut bytes: &[u8]) {
        self.entry.clear();
        let now = Timestamp::now();
        while !bytes.is_empty() {
            let room = LINE - self.partial[stream].len();
            let window = &bytes[..bytes.len().min(room)];
            let (taken, complete) = match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (window.len(), window.len() == room),
            };
            if complete && self.partial[stream].is_empty() {
                push_entry(&mut self.entry, stream, &bytes[..taken], now);
            } else {
                self.partial[stream].extend_from_slice(&bytes[..taken]);
                if complete {
                    let line = std::mem::take(&mut self.partial[stream]);
                    push_entry(&mut self.entry, stream, &line, now);
                }
            }
            bytes = &bytes[taken..];
        }
        self.flush();
    }

    /// Writes unfinished lines; at the end of a stream.
    pub fn finish(&mut self) {
        self.entry.clear();
        for stream in 0..2 {
            let line = std::mem::take(&mut self.partial[stream]);
            if !line.is_empty() {
                push_entry(&mut self.entry, stream, &line, Timestamp::now());
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.entry.is_empty() {
            return;
        }
        if self.spec.max_size > 0 && self.size + self.entry.len() as u64 > self.spec.max_size && self.size > 0 {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = File::options().create(true).append(true).open(&self.spec.path).ok();
        }
        if let Some(file) = &mut self.file {
            match file.write_all(&self.entry) {
                Ok(()) => self.size += self.entry.len() as u64,
                // A part may have gone in; the next entry must start on a line of its own.
                Err(_) => drop(file.write_all(b"\n")),
            }
        }
        self.entry.clear();
        self.entry.shrink_to(LINE);
    }

    /// `x.log` becomes `x.log.1` and so on; the oldest goes.
    fn rotate(&mut self) {
        self.file = None;
        let numbered = |number: u32| {
            let mut name = self.spec.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.spec.max_files.saturating_sub(1)).rev() {
            // A gap in the numbers is fine.
            let _ = std::fs::rename(numbered(number), numbered(number + 1));
        }
        let done = match self.spec.max_files {
            0 | 1 => std::fs::remove_file(&self.spec.path),
            _ => std::fs::rename(&self.spec.path, numbered(1)),
        };
        if done.is_ok() {
            self.size = 0;
        }
    }
}

fn push_entry(out: &mut Vec<u8>, stream: usize, line: &[u8], now: Timestamp) {
    out.extend_from_slice(b"{\"log\":");
    push_string(out, line);
    out.extend_from_slice(if stream == 0 {
        b",\"stream\":\"stdout\""
    } else {
        b",\"stream\":\"stderr\""
    });
    // Writing into a Vec cannot fail.
    let _ = writeln!(out, ",\"time\":\"{now}\"}}");
}

/// A JSON string as Go's encoder for logs writes it: invalid UTF-8 becomes U+FFFD, `<`, `>` and `&` are escaped.
fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(character));
                }
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\\ufffd".as_bytes());
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(max_size: u64, max_files: u32) -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c-json.log");
        let log = Log::open(LogFile {
            path,
            max_size,
            max_files,
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
        assert_eq!(names, ["c-json.log", "c-json.log.1", "c-json.log.2"]);
        assert_eq!(entries(&dir, "c-json.log").last().unwrap().1, "line 19\n");
    }
}
