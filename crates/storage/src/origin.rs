//! What an image came along with: the index that named it, and the attestations about it.
//!
//! An image needs none of this to run. It is kept so that a push can send the index again, byte for byte. A part that is not
//! there, because it could not be had or was too large, is asked of the registry that the image goes to.
//!
//! One image can come in several ways: two indexes may name it, and two manifests can have the same configuration. Each name
//! remembers the way it came by, and is pushed by that.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::sync::Arc;

use ferry_image::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::error::Context as _;
use crate::images::{Image, Images, Index, NewBlob, is_sha256, read};
use crate::layout::{Layout, Staging};
use crate::pull::Remote;
use crate::stream::Hashed;
use crate::{Error, Result, names};

/// Largest index or manifest that is kept, in bytes.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;
/// Most bytes that are kept of all attestations of one image.
pub const ATTESTATIONS_LIMIT: u64 = 64 << 20;
/// Most files of attestations of one image: manifests, configurations, statements.
pub const ATTESTATION_PARTS: usize = 256;

/// The index an image came by. All of it is in the blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The outermost one, if they were nested.
    pub index: Digest,
    /// Indexes inside of it, manifests of attestations, and what those name.
    pub parts: Vec<Digest>,
}

impl Origin {
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.index).chain(&self.parts)
    }
}

/// Ways in which an image came; of more, the oldest are forgotten.
const WAYS: usize = 16;

/// A manifest an image came with, and the index it came by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub manifest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

impl Way {
    /// What it was pulled by: the digest of the index, or of the manifest.
    pub fn digest(&self) -> &Digest {
        self.origin.as_ref().map_or(&self.manifest, |origin| &origin.index)
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.manifest).chain(self.origin.iter().flat_map(Origin::blobs))
    }
}

impl Image {
    /// All ways in which it came, the last one first.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        let last = self.manifest.as_ref().map(|manifest| Way {
            manifest: manifest.clone(),
            origin: self.origin.clone(),
        });
        last.into_iter().chain(self.earlier.iter().cloned())
    }

    /// Every blob that is this image's own, layers aside.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Digest> {
        let origin = self.origin.iter().flat_map(Origin::blobs);
        let earlier = self.earlier.iter().flat_map(Way::blobs);
        std::iter::once(&self.id)
            .chain(&self.manifest)
            .chain(origin)
            .chain(earlier)
    }

    /// What is to be kept of the ways in which it came when it comes in this one now.
    pub(crate) fn ways_before(&self, now: &Way) -> Vec<Way> {
        let before = self.ways().filter(|way| way.digest() != now.digest());
        before.take(WAYS - 1).collect()
    }
}

impl Images {
    /// The way in which an image came under this name; else to its repository; else last. Does no I/O.
    pub fn way(&self, image: &Image, reference: &Reference) -> Option<Way> {
        let index = self.shared.index();
        let came = index.came.get(&names::key(reference));
        let repository = reference.name();
        let of_repository: Vec<&Digest> = image
            .references
            .iter()
            .filter(|known| known.name() == repository)
            .filter_map(Reference::digest)
            .collect();
        let mut ways = image.ways();
        let by = |wanted: &dyn Fn(&Digest) -> bool| image.ways().find(|way| wanted(way.digest()));
        by(&|digest| came == Some(digest))
            .or_else(|| by(&|digest| of_repository.contains(&digest)))
            .or_else(|| ways.next())
    }
}

impl Index {
    /// Drops the ways of images that no name is of any more, but for the last. Returns what was in them, by image.
    pub(crate) fn shed(&mut self) -> Vec<(Digest, Vec<Digest>)> {
        let mut named: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
        for (key, (reference, image)) in &self.references {
            let digests = self.came.get(key).into_iter().chain(reference.digest());
            named.entry(image).or_default().extend(digests);
        }
        let mut shed = Vec::new();
        for (id, image) in &mut self.images {
            let needed = |way: &Way| named.get(id).is_some_and(|named| named.contains(&way.digest()));
            if image.earlier.iter().all(needed) {
                continue;
            }
            let mut changed = image.copy();
            let (kept, gone) = std::mem::take(&mut changed.earlier).into_iter().partition(needed);
            changed.earlier = kept;
            *image = Arc::new(changed);
            let gone: Vec<Way> = gone;
            shed.push((id.clone(), gone.iter().flat_map(Way::blobs).cloned().collect()));
        }
        shed
    }
}

/// Parts on their way in: files that go with this, unless an image is recorded with them.
#[derive(Debug)]
pub struct Gathered {
    layout: Layout,
    staging: Staging,
    pub(crate) index: Option<Digest>,
    pub(crate) blobs: Vec<NewBlob>,
    left: u64,
}

impl Images {
    /// Begins to gather what comes along with an image.
    pub fn gather(&self) -> Result<Gathered> {
        Ok(Gathered {
            layout: self.shared.layout.clone(),
            staging: Staging::new(&self.shared.layout)?,
            index: None,
            blobs: Vec::new(),
            left: ATTESTATIONS_LIMIT,
        })
    }
}

impl Gathered {
    /// The index, digest verified. Blocks.
    pub fn index(&mut self, bytes: &[u8]) -> Result<()> {
        let digest = self.document(bytes)?;
        self.index = Some(digest);
        Ok(())
    }

    /// An index inside of it, or a manifest. Blocks.
    pub fn document(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.room(&digest, bytes.len() as u64)?;
        let path = self.staging.path.join(digest.encoded());
        std::fs::write(&path, bytes).at("write", &path)?;
        self.add(digest.clone(), path);
        Ok(digest)
    }

    /// The bytes of a document that the store has. Blocks.
    pub fn known(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = read(&self.layout.blob(digest), "document", DOCUMENT_LIMIT).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Something that a manifest names; `open` is called if the store has it not. Blocks.
    ///
    /// Fails with [`Error::TooLarge`] beyond what is kept, with [`Error::Invalid`] for bytes that are not what the digest says.
    pub fn blob<R: Read>(&mut self, remote: &Remote, open: impl FnOnce() -> io::Result<R>) -> Result<()> {
        self.room(&remote.digest, remote.size)?;
        let path = self.staging.path.join(remote.digest.encoded());
        if path.exists() {
            return Ok(());
        }
        let known = self.layout.blob(&remote.digest);
        // A link keeps it, whoever removes it meanwhile.
        if std::fs::metadata(&known).is_ok_and(|data| data.len() == remote.size)
            && std::fs::hard_link(&known, &path).is_ok()
        {
            self.add(remote.digest.clone(), path);
            return Ok(());
        }
        let name = remote.digest.to_string();
        let from = |source| Error::from_source(&name, &path, source);
        let mut source = Hashed::new(open().map_err(from)?.take(remote.size + 1));
        let mut file = File::create_new(&path).at("create", &path)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => file.write_all(&buffer[..count]).at("write", &path)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(from(error)),
            }
        }
        let (digest, size) = source.finish();
        if digest != remote.digest || size != remote.size {
            return Err(Error::Invalid(format!(
                "the blob {name} is not what its digest says: {size} bytes of {} came, with the digest {digest}",
                remote.size
            )));
        }
        self.add(digest, path);
        Ok(())
    }

    fn room(&mut self, digest: &Digest, size: u64) -> Result<()> {
        let what = || format!("what comes along with an image ({digest})");
        if !is_sha256(digest) {
            return Err(Error::Invalid(format!("unsupported digest algorithm in {digest}")));
        }
        let left = self.left.checked_sub(size);
        match left.filter(|_| self.blobs.len() < ATTESTATION_PARTS) {
            Some(left) => self.left = left,
            None => {
                return Err(Error::TooLarge {
                    what: what(),
                    limit: ATTESTATIONS_LIMIT,
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, digest: Digest, path: std::path::PathBuf) {
        if !self.blobs.iter().any(|known| known.digest == digest) {
            self.blobs.push(NewBlob { digest, path });
        }
    }
}

/// What was gathered of one image, and its files.
pub(crate) fn origin(gathered: &[Gathered]) -> (Option<Origin>, Vec<NewBlob>) {
    let Some(index) = gathered.iter().find_map(|one| one.index.clone()) else {
        return (None, Vec::new());
    };
    let blobs: Vec<NewBlob> = gathered.iter().flat_map(|one| one.blobs.clone()).collect();
    let mut parts: Vec<Digest> = blobs
        .iter()
        .map(|blob| blob.digest.clone())
        .filter(|digest| *digest != index)
        .collect();
    parts.sort();
    parts.dedup();
    (Some(Origin { index, parts }), blobs)
}
