//! The container's root file system on the host: found, cloned as a detached mount, and, for a container that shares the
//! caller's mounts, attached and taken away again.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_runtime::Plan;
use ferry_runtime::namespace::CLONE_NEWUSER;
use ferry_sys::Mount;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::mount::UnmountFlags;

use crate::config::Config;
use crate::error::{During as _, Error, Result};
use crate::state::Record;

/// Where the root file system is: `root.path` below the bundle.
pub(crate) fn path(config: &Config, bundle: &Path) -> Result<PathBuf> {
    let path = config
        .root
        .as_ref()
        .and_then(|root| root.path.clone())
        .unwrap_or_default();
    if path.as_os_str().is_empty() {
        return Err(Error::Invalid("root.path must not be empty".to_owned()));
    }
    // Components only: nothing is resolved.
    Ok(bundle.join(path).components().collect())
}

/// The root file system as a detached mount with all that is mounted below; a link anywhere in its path is refused.
pub(crate) fn open(path: &Path, plan: &Plan) -> Result<Mount> {
    let fd = match open_directory(path) {
        Err(rustix::io::Errno::LOOP) => {
            return Err(Error::Invalid(
                "invalid rootfs: not an absolute path, or a symlink".to_owned(),
            ));
        }
        done => done.during(|| format!("invalid rootfs: stat {}", path.display()))?,
    };
    let what = || format!("clone the mount of the root file system {}", path.display());
    let mount = Mount::clone_of(fd.as_fd(), Path::new(""), true).during(what)?;
    let spaces = &plan.namespaces;
    let in_user_namespace =
        spaces.create & CLONE_NEWUSER != 0 || spaces.join.iter().any(|(flag, _)| *flag == CLONE_NEWUSER);
    if let Some(host) = plan.lifecycle.host_propagation {
        ferry_runtime::inherit(&mount, host, false, in_user_namespace).during(what)?;
    }
    // A clone of a shared mount would be shared with the host, and pivot_root(2) refuses it: what the configuration wants
    // shared becomes so afterwards, among the container's own.
    let attributes = ferry_sys::mount::Attributes {
        propagation: ferry_sys::mount::PRIVATE,
        ..ferry_sys::mount::Attributes::default()
    };
    mount.set(attributes).during(what)?;
    Ok(mount)
}

/// Attaches the root where it is, in the mount namespace that the container shares; the number of the mount.
pub(crate) fn attach(root: &Mount, path: &Path) -> Result<u64> {
    let what = || format!("mount the root file system on {}", path.display());
    root.attach(open_directory(path).during(what)?.as_fd()).during(what)?;
    mount_id(path).during(what)
}

/// The mount that is seen at `path` (`STATX_MNT_ID`, Linux 5.8).
fn mount_id(path: &Path) -> std::io::Result<u64> {
    let fd = open_directory(path)?;
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(stat.stx_mnt_id)
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
}

/// Takes the root of a container away that has no mount namespace of its own, with all that is mounted on it.
pub(crate) fn detach(record: &Record) -> Result<()> {
    let (path, what) = (&record.rootfs, || format!("unmount {}", record.rootfs.display()));
    match record.mount {
        // What is there now is somebody else's if the number is another.
        Some(number) if mount_id(path).is_ok_and(|found| found == number) => {
            rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).during(what)
        }
        _ => Ok(()),
    }
}
