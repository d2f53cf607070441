//! Docker's archives: `manifest.json` names a configuration, tags and layers (moby image/tarexport, 28.5).

use ferry_image::{Digest, Reference};
use serde::Deserialize;

use super::{Planned, PlannedLayer, Spool};
use crate::images::{CONFIG_LIMIT, diff_ids, parse_config};
use crate::{Error, Result};

/// Largest `manifest.json`, in bytes.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

pub fn plan(spool: &Spool) -> Result<Vec<Planned>> {
    let bytes = spool.read("manifest.json", MANIFEST_LIMIT)?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|error| Error::Invalid(format!("invalid manifest.json: {error}")))?;
    let mut images: Vec<Planned> = items
        .into_iter()
        .map(|item| image(spool, item))
        .collect::<Result<_>>()?;
    // As Docker: a parent counts if it is in the archive, too, and the image has all of its layers.
    let ids: Vec<_> = images.iter().map(|image| Digest::of(&image.raw_config)).collect();
    for at in 0..images.len() {
        let parent = images[at]
            .parent
            .as_ref()
            .and_then(|parent| ids.iter().position(|id| id == parent));
        let fits = parent.is_some_and(|parent| parent != at && is_child(&images[at], &images[parent]));
        if !fits {
            images[at].parent = None;
        }
    }
    Ok(images)
}

fn is_child(image: &Planned, parent: &Planned) -> bool {
    let layers = |image: &Planned| {
        image
            .layers
            .iter()
            .map(|layer| layer.diff_id.clone())
            .collect::<Vec<_>>()
    };
    layers(image).starts_with(&layers(parent))
}

fn image(spool: &Spool, item: Item) -> Result<Planned> {
    let raw_config = spool.read(&item.config, CONFIG_LIMIT)?;
    let config = parse_config(&raw_config)?;
    let diff_ids = diff_ids(&config)?;
    let files = item.layers.unwrap_or_default();
    if files.len() != diff_ids.len() {
        return Err(Error::Invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            diff_ids.len(),
            files.len(),
        )));
    }
    let layers = files.into_iter().zip(diff_ids).map(|(name, diff_id)| {
        let file = spool.find(&name)?;
        let compression = file.as_ref().map_or(Ok(None), super::Spooled::compression)?;
        let media_type = compression.map(|compression| format!("application/vnd.oci.image.layer.v1.tar+{compression}"));
        Ok(PlannedLayer {
            diff_id,
            file,
            name,
            media_type,
        })
    });
    let tags = item.repo_tags.unwrap_or_default().into_iter().map(|tag| {
        let reference = Reference::parse_named(&tag).map_err(|error| Error::Invalid(error.to_string()))?;
        let tagged = reference.tag().is_some() && reference.digest().is_none();
        tagged
            .then_some(reference)
            .ok_or_else(|| Error::Invalid(format!("invalid tag {tag:?}")))
    });
    Ok(Planned {
        raw_config,
        config,
        layers: layers.collect::<Result<_>>()?,
        manifest: None,
        origin: None,
        parent: item.parent.and_then(|parent| parent.parse().ok()),
        references: tags.collect::<Result<_>>()?,
    })
}
