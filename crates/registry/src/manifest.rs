//! What a manifest that is pushed must be, and what it refers to (OCI image-spec 1.1, manifest.md and image-index.md).
//!
//! A document that could be read as two things is refused (CVE-2021-41190): `layers` beside `manifests`, a key given twice,
//! a `mediaType` that is not the request's.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferry_image::media::{self, Kind};
use ferry_image::{Algorithm, Digest, Hasher};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The largest manifest that is taken (OCI distribution-spec, "Pushing manifests").
pub const SIZE_MAX: usize = 4 << 20;

/// Why a manifest is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the manifest is larger than 4 MiB")]
    TooLarge,
    #[error(
        "Docker's image manifest version 2, schema 1 is obsolete and not taken: push the image again with a client that writes schema 2 or OCI manifests"
    )]
    Schema1,
    #[error(
        "the media type {0:?} is no manifest's: this registry takes OCI image manifests and indexes, and Docker's of schema 2"
    )]
    MediaType(String),
    #[error("the manifest says mediaType {inside:?}, the request Content-Type {outside:?}")]
    TwoTypes { inside: String, outside: String },
    #[error("the manifest is no valid JSON of its type: {0}")]
    Json(String),
    #[error("the manifest has {0:?}, which its type has not: it could be taken for another")]
    Ambiguous(&'static str),
    #[error("schemaVersion is {0}, and must be 2")]
    SchemaVersion(u64),
    #[error("the manifest names {text:?}, which is no digest")]
    Digest { text: String },
    #[error("the content's digest is {actual}, not {expected}")]
    Mismatch { expected: Digest, actual: Digest },
}

/// Content that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A manifest that was checked, with its content.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub digest: Digest,
    pub media_type: String,
    pub content: Bytes,
    /// Configuration and layers, without those that clients do not push (foreign layers).
    pub blobs: Vec<Descriptor>,
    /// The manifests of an index; in BuildKit's caches blobs.
    pub manifests: Vec<Descriptor>,
    pub subject: Option<Digest>,
    /// As the referrers of the subject show it.
    pub artifact_type: Option<String>,
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Present or not; the content does not matter.
type Present = Option<Box<RawValue>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Reference>,
    layers: Option<Vec<Reference>>,
    manifests: Option<Vec<Reference>>,
    subject: Option<Reference>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Present,
    signatures: Present,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
}

impl Reference {
    fn check(self) -> Result<Descriptor, Error> {
        let Ok(digest) = self.digest.parse() else {
            return Err(Error::Digest {
                text: self.digest.chars().take(200).collect(),
            });
        };
        Ok(Descriptor {
            media_type: self.media_type,
            digest,
            size: self.size,
            artifact_type: None,
            annotations: None,
        })
    }
}

impl Manifest {
    /// Whatever has to be in the repository with it.
    pub fn parts(&self) -> impl Iterator<Item = &Descriptor> {
        self.blobs.iter().chain(&self.manifests)
    }

    /// `content_type` is the request's, `expected` the digest it is pushed by.
    pub fn parse(content: Bytes, content_type: Option<&str>, expected: Option<&Digest>) -> Result<Self, Error> {
        if content.len() > SIZE_MAX {
            return Err(Error::TooLarge);
        }
        let mut hasher = Hasher::new(expected.map_or(Algorithm::Sha256, Digest::algorithm));
        hasher.update(&content);
        let digest = hasher.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::Mismatch {
                expected: expected.clone(),
                actual: digest,
            });
        }
        let outside = content_type.map(essence).filter(|outside| !outside.is_empty());
        if outside.as_deref().map(Kind::of) == Some(Kind::Obsolete) {
            return Err(Error::Schema1);
        }
        let document: Document = serde_json::from_slice(&content).map_err(|error| match is_schema1(&content) {
            true => Error::Schema1,
            false => Error::Json(error.to_string()),
        })?;
        if document.schema_version == 1 || document.fs_layers.is_some() || document.signatures.is_some() {
            return Err(Error::Schema1);
        }
        if document.schema_version != 2 {
            return Err(Error::SchemaVersion(document.schema_version));
        }
        let media_type = document.kind(outside)?;
        document.check(media_type, digest, content)
    }
}

impl Document {
    fn kind(&self, outside: Option<String>) -> Result<String, Error> {
        match (outside, &self.media_type) {
            (Some(outside), Some(inside)) if outside != essence(inside) => Err(Error::TwoTypes {
                inside: inside.clone(),
                outside,
            }),
            (Some(media_type), _) => Ok(media_type),
            (None, Some(inside)) => Ok(essence(inside)),
            (None, None) if self.manifests.is_some() => Ok(media::OCI_INDEX.to_owned()),
            (None, None) => Ok(media::OCI_MANIFEST.to_owned()),
        }
    }

    fn check(self, media_type: String, digest: Digest, content: Bytes) -> Result<Manifest, Error> {
        let required = |key: &str| Error::Json(format!("{key} is missing"));
        let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
        let mut config_type = None;
        match Kind::of(&media_type) {
            Kind::Manifest => {
                if self.manifests.is_some() {
                    return Err(Error::Ambiguous("manifests"));
                }
                let config = self.config.ok_or_else(|| required("config"))?.check()?;
                config_type = Some(config.media_type.clone());
                blobs.push(config);
                for layer in self.layers.ok_or_else(|| required("layers"))? {
                    let foreign = matches!(Kind::of(&layer.media_type), Kind::Layer { foreign: true, .. });
                    let layer = layer.check()?;
                    if !foreign {
                        blobs.push(layer);
                    }
                }
            }
            Kind::Index => {
                if self.layers.is_some() || self.config.is_some() {
                    return Err(Error::Ambiguous(if self.layers.is_some() {
                        "layers"
                    } else {
                        "config"
                    }));
                }
                for manifest in self.manifests.ok_or_else(|| required("manifests"))? {
                    manifests.push(manifest.check()?);
                }
            }
            Kind::Obsolete => return Err(Error::Schema1),
            _ => return Err(Error::MediaType(media_type)),
        }
        let subject = self.subject.map(Reference::check).transpose()?;
        Ok(Manifest {
            digest,
            media_type,
            content,
            blobs,
            manifests,
            subject: subject.map(|subject| subject.digest),
            artifact_type: self.artifact_type.filter(|kind| !kind.is_empty()).or(config_type),
            annotations: self.annotations,
        })
    }
}

/// Without parameters, in lower case.
fn essence(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Schema 1 has none of the keys that a [`Document`] must have, and is to be refused by its name.
fn is_schema1(content: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Old {
        schema_version: u64,
    }
    serde_json::from_slice::<Old>(content).is_ok_and(|old| old.schema_version == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn descriptor(text: &str, media_type: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": Digest::of(text).to_string(), "size": text.len() })
    }

    fn image() -> serde_json::Value {
        json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_MANIFEST,
            "config": descriptor("c", media::OCI_CONFIG),
            "layers": [descriptor("l", media::OCI_LAYER_GZIP), descriptor("f", media::DOCKER_FOREIGN_LAYER_GZIP)],
        })
    }

    fn parse(value: &serde_json::Value, content_type: Option<&str>) -> Result<Manifest, Error> {
        Manifest::parse(value.to_string().into(), content_type, None)
    }

    #[test]
    fn a_manifest_names_its_blobs_but_foreign_layers() {
        let manifest = parse(
            &image(),
            Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
        )
        .unwrap();
        let blobs: Vec<_> = manifest.blobs.iter().map(|blob| blob.digest.clone()).collect();
        assert_eq!(blobs, [Digest::of("c"), Digest::of("l")]);
        assert_eq!(manifest.artifact_type.as_deref(), Some(media::OCI_CONFIG));
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor("m", media::OCI_MANIFEST)], "subject": descriptor("s", "x") });
        let index = parse(&index, None).unwrap();
        assert_eq!(
            (index.media_type.as_str(), index.manifests.len()),
            (media::OCI_INDEX, 1)
        );
        assert_eq!(index.subject, Some(Digest::of("s")));
    }

    #[test]
    fn what_could_be_two_things_is_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        assert!(matches!(parse(&both, None), Err(Error::Ambiguous("manifests"))));
        let mut index = json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [], "layers": [] });
        assert!(matches!(parse(&index, None), Err(Error::Ambiguous("layers"))));
        index.as_object_mut().unwrap().remove("layers");
        index["config"] = descriptor("c", "x");
        assert!(matches!(parse(&index, None), Err(Error::Ambiguous("config"))));
        assert!(matches!(
            parse(&image(), Some(media::OCI_INDEX)),
            Err(Error::TwoTypes { .. })
        ));
        let twice = image()
            .to_string()
            .replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
        assert!(matches!(Manifest::parse(twice.into(), None, None), Err(Error::Json(_))));
    }

    #[test]
    fn schema_1_is_refused_by_name_however_it_comes() {
        let old = json!({ "schemaVersion": 1, "name": "a", "fsLayers": [], "history": [] });
        assert!(matches!(parse(&old, None), Err(Error::Schema1)));
        assert!(matches!(
            parse(&image(), Some(media::DOCKER_MANIFEST_V1_SIGNED)),
            Err(Error::Schema1)
        ));
        let message = Error::Schema1.to_string();
        assert!(message.contains("schema 1"), "{message}");
    }

    #[test]
    fn bad_documents_are_errors_and_never_more() {
        let digest = |text: &str| {
            let mut image = image();
            image["layers"][0]["digest"] = text.into();
            image
        };
        for text in [
            "",
            "sha256:00",
            "sha256:../../etc/passwd",
            "md5:00000000000000000000000000000000",
        ] {
            assert!(
                matches!(parse(&digest(text), None), Err(Error::Digest { .. })),
                "{text}"
            );
        }
        let mut negative = image();
        negative["layers"][0]["size"] = (-1).into();
        assert!(matches!(parse(&negative, None), Err(Error::Json(_))));
        let mut version = image();
        version["schemaVersion"] = 3.into();
        assert!(matches!(parse(&version, None), Err(Error::SchemaVersion(3))));
        assert!(matches!(
            parse(&image(), Some("text/html")),
            Err(Error::MediaType(_) | Error::TwoTypes { .. })
        ));
        let deep = "[".repeat(100_000);
        assert!(matches!(Manifest::parse(deep.into(), None, None), Err(Error::Json(_))));
        let large = Bytes::from(vec![b' '; SIZE_MAX + 1]);
        assert!(matches!(Manifest::parse(large, None, None), Err(Error::TooLarge)));
        let other = Digest::of("other");
        let content = Bytes::from(image().to_string());
        assert!(matches!(
            Manifest::parse(content, None, Some(&other)),
            Err(Error::Mismatch { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(bytes.into(), None, None);
        }
    }
}
