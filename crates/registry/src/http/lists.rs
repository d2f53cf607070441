//! Tags, repositories and referrers, a page at a time.

use axum::body::Body;
use axum::response::Response;
use ferry_image::{Digest, media};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderName, HeaderValue};
use serde_json::json;

use crate::auth::{Access, Caller};
use crate::backend::Backend;
use crate::failure::{Answer, Code, Failure};
use crate::name::{Invalid, Name};
use crate::through::{self, Remote};

use super::query::{Query, escape};
use super::{Registry, value};

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// On a page, at most, and without `n`.
const TAGS: usize = 10_000;
const REPOSITORIES: usize = 1_000;
const REFERRERS: usize = 1_000;

pub async fn tags<B: Backend>(
    registry: &Registry<B>,
    (name, remote): (&Name, Option<&Remote>),
    query: &Query,
) -> Answer {
    let (limit, last) = (query.limit(TAGS)?, query.get("last"));
    let (found, stale) = match remote {
        None => (registry.0.backend.tags(name, last, limit + 1).await?, false),
        Some(remote) => registry.tags_through(name, remote, last, limit + 1).await?,
    };
    let Some(mut tags) = found else {
        return Err(Failure::new(
            Code::NameUnknown,
            format!("there is no repository {name}"),
        ));
    };
    let more = tags.len() > limit;
    tags.truncate(limit);
    let mut response = json(&json!({ "name": name.as_str(), "tags": tags }));
    if let Some(remote) = remote.filter(|_| stale) {
        through::warn(response.headers_mut(), &*remote.upstream);
    }
    if let Some(last) = tags.last().filter(|_| more) {
        link(
            &mut response,
            &format!("/v2/{name}/tags/list?n={limit}&last={}", escape(last)),
        );
    }
    Ok(response)
}

/// Those that the caller may pull from.
pub async fn catalog<B: Backend>(registry: &Registry<B>, caller: &Caller, query: &Query) -> Answer {
    let limit = query.limit(REPOSITORIES)?;
    let mut names: Vec<Name> = Vec::new();
    let mut after = query.get("last").map(str::to_owned);
    let more = loop {
        let page = registry.0.backend.repositories(after.as_deref(), REPOSITORIES).await?;
        let mut full = false;
        for name in &page {
            if names.len() == limit {
                full = true;
                break;
            }
            after = Some(name.as_str().to_owned());
            if registry.0.auth.may(caller, name, Access::Pull) {
                names.push(name.clone());
            }
        }
        if full {
            break true;
        }
        if page.len() < REPOSITORIES {
            break false;
        }
    };
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    let mut response = json(&json!({ "repositories": names }));
    if let Some(last) = names.last().filter(|_| more) {
        link(&mut response, &format!("/v2/_catalog?n={limit}&last={}", escape(last)));
    }
    Ok(response)
}

pub async fn referrers<B: Backend>(
    registry: &Registry<B>,
    (name, remote): (&Name, Option<&Remote>),
    subject: &Digest,
    query: &Query,
) -> Answer {
    let limit = query.limit(REFERRERS)?.max(1);
    let after = query
        .get("last")
        .map(|text| text.parse::<Digest>().map_err(|_| Invalid::Digest))
        .transpose()?;
    let after = after.as_ref();
    let (mut page, stale) = match remote {
        None => (registry.0.backend.referrers(name, subject, after, limit).await?, false),
        Some(remote) => registry.referrers_through(name, remote, subject, after, limit).await?,
    };
    let kind = query.get("artifactType").filter(|kind| !kind.is_empty());
    if let Some(kind) = kind {
        page.manifests
            .retain(|manifest| manifest.artifact_type.as_deref() == Some(kind));
    }
    let mut response = json(&json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": page.manifests }));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media::OCI_INDEX));
    if let Some(remote) = remote.filter(|_| stale) {
        through::warn(response.headers_mut(), &*remote.upstream);
    }
    if kind.is_some() {
        response
            .headers_mut()
            .insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(next) = page.next {
        let filter = kind
            .map(|kind| format!("&artifactType={}", escape(kind)))
            .unwrap_or_default();
        link(
            &mut response,
            &format!("/v2/{name}/referrers/{subject}?n={limit}&last={next}{filter}"),
        );
    }
    Ok(response)
}

fn link(response: &mut Response, target: &str) {
    response
        .headers_mut()
        .insert(LINK, value(&format!("<{target}>; rel=\"next\"")));
}

pub fn json(content: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(content.to_string()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
