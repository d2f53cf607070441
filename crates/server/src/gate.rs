//! What is the same for every request: the version in its path, and the headers of its answer.
//!
//! ```text
//! /v1.51/containers/json ─▶ gate: strip, remember the version ─▶ route found ─▶ check: in range? ─▶ handler
//!                                                              └─ none: 404, whatever the version
//! ```

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use ferry_api::{ApiVersion, system};
use futures_util::FutureExt as _;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use crate::failure::Failure;
use crate::leftover::Leftover;
use crate::query::Version;

/// What stood after `/v`, until a route is found.
#[derive(Debug, Clone)]
struct Requested(String);

/// Clients older than this read errors as plain text.
const TEXT_ERRORS: ApiVersion = ApiVersion::new(1, 24);

/// Puts the gate before `routes`.
pub fn guard(routes: Router, version: &str) -> Router {
    let routes = routes
        .route_layer(middleware::from_fn(check))
        .fallback(no_page)
        .method_not_allowed_fallback(no_page);
    let server = HeaderValue::try_from(format!("Ferry/{version} (linux)"));
    let server = Arc::new(server.unwrap_or(HeaderValue::from_static("Ferry (linux)")));
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn_with_state(server, pass))
}

fn no_route() -> Box<Response> {
    Box::new(Failure::no_page().into_response())
}

async fn no_page() -> Failure {
    Failure::no_page()
}

async fn pass(State(server): State<Arc<HeaderValue>>, mut request: Request, next: Next) -> Response {
    let leftover = Leftover::of(&mut request);
    let mut response = match prepare(&mut request) {
        Ok(()) => match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => fell(panic.as_ref()).into_response(),
        },
        Err(response) => *response,
    };
    if let Some(leftover) = leftover
        && response.status().as_u16() >= 400
    {
        leftover.drain().await;
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (system::header::API_VERSION, "1.51"),
        (system::header::DOCKER_EXPERIMENTAL, "false"),
        (system::header::OSTYPE, "linux"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(header::SERVER, HeaderValue::clone(&server));
    response
}

/// A handler that panicked, which is a bug of ours: its client is told, and nobody else notices. Where it was is in the log.
fn fell(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
    Failure::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!(
            "the engine gave this request up, which is a bug in it: {}",
            text.unwrap_or("panic")
        ),
    )
}

/// Cleans the path, takes the version out of it; the error is an answer that needs no route.
fn prepare(request: &mut Request) -> Result<(), Box<Response>> {
    let path = request.uri().path();
    if let Some(clean) = cleaned(path) {
        let query = request
            .uri()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        return Err(Box::new(
            (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, clean + &query)]).into_response(),
        ));
    }
    if request.method() == Method::OPTIONS {
        return Err(Box::new(StatusCode::OK.into_response()));
    }
    let (version, rest) = split_version(path);
    if request.method() == Method::HEAD && rest != "/_ping" && !rest.ends_with("/archive") {
        return Err(no_route());
    }
    let Some(version) = version.map(str::to_owned) else {
        return Ok(());
    };
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let path = format!("{rest}{query}").parse::<PathAndQuery>();
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path.map_err(|_| no_route())?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| no_route())?;
    request.extensions_mut().insert(Requested(version));
    Ok(())
}

/// Refuses versions out of range; runs when a route was found.
async fn check(mut request: Request, next: Next) -> Response {
    if let Some(Requested(text)) = request.extensions_mut().remove() {
        match ApiVersion::gate(&text) {
            Ok(version) => {
                request.extensions_mut().insert(Version(version));
            }
            Err(error) if text.parse::<ApiVersion>().is_ok_and(|version| version < TEXT_ERRORS) => {
                let nosniff = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
                return (StatusCode::BAD_REQUEST, [nosniff], format!("{error}\n")).into_response();
            }
            Err(error) => return Failure::from(error).into_response(),
        }
    }
    next.run(request).await
}

/// `/v1.51/x` as `1.51` and `/x`. Docker's pattern is `/v{version:[0-9.]+}`.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some((version, _)) = path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) else {
        return (None, path);
    };
    match !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        true => (Some(version), &path[2 + version.len()..]),
        false => (None, path),
    }
}

/// Go's `path.Clean` with the last slash kept, when that differs.
fn cleaned(path: &str) -> Option<String> {
    let dirty = |part: &str| matches!(part, "" | "." | "..");
    let inner = path.strip_prefix('/')?;
    let last = inner.rsplit('/').next().unwrap_or_default();
    let body = inner.strip_suffix(last).unwrap_or(inner).trim_end_matches('/');
    let slashes = inner.len() - last.len() - body.len();
    let clean_body = body.is_empty() && slashes == 0 || !body.split('/').any(dirty) && slashes == 1;
    if clean_body && !matches!(last, "." | "..") {
        return None;
    }
    let mut parts = Vec::new();
    for part in inner.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let slash = if inner.ends_with('/') && !parts.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{slash}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use hyper::service::Service as _;

    async fn fall() -> &'static str {
        panic!("on purpose")
    }

    async fn ask(method: &str, path: &str) -> (u16, String, http::HeaderMap) {
        let routes = Router::new()
            .route(
                "/version",
                get(|Version(version): Version| async move { version.to_string() }),
            )
            .route("/panic", get(fall))
            .route("/_ping", get(|| async { "OK" }));
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let service = hyper_util::service::TowerToHyperService::new(guard(routes, "9.9"));
        let response = service.call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            parts.status.as_u16(),
            String::from_utf8(body.to_vec()).unwrap(),
            parts.headers,
        )
    }

    #[tokio::test]
    async fn paths_go_with_a_version_and_without() {
        for (path, version) in [
            ("/version", "1.51"),
            ("/v1.51/version", "1.51"),
            ("/v1.40/version?x=1", "1.40"),
            ("/v1.45/version", "1.45"),
        ] {
            let (status, body, _) = ask("GET", path).await;
            assert_eq!((status, body.as_str()), (200, version), "{path}");
        }
    }

    #[tokio::test]
    async fn versions_out_of_range_are_refused_when_the_page_exists() {
        let (status, body, _) = ask("GET", "/v1.99/version").await;
        let text = "client version 1.99 is too new. Maximum supported API version is 1.51";
        assert_eq!((status, body), (400, format!("{{\"message\":\"{text}\"}}\n")));
        let (status, body, _) = ask("GET", "/v1.30/version").await;
        assert_eq!(status, 400);
        assert!(
            body.starts_with("{\"message\":\"client version 1.30 is too old. Minimum supported API version is 1.40,")
        );
        let (status, body, headers) = ask("GET", "/v1.20/version").await;
        assert!(
            status == 400 && body.starts_with("client version 1.20 is too old."),
            "{body}"
        );
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(ask("GET", "/v1.99/nope").await.0, 404);
    }

    #[tokio::test]
    async fn what_has_no_page_is_not_found_in_dockers_words() {
        for (method, path) in [
            ("GET", "/nope"),
            ("GET", "/"),
            ("PUT", "/version"),
            ("HEAD", "/version"),
            ("DELETE", "/v1.51/_ping"),
            ("GET", "/v1.x/version"),
            ("GET", "/version/"),
            ("GET", "/v/version"),
            ("GET", "/v1.51"),
        ] {
            let (status, body, _) = ask(method, path).await;
            assert_eq!(
                (status, body.as_str()),
                (404, "{\"message\":\"page not found\"}\n"),
                "{method} {path}"
            );
        }
    }

    #[tokio::test]
    async fn every_answer_says_who_gives_it() {
        for (method, path) in [
            ("GET", "/version"),
            ("GET", "/nope"),
            ("HEAD", "/_ping"),
            ("OPTIONS", "/x"),
        ] {
            let (_, _, headers) = ask(method, path).await;
            assert_eq!(headers["server"], "Ferry/9.9 (linux)");
            assert_eq!(headers["api-version"], "1.51");
            assert_eq!(headers["ostype"], "linux");
            assert_eq!(headers["docker-experimental"], "false");
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_for() {
        let (status, body, headers) = ask("GET", "/v1.51/panic").await;
        let message = "the engine gave this request up, which is a bug in it: on purpose";
        assert_eq!((status, body), (500, format!("{{\"message\":\"{message}\"}}\n")));
        assert_eq!(headers["server"], "Ferry/9.9 (linux)");
    }

    #[tokio::test]
    async fn unclean_paths_are_redirected() {
        let (status, _, headers) = ask("GET", "//version?a=b").await;
        assert_eq!((status, headers["location"].to_str().unwrap()), (301, "/version?a=b"));
        for (path, clean) in [
            ("/containers//json", Some("/containers/json")),
            ("/a/../b", Some("/b")),
            ("/a/.", Some("/a")),
            ("/a//", Some("/a/")),
            ("//", Some("/")),
            ("/../..", Some("/")),
            ("/", None),
            ("/a/", None),
            ("/a/b", None),
        ] {
            assert_eq!(cleaned(path).as_deref(), clean, "{path}");
        }
    }
}
