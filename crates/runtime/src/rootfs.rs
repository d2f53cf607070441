//! Building the container's view of the file system, from inside its new mount namespace.
//!
//! Invariants: a mount's target is a descriptor that `openat2` resolved inside the container's root, never a string; the
//! targets of /proc, /sys and /dev are reached through no link at all (CVE-2023-27561, CVE-2026-41579); device nodes are
//! made through the descriptor of the tmpfs that was just mounted, never through a path; what masks a file is the host's
//! own null device, checked by number (CVE-2025-31133).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use ferry_sys::Root;
use ferry_sys::mount::{Attributes, Mount, NODEV, NOEXEC, NOSUID, PRIVATE, RDONLY, set_attributes};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags};

use crate::failure::{During as _, Failure, Kind};
use crate::plan::{self, Device, Plan, Propagation, Source};
use crate::source::error_mounting;
use crate::start::{CgroupView, Prepared};

/// The container's root, attached in this process's mount namespace and not yet `/`.
pub(crate) struct Rootfs {
    pub root: Root,
    /// The mount on /dev, if the plan makes one: where device nodes go.
    pub dev: Option<OwnedFd>,
    /// It becomes read-only when it is complete.
    dev_is_read_only: bool,
    /// The host's /dev/null, for masks.
    null: OwnedFd,
}

impl Rootfs {
    /// Cuts the new mount namespace off from the host's and attaches the container's root at `path`, where it is on the
    /// host, or over `/`.
    pub fn attach(root: Mount, path: Option<&Path>) -> Result<Self, Failure> {
        // pivot_root(2) refuses a shared parent, and nothing that is mounted from here on may reach the host.
        let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", flags).during(|| "make the host's mounts private")?;
        let open = |path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        };
        let host = match path.map(open) {
            // Root of a user namespace may not get there; then nobody sees the root before it is `/`.
            None | Some(Err(Errno::ACCESS)) => open(Path::new("/")),
            Some(opened) => opened,
        };
        root.attach(host.during(|| "find the place of the root file system")?.as_fd())
            .during(|| "attach the root file system")?;
        Self::inside(root)
    }

    /// The root is attached already.
    pub fn inside(root: Mount) -> Result<Self, Failure> {
        Ok(Self {
            root: Root::from_fd(root.into_fd()),
            dev: None,
            dev_is_read_only: false,
            null: open_null().during(|| "open the host's /dev/null")?,
        })
    }

    /// Makes the plan's mounts, in its order.
    /// `late` opens sources that could not be opened before.
    pub fn mount(
        &mut self,
        plan: &Plan,
        prepared: &mut Prepared,
        late: &mut dyn FnMut(usize) -> Result<Mount, Failure>,
    ) -> Result<(), Failure> {
        for (index, step) in plan.mounts.iter().enumerate() {
            match &step.source {
                Source::New { kind, options } => {
                    let label = plan.lifecycle.mount_label.as_deref();
                    let mount = self.new_mount(step, kind, options, label)?;
                    self.attach_directory(&mount, &step.target)?;
                    if is_dev(step, kind) {
                        self.dev = Some(mount.into_fd());
                        self.dev_is_read_only = step.attributes.set & RDONLY != 0;
                    }
                }
                Source::Bind { .. } | Source::Layers { .. } => {
                    let mount = match prepared.sources.get_mut(index).and_then(Option::take) {
                        Some(mount) => mount,
                        None => late(index)?,
                    };
                    self.attach_bind(&mount, &step.target)?;
                }
                Source::Cgroup => {
                    let label = plan.lifecycle.mount_label.as_deref();
                    self.attach_cgroup(&prepared.cgroup, step, label)?;
                }
            }
        }
        prepared.cgroup = CgroupView::None;
        Ok(())
    }

    fn new_mount(
        &self,
        step: &plan::Mount,
        kind: &str,
        options: &[(String, String)],
        label: Option<&str>,
    ) -> Result<Mount, Failure> {
        let what = || error_mounting(Path::new(kind), &step.target);
        let mut options: Vec<_> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let mut mode = String::new();
        // A tmpfs takes the mode of the directory it covers, as with runc, unless it is given one or there is none.
        if kind == "tmpfs"
            && !options.iter().any(|(key, _)| *key == "mode")
            && let Ok(covered) = self.root.resolve(&step.target, OFlags::PATH | OFlags::DIRECTORY)
        {
            let stat = rustix::fs::fstat(covered).during(what)?;
            mode = format!("{:o}", stat.st_mode & 0o7777);
            options.push(("mode", &mode));
        }
        // The kernel's own file systems have labels of their own; a message queue's takes one only afterwards.
        if let Some(label) = label.filter(|_| !matches!(kind, "proc" | "sysfs" | "mqueue")) {
            options.push(("context", label));
        }
        let read_only = step.attributes.set & RDONLY;
        let early = if step.copy_up || is_dev(step, kind) {
            step.attributes.set & !RDONLY
        } else {
            step.attributes.set
        };
        let mount = Mount::new(kind, &options, early).during(what)?;
        drop(mode);
        if let Some(label) = label.filter(|_| kind == "mqueue") {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let inside = rustix::fs::openat(&mount, ".", flags, Mode::empty()).during(what)?;
            let set = rustix::fs::XattrFlags::empty();
            rustix::fs::fsetxattr(inside, "security.selinux", label.as_bytes(), set).during(what)?;
        }
        if step.copy_up {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let covered = self.root.resolve(&step.target, flags).during(what)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let inside = rustix::fs::openat(&mount, ".", flags, Mode::empty()).during(what)?;
            crate::copy::tree(covered.as_fd(), inside.as_fd())
                .during(|| format!("copy the image's {} into its tmpfs", step.target.display()))?;
            let attributes = Attributes {
                set: read_only,
                ..Attributes::default()
            };
            mount.set(attributes).during(what)?;
        }
        if step.propagation != 0 {
            let attributes = Attributes {
                propagation: step.propagation,
                ..Attributes::default()
            };
            mount.set(attributes).during(what)?;
        }
        if step.below.set | step.below.clear != 0 {
            mount.set(step.below).during(what)?;
        }
        Ok(mount)
    }

    fn attach_directory(&self, mount: &Mount, target: &Path) -> Result<(), Failure> {
        let fd = self.directory(target)?;
        refuse_in_proc(fd.as_fd(), target)?;
        mount
            .attach(fd.as_fd())
            .during(|| format!("mount {}", target.display()))
    }

    /// The directory a mount goes on, made if it is missing.
    fn directory(&self, target: &Path) -> Result<OwnedFd, Failure> {
        let what = || format!("make the mount point {}", target.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        if !is_system(target) {
            return self.make_directory(target).during(what);
        }
        // Below /proc, /sys and /dev nothing of the image may redirect a mount.
        match self.root.resolve_no_links(target, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.root.mkdir_all(target, Mode::from(0o755)).during(what)?;
                self.root.resolve_no_links(target, flags).during(what)
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                let target = target.display();
                Err(Failure::new(
                    Kind::Setup,
                    format!("{target} in the image is not a directory: it must be mounted on ordinary directory"),
                ))
            }
            done => done.during(what),
        }
    }

    /// A directory of the image, made if it is missing, also behind a link that leads to nothing yet.
    fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mode = Mode::from(0o755);
        match self.root.mkdir_all(path, mode) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.root.mkdir_all(self.root.expand(path)?, mode),
            done => done,
        }
    }

    pub fn attach_bind(&self, mount: &Mount, target: &Path) -> Result<(), Failure> {
        let what = || format!("mount {}", target.display());
        let stat = rustix::fs::fstat(mount).during(what)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.attach_directory(mount, target);
        }
        let fd = match self.root.resolve(target, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_file(target)?,
            done => done.during(what)?,
        };
        refuse_in_proc(fd.as_fd(), target)?;
        // The kernel says EINVAL to a file on a directory; callers know this one and explain it.
        let stat = rustix::fs::fstat(&fd).during(what)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Failure::setup(what(), &Errno::NOTDIR.into()));
        }
        mount.attach(fd.as_fd()).during(what)
    }

    /// An empty file for a mount to go on.
    fn make_file(&self, target: &Path) -> Result<OwnedFd, Failure> {
        let what = || format!("make the mount point {}", target.display());
        let target = &self.root.expand(target).during(what)?;
        if let Some(parent) = target.parent() {
            self.make_directory(parent).during(what)?;
        }
        self.root
            .create(
                target,
                OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK,
                Mode::from(0o644),
            )
            .during(what)?;
        self.root.resolve(target, OFlags::PATH).during(what)
    }

    fn attach_cgroup(&self, view: &CgroupView, step: &plan::Mount, label: Option<&str>) -> Result<(), Failure> {
        let what = || format!("mount {}", step.target.display());
        match view {
            CgroupView::None => Ok(()),
            CgroupView::Unified => {
                let mount = Mount::new("cgroup2", &[], step.attributes.set).during(what)?;
                self.attach_directory(&mount, &step.target)
            }
            CgroupView::Host(mount) => {
                mount
                    .set(Attributes {
                        set: step.attributes.set,
                        ..Attributes::default()
                    })
                    .during(what)?;
                self.attach_directory(mount, &step.target)
            }
            CgroupView::Controllers(controllers) => {
                let mut options = vec![("mode", "755")];
                options.extend(label.map(|label| ("context", label)));
                let tmpfs = Mount::new("tmpfs", &options, NOSUID | NODEV | NOEXEC).during(what)?;
                self.attach_directory(&tmpfs, &step.target)?;
                for (name, mount) in controllers {
                    mount
                        .set(Attributes {
                            set: step.attributes.set,
                            ..Attributes::default()
                        })
                        .during(what)?;
                    rustix::fs::mkdirat(&tmpfs, name, Mode::from(0o755)).during(what)?;
                    let directory = open_below(tmpfs.as_fd(), name).during(what)?;
                    mount.attach(directory.as_fd()).during(what)?;
                }
                tmpfs
                    .set(Attributes {
                        set: step.attributes.set,
                        ..Attributes::default()
                    })
                    .during(what)
            }
        }
    }

    /// Takes the image's own /dev for device nodes when no mount covers it.
    pub fn use_own_dev(&mut self) -> Result<(), Failure> {
        if self.dev.is_none() {
            self.dev = Some(self.directory(Path::new("/dev"))?);
        }
        Ok(())
    }

    /// Nothing more goes into /dev.
    pub fn finish_dev(&self) -> Result<(), Failure> {
        let (Some(dev), true) = (&self.dev, self.dev_is_read_only) else {
            return Ok(());
        };
        let attributes = Attributes {
            set: RDONLY,
            ..Attributes::default()
        };
        set_attributes(dev.as_fd(), attributes, None).during(|| "make /dev read-only")
    }

    /// Makes the working directory where it is missing, while the root can still be written.
    pub fn make_cwd(&self, cwd: &Path) -> Result<(), Failure> {
        match self.root.mkdir_all(cwd, Mode::from(0o755)) {
            // Whether the program can go there is found out as its user; a read-only root is one more reason not to.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOENT | libc::ENOTDIR)) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EROFS)) => Ok(()),
            done => done.map(drop).during(|| format!("mkdir {}", cwd.display())),
        }
    }

    /// Makes the plan's device nodes and the links every /dev has.
    pub fn devices(&self, devices: &[Device], in_user_namespace: bool) -> Result<(), Failure> {
        let Some(dev) = &self.dev else { return Ok(()) };
        let core = self.root.exists("proc/kcore").unwrap_or(false);
        for device in devices {
            // A link to the container's own devpts is there instead (config-linux.md, "Default Devices"), whatever an
            // engine copies of the host's /dev.
            if device.path == Path::new("/dev/ptmx") {
                continue;
            }
            let what = || format!("make the device {}", device.path.display());
            // Below /dev through the mount that was just made; elsewhere inside the root.
            let (name, directory) = match device.path.strip_prefix("/dev") {
                Ok(name) => (name, dev.as_fd()),
                Err(_) => (device.path.as_path(), self.root.as_fd()),
            };
            let below = Root::from_fd(directory.try_clone_to_owned().during(what)?);
            if let Some(parent) = name.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                below.mkdir_all(parent, Mode::from(0o755)).during(what)?;
            }
            let (parent, name) = below.parent(name).during(what)?;
            if in_user_namespace {
                self.bind_device(&parent, Path::new(&name), device).during(what)?;
            } else {
                match make_device(parent.as_fd(), Path::new(&name), device) {
                    // Where mknod(2) is refused (an engine in a container), the host's own node is bound.
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                        self.bind_device(&parent, Path::new(&name), device).during(what)?;
                    }
                    done => done.during(what)?,
                }
            }
        }
        for (target, name) in LINKS {
            // As runc: only where the kernel has one that is not masked away.
            if name == "core" && !core {
                continue;
            }
            match rustix::fs::symlinkat(target, dev, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Failure::setup(format!("link /dev/{name}"), &error.into())),
            }
        }
        Ok(())
    }

    /// mknod(2) is not for user namespaces: the host's own node is bound instead.
    fn bind_device(&self, parent: &OwnedFd, name: &Path, device: &Device) -> io::Result<()> {
        let host = rustix::fs::open(&device.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mount = Mount::clone_of(host.as_fd(), Path::new(""), false)?;
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::from(0o644))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        mount.attach(rustix::fs::openat(parent, name, flags, Mode::empty())?.as_fd())
    }

    /// Puts the terminal's slave on /dev/console.
    pub fn console(&self, slave: BorrowedFd<'_>) -> Result<(), Failure> {
        let Some(dev) = &self.dev else { return Ok(()) };
        let what = || "set up /dev/console";
        let mount = Mount::clone_of(slave, Path::new(""), false).during(what)?;
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(dev, "console", flags, Mode::from(0o620)) {
            // In an image's own /dev; what it is does not matter, so long as it is no link.
            Ok(_) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Failure::setup(what(), &error.into())),
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(dev, "console", flags, Mode::empty()).during(what)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&target).during(what)?.st_mode);
        if kind == FileType::Symlink {
            return Err(Failure::new(
                Kind::Setup,
                "/dev/console in the image is a symbolic link",
            ));
        }
        mount.attach(target.as_fd()).during(what)
    }

    /// Hides `paths`; what is not there needs no hiding.
    pub fn mask(&self, paths: &[PathBuf], label: Option<&str>) -> Result<(), Failure> {
        // All directories behind one file system. Clones are made of where it is attached: a mount that is attached nowhere
        // can be cloned since Linux 6.15 only.
        let mut empty: Option<Mount> = None;
        for path in paths {
            let what = || format!("mask {}", path.display());
            let Some(target) = self.existing(path).during(what)? else {
                continue;
            };
            let stat = rustix::fs::fstat(&target).during(what)?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let cover = match &empty {
                _ if !directory => Mount::clone_of(self.null.as_fd(), Path::new(""), false),
                Some(first) => Mount::clone_of(first.as_fd(), Path::new(""), false),
                None => empty_directory(label),
            };
            let cover = cover.during(what)?;
            cover.attach(target.as_fd()).during(what)?;
            if directory {
                empty.get_or_insert(cover);
            }
        }
        Ok(())
    }

    /// Makes `paths` read-only, with all that is mounted below.
    pub fn freeze(&self, paths: &[PathBuf]) -> Result<(), Failure> {
        for path in paths {
            let what = || format!("make {} read-only", path.display());
            let Some(target) = self.existing(path).during(what)? else {
                continue;
            };
            let mount = Mount::clone_of(target.as_fd(), Path::new(""), true).during(what)?;
            mount
                .set(Attributes {
                    set: RDONLY,
                    recursive: true,
                    ..Attributes::default()
                })
                .during(what)?;
            mount.attach(target.as_fd()).during(what)?;
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        match self.root.resolve(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the container's root `/`, with the given propagation, and lets go of the host's.
    pub fn pivot(self, readonly: bool, propagation: Option<Propagation>) -> Result<(), Failure> {
        let what = || "make the root file system /";
        self.enter(readonly)?;
        // With both names the same directory the old root ends up on top of the new one, and is then let go.
        rustix::process::pivot_root(".", ".").during(what)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).during(|| "let go of the host's file systems")?;
        rustix::process::chdir("/").during(what)?;
        self.propagate(propagation)
    }

    /// As [`pivot`](Self::pivot), by moving the root over `/`: for hosts that run from a ramdisk (rootfs), where
    /// pivot_root(2) fails. The host's mounts stay below, out of reach, but for its procfs and sysfs: as long as one is there
    /// without anything over it, a user namespace in the container may mount another (`mount_too_revealing`).
    pub fn chroot(self, readonly: bool, propagation: Option<Propagation>, path: Option<&Path>) -> Result<(), Failure> {
        let what = || "make the root file system /";
        self.enter(readonly)?;
        if let Some(path) = path {
            hide_kernel_mounts(path)?;
            let host = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(&self.root, "", host, "", flags).during(what)?;
        }
        rustix::process::chroot(".").during(what)?;
        rustix::process::chdir("/").during(what)?;
        self.propagate(propagation)
    }

    fn enter(&self, readonly: bool) -> Result<(), Failure> {
        if readonly {
            let attributes = Attributes {
                set: RDONLY,
                ..Attributes::default()
            };
            set_attributes(self.root.as_fd(), attributes, None).during(|| "make the root file system read-only")?;
        }
        rustix::process::fchdir(&self.root).during(|| "make the root file system /")
    }

    /// Private is what it is already; what is mounted below may have asked for something else, as with runc.
    fn propagate(&self, propagation: Option<Propagation>) -> Result<(), Failure> {
        if let Some(propagation) = propagation.filter(|propagation| propagation.mode != PRIVATE) {
            let attributes = Attributes {
                propagation: propagation.mode,
                recursive: !propagation.top,
                ..Attributes::default()
            };
            set_attributes(self.root.as_fd(), attributes, None).during(|| "set the root's propagation")?;
        }
        Ok(())
    }
}

fn empty_directory(label: Option<&str>) -> io::Result<Mount> {
    let mut options = vec![("size", "0"), ("nr_inodes", "2"), ("mode", "755")];
    options.extend(label.map(|label| ("context", label)));
    Mount::new("tmpfs", &options, RDONLY | NOSUID | NODEV | NOEXEC)
}

/// Takes every procfs and sysfs that is not below `root` out of this mount namespace, or covers it.
fn hide_kernel_mounts(root: &Path) -> Result<(), Failure> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").during(|| "read the mount table")?;
    // Fields of proc_pid_mountinfo(5): the fifth is the place, the type follows a dash.
    let places = table.lines().filter_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        matches!(kind.split(' ').next()?, "proc" | "sysfs").then(|| fields.split(' ').nth(4))?
    });
    let mut places: Vec<PathBuf> = places.map(|place| PathBuf::from(place.replace("\\040", " "))).collect();
    places.retain(|place| !place.starts_with(root));
    for place in places.iter().rev() {
        let what = || format!("hide {}", place.display());
        match rustix::mount::unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Locked by a user namespace: it is covered instead.
            Err(Errno::INVAL | Errno::PERM) => {
                let target = rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
                empty_directory(None)
                    .and_then(|cover| cover.attach(target.as_fd()))
                    .during(what)?;
            }
            done => done.during(what)?,
        }
    }
    Ok(())
}

fn is_dev(step: &plan::Mount, kind: &str) -> bool {
    step.target == Path::new("/dev") && kind == "tmpfs"
}

/// The links every /dev has (runtime-spec, config-linux.md "Dev symbolic links", and Docker's `core`).
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// What may be mounted over inside /proc: what lxcfs and its like show there (runc `checkProcMount`).
const IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Refuses a mount that would land inside the container's /proc, whatever path led there: what the runtime and others
/// write through it could then be redirected (CVE-2019-16884, CVE-2019-19921).
fn refuse_in_proc(target: BorrowedFd<'_>, path: &Path) -> Result<(), Failure> {
    let what = || format!("look at the mount point {}", path.display());
    let magic = rustix::fs::fstatfs(target).during(what)?.f_type;
    if magic != PROC_SUPER_MAGIC || IN_PROC.iter().any(|allowed| Path::new(allowed) == path) {
        return Ok(());
    }
    let path = path.display();
    Err(Failure::new(
        Kind::Setup,
        format!("{path:?} cannot be mounted because it is inside /proc"),
    ))
}

/// linux/magic.h
const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Whether `target` is /proc, /sys or /dev, or below one of them.
fn is_system(target: &Path) -> bool {
    let first = target.components().find_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    first.is_some_and(|name| name == "proc" || name == "sys" || name == "dev")
}

fn open_below(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

fn make_device(parent: BorrowedFd<'_>, name: &Path, device: &Device) -> io::Result<()> {
    let kind = match device.kind {
        'b' => FileType::BlockDevice,
        'p' => FileType::Fifo,
        _ => FileType::CharacterDevice,
    };
    let number = makedev(device.major, device.minor);
    match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number) {
        // An image's own /dev may have it already: fine if it is the very device.
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != kind || (kind != FileType::Fifo && stat.st_rdev != number) {
                return Err(io::Error::other("something else is there already"));
            }
        }
        done => done?,
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (
            rustix::fs::Uid::from_raw(device.uid),
            rustix::fs::Gid::from_raw(device.gid),
        );
        rustix::fs::chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

/// The host's null device, by number and not only by name.
fn open_null() -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(
        "/dev/null",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != makedev(1, 3) {
        return Err(io::Error::other("it is not the null device"));
    }
    Ok(fd)
}
