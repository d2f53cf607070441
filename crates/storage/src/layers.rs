//! Unpacked layers, shared read-only by images and containers: `layers/<hex of chain id>/fs`.
//!
//! ```text
//!            obtain (one builds, the others wait)             commit             nobody needs it
//! unknown ──────────────────────────────────────▶ present ───────────▶ stored ──────────────────▶ going ──▶ unknown
//!                                                 │ last pin dropped before the commit: removed
//! ```
//!
//! A [`Pin`] keeps a layer from being removed. A layer is stored once an image that was committed needs it; its record is
//! written with that image. A directory without a record is left over from a crash and swept at the next start.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ferry_image::Digest;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::db::Document;
use crate::layout::{Layout, Staging};
use crate::reaper::Reaper;

/// How a layer travels: the compressed bytes as they came, kept for pushing exactly the same again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub media_type: String,
    /// `gzip` or `zstd`.
    pub compression: String,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Identity of this layer on top of those below (OCI image specification, "Layer ChainID").
    pub chain_id: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    pub parent: Option<Digest>,
    /// Bytes of its files as Docker counts them.
    pub size: u64,
    /// Bytes of the uncompressed tar; `None` where an older Ferry did not write it down.
    #[serde(default)]
    pub tar_size: Option<u64>,
    /// Hides all layers below.
    #[serde(default)]
    pub opaque: bool,
    pub blob: Option<Blob>,
}

/// The stored form of [`Layer`], under its chain id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub key: String,
    pub layer: Layer,
}

impl Document for Record {
    const KIND: &'static str = "layer";
    const VERSION: u32 = 1;

    fn key(&self) -> &str {
        &self.key
    }
}

impl From<Layer> for Record {
    fn from(layer: Layer) -> Self {
        Self {
            key: layer.chain_id.to_string(),
            layer,
        }
    }
}

impl Pin {
    /// Where its files are.
    pub fn path(&self) -> PathBuf {
        self.layers.path(&self.layer.chain_id)
    }
}

#[derive(Debug)]
enum Known {
    Building,
    Present { layer: Layer, pins: usize, stored: bool },
    Going,
}

#[derive(Debug)]
pub(crate) struct Layers {
    layout: Layout,
    reaper: Reaper,
    known: Mutex<HashMap<Digest, Known>>,
    changed: Condvar,
}

/// A layer in use.
#[derive(Debug)]
pub(crate) struct Pin {
    layers: Arc<Layers>,
    pub layer: Layer,
    /// Whether this very call unpacked it.
    pub new: bool,
}

impl Layers {
    pub fn new(layout: Layout, reaper: Reaper, stored: Vec<Layer>) -> Self {
        let present = |layer: Layer| {
            (
                layer.chain_id.clone(),
                Known::Present {
                    layer,
                    pins: 0,
                    stored: true,
                },
            )
        };
        Self {
            layout,
            reaper,
            known: Mutex::new(stored.into_iter().map(present).collect()),
            changed: Condvar::new(),
        }
    }

    pub fn path(&self, chain: &Digest) -> PathBuf {
        self.layout.layer(chain).join("fs")
    }

    /// The layer if it is there, pinned.
    pub fn get(self: &Arc<Self>, chain: &Digest) -> Option<Pin> {
        match self.lock().get_mut(chain) {
            Some(Known::Present { layer, pins, .. }) => {
                *pins += 1;
                Some(Pin {
                    layers: Arc::clone(self),
                    layer: layer.clone(),
                    new: false,
                })
            }
            _ => None,
        }
    }

    /// The layer, pinned; `build` unpacks it (`fs/` in a staging directory) if it is not there. Blocks while another one builds it.
    pub fn obtain(self: &Arc<Self>, chain: &Digest, build: impl FnOnce() -> Result<(Staging, Layer)>) -> Result<Pin> {
        let mut known = self.lock();
        loop {
            match known.get_mut(chain) {
                Some(Known::Present { layer, pins, .. }) => {
                    *pins += 1;
                    return Ok(Pin {
                        layers: Arc::clone(self),
                        layer: layer.clone(),
                        new: false,
                    });
                }
                Some(Known::Building | Known::Going) => {
                    known = self.changed.wait(known).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        known.insert(chain.clone(), Known::Building);
        drop(known);
        let guard = Building { layers: self, chain };
        let (staging, layer) = build()?;
        let path = self.layout.layer(chain);
        // A directory without a record can only be the rest of a removal that failed.
        self.reaper.remove(&path)?;
        crate::error::Context::at(std::fs::rename(&staging.path, &path), "move the layer to", &path)?;
        self.lock().insert(
            chain.clone(),
            Known::Present {
                layer: layer.clone(),
                pins: 1,
                stored: false,
            },
        );
        drop(guard);
        Ok(Pin {
            layers: Arc::clone(self),
            layer,
            new: true,
        })
    }

    /// Every layer that is there, or is coming or going.
    pub fn all(&self) -> Vec<Digest> {
        self.lock().keys().cloned().collect()
    }

    /// Notes that the records of these layers are in the database.
    pub fn stored<'a>(&self, layers: impl Iterator<Item = &'a Layer>) {
        let mut known = self.lock();
        for new in layers {
            if let Some(Known::Present { stored, layer, .. }) = known.get_mut(&new.chain_id) {
                *stored = true;
                *layer = new.clone();
            }
        }
    }

    /// Takes out the stored layers that are neither in `needed` nor pinned. Nobody gets them from now on; the caller
    /// deletes their records and then calls [`gone`](Self::gone), or [`keep`](Self::keep) if that failed.
    pub fn take(&self, candidates: &[Digest], needed: &HashSet<Digest>) -> Vec<Layer> {
        let mut known = self.lock();
        let mut taken = Vec::new();
        for chain in candidates {
            if needed.contains(chain) {
                continue;
            }
            if let Some(Known::Present { layer, pins: 0, .. }) = known.get(chain) {
                taken.push(layer.clone());
                known.insert(chain.clone(), Known::Going);
            }
        }
        taken
    }

    pub fn keep(&self, taken: Vec<Layer>) {
        let mut known = self.lock();
        for layer in taken {
            known.insert(
                layer.chain_id.clone(),
                Known::Present {
                    layer,
                    pins: 0,
                    stored: true,
                },
            );
        }
        self.changed.notify_all();
    }

    pub fn gone(&self, taken: &[Layer]) {
        for layer in taken {
            // What stays is swept at the next start.
            let _ = self.reaper.remove(&self.layout.layer(&layer.chain_id));
        }
        let mut known = self.lock();
        for layer in taken {
            known.remove(&layer.chain_id);
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut known = self.layers.lock();
        let Some(Known::Present { pins, stored, .. }) = known.get_mut(&self.layer.chain_id) else {
            return;
        };
        *pins -= 1;
        if *pins == 0 && !*stored {
            known.insert(self.layer.chain_id.clone(), Known::Going);
            drop(known);
            self.layers.gone(std::slice::from_ref(&self.layer));
        }
    }
}

/// Ends the state `Building`, however the building ended.
struct Building<'a> {
    layers: &'a Layers,
    chain: &'a Digest,
}

impl Drop for Building<'_> {
    fn drop(&mut self) {
        let mut known = self.layers.lock();
        if matches!(known.get(self.chain), Some(Known::Building)) {
            known.remove(self.chain);
        }
        self.layers.changed.notify_all();
    }
}
