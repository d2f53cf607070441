//! The helper's side of [`crate::files`].

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use ferry_archive::{ApplyOptions, CreateOptions, Owner, Whiteouts};
use ferry_kit::error::chain;
use ferry_runtime::view::{self, View};
use ferry_runtime::{Failure, Kind};
use ferry_sys::{Root, SingleThreaded};
use jiff::Timestamp;
use rustix::fs::{FileType, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::files::{FileStat, FilesError, FilesRequest, FilesView, Operation};
use crate::wire::{self, Message, Refusal, Reply};

/// Archives are written and read in pieces of this size.
const CHUNK: usize = 256 * 1024;
/// Links that are followed to name a link's target (`MAXSYMLINKS` in the kernel).
const LINKS: usize = 40;

/// Does what it is asked to and tells the daemon, whose connection is `daemon`.
pub(super) fn run(
    proof: &SingleThreaded,
    daemon: &OwnedFd,
    id: u64,
    request: FilesRequest,
    fds: Vec<OwnedFd>,
) -> io::Result<()> {
    let told = |stat| {
        let result = Ok(Reply::File(stat));
        wire::send(daemon, &Message::Reply { id, result }, &[]).map_err(other)
    };
    let result = work(proof, request, fds, told).map_err(Refusal::Files);
    wire::send(daemon, &Message::Reply { id, result }, &[])
}

fn work(
    proof: &SingleThreaded,
    request: FilesRequest,
    mut fds: Vec<OwnedFd>,
    tell: impl Fn(FileStat) -> Result<(), FilesError>,
) -> Result<Reply, FilesError> {
    let data = match request.operation {
        Operation::Stat | Operation::Lookup(_) => None,
        Operation::Read { .. } | Operation::Write { .. } => fds.pop(),
    };
    let root = enter(proof, &request.view, fds).map_err(|failure| FilesError::Other(failure.message))?;
    let missing = || FilesError::Other("no pipe came with the request".to_owned());
    match request.operation {
        Operation::Stat => Ok(Reply::File(stat(&root, &request.path, request.directory)?)),
        Operation::Lookup(user) => match view::ids(&root, &user) {
            Ok(_) => Ok(Reply::Done),
            Err(failure) => Err(FilesError::Invalid(failure.message)),
        },
        Operation::Read { name } => {
            tell(stat(&root, &request.path, request.directory)?)?;
            let path = match request.directory {
                // A final link is one on the way then.
                true => request.path.join("."),
                false => request.path,
            };
            let options = CreateOptions {
                name: Some(name),
                cross_mounts: true,
                contents_only: false,
            };
            let pipe = BufWriter::with_capacity(CHUNK, File::from(data.ok_or_else(missing)?));
            ferry_archive::create(&root, &path, pipe, &options).map_err(other)?;
            Ok(Reply::Done)
        }
        Operation::Write { keep_kinds, owner } => {
            let below = directory(&root, &request.path)?;
            let owner = owner.map(|user| view::ids(&root, &user)).transpose();
            let options = ApplyOptions {
                whiteouts: Whiteouts::Literal,
                below,
                owner: match owner.map_err(|failure| FilesError::Other(failure.message))? {
                    Some((uid, gid)) => Owner::Fixed(uid, gid),
                    None => Owner::Archive,
                },
                keep_kinds,
                ..ApplyOptions::default()
            };
            let mut pipe = BufReader::with_capacity(CHUNK, File::from(data.ok_or_else(missing)?));
            let done = unpack(&mut pipe, &root, &options);
            // What the client still sends: were it left in the pipe, the daemon would wait for ever to get rid of it.
            let _ = io::copy(&mut pipe.take(u64::MAX), &mut io::sink());
            done.map(|()| Reply::Done)
        }
    }
}

fn enter(proof: &SingleThreaded, view: &FilesView, mut fds: Vec<OwnedFd>) -> Result<Root, Failure> {
    match view {
        FilesView::Running { user_namespace } => {
            let first = fds.pop();
            let first = first.ok_or_else(|| Failure::new(Kind::Setup, "no process came with the request"))?;
            let user = *user_namespace;
            view::enter(proof, View::Running { first, user })
        }
        FilesView::Stopped {
            rootfs,
            mounts,
            readonly,
        } => {
            let (root, user) = super::mount_root(proof, rootfs)?;
            let readonly = *readonly;
            view::enter(
                proof,
                View::Stopped {
                    root,
                    mounts,
                    readonly,
                    user,
                },
            )
        }
    }
}

fn stat(root: &Root, path: &Path, directory: bool) -> Result<FileStat, FilesError> {
    let flags = if directory { OFlags::DIRECTORY } else { OFlags::NOFOLLOW };
    let fd = root.resolve(path, OFlags::PATH | flags).map_err(not_there)?;
    let stat = rustix::fs::fstat(&fd).map_err(|error| not_there(error.into()))?;
    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(FileStat {
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        mtime: Timestamp::new(stat.st_mtime, nanos).unwrap_or_default(),
        target: if link { follow(root, path) } else { PathBuf::new() },
    })
}

/// The directory to unpack into, by a path without links.
fn directory(root: &Root, path: &Path) -> Result<PathBuf, FilesError> {
    let fd = root.resolve(path, OFlags::PATH).map_err(not_there)?;
    let stat = rustix::fs::fstat(&fd).map_err(|error| not_there(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(FilesError::NotADirectory);
    }
    let mount = rustix::fs::fstatvfs(fd.as_fd()).map_err(|error| not_there(error.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(FilesError::ReadOnly);
    }
    let path = follow(root, path);
    Ok(path.strip_prefix("/").unwrap_or(&path).to_owned())
}

/// Where a path leads when every link is followed inside the root, as far as there is something. Only a name: whoever uses it
/// resolves it again.
fn follow(root: &Root, path: &Path) -> PathBuf {
    let mut reached = PathBuf::from("/");
    let mut ahead: Vec<PathBuf> = vec![path.to_owned()];
    let mut links = 0;
    while let Some(next) = ahead.pop() {
        let mut components = next.components();
        let Some(component) = components.next() else { continue };
        let rest = components.as_path().to_owned();
        if !rest.as_os_str().is_empty() {
            ahead.push(rest);
        }
        match component {
            Component::RootDir => reached = PathBuf::from("/"),
            Component::ParentDir => drop(reached.pop()),
            Component::Normal(name) => {
                let child = reached.join(name);
                let handle = root.resolve(&child, OFlags::PATH | OFlags::NOFOLLOW);
                let target = handle
                    .ok()
                    .and_then(|fd| rustix::fs::readlinkat(fd, "", Vec::new()).ok());
                match target {
                    Some(target) if links < LINKS => {
                        use std::os::unix::ffi::OsStringExt as _;
                        links += 1;
                        ahead.push(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())));
                    }
                    _ => reached = child,
                }
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    reached
}

fn unpack(pipe: &mut BufReader<File>, root: &Root, options: &ApplyOptions<'_>) -> Result<(), FilesError> {
    use ferry_archive::Error as E;
    // Nothing at all is an archive without entries, as for Docker.
    if io::BufRead::fill_buf(pipe).map_err(other)?.is_empty() {
        return Ok(());
    }
    let applied = ferry_archive::decompress(pipe).and_then(|stream| ferry_archive::apply(stream, root, options));
    match applied {
        Ok(_) => Ok(()),
        Err(E::Write { source, .. }) if source.raw_os_error() == Some(Errno::ROFS.raw_os_error()) => {
            Err(FilesError::ReadOnly)
        }
        Err(error @ (E::Write { .. } | E::Read { .. })) => Err(other(error)),
        Err(error) => Err(FilesError::Invalid(chain(&error))),
    }
}

fn not_there(error: io::Error) -> FilesError {
    match error.kind() {
        io::ErrorKind::NotFound => FilesError::NotFound,
        io::ErrorKind::NotADirectory => FilesError::NotADirectory,
        _ => other(error),
    }
}

fn other(error: impl std::error::Error + 'static) -> FilesError {
    FilesError::Other(chain(&error))
}
