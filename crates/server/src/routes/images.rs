//! Images, but for uploads. Their names contain slashes: what is asked of one stands at the path's end.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use ferry_api::ApiVersion;
use http::StatusCode;

use crate::failure::{Failure, Result};
use crate::query::{Query, Version};
use crate::routes::saves;
use crate::{App, body};

/// `VirtualSize` was the same as `Size`, before this version.
const ONE_SIZE: ApiVersion = ApiVersion::new(1, 44);

pub async fn list(State(app): State<App>, Version(version): Version, query: Query) -> Result<Response> {
    let mut images = app.engine.images.list(query.flag("shared-size"), &query.filters()?)?;
    if version < ONE_SIZE {
        for image in &mut images {
            image.virtual_size = image.size;
        }
    }
    body::ok(&images)
}

pub async fn get(
    State(app): State<App>,
    Version(version): Version,
    Path(rest): Path<String>,
    query: Query,
) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "json")) => {
            let mut image = app.engine.images.inspect(name)?;
            if version < ONE_SIZE {
                image.virtual_size = image.size;
            }
            body::ok(&image)
        }
        Some((name, "history")) => body::ok(&app.engine.images.history(name)?),
        Some((name, "get")) => saves::save(&app, &[name.to_owned()], &query),
        _ => Err(Failure::no_page()),
    }
}

pub async fn post(State(app): State<App>, Path(rest): Path<String>, query: Query) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            app.engine
                .images
                .tag(name, query.text("repo"), query.text("tag"))
                .await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((_, "push")) => Err(Failure::missing("registries (push)")),
        _ => Err(Failure::no_page()),
    }
}

/// Without a filter only what has no name goes.
pub async fn prune(State(app): State<App>, query: Query) -> Result<Response> {
    body::ok(&app.engine.images.prune(&query.filters()?).await?)
}

pub async fn remove(State(app): State<App>, Path(name): Path<String>, query: Query) -> Result<Response> {
    body::ok(
        &app.engine
            .images
            .remove(&name, query.flag("force"), query.flag("noprune"))
            .await?,
    )
}
