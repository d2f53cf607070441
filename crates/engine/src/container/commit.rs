//! `docker commit` and `docker export`: a container's files become an image, or one archive.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ferry_api::container::Config;
use ferry_image::Reference;
use ferry_storage::{CommitOptions, Shift, UpperOptions};
use futures_util::future::BoxFuture;

use super::record::Record;
use super::state::Status;
use super::{Containers, merge};
use crate::error::{Error, Result};
use crate::images;
use crate::world::World;

/// What the engine and the runtime put into a container's root to mount something on, relative to it. Docker keeps these in
/// a layer of their own that is never committed.
const MADE: [&str; 7] = [
    ".dockerenv",
    "dev",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
    "proc",
    "sys",
];

/// What is asked of a commit.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub reference: Option<Reference>,
    pub author: String,
    pub comment: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    pub pause: bool,
    /// What the image is to run, instead of what the container does.
    pub config: Option<Config>,
}

/// A container whose files are about to be written as an archive.
#[derive(Debug)]
pub struct Export {
    world: Arc<World>,
    container: String,
    source: UpperOptions,
}

impl Containers {
    /// Makes an image of a container, running or not; the image's id.
    pub fn commit<'a>(&'a self, name: &'a str, commit: Commit) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move { self.timed("commit", self.make_image(name, commit)).await })
    }

    async fn make_image(&self, name: &str, commit: Commit) -> Result<String> {
        let handle = self.find(name)?;
        let snapshot = handle.snapshot();
        let record = &snapshot.record;
        refuse(record, "commit")?;
        let parent = images::find(&self.world, &record.image)?;
        let json = |config: &Config| {
            serde_json::to_value(config).map_err(|error| Error::internal("write the configuration", &error))
        };
        // First the instructions, then what they leave to the container: in this order, as in Docker.
        // A configuration that says nothing is none.
        let nothing = json(&Config::default())?;
        let asked = commit.config.as_ref().map(json).transpose()?;
        let base = match asked.filter(|asked| *asked != nothing) {
            Some(asked) => asked,
            None => json(&record.config)?,
        };
        let changed = ferry_storage::apply_changes(&base, &commit.changes)?;
        let mut config: Config = serde_json::from_value(changed)
            .map_err(|error| Error::internal("read the changed configuration", &error))?;
        merge::merge(&mut config, record.config.clone());
        let options = CommitOptions {
            container: record.id.clone(),
            config: json(&config)?,
            container_config: json(&record.config)?,
            author: commit.author,
            comment: commit.comment,
            reference: commit.reference,
            engine_version: crate::System::new(Arc::clone(&self.world)).version().version,
            source: source(record),
        };
        // Of one that does not run there is nothing to pause.
        let paused = commit.pause && record.run.status == Status::Running && self.pause(&record.id).await.is_ok();
        let world = Arc::clone(&self.world);
        let (comment, reference) = (options.comment.clone(), options.reference.clone());
        let made = tokio::task::spawn_blocking(move || world.store.images.commit(&parent, &options)).await;
        if paused && let Err(error) = self.unpause(&record.id).await {
            tracing::error!(container = record.id, %error, "cannot unpause the container after its commit");
        }
        let image = made.map_err(|error| Error::internal("commit the container", &error))??;
        let id = image.id.to_string();
        let attributes = [
            ("comment", comment),
            ("imageID", id.clone()),
            ("imageRef", reference.map(|name| name.familiar()).unwrap_or_default()),
        ];
        self.world.events.container(record, "commit", &attributes);
        Ok(id)
    }

    /// Finds a container to export; nothing is read yet.
    pub fn export(&self, name: &str) -> Result<Export> {
        let handle = self.find(name)?;
        let snapshot = handle.snapshot();
        let record = &snapshot.record;
        refuse(record, "export")?;
        self.world.events.container(record, "export", &[]);
        Ok(Export {
            world: Arc::clone(&self.world),
            container: record.id.clone(),
            source: source(record),
        })
    }
}

impl Export {
    /// Writes all files, without what is mounted, as a tar stream. Blocking: call it where that is allowed.
    pub fn write_blocking(&self, out: impl Write) -> Result<()> {
        Ok(self.world.store.images.export(&self.container, &self.source, out)?)
    }
}

/// In Docker's words.
fn refuse(record: &Record, action: &str) -> Result<()> {
    let why = match record.run.status {
        Status::Dead => "Dead",
        Status::Removing => "being removed",
        _ => return Ok(()),
    };
    Err(Error::conflict(format!(
        "You cannot {action} container {} which is {why}",
        record.id
    )))
}

pub(super) fn source(record: &Record) -> UpperOptions {
    UpperOptions {
        shift: record.ids.map(|ids| Shift {
            start: ids.start,
            count: ids.count,
        }),
        made: MADE.iter().map(PathBuf::from).collect(),
    }
}
