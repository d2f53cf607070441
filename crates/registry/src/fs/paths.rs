//! Where everything is (the picture is in [`super`]).

use std::io;
use std::path::{Path, PathBuf};

use ferry_image::{Algorithm, Digest};

use crate::name::{Name, Tag, UploadId};

#[derive(Debug)]
pub struct Paths {
    pub root: PathBuf,
    pub blobs: PathBuf,
    pub repositories: PathBuf,
    pub uploads: PathBuf,
    pub tmp: PathBuf,
}

pub const BLOBS: &str = "_blobs";
pub const MANIFESTS: &str = "_manifests";
pub const TAGS: &str = "_tags";
pub const REFERRERS: &str = "_referrers";
pub const COPIES: &str = "_copies";

impl Paths {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            blobs: root.join("blobs"),
            repositories: root.join("repositories"),
            uploads: root.join("uploads"),
            tmp: root.join("tmp"),
        }
    }

    /// The directories that are always there.
    pub fn fixed(&self) -> [PathBuf; 5] {
        [
            self.blobs.join(Algorithm::Sha256.name()),
            self.blobs.join(Algorithm::Sha512.name()),
            self.repositories.clone(),
            self.uploads.clone(),
            self.tmp.clone(),
        ]
    }

    pub fn content(&self, digest: &Digest) -> PathBuf {
        let hex = digest.encoded();
        self.blobs.join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    /// One of the directories of a repository.
    pub fn part(&self, repository: &Name, part: &str) -> PathBuf {
        self.repositories.join(repository.as_str()).join(part)
    }

    pub fn blob(&self, repository: &Name, digest: &Digest) -> PathBuf {
        self.part(repository, BLOBS).join(file_name(digest))
    }

    pub fn manifest(&self, repository: &Name, digest: &Digest) -> PathBuf {
        self.part(repository, MANIFESTS).join(file_name(digest))
    }

    pub fn tag(&self, repository: &Name, tag: &Tag) -> PathBuf {
        self.part(repository, TAGS).join(tag.as_str())
    }

    pub fn referrers(&self, repository: &Name, subject: &Digest) -> PathBuf {
        self.part(repository, REFERRERS).join(file_name(subject))
    }

    pub fn copy(&self, repository: &Name, digest: &Digest) -> PathBuf {
        self.part(repository, COPIES).join(file_name(digest))
    }

    pub fn upload(&self, id: UploadId) -> PathBuf {
        self.uploads.join(id.to_string())
    }

    /// A name in `tmp` that nobody else has.
    pub fn temporary(&self) -> io::Result<PathBuf> {
        Ok(self.tmp.join(UploadId::random()?.to_string()))
    }
}

/// `sha256.<hex>`
pub fn file_name(digest: &Digest) -> String {
    format!("{}.{}", digest.algorithm().name(), digest.encoded())
}

/// What [`file_name`] made; `None` for any other file.
pub fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('.')?;
    format!("{algorithm}:{hex}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_names_a_file_and_back() {
        let digest = Digest::of("x");
        assert_eq!(digest_of(&file_name(&digest)), Some(digest));
        assert_eq!(digest_of("sha256.xyz"), None);
        assert_eq!(digest_of(".tmp"), None);
    }
}
