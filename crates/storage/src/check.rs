//! Whether the store is what its records say, and what can be done about it where it is not.
//!
//! Nothing is decided by what a file looks like: a layer is right if the tar that it makes has its diff id, a blob if its bytes
//! have its digest. What is repaired is what can be had again (by a pull, or from the layer itself) or what nothing refers to.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_image::{Digest, Hasher};

use crate::db::{Batch, Durability};
use crate::error::Context as _;
use crate::hashing::Hashing;
use crate::images::{self, Image, Images, Index};
use crate::layers::{self, Layer};
use crate::settling::Unsynced;
use crate::store::Shared;
use crate::{Error, Result};

/// How far to look, and what to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Read everything: whether files are there takes no time, whether they are right takes as long as reading them.
    pub contents: bool,
    /// Remove what is wrong or unreferenced. Images whose layers are wrong go, unless a container needs them.
    pub repair: bool,
}

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    pub images: usize,
    pub layers: usize,
    pub blobs: usize,
    /// That were read.
    pub bytes: u64,
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `layer sha256:…`, `image sha256:…`, a path.
    pub what: String,
    pub why: String,
    /// What was done about it, or why nothing was.
    pub done: Done,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Repair was not asked for.
    Nothing,
    Removed,
    /// It cannot be removed.
    Left(String),
}

impl Images {
    /// Looks at everything in the store. Blocks, as long as reading takes; images can be used, and come and go, meanwhile.
    pub fn check(&self, options: CheckOptions) -> Result<Checked> {
        let mut check = Check {
            shared: &self.shared,
            options,
            found: Checked::default(),
        };
        check.records()?;
        let index = self.shared.index();
        check.found.images = index.images.len();
        let bad = check.layers(&index)?;
        check.blobs(&index)?;
        check.images(&index, &bad)?;
        check.unreferenced()?;
        Ok(check.found)
    }
}

struct Check<'a> {
    shared: &'a Shared,
    options: CheckOptions,
    found: Checked,
}

impl Check<'_> {
    fn add(&mut self, what: impl Into<String>, why: impl Into<String>, repair: impl FnOnce() -> Result<Done>) {
        let done = match self.options.repair {
            false => Done::Nothing,
            true => repair().unwrap_or_else(|error| Done::Left(ferry_kit::error::chain(&error))),
        };
        self.found.findings.push(Finding {
            what: what.into(),
            why: why.into(),
            done,
        });
    }

    /// What could not be read when the store was opened, then or before. What only that named goes when it is opened next.
    fn records(&mut self) -> Result<()> {
        let shared = self.shared;
        for bad in shared.db.quarantined() {
            let why = format!("cannot be read: {}", bad.why);
            self.add(format!("the record {} {}", bad.kind, bad.key), why, || {
                shared.db.forget(&bad)?;
                Ok(Done::Removed)
            });
        }
        for problem in &self.shared.problems {
            let key = problem.what.strip_prefix("the image ").unwrap_or_default().to_owned();
            self.add(&problem.what, &problem.why, || {
                let mut batch = Batch::default();
                batch.delete::<images::Record>(&key);
                self.shared.db.commit_blocking(batch, Durability::Power)?;
                Ok(Done::Removed)
            });
        }
        Ok(())
    }

    /// The layers that are not right, and why.
    fn layers(&mut self, index: &Index) -> Result<HashMap<Digest, String>> {
        let mut layers: HashMap<Digest, Layer> = HashMap::new();
        for image in index.images.values() {
            let own = image.layers.iter().map(|layer| (layer.chain_id.clone(), layer.clone()));
            layers.extend(own);
        }
        self.found.layers = layers.len();
        let mut bad = HashMap::new();
        for (chain, layer) in layers {
            // What is removed meanwhile is nobody's.
            let Some(pin) = self.shared.layers.get(&chain) else {
                continue;
            };
            let dir = self.shared.layout.layer(&chain);
            let why = match std::fs::symlink_metadata(dir.join("fs")) {
                // What an older Ferry unpacked has no recipe, so nothing can be said of it.
                Ok(data) if data.is_dir() => match self.options.contents && layer.tar_size.is_some() {
                    true => self.content(&layer)?,
                    false => None,
                },
                Ok(_) => Some("its files are no directory".to_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some("its files are not there".to_owned()),
                Err(error) => return Err(error).at("look at", &dir),
            };
            drop(pin);
            bad.extend(why.map(|why| (chain, why)));
        }
        Ok(bad)
    }

    /// Why a layer's files are not those of its tar.
    fn content(&mut self, layer: &Layer) -> Result<Option<String>> {
        let mut hashing = Hashing::new(io::sink());
        match self.shared.remake(layer, &mut hashing) {
            Ok(()) => {
                let (digest, size) = hashing.finish().at("read", &self.shared.layout.layers())?;
                self.found.bytes += size;
                Ok((digest != layer.diff_id)
                    .then(|| format!("its files make a tar with the digest {digest}, not {}", layer.diff_id)))
            }
            Err(Error::Invalid(why)) => Ok(Some(why)),
            Err(error @ Error::Archive { .. }) => Ok(Some(ferry_kit::error::chain(&error))),
            Err(error) => Err(error),
        }
    }

    /// Blobs that are there, and not what they are called.
    fn blobs(&mut self, index: &Index) -> Result<()> {
        let mut of_layers: HashMap<Digest, (u64, Vec<Layer>)> = HashMap::new();
        for layer in index.images.values().flat_map(|image| &image.layers) {
            if let Some(blob) = &layer.blob {
                let (_, layers) = of_layers.entry(blob.digest.clone()).or_insert((blob.size, Vec::new()));
                layers.push(layer.clone());
            }
        }
        self.found.blobs = of_layers.len();
        for image in index.images.values() {
            for (at, way) in image.ways().enumerate() {
                // Without the manifest it came with last, the image is damaged.
                let own = way.blobs().skip(usize::from(at == 0));
                let mut why = None;
                for digest in own {
                    self.found.blobs += 1;
                    why = why.or(self.document(digest)?);
                }
                let Some(why) = why else { continue };
                let why = format!("{why}; the image can do without, and is pushed without its index");
                let shared = self.shared;
                self.add(format!("the index of the image {}", called(image)), why, || {
                    shared.forget_way(&image.id, way.digest())?;
                    Ok(Done::Removed)
                });
            }
        }
        for (digest, (size, layers)) in of_layers {
            let path = self.shared.layout.blob(&digest);
            let why = match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is not there".to_owned()),
                Err(error) => return Err(error).at("look at", &path),
                Ok(data) if data.len() != size => Some(format!("has {} bytes, not {size}", data.len())),
                Ok(_) if self.options.contents => {
                    self.found.bytes += size;
                    let found = digest_of(&path)?;
                    (found != digest).then(|| format!("its bytes have the digest {found}"))
                }
                Ok(_) => None,
            };
            let Some(why) = why else { continue };
            let why = format!("{why}; the layer can do without, and is sent as another blob");
            let shared = self.shared;
            self.add(format!("the blob {digest}"), why, || {
                shared.forget_blob(&layers)?;
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
                    _ => Ok(Done::Removed),
                }
            });
        }
        Ok(())
    }

    fn images(&mut self, index: &Index, bad: &HashMap<Digest, String>) -> Result<()> {
        for image in index.images.values() {
            let mut why = image
                .layers
                .iter()
                .find_map(|layer| Some(format!("its layer {}: {}", layer.diff_id, bad.get(&layer.chain_id)?)));
            for digest in [Some(&image.id), image.manifest.as_ref()].into_iter().flatten() {
                why = why.or(self.document(digest)?);
            }
            let Some(why) = why else { continue };
            let name = called(image);
            let why = format!("{why}; remove it and pull or load it again");
            let shared = self.shared;
            self.add(format!("the image {name}"), why, || shared.drop_damaged(image));
        }
        Ok(())
    }

    /// Why a configuration or manifest is not right.
    fn document(&mut self, digest: &Digest) -> Result<Option<String>> {
        let path = self.shared.layout.blob(digest);
        match std::fs::metadata(&path) {
            Ok(data) => {
                self.found.bytes += data.len();
                Ok((digest_of(&path)? != *digest).then(|| format!("its blob {digest} is damaged")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Some(format!("its blob {digest} is not there")))
            }
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Files that no record names. What is being made at the moment is left alone.
    fn unreferenced(&mut self) -> Result<()> {
        let shared = self.shared;
        let _changing = shared.changing();
        let index = shared.index();
        let blobs: HashSet<String> = names(shared.needed_blobs(&index).iter());
        let layers: HashSet<String> = names(shared.needed(&index).iter())
            .into_iter()
            .chain(names(shared.layers.all().iter()))
            .collect();
        let held = shared.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let containers: HashSet<String> = held.keys().cloned().collect();
        drop(held);
        for (dir, known) in [
            (shared.layout.blobs(), &blobs),
            (shared.layout.layers(), &layers),
            (shared.layout.containers(), &containers),
        ] {
            for path in crate::store::entries(&dir)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if known.contains(&name) || is_young(&path) {
                    continue;
                }
                self.add(path.display().to_string(), "nothing refers to it", || {
                    shared.reaper.remove(&path)?;
                    Ok(Done::Removed)
                });
            }
        }
        Ok(())
    }
}

fn called(image: &Image) -> String {
    let name = image.references.first();
    name.map_or_else(|| image.id.to_string(), ferry_image::Reference::familiar)
}

/// Made within the last minute: a container's directory comes before its record.
fn is_young(path: &Path) -> bool {
    let made = std::fs::symlink_metadata(path).and_then(|data| data.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() < 60))
}

fn names<'a>(digests: impl Iterator<Item = &'a Digest>) -> HashSet<String> {
    digests.map(|digest| digest.encoded().to_owned()).collect()
}

fn digest_of(path: &PathBuf) -> Result<Digest> {
    let mut file = File::open(path).at("open", path)?;
    let (mut hash, mut buffer) = (Hasher::default(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hash.finish()),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
}

impl Shared {
    /// After a power cut: images that may not have reached the disk are read, and removed if they are not whole.
    pub fn read_through(&self, suspects: &[Unsynced]) -> Result<()> {
        let mut index = Index::clone(&self.index());
        index
            .images
            .retain(|id, _| suspects.iter().any(|suspect| suspect.image == id.to_string()));
        let options = CheckOptions {
            contents: true,
            repair: true,
        };
        let mut check = Check {
            shared: self,
            options,
            found: Checked::default(),
        };
        let bad = check.layers(&index)?;
        check.blobs(&index)?;
        check.images(&index, &bad)?;
        for Finding { what, why, done } in check.found.findings {
            tracing::warn!(what, why, ?done, "the power was cut before all of a pull was on disk");
        }
        let mut batch = Batch::default();
        for suspect in suspects {
            batch.delete::<Unsynced>(&suspect.key);
        }
        self.db.commit_blocking(batch, Durability::Power)
    }

    /// Layers lose the blob they came as.
    fn forget_blob(&self, layers: &[Layer]) -> Result<()> {
        let _changing = self.changing();
        let mut batch = Batch::default();
        let layers: Vec<Layer> = layers
            .iter()
            .map(|layer| Layer {
                blob: None,
                ..layer.clone()
            })
            .collect();
        for layer in &layers {
            batch.put(&layers::Record::from(layer.clone()))?;
        }
        self.db.commit_blocking(batch, Durability::Power)?;
        self.layers.stored(layers.iter());
        let mut index = Index::clone(&self.index());
        index.relayer(layers.iter());
        index.relabel();
        self.publish(index);
        Ok(())
    }

    /// An image loses an index it came by.
    fn forget_way(&self, id: &Digest, way: &Digest) -> Result<()> {
        let _changing = self.changing();
        let mut index = Index::clone(&self.index());
        let Some(image) = index.images.get_mut(id) else {
            return Ok(());
        };
        let mut changed = image.copy();
        let parts: Vec<Digest> = changed.documents().cloned().collect();
        changed.origin = changed.origin.take().filter(|origin| origin.index != *way);
        changed.earlier.retain(|other| other.digest() != way);
        let mut batch = Batch::default();
        batch.put(&changed.record())?;
        self.db.commit_blocking(batch, Durability::Power)?;
        *image = Arc::new(changed);
        self.forget(&index, parts);
        self.publish(index);
        Ok(())
    }

    /// Removes an image that is damaged, with all its names, unless a container stands on it.
    fn drop_damaged(&self, image: &Arc<Image>) -> Result<Done> {
        let held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let user = held.values().find(|record| {
            record
                .held()
                .any(|held| image.layers.iter().any(|layer| layer.chain_id == *held))
        });
        if let Some(record) = user {
            let why = format!("the container {} stands on it: remove that first", record.container);
            return Ok(Done::Left(why));
        }
        drop(held);
        self.remove_whole(image)?;
        Ok(Done::Removed)
    }
}
