//! `docker import`: a root file system as one tar becomes an image of one layer.

use std::io::Read;
use std::sync::Arc;

use ferry_image::{Platform, Reference};
use jiff::Timestamp;
use serde::Serialize;

use crate::changes::{self, Config};
use crate::images::{Image, Images, NewImage, parse_config};
use crate::load::LoadOptions;
use crate::{Error, Result};

#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    pub reference: Option<Reference>,
    /// Defaults to what Docker says for standard input.
    pub message: Option<String>,
    /// Dockerfile instructions, one each: what `docker import -c` takes.
    pub changes: Vec<String>,
    /// What the root file system is for, recorded as it stands here; defaults to this machine's.
    pub platform: Option<Platform>,
    /// What is recorded as `docker_version`.
    pub engine_version: String,
    pub bounds: LoadOptions,
}

/// moby's image.Image: its keys are sorted on the top level, its structs are not.
#[derive(Serialize)]
struct ImageJson<'a> {
    architecture: &'a str,
    comment: &'a str,
    config: &'a Config,
    container_config: Config,
    created: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    docker_version: &'a str,
    history: [History<'a>; 1],
    os: &'a str,
    rootfs: RootFs,
    #[serde(skip_serializing_if = "str::is_empty")]
    variant: &'a str,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    comment: &'a str,
}

#[derive(Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: [String; 1],
}

impl Images {
    /// Reads a tar stream, compressed or not, to its end and makes an image of it. Blocks.
    ///
    /// Fails with [`Error::Invalid`], in Docker's words, for a change instruction that is not one, before reading anything.
    pub fn import(&self, stream: impl Read + Send, options: &ImportOptions) -> Result<Arc<Image>> {
        let config = changes::parse(&options.changes)?;
        let pin = self.shared.unpack_stream(stream, &[], &options.bounds)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let created = go_time(Timestamp::now());
        let comment = options.message.as_deref().unwrap_or("Imported from -");
        let json = ImageJson {
            architecture: &platform.architecture,
            comment,
            config: &config,
            container_config: Config::default(),
            created: &created,
            docker_version: &options.engine_version,
            history: [History {
                created: &created,
                comment,
            }],
            os: &platform.os,
            rootfs: RootFs {
                r#type: "layers",
                diff_ids: [pin.layer.diff_id.to_string()],
            },
            variant: &platform.variant,
        };
        let raw_config = go_json(&json)?;
        self.add(NewImage {
            config: parse_config(&raw_config)?,
            raw_config,
            pins: vec![pin],
            manifest: None,
            origin: None,
            parent: None,
            references: options.reference.iter().cloned().collect(),
        })
    }
}

/// RFC 3339 with as many digits of the second as are not zero, as Go's encoding/json writes a time.
pub(crate) fn go_time(time: Timestamp) -> String {
    time.to_string()
}

/// JSON as Go's encoding/json writes it, which escapes what HTML and JavaScript could stumble over.
pub(crate) fn go_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let json = serde_json::to_string(value).map_err(|error| Error::Invalid(error.to_string()))?;
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped += &format!("\\u{:04x}", u32::from(character)),
            other => escaped.push(other),
        }
    }
    Ok(escaped.into_bytes())
}
