//! Request bodies: never waited for without an end, never larger than allowed.

use std::io;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

use crate::backend::Incoming;
use crate::failure::{Answer, Code, Failure};
use crate::manifest;

/// A client that sends nothing for so long has gone.
const STALL: Duration = Duration::from_secs(60);

pub fn incoming(body: Body) -> Incoming {
    Box::pin(stream::unfold(Some(body.into_data_stream()), |body| async move {
        let mut body: BodyDataStream = body?;
        match tokio::time::timeout(STALL, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => Some((
                Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came for a minute")),
                None,
            )),
        }
    }))
}

/// What `Content-Length` says.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// All of a small body.
pub async fn whole(headers: &HeaderMap, body: Body, most: usize) -> Answer<Bytes> {
    let most_stated = u64::try_from(most).unwrap_or(u64::MAX);
    if length(headers).is_some_and(|length| length > most_stated) {
        return Err(manifest::Error::TooLarge.into());
    }
    let (mut body, mut all) = (incoming(body), BytesMut::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            Failure::new(
                Code::ManifestInvalid,
                format!("the request's body ended early: {error}"),
            )
        })?;
        if all.len() + chunk.len() > most {
            return Err(manifest::Error::TooLarge.into());
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}
