//! Finding a place in a log without reading all of it: a time by bisection, since times ascend in a file, and the last lines
//! from the end. A compressed file is read whole, which is at most `max-size` of one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ferry_api::Timestamp;
use ferry_supervise::log::{Format, Record, Step};

use super::Query;
use super::cursor::{Cursor, Item, Place, places};

/// What is read at a time; several blocks of the binary format.
const WINDOW: u64 = 256 * 1024;
/// Without a record in so many bytes, a place is damaged.
const FAR: u64 = 4 * 1024 * 1024;
/// How often the files may have been rotated or compressed while they are looked at.
const ATTEMPTS: usize = 20;

/// Where to begin to read, and how many wanted entries are to be passed over.
#[derive(Debug)]
pub(super) struct Spot {
    pub cursor: Cursor,
    pub skip: usize,
}

/// `None` if there is no log yet.
pub(super) fn spot(path: &Path, format: Format, query: &Query) -> io::Result<Option<Spot>> {
    let mut attempt = 1;
    loop {
        match find(path, format, query) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            found => return found,
        }
    }
}

fn find(path: &Path, format: Format, query: &Query) -> io::Result<Option<Spot>> {
    let places = places(path);
    match query.tail {
        Some(tail) => from_end(&places, format, query, tail),
        None => from_time(&places, format, query.since),
    }
}

fn from_time(places: &[Place], format: Format, since: Option<Timestamp>) -> io::Result<Option<Spot>> {
    let Some(mut chosen) = places.first() else {
        return Ok(None);
    };
    let mut at = 0;
    if let Some(since) = since {
        for place in places.iter().rev() {
            if first_time(place, format)?.is_some_and(|first| first < since) {
                chosen = place;
                break;
            }
        }
        if !chosen.is_compressed() {
            at = bisect(&chosen.open()?, format, since)?.0;
        }
    }
    Ok(Some(Spot {
        cursor: Cursor::open(chosen, format, at)?,
        skip: 0,
    }))
}

fn first_time(place: &Place, format: Format) -> io::Result<Option<Timestamp>> {
    let mut cursor = Cursor::open(place, format, 0)?;
    loop {
        match cursor.next()? {
            Item::Record(record) => return Ok(Some(Timestamp(record.at))),
            Item::Damage(_) => {}
            Item::End => return Ok(None),
        }
    }
}

/// Two places where records begin, or the file's ends: what is before the first is earlier than `time`, what is after the second
/// is not. They are near each other.
fn bisect(file: &File, format: Format, time: Timestamp) -> io::Result<(u64, u64)> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > WINDOW {
        let middle = low + (high - low) / 2;
        match record_after(file, format, middle, high)? {
            Some((_, record)) if Timestamp(record.at) < time => low = middle,
            Some((at, _)) if at < high => high = at.max(middle),
            // The record at `high` is the next one.
            _ => high = middle,
        }
        if high <= low {
            break;
        }
    }
    let start = |at| Ok::<_, io::Error>(record_after(file, format, at, at + FAR)?.map(|(start, _)| start));
    let first = if low == 0 { 0 } else { start(low)?.unwrap_or(0) };
    let length = file.metadata()?.len();
    Ok((first, start(high)?.unwrap_or(length)))
}

/// The first record that begins at `from` or after it, but before `end`, as far as that can be said.
fn record_after(file: &File, format: Format, from: u64, end: u64) -> io::Result<Option<(u64, Record)>> {
    let mut window = WINDOW;
    loop {
        let bytes = read(file, from, window)?;
        let whole = (bytes.len() as u64) < window;
        if let Some(mut at) = format.start(&bytes, from) {
            while from + (at as u64) < end {
                match format.parse(&bytes[at..], from + at as u64) {
                    Step::Record { record, .. } => return Ok(Some((from + at as u64, record))),
                    Step::Skip { used, .. } => at += used,
                    Step::More => break,
                }
            }
            if from + at as u64 >= end {
                return Ok(None);
            }
        }
        if whole || window >= FAR {
            return Ok(None);
        }
        window *= 4;
    }
}

fn read(file: &File, from: u64, length: u64) -> io::Result<Vec<u8>> {
    // A few megabytes at most.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], from + count as u64) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(count);
    Ok(bytes)
}

fn from_end(places: &[Place], format: Format, query: &Query, tail: usize) -> io::Result<Option<Spot>> {
    // Nothing of the past is what comes after the last line of it.
    let (wanted, mut extra) = (tail.max(1), usize::from(tail == 0));
    let mut left = wanted;
    let mut oldest = None;
    for place in places.iter().rev() {
        let found = match place.is_compressed() {
            true => count(place, format, query, left)?,
            false => last_of(place, format, query, left)?,
        };
        left -= found.count.min(left);
        oldest = Some((place, found));
        if left == 0 {
            break;
        }
    }
    let Some((place, found)) = oldest else { return Ok(None) };
    if left == wanted {
        extra = 0;
    }
    Ok(Some(Spot {
        cursor: Cursor::open(place, format, found.at)?,
        skip: found.skip + extra,
    }))
}

/// The last entries of a file: how many there are, up to a number, where the first of them is found, after how many others.
struct Last {
    count: usize,
    at: u64,
    skip: usize,
}

fn count(place: &Place, format: Format, query: &Query, limit: usize) -> io::Result<Last> {
    let mut cursor = Cursor::open(place, format, 0)?;
    let mut count = 0;
    loop {
        match cursor.next()? {
            Item::Record(record) => count += usize::from(query.wants(&record)),
            Item::Damage(_) => {}
            Item::End => break,
        }
    }
    Ok(Last {
        count: count.min(limit),
        at: 0,
        skip: count.saturating_sub(limit),
    })
}

fn last_of(place: &Place, format: Format, query: &Query, limit: usize) -> io::Result<Last> {
    let file = place.open()?;
    let mut end = match query.until.and_then(just_after) {
        Some(late) => bisect(&file, format, late)?.1,
        None => file.metadata()?.len(),
    };
    let (mut count, mut window) = (0, WINDOW);
    while end > 0 {
        let from = end.saturating_sub(window);
        let bytes = read(&file, from, end - from)?;
        let Some(start) = format.start(&bytes, from) else {
            if window >= FAR {
                end = from;
            }
            window *= 2;
            continue;
        };
        let mut offsets = Vec::new();
        let (mut at, mut early) = (start, false);
        loop {
            match format.parse(&bytes[at..], from + at as u64) {
                Step::Record { used, record } => {
                    if query.wants(&record) {
                        offsets.push(from + at as u64);
                    }
                    early |= query.since.is_some_and(|since| Timestamp(record.at) < since);
                    at += used;
                }
                Step::Skip { used, .. } => at += used,
                Step::More => break,
            }
        }
        if count + offsets.len() >= limit {
            return Ok(Last {
                count: limit,
                at: offsets[offsets.len() - (limit - count)],
                skip: 0,
            });
        }
        count += offsets.len();
        end = from + start as u64;
        if early {
            break;
        }
        window = WINDOW;
    }
    Ok(Last {
        count,
        at: end,
        skip: 0,
    })
}

fn just_after(time: Timestamp) -> Option<Timestamp> {
    jiff::Timestamp::from_nanosecond(time.0.as_nanosecond() + 1)
        .ok()
        .map(Timestamp)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ferry_supervise::log::Line;

    use super::*;
    use crate::logs::numbered;

    const COUNT: i64 = 40_000;

    /// Three files of lines, of one second each, the oldest compressed; the first of them `1.gz`.
    fn log(format: Format) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        for (file, target) in [numbered(&path, 1), numbered(&path, 2), path.clone()]
            .iter()
            .enumerate()
        {
            let mut bytes = Vec::new();
            for second in (0..COUNT).filter(|second| second * 3 / COUNT == i64::try_from(file).unwrap()) {
                let line = Line {
                    stderr: second % 2 == 1,
                    at: jiff::Timestamp::from_second(second).unwrap(),
                    bytes: format!("{second} {}\n", "y".repeat(usize::try_from(second % 97).unwrap()))
                        .as_bytes()
                        .to_vec()
                        .leak(),
                };
                let offset = bytes.len() as u64;
                format.encode(&mut bytes, offset, &line, "");
            }
            std::fs::write(target, bytes).unwrap();
        }
        crate::logs::keeper::compress(&numbered(&path, 1)).unwrap();
        assert!(path.with_file_name("c.log.1.gz").exists() && !path.with_file_name("c.log.1").exists());
        (dir, path)
    }

    fn second(second: i64) -> Option<Timestamp> {
        jiff::Timestamp::from_second(second).ok().map(Timestamp)
    }

    /// The first and last second of what is read, and how many.
    fn read_all(path: &Path, format: Format, query: &Query) -> (i64, i64, usize) {
        let mut places = places(path);
        let Spot { mut cursor, mut skip } = spot(path, format, query).unwrap().unwrap();
        let mut seen = Vec::new();
        loop {
            match cursor.next().unwrap() {
                Item::Record(record) if !query.wants(&record) => {}
                Item::Record(_) if skip > 0 => skip -= 1,
                Item::Record(record) => seen.push(record.at.as_second()),
                Item::Damage(text) => panic!("{text}"),
                Item::End => {
                    let here = places.iter().position(|place| place.ino() == Some(cursor.ino)).unwrap();
                    places.drain(..=here);
                    let Some(next) = places.first() else { break };
                    cursor = Cursor::open(next, format, 0).unwrap();
                }
            }
        }
        (
            seen.first().copied().unwrap_or(-1),
            seen.last().copied().unwrap_or(-1),
            seen.len(),
        )
    }

    #[test]
    fn a_place_is_found_in_every_file_and_format() {
        let both = Query {
            stdout: true,
            stderr: true,
            ..Query::default()
        };
        for format in [Format::Json, Format::Local] {
            let (_dir, path) = log(format);
            let read = |query: Query| read_all(&path, format, &query);
            for since in [0, 1, 5000, 13_333, 13_334, 26_666, 26_667, 39_000, COUNT - 1] {
                let query = Query {
                    since: second(since),
                    ..both.clone()
                };
                let count = usize::try_from(COUNT - since).unwrap();
                assert_eq!(read(query), (since, COUNT - 1, count), "{format:?} since {since}");
            }
            for tail in [1, 2, 1000, 13_000, 14_000, 30_000, 39_999] {
                let query = Query {
                    tail: Some(tail),
                    ..both.clone()
                };
                let first = COUNT - i64::try_from(tail).unwrap();
                assert_eq!(read(query), (first, COUNT - 1, tail), "{format:?} tail {tail}");
            }
            for (tail, until) in [(5, 39_000), (5, 20_000), (14_000, 27_000), (5, 3)] {
                let query = Query {
                    tail: Some(tail),
                    until: second(until),
                    ..both.clone()
                };
                let first = (until + 1 - i64::try_from(tail).unwrap()).max(0);
                let count = usize::try_from(until + 1 - first).unwrap();
                assert_eq!(
                    read(query),
                    (first, until, count),
                    "{format:?} tail {tail} until {until}"
                );
            }
            let odd = Query {
                stdout: false,
                tail: Some(3),
                ..both.clone()
            };
            assert_eq!(read(odd), (COUNT - 5, COUNT - 1, 3));
            let none = Query {
                tail: Some(0),
                ..both.clone()
            };
            assert_eq!(read(none).2, 0);
            let begun = Instant::now();
            read(Query {
                tail: Some(100_000),
                ..both.clone()
            });
            assert!(begun.elapsed().as_secs() < 20);
        }
    }
}
