//! Containers, but for their streams.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use ferry_api::container::{Config, Create, Update};
use ferry_api::{ApiVersion, json};
use ferry_engine::container::{ListOptions, Permit};
use http::{HeaderMap, Request, StatusCode, header};

use crate::failure::{Failure, Result};
use crate::query::{Query, Version};
use crate::{App, body};

pub async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    let options = ListOptions {
        all: query.flag("all"),
        limit: query
            .integer("limit")?
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(0),
        size: query.flag("size"),
        filters: query.filters()?,
    };
    // A thousand of them are written one by one: they never are in memory together but as text.
    let mut list = json::List::default();
    app.engine
        .containers
        .list(&options, |summary| list.push(&summary))
        .await?;
    body::written(StatusCode::OK, list.finish())
}

/// Before, nobody chose among a container's gateways.
const GATEWAY_PRIORITY: ApiVersion = ApiVersion::new(1, 48);

pub async fn create(
    State(app): State<App>,
    Version(version): Version,
    query: Query,
    request: Request<Body>,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let bytes = body::collect(body).await?;
    body::check_type(&parts.headers, bytes.is_empty())?;
    let mut create = match body::parse::<Option<Create>>(&bytes)? {
        Some(create) if create.config != Config::default() => create,
        _ => {
            return Err(Failure::invalid(
                "config cannot be empty in order to create a container",
            ));
        }
    };
    if version < GATEWAY_PRIORITY
        && let Some(networking) = &mut create.networking_config
    {
        let endpoints = networking.endpoints_config.iter_mut().flatten();
        endpoints.for_each(|(_, endpoint)| endpoint.iter_mut().for_each(|endpoint| endpoint.gw_priority = 0));
    }
    let (name, platform) = (query.given("name"), query.given("platform"));
    let created = app.engine.containers.create(name, platform, create).await?;
    body::answer(StatusCode::CREATED, &created)
}

pub async fn inspect(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    body::ok(&app.engine.containers.inspect(&id, query.flag("size")).await?)
}

pub async fn top(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    body::ok(&app.engine.containers.top(&id, query.text("ps_args")).await?)
}

pub async fn changes(State(app): State<App>, Path(id): Path<String>) -> Result<Response> {
    body::ok(&app.engine.containers.changes(&id).await?)
}

pub async fn prune(State(app): State<App>, query: Query) -> Result<Response> {
    body::ok(&app.engine.containers.prune(&query.filters()?).await?)
}

pub async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<StatusCode> {
    // Docker lets small bodies pass: some clients send `{}` or `null`.
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.unwrap_or(0) > 7 || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(Failure::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if query.given("checkpoint").is_some() {
        return Err(Failure::missing("checkpoints"));
    }
    Ok(status(app.engine.containers.start(&id).await?))
}

pub async fn stop(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let timeout = query.integer("t")?;
    Ok(status(
        app.engine.containers.stop(&id, query.given("signal"), timeout).await?,
    ))
}

pub async fn restart(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let timeout = query.integer("t")?;
    app.engine
        .containers
        .restart(&id, query.given("signal"), timeout)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn kill(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let killed = app.engine.containers.kill(&id, query.given("signal")).await;
    killed.map_err(|error| {
        let mut failure = Failure::from(error);
        failure.message = format!("cannot kill container: {id}: {}", failure.message);
        failure
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// The answer begins at once: `docker run` starts the container when it has the headers, and the exit may be days away.
pub async fn wait(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let exit = app.engine.containers.wait(&id, query.text("condition"))?;
    let closing = app.closing.clone();
    let line = async move {
        tokio::select! {
            exit = exit => json::message(&exit).map_err(std::io::Error::other),
            // Cut off, not ended well: the client must not take it for an exit.
            () = closing.cancelled() => Err(std::io::Error::other("the engine ends")),
        }
    };
    Ok(body::stream(Body::from_stream(futures_util::stream::once(line))))
}

pub async fn rename(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    let Some(name) = query.given("name") else {
        return Err(Failure::invalid("Neither old nor new names may be empty"));
    };
    app.engine.containers.rename(&id, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn pause(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode> {
    app.engine.containers.pause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn unpause(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode> {
    app.engine.containers.unpause(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn resize(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (rows, columns) = (query.dimension("h", "height")?, query.dimension("w", "width")?);
    app.engine.containers.resize(&id, rows, columns).await?;
    Ok(StatusCode::OK.into_response())
}

pub async fn update(State(app): State<App>, Path(id): Path<String>, request: Request<Body>) -> Result<Response> {
    let update: Update = body::read(request).await?;
    body::ok(&app.engine.containers.update(&id, update).await?)
}

pub async fn remove(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<StatusCode> {
    if query.flag("link") {
        app.engine.containers.unlink(&id).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    app.engine
        .containers
        .remove(&id, query.flag("force"), query.flag("v"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The path of a link, whose name has a slash.
pub async fn remove_link(
    State(app): State<App>,
    Path((child, alias)): Path<(String, String)>,
    query: Query,
) -> Result<StatusCode> {
    remove(State(app), Path(format!("{child}/{alias}")), query).await
}

fn status(permit: Permit) -> StatusCode {
    match permit {
        Permit::Go => StatusCode::NO_CONTENT,
        Permit::Already => StatusCode::NOT_MODIFIED,
    }
}
