//! Registries, asked by the command line itself: a manifest list is nothing that the engine has.

use bytes::Bytes;
use ferry_api::image::{Descriptor, Platform};
use ferry_distribution::{Client, Content, Credentials, Error, Manifest, Options, Proxies, Repository};
use ferry_image::Reference;

use super::lists::Entry;
use crate::commands::Call;
use crate::commands::login;
use crate::failure::{Failure, Result};

const CERTIFICATES: [&str; 2] = ["/etc/ferry/certs.d", "/etc/docker/certs.d"];
/// Largest configuration that is read for its platform, in bytes.
const CONFIG_MAX: u64 = 8 << 20;

/// What Docker says of a list in a list.
const NESTED: &str = "unsupported manifest type: *manifestlist.DeserializedManifestList";

/// What a registry has under a name.
pub enum Found {
    Image(Entry),
    /// Its media type, and entries without their bytes.
    List(Manifest),
}

/// Where a reference is, for this user.
pub async fn repository(call: &Call<'_>, reference: &Reference) -> Result<Repository> {
    let variable = |name: &str| {
        let found = call.env.variable(name).or(call.env.variable(&name.to_lowercase()));
        found.unwrap_or_default().to_owned()
    };
    let domain = reference.domain();
    let insecure = match call.matches.switch("insecure") {
        true => vec![domain.to_owned()],
        false => Vec::new(),
    };
    let options = Options {
        user_agent: format!("ferry/{}", call.env.build.version),
        proxies: Proxies {
            http: variable("HTTP_PROXY"),
            https: variable("HTTPS_PROXY"),
            none: variable("NO_PROXY"),
        },
        insecure,
        certificates: CERTIFICATES.iter().map(Into::into).collect(),
        ..Options::default()
    };
    let credentials: Credentials = login::stored(call, domain).await?;
    let client = Client::new(options).map_err(|error| said(&error))?;
    client.repository(reference, &credentials).map_err(|error| said(&error))
}

/// What a reference names in its registry.
pub async fn find(call: &Call<'_>, reference: &Reference) -> Result<Found> {
    let repository = repository(call, reference).await?;
    let manifest = repository.resolve(reference).await;
    let manifest = manifest.map_err(|error| missing(&error, reference))?;
    match manifest.content {
        Content::Index { .. } => Ok(Found::List(manifest)),
        Content::Image { .. } => Ok(Found::Image(entry(&repository, reference, manifest, None).await?)),
    }
}

/// The manifests of a list, each under the list's name and its own digest.
pub async fn entries(call: &Call<'_>, reference: &Reference, list: &Manifest) -> Result<Vec<Entry>> {
    let repository = repository(call, reference).await?;
    let Content::Index { manifests } = &list.content else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for named in manifests {
        let manifest = repository
            .manifest(named)
            .await
            .map_err(|error| missing(&error, reference))?;
        if matches!(manifest.content, Content::Index { .. }) {
            return Err(Failure::new(NESTED));
        }
        let platform = named.platform.as_ref().map(platform);
        let named = reference.clone().with_digest(named.digest.clone());
        found.push(entry(&repository, &named, manifest, platform).await?);
    }
    Ok(found)
}

/// With the platform of the list that names it, or else of its configuration, which has to be there in any case.
async fn entry(
    repository: &Repository,
    reference: &Reference,
    manifest: Manifest,
    known: Option<Platform>,
) -> Result<Entry> {
    let platform = match &manifest.content {
        Content::Image { config, .. } => {
            let bytes = repository.small_blob(config, CONFIG_MAX).await;
            let bytes = bytes.map_err(|error| said(&error))?;
            let read: ferry_distribution::Platform = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::new(format!("the configuration of {reference} cannot be read: {error}")))?;
            known.or(Some(platform(&read)))
        }
        Content::Index { .. } => known,
    };
    Ok(Entry {
        reference: reference.to_string(),
        descriptor: Descriptor {
            media_type: manifest.descriptor.media_type,
            digest: manifest.descriptor.digest.to_string(),
            size: i64::try_from(manifest.bytes.len()).unwrap_or(i64::MAX),
            platform,
            ..Descriptor::default()
        },
        raw: manifest.bytes.to_vec(),
    })
}

/// Has the target's registry take an image over from another of its repositories, and puts its manifest there.
pub async fn carry_over(target: &Repository, from: &Reference, to: &Reference, entry: &Entry) -> Result<String> {
    let content = Content::of(&entry.raw)
        .ok_or_else(|| Failure::new(format!("the manifest {} is no manifest", entry.reference)))?;
    for blob in content.descriptors() {
        let there = target.has_blob(blob).await.map_err(|error| said(&error))?;
        if !there
            && !target
                .mount_blob(blob, from.path())
                .await
                .map_err(|error| said(&error))?
        {
            return Err(Failure::new(format!(
                "the registry does not let {} have the blob {} of {}: push the image there first",
                to.familiar_name(),
                blob.digest,
                from.familiar_name()
            )));
        }
    }
    put(target, to, &entry.descriptor.media_type, entry.raw.clone()).await
}

/// The digest.
pub async fn put(target: &Repository, reference: &Reference, media_type: &str, bytes: Vec<u8>) -> Result<String> {
    let done = target.push_manifest(reference, media_type, &Bytes::from(bytes)).await;
    Ok(done.map_err(|error| said(&error))?.digest.to_string())
}

pub fn platform(platform: &ferry_distribution::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: platform.os_features.clone().unwrap_or_default(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

fn missing(error: &Error, reference: &Reference) -> Failure {
    match error.is_not_found() {
        true => Failure::new(format!("no such manifest: {reference}")),
        false => said(error),
    }
}

fn said(error: &Error) -> Failure {
    Failure::new(ferry_kit::error::chain(error))
}
