//! Networks.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use ferry_api::network::{Connect, Create, Disconnect};
use http::{Request, StatusCode};

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

pub async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    body::ok(&app.engine.networks.list(&query.filters()?)?)
}

pub async fn inspect(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    // What it shows beyond the rest is of a swarm's networks.
    if let Some(verbose) = query.given("verbose") {
        strict(verbose).ok_or_else(|| {
            Failure::invalid(format!(
                "invalid value for verbose: {verbose}: strconv.ParseBool: parsing {verbose:?}: invalid syntax"
            ))
        })?;
    }
    let found = app.engine.networks.inspect(&id)?;
    if query.given("scope").is_some_and(|scope| scope != found.scope) {
        return Err(Failure::new(
            http::StatusCode::NOT_FOUND,
            format!("network {id} not found"),
        ));
    }
    body::ok(&found)
}

pub async fn create(State(app): State<App>, request: Request<Body>) -> Result<Response> {
    let request: Create = body::read(request).await?;
    body::answer(StatusCode::CREATED, &app.engine.networks.create(request).await?)
}

pub async fn remove(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode> {
    app.engine.networks.remove(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn connect(State(app): State<App>, Path(id): Path<String>, request: Request<Body>) -> Result<StatusCode> {
    let request: Connect = body::read(request).await?;
    app.engine.networks.connect(&id, request).await?;
    Ok(StatusCode::OK)
}

pub async fn disconnect(State(app): State<App>, Path(id): Path<String>, request: Request<Body>) -> Result<StatusCode> {
    let request: Disconnect = body::read(request).await?;
    app.engine.networks.disconnect(&id, request).await?;
    Ok(StatusCode::OK)
}

pub async fn prune(State(app): State<App>, query: Query) -> Result<Response> {
    body::ok(&app.engine.networks.prune(&query.filters()?).await?)
}

/// Ferry's own: who has which port of the host.
pub async fn ports(State(app): State<App>) -> Result<Response> {
    body::ok(&app.engine.networks.ports().await?)
}

/// `strconv.ParseBool`.
fn strict(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
