//! A volume as a tar stream, out and in: Ferry's own `volume export` and `volume import`.
//!
//! Links are written and read as links, and every path is resolved below the volume (rule D1), whatever a container does there
//! meanwhile.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use ferry_archive::{ApplyOptions, CreateOptions, Whiteouts};
use ferry_kit::Id;
use ferry_sys::Root;
use futures_util::future::BoxFuture;

use super::{Volume, Volumes, names};
use crate::container::Record;
use crate::error::{Error, Kind, Result};
use crate::world::World;

/// A volume that is being read or written: it is mounted, and not removed meanwhile.
#[derive(Debug)]
pub struct Transfer {
    world: Arc<World>,
    volume: Arc<Volume>,
    /// In the place of a container's id.
    holder: String,
}

impl Volumes {
    pub fn transfer<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Transfer>> {
        Box::pin(async move {
            let world = Arc::clone(&self.world);
            let changes = world.volumes.change().await;
            let volume = world.volumes.find("get", name)?;
            let transfer = Transfer::of(&world, volume);
            drop(changes);
            transfer.mounted().await
        })
    }
}

impl Transfer {
    fn of(world: &Arc<World>, volume: Arc<Volume>) -> Self {
        volume.hold();
        Self {
            holder: format!("transfer-{}", Id::random()),
            world: Arc::clone(world),
            volume,
        }
    }

    async fn mounted(self) -> Result<Self> {
        self.volume.mount_for(&self.holder).await?;
        Ok(self)
    }

    /// The volumes of a container that does not run and whose files are wanted, as far as something is mounted for them.
    pub(crate) async fn of_container(world: &Arc<World>, record: &Record) -> Result<Vec<Self>> {
        let mut held = Vec::new();
        for volume in names(record).filter_map(|name| world.volumes.get(name)) {
            if volume.stored.device().is_some() {
                held.push(Self::of(world, volume).mounted().await?);
            }
        }
        Ok(held)
    }

    fn failed(&self, verb: &str, error: &(dyn std::error::Error + 'static)) -> Error {
        Error::internal(format!("{verb} volume {}", self.volume.stored.name), error)
    }

    fn root(&self, verb: &str) -> Result<Root> {
        Root::open(&self.volume.data()).map_err(|error| self.failed(verb, &error))
    }

    /// Everything in it, its own owner and mode first.
    pub fn export_blocking(&self, out: impl Write) -> Result<()> {
        let options = CreateOptions {
            name: Some(Path::new("").to_owned()),
            cross_mounts: false,
            contents_only: false,
        };
        let written = ferry_archive::create(&self.root("export")?, Path::new("."), out, &options);
        written.map(drop).map_err(|error| self.failed("export", &error))
    }

    /// Unpacks an archive, which may be compressed, over what is there. What was unpacked before a failure stays.
    pub fn import_blocking(&self, archive: impl Read + Send) -> Result<()> {
        let root = self.root("import")?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            ..ApplyOptions::default()
        };
        let mut archive = io::BufReader::with_capacity(256 << 10, archive);
        let done =
            ferry_archive::decompress(&mut archive).and_then(|stream| ferry_archive::apply(stream, &root, &options));
        match done {
            Ok(_) => Ok(()),
            Err(error @ (ferry_archive::Error::Write { .. } | ferry_archive::Error::Read { .. })) => {
                Err(self.failed("import", &error))
            }
            Err(error) => Err(Error::new(
                Kind::Invalid,
                format!(
                    "import volume {}: {}",
                    self.volume.stored.name,
                    crate::error::chain(&error)
                ),
            )),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.volume.let_go();
        let (volume, holder) = (Arc::clone(&self.volume), std::mem::take(&mut self.holder));
        self.world.tasks.spawn(async move { volume.unmount_for(&holder).await });
    }
}
