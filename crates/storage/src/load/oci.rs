//! OCI image layouts: `index.json`, indexes below it, manifests (OCI image specification 1.1, "Image Layout").

use std::collections::BTreeMap;

use ferry_image::{Digest, Platform, Reference};
use serde::Deserialize;

use super::docker::MANIFEST_LIMIT;
use ferry_image::media::{ATTESTATION, ATTESTATION_SUBJECT, ATTESTATION_TYPE};

use super::{Planned, PlannedLayer, Spool, Spooled};
use crate::images::{CONFIG_LIMIT, diff_ids, is_sha256, parse_config};
use crate::origin::{ATTESTATION_PARTS, ATTESTATIONS_LIMIT, Origin};
use crate::{Error, Result, images, names};

/// Indexes inside indexes.
const DEPTH: usize = 8;

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

/// An index on the way to an image, and what is no image in it.
struct Index {
    file: Spooled,
    beside: Vec<Descriptor>,
}

/// An index or a manifest: what it is shows in what it has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
}

pub fn plan(spool: &Spool, platform: Option<&Platform>) -> Result<Vec<Planned>> {
    let index = parse(&spool.read("index.json", MANIFEST_LIMIT)?, "index.json")?;
    let entries = index
        .manifests
        .ok_or_else(|| Error::Invalid("index.json names no manifests".to_owned()))?;
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    // Entries under one name are one image for several platforms.
    let mut groups: Vec<(Option<String>, Vec<Descriptor>)> = Vec::new();
    for entry in entries.into_iter().filter(is_image) {
        let name = name(&entry);
        match groups.iter_mut().find(|(known, _)| name.is_some() && *known == name) {
            Some((_, group)) => group.push(entry),
            None => groups.push((name, vec![entry])),
        }
    }
    let mut images = Vec::new();
    for (name, group) in groups {
        let references = name.as_deref().map(reference).transpose()?.flatten();
        let entry = choose(&group, &wanted, platform.is_some())?;
        images.push(image(
            spool,
            &entry,
            &wanted,
            platform.is_some(),
            references,
            &mut Vec::new(),
        )?);
    }
    if images.is_empty() {
        return Err(Error::Invalid("index.json names no image".to_owned()));
    }
    Ok(images)
}

fn image(
    spool: &Spool,
    entry: &Descriptor,
    wanted: &Platform,
    strict: bool,
    reference: Option<Reference>,
    indexes: &mut Vec<Index>,
) -> Result<Planned> {
    let (digest, file) = blob(spool, entry)?;
    let file = file.ok_or_else(|| Error::Invalid(format!("the archive lacks the manifest {digest}")))?;
    let document = parse(&images::read(&file.path, "manifest", MANIFEST_LIMIT)?, &entry.digest)?;
    if let Some(manifests) = document.manifests {
        if indexes.len() == DEPTH {
            return Err(Error::Invalid("the indexes are nested too deep".to_owned()));
        }
        let (manifests, beside): (Vec<_>, Vec<_>) = manifests.into_iter().partition(is_image);
        let entry = choose(&manifests, wanted, strict)?;
        indexes.push(Index { file, beside });
        return image(spool, &entry, wanted, strict, reference, indexes);
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(Error::Invalid(format!("{digest} is neither a manifest nor an index")));
    };
    let (config_digest, config_file) = blob(spool, &config)?;
    let config_file =
        config_file.ok_or_else(|| Error::Invalid(format!("the archive lacks the configuration {config_digest}")))?;
    let raw_config = images::read(&config_file.path, "configuration", CONFIG_LIMIT)?;
    let parsed = parse_config(&raw_config)?;
    let diff_ids = diff_ids(&parsed)?;
    if layers.len() != diff_ids.len() {
        return Err(Error::Invalid(format!(
            "invalid manifest, layers length mismatch: expected {}, got {}",
            diff_ids.len(),
            layers.len(),
        )));
    }
    let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        let (digest, file) = blob(spool, layer)?;
        let media_type = Some(layer.media_type.clone());
        Ok(PlannedLayer {
            diff_id,
            file,
            name: digest.to_string(),
            media_type,
        })
    });
    Ok(Planned {
        raw_config,
        config: parsed,
        layers: layers.collect::<Result<_>>()?,
        origin: origin(spool, indexes, &digest)?,
        manifest: Some((digest, file)),
        parent: None,
        references: reference.into_iter().collect(),
    })
}

/// The indexes that lead to a manifest, outermost first, and what the innermost knows about it. What the archive lacks, and
/// attestations that are no manifests or too large, stay out.
fn origin(spool: &Spool, indexes: &[Index], manifest: &Digest) -> Result<Option<(Origin, Vec<Spooled>)>> {
    let (Some(first), Some(last)) = (indexes.first(), indexes.last()) else {
        return Ok(None);
    };
    let mut files: Vec<Spooled> = indexes.iter().map(|index| index.file.clone()).collect();
    let mut left = ATTESTATIONS_LIMIT;
    for entry in last.beside.iter().filter(|entry| is_about(entry, manifest)) {
        let Ok((_, Some(file))) = blob(spool, entry) else {
            continue;
        };
        let Some(document) = images::read(&file.path, "attestation", MANIFEST_LIMIT)
            .and_then(|bytes| parse(&bytes, &entry.digest))
            .ok()
        else {
            continue;
        };
        let named = document.config.iter().chain(document.layers.iter().flatten());
        let named: Vec<Spooled> = named.filter_map(|named| blob(spool, named).ok()?.1).collect();
        let size = named
            .iter()
            .fold(file.size, |sum, named| sum.saturating_add(named.size));
        if size > left || files.len() + named.len() >= ATTESTATION_PARTS {
            break;
        }
        left -= size;
        files.push(file);
        files.extend(named);
    }
    let index = first.file.digest.clone();
    let mut parts: Vec<Digest> = files.iter().map(|file| file.digest.clone()).collect();
    parts.retain(|digest| *digest != index);
    parts.sort();
    parts.dedup();
    Ok(Some((Origin { index, parts }, files)))
}

fn parse(bytes: &[u8], what: &str) -> Result<Document> {
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| Error::Invalid(format!("invalid {what}: {error}")))?;
    // CVE-2021-41190: one document that is two, depending on who reads it.
    if document.manifests.is_some() && (document.layers.is_some() || document.config.is_some()) {
        return Err(Error::Invalid(format!("{what} is a manifest and an index at once")));
    }
    match document.schema_version {
        Some(2) | None => Ok(document),
        Some(1) => Err(Error::Invalid(format!(
            "{what} is a schema 1 manifest, which is not supported any more"
        ))),
        Some(other) => Err(Error::Invalid(format!("{what} has the unknown schema version {other}"))),
    }
}

/// The blob of a descriptor, if the archive has it, with digest and size verified.
fn blob(spool: &Spool, descriptor: &Descriptor) -> Result<(Digest, Option<Spooled>)> {
    let text = &descriptor.digest;
    let digest: Digest = text
        .parse()
        .map_err(|_| Error::Invalid(format!("invalid digest {text:?}")))?;
    if !is_sha256(&digest) {
        return Err(Error::Invalid(format!("unsupported digest algorithm in {digest}")));
    }
    let file = spool.find(&format!("blobs/sha256/{}", digest.encoded()))?;
    if let Some(file) = &file {
        if file.digest != digest {
            return Err(Error::Invalid(format!(
                "the blob {digest} has the digest {}",
                file.digest
            )));
        }
        if file.size != descriptor.size {
            let (expected, found) = (descriptor.size, file.size);
            return Err(Error::Invalid(format!(
                "the blob {digest} has {found} bytes instead of {expected}"
            )));
        }
    }
    Ok((digest, file))
}

/// Not an attestation, which BuildKit lists beside the image it is about.
fn is_image(descriptor: &Descriptor) -> bool {
    let attestation = descriptor
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(ATTESTATION_TYPE));
    let unknown = descriptor
        .platform
        .as_ref()
        .is_some_and(|platform| platform.os == "unknown");
    !attestation && !unknown
}

fn is_about(descriptor: &Descriptor, manifest: &Digest) -> bool {
    let says = |key: &str| Some(descriptor.annotations.as_ref()?.get(key)?.as_str());
    says(ATTESTATION_TYPE) == Some(ATTESTATION) && says(ATTESTATION_SUBJECT) == Some(&manifest.to_string())
}

fn name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .find_map(|key| annotations.get(*key).cloned())
}

/// A bare `latest` is a tag of nothing and leaves the image without a name.
fn reference(name: &str) -> Result<Option<Reference>> {
    if !name.contains([':', '/']) {
        return Ok(None);
    }
    names::parse(name).map(Some)
}

/// The best entry for the wanted platform; one alone, or one that says nothing about platforms, is taken unless a platform
/// was asked for.
fn choose(entries: &[Descriptor], wanted: &Platform, strict: bool) -> Result<Descriptor> {
    let offered: Vec<_> = entries
        .iter()
        .filter_map(|entry| Some((entry.platform.as_ref()?, entry)))
        .collect();
    let best = wanted
        .choose(offered.iter().map(|(platform, _)| *platform))
        .and_then(|at| offered.get(at));
    let silent = || entries.iter().find(|entry| entry.platform.is_none());
    let only = || entries.first().filter(|_| entries.len() == 1 && !strict);
    best.map(|(_, entry)| *entry)
        .or_else(silent)
        .or_else(only)
        .cloned()
        .ok_or_else(|| {
            let found: Vec<_> = offered.iter().map(|(platform, _)| platform.to_string()).collect();
            Error::Invalid(format!(
                "no image for {wanted} in the archive, only for {}",
                found.join(", ")
            ))
        })
}
