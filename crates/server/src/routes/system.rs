//! Ping, version, info, events.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use ferry_api::{ApiVersion, json, system};
use http::{HeaderName, HeaderValue, Method, header};
use tokio_util::sync::CancellationToken;

use crate::failure::Result;
use crate::query::{Query, Version};
use crate::{App, BUILD_HEADER, IDLE_EXIT_HEADER, Identity, body};

pub fn ping(identity: &Identity, method: &Method) -> Response {
    let body = if *method == Method::HEAD { "" } else { system::PING_BODY };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        // BuildKit's: clients speak to `/session` and `/grpc`.
        (system::header::BUILDER_VERSION, "2"),
        (system::header::SWARM, "inactive"),
        (system::header::CACHE_CONTROL, system::PING_CACHE_CONTROL),
        (system::header::PRAGMA, "no-cache"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if let Ok(build) = HeaderValue::try_from(&identity.build) {
        headers.insert(HeaderName::from_static(BUILD_HEADER), build);
    }
    if identity.on_demand {
        headers.insert(
            HeaderName::from_static(IDLE_EXIT_HEADER),
            HeaderValue::from_static("true"),
        );
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

/// Before this version there was no choice of types.
const TYPES: ApiVersion = ApiVersion::new(1, 42);
/// `VirtualSize` was the same as `Size`, before this version.
const ONE_SIZE: ApiVersion = ApiVersion::new(1, 44);

pub async fn disk_usage(State(app): State<App>, Version(version): Version, query: Query) -> Result<Response> {
    let types = if version < TYPES { Vec::new() } else { query.all("type") };
    let mut usage = app.engine.system.disk_usage(&types).await?;
    if usage.build_cache.is_some() {
        usage.build_cache = Some(super::build::usage(&app).await?);
    }
    if version < ONE_SIZE {
        for image in usage.images.iter_mut().flatten() {
            image.virtual_size = image.size;
        }
    }
    body::ok(&usage)
}

/// Ferry's own: whether the store is what it should be.
pub async fn check(State(app): State<App>, query: Query) -> Result<Response> {
    let check = app.engine.system.check(query.flag("contents"), query.flag("repair"));
    body::ok(&check.await?)
}

pub async fn version(State(app): State<App>) -> Result<Response> {
    body::ok(&app.engine.system.version())
}

pub async fn info(State(app): State<App>) -> Result<Response> {
    body::ok(&app.engine.system.info())
}

/// Events as they happen, one line each.
pub async fn events(State(app): State<App>, query: Query) -> Result<Response> {
    let (since, until) = (query.time("since")?, query.time("until")?);
    let events = app
        .engine
        .events
        .listen(query.filters()?, since.map(|at| at.0), until.map(|at| at.0))?;
    let closing: CancellationToken = app.closing.clone();
    let lines = futures_util::stream::unfold((events, closing), |(mut events, closing)| async move {
        let message = tokio::select! {
            message = events.next() => message?,
            () = closing.cancelled() => return None,
        };
        Some((json::message(&*message).map(Bytes::from), (events, closing)))
    });
    Ok(body::stream(Body::from_stream(lines)))
}
