//! The format of `--log-driver local`, little endian:
//!
//! ```text
//! length u32 of what follows │ flags u8, 1: stderr │ nanoseconds since 1970, i64 │ line
//! ```
//! No record crosses a multiple of [`BLOCK`]: what is left of a block is zeros, which a length never is. So a reader can begin at any
//! block, and what is damaged costs at most one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{LINE, Line, Record, Step};

pub(super) const BLOCK: u64 = 64 * 1024;
const LENGTH: usize = 4;
/// Flags and time.
const HEAD: usize = 9;
const STDERR: u8 = 1;

pub(super) fn encode(out: &mut Vec<u8>, offset: u64, line: &Line<'_>) {
    let bytes = &line.bytes[..line.bytes.len().min(LINE)];
    let left = left_of_block(offset);
    if left < LENGTH + HEAD + bytes.len() {
        out.resize(out.len() + left, 0);
    }
    // LINE bytes at most.
    let length = u32::try_from(HEAD + bytes.len()).unwrap_or(u32::MAX);
    let nanoseconds = i64::try_from(line.at.as_nanosecond()).unwrap_or(i64::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.push(if line.stderr { STDERR } else { 0 });
    out.extend_from_slice(&nanoseconds.to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn parse(bytes: &[u8], offset: u64) -> Step {
    let left = left_of_block(offset);
    let skip = |damaged| match bytes.len() < left {
        true => Step::More,
        false => Step::Skip { used: left, damaged },
    };
    if left < LENGTH {
        return skip(false);
    }
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Step::More;
    };
    let length = u32::from_le_bytes(*length) as usize;
    match length {
        0 => return skip(false),
        HEAD.. if length <= HEAD + LINE && LENGTH + length <= left => {}
        _ => return skip(true),
    }
    let Some(body) = rest.get(..length) else {
        return Step::More;
    };
    let (head, line) = body.split_at(HEAD);
    let mut nanoseconds = [0; 8];
    nanoseconds.copy_from_slice(&head[1..]);
    let at = Timestamp::from_nanosecond(i64::from_le_bytes(nanoseconds).into());
    match at {
        Ok(at) if head[0] <= STDERR => Step::Record {
            used: LENGTH + length,
            record: Record {
                stderr: head[0] == STDERR,
                at,
                line: line.to_vec(),
                attributes: BTreeMap::new(),
            },
        },
        _ => skip(true),
    }
}

pub(super) fn start(length: usize, offset: u64) -> Option<usize> {
    let left = left_of_block(offset) % usize::try_from(BLOCK).unwrap_or(usize::MAX);
    (left < length).then_some(left)
}

fn left_of_block(offset: u64) -> usize {
    // At most a block.
    usize::try_from(BLOCK - offset % BLOCK).unwrap_or(usize::MAX)
}
