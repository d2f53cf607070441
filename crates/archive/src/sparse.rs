//! Sparse files: where the stored data of an entry belongs in the file.

use crate::header::{Block, number};

/// `len` bytes of stored data at `offset` of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub offset: u64,
    pub len: u64,
}

/// Checks a map: no negative number, in order, without overlap, within `size`, and as long in sum as what is stored.
pub fn check(numbers: &[i64], size: u64, stored: u64) -> Option<Vec<Segment>> {
    let mut segments = Vec::with_capacity(numbers.len() / 2);
    let (mut end, mut sum) = (0_u64, 0_u64);
    let (pairs, []) = numbers.as_chunks::<2>() else {
        return None;
    };
    for &[offset, len] in pairs {
        let segment = Segment {
            offset: u64::try_from(offset).ok()?,
            len: u64::try_from(len).ok()?,
        };
        if segment.offset < end {
            return None;
        }
        end = segment.offset.checked_add(segment.len)?;
        sum = sum.checked_add(segment.len)?;
        if segment.len > 0 {
            segments.push(segment);
        }
    }
    (end <= size && sum == stored).then_some(segments)
}

/// The offsets and lengths of an old GNU header (4) or of one of its extension blocks (21), and whether a block follows.
pub fn old_gnu(block: &Block, extension: bool) -> Option<(Vec<i64>, bool)> {
    let (start, count, more) = if extension { (0, 21, 504) } else { (386, 4, 482) };
    let mut numbers = Vec::new();
    for at in 0..count {
        let field = &block.0[start + at * 24..start + (at + 1) * 24];
        if field[0] == 0 {
            break;
        }
        numbers.push(number(&field[..12])?);
        numbers.push(number(&field[12..])?);
    }
    Some((numbers, block.0[more] != 0))
}
