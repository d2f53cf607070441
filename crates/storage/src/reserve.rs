//! Space that is set aside so that things can be removed from a full disk: even to forget something takes a page of the
//! database's log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;

const SIZE: u64 = 4 << 20;
/// How much is given up at a time.
const STEP: u64 = 256 << 10;

#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    whole: bool,
}

impl Reserve {
    pub fn new(path: PathBuf) -> Self {
        Self { path, whole: false }
    }

    /// Sets aside what is missing, or as much of it as there is room for.
    pub fn fill(&mut self) {
        if !self.whole
            && let Ok(file) = self.file()
        {
            self.whole = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE).is_ok();
        }
    }

    /// Gives a part to whoever comes first. False if nothing is left.
    pub fn give(&mut self) -> bool {
        self.whole = false;
        let Ok(file) = self.file() else { return false };
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        size > 0 && file.set_len(size.saturating_sub(STEP)).is_ok()
    }

    fn file(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_in_parts_and_filled_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let size = || std::fs::metadata(&path).unwrap().len();
        let mut reserve = Reserve::new(path.clone());
        reserve.fill();
        assert_eq!(size(), SIZE);
        let mut parts = 0;
        while reserve.give() {
            parts += 1;
        }
        assert_eq!((parts, size()), (SIZE / STEP, 0));
        reserve.fill();
        assert_eq!(size(), SIZE);
    }
}
