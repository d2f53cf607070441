//! Directories in which clients' files lie from one build to the next.
//!
//! ```text
//! <contexts>/<key>-<number>/id        what it is, for people; its time is that of the last use; locked while it is used
//!                          /wanted    what of the client's directory is here, as JSON
//!                          /files/
//! ```
//! A build takes the one that has most of what it wants, and makes it equal to what the client has. Two builds never use the same
//! one at a time.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ferry_build::session::Wanted;
use ferry_build::{Error, Result};
use ferry_sys::Root;
use rustix::fs::{FlockOperation, flock};

/// How many directories one place of a client's may have.
const MOST: usize = 32;
/// Digits of the key that are in the name.
const DIGITS: usize = 20;

/// A directory of a client's, as long as it is used.
#[derive(Debug)]
pub struct Place {
    pub path: PathBuf,
    /// Goes with its last use: nobody can find it again.
    passing: bool,
    lock: File,
}

impl Place {
    pub fn files(&self) -> Result<Root> {
        Root::open(&self.path.join("files")).map_err(|error| failed(&self.path, &error))
    }

    /// For what is known of its contents.
    pub fn key(&self) -> Option<String> {
        let name = self.path.file_name().filter(|_| !self.passing)?;
        Some(name.to_string_lossy().into_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.passing
            && let Err(error) = remove(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the files of a client");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let (parent, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    Root::open(parent)?.remove_all(name)
}

fn failed(path: &Path, error: &io::Error) -> Error {
    Error::internal(format!("prepare {} for a client's files", path.display()), error)
}

/// One that is nobody's. `key` names the client's place; without it the directory is of this time alone. Blocks on files.
pub fn take(dir: &Path, key: Option<&str>, name: &str, wanted: &Wanted) -> Result<Place> {
    let failed = |error: io::Error| failed(dir, &error);
    let wanted = serde_json::to_vec(&(&wanted.paths, &wanted.exclude)).unwrap_or_default();
    let Some(key) = key else {
        let prefix = ferry_kit::Id::random().to_string();
        return make(dir, &format!("{}-0", &prefix[..DIGITS]), name, &wanted, true).map_err(failed);
    };
    let prefix = ferry_image::Digest::of(format!("{name}\0{key}")).encoded()[..DIGITS].to_owned();
    let mut best: Option<(usize, Place)> = None;
    let mut is_full = true;
    for number in 0..MOST {
        let path = dir.join(format!("{prefix}-{number}"));
        match lock(&path) {
            Ok(None) => {}
            Ok(Some(file)) => {
                let score = score(&fs::read(path.join("wanted")).unwrap_or_default(), &wanted);
                if best.as_ref().is_none_or(|(best, _)| *best < score) {
                    let place = Place {
                        path,
                        passing: false,
                        lock: file,
                    };
                    best = Some((score, place));
                }
            }
            // The first that is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                is_full = false;
                break;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    match best {
        Some((score, place)) if score > 0 || is_full => {
            fs::write(place.path.join("wanted"), &wanted).map_err(failed)?;
            let now = fs::FileTimes::new().set_modified(SystemTime::now());
            place.lock.set_times(now).map_err(failed)?;
            Ok(place)
        }
        _ => make_first_free(dir, &prefix, name, &wanted).map_err(failed),
    }
}

fn make_first_free(dir: &Path, prefix: &str, name: &str, wanted: &[u8]) -> io::Result<Place> {
    let mut number = 0;
    loop {
        match make(dir, &format!("{prefix}-{number}"), name, wanted, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MOST => number += 1,
            // All are used at this time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let other = ferry_kit::Id::random().to_string();
                return make(dir, &format!("{}-0", &other[..DIGITS]), name, wanted, true);
            }
            made => return made,
        }
    }
}

fn make(dir: &Path, slot: &str, name: &str, wanted: &[u8], passing: bool) -> io::Result<Place> {
    let path = dir.join(slot);
    let new = |path: &Path| DirBuilder::new().mode(0o700).create(path);
    new(&path)?;
    fs::write(path.join("id"), name)?;
    let file = lock(&path)?.ok_or(io::ErrorKind::AlreadyExists)?;
    new(&path.join("files"))?;
    fs::write(path.join("wanted"), wanted)?;
    Ok(Place {
        path,
        passing,
        lock: file,
    })
}

/// `None`: somebody has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let id = path.join("id");
    let file = File::options().read(true).write(true).open(&id)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    // Not one that was removed in the meantime.
    let there = fs::metadata(&id)?;
    let locked = file.metadata()?;
    Ok(((there.dev(), there.ino()) == (locked.dev(), locked.ino())).then_some(file))
}

/// How much of what is wanted one has: by what was wanted of it before.
fn score(before: &[u8], wanted: &[u8]) -> usize {
    if before == wanted {
        return usize::MAX;
    }
    type Said = (Vec<String>, Vec<String>);
    let read = |bytes: &[u8]| serde_json::from_slice::<Said>(bytes).map(|(paths, _)| paths);
    let (Ok(before), Ok(wanted)) = (read(before), read(wanted)) else {
        return 0;
    };
    match (before.is_empty(), wanted.is_empty()) {
        (true, true) => usize::MAX - 1,
        // All of it has what is wanted, and the other way round some of it.
        (true, false) | (false, true) => usize::from(!before.iter().chain(&wanted).all(|path| path.starts_with('.'))),
        (false, false) => wanted.iter().filter(|path| before.contains(path)).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(paths: &[&str]) -> Wanted {
        Wanted {
            paths: paths.iter().map(ToString::to_string).collect(),
            exclude: Vec::new(),
        }
    }

    #[test]
    fn a_build_gets_the_directory_that_has_what_it_wants_and_has_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let get = |paths: &[&str]| take(dir.path(), Some("k"), "context", &wanted(paths)).unwrap();
        let first = get(&["a", "b"]);
        let path = first.path.clone();
        assert!(path.join("files").is_dir());
        let second = get(&["a", "b"]);
        assert_ne!(second.path, path);
        drop(first);
        assert_eq!(get(&["b", "c"]).path, path);
        assert_ne!(get(&[".dockerignore"]).path, path);
        assert_eq!(get(&["b", "c"]).path, path);
        let other = take(dir.path(), Some("k"), "other", &wanted(&["b"])).unwrap();
        assert_ne!(other.path, path);
    }

    #[test]
    fn files_of_a_client_without_a_key_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = take(dir.path(), None, "context", &wanted(&[])).unwrap();
        assert!(place.path.is_dir() && place.key().is_none());
        drop(place);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
