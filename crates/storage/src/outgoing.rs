//! Layers on their way to a registry: the blob as it came, or one that is made of the layer.
//!
//! A blob that was made is the same every time, and what it was is remembered, so that a registry can be asked for it without
//! it being made again. It is not kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use ferry_image::Digest;
use ferry_image::media::{self, Compression, Kind};
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::db::{Batch, Document, Durability};
use crate::error::Context as _;
use crate::hashing::Hashing;
use crate::images::Images;
use crate::layers::{Layer, Pin};
use crate::layout::Staging;
use crate::pull::Remote;
use crate::{Error, Result};

/// As much work as pays: the next levels take twice the time for one hundredth of the size.
const LEVEL: u32 = 5;
/// Bytes that are written at once.
const PIECE: usize = 256 << 10;

/// How a layer travels: what a manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Travelling {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
}

/// What a layer was packed to, under its diff id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Packed {
    pub key: String,
    pub blob: Travelling,
}

/// How a layer is to be packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// By default gzip, if anything has to be packed at all.
    pub compression: Option<Compression>,
    pub level: Option<i32>,
    /// Also a layer that is packed otherwise already.
    pub force: bool,
}

impl Packing {
    /// Under which a layer that is packed so is noted.
    fn key(&self, diff_id: &Digest) -> String {
        match (self.compression, self.level) {
            (None | Some(Compression::Gzip), None) => diff_id.to_string(),
            (compression, level) => format!("{diff_id} {compression:?} {}", level.unwrap_or(-1)),
        }
    }

    /// Whether a blob that is there will do.
    fn takes(&self, media_type: &str) -> bool {
        let packed = match Kind::of(media_type) {
            Kind::Layer { compression, .. } => Some(compression),
            _ => None,
        };
        !self.force || (packed == Some(self.compression.unwrap_or(Compression::Gzip)) && self.level.is_none())
    }
}

impl Packed {
    /// A layer's blob as it came.
    pub fn new(diff_id: &Digest, remote: Remote) -> Self {
        Self {
            key: diff_id.to_string(),
            blob: Travelling {
                digest: remote.digest,
                size: remote.size,
                media_type: remote.media_type,
            },
        }
    }
}

impl Document for Packed {
    const KIND: &'static str = "packed";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

/// A layer's blob, ready to be sent. It stays readable until this is dropped, whatever is removed.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub blob: Travelling,
    file: Arc<File>,
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    _layer: Pin,
    _made: Option<Staging>,
}

impl Outgoing {
    /// The bytes from an offset on.
    pub fn open(&self, offset: u64) -> impl Read + Send + use<> {
        At {
            file: Arc::clone(&self.file),
            offset,
        }
    }
}

struct At {
    file: Arc<File>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl Images {
    /// What is known of how the layers travel, without reading one. Blocks for the database.
    pub fn travelling(&self, layers: &[Layer], packing: Packing) -> Result<Vec<Option<Travelling>>> {
        let packed = self.shared.db.all_blocking::<Packed>()?;
        let noted = |key: String| packed.iter().find(|packed| packed.key == key);
        let known = |layer: &Layer| match &layer.blob {
            Some(blob) if self.shared.layout.blob(&blob.digest).exists() && packing.takes(&blob.media_type) => {
                Some(Travelling {
                    digest: blob.digest.clone(),
                    size: blob.size,
                    media_type: blob.media_type.clone(),
                })
            }
            _ => {
                let asked = noted(packing.key(&layer.diff_id));
                let usual = || noted(layer.diff_id.to_string()).filter(|packed| packing.takes(&packed.blob.media_type));
                asked.or_else(usual).map(|packed| packed.blob.clone())
            }
        };
        Ok(layers.iter().map(known).collect())
    }

    /// A layer's blob: as it came, or made of the layer. Blocks.
    ///
    /// Fails with [`Error::NotFound`] if the layer was removed meanwhile, with [`Error::Archive`] or [`Error::Invalid`] where its
    /// files are not what they were.
    pub fn outgoing(&self, layer: &Layer, packing: Packing) -> Result<Outgoing> {
        let pin = self.shared.layers.get(&layer.chain_id).ok_or_else(|| Error::NotFound {
            reference: layer.chain_id.to_string(),
        })?;
        if let Some(blob) = pin.layer.blob.as_ref().filter(|blob| packing.takes(&blob.media_type)) {
            let path = self.shared.layout.blob(&blob.digest);
            match File::open(&path) {
                Ok(file) => {
                    return Ok(Outgoing {
                        blob: Travelling {
                            digest: blob.digest.clone(),
                            size: blob.size,
                            media_type: blob.media_type.clone(),
                        },
                        file: Arc::new(file),
                        _held: Arc::new(Held {
                            _layer: pin,
                            _made: None,
                        }),
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("open", &path),
            }
        }
        self.pack(pin, packing)
    }

    fn pack(&self, pin: Pin, packing: Packing) -> Result<Outgoing> {
        let staging = Staging::new(&self.shared.layout)?;
        let path = staging.path.join("blob");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .at("make", &path)?;
        let mut sink = Hashing::new(io::BufWriter::with_capacity(PIECE, &file));
        let level = packing.level.and_then(|level| u32::try_from(level).ok());
        let media_type = match packing.compression.unwrap_or(Compression::Gzip) {
            Compression::Gzip => {
                // No name and no time in the head: the same tar gives the same blob.
                let mut encoder = GzEncoder::new(sink, flate2::Compression::new(level.unwrap_or(LEVEL)));
                self.shared.tar_of(&pin.layer, &mut encoder)?;
                sink = encoder.finish().at("write", &path)?;
                media::DOCKER_LAYER_GZIP
            }
            Compression::Zstd => {
                let encoder = zstd::Encoder::new(sink, packing.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL));
                let mut encoder = encoder.at("write", &path)?;
                self.shared.tar_of(&pin.layer, &mut encoder)?;
                sink = encoder.finish().at("write", &path)?;
                media::OCI_LAYER_ZSTD
            }
            Compression::None => {
                self.shared.tar_of(&pin.layer, &mut sink)?;
                media::DOCKER_LAYER
            }
        };
        let (digest, size) = sink.finish().at("write", &path)?;
        let blob = Travelling {
            digest,
            size,
            media_type: media_type.to_owned(),
        };
        let mut batch = Batch::default();
        batch.put(&Packed {
            key: packing.key(&pin.layer.diff_id),
            blob: blob.clone(),
        })?;
        self.shared.db.commit_blocking(batch, Durability::Process)?;
        Ok(Outgoing {
            blob,
            file: Arc::new(file),
            _held: Arc::new(Held {
                _layer: pin,
                _made: Some(staging),
            }),
        })
    }
}
