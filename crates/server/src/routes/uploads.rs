//! Images that arrive in a request: load and import. Reading, unpacking and hashing block, and have threads of their own.

use std::collections::HashMap;
use std::io::Read as _;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use ferry_api::image::{Message, Progress as Shown};
use ferry_engine::images::PullRequest;
use ferry_image::{Digest, Platform, Reference};
use ferry_storage::{ImportOptions, Loaded, Progress};
use http::{HeaderMap, Request};

use crate::body::{Lines, Upload};
use crate::failure::{Failure, Result};
use crate::query::Query;
use crate::routes::transfers::{bar, signed};
use crate::routes::{registries, transfers};
use crate::{App, body};

/// A layer's progress is told each time this much more of it is unpacked.
const STEP: u64 = 512 * 1024;

pub async fn load(State(app): State<App>, query: Query, request: Request<Body>) -> Result<Response> {
    let quiet = query.flag("quiet");
    let platform = super::saves::platform(&query)?;
    let mut upload = Upload::begin(request.into_body()).await?;
    let (lines, output) = body::lines();
    body::aside("load images", move || {
        let mut told = HashMap::new();
        let loaded = app.engine.images.load_blocking(&mut upload, platform, |progress| {
            if let Some(message) = (!quiet).then(|| shown(&progress, &mut told)).flatten() {
                lines.send(&message);
            }
        });
        match loaded {
            Ok(images) => images.iter().for_each(|image| announce(image, &lines)),
            Err(error) => {
                lines.send(&Message::error(error.message));
                drain(&mut upload);
            }
        }
    });
    Ok(body::stream(output))
}

/// The most of a refused upload that is read to its end.
pub const DRAINED: u64 = 1 << 30;

/// Takes the rest of an upload that was refused: a connection that is closed while the client still sends is reset, and
/// the client never sees why.
fn drain(upload: &mut Upload) {
    // A client that is gone needs no answer.
    let _ = std::io::copy(&mut upload.take(DRAINED), &mut std::io::sink());
}

/// Docker's line for a layer being unpacked, if there is something new to say.
fn shown(progress: &Progress, told: &mut HashMap<String, u64>) -> Option<Message> {
    let Progress::Unpacking { layer, current, total } = progress else {
        return None;
    };
    let hex = layer.to_string();
    let id: String = hex
        .split_once(':')
        .map_or(hex.as_str(), |(_, hex)| hex)
        .chars()
        .take(12)
        .collect();
    let before = told.get(&id).copied();
    if before.is_some_and(|before| *current < before.saturating_add(STEP) && current < total) || before == Some(*total)
    {
        return None;
    }
    told.insert(id.clone(), *current);
    Some(Message {
        status: "Loading layer".to_owned(),
        progress: Some(Shown {
            current: signed(*current),
            total: signed(*total),
            ..Shown::default()
        }),
        progress_message: bar(*current, *total),
        id,
        ..Message::default()
    })
}

fn announce(image: &Loaded, lines: &Lines) {
    for name in &image.references {
        if let Some(replaced) = &name.replaced {
            lines.send(&Message::stream(format!(
                "The image {} already exists, renaming the old one with ID {replaced} to empty string\n",
                name.reference.familiar()
            )));
        }
        lines.send(&Message::stream(format!(
            "Loaded image: {}\n",
            name.reference.familiar()
        )));
    }
    if image.references.is_empty() {
        lines.send(&Message::stream(format!("Loaded image ID: {}\n", image.image.id)));
    }
}

/// Import, when `fromSrc` says that the body is a root file system; pull otherwise.
pub async fn create(State(app): State<App>, query: Query, request: Request<Body>) -> Result<Response> {
    if let Some(name) = query.given("fromImage") {
        return pull(app, name, &query, request.headers()).await;
    }
    match query.text("fromSrc") {
        "-" => {}
        "" => return Err(Failure::invalid("either fromImage or fromSrc must be given")),
        _ => return Err(Failure::missing("importing from a URL")),
    }
    let options = ImportOptions {
        reference: reference(query.text("repo"), query.text("tag"))?,
        message: query.given("message").map(str::to_owned),
        changes: query.all("changes"),
        platform: platform(&query)?,
        engine_version: app.engine.system.version().version,
        ..ImportOptions::default()
    };
    let mut upload = Upload::begin(request.into_body()).await?;
    let (lines, output) = body::lines();
    body::aside("import an image", move || {
        match app.engine.images.import_blocking(&mut upload, &options) {
            Ok(image) => lines.send(&Message::status(image.id.to_string())),
            Err(error) => {
                lines.send(&Message::error(error.message));
                drain(&mut upload);
            }
        }
    });
    Ok(body::stream(output))
}

async fn pull(app: App, name: &str, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let mut reference = Reference::parse_named(name).map_err(|error| Failure::invalid(error.to_string()))?;
    match query.given("tag") {
        None => {}
        Some(digest) if digest.contains(':') => {
            let digest = digest.parse::<Digest>();
            let digest = digest.map_err(|error| Failure::invalid(error.to_string()))?;
            reference = reference.without_tag_and_digest().with_digest(digest);
        }
        Some(tag) => {
            let tagged = reference.without_tag_and_digest().with_tag(tag);
            reference = tagged.map_err(|error| Failure::invalid(error.to_string()))?;
        }
    }
    let request = PullRequest {
        reference,
        platform: platform(query)?,
        credentials: registries::credentials(headers),
    };
    transfers::answer(move |reporter| async move { app.engine.images.pull(request, &reporter).await }).await
}

fn platform(query: &Query) -> Result<Option<Platform>> {
    let parsed = query.given("platform").map(str::parse::<Platform>);
    parsed.transpose().map_err(|error| Failure::invalid(error.to_string()))
}

/// The name that a new image gets, if any; errors in Docker's words.
pub fn reference(repository: &str, tag: &str) -> Result<Option<Reference>> {
    let name = match (repository, tag) {
        ("", _) => return Ok(None),
        (repository, "") => repository.to_owned(),
        (_, tag) if tag.contains(':') => return Err(Failure::invalid("invalid tag format")),
        (repository, tag) => format!("{repository}:{tag}"),
    };
    match name.parse::<Reference>() {
        Ok(reference) if reference.digest().is_some() => Err(Failure::invalid("cannot import digest reference")),
        Ok(reference) => Ok(Some(reference)),
        Err(error) => Err(Failure::invalid(error.to_string())),
    }
}
