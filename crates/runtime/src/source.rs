//! What a bind mount shows: a clone of a mount of the host, made with the host's credentials, complete before it is attached.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_sys::SingleThreaded;
use ferry_sys::mount::{
    ATIME, Attributes, Mount, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, PRIVATE, RDONLY, SHARED, SLAVE,
    STRICTATIME, UNBINDABLE,
};
use ferry_sys::overlay::{Overlay, Upper};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;

use crate::failure::{During as _, Failure, Kind};
use crate::plan::{self, Propagation};

/// What the owner of a user namespace may not change of a mount that comes from outside (mount_namespaces(7)).
const LOCKED: u64 = RDONLY | NOSUID | NODEV | NOEXEC | ATIME | NODIRATIME;

/// Clones the mount at `path`. For a container with a user namespace the host's restrictions stay: what was not asked for
/// is inherited, and what was asked for against them is refused, as the kernel would if the container did it.
pub(crate) fn open(
    step: &plan::Mount,
    path: &Path,
    recursive: bool,
    host: Option<Propagation>,
    in_user_namespace: bool,
) -> Result<Mount, Failure> {
    let what = || error_mounting(path, &step.target);
    let mount = match step.subpath.as_os_str().is_empty() {
        true => Mount::clone_path(path, recursive).during(what)?,
        false => clone_below(path, &step.subpath, recursive)?,
    };
    let propagate = |propagation, recursive| {
        mount
            .set(Attributes {
                propagation,
                recursive,
                ..Attributes::default()
            })
            .during(what)
    };
    match (host, step.propagation, step.propagation_top) {
        (Some(host), propagation, top) => {
            let on_root = host.top && is_on_root(path).during(what)?;
            inherit(&mount, host, on_root, in_user_namespace).during(what)?;
            if propagation != 0 {
                propagate(propagation, !top)?;
            }
        }
        (None, 0, _) => propagate(PRIVATE, true)?,
        (None, propagation, false) => propagate(propagation, true)?,
        // What is mounted below stays as it is, but nothing of the container's reaches the host.
        (None, propagation, true) => {
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

/// An image's layers as one mount, read-only without `upper`, or what of them is at the step's subpath. `user`: whose ids they show.
pub(crate) fn layers(
    proof: &SingleThreaded,
    step: &plan::Mount,
    layers: &[PathBuf],
    upper: Option<&plan::Upper>,
    user: Option<BorrowedFd<'_>>,
) -> Result<Mount, Failure> {
    let what = || error_mounting(Path::new("the image"), &step.target);
    let whole = match (layers, upper) {
        // An overlay has at least two.
        ([layer], None) => {
            let mount = Mount::clone_path(layer, false).during(what)?;
            user.map_or(Ok(()), |user| mount.idmap(user, false)).during(what)?;
            mount
        }
        (layers, upper) => {
            let overlay = Overlay {
                lower: layers,
                upper: upper.map(|upper| Upper {
                    dir: &upper.dir,
                    work: &upper.work,
                }),
                volatile: upper.is_some(),
                idmap: user,
            };
            overlay.mount(proof).during(what)?
        }
    };
    whole
        .set(Attributes {
            propagation: PRIVATE,
            ..step.attributes
        })
        .during(what)?;
    if step.subpath.as_os_str().is_empty() {
        return Ok(whole);
    }
    let found = find_below(whole.as_fd(), Path::new("the image"), &step.subpath)?;
    match Mount::clone_of(found.as_fd(), Path::new(""), false) {
        // Cloning from a mount that is attached nowhere came with Linux 6.15.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let enter = || ferry_sys::ns::unshare_mounts_of_thread().during(what);
            in_other_mounts(proof, enter, || clone_attached(&whole, found.as_fd()).during(what))
        }
        cloned => cloned.during(what),
    }
}

/// A clone of what was found in `whole`, which is attached for it: in a mount namespace that nobody else sees.
fn clone_attached(whole: &Mount, found: BorrowedFd<'_>) -> io::Result<Mount> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // What it covers is needed by nobody here.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open("/proc", flags, Mode::empty())?;
    whole.attach(place.as_fd())?;
    Mount::clone_of(found, Path::new(""), false)
}

/// Does `work` in the mount namespace that `enter` goes to, and comes back: root and working directory are as before.
pub(crate) fn in_other_mounts<T>(
    _proof: &SingleThreaded,
    enter: impl FnOnce() -> Result<(), Failure>,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let what = || "look into another mount namespace";
    let open = |path: &str, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).during(what);
    let (here, directory) = (open("/proc/self/ns/mnt", OFlags::RDONLY)?, open(".", OFlags::PATH)?);
    enter()?;
    let done = work();
    rustix::thread::move_into_link_name_space(here.as_fd(), None).during(what)?;
    rustix::process::fchdir(&directory).during(what)?;
    done
}

/// Clones what is at `subpath` below `path`. Whoever can write there may change it meanwhile: what is mounted is the very
/// object that was found, and it was found below.
fn clone_below(path: &Path, subpath: &Path, recursive: bool) -> Result<Mount, Failure> {
    let what = || format!("cannot access path {}", path.join(subpath).display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(path, flags, Mode::empty()).during(what)?;
    let found = find_below(base.as_fd(), path, subpath)?;
    Mount::clone_of(found.as_fd(), Path::new(""), recursive).during(what)
}

/// What is at `subpath` below `base`, which errors call `path`. No link leads out of there.
fn find_below(base: BorrowedFd<'_>, path: &Path, subpath: &Path) -> Result<OwnedFd, Failure> {
    let what = || format!("cannot access path {}", path.join(subpath).display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // A rename anywhere makes the kernel give up on `..` (openat2(2)).
    const TRIES: usize = 128;
    for _ in 0..TRIES {
        match rustix::fs::openat2(base, subpath, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::XDEV) => {
                return Err(Failure::new(
                    Kind::Setup,
                    format!(
                        "path concatenation escapes the base directory, base: {}, subpath: {}",
                        path.display(),
                        subpath.display()
                    ),
                ));
            }
            found => return found.during(what),
        }
    }
    Err(Failure::setup(what(), &io::Error::from(Errno::AGAIN)))
}

/// What a clone of a host's mount is as long as nobody asks for more: `on_root` if it is one of the host's `/`.
///
/// runc gives a propagation to the mounts of the container's namespace and then binds from them, which is the same, but for
/// one without an `r`: that is of the mount of `/` alone, and what else the host has is left shared with it. Here nothing of
/// the container's gets there unless it is `shared` that was asked for, and nothing at all out of a user namespace. What
/// must not be bound is bound and private; runc refuses such a mount.
pub fn inherit(mount: &Mount, host: Propagation, on_root: bool, in_user_namespace: bool) -> io::Result<()> {
    let set = |propagation, recursive| {
        mount.set(Attributes {
            propagation,
            recursive,
            ..Attributes::default()
        })
    };
    let mode = if host.mode == UNBINDABLE { PRIVATE } else { host.mode };
    if mode != SHARED || in_user_namespace {
        let apart = if mode == SHARED || host.top { SLAVE } else { mode };
        set(apart, true)?;
    }
    match (mode, host.top) {
        (SHARED, false) => set(SHARED, true),
        (_, true) if on_root => set(mode, false),
        _ => Ok(()),
    }
}

/// Whether `path` is in the mount of `/` (`STATX_MNT_ID`, Linux 5.8).
fn is_on_root(path: &Path) -> io::Result<bool> {
    let number = |path: &Path| statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).map(|stat| stat.stx_mnt_id);
    Ok(number(path)? == number(Path::new("/"))?)
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
