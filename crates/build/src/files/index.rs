//! What is known of files' contents, by what the kernel says of them: device, inode, times, size.
//!
//! A file that changes gets another change time, which nobody can set back; one that changed within the last moments before it was
//! read is not remembered, since it may change again within the same tick. The index is a cache: one that cannot be read is empty.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// A file as the kernel describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    device: u64,
    inode: u64,
    size: u64,
    changed: i128,
    modified: i128,
}

/// SHA-256.
pub type Content = [u8; 32];

const MAGIC: &[u8; 8] = b"ferryix1";
const RECORD: usize = 8 * 3 + 16 * 2 + 32;
/// More files than this are not remembered.
const MOST: usize = 4_000_000;
/// Nanoseconds within which a change may go unnoticed.
const RACY: i128 = 2_000_000_000;

#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<Key, Content>,
    /// Those that were asked for or learned since it was opened.
    used: HashMap<Key, Content>,
    learned: bool,
}

impl Key {
    #[allow(clippy::unnecessary_cast, reason = "the widths differ between architectures")]
    pub fn of(stat: &Stat) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            modified: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        }
    }

    fn is_racy(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX);
        self.changed > now - RACY
    }
}

impl Index {
    pub fn open(path: &Path) -> Self {
        let state = State {
            known: read(path).unwrap_or_default(),
            ..State::default()
        };
        Self {
            path: path.to_owned(),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find(&self, key: &Key) -> Option<Content> {
        let mut state = self.lock();
        let content = *state.known.get(key)?;
        state.used.insert(*key, content);
        Some(content)
    }

    pub fn learn(&self, key: Key, content: Content) {
        if key.is_racy() {
            return;
        }
        let mut state = self.lock();
        state.learned = true;
        if state.used.len() < MOST {
            state.used.insert(key, content);
        }
    }

    /// Writes down what was used, in the place of what there was, if there is something new. It is never needed.
    pub fn save(&self) {
        let state = self.lock();
        if !state.learned {
            return;
        }
        let mut bytes = Vec::with_capacity(MAGIC.len() + state.used.len() * RECORD);
        bytes.extend_from_slice(MAGIC);
        for (key, content) in &state.used {
            for number in [key.device, key.inode, key.size] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            for time in [key.changed, key.modified] {
                bytes.extend_from_slice(&time.to_le_bytes());
            }
            bytes.extend_from_slice(content);
        }
        let written = self.path.with_extension("new");
        let done = std::fs::write(&written, &bytes).and_then(|()| std::fs::rename(&written, &self.path));
        if let Err(error) = done {
            tracing::warn!(%error, "cannot keep what is known of a context's files");
        }
    }
}

fn read(path: &Path) -> Option<HashMap<Key, Content>> {
    let mut bytes = Vec::new();
    let limit = (MAGIC.len() + MOST * RECORD) as u64;
    std::fs::File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut bytes)
        .ok()?;
    let records = bytes.strip_prefix(MAGIC)?;
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    let time = |bytes: &[u8]| Some(i128::from_le_bytes(bytes.try_into().ok()?));
    let record = |bytes: &[u8]| {
        let key = Key {
            device: number(&bytes[..8])?,
            inode: number(&bytes[8..16])?,
            size: number(&bytes[16..24])?,
            changed: time(&bytes[24..40])?,
            modified: time(&bytes[40..56])?,
        };
        Some((key, bytes[56..].try_into().ok()?))
    };
    records.chunks_exact(RECORD).map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_kept_and_what_is_broken_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let key = |inode| Key {
            device: 1,
            inode,
            size: 3,
            changed: 4,
            modified: -5,
        };
        let index = Index::open(&path);
        index.learn(key(1), [1; 32]);
        index.learn(key(2), [2; 32]);
        index.save();
        let again = Index::open(&path);
        assert_eq!((again.find(&key(1)), again.find(&key(3))), (Some([1; 32]), None));
        again.learn(key(3), [3; 32]);
        again.save();
        let last = Index::open(&path);
        assert_eq!((last.find(&key(2)), last.find(&key(3))), (None, Some([3; 32])));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(Index::open(&path).find(&key(1)), None);
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let stat = rustix::fs::stat(&file).unwrap();
        assert!(Key::of(&stat).is_racy());
    }
}
