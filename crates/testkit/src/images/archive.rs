//! What `docker load` reads: docker-archive, and an OCI image layout in a tar.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use super::Layer;

const CREATED: &str = "2023-11-14T22:13:20Z";

/// How a layer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    /// Two gzip members, one after the other (RFC 1952 2.2).
    GzipMembers,
    Zstd,
    /// Two zstd frames with a skippable one between them (RFC 8878 3.1).
    ZstdFrames,
}

impl Compression {
    /// What the media type of an OCI layer ends in.
    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip | Self::GzipMembers => "+gzip",
            Self::Zstd | Self::ZstdFrames => "+zstd",
        }
    }
}

/// An image to be written into an archive.
#[derive(Debug, Clone)]
pub struct Image {
    pub references: Vec<String>,
    /// Uncompressed tars, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// `config` of the image configuration: `Cmd`, `Env`, `User`, …
    pub config: Value,
    pub architecture: String,
    pub compression: Compression,
}

impl Image {
    pub fn new(reference: &str, layers: Vec<Vec<u8>>) -> Self {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        Self {
            references: vec![reference.to_owned()],
            layers,
            config: json!({ "Env": [path] }),
            architecture: "amd64".to_owned(),
            compression: Compression::None,
        }
    }

    /// Sets one key of `config`.
    #[must_use]
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// The image configuration; its sha256 is the image's id.
    pub fn configuration(&self) -> Vec<u8> {
        let ids: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("sha256:{}", sha256(layer)))
            .collect();
        let history: Vec<Value> = self
            .layers
            .iter()
            .map(|_| json!({ "created": CREATED, "created_by": "ferry-testkit" }))
            .collect();
        let value = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": CREATED,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": ids },
            "history": history,
        });
        value.to_string().into_bytes()
    }

    /// `sha256:…`
    pub fn id(&self) -> String {
        format!("sha256:{}", sha256(&self.configuration()))
    }

    /// The layers as they travel.
    pub fn blobs(&self) -> Vec<Vec<u8>> {
        self.layers
            .iter()
            .map(|layer| compress(layer, self.compression))
            .collect()
    }
}

/// As `docker save` wrote it before 25: `manifest.json`, configurations, layers.
pub fn docker_archive(images: &[Image]) -> Vec<u8> {
    let mut tar = Layer::new();
    let mut manifest = Vec::new();
    let mut written = std::collections::BTreeSet::new();
    for image in images {
        let configuration = image.configuration();
        let name = format!("{}.json", sha256(&configuration));
        tar = tar.file(&name, &configuration, 0o644);
        let mut names = Vec::new();
        for blob in image.blobs() {
            let name = format!("{}.tar", sha256(&blob));
            if written.insert(name.clone()) {
                tar = tar.file(&name, &blob, 0o644);
            }
            names.push(name);
        }
        manifest.push(json!({ "Config": name, "RepoTags": image.references, "Layers": names }));
    }
    tar.file("manifest.json", Value::from(manifest).to_string().as_bytes(), 0o644)
        .finish()
}

/// An OCI image layout without Docker's `manifest.json`.
pub fn oci_archive(images: &[Image]) -> Vec<u8> {
    let mut tar = Layer::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    tar = tar.dir("blobs", 0o755).dir("blobs/sha256", 0o755);
    let mut written = std::collections::BTreeSet::new();
    let mut put = |tar: Layer, bytes: &[u8]| {
        let digest = sha256(bytes);
        let path = format!("blobs/sha256/{digest}");
        if written.insert(digest) {
            tar.file(&path, bytes, 0o644)
        } else {
            tar
        }
    };
    let mut index = Vec::new();
    for image in images {
        let configuration = image.configuration();
        tar = put(tar, &configuration);
        let suffix = image.compression.suffix();
        let mut layers = Vec::new();
        for blob in image.blobs() {
            tar = put(tar, &blob);
            layers.push(descriptor(
                &format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                &blob,
            ));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &configuration),
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        tar = put(tar, &manifest);
        for reference in &image.references {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
            let tag = reference.rsplit(':').next().unwrap_or_default();
            let name = format!("docker.io/library/{reference}");
            entry["annotations"] =
                json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
            index.push(entry);
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": index,
    });
    tar.file("index.json", index.to_string().as_bytes(), 0o644).finish()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
}

fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => gzip(bytes),
        Compression::GzipMembers => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            [gzip(first), gzip(second)].concat()
        }
        Compression::Zstd => zstd(bytes),
        Compression::ZstdFrames => {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            // Magic number and length, little-endian, then what is skipped.
            let skippable = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
            [zstd(first), skippable.to_vec(), zstd(second)].concat()
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

/// Sixty-four lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A hundred and twenty-eight.
pub fn sha512(bytes: &[u8]) -> String {
    hex(&Sha512::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A gzip layer whose one file unpacks to `gibibytes` of zeros.
pub fn bomb(gibibytes: u64) -> Vec<u8> {
    let head = Layer::new().header_only("bomb", gibibytes << 30).truncated();
    [stretched(&head, 0, gibibytes << 10), gzip(&[0; 1024])].concat()
}

/// These bytes and then so many mebibytes of `filler`, in gzip: members of 64 MiB, repeated.
pub fn stretched(head: &[u8], filler: u8, mebibytes: u64) -> Vec<u8> {
    let member = gzip(&vec![filler; 64 << 20]);
    let mut stream = gzip(head);
    for _ in 0..mebibytes.div_ceil(64) {
        stream.extend_from_slice(&member);
    }
    stream
}

#[cfg(test)]
mod tests {
    use super::super::{busybox, busybox_archive};

    #[test]
    fn fixtures_are_the_same_every_time() {
        assert_eq!(busybox().id(), busybox().id());
        assert!(busybox_archive().len() > 1 << 20);
    }
}
