//! Manifest lists on their way: `~/.docker/manifests/<list>/<image>`, one file an image, as Docker's command line keeps them.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ferry_api::image::Descriptor;
use ferry_image::media;
use ferry_kit::atomic::{AtomicFile, Durability};
use serde::Deserialize;

use super::text;
use crate::failure::{Failure, Result};

/// Largest file, in bytes: a manifest in base64, and once more as it is.
const FILE_MAX: u64 = 16 << 20;

/// A manifest of a list, and what is said about it there.
#[derive(Clone, Debug)]
pub struct Entry {
    /// With domain, and tag or digest.
    pub reference: String,
    pub descriptor: Descriptor,
    /// Its bytes.
    pub raw: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    #[serde(rename = "Ref")]
    reference: String,
    descriptor: Descriptor,
    #[serde(default)]
    raw: String,
}

impl Entry {
    /// As Docker's `ImageManifest` in JSON.
    pub fn json(&self) -> Result<String> {
        let written = |error: serde_json::Error| Failure::new(error.to_string());
        let key = match self.descriptor.media_type.as_str() {
            media::OCI_MANIFEST => "OCIManifest",
            _ => "SchemaV2Manifest",
        };
        let manifest = text::compact(&self.raw)
            .ok_or_else(|| Failure::new(format!("the manifest {} is no JSON", self.reference)))?;
        Ok(format!(
            "{{\"Ref\":{},\"Descriptor\":{},\"Raw\":\"{}\",\"{key}\":{manifest}}}",
            serde_json::to_string(&self.reference).map_err(written)?,
            serde_json::to_string(&self.descriptor).map_err(written)?,
            STANDARD.encode(&self.raw),
        ))
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let wrong = |why: String| Failure::new(format!("{} is no manifest of a list: {why}", path.display()));
        let kept: Kept = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let raw = STANDARD.decode(&kept.raw).map_err(|error| wrong(error.to_string()))?;
        if ferry_image::Digest::of(&raw).to_string() != kept.descriptor.digest {
            return Err(wrong("its bytes have another digest".to_owned()));
        }
        Ok(Self {
            reference: kept.reference,
            descriptor: kept.descriptor,
            raw,
        })
    }
}

/// The lists of one user.
#[derive(Debug)]
pub struct Lists {
    root: PathBuf,
}

impl Lists {
    pub fn new(config_directory: &Path) -> Self {
        Self {
            root: config_directory.join("manifests"),
        }
    }

    /// In the order of their files' names. `None` when there is no such list.
    pub fn list(&self, list: &str) -> Result<Option<Vec<Entry>>> {
        let dir = self.root.join(file_name(list));
        let mut paths = Vec::new();
        match std::fs::read_dir(&dir) {
            Ok(entries) => {
                for entry in entries {
                    paths.push(entry.map_err(|error| failed("read", &dir, &error))?.path());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &dir, &error)),
        }
        paths.sort();
        let entries = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
        Ok(Some(entries.into_iter().flatten().collect()))
    }

    pub fn get(&self, list: &str, image: &str) -> Result<Option<Entry>> {
        read(&self.root.join(file_name(list)).join(file_name(image)))
    }

    pub fn save(&self, list: &str, image: &str, entry: &Entry) -> Result<()> {
        let dir = self.root.join(file_name(list));
        std::fs::create_dir_all(&dir).map_err(|error| failed("make", &dir, &error))?;
        let path = dir.join(file_name(image));
        let saved = AtomicFile::replace(&path, entry.json()?.as_bytes(), 0o644, Durability::Process);
        saved.map_err(|error| Failure::new(ferry_kit::error::chain(&error)))
    }

    pub fn remove(&self, list: &str) -> Result<()> {
        let dir = self.root.join(file_name(list));
        std::fs::remove_dir_all(&dir).map_err(|error| failed("remove", &dir, &error))
    }
}

fn read(path: &Path) -> Result<Option<Entry>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path, &error)),
    };
    let mut bytes = Vec::new();
    let read = file.take(FILE_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed("read", path, &error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::new(format!(
            "{} has more than {FILE_MAX} bytes",
            path.display()
        )));
    }
    Entry::parse(&bytes, path).map(Some)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!(
        "{what} {}: {}",
        path.display(),
        ferry_kit::error::io_text(error)
    ))
}

/// A reference has no other characters that mean something in a path.
fn file_name(reference: &str) -> String {
    reference.replace(':', "-").replace('/', "_")
}
