//! Layers on their way to a registry: the blob as it came, or one that is made of the layer.
//!
//! A blob that was made is the same every time, and what it was is remembered, so that a registry can be asked for it without
//! it being made again. It is not kept.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use ferry_image::{Digest, media};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::db::{Batch, Document, Durability};
use crate::error::Context as _;
use crate::images::{Image, Images};
use crate::layers::{Layer, Pin};
use crate::layout::Staging;
use crate::remake::Hashing;
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
    pub fn travelling(&self, image: &Image) -> Result<Vec<Option<Travelling>>> {
        let packed = self.shared.db.all_blocking::<Packed>()?;
        let known = |layer: &Layer| match &layer.blob {
            Some(blob) if self.shared.layout.blob(&blob.digest).exists() => Some(Travelling {
                digest: blob.digest.clone(),
                size: blob.size,
                media_type: blob.media_type.clone(),
            }),
            _ => {
                let key = layer.diff_id.to_string();
                let packed = packed.iter().find(|packed| packed.key == key);
                packed.map(|packed| packed.blob.clone())
            }
        };
        Ok(image.layers.iter().map(known).collect())
    }

    /// A layer's blob: as it came, or made of the layer. Blocks.
    ///
    /// Fails with [`Error::NotFound`] if the layer was removed meanwhile, with [`Error::Archive`] or [`Error::Invalid`] where its
    /// files are not what they were.
    pub fn outgoing(&self, layer: &Layer) -> Result<Outgoing> {
        let pin = self.shared.layers.get(&layer.chain_id).ok_or_else(|| Error::NotFound {
            reference: layer.chain_id.to_string(),
        })?;
        if let Some(blob) = &pin.layer.blob {
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
        self.pack(pin)
    }

    fn pack(&self, pin: Pin) -> Result<Outgoing> {
        let staging = Staging::new(&self.shared.layout)?;
        let path = staging.path.join("blob");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .at("make", &path)?;
        // No name and no time in the head: the same tar gives the same blob.
        let sink = Hashing::new(io::BufWriter::with_capacity(PIECE, &file));
        let mut encoder = GzEncoder::new(sink, Compression::new(LEVEL));
        self.shared.tar_of(&pin.layer, &mut encoder)?;
        let sink = encoder.finish().at("write", &path)?;
        let (digest, size) = sink.finish().at("write", &path)?;
        let blob = Travelling {
            digest,
            size,
            media_type: media::DOCKER_LAYER_GZIP.to_owned(),
        };
        let mut batch = Batch::default();
        batch.put(&Packed {
            key: pin.layer.diff_id.to_string(),
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
