//! Ping, version, info, events.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use ferry_api::{json, system};
use http::{HeaderName, HeaderValue, Method, header};
use tokio_util::sync::CancellationToken;

use crate::failure::Result;
use crate::query::Query;
use crate::{App, BUILD_HEADER, IDLE_EXIT_HEADER, Identity, body};

pub fn ping(identity: &Identity, method: &Method) -> Response {
    let body = if *method == Method::HEAD { "" } else { system::PING_BODY };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        // Docker says 2, BuildKit's, and clients then speak to `/session` and `/grpc`. There is no builder here yet, of either
        // kind; with 1 `docker build` asks `/build`, whose answer says so.
        (system::header::BUILDER_VERSION, "1"),
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
