//! Mounting an overlay, on every kernel Ferry supports (5.15 and newer), as a detached mount.
//!
//! | kernel | how |
//! |---|---|
//! | 6.13 | layers, upper and work directory by descriptor (`FSCONFIG_SET_FD`) |
//! | 6.7 | one `lowerdir+` a layer, by a path through `/proc/self/fd` |
//! | older | `mount(2)` by a child in a mount namespace of its own, which hands back a clone of the mount |
//!
//! mount(2) takes its options in one page. The child's working directory is `/proc/self/fd`, so a layer costs the digits
//! of a descriptor and a colon: 500 layers fit.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsOpenFlags, MountFlags, MountPropagationFlags, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsopen,
};

use crate::clone::{self, Options, SingleThreaded};
use crate::mount::Mount;
use crate::packet;

/// The most lower layers (`OVL_MAX_STACK` in the kernel's fs/overlayfs).
pub const MAX_LAYERS: usize = 500;

/// The directories of one overlay, all of them the engine's own.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The read-only layers, top first; at least one.
    pub lower: &'a [PathBuf],
    /// Where what is written goes. Without it the overlay is read-only, and has at least two layers.
    pub upper: Option<Upper<'a>>,
    /// Never write anything back: for a container whose writable layer goes with it (`volatile`, Linux 5.10).
    pub volatile: bool,
    /// Show the lower layers as this user namespace's own (Linux 5.12, and 5.19 below an overlay).
    pub idmap: Option<BorrowedFd<'a>>,
}

/// A writable layer and its work directory, on one file system.
#[derive(Debug, Clone, Copy)]
pub struct Upper<'a> {
    pub dir: &'a Path,
    pub work: &'a Path,
}

/// How this kernel takes layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Descriptors,
    Paths,
    Legacy,
}

const METHODS: [Method; 3] = [Method::Descriptors, Method::Paths, Method::Legacy];

impl Method {
    /// As `info` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "layers by descriptor",
            Self::Paths => "layers by lowerdir+",
            Self::Legacy => "mount(2)",
        }
    }
}

/// Which method works here; found out once a process, by a file system context that is dropped again.
pub fn method() -> io::Result<Method> {
    /// 0: not known yet; else 1 and the index of the method.
    static KNOWN: AtomicU8 = AtomicU8::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    if let Some(method) = METHODS.get(usize::from(known).wrapping_sub(1)) {
        return Ok(*method);
    }
    let index = probe()?;
    KNOWN.store(index + 1, Ordering::Relaxed);
    Ok(METHODS[usize::from(index)])
}

fn probe() -> io::Result<u8> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if fsconfig_set_fd(&fs, "lowerdir+", open(Path::new("/"))?).is_ok() {
        return Ok(0);
    }
    let takes = |key: &str| -> io::Result<bool> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        Ok(fsconfig_set_string(&fs, key, "/").is_ok())
    };
    // Before 6.5 overlay's options were read at the very end: until then any word will do.
    Ok(if takes("lowerdir+")? && !takes("no_such_option")? {
        1
    } else {
        2
    })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Where the kernel cannot make a directory below `work` it mounts read-only, and says why in its log alone: so this asks
/// for the reason again, most likely a full disk.
fn check_writable(mount: &Mount, work: &Path) -> io::Result<()> {
    if !rustix::fs::fstatvfs(mount.as_fd())?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY)
    {
        return Ok(());
    }
    let (work, name) = (open(work)?, "probe");
    rustix::fs::mkdirat(&work, name, Mode::RWXU)?;
    rustix::fs::unlinkat(&work, name, AtFlags::REMOVEDIR)?;
    Err(Errno::ROFS.into())
}

fn too_many(count: usize) -> io::Error {
    let message = format!("the image has {count} layers; the kernel takes 1 to {MAX_LAYERS}");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Options that keep what is written in a form that `diff` and `commit` read without knowing this overlay.
const OPTIONS: [(&str, &str); 3] = [("index", "off"), ("metacopy", "off"), ("redirect_dir", "off")];

impl Overlay<'_> {
    /// The overlay as a detached mount.
    pub fn mount(&self, proof: &SingleThreaded) -> io::Result<Mount> {
        self.mount_by(proof, method()?)
    }

    /// The same for a process with threads, which never forks: on old kernels by a thread in a mount namespace of its own.
    pub fn mount_from_threads(&self) -> io::Result<Mount> {
        if self.lower.is_empty() || self.lower.len() > MAX_LAYERS {
            return Err(too_many(self.lower.len()));
        }
        match method()? {
            Method::Legacy => std::thread::scope(|scope| {
                let mounting = scope.spawn(|| {
                    crate::ns::unshare_mounts_of_thread()?;
                    self.mount_here()
                });
                mounting.join().map_err(|_| io::Error::from(Errno::IO))?
            }),
            method => self.mount_detached(method),
        }
    }

    fn mount_by(&self, proof: &SingleThreaded, method: Method) -> io::Result<Mount> {
        if self.lower.is_empty() || self.lower.len() > MAX_LAYERS {
            return Err(too_many(self.lower.len()));
        }
        let mount = match method {
            Method::Legacy => self.mount_in_child(proof),
            method => self.mount_detached(method),
        }?;
        if let Some(upper) = self.upper {
            check_writable(&mount, upper.work)?;
        }
        Ok(mount)
    }

    fn mount_detached(&self, method: Method) -> io::Result<Mount> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, fd: BorrowedFd<'_>| match method {
            Method::Descriptors => fsconfig_set_fd(&fs, key, fd),
            _ => fsconfig_set_string(&fs, key, format!("/proc/self/fd/{}", fd.as_raw_fd())),
        };
        // Held until the overlay is made: until then the kernel knows a layer only by its descriptor.
        let mut layers = Vec::with_capacity(self.lower.len());
        for path in self.lower {
            let layer = self.open_layer(path)?;
            set("lowerdir+", layer.as_fd())?;
            layers.push(layer);
        }
        let upper = self.open_upper()?;
        if let Some((upper, work)) = &upper {
            set("upperdir", upper.as_fd())?;
            set("workdir", work.as_fd())?;
        }
        if self.volatile {
            fsconfig_set_flag(&fs, "volatile")?;
        }
        for (key, value) in OPTIONS {
            fsconfig_set_string(&fs, key, value)?;
        }
        Mount::create(&fs, 0)
    }

    fn open_upper(&self) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
        self.upper
            .map(|upper| Ok((open(upper.dir)?, open(upper.work)?)))
            .transpose()
    }

    fn open_layer(&self, path: &Path) -> io::Result<OwnedFd> {
        let Some(user_namespace) = self.idmap else {
            return open(path);
        };
        let mount = Mount::clone_path(path, false)?;
        mount.idmap(user_namespace, false)?;
        Ok(mount.into_fd())
    }

    fn mount_in_child(&self, proof: &SingleThreaded) -> io::Result<Mount> {
        let (ours, theirs) = packet::pair()?;
        const CLONE_NEWNS: u64 = libc::CLONE_NEWNS as u64;
        let options = Options {
            namespaces: CLONE_NEWNS,
            ..Options::default()
        };
        let Some(child) = clone::clone(proof, &options)? else {
            let sent = match self.mount_here() {
                Ok(mount) => packet::send(&theirs, b"m", &[mount.as_fd()]),
                Err(error) => packet::send(&theirs, &error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes(), &[]),
            };
            clone::exit_now(i32::from(sent.is_err()));
        };
        drop(theirs);
        let mut buffer = [0; 8];
        let received = packet::receive(&ours, &mut buffer);
        child.wait(true)?;
        match received? {
            (1, mut fds) => fds.pop().map(Mount::from_fd).ok_or_else(|| io::Error::from(Errno::IO)),
            (4, _) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes([
                buffer[0], buffer[1], buffer[2], buffer[3],
            ]))),
            _ => Err(Errno::IO.into()),
        }
    }

    /// Runs in the child's own mount namespace, which goes with it.
    fn mount_here(&self) -> io::Result<Mount> {
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        // Where the mounts go that this kernel wants attached. What it covers is needed by nobody here.
        let place = Path::new("/proc");
        let upper = self.open_upper()?;
        let mut layers = Vec::with_capacity(self.lower.len());
        for path in self.lower {
            layers.push(match self.idmap {
                None => open(path)?,
                Some(_) => {
                    // Only an attached mount can be a layer here; it may lie right on the layer itself.
                    let mount = Mount::from_fd(self.open_layer(path)?);
                    mount.attach(open(path)?.as_fd())?;
                    open(path)?
                }
            });
        }
        rustix::process::chdir("/proc/self/fd")?;
        let names: Vec<String> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
        let mut data = format!("lowerdir={}", names.join(":"));
        if let Some((upper, work)) = &upper {
            data.push_str(&format!(",upperdir={},workdir={}", upper.as_raw_fd(), work.as_raw_fd()));
        }
        for (key, value) in OPTIONS {
            data.push_str(&format!(",{key}={value}"));
        }
        if self.volatile {
            data.push_str(",volatile");
        }
        if data.len() >= 4096 {
            return Err(Errno::TOOBIG.into());
        }
        let data = CString::new(data)?;
        rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), Some(data.as_c_str()))?;
        Mount::clone_of(CWD, place, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts_by(method: Method, layers: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = dir.path().join(&name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let lower: Vec<PathBuf> = (0..layers).map(|index| make(format!("l{index}"))).collect();
        std::fs::write(lower[0].join("file"), "top").unwrap();
        std::fs::write(lower[layers - 1].join("file"), "bottom").unwrap();
        std::fs::write(lower[layers - 1].join("below"), "below").unwrap();
        let (upper, work) = (make("upper".into()), make("work".into()));
        let overlay = Overlay {
            lower: &lower,
            upper: Some(Upper {
                dir: &upper,
                work: &work,
            }),
            volatile: false,
            idmap: None,
        };
        let mount = overlay.mount_by(&SingleThreaded::assume(), method).unwrap();
        let root = crate::Root::from_fd(mount.into_fd());
        let read = |name: &str| String::from_utf8(root.read(name, 64).unwrap()).unwrap();
        let file = root.create("new", OFlags::WRONLY, Mode::from(0o644)).unwrap();
        rustix::io::write(&file, b"x").unwrap();
        assert!(upper.join("new").exists());
        format!("{} {}", read("file"), read("below"))
    }

    #[test]
    fn every_method_this_kernel_has_mounts_500_layers() {
        let best = METHODS.iter().position(|known| *known == method().unwrap()).unwrap();
        for method in &METHODS[best..] {
            assert_eq!(mounts_by(*method, 2), "top below", "{method:?}");
            assert_eq!(mounts_by(*method, MAX_LAYERS), "top below", "{method:?}");
        }
    }

    #[test]
    fn without_an_upper_layer_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let lower = ["top", "bottom"].map(|name| dir.path().join(name));
        for path in &lower {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join(path.file_name().unwrap()), "x").unwrap();
        }
        let overlay = Overlay {
            lower: &lower,
            upper: None,
            volatile: false,
            idmap: None,
        };
        let best = METHODS.iter().position(|known| *known == method().unwrap()).unwrap();
        for method in &METHODS[best..] {
            let mount = overlay.mount_by(&SingleThreaded::assume(), *method).unwrap();
            let root = crate::Root::from_fd(mount.into_fd());
            assert_eq!(root.read("top", 8).unwrap(), root.read("bottom", 8).unwrap());
            let made = root.create("new", OFlags::WRONLY, Mode::from(0o644));
            assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EROFS), "{method:?}");
        }
    }

    #[test]
    fn a_work_directory_nothing_can_be_made_in_is_an_error_and_no_read_only_mount() {
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper, work] = ["l", "u", "w"].map(|name| dir.path().join(name));
        for path in [&lower, &upper, &work] {
            std::fs::create_dir(path).unwrap();
        }
        let handle = std::fs::File::open(&work).unwrap();
        rustix::fs::ioctl_setflags(&handle, rustix::fs::IFlags::IMMUTABLE).unwrap();
        let overlay = Overlay {
            lower: &[lower],
            upper: Some(Upper {
                dir: &upper,
                work: &work,
            }),
            volatile: true,
            idmap: None,
        };
        let mounted = overlay.mount(&SingleThreaded::assume());
        rustix::fs::ioctl_setflags(&handle, rustix::fs::IFlags::empty()).unwrap();
        assert_eq!(mounted.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn more_layers_than_the_kernel_takes_are_refused() {
        let lower = vec![PathBuf::from("/"); MAX_LAYERS + 1];
        let path = Path::new("/");
        let overlay = Overlay {
            lower: &lower,
            upper: Some(Upper { dir: path, work: path }),
            volatile: false,
            idmap: None,
        };
        assert!(
            overlay
                .mount(&SingleThreaded::assume())
                .unwrap_err()
                .to_string()
                .contains("501 layers")
        );
    }
}
