//! The JSON in an archive of images, as Go writes moby's structs (image/tarexport/save.go, 28.5).

use std::collections::BTreeMap;

use ferry_image::{Digest, Reference};
use serde::Serialize;

use super::{Content, Member, Members};
use crate::changes::Config;
use crate::images::Image;
use crate::import::go_json;
use crate::{Error, Result, names};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Default)]
pub struct Documents {
    /// Files below `blobs/sha256`, and those beside `blobs` once this is finished, in the order of their names.
    pub members: Members,
    /// When the last image was made, and the last that brought a layer: the times of the directories, in seconds.
    pub last_image: i64,
    pub last_layer: i64,
    index: Vec<Descriptor>,
    items: Vec<Item>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Option<&'a [Descriptor]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: &'a [Descriptor],
}

/// One image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<String, Source>,
}

/// A descriptor of docker/distribution, whose keys come in another order than OCI's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    media_type: &'static str,
    size: u64,
    digest: String,
}

/// The configuration of one layer as Docker 1.9 had it.
#[derive(Default, Serialize)]
struct V1 {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    comment: String,
    created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    container: String,
    container_config: Config,
    #[serde(skip_serializing_if = "String::is_empty")]
    docker_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    author: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    #[serde(skip_serializing_if = "String::is_empty")]
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    os: String,
}

/// The same with its keys sorted, and what the layer is: its hash is the id.
#[derive(Serialize)]
struct V1Identity<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    architecture: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Config>,
    #[serde(skip_serializing_if = "str::is_empty")]
    container: &'a str,
    container_config: &'a Config,
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    docker_version: &'a str,
    layer_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    os: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    parent: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

fn descriptor(media_type: &'static str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type,
        digest: digest.to_string(),
        size,
        annotations: BTreeMap::new(),
    }
}

fn name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.encoded())
}

impl Documents {
    /// `sizes` are those of the layers as tars; `parent` only if it is saved, too.
    pub fn add(&mut self, image: &Image, tags: &[Reference], sizes: &[u64], parent: Option<&Digest>) -> Result<()> {
        let created = image.created.map_or(0, jiff::Timestamp::as_second);
        self.last_image = created;
        let mut layers = Vec::new();
        for (layer, &size) in image.layers.iter().zip(sizes) {
            let known = self.members.contains_key(&name(&layer.diff_id));
            if !known {
                self.last_layer = created;
            }
            self.members.entry(name(&layer.diff_id)).or_insert_with(|| Member {
                mtime: created,
                content: Content::Layer(layer.clone()),
            });
            layers.push(descriptor(LAYER, &layer.diff_id, size));
        }
        self.old_configurations(image, created)?;
        self.put(&image.id, created, image.raw_config.clone());
        let manifest = go_json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: descriptor(CONFIG, &image.id, image.raw_config.len() as u64),
            layers: &layers,
        })?;
        let digest = Digest::of(&manifest);
        let found = descriptor(MANIFEST, &digest, manifest.len() as u64);
        self.put(&digest, 0, manifest);
        for tag in tags {
            let version = tag.tag().unwrap_or_default().to_owned();
            let mut named = found.clone();
            named.annotations.insert("io.containerd.image.name", names::key(tag));
            named
                .annotations
                .insert("org.opencontainers.image.ref.name", version.clone());
            self.index.push(named);
            if let Some(top) = image.layers.last() {
                let repository = names::familiar(tag);
                let repository = repository.strip_suffix(&format!(":{version}")).unwrap_or(&repository);
                let versions = self.repositories.entry(repository.to_owned()).or_default();
                versions.insert(version, top.diff_id.encoded().to_owned());
            }
        }
        // An image without a name is in `manifest.json` alone unless it is the first, as with Docker.
        if self.index.is_empty() {
            self.index.push(found);
        }
        let files: Vec<_> = image.layers.iter().map(|layer| name(&layer.diff_id)).collect();
        let tags: Vec<_> = tags.iter().map(names::familiar).collect();
        let sources = image.layers.iter().map(|layer| layer.diff_id.to_string());
        self.items.push(Item {
            config: name(&image.id),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: (!files.is_empty()).then_some(files),
            parent: parent.map(ToString::to_string).unwrap_or_default(),
            layer_sources: sources
                .zip(layers)
                .map(|(diff_id, layer)| {
                    let source = Source {
                        media_type: layer.media_type,
                        size: layer.size,
                        digest: layer.digest,
                    };
                    (diff_id, source)
                })
                .collect(),
        });
        Ok(())
    }

    /// Writes what lists everything else.
    pub fn finish(&mut self) -> Result<()> {
        let index = go_json(&Index {
            schema_version: 2,
            media_type: INDEX,
            manifests: (!self.index.is_empty()).then_some(&self.index[..]),
        })?;
        let line = |mut json: Vec<u8>| {
            json.push(b'\n');
            json
        };
        let mut files = vec![
            ("index.json", index),
            (
                "manifest.json",
                line(go_json(&(!self.items.is_empty()).then_some(&self.items))?),
            ),
            ("oci-layout", b"{\"imageLayoutVersion\": \"1.0.0\"}".to_vec()),
        ];
        if !self.repositories.is_empty() {
            files.push(("repositories", line(go_json(&self.repositories)?)));
        }
        for (name, bytes) in files {
            let content = Content::Bytes(bytes);
            self.members.insert(name.to_owned(), Member { mtime: 0, content });
        }
        Ok(())
    }

    fn put(&mut self, digest: &Digest, mtime: i64, bytes: Vec<u8>) {
        let content = Content::Bytes(bytes);
        self.members.entry(name(digest)).or_insert(Member { mtime, content });
    }

    fn old_configurations(&mut self, image: &Image, created: i64) -> Result<()> {
        let mut parent = String::new();
        for (at, layer) in image.layers.iter().enumerate() {
            let mut old = if at + 1 == image.layers.len() {
                last(image)?
            } else {
                V1 {
                    created: "1970-01-01T00:00:00Z".to_owned(),
                    ..V1::default()
                }
            };
            // What goes into the hash has no operating system yet where the configuration is not the image's own.
            let identity = V1Identity {
                architecture: &old.architecture,
                author: &old.author,
                comment: &old.comment,
                config: old.config.as_ref(),
                container: &old.container,
                container_config: &old.container_config,
                created: &old.created,
                docker_version: &old.docker_version,
                layer_id: layer.chain_id.to_string(),
                os: &old.os,
                parent: &parent,
                variant: &old.variant,
            };
            let id = Digest::of(go_json(&identity)?);
            old.id = id.encoded().to_owned();
            old.parent = parent.rsplit(':').next().unwrap_or_default().to_owned();
            old.os = image.config.os().to_string();
            parent = id.to_string();
            let bytes = go_json(&old)?;
            self.put(&Digest::of(&bytes), created, bytes);
        }
        Ok(())
    }
}

/// The image's own configuration in the old shape.
fn last(image: &Image) -> Result<V1> {
    let invalid = |error: serde_json::Error| Error::Invalid(format!("the configuration of {}: {error}", image.id));
    let raw: serde_json::Value = serde_json::from_slice(&image.raw_config).map_err(invalid)?;
    let text = |key: &str| {
        raw.get(key)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let config = |key: &str| -> Result<Option<Config>> {
        let found = raw.get(key).filter(|value| !value.is_null());
        found
            .map(|value| serde_json::from_value(value.clone()).map_err(invalid))
            .transpose()
    };
    Ok(V1 {
        comment: text("comment"),
        created: text("created"),
        container: text("container"),
        container_config: config("container_config")?.unwrap_or_default(),
        docker_version: text("docker_version"),
        author: text("author"),
        config: config("config")?,
        architecture: text("architecture"),
        variant: text("variant"),
        os: text("os"),
        ..V1::default()
    })
}
