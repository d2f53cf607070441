//! A container's files, for a process of Ferry's own that copies them in or out (rule D3).
//!
//! The process moves into the view for good: the root it ends up in is the container's, with what the user mounted there
//! and without /proc, /sys and /dev, of which only /dev/shm is the user's. Nothing of the host can be reached by a path from
//! there, whatever the container does to its files meanwhile, and of the host's privileges only those over files are left.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use ferry_sys::handle::Proc;
use ferry_sys::mount::{self, Attributes};
use ferry_sys::{Mount, Root, SingleThreaded};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, ThreadNameSpaceType};

use crate::failure::{During as _, Failure};
use crate::identity;
use crate::namespace::{CLONE_NEWNS, CLONE_NEWUSER};
use crate::plan::{self, Source, User};
use crate::rootfs::Rootfs;
use crate::source;

/// Where the files are.
#[derive(Debug)]
pub enum View<'a> {
    /// In a running container; `user` if it has a user namespace of its own.
    Running { first: OwnedFd, user: bool },
    /// In one that does not run: its root as a detached mount, and the bind mounts on it.
    Stopped {
        root: Mount,
        mounts: &'a [plan::Mount],
        readonly: bool,
        user: Option<OwnedFd>,
    },
}

/// Bytes of address space, for a process that needs a few megabytes.
const MEMORY: u64 = 512 << 20;

/// What it takes to read and write any file, and no more.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);

/// Moves the calling process there. The working directory becomes a private procfs.
pub fn enter(proof: &SingleThreaded, view: View<'_>) -> Result<Root, Failure> {
    let proc = Proc::new().during(|| "make a private procfs")?;
    match view {
        View::Running { first, user } => {
            let flags = if user { CLONE_NEWUSER | CLONE_NEWNS } else { CLONE_NEWNS };
            let flags = ThreadNameSpaceType::from_bits_retain(u32::try_from(flags).unwrap_or(0));
            rustix::thread::move_into_thread_name_spaces(first.as_fd(), flags)
                .during(|| "join the container's namespaces")?;
            drop(first);
            if user {
                become_root()?;
            }
            ferry_sys::ns::unshare_mounts(proof).during(|| "copy the container's mounts")?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).during(|| "make the mounts private")?;
            let shared = shared_memory();
            // Not a mount, a link, or locked by a user namespace: then it is as harmless as any other directory.
            let gone = |path| rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok();
            let [_, _, dev] = ["/proc", "/sys", "/dev"].map(gone);
            if let (Some(shared), true) = (shared, dev) {
                show(&shared).during(|| "show /dev/shm")?;
            }
        }
        View::Stopped {
            root,
            mounts,
            readonly,
            user,
        } => {
            let sources = mounts.iter().filter_map(|step| match &step.source {
                Source::Bind { path, recursive } => {
                    let opened = source::open(step, path, *recursive, None, user.is_some());
                    Some(opened.and_then(|mount| {
                        let what = || format!("map the owners of {}", step.target.display());
                        if let (Some(map), Some(user)) = (&step.idmap, &user) {
                            mount.idmap(user.as_fd(), map.recursive).during(what)?;
                        }
                        Ok((step, mount))
                    }))
                }
                Source::Layers { layers, upper } => {
                    let user = user.as_ref().filter(|_| step.idmap.is_some());
                    let opened = source::layers(proof, step, layers, upper.as_ref(), user.map(OwnedFd::as_fd));
                    Some(opened.map(|mount| (step, mount)))
                }
                Source::New { .. } | Source::Cgroup => None,
            });
            let sources = sources.collect::<Result<Vec<_>, _>>()?;
            if let Some(user) = user {
                rustix::thread::move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
                    .during(|| "join the container's user namespace")?;
                become_root()?;
            }
            ferry_sys::ns::unshare_mounts(proof).during(|| "make a mount namespace")?;
            let rootfs = Rootfs::attach(root, None)?;
            for (step, mount) in sources {
                rootfs.attach_bind(&mount, &step.target)?;
            }
            rootfs.pivot(readonly, None)?;
        }
    }
    let root = Root::open(Path::new("/")).during(|| "open /")?;
    proc.enter().during(|| "enter the private procfs")?;
    confine()?;
    Ok(root)
}

/// What is mounted at /dev/shm, which is the container's own.
fn shared_memory() -> Option<Mount> {
    let root = Root::open(Path::new("/")).ok()?;
    let directory = |path| root.resolve_no_links(path, OFlags::PATH | OFlags::DIRECTORY).ok();
    let (dev, shm) = (directory("dev")?, directory("dev/shm")?);
    let device = |directory: &OwnedFd| rustix::fs::fstat(directory).ok().map(|found| found.st_dev);
    if device(&dev)? == device(&shm)? {
        return None;
    }
    Mount::clone_of(shm.as_fd(), Path::new(""), false).ok()
}

/// Below a /dev with nothing else, which nothing else gets into.
fn show(shared: &Mount) -> io::Result<()> {
    let root = Root::open(Path::new("/"))?;
    let target = root.resolve_no_links("dev", OFlags::PATH | OFlags::DIRECTORY)?;
    let dev = Mount::new(
        "tmpfs",
        &[("mode", "755")],
        mount::NOSUID | mount::NODEV | mount::NOEXEC,
    )?;
    rustix::fs::mkdirat(dev.as_fd(), "shm", Mode::from_raw_mode(0o755))?;
    dev.attach(target.as_fd())?;
    let target = rustix::fs::openat(dev.as_fd(), "shm", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    shared.attach(target.as_fd())?;
    dev.set(Attributes {
        set: mount::RDONLY,
        ..Attributes::default()
    })
}

/// As root of a user namespace that has just been joined.
fn become_root() -> Result<(), Failure> {
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    let what = || "become root of the user namespace";
    rustix::thread::set_thread_groups(&[]).during(what)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).during(what)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during(what)
}

fn confine() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).during(|| "set no-new-privileges")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    for (resource, limit) in [(Resource::As, MEMORY), (Resource::Core, 0), (Resource::Nproc, 0)] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        rustix::process::setrlimit(resource, limit).during(|| "limit the process")?;
    }
    let sets = CapabilitySets {
        effective: CAPABILITIES,
        permitted: CAPABILITIES,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).during(|| "drop capabilities")
}

/// The user and group that `user` names in the container's own files.
pub fn ids(root: &Root, user: &User) -> Result<(u32, u32), Failure> {
    identity::resolve(root, user).map(|identity| (identity.uid, identity.gid))
}
