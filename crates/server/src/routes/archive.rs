//! `/containers/{id}/archive`: files of a container as tar streams.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use bytes::Bytes;
use ferry_api::container::PathStat;
use ferry_api::json;
use ferry_engine::container::PutOptions;
use futures_util::TryStreamExt as _;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::StreamReader;

use crate::App;
use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::routes::uploads::DRAINED;

const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

pub async fn head(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let stat = app.engine.containers.path_stat(&id, query.text("path")).await?;
    Ok(([(STAT, encode(&stat)?)], ()).into_response())
}

pub async fn get(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let archive = app.engine.containers.archive(&id, query.text("path")).await?;
    let stat = encode(&archive.stat)?;
    let pieces = futures_util::stream::try_unfold(archive, |mut archive| async move {
        let piece = archive.next().await?;
        Ok::<_, std::io::Error>(piece.map(|piece| (Bytes::from(piece), archive)))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (STAT, stat),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

pub async fn put(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
    request: Request<Body>,
) -> Result<StatusCode> {
    let options = PutOptions {
        no_overwrite_dir_non_dir: query.flag("noOverwriteDirNonDir"),
        copy_uid_gid: query.flag("copyUIDGID"),
    };
    let body = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut body = StreamReader::new(body);
    let containers = &app.engine.containers;
    let put = containers
        .put_archive(&id, query.text("path"), options, &mut body)
        .await;
    if put.is_err() {
        // A connection that is closed while the client still sends is reset, and the client never sees why.
        let _ = tokio::io::copy(&mut body.take(DRAINED), &mut tokio::io::sink()).await;
    }
    Ok(put.map(|()| StatusCode::OK)?)
}

/// JSON in base64, with padding, as Go's `base64.StdEncoding` has it.
fn encode(stat: &PathStat) -> Result<HeaderValue> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("write the answer: {error}"))
    };
    let json = json::body(stat).map_err(|error| failed(&error))?;
    let text = base64::engine::general_purpose::STANDARD.encode(json.trim_ascii_end());
    HeaderValue::from_str(&text).map_err(|error| failed(&error))
}
