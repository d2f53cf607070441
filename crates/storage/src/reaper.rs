//! Deletes trees in the background: a removal is a rename into `tmp/`, the work comes after the answer.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};

use crate::error::Context as _;
use crate::layout::{Layout, remove_soon};
use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Reaper {
    layout: Layout,
    queue: Sender<PathBuf>,
}

impl Reaper {
    /// Starts the thread; it ends when the last handle is gone. What it did not get to is swept at the next start.
    pub fn start(layout: &Layout) -> Result<Self> {
        let (queue, paths) = channel::<PathBuf>();
        let run = move || {
            for path in paths {
                remove_soon(path);
            }
        };
        let thread = std::thread::Builder::new().name("ferry-reaper".to_owned()).spawn(run);
        thread.map_err(|source| Error::io("start the thread for", &layout.root, source))?;
        Ok(Self {
            layout: layout.clone(),
            queue,
        })
    }

    /// Takes a file or directory out of sight and returns where it is now. Fine if there is none.
    pub fn hide(&self, path: &Path) -> Result<Option<PathBuf>> {
        let hidden = self.layout.fresh()?;
        match std::fs::rename(path, &hidden) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            renamed => renamed.at("remove", path).map(|()| Some(hidden)),
        }
    }

    /// Deletes what was hidden, some time.
    pub fn delete(&self, hidden: PathBuf) {
        let _ = self.queue.send(hidden);
    }

    pub fn remove(&self, path: &Path) -> Result<()> {
        if let Some(hidden) = self.hide(path)? {
            self.delete(hidden);
        }
        Ok(())
    }
}
