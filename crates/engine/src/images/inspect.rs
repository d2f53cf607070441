//! An image as `image inspect` shows it.

use std::collections::BTreeMap;

use ferry_api::Timestamp;
use ferry_api::container::GraphDriver;
use ferry_api::image::{Config, Inspect, Metadata, RootFs};
use ferry_storage::Image;

use crate::error::{Error, Result};

pub(super) fn inspect(image: &Image, layers: &[std::path::PathBuf]) -> Result<Inspect> {
    let raw: serde_json::Value = serde_json::from_slice(&image.raw_config)
        .map_err(|error| Error::internal(format!("read the configuration of image {}", image.id), &error))?;
    let text = |key: &str| {
        raw.get(key)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut config: Option<Config> = match raw.get("config") {
        None | Some(serde_json::Value::Null) => None,
        Some(config) => Some(
            serde_json::from_value(config.clone())
                .map_err(|error| Error::internal(format!("read the configuration of image {}", image.id), &error))?,
        ),
    };
    if let Some(config) = &mut config {
        // An empty list is shown as none.
        config.cmd = config.cmd.take().filter(|words| !words.is_empty());
        config.entrypoint = config.entrypoint.take().filter(|words| !words.is_empty());
    }
    let mut comment = text("comment");
    if comment.is_empty()
        && let Some(last) = image.config.history().as_ref().and_then(|history| history.last())
    {
        comment = last.comment().clone().unwrap_or_default();
    }
    Ok(Inspect {
        id: image.id.to_string(),
        repo_tags: Some(super::tags(image)),
        repo_digests: Some(super::repo_digests(image)),
        parent: image.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
        comment,
        created: image.created.map(Timestamp),
        docker_version: text("docker_version"),
        author: text("author"),
        architecture: text("architecture"),
        variant: text("variant"),
        os: text("os"),
        os_version: text("os.version"),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        graph_driver: graph_driver(layers),
        root_fs: RootFs {
            r#type: "layers".to_owned(),
            layers: image.layers.iter().map(|layer| layer.diff_id.to_string()).collect(),
        },
        metadata: Metadata {
            last_tag_time: image.last_tagged.map_or(Timestamp::ZERO, Timestamp),
        },
        config,
        ..Inspect::default()
    })
}

/// The layers as overlay2 shows them: the topmost is the upper one.
fn graph_driver(layers: &[std::path::PathBuf]) -> GraphDriver {
    let mut data = BTreeMap::new();
    let text: Vec<String> = layers.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    if let Some((top, lower)) = text.split_first() {
        if !lower.is_empty() {
            data.insert("LowerDir".to_owned(), lower.join(":"));
        }
        let beside = |name: &str| {
            top.strip_suffix("/fs")
                .map_or_else(String::new, |layer| format!("{layer}/{name}"))
        };
        data.insert("MergedDir".to_owned(), beside("merged"));
        data.insert("WorkDir".to_owned(), beside("work"));
        data.insert("UpperDir".to_owned(), top.clone());
    }
    GraphDriver {
        data: Some(data),
        name: "overlay2".to_owned(),
    }
}
