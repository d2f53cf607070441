//! Files that are either the old content or the new one, never a part of it.
//!
//! The content goes to a temporary file beside the target and is renamed over it by [`AtomicFile::commit`]; a value
//! dropped before that removes its temporary file again.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// What the new content has to survive once `commit` returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of this process: no fsync.
    Process,
    /// A power loss: the file and its directory are synced.
    Power,
}

#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    committed: bool,
}

impl AtomicFile {
    /// Opens a temporary file in the target's directory, with permission bits `mode` (less the umask).
    pub fn create(target: impl Into<PathBuf>, mode: u32) -> Result<Self> {
        let target = target.into();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| Error::File {
            verb: "name a temporary file for",
            path: target.clone(),
            source: io::Error::other(error),
        })?;
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{:016x}.tmp", u64::from_ne_bytes(random)));
        let temporary = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .map_err(|source| Error::File {
                verb: "create",
                path: temporary.clone(),
                source,
            })?;
        Ok(Self {
            file,
            temporary,
            target,
            committed: false,
        })
    }

    /// Puts the content in place of whatever the target was.
    pub fn commit(mut self, durability: Durability) -> Result<()> {
        let failed = |verb, source| Error::File {
            verb,
            path: self.target.clone(),
            source,
        };
        if durability == Durability::Power {
            self.file.sync_all().map_err(|source| failed("sync", source))?;
        }
        fs::rename(&self.temporary, &self.target).map_err(|source| failed("replace", source))?;
        if durability == Durability::Power {
            let directory = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(directory.unwrap_or(Path::new(".")))
                .and_then(|directory| directory.sync_all())
                .map_err(|source| failed("sync the directory of", source))?;
        }
        self.committed = true;
        Ok(())
    }

    /// Writes the whole content at once.
    pub fn replace(target: impl Into<PathBuf>, content: &[u8], mode: u32, durability: Durability) -> Result<()> {
        let mut file = Self::create(target, mode)?;
        if let Err(source) = file.write_all(content) {
            return Err(Error::File {
                verb: "write",
                path: file.target.clone(),
                source,
            });
        }
        file.commit(durability)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        self.file.write(content)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_keeps_its_content_until_commit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        AtomicFile::replace(&path, b"old", 0o600, Durability::Power).unwrap();
        let mut file = AtomicFile::create(&path, 0o600).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.commit(Durability::Process).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_dropped_file_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        drop(AtomicFile::create(directory.path().join("x"), 0o600).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
