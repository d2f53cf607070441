//! What files contain, remembered from one build to the next by inode, so that those that did not change are not read again.
//!
//! ```text
//! body = record*
//! record = device inode size mtime(s, ns) ctime(s, ns) (8 bytes each, little endian) sha256 (32 bytes)
//! ```
//!
//! A file that changed within the last two seconds is not remembered: it could change again without another time. Neither is
//! one with extended attributes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::entry::Stamp;
use super::whole::{self, Magic};
use crate::error::Result;

const MAGIC: &Magic = b"FERRYIX1";
const RECORD: usize = 7 * 8 + 32;
/// Files of one index, 88 bytes each.
const MAX_FILES: usize = 1 << 20;
const RACY: Duration = Duration::from_secs(2);

/// The contents of one place's files.
#[derive(Debug, Default)]
pub struct Index {
    path: PathBuf,
    files: HashMap<(u64, u64), File>,
    is_changed: bool,
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    content: [u8; 32],
    is_used: bool,
}

impl Index {
    /// Reads the index at `path`. One that is not there, or is not whole, is empty.
    pub fn open(path: &Path) -> Self {
        let body = whole::read(path, MAGIC, MAX_FILES * RECORD);
        let files = body.and_then(|body| parse(&body)).unwrap_or_default();
        Self {
            path: path.to_owned(),
            files,
            is_changed: false,
        }
    }

    /// Writes it, if there is something new. Whether it survives a power loss does not matter.
    pub fn save(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_changed) {
            return Ok(());
        }
        if self.files.len() > MAX_FILES {
            self.files.retain(|_, file| file.is_used);
        }
        let mut bytes = Vec::with_capacity(self.files.len() * RECORD);
        for file in self.files.values().take(MAX_FILES) {
            let stamp = &file.stamp;
            bytes.extend(
                [stamp.device, stamp.inode, stamp.size]
                    .iter()
                    .flat_map(|number| number.to_le_bytes()),
            );
            let times = [stamp.mtime.0, stamp.mtime.1, stamp.ctime.0, stamp.ctime.1];
            bytes.extend(times.iter().flat_map(|number| number.to_le_bytes()));
            bytes.extend(file.content);
        }
        whole::write(&self.path, MAGIC, &bytes)
    }

    pub(super) fn get(&mut self, stamp: &Stamp) -> Option<[u8; 32]> {
        let file = self.files.get_mut(&(stamp.device, stamp.inode))?;
        if file.stamp != *stamp {
            return None;
        }
        file.is_used = true;
        Some(file.content)
    }

    pub(super) fn insert(&mut self, stamp: Stamp, content: [u8; 32]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed = Duration::new(
            u64::try_from(stamp.ctime.0).unwrap_or_default(),
            u32::try_from(stamp.ctime.1).unwrap_or_default(),
        );
        if changed + RACY > now {
            return;
        }
        let file = File {
            stamp,
            content,
            is_used: true,
        };
        self.files.insert((stamp.device, stamp.inode), file);
        self.is_changed = true;
    }
}

fn parse(records: &[u8]) -> Option<HashMap<(u64, u64), File>> {
    let mut files = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let (numbers, content) = record.split_at(RECORD - 32);
        let mut numbers = numbers.chunks_exact(8).filter_map(|number| number.try_into().ok());
        let mut signed = || numbers.next().map(i64::from_le_bytes);
        let mut next = || signed().map(i64::cast_unsigned);
        let (device, inode, size) = (next()?, next()?, next()?);
        let stamp = Stamp {
            device,
            inode,
            size,
            mtime: (signed()?, signed()?),
            ctime: (signed()?, signed()?),
        };
        let file = File {
            stamp,
            content: content.try_into().ok()?,
            is_used: false,
        };
        files.insert((device, inode), file);
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64, ctime: i64) -> Stamp {
        Stamp {
            device: 1,
            inode,
            size: 5,
            mtime: (-7, 8),
            ctime: (ctime, 9),
        }
    }

    #[test]
    fn what_is_saved_is_there_again_and_a_broken_file_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let mut index = Index::open(&path);
        index.insert(stamp(1, 100), [1; 32]);
        index.insert(stamp(2, 100), [2; 32]);
        index.save().unwrap();
        let mut index = Index::open(&path);
        assert_eq!(index.get(&stamp(1, 100)), Some([1; 32]));
        assert_eq!(index.get(&stamp(2, 100)), Some([2; 32]));
        assert_eq!(index.get(&stamp(2, 101)), None);
        assert_eq!(index.get(&stamp(3, 100)), None);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[50] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Index::open(&path).get(&stamp(1, 100)), None);
        std::fs::write(&path, &bytes[..20]).unwrap();
        assert_eq!(Index::open(&path).get(&stamp(1, 100)), None);
    }

    #[test]
    fn a_file_that_just_changed_is_not_remembered() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut index = Index::default();
        for (seconds, expected) in [(now, None), (now - 1, None), (now - 4, Some([1; 32]))] {
            let stamp = stamp(seconds, i64::try_from(seconds).unwrap());
            index.insert(stamp, [1; 32]);
            assert_eq!(index.get(&stamp), expected, "{}", now - seconds);
        }
    }
}
