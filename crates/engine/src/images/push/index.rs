//! The index an image came by goes where the image goes, if all it names is there in the end.
//!
//! What is kept of it here (attestations, indexes inside of it) is sent; the rest, images for other platforms mostly, is asked
//! of the registry, by HEAD. Nothing is sent before it is known that all of it can be there.

use std::collections::HashSet;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use ferry_distribution::{Content, Descriptor, Repository};
use ferry_image::{Digest, Reference};
use ferry_storage::{DOCUMENT_LIMIT, Way};

use super::Document;
use crate::error::{Error, Result};
use crate::world::{World, blocking};

/// The most entries of an index that are looked at.
const ENTRIES: usize = 1000;

/// An index that can be sent, with what has to be there before it.
#[derive(Debug)]
pub struct Whole {
    pub media_type: String,
    pub bytes: Bytes,
    blobs: Vec<Descriptor>,
    /// Inner ones first.
    documents: Vec<(Digest, String, Bytes)>,
}

/// What is to be known of an image's index before it is pushed.
#[derive(Debug)]
pub enum Found {
    /// It came by none, or none that names this manifest.
    None,
    Whole(Box<Whole>),
    /// Something it names is neither here nor there.
    Partial {
        index: Box<Descriptor>,
        /// The manifest that is sent, as the index names it.
        selected: Box<Descriptor>,
    },
}

struct Search<'a> {
    world: &'a Arc<World>,
    repository: &'a Repository,
    /// What is kept here.
    parts: HashSet<&'a Digest>,
    manifest: &'a Digest,
    /// The index's entry for it.
    own: Option<Descriptor>,
    left: usize,
    blobs: Vec<Descriptor>,
    documents: Vec<(Digest, String, Bytes)>,
}

/// Finds out whether the index an image came by, which is sent with this manifest, can be complete in the repository.
pub async fn find(world: &Arc<World>, repository: &Repository, way: Option<&Way>, manifest: &Digest) -> Result<Found> {
    let Some(origin) = way
        .filter(|way| way.manifest == *manifest)
        .and_then(|way| way.origin.as_ref())
    else {
        return Ok(Found::None);
    };
    let Some((bytes, content, media_type)) = document(world, &origin.index).await? else {
        return Ok(Found::None);
    };
    let index = Descriptor::new(&media_type, origin.index.clone(), bytes.len() as u64);
    let mut search = Search {
        world,
        repository,
        parts: origin.parts.iter().collect(),
        manifest,
        own: None,
        left: ENTRIES,
        blobs: Vec::new(),
        documents: Vec::new(),
    };
    let complete = search.below(content).await?;
    let Some(selected) = search.own else {
        return Ok(Found::None);
    };
    Ok(match complete {
        true => Found::Whole(Box::new(Whole {
            media_type,
            bytes,
            blobs: search.blobs,
            documents: search.documents,
        })),
        false => Found::Partial {
            index: Box::new(index),
            selected: Box::new(selected),
        },
    })
}

impl Search<'_> {
    /// Whether all that a document names is here or there.
    async fn below(&mut self, content: Content) -> Result<bool> {
        match content {
            Content::Image { config, layers } => {
                for blob in std::iter::once(*config).chain(layers) {
                    if !self.part(blob).await? {
                        return Ok(false);
                    }
                }
            }
            Content::Index { manifests } => {
                // What is here first: it asks nobody.
                let (own, rest): (Vec<_>, Vec<_>) =
                    manifests.into_iter().partition(|entry| entry.digest == *self.manifest);
                self.own = self.own.take().or(own.into_iter().next());
                let (here, there): (Vec<_>, Vec<_>) =
                    rest.into_iter().partition(|entry| self.parts.contains(&entry.digest));
                for entry in here {
                    let Some((bytes, content, media_type)) = document(self.world, &entry.digest).await? else {
                        return Ok(false);
                    };
                    if !Box::pin(self.below(content)).await? {
                        return Ok(false);
                    }
                    self.documents.push((entry.digest, media_type, bytes));
                }
                for entry in there {
                    let Some(left) = self.left.checked_sub(1) else {
                        return Ok(false);
                    };
                    self.left = left;
                    if !there_is(self.repository.has_manifest(&entry.digest).await)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    async fn part(&mut self, blob: Descriptor) -> Result<bool> {
        if self.parts.contains(&blob.digest) && self.world.store.blob_path(&blob.digest).exists() {
            self.blobs.push(blob);
            return Ok(true);
        }
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(false);
        };
        self.left = left;
        there_is(self.repository.has_blob(&blob).await)
    }
}

/// What a registry refuses to say is not there.
fn there_is(asked: ferry_distribution::Result<bool>) -> Result<bool> {
    match asked {
        Err(error) if error.answer().is_some() => Ok(false),
        asked => Ok(asked?),
    }
}

/// A manifest or index of the store, if it is there and undamaged.
async fn document(world: &Arc<World>, digest: &Digest) -> Result<Option<(Bytes, Content, String)>> {
    let (images, wanted) = (world.store.images.clone(), digest.clone());
    let read = blocking("read a manifest", move || images.read_blob(&wanted, DOCUMENT_LIMIT)).await?;
    let bytes = read.ok().filter(|bytes| Digest::of(bytes) == *digest);
    let read = bytes.and_then(|bytes| Some((Content::read(&bytes)?, bytes)));
    Ok(read.map(|((content, media_type), bytes)| (bytes.into(), content, media_type)))
}

impl Whole {
    /// Sends everything but the image's blobs, which are there: the index last, under the reference.
    pub async fn send(
        self,
        world: &Arc<World>,
        repository: &Repository,
        reference: &Reference,
        manifest: &Document,
    ) -> Result<Digest> {
        for blob in self.blobs {
            // Opened before anything else: it may be removed meanwhile.
            let path = world.store.blob_path(&blob.digest);
            let file = blocking("open an attestation", move || std::fs::File::open(path)).await?;
            let file = file.map_err(|error| Error::internal("open an attestation", &error))?;
            repository.push_blob(&blob, Arc::new(Part(file)), &[], |_| {}).await?;
        }
        let by_digest = |digest: Digest| reference.clone().without_tag_and_digest().with_digest(digest);
        for (digest, media_type, bytes) in &self.documents {
            let named = by_digest(digest.clone());
            repository.push_manifest(&named, media_type, bytes).await?;
        }
        let own = by_digest(Digest::of(&manifest.bytes));
        repository
            .push_manifest(&own, &manifest.media_type, &manifest.bytes)
            .await?;
        let published = repository
            .push_manifest(reference, &self.media_type, &self.bytes)
            .await?;
        Ok(published.digest)
    }
}

/// A file that stays readable when its name goes.
struct Part(std::fs::File);

impl ferry_distribution::Source for Part {
    fn open(&self, offset: u64) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        let file = self.0.try_clone()?;
        Ok(Box::new(At { file, offset }))
    }
}

struct At {
    file: std::fs::File,
    offset: u64,
}

impl std::io::Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
