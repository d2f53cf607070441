//! Images, but for uploads. Their names contain slashes: what is asked of one stands at the path's end.

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use ferry_api::ApiVersion;
use ferry_engine::images::{ListImages, PushRequest};
use ferry_image::{Platform, Reference};
use http::{HeaderMap, StatusCode};

use crate::failure::{Failure, Result};
use crate::query::{Query, Version};
use crate::routes::{registries, saves, transfers};
use crate::{App, body};

/// Before this version nothing was said of shared sizes.
const SHARED_SIZE: ApiVersion = ApiVersion::new(1, 42);
/// Before this version an image without names had names that said so; without digests, none.
const EMPTY_NAMES: ApiVersion = ApiVersion::new(1, 43);
/// Before this version containers were not counted.
const CONTAINERS: ApiVersion = ApiVersion::new(1, 51);
/// `VirtualSize` was the same as `Size`, before this version.
const ONE_SIZE: ApiVersion = ApiVersion::new(1, 44);

pub async fn list(State(app): State<App>, Version(version): Version, query: Query) -> Result<Response> {
    let options = ListImages {
        all: query.flag("all"),
        shared: version >= SHARED_SIZE && query.flag("shared-size"),
        containers: version >= CONTAINERS,
    };
    let mut images = app.engine.images.list(options, &query.filters()?)?;
    if version < EMPTY_NAMES {
        for image in &mut images {
            let none = |names: &Option<Vec<String>>| names.as_ref().is_none_or(Vec::is_empty);
            if none(&image.repo_tags) && none(&image.repo_digests) {
                image.repo_tags = Some(vec!["<none>:<none>".to_owned()]);
                image.repo_digests = Some(vec!["<none>@<none>".to_owned()]);
            }
            image.repo_tags = image.repo_tags.take().filter(|names| !names.is_empty());
            image.repo_digests = image.repo_digests.take().filter(|names| !names.is_empty());
        }
    }
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

pub async fn post(
    State(app): State<App>,
    Path(rest): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    match rest.rsplit_once('/') {
        Some((name, "tag")) => {
            app.engine
                .images
                .tag(name, query.text("repo"), query.text("tag"))
                .await?;
            Ok(StatusCode::CREATED.into_response())
        }
        Some((name, "push")) => push(app, name, &query, &headers).await,
        _ => Err(Failure::no_page()),
    }
}

async fn push(app: App, name: &str, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let invalid = |error: ferry_image::Error| Failure::invalid(error.to_string());
    let mut reference = Reference::parse_named(name).map_err(invalid)?;
    if let Some(tag) = query.given("tag") {
        reference = reference.without_tag_and_digest().with_tag(tag).map_err(invalid)?;
    }
    if reference.digest().is_some() {
        return Err(Failure::invalid("cannot push a digest reference"));
    }
    // As JSON, unlike a pull's.
    let platform = match query.given("platform") {
        Some(text) => {
            let platform = body::parse::<ferry_api::image::Platform>(text.as_bytes())?;
            Some(Platform::new(&platform.os, &platform.architecture, &platform.variant))
        }
        None => None,
    };
    let request = PushRequest {
        reference,
        platform,
        credentials: registries::credentials(headers),
    };
    transfers::answer(move |reporter| async move { app.engine.images.push(request, &reporter).await }).await
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
