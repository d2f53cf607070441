//! `/v2/<name>/blobs/<digest>`

use axum::body::Body;
use axum::response::Response;
use ferry_image::Digest;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::backend::{Backend, Content, Intent};
use crate::failure::{Answer, Code, Failure};
use crate::name::Name;
use crate::through::{self, Found, Remote};

use super::range::{Range, is_known};
use super::{DIGEST, Registry, value};

/// Content by digest never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("max-age=31536000");

pub async fn get<B: Backend>(
    registry: &Registry<B>,
    (name, remote): (&Name, Option<&Remote>),
    digest: &Digest,
    method: &Method,
    headers: &HeaderMap,
) -> Answer {
    // Somebody who looks whether a blob is there may be about to push a manifest with it.
    let intent = match method == Method::HEAD && !registry.0.options.read_only {
        true => Intent::Push,
        false => Intent::Pull,
    };
    let found = match remote {
        None => registry.0.backend.blob(name, digest, intent).await?.map(Found::here),
        Some(remote) if method == Method::HEAD => {
            let size = registry.blob_size_through(name, digest, remote).await?;
            size.map(Found::here)
        }
        Some(remote) => registry.blob_through(name, digest, remote).await?,
    };
    let found = found.ok_or_else(|| Failure::blob_unknown(digest, name))?;
    let size = found.size();
    let text = digest.to_string();
    let etag = format!("\"{text}\"");
    let mut response = Response::new(Body::empty());
    let fields = response.headers_mut();
    fields.insert(DIGEST, value(&text));
    fields.insert(CACHE_CONTROL, FOREVER);
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(ETAG, value(&etag));
    if is_known(headers, &etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let (from, to) = match Range::of(headers, &etag, size) {
        Range::Whole => (0, size),
        Range::Part { from, to } => {
            fields.insert(CONTENT_RANGE, value(&format!("bytes {from}-{}/{size}", to - 1)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            (from, to)
        }
        Range::Unsatisfiable => {
            let message = format!("the blob has {size} bytes, and none of them are in the range");
            return Err(Failure::new(Code::RangeInvalid, message).header(CONTENT_RANGE, format!("bytes */{size}")));
        }
    };
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(to - from));
    if method == Method::HEAD {
        return Ok(response);
    }
    registry.0.metrics.sent(to - from);
    if let Found::Coming(coming) = &found {
        *response.body_mut() = through::body(registry, name, digest, coming, (from, to));
        return Ok(response);
    }
    let content = registry.0.backend.read(name, digest, from, to).await?;
    *response.body_mut() = match content.ok_or_else(|| Failure::blob_unknown(digest, name))? {
        Content::Whole(bytes) => Body::from(bytes),
        Content::Stream(stream) => Body::from_stream(stream),
    };
    Ok(response)
}

pub async fn delete<B: Backend>(registry: &Registry<B>, name: &Name, digest: &Digest) -> Answer {
    match registry.0.backend.delete_blob(name, digest).await? {
        true => Ok(super::empty(StatusCode::ACCEPTED)),
        false => Err(Failure::blob_unknown(digest, name)),
    }
}
