//! Small files that are whole or not there, and directories that are synced for several at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use super::paths::Paths;

/// Results of rounds that failed, kept for those who still wait.
const FAILURES: usize = 64;

/// Syncs directories. Whoever comes while a round is running goes with the next one, all of them together: with many writers
/// most wait for a sync, and few make one.
#[derive(Debug, Default)]
pub struct GroupSync {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeSet<PathBuf>,
    /// The number of the round that the waiting ones go with.
    next: u64,
    /// Rounds below this have ended.
    finished: u64,
    running: bool,
    failures: BTreeMap<u64, (io::ErrorKind, String)>,
}

impl GroupSync {
    /// Makes a directory if it is not there. Others who see it may rely on it: the next round makes it durable, theirs at the
    /// latest.
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::create_dir(dir) {
            Ok(()) => state.waiting.extend(dir.parent().map(Path::to_owned)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns when what was done in these directories before the call is durable. Blocks.
    pub fn sync(&self, dirs: impl IntoIterator<Item = PathBuf>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.extend(dirs);
        let mine = state.next;
        while state.finished <= mine {
            if state.running {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let round = state.next;
            let dirs = std::mem::take(&mut state.waiting);
            state.running = true;
            state.next += 1;
            drop(state);
            let synced = dirs.iter().try_for_each(|dir| sync(dir));
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.running = false;
            state.finished = round + 1;
            if let Err(error) = synced {
                state.failures.insert(round, (error.kind(), error.to_string()));
                if state.failures.len() > FAILURES {
                    state.failures.pop_first();
                }
            }
            self.done.notify_all();
        }
        match state.failures.get(&mine) {
            None => Ok(()),
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
        }
    }
}

/// A directory that was removed needs no sync: its parent's names that.
pub fn sync(dir: &Path) -> io::Result<()> {
    match File::open(dir) {
        Ok(dir) => dir.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes directories below `base`. Whoever syncs something after this syncs them as well.
pub fn make_dirs(sync: &GroupSync, base: &Path, dir: &Path) -> io::Result<()> {
    match sync.make_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir != base => {
            make_dirs(sync, base, dir.parent().ok_or(error)?)?;
            sync.make_dir(dir)
        }
        made => made,
    }
}

/// Writes a file that replaces what is there in one step, and adds its directory to `dirs`. Its data is synced, unless there
/// is none.
pub fn write(
    sync: &GroupSync,
    paths: &Paths,
    target: &Path,
    content: &[u8],
    dirs: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let temporary = paths.temporary()?;
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&temporary)?;
        if !content.is_empty() {
            file.write_all(content)?;
            file.sync_data()?;
        }
        place(sync, paths, &temporary, target, dirs)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Renames a file into place, and makes the directories it needs.
pub fn place(sync: &GroupSync, paths: &Paths, from: &Path, to: &Path, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
    let parent = to.parent().ok_or(io::ErrorKind::InvalidInput)?;
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(sync, &paths.root, parent)?;
            fs::rename(from, to)?;
        }
        other => other?,
    }
    dirs.push(parent.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_get_the_result_of_their_own_round() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let group = GroupSync::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        group.sync([dir.path().to_owned()]).unwrap();
                    }
                });
            }
        });
        group.sync([dir.path().join("gone")]).unwrap();
        assert!(group.sync([file.join("below a file")]).is_err());
        group.sync([dir.path().to_owned()]).unwrap();
    }

    #[test]
    fn a_file_comes_with_the_directories_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        fs::create_dir(&paths.tmp).unwrap();
        let (mut dirs, group) = (Vec::new(), GroupSync::default());
        write(&group, &paths, &dir.path().join("a/b/c"), b"x", &mut dirs).unwrap();
        assert_eq!(dirs, [dir.path().join("a/b")]);
        let waiting = group.state.lock().unwrap().waiting.clone();
        assert_eq!(waiting, BTreeSet::from([dir.path().to_owned(), dir.path().join("a")]));
        group.sync(dirs).unwrap();
        assert!(group.state.lock().unwrap().waiting.is_empty());
        assert_eq!(fs::read(dir.path().join("a/b/c")).unwrap(), b"x");
        assert_eq!(fs::read_dir(&paths.tmp).unwrap().count(), 0);
    }
}
