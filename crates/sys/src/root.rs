//! Safe paths below a directory that is not ours to trust (rules D1 and D2 of the security design).
//!
//! A [`Root`] is an open directory. Every look-up goes through `openat2(2)` with `RESOLVE_IN_ROOT` (a link or `..` cannot
//! leave it, an absolute link starts at it, exactly as after `chroot`) and `RESOLVE_NO_MAGICLINKS` (`/proc/self/fd/N` and
//! its kin are refused), and returns a descriptor. Nothing here ever builds a path string out of what it found.
//!
//! `openat2` may answer `EAGAIN` while somebody renames directories below the root; that is retried a bounded number of
//! times and then reported, so an attacker who keeps renaming can deny himself service and nothing else.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a look-up that lost a race against a rename is tried again.
const RENAME_RACES: usize = 64;

/// An open directory below which every path is resolved as if it were `/`.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory of the engine's own by path. The path itself must be trusted; what is below it need not be.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    /// Makes a root of a directory descriptor, for instance a detached mount.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens `path` (absolute or not: both start at the root) following links inside the root.
    ///
    /// Pass [`OFlags::PATH`] for a handle that reads and writes nothing, [`OFlags::NOFOLLOW`] to stop at a final link.
    pub fn resolve(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        self.openat2(path.as_ref(), flags, Mode::empty(), ResolveFlags::empty())
    }

    /// Like [`resolve`](Self::resolve), but refuses (`ELOOP`) a path that has a symbolic link anywhere.
    pub fn resolve_no_links(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        self.openat2(path.as_ref(), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    }

    /// Opens a file for writing, creating it with `mode`; links inside the root are followed.
    pub fn create(&self, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        self.openat2(path.as_ref(), flags | OFlags::CREATE, mode, ResolveFlags::empty())
    }

    /// Opens the directory that holds `path`'s last component, following links inside the root, and returns that
    /// component. The component itself is not looked at, so it can be created, replaced or removed with `*at` calls.
    ///
    /// Refuses (`EINVAL`) a path without a last component: the root itself, or one that ends in `..`.
    pub fn parent(&self, path: impl AsRef<Path>) -> io::Result<(OwnedFd, OsString)> {
        let path = path.as_ref();
        let name = last_component(path).ok_or(Errno::INVAL)?.to_owned();
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// Opens `path` as a directory, creating what is missing of it with `mode`; links inside the root are followed.
    ///
    /// A dangling link on the way is an error (`ENOENT`), not something to create through.
    pub fn mkdir_all(&self, path: impl AsRef<Path>, mode: Mode) -> io::Result<OwnedFd> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let mut sofar = PathBuf::new();
        let mut dir = self.resolve(".", flags)?;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => continue,
                Component::ParentDir => sofar.push(".."),
                Component::Normal(name) => {
                    sofar.push(name);
                    match rustix::fs::mkdirat(&dir, name, mode) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Component::Prefix(_) => return Err(Errno::INVAL.into()),
            }
            dir = self.resolve(&sofar, flags)?;
        }
        Ok(dir)
    }

    /// Where `path` would be if every missing thing on the way were there: its links, dangling ones too, are taken apart
    /// inside the root, and what is missing stays as it is written.
    ///
    /// The answer is a guess the moment it is given; using it through this `Root` is as safe as any other path.
    pub fn expand(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        const MOST_LINKS: usize = 40;
        let mut done = PathBuf::new();
        let mut left: Vec<OsString> = parts(path.as_ref());
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let link = match self.resolve(done.join(&part), OFlags::PATH | OFlags::NOFOLLOW) {
                Ok(fd) => rustix::fs::readlinkat(&fd, "", Vec::new()).ok(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            match link {
                None => done.push(part),
                Some(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        done = PathBuf::new();
                    }
                    left.extend(parts(&target));
                }
            }
        }
        Ok(done)
    }

    /// Reads a regular file of at most `limit` bytes.
    ///
    /// A FIFO, a device or a directory is refused (`EINVAL`) without waiting for it, a longer file with `EFBIG`: an image
    /// may well have made `/etc/passwd` one of these.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::INVAL.into());
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(Errno::FBIG.into());
        }
        Ok(bytes)
    }

    /// Whether `path` exists, not following a final link.
    pub fn exists(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        match self.resolve(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes `path` with everything below it, following no link and crossing no mount; fine if it is not there.
    pub fn remove_all(&self, path: impl AsRef<Path>) -> io::Result<()> {
        match self.parent(path) {
            Ok((parent, name)) => remove_tree(parent.as_fd(), &name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn openat2(&self, path: &Path, flags: OFlags, mode: Mode, extra: ResolveFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        for _ in 0..RENAME_RACES {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                done => return Ok(done?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The names and `..` of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// The last component if it names an entry: not for `/`, the empty path, or one that ends in `..`.
fn last_component(path: &Path) -> Option<&OsStr> {
    match path.components().next_back()? {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}

/// Removes the entry `name` of `dir` and all below it. Follows no link; stops with `EXDEV` at another file system.
///
/// A tree nested deeper than [`MAX_DEPTH`] is no weapon against stack or descriptors: from there on the children of a
/// directory are moved up into its parent before they are removed.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    remove_dir(dir, name, 0)?;
    Ok(())
}

/// Below this depth a directory is moved up beside the tree's top instead of being descended into.
const MAX_DEPTH: usize = 256;

fn remove_dir(parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
    let fd = match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut deep = 0_u64;
    loop {
        let mut removed_any = false;
        let mut moved = Vec::new();
        let mut entries = rustix::fs::Dir::read_from(&fd)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let child = entry.file_name();
            if matches!(child.to_bytes(), b"." | b"..") {
                continue;
            }
            removed_any = true;
            if entry.file_type() != FileType::Directory {
                match rustix::fs::unlinkat(&fd, child, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => continue,
                    Err(Errno::ISDIR) => {}
                    Err(error) => return Err(error),
                }
            }
            let child = OsString::from_vec(child.to_bytes().to_vec());
            if depth < MAX_DEPTH {
                remove_dir(fd.as_fd(), &child, depth + 1)?;
            } else {
                moved.push(child);
            }
        }
        // Too deep to recurse: empty each such directory by moving its children up here, then look again.
        for child in moved {
            deep += hoist(fd.as_fd(), &child, deep)?;
        }
        if !removed_any {
            break;
        }
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Moves the children of the directory `name` into `dir` under new names and removes it; returns how many there were.
fn hoist(dir: BorrowedFd<'_>, name: &OsStr, first: u64) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut entries = rustix::fs::Dir::read_from(&fd)?;
    let mut count = 0;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        rustix::fs::renameat(&fd, entry.file_name(), dir, format!(".ferry-hoisted-{}", first + count))?;
        count += 1;
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(outside.path().join("root")).unwrap();
        std::fs::write(outside.path().join("canary"), "untouched").unwrap();
        let root = Root::open(&outside.path().join("root")).unwrap();
        (outside, root)
    }

    #[test]
    fn a_link_or_dotdot_cannot_leave_the_root() {
        let (outside, root) = root();
        symlink("../canary", outside.path().join("root/relative")).unwrap();
        symlink(outside.path().join("canary"), outside.path().join("root/absolute")).unwrap();
        for path in ["relative", "absolute", "../canary", "../../canary", "/../canary"] {
            let error = root.resolve(path, OFlags::PATH).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
    }

    #[test]
    fn absolute_links_start_at_the_root() {
        let (outside, root) = root();
        std::fs::create_dir(outside.path().join("root/usr")).unwrap();
        std::fs::write(outside.path().join("root/usr/file"), "inside").unwrap();
        symlink("/usr", outside.path().join("root/lib")).unwrap();
        assert_eq!(root.read("lib/file", 64).unwrap(), b"inside");
        assert_eq!(
            root.resolve_no_links("lib/file", OFlags::PATH)
                .unwrap_err()
                .raw_os_error(),
            Some(libc::ELOOP)
        );
    }

    #[test]
    fn magic_links_are_refused() {
        let root = Root::open(Path::new("/proc")).unwrap();
        let error = root.resolve("self/fd/0", OFlags::RDONLY).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn mkdir_all_goes_through_links_inside_and_never_outside() {
        let (outside, root) = root();
        std::fs::create_dir(outside.path().join("root/usr")).unwrap();
        symlink("usr/lib", outside.path().join("root/dangling")).unwrap();
        symlink("usr", outside.path().join("root/link")).unwrap();
        root.mkdir_all("/link/a/b", Mode::from(0o755)).unwrap();
        assert!(outside.path().join("root/usr/a/b").is_dir());
        root.mkdir_all("../up", Mode::from(0o755)).unwrap();
        assert!(outside.path().join("root/up").is_dir());
        assert!(root.mkdir_all("dangling/x", Mode::from(0o755)).is_err());
        assert!(!outside.path().join("up").exists());
    }

    #[test]
    fn dangling_links_are_taken_apart_inside_the_root() {
        let (outside, root) = root();
        let link = |target: &str, name: &str| symlink(target, outside.path().join("root").join(name)).unwrap();
        link("/tmp/foo/bar", "jump");
        link("/jump/baz/hosts", "hosts");
        link("../../../gone", "up");
        link("loop", "loop");
        let expand = |path: &str| root.expand(path).unwrap().display().to_string();
        assert_eq!(expand("/hosts"), "tmp/foo/bar/baz/hosts");
        assert_eq!(expand("up/../x"), "x");
        assert_eq!(expand("/a/./b/../c"), "a/c");
        assert_eq!(root.expand("loop").unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn parent_names_the_entry_without_looking_at_it() {
        let (outside, root) = root();
        symlink("/etc/passwd", outside.path().join("root/link")).unwrap();
        let (dir, name) = root.parent("link").unwrap();
        rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).unwrap();
        assert!(!root.exists("link").unwrap());
        for path in ["/", "", "..", "a/.."] {
            assert_eq!(
                root.parent(path).unwrap_err().raw_os_error(),
                Some(libc::EINVAL),
                "{path:?}"
            );
        }
    }

    #[test]
    fn only_a_bounded_regular_file_is_read() {
        let (outside, root) = root();
        let dir = outside.path().join("root");
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), FileType::Fifo, Mode::from(0o600), 0).unwrap();
        std::fs::write(dir.join("long"), [0; 65]).unwrap();
        assert_eq!(root.read("fifo", 64).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(root.read("long", 64).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        assert_eq!(root.read(".", 64).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn remove_all_takes_deep_trees_and_leaves_link_targets() {
        let (outside, root) = root();
        let mut dir = root.mkdir_all("deep", Mode::from(0o755)).unwrap();
        symlink(outside.path().join("canary"), outside.path().join("root/deep/link")).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&dir, "d", Mode::from(0o755)).unwrap();
            rustix::fs::symlinkat("/", &dir, "l").unwrap();
            dir = rustix::fs::openat(&dir, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        root.remove_all("deep").unwrap();
        assert!(!root.exists("deep").unwrap());
        assert_eq!(
            std::fs::read_to_string(outside.path().join("canary")).unwrap(),
            "untouched"
        );
        root.remove_all("deep").unwrap();
    }
}
