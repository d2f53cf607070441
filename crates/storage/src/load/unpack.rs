//! A layer's tar becomes `layers/<chain id>/fs`.

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ferry_archive::{Applied, ApplyOptions, Below, Compression, apply, decompress};
use ferry_image::Digest;
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
    pub diff_id: Digest,
    pub applied: Applied,
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
        let lower: Vec<_> = source
            .below
            .iter()
            .rev()
            .map(|pin| self.layers.path(&pin.layer.chain_id))
            .map(|path| Root::open(&path).at("open", &path))
            .collect::<Result<_>>()?;
        let Staged {
            staging,
            diff_id,
            applied,
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
            opaque: applied.opaque_root,
            blob: None,
        };
        Ok((staging, layer))
    }

    /// A stream becomes a lowest layer, which may be there already.
    pub fn unpack_stream(&self, stream: impl Read + Send, options: &LoadOptions) -> Result<Pin> {
        let Staged {
            staging,
            diff_id,
            applied,
            ..
        } = self.stage(stream, None, options, "the archive")?;
        let chain_id = diff_id.clone();
        let layer = Layer {
            chain_id,
            diff_id,
            parent: None,
            size: applied.bytes,
            opaque: applied.opaque_root,
            blob: None,
        };
        self.layers.obtain(&layer.chain_id.clone(), || Ok((staging, layer)))
    }

    /// Unpacks into `fs/` in a new staging directory; returns the digest of the uncompressed bytes.
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
        let apply_options = ApplyOptions {
            limits: options.limits.clone(),
            lower,
            ..ApplyOptions::default()
        };
        let (applied, hashed) = piped(hashed, |stream| apply(stream, &root, &apply_options));
        let applied = applied.map_err(wrong)?;
        let (diff_id, _) = hashed.finish();
        Ok(Staged {
            staging,
            diff_id,
            applied,
            compression,
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
