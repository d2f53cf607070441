//! `RUN --mount=type=cache`: directories that outlive builds.
//!
//! ```text
//! builds/cache/<hex of id>/<number>   its files; more than one number where builds have each their own
//! ```

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ferry_build::graph::{Action, Copy, Files, SharingMode};
use ferry_build::workspace::{Tree, Workspace as _};
use ferry_build::{Error, Result};
use ferry_image::Digest;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::workshop::{Layer, Workshop};

/// Who uses which cache.
#[derive(Debug, Default)]
pub(super) struct Caches {
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
    /// Directories that one step has for itself.
    private: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A cache that a step uses.
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    /// Of one that is its own.
    private: Option<Arc<Mutex<HashSet<PathBuf>>>>,
    _shared: Option<OwnedRwLockReadGuard<()>>,
    _alone: Option<OwnedRwLockWriteGuard<()>>,
}

impl Lease {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(private) = &self.private {
            private
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&self.path);
        }
    }
}

impl Caches {
    /// Whether a step uses the cache with this name.
    pub fn is_used(&self, name: &str) -> bool {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.get(name).is_some_and(|lock| Arc::strong_count(lock) > 1)
    }

    /// The cache with this [`name`]; `begin` is what a new one begins with, `access` its mode, user and group.
    ///
    /// Who takes several takes them in the order of their names, and none twice: else two of them wait for each other.
    pub async fn take(
        &self,
        shop: &Workshop,
        (name, id): (&str, &str),
        sharing: SharingMode,
        begin: Option<(Tree<Layer>, String)>,
        access: (u32, u32, u32),
    ) -> Result<Lease> {
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|known, lock| known == name || Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry(name.to_owned()).or_default())
        };
        let dir = super::dir(&shop.world, "cache")?.join(name);
        let (mut shared, mut alone, mut private) = (None, None, None);
        let mut number = 0;
        match sharing {
            SharingMode::Shared => shared = Some(lock.read_owned().await),
            SharingMode::Locked => alone = Some(lock.write_owned().await),
            SharingMode::Private => {
                shared = Some(lock.read_owned().await);
                let mut used = self.private.lock().unwrap_or_else(PoisonError::into_inner);
                while !used.insert(dir.join(number.to_string())) {
                    number += 1;
                }
                private = Some(Arc::clone(&self.private));
            }
        }
        let lease = Lease {
            path: dir.join(number.to_string()),
            private,
            _shared: shared,
            _alone: alone,
        };
        note_use(&dir, id);
        if !lease.path.exists() {
            fill(shop, &lease.path, begin, access).await?;
        }
        Ok(lease)
    }
}

/// The name of a cache's directory. One that begins with files, of `origin`, is another one than one that does not.
pub(super) fn name(id: &str, origin: Option<&str>) -> String {
    let whole = format!("{id}\0{}\0{}", origin.unwrap_or_default(), origin.is_some());
    Digest::of(whole).encoded().to_owned()
}

/// What the cache is called, and, by the file's time, when it was used last.
fn note_use(dir: &Path, id: &str) {
    let noted = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    if let Err(error) = noted.and_then(|()| std::fs::write(dir.join("id"), id)) {
        tracing::warn!(%error, cache = id, "cannot note that a cache is used");
    }
}

async fn fill(
    shop: &Workshop,
    path: &Path,
    begin: Option<(Tree<Layer>, String)>,
    (mode, uid, gid): (u32, u32, u32),
) -> Result<()> {
    let failed = |error: std::io::Error| Error::internal("make a cache", &error);
    // Filled under another name, so that one that is there is whole.
    let draft = shop.draft().await?;
    let upper = draft.draft.upper();
    match begin {
        Some((tree, source)) if !tree.layers.is_empty() => {
            let view = shop.view(&tree).await?;
            let files = Files {
                base: None,
                actions: vec![Action::Copy(Copy {
                    sources: vec![source.trim_start_matches('/').to_owned()],
                    destination: "/".to_owned(),
                    keep_owner: true,
                    literal: true,
                    ..Copy::default()
                })],
            };
            let copied = ferry_build::blocking("fill a cache", move || {
                use ferry_build::workspace::Draft as _;
                ferry_build::copy_tree(&files, view, draft.root()).map(|()| draft)
            });
            let draft = copied.await??;
            place(&upper, path).map_err(failed)?;
            drop(draft);
        }
        _ => {
            std::fs::set_permissions(&upper, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
            std::os::unix::fs::chown(&upper, Some(uid), Some(gid)).map_err(failed)?;
            place(&upper, path).map_err(failed)?;
        }
    }
    Ok(())
}

/// Gives a new cache its name, unless another step was first: that one uses its own already.
fn place(new: &Path, path: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        placed => Ok(placed?),
    }
}
