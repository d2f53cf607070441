//! Archives that leave: images that are saved and containers that are exported. Reading and hashing block, and have threads of
//! their own.

use std::io::{BufWriter, Write as _};

use axum::extract::{Path, State};
use axum::response::Response;
use ferry_api::json;
use ferry_image::Platform;
use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::{App, body};

/// Bytes that are sent at once.
const PIECE: usize = 256 << 10;

pub async fn several(State(app): State<App>, query: Query) -> Result<Response> {
    save(&app, &query.all("names"), &query)
}

/// What is not there is said before the answer begins.
pub fn save(app: &App, names: &[String], query: &Query) -> Result<Response> {
    let save = app.engine.images.save(names, platform(query)?.as_ref())?;
    let (download, response) = body::download();
    body::aside("save images", move || {
        let written = save.write(&download);
        download.finish(written.map_err(|error| tell("save images", &ferry_engine::Error::from(error))));
    });
    Ok(response)
}

pub async fn export(State(app): State<App>, Path(id): Path<String>) -> Result<Response> {
    let export = app.engine.containers.export(&id)?;
    let (download, response) = body::download();
    body::aside("export a container", move || {
        let mut out = BufWriter::with_capacity(PIECE, &download);
        let written = export
            .write_blocking(&mut out)
            .map_err(|error| tell("export a container", &error));
        let flushed = out.flush().map_err(|error| error.to_string());
        drop(out);
        download.finish(written.and(flushed));
    });
    Ok(response)
}

/// A client cannot be told why an archive breaks off: the log is.
fn tell(what: &str, error: &ferry_engine::Error) -> String {
    tracing::error!("cannot {what}: {}", error.message);
    error.message.clone()
}

/// `platform`: JSON in the shape of OCI's platform, at most one.
pub fn platform(query: &Query) -> Result<Option<Platform>> {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    let given = query.all("platform");
    let [text] = given.as_slice() else {
        return match given.is_empty() {
            true => Ok(None),
            false => Err(Failure::invalid("multiple platform parameters not supported")),
        };
    };
    if text.is_empty() {
        return Ok(None);
    }
    let wire: Wire = json::from_slice(text.as_bytes())
        .map_err(|error| Failure::invalid(format!("failed to parse platform: {error}")))?;
    if wire.os.is_empty() || wire.architecture.is_empty() {
        return Err(Failure::invalid("both OS and Architecture must be provided"));
    }
    Ok(Some(Platform::new(&wire.os, &wire.architecture, &wire.variant)))
}
