//! The volumes there are, and how one comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferry_api::volume::{Create, Volume as Shown};
use ferry_kit::Id;
use ferry_storage::Durability;

use super::stored::{ANONYMOUS, DRIVER, Stored};
use super::{disk, event, local};
use crate::error::{Error, Kind, Result};
use crate::world::{World, blocking};

/// How long a removal waits for a mount that is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// All volumes, in memory.
#[derive(Debug)]
pub(crate) struct Shelf {
    /// `volumes/` in the data root.
    pub(super) root: PathBuf,
    inner: Mutex<BTreeMap<String, Arc<Volume>>>,
    /// Held while one comes or goes.
    changes: Arc<tokio::sync::Mutex<()>>,
}

/// A volume that is there.
#[derive(Debug)]
pub(crate) struct Volume {
    pub stored: Stored,
    /// `volumes/NAME`
    pub dir: PathBuf,
    /// The containers that run with it, and those that are about to. Locked while it is mounted, filled or removed.
    pub(super) mounted: tokio::sync::Mutex<BTreeSet<String>>,
    /// Containers that are being made with it, and have no record yet.
    claims: AtomicUsize,
}

/// Keeps volumes from being removed until a container's record names them. Dropped before it is [kept](Self::keep), the
/// anonymous ones that were made go again.
#[derive(Debug)]
pub(crate) struct Claims {
    world: Arc<World>,
    volumes: Vec<Arc<Volume>>,
    made: Vec<Arc<Volume>>,
}

impl Volume {
    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.dir.join("_data")
    }

    /// Keeps it from being removed until it is let go of.
    pub(super) fn hold(&self) {
        self.claims.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn let_go(&self) {
        self.claims.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn shown(&self) -> Shown {
        self.stored.shown(&self.data())
    }
}

impl Shelf {
    pub fn new(data_root: &Path) -> Self {
        Self {
            root: data_root.join("volumes"),
            inner: Mutex::default(),
            changes: Arc::default(),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Volume>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.inner().values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Volume>> {
        self.inner().get(name).cloned()
    }

    /// `verb` is what was to be done, for the error.
    pub fn find(&self, verb: &str, name: &str) -> Result<Arc<Volume>> {
        self.get(name)
            .ok_or_else(|| Error::not_found(format!("{verb} {name}: no such volume")))
    }

    /// To be held over [`create`](Self::create) and [`remove`](Self::remove).
    pub async fn change(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.changes).lock_owned().await
    }

    pub(super) fn put(&self, stored: Stored) -> Arc<Volume> {
        let volume = Arc::new(Volume {
            dir: self.root.join(&stored.name),
            stored,
            mounted: tokio::sync::Mutex::default(),
            claims: AtomicUsize::new(0),
        });
        self.inner().insert(volume.stored.name.clone(), Arc::clone(&volume));
        volume
    }

    /// The volumes that a container needs, those that are not there made.
    pub async fn claim(&self, world: &Arc<World>, needed: Vec<Create>, inherited: &[String]) -> Result<Claims> {
        let mut claims = Claims {
            world: Arc::clone(world),
            volumes: Vec::new(),
            made: Vec::new(),
        };
        if needed.is_empty() && inherited.is_empty() {
            return Ok(claims);
        }
        let _changes = self.change().await;
        for name in inherited {
            claims.take(self.find("get", name)?);
        }
        for request in needed {
            let (volume, made) = self.make(world, request, true).await?;
            if made && volume.stored.anonymous {
                claims.made.push(Arc::clone(&volume));
            }
            claims.take(volume);
        }
        Ok(claims)
    }

    /// The volume of that name, which must not be empty, and whether it was made.
    pub async fn create(&self, world: &World, request: Create) -> Result<(Arc<Volume>, bool)> {
        self.make(world, request, false).await
    }

    async fn make(&self, world: &World, request: Create, for_container: bool) -> Result<(Arc<Volume>, bool)> {
        let name = request.name;
        if !matches!(request.driver.as_str(), "" | DRIVER) {
            let driver = request.driver;
            return Err(Error::not_found(format!(
                "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
            )));
        }
        if let Some(volume) = self.get(&name) {
            return Ok((volume, false));
        }
        check_name(&name)?;
        local::check(&name, &request.driver_opts)?;
        let anonymous = request.labels.contains_key(ANONYMOUS) && is_id(&name);
        let stored = Stored {
            anonymous,
            for_container: anonymous && for_container,
            created: jiff::Timestamp::now(),
            driver: DRIVER.to_owned(),
            labels: (!request.labels.is_empty()).then_some(request.labels),
            options: (!request.driver_opts.is_empty()).then_some(request.driver_opts),
            scope: "local".to_owned(),
            name,
        };
        // What has no name of the user's goes with a container, whose record makes this durable if it is to be.
        let durability = match stored.anonymous {
            true => Durability::Process,
            false => Durability::Power,
        };
        let (dir, tmp) = (self.root.join(&stored.name), world.store.root().join("tmp"));
        let sync = durability == Durability::Power;
        let what = format!("create {}: make its directory", stored.name);
        let made = blocking("make a volume", move || make(&dir, &tmp, sync)).await?;
        made.map_err(|error| Error::internal(what, &error))?;
        if let Err(error) = world.store.db.put(&stored, durability).await {
            let dir = self.root.join(&stored.name);
            let _ = std::fs::remove_dir(dir.join("_data")).and_then(|()| std::fs::remove_dir(&dir));
            return Err(error.into());
        }
        let volume = self.put(stored);
        event(world, &volume.stored, "create", &[]);
        Ok((volume, true))
    }

    /// Removes a volume that nobody has; its files are deleted in the background.
    pub async fn remove(&self, world: &World, volume: &Arc<Volume>) -> Result<()> {
        let name = &volume.stored.name;
        let in_use = |by: &str| Err(Error::conflict(format!("remove {name}: volume is in use - [{by}]")));
        let mut users = super::users(world);
        if let Some(users) = users.remove(name) {
            return in_use(&users.join(", "));
        }
        if volume.claims.load(Ordering::Acquire) > 0 {
            return in_use("it is being copied, or a container is being made with it");
        }
        if self.get(name).is_none() {
            // Somebody was faster.
            return Ok(());
        }
        // A server that does not answer holds up its own volume only.
        let Ok(mounted) = tokio::time::timeout(PATIENCE, volume.mounted.lock()).await else {
            return in_use("it is being mounted, filled or unmounted");
        };
        let (dir, own) = (
            volume.dir.clone(),
            volume.stored.device().is_some() && !mounted.is_empty(),
        );
        let away = world.store.root().join("tmp").join(format!("volume-{}", Id::random()));
        let to = away.clone();
        let moved = blocking("remove a volume", move || move_away(&dir, &to, own)).await?;
        moved.map_err(|error| Error::new(Kind::Conflict, format!("remove {name}: {error}")))?;
        world.store.db.delete::<Stored>(name, Durability::Power).await?;
        self.inner().remove(name);
        drop(mounted);
        event(world, &volume.stored, "destroy", &[]);
        world.tasks.spawn_blocking(move || {
            if let Err(error) = disk::remove(&away) {
                tracing::warn!(path = %away.display(), %error, "cannot delete what was in a volume; the next start tries again");
            }
        });
        Ok(())
    }

    /// What went with a container: its anonymous volumes that no other one has.
    pub async fn remove_unused(&self, world: &World, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let _changes = self.change().await;
        for name in names {
            let Some(volume) = self.get(name) else { continue };
            match self.remove(world, &volume).await {
                Err(error) if error.kind != Kind::Conflict => {
                    tracing::error!(volume = name, %error, "cannot remove the container's volume");
                }
                _ => {}
            }
        }
    }
}

impl Claims {
    fn take(&mut self, volume: Arc<Volume>) {
        volume.hold();
        self.volumes.push(volume);
    }

    /// The container's record names them now.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        for volume in &self.volumes {
            volume.let_go();
        }
        if self.made.is_empty() {
            return;
        }
        let names: Vec<String> = self.made.iter().map(|volume| volume.stored.name.clone()).collect();
        let world = Arc::clone(&self.world);
        self.world
            .tasks
            .spawn(async move { world.volumes.remove_unused(&world, &names).await });
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, in Docker's words.
pub(super) fn check_name(name: &str) -> Result<()> {
    let invalid = |why: String| Err(Error::invalid(format!("create {name}: {why}")));
    if name.len() == 1 {
        return invalid("volume name is too short, names should be at least two alphanumeric characters".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !name.bytes().all(plain) || !name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) {
        return invalid(format!(
            "{} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you \
             intended to pass a host directory, use absolute path",
            ferry_kit::gofmt::quote(name)
        ));
    }
    if name.len() > 255 {
        return invalid("error while creating volume root path: file name too long".to_owned());
    }
    Ok(())
}

/// What generated names look like.
pub(super) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes the directory whole, then in its place; one that is there already, without a record, is used.
fn make(dir: &Path, tmp: &Path, sync: bool) -> io::Result<()> {
    let staged = tmp.join(format!("volume-{}", Id::random()));
    std::fs::DirBuilder::new().mode(0o701).create(&staged)?;
    std::fs::DirBuilder::new().mode(0o755).create(staged.join("_data"))?;
    // Whatever the engine's own umask is.
    for (path, mode) in [(staged.clone(), 0o701), (staged.join("_data"), 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    match std::fs::rename(&staged, dir) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
            let _ = disk::remove(&staged);
            match std::fs::DirBuilder::new().mode(0o755).create(dir.join("_data")) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        done => done?,
    }
    if sync {
        std::fs::File::open(dir)?.sync_all()?;
        std::fs::File::open(dir.parent().unwrap_or(dir))?.sync_all()?;
    }
    Ok(())
}

/// Takes the directory out of its place, with nothing mounted in it. `own`: what the volume's options mounted goes first.
fn move_away(dir: &Path, away: &Path, own: bool) -> io::Result<()> {
    if own {
        local::unmount(&dir.join("_data"))?;
    }
    if let Some(mount) = super::reconcile::mounted_below(dir)?.into_iter().next() {
        let place = mount.place.display();
        return Err(io::Error::other(format!(
            "something else is mounted on {place}: unmount it first"
        )));
    }
    match std::fs::rename(dir, away) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "A_b.c-d", "0x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["a", "a/b", "../x", "..", ".a", "-a", "ä1", "a b", &"a".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_directory_is_made_once_and_keeps_what_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let (dir, tmp) = (root.path().join("v"), root.path().to_owned());
        make(&dir, &tmp, true).unwrap();
        std::fs::write(dir.join("_data/file"), "text").unwrap();
        make(&dir, &tmp, false).unwrap();
        assert_eq!(std::fs::read(dir.join("_data/file")).unwrap(), b"text");
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
