//! An image that arrives blob by blob, its layers unpacked while they arrive.
//!
//! ```text
//! source ─ tee ─▶ ingest/<hex>                        (what has come is not fetched again)
//!           └─ hash ─│─ inflate ─ bound ─ hash ─│─ untar ─▶ tmp/…/fs ─▶ layers/<chain id>/fs
//!                    a thread each: │                                   all layers ready ─▶ Shared::record (one commit)
//! ```
//!
//! Nothing can be seen before the commit. Digests, sizes and diff ids are verified before a layer counts as ready; a pull that
//! is given up leaves the parts of blobs that have come, unless the disk is full, and layers that other pulls wait for.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_image::{Digest, Reference};
use oci_spec::image::ImageConfiguration;

use crate::assembly::{Assembly, Lower};
use crate::db::{Batch, Durability};
use crate::error::Context as _;
use crate::images::{Images, Loaded, NewBlob, NewImage, diff_ids, is_sha256, layer_blob, parse_config};
use crate::ingest::{Ingest, Parts};
use crate::layers::{Layer, Pin};
use crate::layout::Staging;
use crate::load::LoadOptions;
use crate::origin::{self, Gathered};
use crate::outgoing::Packed;
use crate::steps::{Held, Steps};
use crate::store::Shared;
use crate::stream::{Hashed, piped};
use crate::{Error, Result};

/// An image to be pulled: its manifest and configuration as they came, digests verified.
#[derive(Clone, Debug)]
pub struct NewPull {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// As in the manifest, lowest first.
    pub layers: Vec<Remote>,
    /// The names the image gets.
    pub references: Vec<Reference>,
    pub options: LoadOptions,
}

/// A layer as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
}

/// A pull that has begun. [`layer`](Self::layer) may be called by several threads at once.
#[derive(Debug)]
pub struct Pull {
    shared: Arc<Shared>,
    /// What is recorded at the end; `None` for layers alone.
    image: Option<Described>,
    diff_ids: Vec<Digest>,
    layers: Vec<Option<Remote>>,
    options: LoadOptions,
    assembly: Assembly,
    /// Blobs of layers that were brought in by this pull, as far as they are to be kept.
    arrived: Mutex<Vec<Arrived>>,
    gathered: Mutex<Vec<Gathered>>,
    /// Dropped after those of them that are held.
    parts: Parts,
}

#[derive(Debug)]
struct Described {
    manifest: Vec<u8>,
    raw_config: Vec<u8>,
    config: ImageConfiguration,
    references: Vec<Reference>,
}

#[derive(Debug)]
struct Arrived {
    ingest: Ingest,
    digest: Digest,
    keep: bool,
}

impl Images {
    /// Begins a pull: what is there already is held from now on. Fails with [`Error::Invalid`] for a configuration that is
    /// none, or that does not fit the manifest. Does little I/O.
    pub fn pull(&self, new: NewPull) -> Result<Pull> {
        let config = parse_config(&new.config)?;
        let diff_ids = diff_ids(&config)?;
        if diff_ids.len() != new.layers.len() {
            return Err(Error::Invalid(format!(
                "layers from manifest don't match image configuration: {} in the manifest, {} in the configuration",
                new.layers.len(),
                diff_ids.len()
            )));
        }
        let layers = new.layers.into_iter().map(Some).collect();
        let image = Described {
            manifest: new.manifest,
            raw_config: new.config,
            config,
            references: new.references,
        };
        Pull::begin(&self.shared, Some(image), diff_ids, layers, new.options)
    }

    /// Whether what was pulled is still on its way to the disk.
    pub fn is_settling(&self) -> bool {
        self.shared.settling.is_busy()
    }

    /// Removes parts of blobs that no transfer is writing. Returns the bytes freed. Blocks.
    pub fn collect_parts(&self) -> Result<u64> {
        self.shared.ingests.collect(|_| true)
    }
}

impl Steps {
    /// Begins to bring layers in that stand on each other, lowest first: their diff ids, and how they travel. One that does not
    /// has to be there.
    pub fn bring(&self, layers: Vec<(Digest, Option<Remote>)>) -> Result<Pull> {
        let (diff_ids, layers) = layers.into_iter().unzip();
        let pull = Pull::begin(&self.shared, None, diff_ids, layers, LoadOptions::default())?;
        match pull.missing().into_iter().find(|at| pull.remote(*at).is_none()) {
            None => Ok(pull),
            Some(at) => Err(Error::NotFound {
                reference: pull.diff_ids[at].to_string(),
            }),
        }
    }
}

impl Pull {
    fn begin(
        shared: &Arc<Shared>,
        image: Option<Described>,
        diff_ids: Vec<Digest>,
        layers: Vec<Option<Remote>>,
        options: LoadOptions,
    ) -> Result<Self> {
        // An engine that runs for long sees no start-up.
        shared.ingests.collect(|_| false)?;
        let digests = layers.iter().flatten().map(|layer| layer.digest.clone()).collect();
        Ok(Self {
            shared: Arc::clone(shared),
            image,
            assembly: Assembly::new(&shared.layers, &diff_ids),
            diff_ids,
            layers,
            options,
            arrived: Mutex::default(),
            gathered: Mutex::default(),
            parts: Parts::new(&shared.ingests, digests),
        })
    }

    /// The layers that are not there, lowest first: the order in which to begin them.
    pub fn missing(&self) -> Vec<usize> {
        self.assembly.awaited()
    }

    /// What the image comes along with: its index, or more of its parts. Without an index the parts are not kept.
    pub fn along(&self, gathered: Gathered) {
        self.gathered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(gathered);
    }

    pub fn remote(&self, at: usize) -> Option<&Remote> {
        self.layers.get(at)?.as_ref()
    }

    /// Brings a layer in. Blocks, also while another pull is at the same layer.
    ///
    /// `open` gives the blob's bytes from an offset on; it is not called when all of them have come before, and a second time,
    /// from the beginning, if what had come before turns out wrong. `progress` hears how many bytes of the blob have come.
    pub fn layer<R: Read + Send>(
        &self,
        at: usize,
        open: impl FnMut(u64) -> io::Result<R> + Send,
        progress: impl FnMut(u64) + Send,
    ) -> Result<()> {
        let outcome = self.parts.noting(self.obtain(at, open, progress));
        self.assembly.settle(at, outcome)
    }

    fn obtain<R: Read + Send>(
        &self,
        at: usize,
        mut open: impl FnMut(u64) -> io::Result<R> + Send,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Pin> {
        let (Some(chain), Some(remote), Some(diff_id)) =
            (self.assembly.chain(at), self.remote(at), self.diff_ids.get(at))
        else {
            return Err(Error::Invalid(format!("the image has no layer {at}")));
        };
        let mut kept = None;
        let mut pin = self.shared.layers.obtain(chain, || {
            let ingest = self.shared.ingests.begin(&remote.digest)?;
            let made = self.bring(at, remote, diff_id, &ingest, &mut open, &mut progress)?;
            kept = Some((ingest, made.compression));
            Ok((made.staging, made.layer))
        })?;
        if let Some((ingest, compression)) = kept {
            // A plain tar is not kept: it can be made from the layer. Nor is a blob that no image has.
            if let Some(compression) = compression.filter(|_| self.image.is_some()) {
                pin.layer.blob = Some(layer_blob(&remote.digest, remote.size, &remote.media_type, compression));
            }
            let arrived = Arrived {
                ingest,
                digest: remote.digest.clone(),
                keep: compression.is_some(),
            };
            self.arrived
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(arrived);
        }
        Ok(pin)
    }

    fn bring<R: Read + Send>(
        &self,
        at: usize,
        remote: &Remote,
        diff_id: &Digest,
        ingest: &Ingest,
        open: &mut (impl FnMut(u64) -> io::Result<R> + Send),
        progress: &mut (impl FnMut(u64) + Send),
    ) -> Result<Made> {
        let (file, have) = ingest.open(remote.size)?;
        let wrong = match self.unpack(at, remote, diff_id, ingest, file, have, open, progress) {
            Ok(made) => return Ok(made),
            Err(Failed::Source(error)) => return Err(error),
            Err(Failed::Content(error)) => error,
        };
        ingest.discard()?;
        if have == 0 {
            return Err(wrong);
        }
        // What had come before may have been damaged, by a power cut for instance.
        let (file, _) = ingest.open(remote.size)?;
        match self.unpack(at, remote, diff_id, ingest, file, 0, open, progress) {
            Ok(made) => Ok(made),
            Err(Failed::Source(error)) => Err(error),
            Err(Failed::Content(error)) => {
                ingest.discard()?;
                Err(error)
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one step, named by its two callers"
    )]
    fn unpack<R: Read + Send>(
        &self,
        at: usize,
        remote: &Remote,
        diff_id: &Digest,
        ingest: &Ingest,
        file: File,
        have: u64,
        open: &mut (impl FnMut(u64) -> io::Result<R> + Send),
        progress: &mut (impl FnMut(u64) + Send),
    ) -> std::result::Result<Made, Failed> {
        let name = remote.digest.to_string();
        let from = |source: io::Error| Failed::Source(Error::from_source(&name, ingest.path(), source));
        let arriving = Arriving {
            rest: (have < remote.size).then(|| open(have)).transpose().map_err(from)?,
            file,
            have,
            at: 0,
            size: remote.size,
            progress,
            broken: false,
        };
        let lower = Lower::new(&self.assembly, &self.shared.layers, at);
        let hashed = Hashed::with(arriving, remote.digest.algorithm());
        let (staged, hashed) = piped(hashed, |stream| {
            self.shared.stage(stream, Some(&lower), &self.options, &name)
        });
        let (arriving, digest, size) = hashed.into_parts();
        let staged = staged.map_err(|error| {
            if arriving.broken || error.is_no_space() {
                Failed::Source(error)
            } else {
                Failed::Content(error)
            }
        })?;
        let invalid = |text: String| Failed::Content(Error::Invalid(text));
        if digest != remote.digest || size != remote.size {
            return Err(invalid(format!(
                "the blob {name} is not what its digest says: {size} bytes of {} came, with the digest {digest}",
                remote.size
            )));
        }
        if staged.diff_id != *diff_id {
            return Err(invalid(format!(
                "invalid diffID for layer {at}: expected {:?}, got {:?}",
                diff_id.to_string(),
                staged.diff_id.to_string(),
            )));
        }
        Ok(Made {
            layer: Layer {
                chain_id: self.assembly.chain(at).cloned().unwrap_or_else(|| diff_id.clone()),
                diff_id: staged.diff_id,
                parent: self.assembly.parent(at),
                size: staged.applied.bytes,
                tar_size: Some(staged.tar_size),
                opaque: staged.applied.opaque_root,
                blob: None,
            },
            staging: staged.staging,
            compression: staged.compression,
        })
    }

    /// Records the image, once every layer is there. Blocks, but not for the disk: a power cut before everything is on it takes
    /// the image away again.
    pub fn finish(mut self) -> Result<Loaded> {
        let image = self.image.take();
        let image = image.ok_or_else(|| Error::Invalid("layers alone are no image".to_owned()))?;
        let staging = self.parts.noting(Staging::new(&self.shared.layout))?;
        let write = |name: &str, bytes: &[u8]| -> Result<NewBlob> {
            let path: PathBuf = staging.path.join(name);
            self.parts.noting(std::fs::write(&path, bytes).at("write", &path))?;
            Ok(NewBlob {
                digest: Digest::of(bytes),
                path,
            })
        };
        let manifest = write("manifest", &image.manifest)?;
        let mut blobs = vec![write("config", &image.raw_config)?, manifest.clone()];
        let arrived = self.arrived.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Blobs of other algorithms have no place in the store yet.
        let kept = arrived.iter().filter(|blob| blob.keep && is_sha256(&blob.digest));
        blobs.extend(kept.map(|blob| NewBlob {
            digest: blob.digest.clone(),
            path: blob.ingest.path.clone(),
        }));
        let gathered = self.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (origin, along) = origin::origin(&gathered);
        blobs.extend(along);
        let image = NewImage {
            raw_config: image.raw_config,
            config: image.config,
            pins: self.assembly.finish()?,
            manifest: Some(manifest.digest),
            origin,
            parent: None,
            references: image.references,
        };
        let recorded = self.shared.record(&[image], &blobs, Durability::Process);
        let loaded = self.parts.noting(recorded)?;
        for blob in &arrived {
            // A link, or a tar that is not kept; what stays is collected.
            let _ = blob.ingest.discard();
        }
        loaded
            .into_iter()
            .next()
            .ok_or_else(|| Error::Invalid("the image was removed while it was pulled".to_owned()))
    }

    /// The layers, lowest first, once every one is there. How those that came have travelled is noted. Blocks for the database.
    pub fn held(self) -> Result<Vec<Held>> {
        let mut batch = Batch::default();
        let arrived = self.arrived.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (diff_id, remote) in self.diff_ids.iter().zip(self.layers) {
            let Some(remote) = remote else { continue };
            if arrived.iter().any(|blob| blob.digest == remote.digest) {
                batch.put(&Packed::new(diff_id, remote))?;
            }
        }
        if !batch.is_empty() {
            self.shared.db.commit_blocking(batch, Durability::Process)?;
        }
        for blob in &arrived {
            // What stays is collected.
            let _ = blob.ingest.discard();
        }
        Ok(self.assembly.finish()?.into_iter().map(Held::from).collect())
    }
}

struct Made {
    staging: Staging,
    layer: Layer,
    compression: Option<&'static str>,
}

/// Why a layer did not become one.
enum Failed {
    /// The bytes did not come, or had no room: what has come stays for the next time.
    Source(Error),
    /// They are wrong.
    Content(Error),
}

/// A blob's bytes: those in the file, then those that come, which are put into the file.
struct Arriving<'a, R, P> {
    file: File,
    have: u64,
    rest: Option<R>,
    at: u64,
    size: u64,
    progress: &'a mut P,
    /// The source, or the file, failed.
    broken: bool,
}

impl<R: Read, P: FnMut(u64)> Arriving<'_, R, P> {
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at < self.have {
            let limit = usize::try_from(self.have - self.at)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = rustix::io::pread(&self.file, &mut buffer[..limit], self.at)?;
            return match count {
                0 => Err(io::Error::other("a part of the blob was cut off meanwhile")),
                count => Ok(count),
            };
        }
        let Some(rest) = &mut self.rest else { return Ok(0) };
        let limit = usize::try_from(self.size - self.at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = rest.read(&mut buffer[..limit])?;
        if count == 0 {
            let text = format!("the connection ended after {} of {} bytes", self.at, self.size);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.file.write_all(&buffer[..count])?;
        Ok(count)
    }
}

impl<R: Read, P: FnMut(u64)> Read for Arriving<'_, R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.next(buffer) {
            Ok(count) => {
                self.at += count as u64;
                (self.progress)(self.at);
                Ok(count)
            }
            Err(error) => {
                self.broken |= error.kind() != io::ErrorKind::Interrupted;
                Err(error)
            }
        }
    }
}

impl Error {
    /// A failure to get at a blob's bytes.
    pub(crate) fn from_source(what: &str, path: &std::path::Path, source: io::Error) -> Self {
        Self::archive(what, path, ferry_archive::Error::Read { source })
    }
}
