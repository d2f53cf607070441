//! How much a volume holds.

use std::os::fd::AsFd as _;

use ferry_sys::Root;

use super::Volume;
use crate::world::blocking;

/// Bytes of its files, on its own file system; `None` when they cannot be read.
pub(super) async fn size(volume: &Volume) -> Option<u64> {
    let data = volume.data();
    let measured = blocking("measure a volume", move || {
        Root::open(&data).and_then(|root| ferry_archive::tree::size(root.as_fd()))
    });
    measured.await.ok()?.ok()
}

/// Removes a tree of the engine's own, whose content somebody else chose. Blocks.
pub(super) fn remove(path: &std::path::Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    Root::open(parent)?.remove_all(name)
}
