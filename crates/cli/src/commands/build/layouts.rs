//! `--cache-from` and `--cache-to`, and caches in directories here: OCI layouts, which the engine asks for and hands over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use ferry_build::cache::{CacheDestination, CacheSource, Layout, Place};
use ferry_build::wire::{Answer, Asked, WRITTEN};
use ferry_image::{Digest, Hasher};
use ferry_kit::{AtomicFile, Durability};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio_util::io::SyncIoBridge;

use crate::commands::Call;
use crate::failure::{Failure, Result, io_text};
use crate::options::mounts;

/// What a layout is called that a result becomes.
const EXPORT: &str = "export";
const LATEST: &str = "latest";
const INDEX: &str = "index.json";
const TAG: &str = "org.opencontainers.image.ref.name";
/// The most bytes of an index.
const INDEX_MAX: u64 = 4 << 20;
/// Bytes that are written at once.
const PIECE: usize = 256 << 10;

/// Caches of a build.
#[derive(Debug, Default)]
pub struct Caches {
    pub from: Vec<CacheSource>,
    pub to: Vec<CacheDestination>,
    /// By the names of their stores.
    pub layouts: BTreeMap<String, Directory>,
}

#[derive(Debug, Clone)]
pub struct Directory {
    pub path: PathBuf,
    /// A cache is written to it.
    is_destination: bool,
}

impl Caches {
    pub fn read(call: &mut Call<'_>) -> Result<Self> {
        let mut caches = Self::default();
        let invalid = |error: ferry_build::Error| Failure::new(error.to_string());
        for text in call.matches.list("cache-from") {
            let source = CacheSource::parse(&mounts::fields(&text).map_err(Failure::new)?).map_err(invalid)?;
            match source {
                CacheSource::Local(layout) => caches.take(call, layout)?,
                source => caches.from.push(source),
            }
        }
        for text in call.matches.list("cache-to") {
            let mut to = CacheDestination::parse(&mounts::fields(&text).map_err(Failure::new)?).map_err(invalid)?;
            if let Place::Local(layout) = &mut to.place {
                caches.add(call, layout)?.is_destination = true;
            }
            caches.to.push(to);
        }
        Ok(caches)
    }

    /// A layout that a context names: `PATH[:TAG][@DIGEST]`.
    pub fn context(&mut self, call: &Call<'_>, text: &str) -> Result<(String, Digest)> {
        let wrong = |why: String| Failure::new(format!("oci-layout reference {text:?} could not be resolved: {why}"));
        let (place, digest) = text
            .split_once('@')
            .map_or((text, None), |(place, digest)| (place, Some(digest)));
        let (path, tag) = place.split_once(':').unwrap_or((place, ""));
        let path = super::request::clean(&call.env.directory.join(path));
        let digest = match digest {
            Some(digest) => digest
                .parse()
                .map_err(|error: ferry_image::Error| wrong(error.to_string()))?,
            None => match tag {
                "" => tagged(&path, LATEST).or_else(|why| only(&path).ok_or(why)),
                tag => tagged(&path, tag),
            }
            .map_err(wrong)?,
        };
        let name = format!("oci:{}", path.display());
        let known = self.layouts.entry(name.clone());
        known.or_insert(Directory {
            path,
            is_destination: false,
        });
        Ok((name, digest))
    }

    /// A layout that a result becomes.
    pub fn result(&mut self, path: &Path) -> Result<()> {
        let directory = Directory {
            path: path.to_owned(),
            is_destination: true,
        };
        match self.layouts.insert(EXPORT.to_owned(), directory) {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                "more than one --output with tar=false is not there yet: copy the directory",
            )),
        }
    }

    /// A source. One that is not there is no reason to fail.
    fn take(&mut self, call: &mut Call<'_>, mut layout: Layout) -> Result<()> {
        let given = layout.path.clone();
        let directory = self.add(call, &mut layout)?.path.clone();
        if layout.digest.is_none() {
            match tagged(&directory, &layout.tag) {
                Ok(digest) => layout.digest = Some(digest),
                Err(why) => {
                    call.ui.error_line(&format!(
                        "WARNING: local cache import at {given} not found due to err: {why}"
                    ));
                    return Ok(());
                }
            }
        }
        self.from.push(CacheSource::Local(layout));
        Ok(())
    }

    fn add(&mut self, call: &Call<'_>, layout: &mut Layout) -> Result<&mut Directory> {
        let path = super::request::clean(&call.env.directory.join(&layout.path));
        let text = path.to_str();
        text.ok_or_else(|| Failure::new(format!("{}: its name is not UTF-8", path.display())))?
            .clone_into(&mut layout.path);
        Ok(self.layouts.entry(layout.store()).or_insert(Directory {
            path,
            is_destination: false,
        }))
    }
}

/// What the index says of a tag.
fn tagged(directory: &Path, tag: &str) -> Result<Digest, String> {
    let index = read_index(directory).map_err(|error| io_text(&error))?;
    let found = entries(&index).find(|entry| is_tagged(entry, tag));
    let digest = found.and_then(|entry| entry["digest"].as_str()?.parse().ok());
    digest.ok_or_else(|| format!("its index names nothing {tag}"))
}

/// Of an index that names one manifest.
fn only(directory: &Path) -> Option<Digest> {
    let index = read_index(directory).ok()?;
    let mut all = entries(&index);
    let first = all.next()?["digest"].as_str()?.parse().ok();
    first.filter(|_| all.next().is_none())
}

fn read_index(directory: &Path) -> io::Result<Value> {
    let mut bytes = Vec::new();
    File::open(directory.join(INDEX))?
        .take(INDEX_MAX)
        .read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

fn entries(index: &Value) -> impl Iterator<Item = &Value> {
    index["manifests"].as_array().into_iter().flatten()
}

fn is_tagged(entry: &Value, tag: &str) -> bool {
    entry["annotations"][TAG] == tag
}

impl Directory {
    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path
            .join("blobs")
            .join(digest.algorithm().name())
            .join(digest.encoded())
    }

    /// What can be answered at once.
    pub fn answer(&self, asked: &Asked) -> Answer {
        match asked {
            Asked::Size(digest) => match fs::metadata(self.blob(digest)) {
                Ok(found) if found.is_file() => Answer::Size(found.len()),
                _ => Answer::Absent,
            },
            Asked::Read { digest, .. } if self.blob(digest).is_file() => Answer::Open,
            Asked::Read { .. } => Answer::Absent,
            Asked::Write { .. } if self.is_destination => Answer::Open,
            Asked::Publish { tag, manifest } if self.is_destination => match self.publish(tag, manifest) {
                Ok(()) => Answer::Open,
                Err(error) => Answer::Failed(format!("write {}: {}", self.path.display(), io_text(&error))),
            },
            Asked::Write { .. } | Asked::Publish { .. } => Answer::Absent,
        }
    }

    /// Reads or writes what an answer has opened a stream for. Blocks.
    pub fn transfer(&self, asked: &Asked, mut stream: SyncIoBridge<DuplexStream>) -> io::Result<()> {
        match asked {
            Asked::Read { digest, offset } => {
                let mut file = File::open(self.blob(digest))?;
                file.seek(io::SeekFrom::Start(*offset))?;
                io::copy(&mut file, &mut stream)?;
            }
            Asked::Write { digest, size } => {
                let said = match self.take(digest, *size, &mut stream) {
                    Ok(()) => WRITTEN.to_owned(),
                    Err(error) => format!("write {}: {}", self.path.display(), io_text(&error)),
                };
                stream.write_all(said.as_bytes())?;
            }
            Asked::Size(_) | Asked::Publish { .. } => {}
        }
        stream.shutdown()
    }

    fn take(&self, digest: &Digest, size: u64, content: &mut impl io::Read) -> io::Result<()> {
        let path = self.blob(digest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = AtomicFile::create(&path, 0o644).map_err(io::Error::other)?;
        let mut hasher = Hasher::new(digest.algorithm());
        let (mut buffer, mut left) = (vec![0; PIECE], size);
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            left = left
                .checked_sub(count as u64)
                .ok_or_else(|| io::Error::other("more came than was announced"))?;
            hasher.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
        }
        if left != 0 || hasher.finish() != *digest {
            return Err(io::Error::other(format!("{digest} did not come whole")));
        }
        file.commit(Durability::Process).map_err(io::Error::other)
    }

    /// Other tags stay.
    fn publish(&self, tag: &str, manifest: &str) -> io::Result<()> {
        let mut manifest: Value = serde_json::from_str(manifest).map_err(io::Error::other)?;
        manifest["annotations"] = json!({ TAG: tag });
        let index = match read_index(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Null,
            index => index?,
        };
        let mut manifests: Vec<Value> = entries(&index)
            .filter(|entry| !is_tagged(entry, tag))
            .cloned()
            .collect();
        manifests.push(manifest);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": ferry_image::media::OCI_INDEX,
            "manifests": manifests,
        });
        let write = |name: &str, content: &Value| {
            let path = self.path.join(name);
            let bytes = content.to_string();
            AtomicFile::replace(path, bytes.as_bytes(), 0o644, Durability::Process).map_err(io::Error::other)
        };
        write("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        write(INDEX, &index)
    }
}
