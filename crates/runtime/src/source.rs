//! What a bind mount shows: a clone of a mount of the host, made with the host's credentials, complete before it is attached.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use ferry_sys::mount::{
    ATIME, Attributes, Mount, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, PRIVATE, RDONLY, SLAVE,
    STRICTATIME,
};
use rustix::fs::StatVfsMountFlags;

use crate::failure::{During as _, Failure};
use crate::plan;

/// What the owner of a user namespace may not change of a mount that comes from outside (mount_namespaces(7)).
const LOCKED: u64 = RDONLY | NOSUID | NODEV | NOEXEC | ATIME | NODIRATIME;

/// Clones the mount at `path`. For a container with a user namespace the host's restrictions stay: what was not asked for
/// is inherited, and what was asked for against them is refused, as the kernel would if the container did it.
pub(crate) fn open(
    step: &plan::Mount,
    path: &Path,
    recursive: bool,
    in_user_namespace: bool,
) -> Result<Mount, Failure> {
    let what = || error_mounting(path, &step.target);
    let mount = Mount::clone_path(path, recursive).during(what)?;
    let propagate = |propagation, recursive| {
        mount
            .set(Attributes {
                propagation,
                recursive,
                ..Attributes::default()
            })
            .during(what)
    };
    match (step.propagation, step.propagation_top) {
        (0, _) => propagate(PRIVATE, true)?,
        (propagation, false) => propagate(propagation, true)?,
        // What is mounted below stays as it is, but nothing of the container's reaches the host.
        (propagation, true) => {
            propagate(SLAVE, true)?;
            propagate(propagation, false)?;
        }
    }
    let mut attributes = step.attributes;
    if in_user_namespace && attributes.set | attributes.clear != 0 {
        attributes = keep_locked(attributes, step.explicit, of(&mount).during(what)?).during(what)?;
    }
    if attributes.set | attributes.clear != 0 {
        mount.set(attributes).during(what)?;
    }
    if step.below.set | step.below.clear != 0 {
        mount.set(step.below).during(what)?;
    }
    Ok(mount)
}

/// In runc's words, which callers show to users.
pub(crate) fn error_mounting(source: &Path, target: &Path) -> String {
    format!("error mounting {source:?} to rootfs at {target:?}")
}

/// The attributes a mount has.
fn of(mount: &Mount) -> io::Result<u64> {
    let flags = rustix::fs::fstatvfs(mount.as_fd())?.f_flag;
    let mut attributes = 0;
    for (flag, attribute) in [
        (StatVfsMountFlags::RDONLY, RDONLY),
        (StatVfsMountFlags::NOSUID, NOSUID),
        (StatVfsMountFlags::NODEV, NODEV),
        (StatVfsMountFlags::NOEXEC, NOEXEC),
        (StatVfsMountFlags::NODIRATIME, NODIRATIME),
    ] {
        if flags.contains(flag) {
            attributes |= attribute;
        }
    }
    // Of access times there is one of three; relatime is 0.
    if flags.contains(StatVfsMountFlags::NOATIME) {
        attributes |= NOATIME;
    } else if !flags.contains(StatVfsMountFlags::RELATIME) {
        attributes |= STRICTATIME;
    }
    Ok(attributes)
}

fn keep_locked(wanted: Attributes, explicit: u64, have: u64) -> io::Result<Attributes> {
    let times = ATIME | NODIRATIME;
    let against = explicit & have & LOCKED & !times != 0;
    let other_times = explicit & ATIME != 0 && (wanted.set & times) != (have & times);
    if against || other_times {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(Attributes {
        set: wanted.set & !times,
        clear: wanted.clear & NOSYMFOLLOW,
        ..wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_restrictions_stay_in_a_user_namespace() {
        let wanted = |set, clear| Attributes {
            set,
            clear,
            ..Attributes::default()
        };
        let all = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
        // Inherited, because nobody asked for anything else.
        let kept = keep_locked(wanted(NODEV, all & !NODEV), 0, RDONLY | NOEXEC).unwrap();
        assert_eq!((kept.set, kept.clear), (NODEV, NOSYMFOLLOW));
        // Asked for.
        assert!(keep_locked(wanted(0, all), RDONLY, RDONLY).is_err());
        assert!(keep_locked(wanted(0, all), RDONLY, NOEXEC).is_ok());
        assert!(keep_locked(wanted(STRICTATIME, all | ATIME), ATIME, 0).is_err());
        assert!(keep_locked(wanted(NOATIME, all | ATIME), ATIME, NOATIME).is_ok());
    }
}
