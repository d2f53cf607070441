//! Small files of our own that can go at any time: one that is not whole is not there.
//!
//! ```text
//! file = magic (8 bytes) body sha256(all before)
//! ```

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ferry_kit::atomic::{AtomicFile, Durability};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

pub(super) type Magic = [u8; 8];
const SUM: usize = 32;

/// The body of a file that has no more than `most` bytes.
pub(super) fn read(path: &Path, magic: &Magic, most: usize) -> Option<Vec<u8>> {
    let most = magic.len() + most + SUM;
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
    let (before, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
    if bytes.len() > most || !before.starts_with(magic) || Sha256::digest(before).as_slice() != sum {
        return None;
    }
    bytes.truncate(bytes.len() - SUM);
    bytes.drain(..magic.len());
    Some(bytes)
}

/// Whether it survives a power loss does not matter.
pub(super) fn write(path: &Path, magic: &Magic, body: &[u8]) -> Result<()> {
    let mut bytes = Vec::with_capacity(magic.len() + body.len() + SUM);
    bytes.extend(magic);
    bytes.extend(body);
    let sum = Sha256::digest(&bytes);
    bytes.extend(sum);
    AtomicFile::replace(path, &bytes, 0o600, Durability::Process)
        .map_err(|error| Error::internal("cannot remember the contents of files", &error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_that_is_cut_changed_or_too_long_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let magic = b"FERRYT01";
        assert_eq!(super::read(&path, magic, 10), None);
        super::write(&path, magic, b"0123456789").unwrap();
        assert_eq!(super::read(&path, magic, 10).unwrap(), b"0123456789");
        assert_eq!(super::read(&path, magic, 9), None);
        assert_eq!(super::read(&path, b"FERRYT02", 10), None);
        let whole = std::fs::read(&path).unwrap();
        let mut changed = whole.clone();
        changed[12] ^= 1;
        for bytes in [&whole[..20], &whole[..whole.len() - 1], &[], &changed] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(super::read(&path, magic, 10), None);
        }
    }
}
