//! `/v2/<name>/manifests/<reference>`

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use crate::backend::{Backend, Intent};
use crate::failure::{Answer, Failure};
use crate::manifest::{self, Manifest, SIZE_MAX};
use crate::name::{Name, Reference};
use crate::through::{self, Remote};

use super::range::{accepts, is_known};
use super::{DIGEST, Registry, body, empty, value};

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

pub async fn get<B: Backend>(
    registry: &Registry<B>,
    (name, remote): (&Name, Option<&Remote>),
    reference: &Reference,
    method: &Method,
    headers: &HeaderMap,
) -> Answer {
    // What is asked for by digest may become part of an index; a tag keeps what it points to.
    let intent = match reference {
        Reference::Digest(_) if !registry.0.options.read_only => Intent::Push,
        _ => Intent::Pull,
    };
    let (found, stale) = match remote {
        None => (registry.0.backend.manifest(name, reference, intent).await?, None),
        Some(remote) => match registry.manifest_through(name, reference, remote).await? {
            Some(found) => (Some(found.stored), found.stale.then_some(remote)),
            None => (None, None),
        },
    };
    let stored = found.ok_or_else(|| Failure::manifest_unknown(reference, name))?;
    if !accepts(headers, &stored.media_type) {
        let message = format!(
            "manifest {reference} in repository {name} is {}, which the request's Accept does not take",
            stored.media_type
        );
        return Err(Failure::new(crate::failure::Code::ManifestUnknown, message));
    }
    let digest = stored.digest.to_string();
    let etag = format!("\"{digest}\"");
    let mut response = Response::new(Body::empty());
    let fields = response.headers_mut();
    fields.insert(DIGEST, value(&digest));
    fields.insert(ETAG, value(&etag));
    if let Some(remote) = stale {
        through::warn(fields, &*remote.upstream);
    }
    if is_known(headers, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    fields.insert(CONTENT_TYPE, value(&stored.media_type));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(stored.content.len()));
    if method != Method::HEAD {
        registry
            .0
            .metrics
            .sent(u64::try_from(stored.content.len()).unwrap_or(0));
        *response.body_mut() = Body::from(stored.content);
    }
    Ok(response)
}

pub async fn put<B: Backend>(
    registry: &Registry<B>,
    name: &Name,
    reference: &Reference,
    headers: &HeaderMap,
    content: Body,
) -> Answer {
    let too_large = || manifest::Error::TooLarge.into();
    let whole = body::whole(
        &registry.0.memory,
        headers,
        content,
        registry.0.options.patience,
        SIZE_MAX,
        too_large,
    )
    .await?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let (tag, expected) = match reference {
        Reference::Tag(tag) => (Some(tag), None),
        Reference::Digest(digest) => (None, Some(digest)),
    };
    let manifest = Manifest::parse(whole.content.clone(), content_type, expected)?;
    let (digest, subject) = (manifest.digest.to_string(), manifest.subject.clone());
    registry.0.backend.put_manifest(name, tag, manifest).await?;
    let mut response = empty(StatusCode::CREATED);
    let fields = response.headers_mut();
    fields.insert(LOCATION, value(&format!("/v2/{name}/manifests/{digest}")));
    fields.insert(DIGEST, value(&digest));
    if let Some(subject) = subject {
        fields.insert(SUBJECT, value(&subject.to_string()));
    }
    Ok(response)
}

pub async fn delete<B: Backend>(registry: &Registry<B>, name: &Name, reference: &Reference) -> Answer {
    let backend = &registry.0.backend;
    let deleted = match reference {
        Reference::Tag(tag) => backend.delete_tag(name, tag).await?,
        Reference::Digest(digest) => backend.delete_manifest(name, digest).await?,
    };
    match deleted {
        true => Ok(empty(StatusCode::ACCEPTED)),
        false => Err(Failure::manifest_unknown(reference, name)),
    }
}
