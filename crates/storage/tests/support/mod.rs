//! Stores in temporary directories, and images made entry by entry.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

pub mod registry;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use ferry_archive::{Entry, Kind, Time, Writer};
use ferry_storage::{Error, LoadOptions, Loaded, Store};
use serde_json::{Value, json};

pub fn sha256(bytes: &[u8]) -> String {
    ferry_image::Digest::of(bytes).to_string()
}

pub fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: PathBuf::from(path),
        kind,
        link: "".into(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: Time {
            secs: 1_600_000_000,
            nanos: 0,
        },
        xattrs: Vec::new(),
        segments: None,
        offset: 0,
    }
}

/// A tar of files; a name that ends in a slash is a directory, a content that begins with `->` a symbolic link.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (name, content) in files {
        if let Some(dir) = name.strip_suffix('/') {
            tar.header(&entry(dir, Kind::Directory)).unwrap();
        } else if let Some(target) = content.strip_prefix(b"->") {
            let link = String::from_utf8(target.to_vec()).unwrap().into();
            tar.header(&Entry {
                link,
                ..entry(name, Kind::Symlink)
            })
            .unwrap();
        } else {
            tar.file(&entry(name, Kind::File), content).unwrap();
        }
    }
    tar.finish().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Layers as uncompressed tars, and what a configuration says beside them.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub layers: Vec<Vec<u8>>,
    pub config: Value,
    pub tags: Vec<&'static str>,
}

impl Fixture {
    pub fn new(tag: &'static str, layers: &[Vec<u8>]) -> Self {
        let config = json!({ "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05.678Z",
            "config": { "Cmd": ["sh"], "Env": null, "Volumes": null, "Labels": null } });
        Self {
            layers: layers.to_vec(),
            config,
            tags: vec![tag],
        }
    }

    pub fn busybox(tag: &'static str) -> Self {
        Self::new(
            tag,
            &[
                tar(&[("bin/", b""), ("bin/busybox", b"binary"), ("bin/sh", b"->busybox")]),
                tar(&[("etc/hosts", b"x"), ("bin/.wh.sh", b"")]),
            ],
        )
    }

    pub fn raw_config(&self) -> Vec<u8> {
        let mut config = self.config.clone();
        let ids: Vec<_> = self.layers.iter().map(|layer| sha256(layer)).collect();
        if config.get("rootfs").is_none() {
            config["rootfs"] = json!({ "type": "layers", "diff_ids": ids });
        }
        serde_json::to_vec(&config).unwrap()
    }

    pub fn id(&self) -> String {
        sha256(&self.raw_config())
    }

    /// What `docker save` of old wrote: a directory a layer, the manifest last.
    pub fn docker_legacy(&self) -> Vec<(String, Vec<u8>)> {
        let config = self.raw_config();
        let mut files = Vec::new();
        let mut names = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let name = format!("{at}aaa/layer.tar");
            names.push(name.clone());
            files.push((format!("{at}aaa/VERSION"), b"1.0".to_vec()));
            match self.layers[..at].iter().position(|other| other == layer) {
                Some(same) => files.push((name, format!("->../{same}aaa/layer.tar").into_bytes())),
                None => files.push((name, layer.clone())),
            }
        }
        let name = format!("{}.json", &sha256(&config)[7..]);
        let manifest = json!([{ "Config": name, "RepoTags": self.tags, "Layers": names }]);
        files.push((name, config));
        files.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
        files
    }

    /// An OCI layout whose layers are compressed; the manifest's digest comes with it.
    pub fn oci(&self, compress: impl Fn(&[u8]) -> Vec<u8>, suffix: &str) -> (BTreeMap<String, Vec<u8>>, String) {
        let mut files = BTreeMap::new();
        files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let mut layers = Vec::new();
        for layer in &self.layers {
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            layers.push(blob(&mut files, compress(layer), &media_type));
        }
        let config = blob(
            &mut files,
            self.raw_config(),
            "application/vnd.oci.image.config.v1+json",
        );
        let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers });
        let mut entry = blob(
            &mut files,
            serde_json::to_vec(&manifest).unwrap(),
            "application/vnd.oci.image.manifest.v1+json",
        );
        let digest = entry["digest"].as_str().unwrap().to_owned();
        if let Some(tag) = self.tags.first() {
            entry["annotations"] = json!({ "io.containerd.image.name": format!("docker.io/library/{tag}"), "org.opencontainers.image.ref.name": "x" });
        }
        index(&mut files, &[entry]);
        (files, digest)
    }
}

pub fn blob(files: &mut BTreeMap<String, Vec<u8>>, bytes: Vec<u8>, media_type: &str) -> Value {
    let digest = sha256(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    files.insert(format!("blobs/sha256/{}", &digest[7..]), bytes);
    descriptor
}

pub fn index(files: &mut BTreeMap<String, Vec<u8>>, manifests: &[Value]) {
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests });
    files.insert("index.json".to_owned(), serde_json::to_vec(&index).unwrap());
}

pub fn archive<'a>(files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<u8> {
    let files: Vec<_> = files
        .into_iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    tar(&files)
}

pub fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    archive(files.iter().map(|(name, content)| (name, content)))
}

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("ferry")).unwrap();
        Self { dir, store }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("ferry")
    }

    pub fn reopen(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = Store::open(&dir.path().join("ferry")).unwrap();
        Self { dir, store }
    }

    pub fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>, Error> {
        self.store.images.load(archive, &LoadOptions::default(), |_| {})
    }

    /// Names in the directories that must be empty when nothing is stored; `tmp` is emptied in the background.
    pub fn litter(&self) -> Vec<String> {
        for _ in 0..200 {
            if names(&self.root().join("tmp")).is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        ["tmp", "layers", "blobs/sha256", "containers"]
            .iter()
            .flat_map(|dir| {
                names(&self.root().join(dir))
                    .into_iter()
                    .map(move |name| format!("{dir}/{name}"))
            })
            .collect()
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
