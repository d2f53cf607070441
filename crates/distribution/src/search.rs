//! `docker search`: the index that Docker Hub still has, and few others (`GET /v1/search`).

use ferry_image::DEFAULT_DOMAIN;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use serde::Deserialize;

use crate::auth::{Authorizer, Scope};
use crate::endpoint::{self, Endpoint};
use crate::repository::Tries;
use crate::transport::Call;
use crate::{Client, Credentials, Error, Result};

/// One repository that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SearchResult {
    #[serde(default)]
    pub name: String,
    #[serde(default, deserialize_with = "crate::descriptor::nullable")]
    pub description: String,
    #[serde(default)]
    pub star_count: i64,
    #[serde(default)]
    pub is_official: bool,
}

#[derive(Deserialize)]
struct Results {
    #[serde(default)]
    results: Option<Vec<SearchResult>>,
}

impl Client {
    /// Asks an index for a term: that of Docker Hub, or of the registry that the term begins with (`host:port/term`). The index
    /// chooses the order; `limit` is how many it is asked for.
    pub fn search<'a>(
        &'a self,
        term: &'a str,
        limit: u32,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<Vec<SearchResult>>> {
        Box::pin(async move {
            let (domain, term) = split(term);
            let shared = &self.shared;
            let endpoints = endpoint::index(domain, credentials, &shared.transport.insecure)?;
            let mut tries = Tries::new(shared.clone(), endpoints.into_iter().map(Into::into).collect());
            loop {
                let endpoint = tries.next()?;
                if let Some(done) = tries.settle(&endpoint, self.search_at(&endpoint, term, limit).await) {
                    return done;
                }
            }
        })
    }

    async fn search_at(&self, endpoint: &Endpoint, term: &str, limit: u32) -> Result<Vec<SearchResult>> {
        let transport = &self.shared.transport;
        let url = endpoint.url("search", &[("q", term), ("n", &limit.to_string())])?;
        let call = Call::new(Method::GET, url).header(header::HeaderName::from_static("x-docker-token"), "true");
        // The index has tokens of its own.
        let response = transport
            .send_retried(&Authorizer::default(), endpoint, &Scope::none(), &call)
            .await?;
        let wrong = |reason: String| Error::Answer {
            registry: endpoint.registry.clone(),
            subject: "a search".to_owned(),
            reason,
        };
        if response.status() != StatusCode::OK {
            return Err(wrong(format!("Unexpected status code {}", response.status().as_u16())));
        }
        let limit = transport.options.limits.manifest;
        let bytes = transport.read(response, endpoint, "a search", limit).await?;
        let results: Results = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("error decoding registry search results: {error}")))?;
        Ok(results.results.unwrap_or_default())
    }
}

/// The index, and what it is asked for (moby `registry/search.go`, 28.5).
fn split(term: &str) -> (&str, &str) {
    let (domain, rest) = match term.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DEFAULT_DOMAIN, term),
    };
    match domain {
        "index.docker.io" | DEFAULT_DOMAIN => (DEFAULT_DOMAIN, rest.strip_prefix("library/").unwrap_or(rest)),
        domain => (domain, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_index() {
        for (term, expected) in [
            ("busybox", ("docker.io", "busybox")),
            ("library/busybox", ("docker.io", "busybox")),
            ("team/app", ("docker.io", "team/app")),
            ("docker.io/library/app", ("docker.io", "app")),
            ("127.0.0.1:5000/app", ("127.0.0.1:5000", "app")),
            ("localhost/a/b", ("localhost", "a/b")),
        ] {
            assert_eq!(split(term), expected, "{term}");
        }
    }
}
