//! What becomes of a result.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use ferry_build::output::{Output, OutputKind};
use ferry_build::progress::{Event, Events, Status};
use ferry_build::{Error, Result, Session, Workspace as _};
use ferry_image::Reference;
use ferry_storage::{Built, Held, Lent};
use ferry_sys::Root;
use jiff::Timestamp;
use tokio::io::AsyncWrite;
use tokio_util::io::SyncIoBridge;

use super::Inner;
use super::workshop::{Workshop, failed};
use crate::images::{Images, PushRequest, Reporter};

/// Makes one output; what clients are told of it.
pub(super) async fn export(
    shop: &Workshop,
    solved: &Inner,
    number: usize,
    output: &Output,
    is_inline: bool,
    session: &Arc<dyn Session>,
    events: &Events,
) -> Result<BTreeMap<String, String>> {
    let what = match output.kind {
        OutputKind::Image => "exporting to image",
        OutputKind::Docker => "exporting to docker image format",
        OutputKind::Oci => "exporting to oci image format",
        OutputKind::Tar => "sending tarball",
        OutputKind::Local => "copying files",
    };
    let running = events.start(what.to_owned(), Vec::new());
    let vertex = running.id().to_owned();
    let export = Export {
        shop,
        solved,
        output,
        number,
        is_inline,
        session,
        events,
        vertex: &vertex,
    };
    let done = match output.kind {
        OutputKind::Image => export.image().await,
        OutputKind::Docker | OutputKind::Oci => export.archive().await,
        OutputKind::Tar => export.tar().await,
        OutputKind::Local => export.directory().await,
    };
    running.end(done)
}

struct Export<'a> {
    shop: &'a Workshop,
    solved: &'a Inner,
    output: &'a Output,
    number: usize,
    /// The image is a cache as well.
    is_inline: bool,
    session: &'a Arc<dyn Session>,
    events: &'a Events,
    vertex: &'a str,
}

/// An image that is about to be written somewhere.
struct Finished {
    built: Built,
    held: Vec<Held>,
}

impl Export<'_> {
    fn attribute(&self, name: &str) -> &str {
        self.output.attributes.get(name).map(String::as_str).unwrap_or_default()
    }

    fn names(&self) -> Result<Vec<Reference>> {
        let names = self.attribute("name").split(',').map(str::trim);
        let name = |name: &str| {
            let reference = Reference::parse_named(name).map_err(|error| {
                let name = ferry_kit::gofmt::quote(name);
                Error::invalid(format!("failed to parse {name}: {error}"))
            })?;
            Ok(reference.tagged())
        };
        names.filter(|name| !name.is_empty()).map(name).collect()
    }

    /// Waits for the layers' digests.
    async fn finish(&self) -> Result<Finished> {
        let references = self.names()?;
        let layers = part(self.events, self.vertex, "exporting layers");
        let (mut diff_ids, mut times, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for layer in &self.solved.tree.layers {
            let settled = layer.held.settled().await.map_err(failed("make a layer"))?;
            diff_ids.push(settled.diff_id.to_string());
            times.push(self.solved.epoch.or(layer.created));
            held.push(layer.held.clone());
        }
        layers.end();
        let now = self.solved.epoch.unwrap_or_else(Timestamp::now);
        let config = self.solved.image.finish(&diff_ids, &times, now);
        let mut config = config.map_err(|error| Error::internal("write the image's configuration", &error))?;
        if self.is_inline {
            config = super::cache::inline(self.shop, self.solved, config, self.events).await?;
        }
        Ok(Finished {
            built: Built { config, references },
            held,
        })
    }

    async fn image(&self) -> Result<BTreeMap<String, String>> {
        let Finished { built, held } = self.finish().await?;
        let loaded = self.shop.world.store.steps.record(built, &held).await;
        let loaded = loaded.map_err(failed("record the image"))?;
        let id = loaded.image.id.to_string();
        part(self.events, self.vertex, &format!("writing image {id}")).end();
        let mut told = digests(&id);
        for named in &loaded.references {
            part(self.events, self.vertex, &format!("naming to {}", named.reference)).end();
            self.shop.world.events.image(&id, "tag", &named.reference.familiar());
        }
        if !loaded.references.is_empty() {
            let names: Vec<String> = loaded
                .references
                .iter()
                .map(|named| named.reference.to_string())
                .collect();
            told.insert("image.name".to_owned(), names.join(","));
        }
        if matches!(self.attribute("push"), "true" | "1") {
            for named in &loaded.references {
                self.push(&named.reference).await?;
            }
        }
        Ok(told)
    }

    async fn push(&self, reference: &Reference) -> Result<()> {
        let credentials = super::workshop::credentials(self.session, reference.domain()).await?;
        let pushing = part(self.events, self.vertex, &format!("pushing {reference}"));
        let request = PushRequest {
            reference: reference.clone(),
            platform: None,
            credentials,
        };
        let (reporter, steps) = Reporter::new();
        // Nobody reads how each layer goes.
        drop(steps);
        let pushed = Images::new(Arc::clone(&self.shop.world)).push(request, &reporter).await;
        pushed
            .map_err(|error| Error::invalid(format!("failed to push {}: {}", reference.familiar(), error.message)))?;
        pushing.end();
        Ok(())
    }

    /// One archive is both: an OCI layout, and what `docker load` reads.
    async fn archive(&self) -> Result<BTreeMap<String, String>> {
        let Finished { built, held } = self.finish().await?;
        if matches!(self.attribute("tar"), "false" | "0") {
            let told = (self.events, self.vertex);
            return super::layouts::write(self.shop, (built, held), self.output.kind, self.session, told).await;
        }
        let told = digests(&ferry_image::Digest::of(&built.config).to_string());
        let save = self.shop.world.store.steps.archive(built, &held).await;
        let save = save.map_err(failed("make an archive of the image"))?;
        let sending = part(self.events, self.vertex, "sending tarball");
        self.send(move |out| save.write(out).map_err(failed("write the image")))
            .await?;
        sending.end();
        Ok(told)
    }

    async fn tar(&self) -> Result<BTreeMap<String, String>> {
        let lent = self.lent().await;
        self.send(move |out| {
            let wrong = |error: &(dyn std::error::Error + 'static)| Error::internal("write the files", error);
            let mut roots = Vec::new();
            for lent in lent.iter().rev() {
                roots.push(Root::open(&lent.path).map_err(|error| wrong(&error))?);
            }
            ferry_archive::merged(&roots, None, out).map_err(|error| wrong(&error))?;
            Ok(())
        })
        .await?;
        Ok(BTreeMap::new())
    }

    async fn directory(&self) -> Result<BTreeMap<String, String>> {
        let view = self.shop.view(&self.solved.tree).await?;
        self.session.receive_directory(self.number, view).await?;
        Ok(BTreeMap::new())
    }

    async fn lent(&self) -> Vec<Lent> {
        let held: Vec<Held> = self.solved.tree.layers.iter().map(|layer| layer.held.clone()).collect();
        ferry_storage::lend_all(&held).await
    }

    /// Writes to the client.
    async fn send(
        &self,
        write: impl FnOnce(&mut SyncIoBridge<Box<dyn AsyncWrite + Send + Unpin>>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let stream = self.session.receive_archive(self.number, &[]).await?;
        let mut out = SyncIoBridge::new(stream);
        ferry_build::aside("write the archive", move || {
            write(&mut out)?;
            let ended = out.flush().and_then(|()| out.shutdown());
            ended.map_err(|error| Error::internal("end the archive", &error))
        })
        .await?
    }
}

fn digests(id: &str) -> BTreeMap<String, String> {
    let id = || id.to_owned();
    BTreeMap::from([
        ("containerimage.digest".to_owned(), id()),
        ("containerimage.config.digest".to_owned(), id()),
    ])
}

/// A part of the export that takes time of its own.
pub(super) struct Part<'a> {
    events: &'a Events,
    status: Status,
}

pub(super) fn part<'a>(events: &'a Events, vertex: &str, id: &str) -> Part<'a> {
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
    pub(super) fn end(self) {
        self.events.send(Event::Status(Status {
            completed: Some(Timestamp::now()),
            ..self.status
        }));
    }
}
