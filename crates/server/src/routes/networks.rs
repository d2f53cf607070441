//! Networks, and what is there of volumes and plugins.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

pub async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    body::ok(&app.engine.networks.list(&query.filters()?)?)
}

pub async fn inspect(State(app): State<App>, Path(id): Path<String>) -> Result<Response> {
    body::ok(&app.engine.networks.inspect(&id)?)
}

pub async fn volumes(query: Query) -> Result<Response> {
    query.filters()?.validate(&["dangling", "name", "driver", "label"])?;
    body::ok(&json!({"Volumes": [], "Warnings": null}))
}

pub async fn volume(Path(name): Path<String>) -> Failure {
    Failure::new(http::StatusCode::NOT_FOUND, format!("get {name}: no such volume"))
}

/// There is none, which `inspect` without a type asks for too.
pub async fn plugin(Path(rest): Path<String>) -> Failure {
    let name = rest.trim_end_matches("/json");
    Failure::new(http::StatusCode::NOT_FOUND, format!("plugin {name:?} not found"))
}

pub async fn plugins(query: Query) -> Result<Response> {
    query.filters()?;
    body::ok(&Value::Array(Vec::new()))
}
