//! What a container's start and end mean for its volumes.

use std::sync::Arc;

use ferry_api::volume::mount_type;

use super::{Shelf, Volume, event, local, names};
use crate::container::Record;
use crate::error::{Error, Kind, Result, StartFailure};
use crate::world::{World, blocking};

impl Shelf {
    /// Makes the container's volumes ready to be mounted: what a device has is mounted on the host, once for all containers.
    pub async fn mount(&self, world: &World, record: &Record) -> Result<()> {
        for point in &record.mounts {
            if point.r#type != mount_type::VOLUME {
                continue;
            }
            let volume = self.find("get", &point.name)?;
            volume.mount_for(&record.id).await?;
            if volume.stored.device().is_none() && !volume.data().is_dir() {
                return Err(Error::new(
                    Kind::Start(StartFailure::Setup),
                    format!(
                        "the directory of volume {:?} is gone: put {} back, or remove the volume",
                        point.name,
                        volume.data().display()
                    ),
                ));
            }
            let more = [
                ("container", record.id.clone()),
                ("destination", point.destination.clone()),
                ("propagation", point.propagation.clone()),
                ("read/write", point.rw.to_string()),
            ];
            event(world, &volume.stored, "mount", &more);
        }
        Ok(())
    }

    /// The container does not run, or not any more: what nobody else uses is unmounted.
    pub async fn unmount(&self, world: &World, record: &Record) {
        for name in names(record) {
            let Some(volume) = self.get(name) else { continue };
            volume.unmount_for(&record.id).await;
            event(world, &volume.stored, "unmount", &[("container", record.id.clone())]);
        }
    }
}

impl Volume {
    pub(super) async fn mount_for(self: &Arc<Self>, container: &str) -> Result<()> {
        let mut users = self.mounted.lock().await;
        if users.is_empty() && self.stored.device().is_some() {
            let address = match self.stored.device().and_then(|device| device.host()) {
                Some(host) => Some(crate::resolve::address(host).await.map_err(|why| {
                    Error::new(
                        Kind::Internal,
                        format!(
                            "error while mounting volume '{}': error resolving passed in network volume address: {why}",
                            self.data().display()
                        ),
                    )
                })?),
                None => None,
            };
            let volume = Arc::clone(self);
            blocking("mount a volume", move || volume.mount_device(address)).await??;
        }
        users.insert(container.to_owned());
        Ok(())
    }

    fn mount_device(&self, address: Option<std::net::IpAddr>) -> Result<()> {
        let Some(device) = self.stored.device() else {
            return Ok(());
        };
        let data = self.data();
        let what = || format!("error while mounting volume '{}'", data.display());
        match local::is_mounted(&data) {
            Ok(false) => device.mount(&data, address),
            Ok(true) => Err(Error::conflict(format!(
                "{}: something else is mounted there: unmount it first",
                what()
            ))),
            Err(error) => Err(Error::internal(what(), &error)),
        }
    }

    pub(super) async fn unmount_for(&self, container: &str) {
        let mut users = self.mounted.lock().await;
        if !users.remove(container) || !users.is_empty() || self.stored.device().is_none() {
            return;
        }
        let data = self.data();
        let place = data.clone();
        let done = blocking("unmount a volume", move || local::unmount(&place)).await;
        if let Ok(Err(error)) = done {
            tracing::error!(volume = self.stored.name, path = %data.display(), %error, "cannot unmount the volume");
        }
    }

    /// A container that runs has it mounted, since before this engine was there.
    pub(super) async fn adopt(&self, container: &str) {
        self.mounted.lock().await.insert(container.to_owned());
    }
}
