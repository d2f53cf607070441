//! What becomes of a result.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferry_build::output::{Output, OutputKind};
use ferry_build::progress::{Event, Events, Status};
use ferry_build::{Error, Result, Session};
use ferry_image::Reference;
use ferry_storage::Built;
use jiff::Timestamp;

use super::Inner;
use super::workshop::{Workshop, failed};

/// Makes one output; what clients are told of it.
pub(super) async fn export(
    shop: &Workshop,
    solved: &Inner,
    number: usize,
    output: &Output,
    session: &Arc<dyn Session>,
    events: &Events,
) -> Result<BTreeMap<String, String>> {
    let _ = (number, session);
    match output.kind {
        OutputKind::Image => {
            let running = events.start("exporting to image".to_owned(), Vec::new());
            let vertex = running.id().to_owned();
            running.end(image(shop, solved, output, events, &vertex).await)
        }
        OutputKind::Docker | OutputKind::Oci | OutputKind::Tar | OutputKind::Local => Err(Error::invalid(
            "this kind of output is not there yet: build an image, and use save or export",
        )),
    }
}

async fn image(
    shop: &Workshop,
    solved: &Inner,
    output: &Output,
    events: &Events,
    vertex: &str,
) -> Result<BTreeMap<String, String>> {
    let names = output.attributes.get("name").map(String::as_str).unwrap_or_default();
    let mut references = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let reference = Reference::parse_named(name).map_err(|error| {
            let name = ferry_kit::gofmt::quote(name);
            Error::invalid(format!("failed to parse {name}: {error}"))
        })?;
        references.push(reference.tagged());
    }
    let layers = part(events, vertex, "exporting layers");
    let (mut diff_ids, mut times, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for layer in &solved.tree.layers {
        let settled = layer.held.settled().await.map_err(failed("make a layer"))?;
        diff_ids.push(settled.diff_id.to_string());
        times.push(solved.epoch.or(layer.created));
        held.push(layer.held.clone());
    }
    layers.end();
    let now = solved.epoch.unwrap_or_else(Timestamp::now);
    let config = solved.image.finish(&diff_ids, &times, now);
    let config = config.map_err(|error| Error::internal("write the image's configuration", &error))?;
    let built = Built { config, references };
    let loaded = shop.world.store.steps.record(built, &held).await;
    let loaded = loaded.map_err(failed("record the image"))?;
    let id = loaded.image.id.to_string();
    part(events, vertex, &format!("writing image {id}")).end();
    let mut told = BTreeMap::from([
        ("containerimage.digest".to_owned(), id.clone()),
        ("containerimage.config.digest".to_owned(), id.clone()),
    ]);
    for named in &loaded.references {
        part(events, vertex, &format!("naming to {}", named.reference)).end();
        shop.world.events.image(&id, "tag", &named.reference.familiar());
    }
    if !loaded.references.is_empty() {
        let names: Vec<String> = loaded
            .references
            .iter()
            .map(|named| named.reference.to_string())
            .collect();
        told.insert("image.name".to_owned(), names.join(","));
    }
    Ok(told)
}

/// A part of the export that takes time of its own.
struct Part<'a> {
    events: &'a Events,
    status: Status,
}

fn part<'a>(events: &'a Events, vertex: &str, id: &str) -> Part<'a> {
    let status = Status {
        vertex: vertex.to_owned(),
        id: id.to_owned(),
        started: Some(Timestamp::now()),
        ..Status::default()
    };
    events.send(Event::Status(status.clone()));
    Part { events, status }
}

impl Part<'_> {
    fn end(self) {
        self.events.send(Event::Status(Status {
            completed: Some(Timestamp::now()),
            ..self.status
        }));
    }
}
