//! A layer's tar once more: of the blob it came as, or of its files and their recipe.

use std::fs::File;
use std::io::{self, Write};

use ferry_archive::{decompress, rebuild};
use ferry_sys::Root;

use crate::error::Context as _;
use crate::hashing::Hashing;
use crate::layers::Layer;
use crate::store::Shared;
use crate::{Error, Result};

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;

impl Shared {
    /// Writes a layer's tar, and gives its size. Blocks.
    ///
    /// Fails with [`Error::Invalid`] where what came out is not the layer, with [`Error::Archive`] where it cannot be made, or
    /// where `out` fails: then part of it was written.
    pub fn tar_of(&self, layer: &Layer, out: impl Write) -> Result<u64> {
        let mut checked = Hashing::new(out);
        let dir = self.layout.layer(&layer.chain_id);
        let blob = layer.blob.as_ref().map(|blob| self.layout.blob(&blob.digest));
        match blob.map(|path| (File::open(&path), path)) {
            Some((Ok(file), path)) => {
                let what = format!("the blob of the layer {}", layer.diff_id);
                let failed = |source| Error::archive(&what, &path, source);
                let mut decoder = decompress(file).map_err(failed)?;
                copy(&mut decoder, &mut checked).map_err(|source| failed(ferry_archive::Error::Read { source }))?;
            }
            Some((Err(error), path)) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("open", &path),
            _ => self.remake(layer, &mut checked)?,
        }
        let (digest, size) = checked.finish().at("write", &dir)?;
        if digest != layer.diff_id {
            return Err(Error::Invalid(format!(
                "the layer {} comes out as {digest}: its files were changed on disk",
                layer.diff_id
            )));
        }
        Ok(size)
    }

    /// Writes the tar that a layer's files make; whether it is the layer's is for the caller to see. Blocks.
    pub fn remake(&self, layer: &Layer, out: &mut impl Write) -> Result<()> {
        let dir = self.layout.layer(&layer.chain_id);
        if !dir.join("recipe").exists() {
            return Err(Error::Invalid(format!(
                "the layer {} was unpacked by a Ferry that could not make its archive again: load or pull the image once more",
                layer.diff_id
            )));
        }
        let fs = dir.join("fs");
        let root = Root::open(&fs).at("open", &fs)?;
        let what = format!("the layer {}", layer.diff_id);
        rebuild(&dir, &root, out).map_err(|source| Error::archive(&what, &dir, source))
    }
}

/// `io::copy` with pieces larger than its 8 KiB.
fn copy(from: &mut impl io::Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
