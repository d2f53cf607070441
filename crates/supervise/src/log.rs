//! Formats of log files: the shim writes them, the engine reads them.
//!
//! Both can be entered in the middle, so that a reader finds a time by bisection and the last lines from the end, without an
//! index beside the file: a line of JSON begins after a newline, a block of [`local`] at a multiple of its size.

mod json;
mod local;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The most of a line that goes into one record; a longer one is cut into several, of which only the last has a newline.
pub const LINE: usize = 16 * 1024;

/// How a log file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Docker's json-file: `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678Z"}`, one a line.
    #[default]
    Json,
    /// Binary, in blocks of 64 KiB ([`local`]).
    Local,
}

/// What is written: a line or a part of a long one.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub stderr: bool,
    pub at: Timestamp,
    /// With its newline, if it is whole.
    pub bytes: &'a [u8],
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub stderr: bool,
    pub at: Timestamp,
    pub line: Vec<u8>,
    /// `--log-opt labels`, `env` and `tag`, where the format keeps them.
    pub attributes: BTreeMap<String, String>,
}

/// What the bytes at a place are. `used`: how many of them.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Record {
        used: usize,
        record: Record,
    },
    /// Nothing that was said: filling, or, if `damaged`, what cannot be read.
    Skip {
        used: usize,
        damaged: bool,
    },
    /// It takes more bytes to say.
    More,
}

impl Format {
    /// Appends `line` to `out`, of which the end will be at `offset` of the file. `attributes` is a JSON object, or empty.
    pub fn encode(self, out: &mut Vec<u8>, offset: u64, line: &Line<'_>, attributes: &str) {
        match self {
            Self::Json => json::encode(out, line, attributes),
            Self::Local => local::encode(out, offset, line),
        }
    }

    /// What `bytes` begin with, which are at `offset`, a place where a record begins.
    pub fn parse(self, bytes: &[u8], offset: u64) -> Step {
        match self {
            Self::Json => json::parse(bytes),
            Self::Local => local::parse(bytes, offset),
        }
    }

    /// The first place in `bytes`, which are at `offset`, of which it is certain that a record begins there.
    pub fn start(self, bytes: &[u8], offset: u64) -> Option<usize> {
        match self {
            _ if offset == 0 => Some(0),
            Self::Json => json::start(bytes),
            Self::Local => local::start(bytes.len(), offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Vec<u8>> {
        (0..3000u32)
            .map(|number| format!("{number} {}\n", "x".repeat((number as usize * 37) % 500)).into_bytes())
            .collect()
    }

    fn written(format: Format) -> Vec<u8> {
        let mut file = Vec::new();
        for (number, bytes) in (0..).zip(lines()) {
            let line = Line {
                stderr: number % 3 == 0,
                at: Timestamp::new(number, 5).unwrap(),
                bytes: &bytes,
            };
            let offset = file.len() as u64;
            format.encode(&mut file, offset, &line, "");
        }
        file
    }

    /// The seconds of the records from `at` on, and how many bytes were damaged.
    fn read(format: Format, file: &[u8], mut at: usize) -> (Vec<i64>, usize) {
        let (mut seen, mut damage) = (Vec::new(), 0);
        loop {
            match format.parse(&file[at..], at as u64) {
                Step::Record { used, record } => {
                    seen.push(record.at.as_second());
                    at += used;
                }
                Step::Skip { used, damaged } => {
                    damage += used * usize::from(damaged);
                    at += used;
                }
                Step::More => return (seen, damage),
            }
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for format in [Format::Json, Format::Local] {
            let file = written(format);
            let (seen, damage) = read(format, &file, 0);
            assert_eq!((seen, damage), ((0..3000).collect(), 0), "{format:?}");
            let Step::Record { record, .. } = format.parse(&file, 0) else {
                panic!()
            };
            assert_eq!((record.stderr, &record.line), (true, &lines()[0]));
        }
    }

    #[test]
    fn reading_can_begin_anywhere() {
        for format in [Format::Json, Format::Local] {
            let file = written(format);
            for at in (1..file.len() - 70_000).step_by(9973) {
                let start = at + format.start(&file[at..], at as u64).unwrap();
                let (seen, damage) = read(format, &file, start);
                assert_eq!((seen.last(), damage), (Some(&2999), 0), "{format:?} at {at}");
                assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            }
        }
    }

    #[test]
    fn what_is_damaged_costs_what_is_near_it() {
        for format in [Format::Json, Format::Local] {
            let mut file = written(format);
            file[100_000..100_300].fill(0xee);
            let (seen, damage) = read(format, &file, 0);
            assert!(damage > 0 && seen.last() == Some(&2999), "{format:?}");
            assert!(seen.len() > 2700, "{format:?}: {}", seen.len());
        }
    }
}
