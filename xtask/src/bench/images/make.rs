//! The images that are moved, as OCI layouts: (a) a busybox, (b) many files of every kind, (c) noise. They are made from what a
//! machine has on which this runs, need no network, and stay below the target directory, so that they are made once.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::blob::{self, Blob};
use super::content;
use super::layer::Layer;
use crate::shell;
use crate::workspace::Workspace;

/// Changes with what is in the images: those of another version are made again.
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    A,
    B,
    C,
}

impl Image {
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    pub fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
        }
    }
}

/// An image that is there, and what it weighs.
#[derive(Debug)]
pub struct Made {
    pub layout: PathBuf,
    pub layers: u64,
    pub entries: u64,
    /// Bytes of all layers, as tar and compressed.
    pub tar: u64,
    pub gzip: u64,
}

impl Made {
    /// For the text above the table.
    pub fn line(&self, image: Image) -> String {
        let plural = |count: u64, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
        format!(
            "({}) {}, {}, {} MB of tar, {} MB compressed",
            image.letter(),
            plural(self.layers, "layer", "layers"),
            plural(self.entries, "entry", "entries"),
            tenths(self.tar),
            tenths(self.gzip)
        )
    }
}

/// Megabytes with one digit after the point.
fn tenths(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// The image, made now or before. `scale` shrinks what makes it large.
pub fn image(workspace: &Workspace, debian: &Path, image: Image, scale: f64) -> Result<Made> {
    let all = workspace.target.join("fixtures/bench-images");
    let layout = all.join(format!("v{VERSION}-{scale}")).join(image.letter());
    if !layout.join("made.json").is_file() {
        shell::step(&format!("make image ({})", image.letter()), || {
            let part = layout.with_extension("part");
            let _ = fs::remove_dir_all(&part);
            make(&part, debian, image, scale)?;
            fs::rename(&part, &layout).context("name the layout")
        })?;
    }
    let text = fs::read_to_string(layout.join("made.json")).context("read what was made")?;
    let made: Value = serde_json::from_str(&text).context("parse made.json")?;
    let number = |field: &str| {
        made[field]
            .as_u64()
            .with_context(|| format!("made.json has no {field}"))
    };
    Ok(Made {
        layers: number("layers")?,
        entries: number("entries")?,
        tar: number("tar")?,
        gzip: number("gzip")?,
        layout,
    })
}

fn make(layout: &Path, debian: &Path, image: Image, scale: f64) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("create {}", blobs.display()))?;
    let mut layers = Vec::new();
    let mut layer = |effort: u8, fill: &mut dyn FnMut(&mut Layer) -> Result<()>| -> Result<()> {
        let mut layer = Layer::begin(&blobs, effort)?;
        fill(&mut layer)?;
        layers.push(layer.finish()?);
        Ok(())
    };
    match image {
        Image::A => layer(6, &mut |layer| content::busybox(layer, debian))?,
        Image::B => content::many(debian, scale, &mut layer)?,
        // Level 1 finds just as little in it.
        Image::C => layer(1, &mut |layer| content::noise(layer, scale))?,
    }
    let sum = |of: fn(&Blob) -> u64| layers.iter().map(of).sum::<u64>();
    let made = json!({
        "layers": layers.len(), "entries": sum(|l| l.entries), "tar": sum(|l| l.tar), "gzip": sum(|l| l.size),
    });
    if image == Image::B && scale >= 1.0 && (sum(|l| l.tar) < 700_000_000 || sum(|l| l.entries) < 50_000) {
        bail!(
            "this machine has too few files for image (b), only {made}: the toolchain's documentation, cargo's sources and /usr/include are in it"
        );
    }
    index(layout, &blobs, &layers)?;
    fs::write(layout.join("made.json"), made.to_string()).context("write what was made")
}

/// Configuration, manifest and index (OCI image specification 1.1).
fn index(layout: &Path, blobs: &Path, layers: &[Blob]) -> Result<()> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
    let configuration = json!({
        "created": "2001-09-09T01:46:40Z", "architecture": architecture(), "os": "linux",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": layers.iter().map(|_| json!({ "created": "2001-09-09T01:46:40Z", "created_by": "cargo xtask bench --images" })).collect::<Vec<_>>(),
    });
    let (configuration, length) = blob::document(blobs, &configuration)?;
    let compressed = layers
        .iter()
        .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &layer.digest, layer.size));
    let (manifest, size) = blob::document(
        blobs,
        &json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &configuration, length),
            "layers": compressed.collect::<Vec<_>>(),
        }),
    )?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest, size);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).context("write the index")?;
    fs::write(
        layout.join("oci-layout"),
        json!({ "imageLayoutVersion": "1.0.0" }).to_string(),
    )
    .context("write the layout's version")
}

/// Go's name of this machine's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}
