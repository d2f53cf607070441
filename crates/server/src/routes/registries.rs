//! Registries: signing in, and what is said about an image there without pulling it.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use ferry_api::registry::AuthConfig;
use ferry_engine::images::{Credentials, registry_auth};
use http::{HeaderMap, Request};

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

const AUTH: &str = "x-registry-auth";

pub async fn sign_in(State(app): State<App>, request: Request<Body>) -> Result<Response> {
    let auth: AuthConfig = body::read(request).await?;
    body::ok(&app.engine.images.sign_in(&auth).await?)
}

pub async fn search(State(app): State<App>, query: Query, headers: HeaderMap) -> Result<Response> {
    let limit = query.integer("limit");
    let limit = limit.map_err(|_| Failure::invalid(format!("invalid limit specified: {:?}", query.text("limit"))))?;
    let found = app
        .engine
        .images
        .search(query.text("term"), limit, &query.filters()?, credentials(&headers))
        .await?;
    body::ok(&found)
}

pub async fn distribution(State(app): State<App>, Path(rest): Path<String>, headers: HeaderMap) -> Result<Response> {
    let Some(name) = rest.strip_suffix("/json") else {
        return Err(Failure::no_page());
    };
    body::ok(&app.engine.images.distribution(name, credentials(&headers)).await?)
}

/// Of the header `X-Registry-Auth`. As with dockerd, one that cannot be read counts as none.
pub fn credentials(headers: &HeaderMap) -> Credentials {
    let text = headers.get(AUTH).and_then(|value| value.to_str().ok());
    let read = text.and_then(|text| registry_auth(text).ok());
    read.map(|(credentials, _)| credentials).unwrap_or_default()
}
