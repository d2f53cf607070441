//! What is asked of registries without an image being moved.

use ferry_api::Filters;
use ferry_api::image::{Descriptor, Platform};
use ferry_api::registry::{AuthConfig, Authenticated, Distribution, SearchResult};
use ferry_distribution::{Content, Credentials};
use futures_util::future::BoxFuture;

use super::{Images, parse_reference};
use crate::error::{Error, Result};

const SEARCH_FILTERS: [&str; 3] = ["is-automated", "is-official", "stars"];
/// How much a search finds when nothing is said.
const SEARCH_LIMIT: u32 = 25;
const SEARCH_MOST: u32 = 100;

impl Images {
    /// Shows credentials to their registry: docker.io's where none is named.
    pub fn sign_in<'a>(&'a self, auth: &'a AuthConfig) -> BoxFuture<'a, Result<Authenticated>> {
        Box::pin(async move {
            let server = match auth.serveraddress.as_str() {
                "" => ferry_image::DEFAULT_DOMAIN,
                server => server,
            };
            let done = self.world.live.get().client.login(server, &credentials(auth)).await?;
            // What was known with other credentials is not what is known now.
            self.world.live.get().client.forget();
            Ok(Authenticated {
                identity_token: done.identity_token.unwrap_or_default(),
                status: done.status,
            })
        })
    }

    /// What an index knows by a term: Docker Hub's, or of the registry that the term begins with.
    pub fn search<'a>(
        &'a self,
        term: &'a str,
        limit: Option<i64>,
        filters: &'a Filters,
        credentials: Credentials,
    ) -> BoxFuture<'a, Result<Vec<SearchResult>>> {
        Box::pin(async move {
            let invalid = |error: ferry_api::Error| Error::invalid(error.to_string());
            filters.validate(&SEARCH_FILTERS).map_err(invalid)?;
            let automated = filters.flag("is-automated", false).map_err(invalid)?;
            let official = match filters.contains("is-official") {
                true => Some(filters.flag("is-official", false).map_err(invalid)?),
                false => None,
            };
            let mut stars = 0;
            for value in filters.values("stars") {
                let count: i64 = value
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid filter 'stars=[{value}]'")))?;
                stars = stars.max(count);
            }
            let limit = match limit.unwrap_or_default() {
                0 => SEARCH_LIMIT,
                limit => u32::try_from(limit)
                    .ok()
                    .filter(|limit| (1..=SEARCH_MOST).contains(limit))
                    .ok_or_else(|| {
                        Error::invalid(format!("limit {limit} is outside the range of [1, {SEARCH_MOST}]"))
                    })?,
            };
            if ["http://", "https://"].iter().any(|scheme| term.starts_with(scheme)) {
                return Err(Error::invalid(format!(
                    "invalid repository name: repository name ({term}) should not have a scheme"
                )));
            }
            // Nothing is automated any more.
            if automated {
                return Ok(Vec::new());
            }
            let found = self.world.live.get().client.search(term, limit, &credentials).await?;
            let wanted = |result: &ferry_distribution::SearchResult| {
                result.star_count >= stars && official.is_none_or(|official| official == result.is_official)
            };
            let results = found.into_iter().filter(wanted).map(|result| SearchResult {
                star_count: result.star_count,
                is_official: result.is_official,
                name: result.name,
                is_automated: false,
                description: result.description,
            });
            Ok(results.collect())
        })
    }

    /// The descriptor and the platforms of an image in its registry.
    pub fn distribution<'a>(&'a self, name: &'a str, credentials: Credentials) -> BoxFuture<'a, Result<Distribution>> {
        Box::pin(async move {
            let reference = parse_reference(name)?.tagged();
            let repository = self.world.live.get().client.repository(&reference, &credentials)?;
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
