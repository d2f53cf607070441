//! Statistics of containers.

use std::io;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use ferry_api::json;

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

pub async fn stats(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let stream = query.flag_or("stream", true);
    let alone = query.flag("one-shot");
    if stream && alone {
        return Err(Failure::invalid("cannot have stream=true and one-shot=true"));
    }
    let watch = app.engine.containers.stats(&id)?;
    if !stream {
        return body::ok(&watch.once(alone).await?);
    }
    let closing = app.closing.clone();
    let samples = futures_util::stream::unfold((watch, closing), |(mut watch, closing)| async move {
        let sample = tokio::select! {
            sample = watch.next() => sample?,
            () = closing.cancelled() => return None,
        };
        let line = json::message(&sample).map(Bytes::from).map_err(io::Error::other);
        Some((line, (watch, closing)))
    });
    let mut response = Response::new(Body::from_stream(samples));
    // Docker's has no type here.
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    Ok(response)
}
