//! Volumes.

use std::io::{BufWriter, Read as _, Write as _};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use ferry_api::volume::Create;
use http::{Request, StatusCode};

use crate::body::Upload;
use crate::failure::{Failure, Result};
use crate::query::{Query, Version};
use crate::{App, body};

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

pub async fn list(State(app): State<App>, query: Query) -> Result<Response> {
    body::ok(&app.engine.volumes.list(&query.filters()?)?)
}

pub async fn inspect(State(app): State<App>, Path(name): Path<String>) -> Result<Response> {
    body::ok(&app.engine.volumes.inspect(&name)?)
}

pub async fn create(State(app): State<App>, request: Request<Body>) -> Result<Response> {
    let request: Create = body::read(request).await?;
    if request.cluster_volume_spec.is_some() {
        return Err(super::swarm::no_manager().await);
    }
    body::answer(StatusCode::CREATED, &app.engine.volumes.create(request).await?)
}

pub async fn remove(State(app): State<App>, Path(name): Path<String>, query: Query) -> Result<StatusCode> {
    app.engine.volumes.remove(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Before 1.42 there was no filter `all`, and all were meant.
pub async fn prune(State(app): State<App>, Version(version): Version, query: Query) -> Result<Response> {
    let mut filters = query.filters()?;
    if version < ferry_api::ApiVersion::new(1, 42) {
        filters.add("all", "true");
    }
    body::ok(&app.engine.volumes.prune(&filters).await?)
}

/// Ferry's own: the volume as a tar stream.
pub async fn export(State(app): State<App>, Path(name): Path<String>) -> Result<Response> {
    let transfer = app.engine.volumes.transfer(&name).await?;
    let (download, response) = body::download();
    body::aside("export a volume", move || {
        let mut out = BufWriter::with_capacity(PIECE, &download);
        let written = transfer.export_blocking(&mut out).map_err(|error| {
            tracing::error!("cannot {}", error.message);
            error.message
        });
        let flushed = out.flush().map_err(|error| error.to_string());
        drop(out);
        download.finish(written.and(flushed));
    });
    Ok(response)
}

/// Ferry's own: a tar stream into the volume.
pub async fn import(State(app): State<App>, Path(name): Path<String>, request: Request<Body>) -> Result<StatusCode> {
    let mut upload = Upload::begin(request.into_body()).await?;
    let transfer = app.engine.volumes.transfer(&name).await;
    // How long that takes is the client's choice.
    let done = ferry_build::aside("import a volume", move || {
        let done = transfer.and_then(|transfer| transfer.import_blocking(&mut upload));
        if done.is_err() {
            // A client that still sends would not see why.
            let _ = std::io::copy(&mut (&mut upload).take(super::uploads::DRAINED), &mut std::io::sink());
        }
        done
    });
    done.await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Of a swarm's volumes only.
pub async fn update() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}
