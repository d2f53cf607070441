//! What an engine finds when it starts: records, directories and mounts, held against each other.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use ferry_storage::Document as _;

use super::stored::{DRIVER, Stored};
use super::{Shelf, local, names, shelf};
use crate::container::Record;
use crate::error::{Error, Result};
use crate::world::{World, blocking};

/// A mount of this mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    pub place: PathBuf,
    pub kind: String,
}

/// What is mounted on `dir` and below it, the last first.
pub(super) fn mounted_below(dir: &Path) -> io::Result<Vec<Mounted>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    // The kernel's names: the data root may have been given through a link.
    let dir = match dir
        .parent()
        .map(|parent| rustix::fs::open(parent, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()))
    {
        Some(Ok(parent)) => {
            std::fs::read_link(ferry_sys::handle::path_of(parent.as_fd()))?.join(dir.file_name().unwrap_or_default())
        }
        _ => dir.to_owned(),
    };
    Ok(parse(&table, &dir))
}

fn parse(table: &[u8], dir: &Path) -> Vec<Mounted> {
    let lines = table.split(|byte| *byte == b'\n');
    let mut found: Vec<Mounted> = lines
        .filter_map(|line| {
            // proc_pid_mountinfo(5): the fifth field is the place, the type follows a dash.
            let mut fields = line.split(|byte| *byte == b' ');
            let place = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.nth(4)?)));
            fields.find(|field| *field == b"-")?;
            let kind = String::from_utf8_lossy(fields.next()?).into_owned();
            place.starts_with(dir).then_some(Mounted { place, kind })
        })
        .collect();
    found.reverse();
    found
}

/// `\040` for a space, and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| byte == b'\\');
        let number = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(number) => {
                plain.push(number);
                rest = &after[3..];
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

impl Shelf {
    /// Reads the records. `used` are the volumes that containers have. Returns those that were made for containers that are not
    /// there.
    pub async fn load(&self, world: &World, used: &BTreeSet<String>) -> Result<Vec<String>> {
        let all = world.store.db.all::<Stored>().await?;
        // A disk that is not mounted, rather than somebody's rm: what the records say is wanted again when it is.
        let lost = all.len() > 1 && !all.iter().any(|stored| self.root.join(&stored.name).is_dir());
        // One that cannot be read may have them.
        let unknown = world.store.db.quarantined().iter().any(|bad| bad.kind == Record::KIND);
        let orphans: Vec<String> = all
            .iter()
            .filter(|stored| stored.for_container && !lost && !unknown && !used.contains(&stored.name))
            .map(|stored| stored.name.clone())
            .collect();
        for stored in all {
            // A name that is no file name would lead elsewhere.
            if shelf::check_name(&stored.name).is_err() {
                tracing::error!(volume = stored.name, "a record has a name that no volume can have");
                continue;
            }
            let dir = self.root.join(&stored.name);
            if dir.is_dir() {
                self.put(stored);
            } else if lost || used.contains(&stored.name) {
                tracing::warn!(
                    volume = stored.name,
                    "the volume's directory is gone: a container that has it will say so"
                );
                self.put(stored);
            } else {
                // Its removal was under way, or somebody else's: there is nothing left that it could name.
                tracing::warn!(
                    volume = stored.name,
                    "the volume's directory is gone, and so is the volume"
                );
                let durability = ferry_storage::Durability::Process;
                world.store.db.delete::<Stored>(&stored.name, durability).await?;
            }
        }
        let mut known: BTreeSet<String> = self.all().iter().map(|volume| volume.stored.name.clone()).collect();
        for unreadable in world.store.db.quarantined() {
            if unreadable.kind == Stored::KIND {
                let name = unreadable.key;
                tracing::error!(
                    volume = name,
                    "the volume's record cannot be read: its files are left as they are"
                );
                known.insert(name);
            }
        }
        let root = self.root.clone();
        let found = blocking("look at the volumes", move || strangers(&root, &known)).await?;
        let found = found.map_err(|error| Error::internal("look at the volumes", &error))?;
        for (name, created) in found {
            tracing::warn!(
                volume = name,
                "a directory of volumes/ had no record and is a volume now"
            );
            let stored = Stored {
                anonymous: shelf::is_id(&name),
                created,
                driver: DRIVER.to_owned(),
                labels: None,
                options: None,
                scope: "local".to_owned(),
                for_container: false,
                name,
            };
            world.store.db.put(&stored, ferry_storage::Durability::Process).await?;
            self.put(stored);
        }
        Ok(orphans)
    }

    /// A container that runs.
    pub async fn adopt(&self, record: &Record) {
        for name in names(record) {
            if let Some(volume) = self.get(name) {
                volume.adopt(&record.id).await;
            }
        }
    }

    /// When all that run have been adopted: unmounts what the engine before mounted for one that does not run any more.
    pub async fn settle(&self) {
        let all = self.all();
        let with_device = all.into_iter().filter(|volume| volume.stored.device().is_some());
        let with_device: Vec<_> = with_device.collect();
        if with_device.is_empty() {
            return;
        }
        for volume in with_device {
            let users = volume.mounted.lock().await;
            if !users.is_empty() {
                continue;
            }
            let of = std::sync::Arc::clone(&volume);
            let done = blocking("unmount a volume", move || {
                let (data, device) = (of.data(), of.stored.device());
                let ours = |mount: &Mounted| {
                    mount.place.ends_with("_data") && device.is_some_and(|device| device.is_of_type(&mount.kind))
                };
                match mounted_below(&data)?.iter().any(ours) {
                    true => local::unmount(&data).map(|()| true),
                    false => Ok(false),
                }
            });
            let name = &volume.stored.name;
            match done.await {
                Ok(Ok(true)) => tracing::info!(volume = name, "unmounted the volume, which no container uses any more"),
                Ok(Err(error)) => tracing::error!(volume = name, %error, "cannot unmount the volume"),
                Ok(Ok(false)) | Err(_) => {}
            }
        }
    }
}

/// Directories that no record names and that hold something, with their times. Of a creation that did not finish nothing
/// is left.
fn strangers(root: &Path, known: &BTreeSet<String>) -> io::Result<Vec<(String, jiff::Timestamp)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if known.contains(&name) || shelf::check_name(&name).is_err() || !entry.file_type()?.is_dir() {
            continue;
        }
        let data = entry.path().join("_data");
        // Empty ones only: rmdir(2) refuses any other.
        let _ = std::fs::remove_dir(&data);
        let _ = std::fs::remove_dir(entry.path());
        if data.is_dir() {
            let changed = entry.metadata().and_then(|data| data.modified());
            let created = changed.ok().and_then(|time| time.try_into().ok());
            found.push((name, created.unwrap_or_else(jiff::Timestamp::now)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found_the_last_first() {
        let table = b"1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n\
            2 1 0:5 / /v/a\\040b rw,nosuid - tmpfs tmpfs rw\n\
            3 2 0:6 / /v/a\\040b/c rw shared:2 master:3 - nfs4 h:/x rw\n\
            4 1 0:7 / /v/abc rw - tmpfs tmpfs rw\n";
        let found = parse(table, Path::new("/v/a b"));
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.place.to_str().unwrap(), one.kind.as_str()))
            .collect();
        assert_eq!(found, [("/v/a b/c", "nfs4"), ("/v/a b", "tmpfs")]);
    }

    #[test]
    fn what_holds_something_is_kept_and_what_is_empty_goes() {
        let root = tempfile::tempdir().unwrap();
        for (name, file) in [("full", true), ("empty", false), ("known", true)] {
            std::fs::create_dir_all(root.path().join(name).join("_data")).unwrap();
            if file {
                std::fs::write(root.path().join(name).join("_data/f"), "x").unwrap();
            }
        }
        std::os::unix::fs::symlink("/etc", root.path().join("link")).unwrap();
        let found = strangers(root.path(), &BTreeSet::from(["known".to_owned()])).unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["full"]);
        assert!(!root.path().join("empty").exists() && root.path().join("link").is_symlink());
    }
}
