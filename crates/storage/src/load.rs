//! `docker load`: images out of an archive, in Docker's own format or as an OCI image layout.
//!
//! ```text
//! stream ─ decompress ─▶ spool (every file into tmp/, hashed on the way, in whichever order they come)
//!        ─▶ docker::plan or oci::plan (what images, which file is which; all digests and sizes verified)
//!        ─▶ unpack what is not there yet ─▶ Shared::record (one commit)
//! ```
//!
//! The spool goes with everything in it when the load ends, however it ends; layers that were unpacked for a load that
//! failed go with their pins. Nothing can be seen before the commit.

mod docker;
mod oci;
mod spool;
mod unpack;

use std::io::Read;
use std::sync::atomic::Ordering;

use ferry_archive::{Limits, decompress};
use ferry_image::{Digest, Platform, Reference, chain_ids};
use oci_spec::image::ImageConfiguration;

use crate::db::Durability;
use crate::images::{Images, Loaded, NewBlob, NewImage, layer_blob};
use crate::layers::Pin;
use crate::origin::Origin;
use crate::stream::{Bounded, Counted, Expansion, piped};
use crate::{Error, Result};
use spool::{Spool, Spooled};
use unpack::Source;

/// Bounds and choices of a load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Which image of a multi-platform index to take. Defaults to what this machine runs.
    pub platform: Option<Platform>,
    /// How far any compressed stream may expand.
    pub expansion: Expansion,
    /// What a layer may hold.
    pub limits: Limits,
}

/// How far a load has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the archive received.
    Received { bytes: u64 },
    /// A layer that is not there yet, by its diff id: bytes unpacked of all.
    Unpacking { layer: Digest, current: u64, total: u64 },
}

/// An image found in an archive.
struct Planned {
    raw_config: Vec<u8>,
    config: ImageConfiguration,
    /// Lowest first. A layer's file may be missing if the layer itself is not.
    layers: Vec<PlannedLayer>,
    /// A manifest and its bytes.
    manifest: Option<(Digest, Spooled)>,
    /// The index, and the files of all that came along.
    origin: Option<(Origin, Vec<Spooled>)>,
    /// The image it was made from, if that is in the archive.
    parent: Option<Digest>,
    references: Vec<Reference>,
}

struct PlannedLayer {
    diff_id: Digest,
    file: Option<Spooled>,
    name: String,
    media_type: Option<String>,
}

impl Images {
    /// Reads an archive, compressed or not, to its end and adds all its images. Blocks.
    ///
    /// Every digest and size in it is verified. On failure nothing is left behind: [`Error::Invalid`] or
    /// [`Error::Archive`] for an archive that is wrong, [`Error::NoSpace`] for a full disk.
    pub fn load(
        &self,
        stream: impl Read + Send,
        options: &LoadOptions,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Vec<Loaded>> {
        let shared = &self.shared;
        let wrong = |source| Error::archive("the archive", &shared.layout.root, source);
        let (counted, count) = Counted::new(stream);
        let decoder = decompress(counted).map_err(wrong)?;
        let bounded = Bounded::new(decoder, count.clone(), options.expansion);
        let (spool, _) = piped(bounded, |stream| {
            Spool::fill(&shared.layout, stream, |_| {
                progress(Progress::Received {
                    bytes: count.load(Ordering::Relaxed),
                });
            })
        });
        let spool = spool?;
        let planned = if spool.has("manifest.json") {
            docker::plan(&spool)?
        } else if spool.has("index.json") {
            oci::plan(&spool, options.platform.as_ref())?
        } else {
            return Err(Error::Invalid(
                "the archive holds neither manifest.json nor index.json: it is no image archive".to_owned(),
            ));
        };
        let mut images = Vec::new();
        let mut blobs = Vec::new();
        for planned in planned {
            images.push(self.build(&spool, planned, options, &mut blobs, &mut progress)?);
        }
        shared.record(&images, &blobs, Durability::Process)
    }

    fn build(
        &self,
        spool: &Spool,
        planned: Planned,
        options: &LoadOptions,
        blobs: &mut Vec<NewBlob>,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<NewImage> {
        let mut pins: Vec<Pin> = Vec::new();
        let diff_ids: Vec<Digest> = planned.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        for (layer, chain) in planned.layers.into_iter().zip(chain_ids(&diff_ids)) {
            let mut source = Source {
                below: &pins,
                layer: &layer,
                chain: &chain,
                options,
                progress,
            };
            let mut pin = self.shared.layers.obtain(&chain, || self.shared.unpack(&mut source))?;
            if let (Some(file), Some(media_type)) = (&layer.file, &layer.media_type)
                && let Some(compression) = file.compression()?
            {
                // Kept for pushing exactly these bytes again. A plain tar is not: it can be made from the layer.
                if pin.layer.blob.is_none() {
                    pin.layer.blob = Some(layer_blob(&file.digest, file.size, media_type, compression));
                }
                if pin.layer.blob.as_ref().is_some_and(|blob| blob.digest == file.digest) {
                    blobs.push(NewBlob {
                        digest: file.digest.clone(),
                        path: file.path.clone(),
                    });
                }
            }
            pins.push(pin);
        }
        let digest = Digest::of(&planned.raw_config);
        blobs.push(NewBlob {
            digest: digest.clone(),
            path: spool.write(&planned.raw_config)?,
        });
        if let Some((digest, file)) = &planned.manifest {
            blobs.push(NewBlob {
                digest: digest.clone(),
                path: file.path.clone(),
            });
        }
        let origin = planned.origin.map(|(origin, files)| {
            blobs.extend(files.into_iter().map(|file| NewBlob {
                digest: file.digest,
                path: file.path,
            }));
            origin
        });
        Ok(NewImage {
            raw_config: planned.raw_config,
            config: planned.config,
            pins,
            manifest: planned.manifest.map(|(digest, _)| digest),
            origin,
            parent: planned.parent,
            references: planned.references,
        })
    }
}
