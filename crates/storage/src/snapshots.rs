//! The writable part of a container on top of an image's layers.
//!
//! A container holds its layers by a record of its own, so that an image can be removed by force while a container that
//! was made from it goes on. What is mounted, and how, is the runtime's affair: this hands out paths.

use std::collections::hash_map::Entry;
use std::fs::{DirBuilder, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use ferry_archive::tree;
use ferry_image::Digest;
use ferry_sys::Root;
use rustix::fs::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::db::{Batch, Document, Durability};
use crate::error::Context as _;
use crate::images::{Image, blocking};
use crate::layers;
use crate::layout::remove_all;
use crate::store::Shared;
use crate::{Error, Result};

#[derive(Clone, Debug)]
pub struct Snapshots {
    pub(crate) shared: Arc<Shared>,
}

/// What an overlay of a container is mounted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Topmost first; never empty.
    pub layers: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// Bytes of files as Docker counts them in `SizeRw` and `SizeRootFs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub rw: u64,
    pub root_fs: u64,
}

/// The layers that a container holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub container: String,
    /// Chain ids, topmost first.
    pub layers: Vec<Digest>,
    /// Bytes of those layers.
    pub size: u64,
    /// How many of them can be seen: an opaque root hides the rest.
    pub visible: usize,
    pub owner: Option<(u32, u32)>,
    /// Chain ids of the images that it mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounted: Vec<Digest>,
}

impl Record {
    /// Every layer that it holds.
    pub fn held(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().chain(&self.mounted)
    }
}

impl Document for Record {
    const KIND: &'static str = "snapshot";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.container
    }
}

impl Snapshots {
    /// Makes the writable directories of a container; `owner` is who root in its user namespace is. It holds the layers of
    /// the images that it mounts, too. `also` is recorded together with it.
    ///
    /// Fails if an image was removed meanwhile. On failure nothing stays.
    pub async fn prepare(
        &self,
        container: &str,
        image: &Arc<Image>,
        mounted: Vec<Arc<Image>>,
        owner: Option<(u32, u32)>,
        also: Batch,
        durability: Durability,
    ) -> Result<Snapshot> {
        let (shared, container, image) = (Arc::clone(&self.shared), container.to_owned(), Arc::clone(image));
        blocking(move || shared.prepare(&container, &image, &mounted, owner, also, durability)).await
    }

    /// The paths of a container that was prepared. Does no I/O.
    pub fn get(&self, container: &str) -> Result<Snapshot> {
        let record = self.shared.held_by(container)?;
        self.shared.snapshot(&record)
    }

    /// Every container that has been prepared and not removed, in no order. Does no I/O.
    pub fn containers(&self) -> Vec<String> {
        self.shared.held().keys().cloned().collect()
    }

    /// Empties the writable directories. The container must not be running.
    pub async fn reset(&self, container: &str) -> Result<Snapshot> {
        let (shared, container) = (Arc::clone(&self.shared), container.to_owned());
        blocking(move || {
            let record = shared.held_by(&container)?;
            let snapshot = shared.snapshot(&record)?;
            shared.reaper.remove(&snapshot.upper)?;
            shared.reaper.remove(&snapshot.work)?;
            make(&snapshot, record.owner)?;
            Ok(snapshot)
        })
        .await
    }

    /// Removes a container's directory, with all that the engine put there, and lets go of its layers. Fine if there is
    /// none. Works, and frees space, when the disk is full. The files are deleted after the answer.
    pub async fn remove(&self, container: &str) -> Result<()> {
        let (shared, container) = (Arc::clone(&self.shared), container.to_owned());
        blocking(move || shared.remove_container(&container)).await
    }

    /// How much a container holds. Walks its writable directory.
    pub async fn usage(&self, container: &str) -> Result<Usage> {
        let (shared, container) = (Arc::clone(&self.shared), container.to_owned());
        blocking(move || {
            let record = shared.held_by(&container)?;
            let snapshot = shared.snapshot(&record)?;
            let root = Root::open(&snapshot.upper).at("open", &snapshot.upper)?;
            let rw = tree::size(root.as_fd()).at("measure", &snapshot.upper)?;
            Ok(Usage {
                rw,
                root_fs: rw.saturating_add(record.size),
            })
        })
        .await
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, std::collections::HashMap<String, Record>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held_by(&self, container: &str) -> Result<Record> {
        let found = self.held().get(container).cloned();
        found.ok_or_else(|| Error::Invalid(format!("container {container} has no file system")))
    }

    /// The paths of a container that was prepared.
    pub(crate) fn snapshot_of(&self, container: &str) -> Result<Snapshot> {
        self.snapshot(&self.held_by(container)?)
    }

    /// The layers a container holds, topmost first.
    pub(crate) fn layers_of(&self, container: &str) -> Result<Vec<Digest>> {
        Ok(self.held_by(container)?.layers)
    }

    fn snapshot(&self, record: &Record) -> Result<Snapshot> {
        let dir = self.layout.container(&record.container)?;
        let layers = record
            .layers
            .iter()
            .take(record.visible)
            .map(|chain| self.layers.path(chain))
            .collect();
        Ok(Snapshot {
            layers,
            upper: dir.join("upper"),
            work: dir.join("work"),
        })
    }

    fn prepare(
        &self,
        container: &str,
        image: &Image,
        mounted: &[Arc<Image>],
        owner: Option<(u32, u32)>,
        mut batch: Batch,
        durability: Durability,
    ) -> Result<Snapshot> {
        let dir = self.layout.container(container)?;
        let record = Record {
            container: container.to_owned(),
            layers: image.layers.iter().rev().map(|layer| layer.chain_id.clone()).collect(),
            size: image.size,
            visible: visible(image),
            owner,
            mounted: mounted
                .iter()
                .flat_map(|image| image.layers.iter().map(|layer| layer.chain_id.clone()))
                .collect(),
        };
        // Held before the directories are made, so that nobody removes the layers from under them.
        let mut pins = Vec::new();
        for image in mounted.iter().map(Arc::as_ref).chain([image]) {
            for layer in &image.layers {
                pins.push(self.layers.get(&layer.chain_id).ok_or_else(|| Error::NotFound {
                    reference: image.id.to_string(),
                })?);
            }
        }
        let snapshot = self.snapshot(&record)?;
        match self.held().entry(record.container.clone()) {
            Entry::Vacant(place) => drop(place.insert(record.clone())),
            Entry::Occupied(_) => {
                return Err(Error::Invalid(format!(
                    "container {container} has a file system already"
                )));
            }
        }
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o710)
            .create(&dir)
            .at("make the directory", &dir);
        let recorded = made.and_then(|()| make(&snapshot, owner)).and_then(|()| {
            batch.put(&record)?;
            self.db.commit_blocking(batch, durability)
        });
        match recorded {
            Ok(()) => Ok(snapshot),
            Err(error) => {
                self.held().remove(container);
                let _ = remove_all(&snapshot.upper);
                let _ = remove_all(&snapshot.work);
                // Goes only if the engine put nothing there.
                let _ = std::fs::remove_dir(&dir);
                Err(error)
            }
        }
    }

    fn remove_container(&self, container: &str) -> Result<()> {
        let dir = self.layout.container(container)?;
        let hidden = self.reaper.hide(&dir)?;
        let _changing = self.changing();
        let Some(record) = self.held().remove(container) else {
            if let Some(hidden) = hidden {
                self.reaper.delete(hidden);
            }
            return Ok(());
        };
        let index = self.index();
        let held: Vec<_> = record.held().cloned().collect();
        let layers = self.layers.take(&held, &self.needed(&index));
        let batch = || {
            let mut batch = Batch::default();
            batch.delete::<Record>(container);
            layers
                .iter()
                .for_each(|layer| batch.delete::<layers::Record>(&layer.chain_id.to_string()));
            batch
        };
        let mut committed = self.db.commit_blocking(batch(), Durability::Process);
        if let (Err(Error::NoSpace { .. }), Some(hidden)) = (&committed, &hidden) {
            // Not even the reserve was enough: this container's own files make the room.
            let _ = remove_all(hidden);
            committed = self.db.commit_blocking(batch(), Durability::Process);
        }
        if let Some(hidden) = hidden {
            self.reaper.delete(hidden);
        }
        if let Err(error) = committed {
            self.layers.keep(layers);
            self.held().insert(container.to_owned(), record);
            return Err(error);
        }
        self.layers.gone(&layers);
        let needed = self.needed_blobs(&index);
        for blob in layers
            .iter()
            .filter_map(|layer| layer.blob.as_ref())
            .filter(|blob| !needed.contains(&blob.digest))
        {
            let _ = self.reaper.remove(&self.layout.blob(&blob.digest));
        }
        Ok(())
    }
}

/// How many of an image's layers can be seen from the top: an opaque root hides the rest.
fn visible(image: &Image) -> usize {
    let opaque = image.layers.iter().rev().position(|layer| layer.opaque);
    opaque.map_or(image.layers.len(), |at| at + 1)
}

/// The layers of an image that can be seen, topmost first.
pub fn visible_layers(image: &Image) -> Vec<Digest> {
    let layers = image.layers.iter().rev().take(visible(image));
    layers.map(|layer| layer.chain_id.clone()).collect()
}

fn make(snapshot: &Snapshot, owner: Option<(u32, u32)>) -> Result<()> {
    for (path, mode) in [(&snapshot.upper, 0o755), (&snapshot.work, 0o700)] {
        make_dir(path, mode, owner)?;
    }
    Ok(())
}

pub(crate) fn make_dir(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
    std::fs::create_dir(path).at("make the directory", path)?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).at("change the mode of", path)?;
    if let Some((uid, gid)) = owner {
        rustix::fs::chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).at("change the owner of", path)?;
    }
    Ok(())
}
