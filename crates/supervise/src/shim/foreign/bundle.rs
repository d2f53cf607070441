//! The bundle of a container: a directory that only its shim sees, and what the shim starts.
//!
//! ```text
//! RUN DIRECTORY/oci     a tmpfs in the shim's own mount namespace
//!   config.json         the plan
//!   rootfs/             the container's root
//!   network             its network namespace
//!   init                Ferry's binary, for --init
//!   mount-N             what step N of the plan shows, where that has no path on the host
//!   state/              the runtime's --root
//!   log-N.json pid-N console-N process-N.json
//! ```
//!
//! The host's mounts and unmounts reach that namespace; nothing of it reaches the host.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ferry_runtime::plan::{Plan, Source};
use ferry_runtime::start::open_source;
use ferry_runtime::{During as _, Failure, spec};
use ferry_sys::{Mount, Root, SingleThreaded};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::launch::{Launch, Runtime};

/// Bytes of the tmpfs: logs of a runtime must not fill the host's memory.
const SIZE: &str = "128m";

pub(super) struct Bundle {
    pub directory: Directory,
    pub place: OwnedFd,
    pub rootfs: Root,
}

/// The bundle; dropped, it is gone from the run directory.
pub(super) struct Directory(pub PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // With all that is mounted below it. A directory that is not empty then is not removed.
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Takes the shim to a mount namespace of its own and makes the bundle there.
pub(super) fn make(
    proof: &SingleThreaded,
    launch: &Launch,
    runtime: &Runtime,
    root: &Mount,
    network: Option<&OwnedFd>,
    exe: &OwnedFd,
) -> Result<Bundle, Failure> {
    let what = || "make the runtime's bundle";
    let plan = &launch.plan;
    // Opened as the host sees them.
    let sources = sources(proof, plan)?;
    let clone = |fd: &OwnedFd| Mount::clone_of(fd.as_fd(), Path::new(""), false);
    // Ferry runs from a mount that is attached nowhere, of which a clone came with Linux 6.15.
    let binary = clone(exe).ok();
    ferry_sys::ns::unshare_mounts(proof).during(|| "make a mount namespace")?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).during(|| "keep the shim's mounts from the host")?;
    let path = launch.run_dir.join("oci");
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).during(what),
        _ => {}
    }
    let tmpfs = Mount::new("tmpfs", &[("mode", "700"), ("size", SIZE)], 0).during(what)?;
    let guard = Directory(path);
    let directory = &guard.0;
    tmpfs.attach(open(directory).during(what)?.as_fd()).during(what)?;
    let place = open(directory).during(what)?;
    let attach = |name: &str, mount: &Mount| -> Result<PathBuf, Failure> {
        let path = directory.join(name);
        let is_directory = is_directory(mount).during(what)?;
        match is_directory {
            true => std::fs::create_dir(&path),
            false => std::fs::write(&path, ""),
        }
        .during(what)?;
        mount.attach(open(&path).during(what)?.as_fd()).during(what)?;
        Ok(path)
    };
    let rootfs = attach("rootfs", root)?;
    let mut mounted = BTreeMap::new();
    for (index, source) in sources {
        mounted.insert(index, attach(&format!("mount-{index}"), &source)?);
    }
    let network = match network {
        Some(namespace) => Some(attach("network", &clone(namespace).during(what)?)?),
        None => None,
    };
    let init = match (plan.process.init, binary) {
        (false, _) => None,
        (true, Some(binary)) => Some(attach("init", &binary)?),
        (true, None) => Some(copy_binary(directory.join("init")).during(what)?),
    };
    let files = Root::open(&rootfs).during(what)?;
    if plan.process.make_cwd {
        // Whether the program can go there is the runtime's to find out.
        let _ = files.mkdir_all(&plan.process.cwd, Mode::from(0o755));
    }
    let config = spec::config(&spec::Beside {
        plan,
        process: spec::process(&plan.process, &files)?,
        root: &rootfs,
        cgroup: &launch.cgroup,
        resources: &launch.resources,
        seccomp: runtime.seccomp.as_ref(),
        annotations: &runtime.annotations,
        network: network.as_deref(),
        sources: &mounted,
        init: init.as_deref(),
    });
    std::fs::write(directory.join("config.json"), config.to_string()).during(what)?;
    Ok(Bundle {
        directory: guard,
        place,
        rootfs: files,
    })
}

/// What has no path on the host, or one below which somebody else may put links: images, and subpaths.
fn sources(proof: &SingleThreaded, plan: &Plan) -> Result<BTreeMap<usize, Mount>, Failure> {
    let mut sources = BTreeMap::new();
    for (index, step) in plan.mounts.iter().enumerate() {
        if matches!(step.source, Source::Layers { .. }) || !step.subpath.as_os_str().is_empty() {
            sources.extend(open_source(proof, plan, step)?.map(|mount| (index, mount)));
        }
    }
    Ok(sources)
}

fn copy_binary(to: PathBuf) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut from = std::fs::File::open("/proc/self/exe")?;
    let mut copy = std::fs::File::create_new(&to)?;
    std::io::copy(&mut from, &mut copy)?;
    copy.set_permissions(std::fs::Permissions::from_mode(0o555))?;
    Ok(to)
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn is_directory(mount: &Mount) -> rustix::io::Result<bool> {
    let stat = rustix::fs::fstat(mount)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
