//! A layer's tar becomes `layers/<chain id>/fs`.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ferry_archive::{Applied, ApplyOptions, Below, Compression, Recorder, apply, decompress};
use ferry_image::{Digest, chain_id};
use ferry_sys::Root;

use super::{LoadOptions, PlannedLayer, Progress};
use crate::error::Context as _;
use crate::layers::{Layer, Pin};
use crate::layout::Staging;
use crate::store::Shared;
use crate::stream::{Bounded, Counted, Hashed, piped};
use crate::{Error, Result};

/// A layer to unpack and what it lies on.
pub struct Source<'a, P> {
    /// Lowest first.
    pub below: &'a [Pin],
    pub layer: &'a PlannedLayer,
    pub chain: &'a Digest,
    pub options: &'a LoadOptions,
    pub progress: &'a mut P,
}

/// A layer that was unpacked, not in its place yet.
pub struct Staged {
    pub staging: Staging,
    /// Of the uncompressed bytes.
    pub diff_id: Digest,
    pub applied: Applied,
    /// Uncompressed bytes.
    pub tar_size: u64,
    /// What the stream was compressed with.
    pub compression: Option<&'static str>,
}

/// Bytes between two reports of progress.
const STEP: u64 = 1 << 20;

impl Shared {
    pub(super) fn unpack<P: FnMut(Progress) + Send>(&self, source: &mut Source<'_, P>) -> Result<(Staging, Layer)> {
        let Source {
            layer, chain, options, ..
        } = *source;
        let missing = || Error::Invalid(format!("the archive lacks the layer {}", layer.name));
        let spooled = layer.file.as_ref().ok_or_else(missing)?;
        let file = File::open(&spooled.path).at("open", &spooled.path)?;
        let mut current = 0;
        let progress = &mut *source.progress;
        let watched = Watched {
            inner: file,
            seen: |count| {
                let step = current / STEP;
                current += count;
                if current / STEP != step || count == 0 {
                    progress(Progress::Unpacking {
                        layer: layer.diff_id.clone(),
                        current,
                        total: spooled.size,
                    });
                }
            },
        };
        let lower = self.roots(source.below)?;
        let Staged {
            staging,
            diff_id,
            applied,
            tar_size,
            ..
        } = self.stage(watched, Some(&lower), options, &layer.name)?;
        if diff_id != layer.diff_id {
            return Err(Error::Invalid(format!(
                "invalid diffID for layer {}: expected {:?}, got {:?}",
                source.below.len(),
                layer.diff_id.to_string(),
                diff_id.to_string(),
            )));
        }
        let layer = Layer {
            chain_id: chain.clone(),
            diff_id,
            parent: source.below.last().map(|pin| pin.layer.chain_id.clone()),
            size: applied.bytes,
            tar_size: Some(tar_size),
            opaque: applied.opaque_root,
            blob: None,
        };
        Ok((staging, layer))
    }

    /// A stream becomes a layer on top of others, which may be there already.
    pub fn unpack_stream(&self, stream: impl Read + Send, below: &[Pin], options: &LoadOptions) -> Result<Pin> {
        let Staged {
            staging,
            diff_id,
            applied,
            tar_size,
            ..
        } = self.stage(stream, Some(&self.roots(below)?), options, "the archive")?;
        let parent = below.last().map(|pin| pin.layer.chain_id.clone());
        let mut diff_ids: Vec<_> = below.iter().map(|pin| pin.layer.diff_id.clone()).collect();
        diff_ids.push(diff_id.clone());
        let layer = Layer {
            chain_id: chain_id(&diff_ids).unwrap_or_else(|| diff_id.clone()),
            diff_id,
            parent,
            size: applied.bytes,
            tar_size: Some(tar_size),
            opaque: applied.opaque_root,
            blob: None,
        };
        self.layers.obtain(&layer.chain_id.clone(), || Ok((staging, layer)))
    }

    /// The trees of layers, topmost first.
    pub fn roots(&self, layers: &[Pin]) -> Result<Vec<Root>> {
        let paths = layers.iter().rev().map(|pin| self.layers.path(&pin.layer.chain_id));
        paths.map(|path| Root::open(&path).at("open", &path)).collect()
    }

    /// Unpacks into `fs/` in a new staging directory, with the recipe by which [`save`](crate::save) makes the very same tar
    /// again beside it.
    pub fn stage(
        &self,
        stream: impl Read + Send,
        lower: Option<&dyn Below>,
        options: &LoadOptions,
        what: &str,
    ) -> Result<Staged> {
        let staging = Staging::new(&self.layout)?;
        let path = staging.path.join("fs");
        std::fs::create_dir(&path).at("make the directory", &path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).at("change the mode of", &path)?;
        let root = Root::open(&path).at("open", &path)?;
        let wrong = |source| Error::archive(what, Path::new(&path), source);
        let (counted, count) = Counted::new(stream);
        let decoder = decompress(counted).map_err(wrong)?;
        let compression = match decoder.compression() {
            Compression::None => None,
            compression => Some(compression.name()),
        };
        let hashed = Hashed::new(Bounded::new(decoder, count, options.expansion));
        let (applied, hashed) = piped(hashed, |stream| {
            let recorder = Recorder::create(&staging.path, &root).at("write the recipe in", &staging.path)?;
            let apply_options = ApplyOptions {
                limits: options.limits.clone(),
                lower,
                recorder: Some(recorder.clone()),
                ..ApplyOptions::default()
            };
            let applied = apply(recorder.watch(stream), &root, &apply_options).map_err(wrong)?;
            recorder.finish().at("write the recipe in", &staging.path)?;
            Ok::<_, Error>(applied)
        });
        let applied = applied?;
        let (diff_id, tar_size) = hashed.finish();
        Ok(Staged {
            staging,
            diff_id,
            applied,
            compression,
            tar_size,
        })
    }
}

struct Watched<R, F> {
    inner: R,
    seen: F,
}

impl<R: Read, F: FnMut(u64)> Read for Watched<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.seen)(count as u64);
        Ok(count)
    }
}
