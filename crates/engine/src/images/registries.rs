//! What is asked of registries without an image being moved.

use ferry_api::image::{Descriptor, Platform};
use ferry_api::registry::{AuthConfig, Authenticated, Distribution};
use ferry_distribution::{Content, Credentials};

use super::{Images, parse_reference};
use crate::error::{Error, Result};

impl Images {
    /// Shows credentials to their registry: docker.io's where none is named.
    pub async fn sign_in(&self, auth: &AuthConfig) -> Result<Authenticated> {
        let server = match auth.serveraddress.as_str() {
            "" => ferry_image::DEFAULT_DOMAIN,
            server => server,
        };
        let done = self.world.registries.login(server, &credentials(auth)).await?;
        // What was known with other credentials is not what is known now.
        self.world.registries.forget();
        Ok(Authenticated {
            identity_token: done.identity_token.unwrap_or_default(),
            status: done.status,
        })
    }

    /// The descriptor and the platforms of an image in its registry.
    pub async fn distribution(&self, name: &str, credentials: Credentials) -> Result<Distribution> {
        let reference = parse_reference(name)?.tagged();
        let repository = self.world.registries.repository(&reference, &credentials)?;
        let manifest = repository.resolve(&reference).await?;
        let platforms = match &manifest.content {
            Content::Index { manifests } => manifests
                .iter()
                .filter_map(|manifest| manifest.platform.as_ref().map(shown))
                .collect(),
            Content::Image { config, .. } => {
                let bytes = repository.small_blob(config, super::pull::CONFIG_MAX).await?;
                let platform: ferry_distribution::Platform = serde_json::from_slice(&bytes)
                    .map_err(|error| Error::internal(format!("the configuration of {name}"), &error))?;
                vec![shown(&platform)]
            }
        };
        Ok(Distribution {
            descriptor: Descriptor {
                media_type: manifest.descriptor.media_type.clone(),
                digest: manifest.descriptor.digest.to_string(),
                size: i64::try_from(manifest.descriptor.size).unwrap_or(i64::MAX),
                ..Descriptor::default()
            },
            platforms,
        })
    }
}

fn shown(platform: &ferry_distribution::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: platform.os_features.clone().unwrap_or_default(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

/// The strongest of what is given.
fn credentials(auth: &AuthConfig) -> Credentials {
    if !auth.registrytoken.is_empty() {
        return Credentials::Registry {
            token: auth.registrytoken.clone(),
        };
    }
    if !auth.identitytoken.is_empty() {
        return Credentials::Identity {
            username: auth.username.clone(),
            token: auth.identitytoken.clone(),
        };
    }
    match (auth.username.as_str(), auth.password.as_str()) {
        ("", "") => Credentials::Anonymous,
        (username, password) => Credentials::basic(username, password),
    }
}
