//! Manifests, tags and referrers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use ferry_image::Digest;
use ferry_image::media::Kind;
use serde::{Deserialize, Serialize};

use crate::backend::{Error, Intent, Result, Stored};
use crate::manifest::{self, Descriptor, Manifest};
use crate::name::{Name, Reference, Tag};

use super::blobs::{self, renew};
use super::durable::write;
use super::paths::{BLOBS, MANIFESTS, TAGS, digest_of, file_name};
use super::{FileSystem, Inner, Link, found};

/// What a link to a manifest says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    pub media_type: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

impl FileSystem {
    pub(super) async fn find_manifest(
        &self,
        repository: &Name,
        reference: &Reference,
        intent: Intent,
    ) -> Result<Option<Stored>> {
        if let Some(stored) = self.0.known_manifest(repository, reference, intent) {
            return Ok(Some(stored));
        }
        let (repository, reference) = (repository.clone(), reference.clone());
        let look = move |inner: &Inner| inner.look_up_manifest(&repository, &reference, intent);
        match intent {
            Intent::Pull => self.blocking(look).await,
            Intent::Push => self.linking(look).await,
        }
    }
}

impl Inner {
    /// From the caches alone.
    fn known_manifest(&self, repository: &Name, reference: &Reference, intent: Intent) -> Option<Stored> {
        let tagged;
        let digest = match reference {
            Reference::Digest(digest) => digest,
            Reference::Tag(tag) => {
                tagged = self.tags.get(&tag_key(repository, tag))?;
                &tagged
            }
        };
        let link = self.links.get(&key(repository, digest))?;
        if intent == Intent::Push && !self.is_fresh(&link) {
            return None;
        }
        Some(Stored {
            content: self.contents.get(&digest.to_string())?,
            media_type: link.media_type.clone(),
            digest: digest.clone(),
        })
    }

    fn look_up_manifest(&self, repository: &Name, reference: &Reference, intent: Intent) -> Result<Option<Stored>> {
        let digest = match reference {
            Reference::Digest(digest) => digest.clone(),
            Reference::Tag(tag) => {
                let seen = self.tags.changes();
                let Some(digest) = self.read_tag(repository, tag)? else {
                    return Ok(None);
                };
                self.tags.insert(&tag_key(repository, tag), digest.clone(), 1, seen);
                digest
            }
        };
        let seen = self.links.changes();
        if intent == Intent::Push {
            self.epoch.pin([&digest]);
        }
        let path = self.paths.manifest(repository, &digest);
        let Some(promised) = self
            .promise(&path, intent)
            .map_err(Error::io("look at a manifest's link"))?
        else {
            return Ok(None);
        };
        let Some(record) = self.record(repository, &digest)? else {
            return Ok(None);
        };
        let Some(content) = self.small(&digest)? else {
            // Else it was taken away in between.
            if path.exists() {
                tracing::error!(%repository, %digest, "the content of a manifest is lost: push it again");
            }
            return Ok(None);
        };
        let media_type: Arc<str> = record.media_type.into();
        let link = Link {
            size: record.size,
            media_type: media_type.clone(),
            promised: AtomicU64::new(promised),
        };
        self.links.insert(&key(repository, &digest), Arc::new(link), 1, seen);
        Ok(Some(Stored {
            digest,
            media_type,
            content,
        }))
    }

    pub(super) fn read_tag(&self, repository: &Name, tag: &Tag) -> Result<Option<Digest>> {
        read_digest(&self.paths.tag(repository, tag)).map_err(Error::io("read a tag"))
    }

    pub(super) fn record(&self, repository: &Name, digest: &Digest) -> Result<Option<Record>> {
        let read = found(fs::read(self.paths.manifest(repository, digest)));
        let Some(text) = read.map_err(Error::io("read a manifest's link"))? else {
            return Ok(None);
        };
        let record = serde_json::from_slice(&text).map_err(io::Error::from);
        record.map(Some).map_err(Error::io("read a manifest's link"))
    }

    /// Everything that is named is there, and has the size that is stated. The caller is inside the epoch and has pinned it.
    fn check(&self, repository: &Name, manifest: &Manifest) -> Result<()> {
        for blob in &manifest.blobs {
            self.check_blob(repository, blob)?;
        }
        for part in &manifest.manifests {
            match self.record(repository, &part.digest)? {
                Some(record) if self.paths.content(&part.digest).exists() => same_size(part, record.size)?,
                // The index of a BuildKit cache has layers and a configuration.
                _ if !is_manifest(part) => self.check_blob(repository, part)?,
                _ => return Err(self.lost(repository, &part.digest, Error::ManifestUnknown)),
            }
        }
        Ok(())
    }

    fn check_blob(&self, repository: &Name, blob: &Descriptor) -> Result<()> {
        match self.stat_blob(repository, &blob.digest, Intent::Pull)? {
            None => Err(self.lost(repository, &blob.digest, Error::BlobUnknown)),
            Some(link) => same_size(blob, link.size),
        }
    }

    /// Memory may know what somebody took from the disk: whoever pushes it again must not hear that it is there.
    fn lost(&self, repository: &Name, digest: &Digest, error: impl FnOnce(Digest) -> Error) -> Error {
        self.links.remove(&key(repository, digest));
        self.links.remove(&blobs::key(repository, digest));
        self.contents.remove(&digest.to_string());
        error(digest.clone())
    }

    pub(super) fn put_manifest(&self, repository: &Name, tag: Option<&Tag>, manifest: &Manifest) -> Result<()> {
        self.pin(manifest);
        self.check(repository, manifest)?;
        let mut dirs = Vec::new();
        self.unmark(repository, &manifest.digest, &mut dirs)
            .and_then(|()| self.store(repository, tag, manifest, dirs))
            .map_err(Error::io("store a manifest"))
    }

    pub(super) fn keep_manifest(&self, repository: &Name, tag: Option<&Tag>, manifest: &Manifest) -> Result<()> {
        self.pin(manifest);
        let link = self.paths.manifest(repository, &manifest.digest);
        self.mark(repository, &manifest.digest, &link)
            .and_then(|()| self.store(repository, tag, manifest, Vec::new()))
            .map_err(Error::io("store a manifest"))
    }

    fn pin(&self, manifest: &Manifest) {
        let named = manifest.parts().map(|part| &part.digest);
        self.epoch.pin(named.chain([&manifest.digest]));
    }

    fn store(
        &self,
        repository: &Name,
        tag: Option<&Tag>,
        manifest: &Manifest,
        mut dirs: Vec<PathBuf>,
    ) -> io::Result<()> {
        let digest = &manifest.digest;
        let content = self.paths.content(digest);
        if found(fs::read(&content))?.as_deref() != Some(&manifest.content) {
            write(&self.sync, &self.paths, &content, &manifest.content, &mut dirs)?;
        }
        dirs.extend(content.parent().map(Path::to_owned));
        // Those who made the links that it relies on may still wait for their sync.
        dirs.extend([BLOBS, MANIFESTS].map(|part| self.paths.part(repository, part)));
        self.sync.sync(std::mem::take(&mut dirs))?;
        // Before any link, so that the collector looks there, however far this comes.
        self.names().insert(repository.clone());

        let size = u64::try_from(manifest.content.len()).unwrap_or(u64::MAX);
        if let Some(subject) = &manifest.subject {
            let descriptor = Descriptor {
                media_type: manifest.media_type.clone(),
                digest: digest.clone(),
                size,
                artifact_type: manifest.artifact_type.clone(),
                annotations: manifest.annotations.clone(),
            };
            let path = self.paths.referrers(repository, subject).join(file_name(digest));
            write(
                &self.sync,
                &self.paths,
                &path,
                &serde_json::to_vec(&descriptor)?,
                &mut dirs,
            )?;
        }
        let record = Record {
            media_type: manifest.media_type.clone(),
            size,
            subject: manifest.subject.clone(),
        };
        write(
            &self.sync,
            &self.paths,
            &self.paths.manifest(repository, digest),
            &serde_json::to_vec(&record)?,
            &mut dirs,
        )?;
        self.links.remove(&key(repository, digest));
        if let Some(tag) = tag {
            self.sync.sync(std::mem::take(&mut dirs))?;
            let path = self.paths.tag(repository, tag);
            if let Some(before) = read_digest(&path)?.filter(|before| before != digest) {
                // It may have lost its last tag: from now on its grace counts.
                found(renew(&self.paths.manifest(repository, &before)))?;
            }
            write(&self.sync, &self.paths, &path, digest.to_string().as_bytes(), &mut dirs)?;
            self.tags.remove(&tag_key(repository, tag));
        }
        self.sync.sync(dirs)
    }

    /// Nobody links anything meanwhile.
    pub(super) fn delete_manifest(&self, repository: &Name, digest: &Digest) -> Result<bool> {
        if !self.paths.manifest(repository, digest).exists() {
            return Ok(false);
        }
        let mut dirs = Vec::new();
        for (tag, target) in self.all_tags(repository)? {
            if target == *digest {
                self.remove_tag(repository, &tag, &mut dirs)
                    .map_err(Error::io("remove a tag"))?;
            }
        }
        let synced = self.sync.sync(std::mem::take(&mut dirs));
        synced.map_err(Error::io("sync the removal of tags"))?;
        self.remove_manifest(repository, digest, &mut dirs)
            .map_err(Error::io("remove a manifest"))?;
        self.sync
            .sync(dirs)
            .map_err(Error::io("sync the removal of a manifest"))?;
        Ok(true)
    }

    pub(super) fn delete_tag(&self, repository: &Name, tag: &Tag) -> Result<bool> {
        let Some(digest) = self.read_tag(repository, tag)? else {
            return Ok(false);
        };
        let mut dirs = Vec::new();
        found(renew(&self.paths.manifest(repository, &digest))).map_err(Error::io("renew a manifest's link"))?;
        self.remove_tag(repository, tag, &mut dirs)
            .map_err(Error::io("remove a tag"))?;
        self.sync.sync(dirs).map_err(Error::io("sync the removal of a tag"))?;
        Ok(true)
    }

    pub(super) fn remove_tag(&self, repository: &Name, tag: &Tag, dirs: &mut Vec<PathBuf>) -> io::Result<()> {
        found(fs::remove_file(self.paths.tag(repository, tag)))?;
        self.tags.remove(&tag_key(repository, tag));
        dirs.push(self.paths.part(repository, TAGS));
        Ok(())
    }

    /// Takes the link, the entry with its subject, and the mark of a copy; its tags are gone.
    pub(super) fn remove_manifest(
        &self,
        repository: &Name,
        digest: &Digest,
        dirs: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        self.remove_manifest_link(repository, digest, dirs)?;
        self.unmark(repository, digest, dirs)
    }

    pub(super) fn remove_manifest_link(
        &self,
        repository: &Name,
        digest: &Digest,
        dirs: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        let path = self.paths.manifest(repository, digest);
        let record: Option<Record> = found(fs::read(&path))?.and_then(|text| serde_json::from_slice(&text).ok());
        found(fs::remove_file(&path))?;
        self.links.remove(&key(repository, digest));
        dirs.push(self.paths.part(repository, MANIFESTS));
        if let Some(subject) = record.and_then(|record| record.subject) {
            let directory = self.paths.referrers(repository, &subject);
            found(fs::remove_file(directory.join(file_name(digest))))?;
            dirs.push(directory);
        }
        Ok(())
    }

    /// The manifests of a repository. Files that are none are left alone.
    pub(super) fn all_manifests(&self, repository: &Name) -> io::Result<Vec<Digest>> {
        let names = super::listing::entries(&self.paths.part(repository, MANIFESTS))?;
        Ok(names.iter().filter_map(|name| digest_of(name)).collect())
    }

    pub(super) fn all_tags(&self, repository: &Name) -> Result<Vec<(Tag, Digest)>> {
        let mut tags = Vec::new();
        for name in super::listing::entries(&self.paths.part(repository, TAGS)).map_err(Error::io("list tags"))? {
            if let Ok(tag) = name.parse::<Tag>()
                && let Some(digest) = self.read_tag(repository, &tag)?
            {
                tags.push((tag, digest));
            }
        }
        Ok(tags)
    }

    /// What a stored manifest names; `None` when it is lost or no longer understood.
    pub(super) fn names_of(&self, repository: &Name, digest: &Digest) -> Result<Option<Manifest>> {
        let Some(record) = self.record(repository, digest)? else {
            return Ok(None);
        };
        let read = found(fs::read(self.paths.content(digest))).map_err(Error::io("read a manifest"))?;
        Ok(read.and_then(|content| parse(content, &record, digest).ok()))
    }

    /// A manifest of the repository that names the blob. What cannot be read may name it.
    pub(super) fn user_of(&self, repository: &Name, blob: &Digest) -> Result<Option<Digest>> {
        for digest in self.all_manifests(repository).map_err(Error::io("list manifests"))? {
            match self.names_of(repository, &digest)? {
                Some(manifest) if manifest.parts().all(|part| part.digest != *blob) => {}
                _ => return Ok(Some(digest)),
            }
        }
        Ok(None)
    }
}

fn parse(content: Vec<u8>, record: &Record, digest: &Digest) -> Result<Manifest, manifest::Error> {
    Manifest::parse(Bytes::from(content), Some(&record.media_type), Some(digest))
}

fn is_manifest(part: &Descriptor) -> bool {
    matches!(Kind::of(&part.media_type), Kind::Manifest | Kind::Index)
}

fn same_size(part: &Descriptor, actual: u64) -> Result<()> {
    match part.size == actual {
        true => Ok(()),
        false => Err(Error::Size {
            digest: part.digest.clone(),
            stated: part.size,
            actual,
        }),
    }
}

pub fn key(repository: &Name, digest: &Digest) -> String {
    format!("{repository}@{digest}")
}

fn tag_key(repository: &Name, tag: &Tag) -> String {
    format!("{repository}:{tag}")
}

fn read_digest(path: &Path) -> io::Result<Option<Digest>> {
    let Some(text) = found(fs::read_to_string(path))? else {
        return Ok(None);
    };
    let digest = text
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    digest.map(Some)
}
