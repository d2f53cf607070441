//! OCI layouts of clients': images in them that builds are based on, and images that become one.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ferry_build::output::OutputKind;
use ferry_build::progress::Events;
use ferry_build::request::Layout;
use ferry_build::session::ContentStore;
use ferry_build::workspace::Image;
use ferry_build::{Error, Result, Session};
use ferry_distribution::{Content, Descriptor};
use ferry_image::media::{self, Kind};
use ferry_image::{Digest, Platform, Reference, chain_ids};
use ferry_storage::{Built, Held, Packing};
use serde::Deserialize;
use serde_json::json;

use super::cache::{Handing, Kept, bring, media_type, small};
use super::export::part;
use super::workshop::{self, Workshop, failed};
use crate::images::{Blobs, CONFIG_MAX, LAYERS};
use crate::world::blocking;

/// The most bytes of a manifest.
const MANIFEST_MAX: u64 = 4 << 20;
/// How deep indexes may lie in each other.
const INDEXES: usize = 4;
/// The name of the store that a result is written to, in the session.
const EXPORT: &str = "export";

/// What of a configuration says which files it is about.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// Brings an image in, as layers that stay as long as the build. It is none of the engine's images.
pub(super) async fn find(
    shop: &Workshop,
    name: &str,
    layout: &Layout,
    platform: &Platform,
    session: &Arc<dyn Session>,
    (events, vertex): (&Events, &str),
) -> Result<Image> {
    let store = session.store(&layout.store).await?;
    let store = store.ok_or_else(|| Error::NotFound(format!("the client does not offer the OCI layout of {name}")))?;
    let (config, layers) = choose(&*store, &layout.digest, platform).await?;
    if media::Kind::of(&config.media_type) != Kind::Config {
        let kind = &config.media_type;
        return Err(Error::invalid(format!("it is no image: its configuration is {kind:?}")));
    }
    let raw = small(&*store, &config.digest, CONFIG_MAX).await?;
    let read: Config =
        serde_json::from_slice(&raw).map_err(|error| Error::invalid(format!("its configuration: {error}")))?;
    let diff_ids = read.rootfs.diff_ids;
    if diff_ids.len() != layers.len() || layers.len() > LAYERS {
        return Err(Error::invalid(format!(
            "it has {} layers, and its configuration names {} (at most {LAYERS})",
            layers.len(),
            diff_ids.len()
        )));
    }
    let chain = chain_ids(&diff_ids);
    let blobs: Arc<dyn Blobs> = Arc::new(Kept::new(store));
    let layers = diff_ids.into_iter().zip(layers.into_iter().map(Some)).collect();
    let held = bring(shop, &blobs, layers, (events, vertex)).await?;
    shop.hold(&config.digest, held);
    Ok(Image {
        name: format!("{name}@{}", layout.digest),
        id: config.digest,
        config: raw,
        platform: Platform::new(&read.os, &read.architecture, &read.variant),
        layers: chain,
    })
}

/// The configuration and the layers for a platform, of a manifest or of one that an index names.
async fn choose(
    store: &dyn ContentStore,
    digest: &Digest,
    platform: &Platform,
) -> Result<(Descriptor, Vec<Descriptor>)> {
    let mut digest = digest.clone();
    for _ in 0..=INDEXES {
        let bytes = small(store, &digest, MANIFEST_MAX).await?;
        let content = Content::of(&bytes).ok_or_else(|| Error::invalid(format!("{digest} is no manifest")))?;
        let manifests = match content {
            Content::Image { config, layers } => return Ok((*config, layers)),
            Content::Index { manifests } => manifests,
        };
        // What names no platform runs on any.
        let platforms: Vec<Platform> = manifests
            .iter()
            .map(|manifest| manifest.platform.as_ref().map_or_else(|| platform.clone(), Into::into))
            .collect();
        let at = platform.choose(&platforms);
        let at = at.ok_or_else(|| Error::NotFound(format!("no match for platform {platform} in {digest}")))?;
        digest = manifests[at].digest.clone();
    }
    Err(Error::invalid(format!("more than {INDEXES} indexes in each other")))
}

/// Writes an image to a directory of the client's; what clients are told.
pub(super) async fn write(
    shop: &Workshop,
    (built, held): (Built, Vec<Held>),
    kind: OutputKind,
    session: &Arc<dyn Session>,
    (events, vertex): (&Events, &str),
) -> Result<BTreeMap<String, String>> {
    let store = session.store(EXPORT).await?;
    let store = store.ok_or_else(|| Error::invalid("the client takes no OCI layout"))?;
    let mut layers = Vec::new();
    for held in &held {
        layers.push(held.settled().await.map_err(failed("make a layer"))?);
    }
    let packing = Packing::default();
    let (images, asked) = (shop.world.store.images.clone(), layers.clone());
    let known = blocking("look for the layers", move || images.travelling(&asked, packing)).await;
    let known = known.map_err(|error| Error::Internal(error.message))?;
    let known = known.map_err(failed("look for the layers"))?;
    let handing = Handing {
        shop,
        events,
        vertex,
        store: &store,
        packing,
    };
    let is_oci = kind == OutputKind::Oci;
    let mut listed = Vec::new();
    for (layer, known) in layers.into_iter().zip(known) {
        let blob = handing.layer(layer, known).await?;
        listed.push(Descriptor::new(
            media_type(&blob.media_type, is_oci),
            blob.digest,
            blob.size,
        ));
    }
    let (config_type, manifest_type) = match is_oci {
        true => (media::OCI_CONFIG, media::OCI_MANIFEST),
        false => (media::DOCKER_CONFIG, media::DOCKER_MANIFEST),
    };
    let config = Descriptor::of(config_type, &built.config);
    let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": listed });
    let manifest = serde_json::to_vec(&manifest).map_err(|error| Error::internal("write the manifest", &error))?;
    let described = Descriptor::of(manifest_type, &manifest);
    for (what, descriptor, bytes) in [
        ("config", &config, Bytes::from(built.config)),
        ("manifest", &described, Bytes::from(manifest)),
    ] {
        let writing = part(events, vertex, &format!("exporting {what} {}", descriptor.digest));
        let content = Box::new(io::Cursor::new(bytes));
        store.write(&descriptor.digest, descriptor.size, content).await?;
        writing.end();
    }
    let json = serde_json::to_string(&described).map_err(|error| Error::internal("write the index", &error))?;
    for tag in tags(&built.references) {
        store.publish(&tag, &json).await?;
    }
    let mut told = BTreeMap::from([
        ("containerimage.digest".to_owned(), described.digest.to_string()),
        ("containerimage.config.digest".to_owned(), config.digest.to_string()),
        ("containerimage.descriptor".to_owned(), STANDARD.encode(json)),
    ]);
    if !built.references.is_empty() {
        let names: Vec<String> = built.references.iter().map(ToString::to_string).collect();
        told.insert("image.name".to_owned(), names.join(","));
    }
    Ok(told)
}

/// What the index calls it.
fn tags(references: &[Reference]) -> Vec<String> {
    let mut tags: Vec<String> = references
        .iter()
        .filter_map(|reference| reference.tag().map(str::to_owned))
        .collect();
    tags.dedup();
    match tags.is_empty() {
        true => vec!["latest".to_owned()],
        false => tags,
    }
}

impl Workshop {
    fn hold(&self, id: &Digest, held: Vec<Held>) {
        let layers = held.into_iter().map(|held| workshop::Layer { held, created: None });
        let mut brought = self.brought.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        brought.insert(id.clone(), layers.collect());
    }
}
