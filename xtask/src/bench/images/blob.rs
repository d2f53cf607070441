//! Blobs of an OCI layout, named by their digest. Layers are compressed by `gzip` and hashed by `sha256sum`, which are quicker
//! than anything that is built without optimisation.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::shell;

/// A layer that is in the layout.
pub struct Blob {
    /// Of the compressed bytes, in hexadecimal digits.
    pub digest: String,
    pub diff_id: String,
    pub size: u64,
    pub tar: u64,
    pub entries: u64,
}

/// A layer on its way there: takes the bytes of a tar.
pub struct Compressor {
    gzip: Child,
    hash: Child,
    into_gzip: ChildStdin,
    into_hash: ChildStdin,
    blobs: PathBuf,
    pub bytes: u64,
}

impl Compressor {
    /// `effort` is gzip's level.
    pub fn begin(blobs: &Path, effort: u8) -> Result<Self> {
        let file = File::create(blobs.join("part")).context("create a blob")?;
        let child = |program: &str, args: &[&str], to: Stdio| {
            let mut command = Command::new(program);
            let spawned = command.args(args).stdin(Stdio::piped()).stdout(to).spawn();
            spawned.with_context(|| format!("start {program}"))
        };
        let mut gzip = child("gzip", &["-n", "-c", &format!("-{effort}")], Stdio::from(file))?;
        let mut hash = child("sha256sum", &[], Stdio::piped())?;
        let input = |child: &mut Child| child.stdin.take().ok_or_else(|| anyhow!("a pipe is missing"));
        Ok(Self {
            into_gzip: input(&mut gzip)?,
            into_hash: input(&mut hash)?,
            gzip,
            hash,
            blobs: blobs.to_owned(),
            bytes: 0,
        })
    }

    pub fn finish(mut self, entries: u64) -> Result<Blob> {
        drop((self.into_gzip, self.into_hash));
        if !self.gzip.wait()?.success() {
            bail!("gzip failed");
        }
        let diff_id = sum(&self.hash.wait_with_output()?.stdout)?;
        let size = fs::metadata(self.blobs.join("part"))?.len();
        Ok(Blob {
            digest: name(&self.blobs)?,
            diff_id,
            size,
            tar: self.bytes,
            entries,
        })
    }
}

impl Write for Compressor {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.into_gzip.write_all(data)?;
        self.into_hash.write_all(data)?;
        self.bytes += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digest and length of a document that is a blob from now on.
pub fn document(blobs: &Path, value: &Value) -> Result<(String, u64)> {
    let text = value.to_string();
    fs::write(blobs.join("part"), &text).context("write a blob")?;
    Ok((name(blobs)?, text.len() as u64))
}

/// Gives what is called `part` its name.
fn name(blobs: &Path) -> Result<String> {
    let part = blobs.join("part");
    let digest = sum(shell::output(Command::new("sha256sum").arg(&part))?.as_bytes())?;
    fs::rename(&part, blobs.join(&digest)).context("name a blob")?;
    Ok(digest)
}

/// The sum that `sha256sum` prints.
fn sum(text: &[u8]) -> Result<String> {
    let text = String::from_utf8_lossy(text);
    let word = text.split_whitespace().next().unwrap_or_default();
    if word.len() != 64 {
        bail!("sha256sum says {text:?}");
    }
    Ok(word.to_owned())
}
