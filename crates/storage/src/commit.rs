//! `docker commit`: what a container changed becomes a layer on top of its image; and `docker export`.
//!
//! The upper directory goes through the same tar as it would to a registry ([`ferry_archive::diff`]) and is unpacked from it, so
//! that the layer on disk is the one its digest speaks of.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use ferry_archive::{Changed, DiffOptions, Shift, diff, merged};
use ferry_image::{Digest, Reference};
use ferry_sys::Root;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::changes::{self, Config};
use crate::error::Context as _;
use crate::images::{Image, Images, NewImage, parse_config};
use crate::import::{go_json, go_time};
use crate::layers::Pin;
use crate::load::LoadOptions;
use crate::{Error, Result};

#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// Its full id.
    pub container: String,
    /// What the image is to run, as JSON in the shape of moby's container.Config.
    pub config: serde_json::Value,
    /// What the container runs, in the same shape.
    pub container_config: serde_json::Value,
    pub author: String,
    pub comment: String,
    pub reference: Option<Reference>,
    /// What is recorded as `docker_version`.
    pub engine_version: String,
    pub source: UpperOptions,
}

/// How a container's writable directory is read.
#[derive(Clone, Debug, Default)]
pub struct UpperOptions {
    /// The ids of its user namespace.
    pub shift: Option<Shift>,
    /// What the engine made there to mount something on, relative to the root.
    pub made: Vec<PathBuf>,
}

/// moby's image.Image: its keys are sorted on the top level, its structs are not.
#[derive(Serialize)]
struct ImageJson<'a> {
    architecture: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    author: &'a str,
    config: &'a Config,
    container: &'a str,
    container_config: &'a Config,
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    docker_version: &'a str,
    history: Vec<History>,
    os: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "os.features")]
    os_features: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty", rename = "os.version")]
    os_version: &'a str,
    rootfs: RootFs,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    author: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "is_not")]
    empty_layer: Option<bool>,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: Vec<String>,
}

fn is_empty(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_not(switch: &Option<bool>) -> bool {
    *switch != Some(true)
}

fn shape(what: &str, value: &serde_json::Value) -> Result<Config> {
    serde_json::from_value(value.clone()).map_err(|error| Error::Invalid(format!("the {what}: {error}")))
}

/// Applies Dockerfile instructions to a configuration in the shape of moby's container.Config.
///
/// Fails with [`Error::Invalid`], in Docker's words, for an instruction that is not one.
pub fn apply_changes(config: &serde_json::Value, changes: &[String]) -> Result<serde_json::Value> {
    let changed = changes::parse_on(shape("configuration", config)?, changes)?;
    serde_json::to_value(changed).map_err(|error| Error::Invalid(format!("the configuration: {error}")))
}

impl Images {
    /// Makes an image of a container's file system on top of `parent`, which it was made from. Blocks.
    ///
    pub fn commit(&self, parent: &Arc<Image>, options: &CommitOptions) -> Result<Arc<Image>> {
        let container_config = shape("container's configuration", &options.container_config)?;
        let config = shape("configuration", &options.config)?;
        let mut pins = self.pins(&options.container)?;
        let top = self.layer(&options.container, &pins, &options.source)?;
        // A tar of nothing at all makes no layer, as in Docker.
        let empty = top.layer.diff_id == Digest::of([0; 1024]);
        if !empty {
            pins.push(top);
        }
        let raw: serde_json::Value = serde_json::from_slice(&parent.raw_config)
            .map_err(|error| Error::Invalid(format!("the configuration of {}: {error}", parent.id)))?;
        let text = |key: &str| raw.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        let list = |key: &str| raw.get(key).filter(|value| !value.is_null()).cloned();
        let wrong = |error: serde_json::Error| Error::Invalid(format!("the configuration of {}: {error}", parent.id));
        let mut history: Vec<History> = match list("history") {
            Some(history) => serde_json::from_value(history).map_err(wrong)?,
            None => Vec::new(),
        };
        let created = go_time(Timestamp::now());
        let command = options.container_config.get("Cmd").and_then(|words| words.as_array());
        let words = command.into_iter().flatten().filter_map(serde_json::Value::as_str);
        history.push(History {
            created: Some(created.clone()),
            created_by: Some(words.collect::<Vec<_>>().join(" ")),
            author: Some(options.author.clone()),
            comment: Some(options.comment.clone()),
            empty_layer: Some(empty),
        });
        let os_features = match list("os.features") {
            Some(features) => serde_json::from_value(features).map_err(wrong)?,
            None => Vec::new(),
        };
        let diff_ids = pins.iter().map(|pin| pin.layer.diff_id.to_string()).collect();
        let raw_config = go_json(&ImageJson {
            architecture: text("architecture"),
            author: &options.author,
            config: &config,
            container: &options.container,
            container_config: &container_config,
            created: &created,
            docker_version: &options.engine_version,
            history,
            os: text("os"),
            os_features,
            os_version: text("os.version"),
            rootfs: RootFs {
                r#type: "layers",
                diff_ids,
            },
            variant: text("variant"),
        })?;
        self.add(NewImage {
            config: parse_config(&raw_config)?,
            raw_config,
            pins,
            manifest: None,
            origin: None,
            parent: Some(parent.id.clone()),
            references: options.reference.iter().cloned().collect(),
        })
    }

    /// Writes a container's whole file system, without what is mounted into it, as a tar stream. Blocks.
    pub fn export(&self, container: &str, options: &UpperOptions, out: impl Write) -> Result<()> {
        let pins = self.pins(container)?;
        let snapshot = self.shared.snapshot_of(container)?;
        let mut layers = Vec::new();
        for path in std::iter::once(&snapshot.upper).chain(&snapshot.layers) {
            layers.push(Root::open(path).at("open", path)?);
        }
        let wrong = |source| Error::archive("the container's file system", &snapshot.upper, source);
        let written = merged(&layers, options.shift, out).map_err(wrong)?;
        tell(container, &written.warnings);
        drop(pins);
        Ok(())
    }

    /// What a container changed of its image's files. Blocks.
    pub fn changes(&self, container: &str, options: &UpperOptions) -> Result<Vec<Changed>> {
        let pins = self.pins(container)?;
        let snapshot = self.shared.snapshot_of(container)?;
        let upper = Root::open(&snapshot.upper).at("open", &snapshot.upper)?;
        let options = DiffOptions {
            shift: options.shift,
            made: &options.made,
            lower: &self.shared.roots(&pins)?,
            recorder: None,
        };
        let wrong = |source| Error::archive("the container's file system", &snapshot.upper, source);
        ferry_archive::changed(&upper, &options).map_err(wrong)
    }

    /// The layers a container holds, lowest first.
    fn pins(&self, container: &str) -> Result<Vec<Pin>> {
        let chains = self.shared.layers_of(container)?;
        let pins = chains.iter().rev().map(|chain| self.shared.layers.get(chain));
        pins.collect::<Option<_>>()
            .ok_or_else(|| Error::Invalid(format!("container {container} has lost a layer of its image")))
    }

    /// The changes as a layer, which may be there already.
    fn layer(&self, container: &str, below: &[Pin], options: &UpperOptions) -> Result<Pin> {
        let snapshot = self.shared.snapshot_of(container)?;
        let path = &snapshot.upper;
        let upper = Root::open(path).at("open", path)?;
        let lower = self.shared.roots(below)?;
        let (reader, writer) = std::io::pipe().at("make a pipe for", path)?;
        std::thread::scope(|scope| {
            let read = scope.spawn(|| {
                let options = DiffOptions {
                    shift: options.shift,
                    made: &options.made,
                    lower: &lower,
                    recorder: None,
                };
                let written = diff(&upper, BufWriter::with_capacity(64 << 10, writer), &options)?;
                tell(container, &written.warnings);
                Ok(())
            });
            let limits = LoadOptions::default();
            let unpacked = self.shared.unpack_stream(reader, below, &limits);
            let read = read.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match (read, unpacked) {
                // Nobody to write to: the other side has failed, and knows why.
                (Err(ferry_archive::Error::Read { .. }), Err(error)) => Err(error),
                (Err(error), _) => Err(Error::archive("the container's file system", path, error)),
                (Ok(()), unpacked) => unpacked,
            }
        })
    }
}

fn tell(container: &str, warnings: &[ferry_archive::Warning]) {
    for warning in warnings {
        tracing::warn!(container, path = %warning.path.display(), "{}", warning.what);
    }
}
