//! What an image has where a volume is mounted goes into the volume while that is empty: files, owners, modes, attributes.
//!
//! A helper process in the container's own root reads it (rule D3), so a link of the image's leads nowhere but to the image's
//! own files. Nothing is written by path: into a directory of `tmp/` that takes the empty one's place in one step, or, if a
//! container has the volume mounted already, through descriptors below the volume's root.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_api::volume::mount_type;
use ferry_kit::Id;
use ferry_supervise::{FilesError, FilesRequest, FilesView, Operation};
use ferry_sys::Root;

use super::{Volume, disk};
use crate::container::{Point, Record, rootfs};
use crate::error::{Error, Kind, Result};
use crate::world::{World, blocking};

/// Which volumes: those that are directories are filled when the container is made, and those with a device when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Made,
    Started,
}

/// Fills the container's empty volumes. Nobody else may have the container's root mounted meanwhile.
pub(crate) async fn copy_up(world: &Arc<World>, record: &Record, when: When) -> Result<()> {
    for point in &record.mounts {
        if point.r#type != mount_type::VOLUME || !point.copy {
            continue;
        }
        let Some(volume) = world.volumes.get(&point.name) else {
            continue;
        };
        if volume.stored.device().is_some() != (when == When::Started) {
            continue;
        }
        // One at a time: whoever comes second finds it filled.
        let mounted = volume.mounted.lock().await;
        let in_use = !mounted.is_empty();
        fill(world, record, point, &volume, in_use).await?;
        drop(mounted);
    }
    Ok(())
}

async fn fill(world: &Arc<World>, record: &Record, point: &Point, volume: &Volume, in_use: bool) -> Result<()> {
    let what = || format!("copy the image's {} into volume {}", point.destination, point.name);
    let failed = |error: &(dyn std::error::Error + 'static)| Error::internal(what(), error);
    let data = volume.data();
    // What it is mounted from may be a server that does not answer.
    let looked_at = data.clone();
    let empty = blocking("look into a volume", move || is_empty(&looked_at)).await?;
    if !empty.map_err(|error| failed(&error))? {
        return Ok(());
    }
    let root = rootfs(record, world)?;
    if !root.layers.iter().any(|layer| may_have(layer, &point.destination)) {
        return Ok(());
    }
    let request = FilesRequest {
        view: FilesView::Stopped {
            rootfs: root,
            mounts: Vec::new(),
            readonly: true,
        },
        path: PathBuf::from(&point.destination),
        directory: true,
        operation: Operation::Read { name: ".".into() },
    };
    let (ours, theirs) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(&io::Error::from(error)))?;
    let mut files = world
        .supervisor
        .files(request, vec![theirs], std::future::pending(), ())
        .await
        .map_err(|error| failed(&error))?;
    match files.answer().await.map_err(|error| failed(&error))? {
        Ok(_) => {}
        Err(FilesError::NotFound) => return Ok(()),
        Err(FilesError::NotADirectory) => {
            return Err(Error::invalid(format!(
                "cannot mount volume over existing file, file exists {}",
                point.destination
            )));
        }
        Err(error) => return Err(failed(&error)),
    }
    // Where nobody sees it, nothing half-filled is ever there.
    let staged = (!in_use && volume.stored.device().is_none())
        .then(|| world.store.root().join("tmp").join(format!("volume-{}", Id::random())));
    let (target, fresh) = (staged.clone().unwrap_or_else(|| data.clone()), staged.is_some());
    let unpacked = blocking("fill a volume", move || unpack(ours, &target, fresh)).await?;
    // A stream that was cut between two files ends like a whole one: only the helper knows that it sent all.
    let done = match files.answer().await {
        Err(error) => Err(failed(&error)),
        Ok(Err(error)) => Err(failed(&error)),
        Ok(Ok(_)) => unpacked.map_err(|why| Error::new(Kind::Internal, format!("{}: {why}", what()))),
    };
    let Some(staged) = staged else { return done };
    let whole = done.is_ok();
    let moved = blocking("fill a volume", move || {
        let moved = match whole {
            true => std::fs::rename(&staged, &data),
            false => Ok(()),
        };
        let _ = disk::remove(&staged);
        match moved {
            // Onto an empty directory only: what somebody wrote there meanwhile stays.
            Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
            moved => moved,
        }
    });
    done.and(moved.await?.map_err(|error| failed(&error)))
}

/// Unpacks a stream into a directory, a new one if it is `fresh`.
fn unpack(stream: OwnedFd, target: &Path, fresh: bool) -> std::result::Result<(), String> {
    let chain = |error: &(dyn std::error::Error + 'static)| crate::error::chain(error);
    if fresh {
        std::fs::create_dir(target).map_err(|error| chain(&error))?;
    }
    let root = Root::open(target).map_err(|error| chain(&error))?;
    let options = ferry_archive::ApplyOptions {
        whiteouts: ferry_archive::Whiteouts::Literal,
        limits: ferry_archive::Limits::default(),
        ..ferry_archive::ApplyOptions::default()
    };
    let stream = io::BufReader::with_capacity(256 * 1024, std::fs::File::from(stream));
    let done = ferry_archive::apply(stream, &root, &options);
    done.map(drop).map_err(|error| chain(&error))
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        // The start says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a layer has the first directory of a path, so that it may have the rest.
fn may_have(layer: &Path, path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    std::fs::symlink_metadata(layer.join(first)).is_ok()
}
