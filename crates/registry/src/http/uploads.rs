//! `/v2/<name>/blobs/uploads/`: how a blob comes in, and mounts.

use axum::body::Body;
use axum::response::Response;
use ferry_image::Digest;
use http::header::{CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::auth::{Access, Caller};
use crate::backend::{Append, Backend, Error};
use crate::failure::{Answer, Code, Failure};
use crate::name::{Invalid, Name, UploadId};

use super::query::Query;
use super::range::chunk;
use super::{DIGEST, Registry, body, empty, value};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST`: a mount, a whole blob, or the begin of an upload.
pub async fn begin<B: Backend>(
    registry: &Registry<B>,
    caller: &Caller,
    name: &Name,
    query: &Query,
    headers: &HeaderMap,
    content: Body,
) -> Answer {
    if let (Some(mount), Some(from)) = (query.get("mount"), query.get("from")) {
        let digest: Digest = mount.parse().map_err(|_| Invalid::Digest)?;
        // A source that is out of grammar or not the caller's is as one without the blob: there is an upload instead.
        if let Ok(from) = from.parse::<Name>()
            && registry.0.auth.may(caller, &from, Access::Pull)
            && registry.0.backend.mount(&from, name, &digest).await?
        {
            return Ok(created(name, &digest));
        }
    }
    let backend = &registry.0.backend;
    let Some(digest) = digest_of(query)? else {
        let id = backend.begin(name).await?;
        return Ok(progress(StatusCode::ACCEPTED, name, id, 0));
    };
    let _permit = registry.permit()?;
    let id = backend.begin(name).await?;
    let append = Append {
        at: Some(0),
        most: body::length(headers),
        algorithm: Some(digest.algorithm()),
        body: body::incoming(content, registry.0.options.patience),
    };
    let finished = match backend.append(name, id, append).await {
        Ok(size) => {
            registry.0.metrics.received(size);
            backend.finish(name, id, &digest).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = finished {
        // Nobody was told its address, so nobody can go on with it.
        match backend.cancel(name, id).await {
            Err(Error::UploadUnknown) | Ok(()) => {}
            Err(other) => tracing::warn!(error = %other, "an upload that failed stays until it expires"),
        }
        return Err(error.into());
    }
    Ok(created(name, &digest))
}

/// `PATCH`: the next bytes.
pub async fn patch<B: Backend>(
    registry: &Registry<B>,
    name: &Name,
    id: UploadId,
    headers: &HeaderMap,
    content: Body,
) -> Answer {
    let _permit = registry.permit()?;
    let offset = append(registry, name, id, headers, content, None).await?;
    Ok(progress(StatusCode::ACCEPTED, name, id, offset))
}

/// `PUT`: perhaps the last bytes, and the digest of all.
pub async fn finish<B: Backend>(
    registry: &Registry<B>,
    name: &Name,
    id: UploadId,
    query: &Query,
    headers: &HeaderMap,
    content: Body,
) -> Answer {
    let _permit = registry.permit()?;
    let Some(digest) = digest_of(query)? else {
        return Err(Failure::new(
            Code::DigestInvalid,
            "the query has no digest=: an upload ends with one",
        ));
    };
    if body::length(headers) != Some(0) || headers.contains_key(CONTENT_RANGE) {
        append(registry, name, id, headers, content, Some(&digest)).await?;
    }
    registry.0.backend.finish(name, id, &digest).await?;
    Ok(created(name, &digest))
}

async fn append<B: Backend>(
    registry: &Registry<B>,
    name: &Name,
    id: UploadId,
    headers: &HeaderMap,
    content: Body,
    digest: Option<&Digest>,
) -> Answer<u64> {
    let backend = &registry.0.backend;
    let before = backend.offset(name, id).await?;
    let length = body::length(headers);
    let refused = |offset: u64, why: String| {
        let failure = Failure::new(Code::RangeInvalid, why).header(LOCATION, location(name, id));
        failure.header(RANGE, range(offset)).header(UPLOAD_UUID, id.to_string())
    };
    let (at, most) = match headers.get(CONTENT_RANGE) {
        None => (None, length),
        Some(text) => match text.to_str().ok().and_then(chunk) {
            None => return Err(refused(before, "Content-Range is no <first>-<last>".to_owned())),
            Some((first, last)) => {
                let count = last - first + 1;
                if length.is_some_and(|length| length != count) {
                    let message = format!("Content-Range has {count} bytes, and Content-Length says otherwise");
                    return Err(Failure::new(Code::SizeInvalid, message));
                }
                (Some(first), Some(count))
            }
        },
    };
    let append = Append {
        at,
        most,
        algorithm: digest.map(Digest::algorithm),
        body: body::incoming(content, registry.0.options.patience),
    };
    match backend.append(name, id, append).await {
        Ok(offset) => {
            registry.0.metrics.received(offset.saturating_sub(before));
            Ok(offset)
        }
        Err(error @ Error::Range { offset }) => Err(refused(offset, error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// `GET`: how far it is.
pub async fn status<B: Backend>(registry: &Registry<B>, name: &Name, id: UploadId) -> Answer {
    let offset = registry.0.backend.offset(name, id).await?;
    Ok(progress(StatusCode::NO_CONTENT, name, id, offset))
}

pub async fn cancel<B: Backend>(registry: &Registry<B>, name: &Name, id: UploadId) -> Answer {
    registry.0.backend.cancel(name, id).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn digest_of(query: &Query) -> Answer<Option<Digest>> {
    let digest = query
        .get("digest")
        .map(|text| text.parse().map_err(|_| Invalid::Digest));
    Ok(digest.transpose()?)
}

fn location(name: &Name, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// Of an upload without bytes it is what distribution says, for which clients are made.
fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn progress(status: StatusCode, name: &Name, id: UploadId, offset: u64) -> Response {
    let mut response = empty(status);
    let fields = response.headers_mut();
    fields.insert(LOCATION, value(&location(name, id)));
    fields.insert(RANGE, value(&range(offset)));
    fields.insert(UPLOAD_UUID, value(&id.to_string()));
    response
}

fn created(name: &Name, digest: &Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let fields: &mut http::HeaderMap<HeaderValue> = response.headers_mut();
    fields.insert(LOCATION, value(&format!("/v2/{name}/blobs/{digest}")));
    fields.insert(DIGEST, value(&digest.to_string()));
    response
}
