//! Docker's archives: `manifest.json` names a configuration, tags and layers (moby image/tarexport, 28.5).

use ferry_image::Reference;
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
}

pub fn plan(spool: &Spool) -> Result<Vec<Planned>> {
    let bytes = spool.read("manifest.json", MANIFEST_LIMIT)?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|error| Error::Invalid(format!("invalid manifest.json: {error}")))?;
    items.into_iter().map(|item| image(spool, item)).collect()
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
        references: tags.collect::<Result<_>>()?,
    })
}
