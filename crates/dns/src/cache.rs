//! Answers of upstream servers, kept for as long as they say, within bounds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::packet::{self, Answer};

const MAX_ENTRIES: usize = 256;
const MAX_BYTES: usize = 128 * 1024;
/// Larger answers are asked for again each time.
const MAX_ANSWER: usize = 4096;
const MAX_AGE: u32 = 3600;
/// RFC 2308, section 5, suggests one to three hours at most; what is missing may come, so less here.
const MAX_NEGATIVE_AGE: u32 = 60;

#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Box<[u8]>, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Box<[u8]>,
    since: Instant,
    age: Duration,
}

impl Cache {
    /// The answer to the same question, with its times counted down. `key` is what [`Cache::keep`] was given.
    pub fn get(&self, now: Instant, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.entries.get(key)?;
        let age = now.saturating_duration_since(entry.since);
        if age >= entry.age {
            return None;
        }
        let passed = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        let mut answer = entry.answer.to_vec();
        packet::walk(&entry.answer, &mut |record| {
            if record.kind != RecordType::OPT {
                let left = record.ttl.saturating_sub(passed).to_be_bytes();
                answer[record.ttl_at..record.ttl_at + left.len()].copy_from_slice(&left);
            }
        })?;
        Some(answer)
    }

    pub fn keep(&mut self, now: Instant, key: &[u8], answer: &Answer, bytes: &[u8]) {
        let Some(age) = lifetime(answer, bytes).filter(|_| bytes.len() <= MAX_ANSWER) else {
            return;
        };
        self.remove(key);
        let size = size(key, bytes);
        if self.entries.len() >= MAX_ENTRIES || self.bytes + size > MAX_BYTES {
            self.entries
                .retain(|_, entry| now.saturating_duration_since(entry.since) < entry.age);
            self.bytes = self
                .entries
                .iter()
                .map(|(key, entry)| self::size(key, &entry.answer))
                .sum();
        }
        while self.entries.len() >= MAX_ENTRIES || self.bytes + size > MAX_BYTES {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.since);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            self.remove(&oldest);
        }
        self.bytes += size;
        let entry = Entry {
            answer: bytes.into(),
            since: now,
            age,
        };
        self.entries.insert(key.into(), entry);
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= size(key, &entry.answer);
        }
    }
}

/// What an entry costs, the table's own share included.
fn size(key: &[u8], answer: &[u8]) -> usize {
    key.len() + answer.len() + 128
}

/// How long an answer holds: the shortest time in it, or what its SOA record says of names that are not there (RFC 2308).
/// `None` if it is not to be kept.
fn lifetime(answer: &Answer, bytes: &[u8]) -> Option<Duration> {
    let known = matches!(answer.code, ResponseCode::NoError | ResponseCode::NXDomain);
    if answer.truncated || !answer.whole || !known {
        return None;
    }
    let answers = bytes.get(6..8).is_some_and(|count| count != [0, 0]);
    let negative = answer.code == ResponseCode::NXDomain || !answers;
    let mut shortest = None;
    let mut authority = None;
    packet::walk(bytes, &mut |record| {
        if record.kind == RecordType::OPT {
            return;
        }
        shortest = Some(shortest.unwrap_or(record.ttl).min(record.ttl));
        if record.kind == RecordType::SOA {
            // Its last number is the minimum (RFC 1035, 3.3.13).
            let minimum = bytes[record.data]
                .last_chunk()
                .map(|minimum| u32::from_be_bytes(*minimum));
            authority = minimum.map(|minimum| minimum.min(record.ttl));
        }
    })?;
    let seconds = if negative {
        authority?.min(shortest?).min(MAX_NEGATIVE_AGE)
    } else {
        shortest?.min(MAX_AGE)
    };
    // A time with its first bit set counts as 0 (RFC 2181, section 8); it is above the bounds, and so are mistakes.
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}
